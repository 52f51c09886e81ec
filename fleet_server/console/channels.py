"""Owns how a form becomes a notification channel, and what a form may know of one. Pure: no database, no network.

Addresses, signing secrets and passwords go in and never come out: a form that is shown again holds none of them, an empty field keeps what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fleet_server.console.actions import person_text
from fleet_server.errors import Refused
from fleet_server.notifications.filters import Filters
from fleet_server.notifications.kinds import KINDS
from fleet_server.notifications.mail import MailConfig, MailSecret
from fleet_server.notifications.sending import SendFailed, check_url, host_of
from fleet_server.notifications.setup import Config, RobotConfig, UrlSecret
from fleet_server.notifications.webhook import new_secret, signing_key
from protocols.canon.faults import FAULTS

NAME_MAX: Final = 64
SEVERITIES: Final = ("P1", "P2", "P3", "P4")
FAMILIES: Final = tuple(dict.fromkeys(kind.family for kind in FAULTS.values()))
RHYTHMS: Final = (1, 5, 10, 15, 30, 60, 240)
"""Minutes between two messages that a form offers."""
SIGNED: Final = frozenset({"webhook", "dingtalk", "feishu"})
KEYWORD: Final = frozenset({"dingtalk", "feishu"})


@dataclass(frozen=True, slots=True)
class Before:
    """The channel that a form changes; `secret` in the clear, None if it does not open any more. Not to be logged."""

    name: str
    config: str
    filters: str
    secret: bytes | None

    def __repr__(self) -> str:
        return f"Before({self.name})"


@dataclass(frozen=True, slots=True)
class Draft:
    """A channel as a form wants it. `made` is a signing secret that was made here, to be shown this once. Not to be logged."""

    name: str
    config: Config
    secret: msgspec.Struct
    filters: Filters
    host: str
    port: int
    new_address: bool
    """It goes to somebody else than before."""
    made: str | None = None

    def __repr__(self) -> str:
        return f"Draft({self.name})"


def read_channel(kind: str, form: Mapping[str, str], areas: Collection[str], before: Before | None = None) -> Draft:
    """Raises Refused with the field and what is wrong with it."""
    if kind not in KINDS:
        raise Refused("kind", "channelKind")
    name = person_text("name", form.get("name", ""), NAME_MAX)
    filters = read_filters(form, areas)
    lang = "en" if form.get("lang") == "en" else "zh"
    if kind == "mail":
        return _mail(name, form, filters, lang, before)
    return _address(kind, name, form, filters, lang, before)


def _address(kind: str, name: str, form: Mapping[str, str], filters: Filters, lang: Any, before: Before | None) -> Draft:
    old = None if before is None or before.secret is None else msgspec.json.decode(before.secret, type=UrlSecret)
    config_type = KINDS[kind].config
    config = msgspec.json.decode(before.config, type=config_type) if before is not None else config_type()
    typed = form.get("url", "").strip()
    if not typed and old is None:
        raise Refused("url", "channelUrl")
    url = typed or (old.url if old is not None else "")
    is_new = old is None or url != old.url
    _try("url", "channelUrl", lambda: check_url(url, plain_allowed=kind == "webhook"))
    secret, made = _signing(kind, form, None if old is None else old.secret)
    values: dict[str, Any] = {"lang": lang, "host": host_of(url), "own_machine": config.own_machine and not is_new}
    if kind in KEYWORD:
        assert isinstance(config, RobotConfig)
        values["keyword"] = " ".join(form.get("keyword", "").split())[:50] or None
    changed = msgspec.structs.replace(config, **values)
    return Draft(
        name, changed, UrlSecret(url=url, secret=secret), filters, host_of(url), 443, is_new and before is not None, made
    )


def _signing(kind: str, form: Mapping[str, str], old: str | None) -> tuple[str | None, str | None]:
    """(signing secret, the same if it was made here)."""
    typed = form.get("secret", "").strip()
    if kind not in SIGNED or (kind != "webhook" and form.get("no_secret")):
        return None, None
    if kind != "webhook":
        return typed or old, None
    if form.get("new_secret") or not (typed or old):
        made = new_secret()
        return made, made
    secret = typed or old or ""
    _try("secret", "channelSecret", lambda: signing_key(secret))
    return secret, None


def _mail(name: str, form: Mapping[str, str], filters: Filters, lang: Any, before: Before | None) -> Draft:
    old = msgspec.json.decode(before.config, type=MailConfig) if before is not None else None
    stored = None if before is None or before.secret is None else msgspec.json.decode(before.secret, type=MailSecret).password
    security = form.get("security") or "starttls"
    values = {
        "lang": lang,
        "host": form.get("host", "").strip(),
        "port": form.get("port", "").strip() or (465 if security == "tls" else 587),
        "security": security,
        "sender": form.get("sender", "").strip(),
        "to": [line.strip() for line in form.get("to", "").replace(",", "\n").splitlines() if line.strip()],
        "user": form.get("user", "").strip() or None,
    }
    if (
        not values["host"]
        or len(str(values["host"])) > 253
        or any(character.isspace() or character == "/" for character in str(values["host"]))
    ):
        raise Refused("host", "channelHost")
    try:
        config = msgspec.convert(values, MailConfig, strict=False)
    except msgspec.ValidationError as err:
        field = next((word for word in ("port", "security", "sender", "to") if f".{word}" in str(err)), "to")
        raise Refused(field, f"channelMail{field.capitalize()}") from None
    if config.user is not None and config.security == "none":
        raise Refused("security", "channelTls")
    moved = old is None or (old.host, old.port, old.security, old.user) != (
        config.host,
        config.port,
        config.security,
        config.user,
    )
    password = form.get("password", "") or None
    if config.user is not None and password is None:
        # A stored password is not taken to another server: whoever names the server would be told it.
        if moved or stored is None:
            raise Refused("password", "channelPassword")
        password = stored
    if old is not None:
        config = msgspec.structs.replace(config, ca_file=old.ca_file, own_machine=old.own_machine and old.host == config.host)
    secret = MailSecret(password=password if config.user is not None else None)
    new_address = old is not None and set(old.to) != set(config.to)
    return Draft(name, config, secret, filters, config.host, config.port, new_address)


def _try(field: str, word: str, work: Callable[[], object]) -> None:
    try:
        work()
    except SendFailed:
        raise Refused(field, word) from None


# What it hears ----------------------------------------------------------------------------------------------------------------------------


def read_filters(form: Mapping[str, str], areas: Collection[str]) -> Filters:
    severities = tuple(severity for severity in SEVERITIES if form.get(f"sev_{severity}"))
    if not severities:
        raise Refused("severities", "channelSeverities")
    values = {
        "severities": severities,
        "areas": tuple(sorted(area for area in areas if form.get(f"area_{area}"))),
        "kinds": tuple(family for family in FAMILIES if form.get(f"kind_{family}")),
        "quiet": dict(_quiet(form)),
        "escalate_min": dict(_escalate(form)),
        "recoveries": bool(form.get("recoveries")),
        "every_min": _minutes(form.get("every_min", "1"), "every_min"),
    }
    try:
        return msgspec.convert(values, Filters)
    except msgspec.ValidationError as err:
        word = next((word for word in ("quiet", "escalate_min", "every_min") if word in str(err)), "severities")
        raise Refused(word, {"quiet": "channelQuiet", "severities": "channelSeverities"}.get(word, "channelMinutes")) from None


def _quiet(form: Mapping[str, str]) -> Iterable[tuple[str, tuple[str, str]]]:
    for severity in SEVERITIES:
        start, end = form.get(f"quiet_from_{severity}", "").strip(), form.get(f"quiet_to_{severity}", "").strip()
        if bool(start) != bool(end) or (start and start == end):
            raise Refused("quiet", "channelQuiet")
        if start:
            yield severity, (start[:5], end[:5])


def _escalate(form: Mapping[str, str]) -> Iterable[tuple[str, int]]:
    for severity in SEVERITIES:
        text = form.get(f"escalate_{severity}", "").strip()
        if text:
            yield severity, _minutes(text, "escalate_min")


def _minutes(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4):
        raise Refused(field, "channelMinutes")
    return int(text)


# What a form shows --------------------------------------------------------------------------------------------------------------------------


def form_of_channel(kind: str, before: Before | None) -> dict[str, str]:
    """Fields of a form for a channel as it is, or for a new one: never an address, a secret or a password."""
    config = _shown_config(kind, before)
    filters = msgspec.json.decode(before.filters if before is not None else "{}", type=Filters)
    form = {"kind": kind, "name": before.name if before is not None else "", "lang": config.get("lang", "zh")}
    for field in ("host", "port", "security", "sender", "user", "keyword"):
        form[field] = str(config.get(field) or "")
    form["to"] = "\n".join(config.get("to", ()))
    form |= {f"sev_{severity}": "on" for severity in filters.severities}
    form |= {f"area_{area}": "on" for area in filters.areas}
    form |= {f"kind_{family}": "on" for family in filters.kinds}
    for severity, (start, end) in filters.quiet.items():
        form |= {f"quiet_from_{severity}": start, f"quiet_to_{severity}": end}
    form |= {f"escalate_{severity}": str(minutes) for severity, minutes in filters.escalate_min.items()}
    form["every_min"] = str(filters.every_min)
    if filters.recoveries:
        form["recoveries"] = "on"
    return form


def _shown_config(kind: str, before: Before | None) -> dict[str, Any]:
    """Defaults included: what is stored leaves them out."""
    if before is None:
        return {}
    found: dict[str, Any] = msgspec.structs.asdict(msgspec.json.decode(before.config, type=KINDS[kind].config))
    return found


SECRET_FIELDS: Final = frozenset({"url", "secret", "password"})


def form_again(form: Mapping[str, str]) -> dict[str, str]:
    """A form that was refused, without what must be typed again."""
    return {name: value for name, value in form.items() if name not in SECRET_FIELDS}
