"""`fleet-server channel …`: who is told. Addresses with tokens, secrets and passwords are asked for or read from stdin, never taken from the command
line: there every user of the machine could read them."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any, TypeVar

import msgspec

from fleet_server.errors import SettingsError
from fleet_server.settings import Settings

T = TypeVar("T")
AddCommand = Callable[[str, str, Callable[[Settings, argparse.Namespace], int | None]], argparse.ArgumentParser]

SHOWN = {
    "webhook": "JSON webhook",
    "mail": "e-mail",
    "dingtalk": "DingTalk robot",
    "wecom": "WeCom robot",
    "feishu": "Feishu robot",
}


def add_to(command: AddCommand) -> None:
    """Add these commands to the parser of `fleet-server`."""
    channel = command("channel", "say who is told about faults: webhook, e-mail, DingTalk, WeCom, Feishu", _list)
    verbs = channel.add_subparsers(required=True, metavar="ACTION")

    def verb(name: str, what: str, run: Callable[[Settings, argparse.Namespace], int | None]) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=what, description=what)
        added.set_defaults(command=run)
        return added

    add = verb("add", "add a channel; address and secrets are asked for, or read from stdin line by line", _add)
    add.add_argument("kind", choices=list(SHOWN))
    add.add_argument("name", help="what you call it; it stands in its messages")
    add.add_argument("--lang", choices=["zh", "en"], default="zh")
    add.add_argument("--severities", metavar="P1,P2,…", help="what it hears; default P1,P2,P3")
    add.add_argument("--areas", metavar="CODE,…", help="only these areas and what lies below them")
    add.add_argument(
        "--quiet",
        action="append",
        metavar="P3=20:00-08:00",
        help="wait until the end of these hours; repeatable; `none` for never",
    )
    add.add_argument(
        "--escalate",
        action="append",
        metavar="P1=10",
        help="say again after so many minutes without anybody on it; `none` for never",
    )
    add.add_argument("--no-recoveries", action="store_true", help="say nothing when a fault is over")
    add.add_argument("--keyword", help="a word that a DingTalk or Feishu robot asks for")
    add.add_argument("--ca-file", metavar="FILE", help="further certificate authorities, for services of a closed network")
    mail = add.add_argument_group("e-mail")
    mail.add_argument("--host", help="mail server")
    mail.add_argument("--port", type=int, help="default 587, or 465 with --security tls")
    mail.add_argument("--security", choices=["starttls", "tls", "none"], default="starttls")
    mail.add_argument("--from", dest="sender", metavar="ADDRESS")
    mail.add_argument("--to", action="append", default=[], metavar="ADDRESS", help="repeatable")
    mail.add_argument("--user", help="sign in to the mail server; the password is asked for")

    verb("list", "show the channels and how their newest message fared", _list)
    for name, what, run in (
        ("test", "send a test message now", _test),
        ("enable", "switch a channel on", _enable),
        ("disable", "switch a channel off; what waits for it is dropped", _disable),
        ("remove", "remove a channel", _remove),
    ):
        verb(name, what, run).add_argument("name")


# Adding ---------------------------------------------------------------------------------------------------------------------------------


def _add(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.notifications import store
    from fleet_server.notifications.filters import Filters
    from fleet_server.notifications.kinds import KINDS
    from fleet_server.notifications.secrets import SecretBox
    from fleet_server.notifications.sending import host_of

    kind = KINDS[options.kind]
    asked: dict[str, str | None] = {}
    notes: list[str] = []
    if options.kind == "mail":
        host, config = options.host or "", _mail_config(options)
        if options.user is not None:
            asked["password"] = _ask("password")
    else:
        asked["url"] = _ask("address of the webhook")
        asked["secret"] = _ask_secret(options.kind, notes)
        host, config = host_of(asked["url"] or ""), {}
    if host and _leads_home(host):
        config["own_machine"] = True
    config |= {"lang": options.lang, "host": host}
    config |= {key: value for key, value in {"ca_file": options.ca_file, "keyword": options.keyword}.items() if value is not None}
    try:
        made = msgspec.convert(config, kind.config, strict=False)
        secret = msgspec.convert({key: value for key, value in asked.items() if value}, kind.secret)
        filters = msgspec.convert(_filters(options), Filters, strict=False)
    except msgspec.ValidationError as err:
        raise SettingsError(f"channel {options.name}: {err}") from None
    if not 0 < len(options.name) <= NAME_MAX or options.name != options.name.strip():
        raise SettingsError(f"a channel's name has 1 to {NAME_MAX} characters")
    box = SecretBox(settings.layout.authority)
    config_json, secret_json = msgspec.json.encode(made), msgspec.json.encode(secret)
    _try_open(settings, options.kind, options.name, config_json, secret_json)

    def work(connection: Any) -> int:
        return store.add_channel(
            connection,
            kind=options.kind,
            name=options.name,
            config=config_json.decode(),
            filters=msgspec.json.encode(filters).decode(),
            secret=box.seal(secret_json, store.seal_name(options.kind, options.name)),
            by=f"cli:{getpass.getuser()}",
            now_ms=_now_ms(),
        )

    _in_database(settings, work)
    print(f"channel {options.name} is added: {SHOWN[options.kind]} at {host}")
    for note in notes:
        print(note)
    print(f"`fleet-server channel test {options.name}` sends a message to it")


def _leads_home(host: str) -> bool:
    """Whoever runs this command reaches the machine's own addresses anyway; the console does not let anybody set one."""
    from fleet_server.notifications.addresses import is_own_machine

    return is_own_machine(host)


NAME_MAX = 64


