"""How a figure reads on a page: its value, its parts with their units, its change and its target. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet_server.console import format as fmt
from fleet_server.console.figures_view import behind_href
from fleet_server.console.format import Ratio
from fleet_server.console.render import Voice
from fleet_server.console.words import type_name
from fleet_server.figures.catalogue import CATALOGUE
from fleet_server.figures.figure import Figure
from fleet_server.thresholds.rules import Effective
from protocols.canon.faults import FAULTS

PART_UNITS: Final[dict[str, tuple[str, str]]] = {
    "success_rate": ("case", "case"),
    "success_by_item": ("case", "case"),
    "active_share": ("terminal", "terminal"),
    "cases_per_terminal": ("case", "machineDay"),
    "cases_per_terminal_day": ("case", "machineDay"),
    "cases_per_terminal_year": ("case", "machineDay"),
    "offhours_share": ("case", "case"),
    "online_rate": ("second", "second"),
    "availability": ("second", "second"),
    "intact_rate": ("check", "check"),
    "fault_rate": ("terminal", "terminal"),
    "mttr": ("second", "fault"),
    "mttr_by_code": ("second", "fault"),
    "good_rate": ("rating", "rating"),
    "rating_answered_share": ("rating", "asked"),
}
"""Units of numerator and denominator; a figure without a denominator counts its own unit."""
AGAINST: Final = {
    "online_rate": (("offline_s", "offline", "second"),),
    "availability": (
        ("silent_s", "silent", "second"),
        ("unusable_s", "unusable", "second"),
    ),
}  # fmt: skip
"""(name in `shown`, part, unit) of what counts against a rate: in the denominator alone."""
NEITHER: Final = {
    "cases": (("outside", "outside", "case"),),
    "online_rate": (
        ("blind_s", "blind", "second"),
        ("unwatched_s", "unwatched", "second"),
        ("maintenance_s", "maintenance", "second"),
    ),
    "availability": (
        ("blind_s", "blind", "second"),
        ("maintenance_s", "maintenance", "second"),
    ),
    "intact_rate": (
        ("unknown", "unknown", "check"),
        ("maintenance", "maintenance", "check"),
    ),
    "good_rate": (("unanswered", "unanswered", "rating"),),
}  # fmt: skip
"""(name in `shown`, part, unit) of what is in neither numerator nor denominator."""
TARGETS: Final = {
    "online_rate": ("online.month_min", "atLeast"),
    "availability": ("availability.month_min", "atLeast"),
    "intact_rate": ("intact.month_min", "atLeast"),
    "fault_rate": ("fault_rate.month_max", "atMost"),
    "good_rate": ("reviews.good_min", "atLeast"),
}
"""Figure → (threshold, whether the value should be at least or at most that)."""
_BIG_PERCENT: Final = 9.995


@dataclass(frozen=True, slots=True)
class Change:
    """Against the period before. `way` is up, down or same; the sign says nothing of good or bad."""

    way: str
    text: str


@dataclass(frozen=True, slots=True)
class Target:
    text: str
    who: str
    verdict: str
    """met, missed, or nothing where there is no value."""


def title(figure: Figure, voice: Voice) -> str:
    return CATALOGUE[figure.name].title(voice.lang)


def value(figure: Figure, voice: Voice) -> str | None:
    """The figure as a text with its unit where the unit is short; None where nothing is known."""
    if figure.value is None or (not figure.is_ratio and not figure.population):
        return None
    if figure.unit == "share":
        return Ratio(figure.numerator, figure.denominator or 0).percent
    if figure.unit == "perTerminal":
        return f"{figure.value:,.2f}" if figure.value < 1000 else f"{figure.value:,.0f}"
    if figure.unit == "hour":
        return voice.t("figures.hours", n=f"{figure.value:,.1f}")
    return fmt.count(figure.numerator)


def amount(number: int, unit: str, voice: Voice) -> str:
    """A numerator or denominator with its unit: `1,234.5 小时`, `5,218 件`."""
    if unit == "second":
        return voice.t("figures.hours", n=f"{number / 3600:,.1f}")
    return voice.t(f"figures.unit.{unit}", n=fmt.count(number))


def units(figure: Figure) -> tuple[str, str]:
    return PART_UNITS.get(figure.name, (figure.unit, ""))


def short(number: int, unit: str) -> str:
    """The bare number: seconds as hours."""
    return f"{number / 3600:,.1f}" if unit == "second" else fmt.count(number)


def change(now: Figure, before: Figure | None, voice: Voice) -> Change | None:
    """None where one of the two says nothing."""
    if before is None or not before.population or now.value is None or before.value is None:
        return None
    if now.unit == "share":
        points = round((now.value - before.value) * 100, 1)
        if not points:
            return Change("same", voice.t("figures.way.same"))
        return Change(_way(points), voice.t("figures.points", n=f"{points:+.1f}".replace("-", "−")))
    if not before.value:
        return None
    share = (now.value - before.value) / before.value
    if not round(share, 3):
        return Change("same", voice.t("figures.way.same"))
    text = f"{share:+.1%}" if abs(share) < _BIG_PERCENT else f"× {now.value / before.value:,.1f}"
    return Change(_way(round(share, 3)), text.replace("-", "−"))


def _way(difference: float) -> str:
    return "same" if difference == 0 else "up" if difference > 0 else "down"


def target(figure: Figure, limits: dict[str, Effective], voice: Voice) -> Target | None:
    """The limit that is set for this figure, by whom, and whether it is kept. Compared by the exact numbers, not by what is shown."""
    named = TARGETS.get(figure.name)
    if named is None:
        return None
    limit = limits[named[0]]
    percent = f"{limit.value * 100:g} %"
    if limit.set_by is None or limit.set_ms is None:
        who = voice.t("figures.target.default")
    else:
        who = voice.t("figures.target.setBy", by=limit.set_by, day=voice.stamp(limit.set_ms)[:10])
    verdict = ""
    if figure.value is not None:
        kept = figure.value >= limit.value if named[1] == "atLeast" else figure.value <= limit.value
        verdict = "met" if kept else "missed"
    return Target(voice.t(f"figures.target.{named[1]}", value=percent), who, verdict)


def shown_parts(figure: Figure, table: dict[str, tuple[tuple[str, str, str], ...]], voice: Voice) -> list[dict[str, str]]:
    """What `table` (AGAINST or NEITHER) tells of the figure: name, amount, address of its rows."""
    return [
        {"name": voice.t(f"figures.part.{part}"), "text": amount(number, unit, voice), "href": behind_href(figure, part)}
        for name, part, unit in table.get(figure.name, ())
        if (number := figure.shown.get(name, 0))
    ]


def key_name(figure: Figure, voice: Voice, labels: dict[str, str] | None = None) -> str:
    """Name of the part of a breakdown."""
    name, key = figure.name, figure.key
    if name in {"faults_by_code", "mttr_by_code"}:
        kind = FAULTS.get(key)
        return key if kind is None else (kind.zh if voice.lang == "zh" else kind.en)
    if name in {"cases_by_hour", "cases_by_hour_work", "cases_by_hour_rest"}:
        return f"{key}:00–{int(key) + 1:02}:00"
    if name == "cases_by_terminal":
        return (labels or {}).get(key, key)
    prefix = {
        "cases_by_outcome": "outcome",
        "cases_by_class": "class",
        "ratings_by_level": "level",
        "queue_by_action": "action",
    }.get(name)
    return voice.t(f"figures.{prefix}.{key}") if prefix and voice.t.has(f"figures.{prefix}.{key}") else key


def period_words(first: str, last: str, voice: Voice) -> str:
    """`2026-11` of a whole month, else its days."""
    from fleet_server.figures.question import Period

    period = Period(first, last)
    if period.is_month or period.is_quarter or period.is_year:
        return period.text
    return first if first == last else voice.t("figures.days", first=first, last=last)


def scope_words(given: dict[str, str], names: dict[str, str], voice: Voice) -> str:
    """`金东区 · 自助机 · 政务终端`; the whole fleet without conditions. `names` of areas, sites and terminals by `kind:code`."""
    parts = [names.get(f"{kind}:{code}", code) for kind in ("area", "site", "terminal") if (code := given.get(kind))]
    if given.get("direct"):
        parts = [voice.t("figures.direct", name=parts[0])] if given.get("area") else [voice.t("figures.noArea"), *parts]
    if code := given.get("type"):
        parts.append(type_name(voice, code))
    if code := given.get("owner"):
        parts.append(voice.t(f"class.{code}") if voice.t.has(f"class.{code}") else code)
    return " · ".join(parts) or voice.t("figures.fleet")
