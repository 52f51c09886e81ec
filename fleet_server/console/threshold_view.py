"""Thresholds as people read and type them: values with their units, sections of the page, who set what. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleet_server.console.render import Voice
from fleet_server.errors import Refused
from fleet_server.thresholds.defaults import DEFAULTS, TERMINAL_CLASSES, Default
from fleet_server.thresholds.rules import FLEET, SCOPES, Effective, OutOfBounds, OutOfOrder, Setting

SECTIONS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("contact", ("presence", "platform")),
    ("attention", ("alarm", "recurring", "idle", "consumable", "certificate")),
    ("targets", ("availability", "intact", "online", "fault_rate", "use_rate")),
    ("work", ("enrolment", "account", "order", "audit")),
    ("notification", ("notification",)),
    ("response", ("response", "spare")),
    ("service", ("reviews", "queue", "hotline")),
)
"""Sections and the groups of thresholds in them, in the order of the page."""
_LARGER: Final = {"s": (("day", 86_400), ("h", 3_600), ("min", 60)), "min": (("day", 1_440), ("h", 60)), "h": (("day", 24),)}


def value_words(voice: Voice, value: float, unit: str) -> str:
    """`90 秒`, `5 分钟`, `4 小时 10 分`, `98 %`: the largest unit in which the value is whole; a day is 24 hours, two are two days."""
    for larger, size in _LARGER.get(unit, ()):
        if value >= size * (2 if larger == "day" else 1) and value % size == 0:
            value, unit = value / size, larger
            break
    if unit == "min" and value > 60:
        return voice.duration(round(value * 60_000))
    if unit == "share":
        value *= 100
    return voice.t(f"threshold.unit.{unit}", n=number(value))


def number(value: float) -> str:
    """Without a tail of zeros: `98`, `97.5`."""
    return f"{value:.4f}".rstrip("0").rstrip(".")


def typed(default: Default, value: float) -> str:
    """As the form shows it: shares in percent."""
    return number(value * 100 if default.unit == "share" else value)


def read_value(default: Default, text: str) -> float:
    """What a person typed, in the catalogue's unit. Refused if it is no number."""
    tidy = unicodedata.normalize("NFKC", text).strip().rstrip("%").strip()
    try:
        value = float(tidy)
    except ValueError:
        raise Refused("value", "notANumber") from None
    return round(value / 100, 6) if default.unit == "share" else value


def refusal(voice: Voice, refused: Refused) -> str:
    """What is wrong with a value, with the bound or the neighbour it meets."""
    if isinstance(refused, OutOfBounds):
        default = refused.default
        low, high = (value_words(voice, bound, default.unit) for bound in (default.low, default.high))
        return voice.t("threshold.refused.bounds", low=low, high=high)
    if isinstance(refused, OutOfOrder):
        words = {(True, False): "less", (True, True): "atMost", (False, False): "more", (False, True): "atLeast"}
        word = words[refused.must_be_less, refused.or_equal]
        other = refused.other
        return voice.t(
            f"threshold.refused.{word}",
            other=label(voice, DEFAULTS[other.name]),
            value=value_words(voice, other.value, other.unit),
        )
    return voice.t(f"threshold.refused.{refused.reason}")


def label(voice: Voice, default: Default) -> str:
    return default.zh if voice.lang == "zh" else default.en


def scope_word(voice: Voice, scope: str) -> str:
    return voice.t(f"class.{scope}" if scope != FLEET else "threshold.everyClass")


def sections(voice: Voice, in_force: Mapping[str, Mapping[str, Effective]]) -> list[dict[str, Any]]:
    """Rows by section. `in_force` are the effective values by scope and name."""
    found = []
    for section, groups in SECTIONS:
        rows = [row(voice, default, in_force) for default in DEFAULTS.values() if default.group in groups]
        found.append({"name": section, "rows": rows, "changed": sum(one["changed"] for one in rows)})
    return found


def row(voice: Voice, default: Default, in_force: Mapping[str, Mapping[str, Effective]]) -> dict[str, Any]:
    scopes = TERMINAL_CLASSES if default.per_class else (FLEET,)
    values = [_cell(voice, default, scope, in_force[scope][default.name]) for scope in scopes]
    if len({cell["value"] for cell in values}) == 1 and len({cell["set"] for cell in values}) == 1:
        values = [{**values[0], "scope": ""}]
    return {
        "name": default.name,
        "label": label(voice, default),
        "help": voice.t(f"threshold.help.{default.name}"),
        "use": default.use,
        "default": default_words(voice, default),
        "values": values,
        "changed": any(cell["set"] for cell in values),
    }


def default_words(voice: Voice, default: Default) -> str:
    own = [
        voice.t("threshold.ofClass", scope=scope_word(voice, scope), value=value_words(voice, value, default.unit))
        for scope, value in default.by_class.items()
    ]
    return voice.t("threshold.join").join([value_words(voice, default.value, default.unit), *own])


def _cell(voice: Voice, default: Default, scope: str, one: Effective) -> dict[str, Any]:
    set_words = "" if one.set_ms is None else voice.t("threshold.setBy", who=one.set_by, when=voice.stamp(one.set_ms)[:16])
    return {
        "scope": scope_word(voice, scope) if scope else "",
        "value": value_words(voice, one.value, default.unit),
        "set": set_words,
    }


def history_words(voice: Voice, default: Default, settings: Sequence[Setting]) -> list[dict[str, Any]]:
    rows = []
    for one in settings:
        if one.value is None:
            what = voice.t("threshold.event.back")
        else:
            what = voice.t("threshold.event.set", value=value_words(voice, one.value, default.unit))
        where = voice.t("threshold.event.scope", scope=scope_word(voice, one.scope)) if default.per_class else ""
        rows.append({"at_ms": one.set_ms, "by": one.set_by, "what": what, "parts": [where] if where else []})
    return rows


def scope_options(voice: Voice, default: Default) -> list[tuple[str, str]]:
    """Whose value may be set; a class with a default of its own is not reached by the fleet's, which the form says."""
    return [(scope, scope_word(voice, scope)) for scope in SCOPES] if default.per_class else [(FLEET, scope_word(voice, FLEET))]