def _mail_config(options: argparse.Namespace) -> dict[str, Any]:
    missing = [name for name, value in (("--host", options.host), ("--from", options.sender), ("--to", options.to)) if not value]
    if missing:
        raise SettingsError(f"e-mail needs {' and '.join(missing)}")
    port = options.port or (465 if options.security == "tls" else 587)
    found = {"port": port, "security": options.security, "sender": options.sender, "to": options.to}
    return found if options.user is None else {**found, "user": options.user}


def _ask_secret(kind: str, notes: list[str]) -> str | None:
    """The signing secret, if the platform has one. Ours is made here, because receivers are told it."""
    if kind == "wecom":
        return None
    if kind == "webhook":
        from fleet_server.notifications.webhook import new_secret

        secret = _ask("signing secret, whsec_…; empty to have one made") or new_secret()
        notes.append(f"signing secret     {secret} (shown this once; the receiver needs it)")
        return secret
    return _ask("signing secret; empty if the robot has none") or None


def _try_open(settings: Settings, kind: str, name: str, config: bytes, secret: bytes) -> None:
    """What cannot work is said now, not in a log later."""
    from fleet_server.notifications.kinds import KINDS
    from fleet_server.notifications.setup import Setup

    sender = KINDS[kind].open(Setup(name, config, secret, settings.timezone, settings.fleet))
    asyncio.run(sender.close())


def _filters(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"recoveries": not options.no_recoveries}
    if options.severities is not None:
        found["severities"] = _words(options.severities)
    if options.areas is not None:
        found["areas"] = _words(options.areas)
    if options.quiet is not None:
        found["quiet"] = {key: tuple(value.split("-", 1)) for key, value in _pairs("--quiet", options.quiet)}
    if options.escalate is not None:
        found["escalate_min"] = dict(_pairs("--escalate", options.escalate))
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _pairs(option: str, texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    for text in texts:
        if text == "none":
            continue
        key, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"{option}: {text!r} is not SEVERITY=VALUE")
        yield key, value


def _ask(what: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    return getpass.getpass(f"{what}: ").strip()


# Looking, testing, removing ---------------------------------------------------------------------------------------------------------------


def _list(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.notifications import store

    rows, newest = _in_database(settings, lambda connection: (store.channels(connection), store.newest(connection)))
    if not rows:
        print("nobody is told: there is no channel")
    for row in rows:
        config: Mapping[str, Any] = msgspec.json.decode(row.config)
        last = newest.get(row.id)
        print(f"{row.name}: {SHOWN.get(row.kind, row.kind)} at {config.get('host', '')}{'' if row.enabled else ', switched off'}")
        print(f"  hears {row.filters}")
        print(f"  {_fared(last)}; set by {row.set_by} {_when(row.set_ms)}")


def _fared(last: Any) -> str:
    if last is None:
        return "no message yet"
    if last.state == "sent":
        return f"newest message delivered {_when(last.sent_ms)}"
    why = f": {last.error}" if last.error else ""
    return f"newest message of {_when(last.created_ms)} is {last.state}, {last.attempts} attempts{why}"


def _test(settings: Settings, options: argparse.Namespace) -> int:
    from fleet_server.notifications import store
    from fleet_server.notifications.courier import new_message_id, send_once
    from fleet_server.notifications.digest import Digest
    from fleet_server.notifications.secrets import SecretBox

    row = _in_database(settings, lambda connection: store.channel(connection, options.name))
    digest = Digest(id=new_message_id(), at_ms=_now_ms(), test=True)
    by = f"cli:{getpass.getuser()}"
    number = _in_database(settings, lambda connection: store.begin_test(connection, row, digest, by=by, now_ms=digest.at_ms))
    box = SecretBox(settings.layout.authority)
    error = asyncio.run(send_once(row, box, digest, zone=settings.timezone, fleet=settings.fleet, now_ms=digest.at_ms))
    _in_database(settings, lambda connection: store.end_test(connection, number, error=error, now_ms=_now_ms()))
    if error is not None:
        print(f"{row.name}: not delivered: {error}")
        return 1
    print(f"{row.name}: delivered")
    return 0


def _enable(settings: Settings, options: argparse.Namespace) -> None:
    _switch(settings, options.name, enabled=True)


def _disable(settings: Settings, options: argparse.Namespace) -> None:
    _switch(settings, options.name, enabled=False)


def _switch(settings: Settings, name: str, *, enabled: bool) -> None:
    from fleet_server.notifications import store

    by = f"cli:{getpass.getuser()}"
    _in_database(settings, lambda connection: store.enable_channel(connection, name, enabled=enabled, by=by, now_ms=_now_ms()))
    print(f"channel {name} is {'on' if enabled else 'off'}")


def _remove(settings: Settings, options: argparse.Namespace) -> None:
    from fleet_server.notifications import store

    _in_database(
        settings,
        lambda connection: store.remove_channel(connection, options.name, by=f"cli:{getpass.getuser()}", now_ms=_now_ms()),
    )
    print(f"channel {options.name} is removed")


def _in_database(settings: Settings, work: Callable[[Any], T]) -> T:
    from fleet_server import db
    from fleet_server.channel import transact

    if not settings.layout.database.exists():
        raise SettingsError(f"there is no server in {settings.data_dir}; `fleet-server init` makes one")
    if not db.is_current(settings.layout.database):
        raise SettingsError(f"{settings.layout.database} is of an older version; stop the server and run `fleet-server migrate`")
    with closing(db.open_raw(settings.layout.database)) as connection:
        return transact(connection, work)


def _when(at_ms: int | None) -> str:
    return "–" if at_ms is None else time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ms / 1000))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
