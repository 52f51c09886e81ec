"""The start page: what cannot serve, since when, why, who has it; is it used; where; what changed last."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from litestar import Response, get
from markupsafe import Markup

from fleet_server.console import format as fmt
from fleet_server.console import listing
from fleet_server.console.area_now import HOURS, AreaNow, Block, blocks, by_area, day_share, hour_shares
from fleet_server.console.desk import Asked, Desk, TheDesk
from fleet_server.console.figures_view import behind_href, pairs_of
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import DAY_MS, Ratio
from fleet_server.console.kept import Found, Kept
from fleet_server.console.looks import LOOK
from fleet_server.console.model import FaultNow, TerminalNow
from fleet_server.console.needs import Need, needs
from fleet_server.console.queries import overview as queries
from fleet_server.console.render import Voice, share
from fleet_server.console.state_changes import Change
from fleet_server.console.usage_now import AreaMonth, UsageNow, by_code, usage_now
from fleet_server.console.words import slot_name
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.sites.calendar import Calendar, local_time
from fleet_server.terminals.state import WORST_FIRST, Counts, StateCode
from protocols.canon.faults import FAULTS

ROWS: Final = 10
CHANGES: Final = 20
HOUR_NAMES: Final = (0, 6, 12, 18)
DAY_YOUNG_MS: Final = 60_000
"""The last 24 hours are drawn anew once a minute at most."""
CHANGES_YOUNG_MS: Final = 2_000
TOLD: Final = ("unusable", "offline", "noData")
"""What the sentence beside the picture of an area's day tells."""


@dataclass(slots=True)
class Glance:
    """What the start page keeps between requests, for one web process."""

    usage: Kept[UsageNow]
    day: Kept[dict[str, AreaDay]]
    changes: Kept[list[Change]]


def glance(desk: Desk) -> Glance:
    """Made with the first request that needs it."""
    if desk.glance is None:
        now_ms = desk.now_ms
        desk.glance = Glance(Kept(now_ms), Kept(now_ms, young_ms=DAY_YOUNG_MS), Kept(now_ms, young_ms=CHANGES_YOUNG_MS))
    found: Glance = desk.glance
    return found


@get("/", name="overview")
async def overview(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    values = {
        **await _summary(desk, fleet, voice),
        **await _needs(desk, fleet, voice),
        **await _usage(desk, fleet, voice),
        **await _areas(desk, fleet, voice),
        **await _changes(desk, fleet, voice),
    }
    return await desk.page(request, "overview.html", nav="overview", voice=voice, **values)


@get("/needs")
async def all_needs(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.page(request, "needs.html", nav="overview", voice=voice, **await _needs(desk, fleet, voice, all_rows=True))


@get("/parts/summary")
async def summary(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_summary.html", voice=voice, **await _summary(desk, fleet, voice))


@get("/parts/needs")
async def needs_part(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    all_rows = request.query_params.get("all") == "1"
    return await desk.part(request, "_needs.html", voice=voice, **await _needs(desk, fleet, voice, all_rows=all_rows))


@get("/parts/usage")
async def usage_part(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_usage_now.html", voice=voice, **await _usage(desk, fleet, voice))


@get("/parts/areas")
async def areas_part(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_areas.html", voice=voice, **await _areas(desk, fleet, voice))


@get("/parts/changes")
async def changes_part(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_changes.html", voice=voice, **await _changes(desk, fleet, voice))


@get("/parts/strips")
async def strips(request: Asked, desk: TheDesk) -> Response[str]:
    return await desk.part(request, "_strips.html")


@get("/parts/needs-state")
async def needs_state(request: Asked, desk: TheDesk) -> Response[str]:
    return await desk.part(request, "_needs_state.html")


HANDLERS = [overview, all_needs, summary, needs_part, usage_part, areas_part, changes_part, strips, needs_state]

# A, B: the sentence and the tiles -------------------------------------------------------------------------------------------------------


async def _summary(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    by_state = listing.counts(fleet.terminals)
    cases = await queries.cases_now(desk.db, fleet.today, desk.view.zone, voice.now_ms)
    recovered_ms = None if _trouble(by_state) else await queries.last_recovery_ms(desk.db)
    return {
        "headline": headline(voice, fleet, by_state, recovered_ms),
        "tiles": {
            "total": by_state.total,
            "maintenance": by_state.of(StateCode.MAINTENANCE),
            "locked": sum(terminal.locked for terminal in fleet.terminals),
            "not_enrolled": by_state.of(StateCode.NOT_ENROLLED),
            "closed": by_state.of(StateCode.CLOSED),
            "online": by_state.online,
            "online_rate": Ratio(by_state.online, by_state.expected),
            "abnormal": by_state.abnormal,
            "unusable": by_state.of(StateCode.UNUSABLE),
            "partial": by_state.of(StateCode.PARTIAL),
            "offline": by_state.of(StateCode.OFFLINE),
            "suspect": by_state.of(StateCode.SUSPECT),
            "unknown": by_state.of(StateCode.UNKNOWN),
        },
        "cases": {
            "today": cases.today,
            "yesterday": cases.yesterday,
            "success": Ratio(cases.success, cases.today),
            "href": _behind("cases", today_question(fleet)),
        },
        "statebar": _bar(by_state, len(fleet.terminals)),
        "legend": [
            {"state": state.value, "look": LOOK[state], "count": by_state.of(state)}
            for state in WORST_FIRST
            if by_state.of(state)
        ],
    }


def _bar(by_state: Counts, total: int) -> list[dict[str, Any]]:
    parts, at = [], 0
    for state in WORST_FIRST:
        if by_state.of(state):
            parts.append(
                {
                    "look": LOOK[state],
                    "count": by_state.of(state),
                    "x": share(at, total),
                    "width": share(by_state.of(state), total),
                }
            )
            at += by_state.of(state)
    return parts


def _trouble(by_state: Counts) -> bool:
    return any(by_state.of(state) for state in (StateCode.UNUSABLE, StateCode.PARTIAL, StateCode.OFFLINE, StateCode.UNKNOWN))


def headline(voice: Voice, fleet: Fleet, by_state: Counts, recovered_ms: int | None) -> Markup:
    """The sentence on top: what cannot serve, and the longest of it."""
    if not fleet.terminals:
        return voice.rich("overview.empty")
    if fleet.platform.blind_since_ms is not None:
        return voice.rich("overview.blind", n=by_state.of(StateCode.UNKNOWN), time=voice.clock(fleet.platform.blind_since_ms))
    if not _trouble(by_state):
        serving = by_state.of(StateCode.NORMAL) + by_state.of(StateCode.SUSPECT)
        if not serving:
            return voice.rich("overview.closed")
        if recovered_ms is None:
            return voice.rich("overview.all", n=serving)
        return voice.rich("overview.allLast", n=serving, age=voice.age(recovered_ms))
    figures = {
        "unusable": voice.link("/terminals?state=UNUSABLE", str(by_state.of(StateCode.UNUSABLE))),
        "partial": voice.link("/terminals?state=PARTIAL", str(by_state.of(StateCode.PARTIAL))),
        "offline": voice.link("/terminals?state=OFFLINE", str(by_state.of(StateCode.OFFLINE))),
    }
    if by_state.of(StateCode.UNKNOWN):
        unknown = voice.link("/terminals?state=UNKNOWN", str(by_state.of(StateCode.UNKNOWN)))
        first = voice.rich("overview.troubleUnknown", **figures, unknown=unknown)
    else:
        first = voice.rich("overview.trouble", **figures)
    longest = _longest(fleet)
    if longest is None:
        return first
    terminal, problem, since_ms = longest
    second = voice.rich(
        "overview.longest",
        duration=voice.since(since_ms),
        terminal=voice.link(f"/terminals/{terminal.id}", terminal.label),
        name=terminal.name_at_site(voice.lang),
        problem=problem_words(problem, voice),
    )
    return first + (Markup("") if voice.lang == "zh" else Markup(" ")) + second


def _longest(fleet: Fleet) -> tuple[TerminalNow, FaultNow | None, int] | None:
    """The terminal that has been without service longest; None as problem: offline."""
    found: list[tuple[int, str, TerminalNow, FaultNow | None]] = []
    for terminal in fleet.terminals:
        if terminal.state is StateCode.OFFLINE and (since := terminal.state_since_ms or terminal.heard_ms):
            found.append((since, terminal.label, terminal, None))
        elif terminal.state is StateCode.UNUSABLE:
            worst = min((fault for fault in terminal.faults if fault.impact == "noService"), key=lambda fault: fault.since_ms)
            found.append((worst.since_ms, terminal.label, terminal, worst))
    if not found:
        return None
    since_ms, _, terminal, fault = min(found, key=lambda item: item[:2])
    return terminal, fault, since_ms


def problem_words(fault: FaultNow | None, voice: Voice) -> str:
    if fault is not None:
        return fault.sentence(voice.lang)
    kind = FAULTS["NET.OFFLINE"]
    return kind.zh if voice.lang == "zh" else kind.en


# C: what needs a person -----------------------------------------------------------------------------------------------------------------


async def _needs(desk: Desk, fleet: Fleet, voice: Voice, *, all_rows: bool = False) -> dict[str, Any]:
    rows = needs(fleet.terminals, voice.now_ms)
    return {
        "need_rows": [{"need": row, "problem": need_words(row, voice)} for row in (rows if all_rows else rows[:ROWS])],
        "need_total": len(rows),
        "need_all": all_rows,
        "last_recovery_ms": None if rows else await queries.last_recovery_ms(desk.db),
    }


def need_words(row: Need, voice: Voice) -> str:
    """What is the matter, in one sentence."""
    problem = row.fault.sentence(voice.lang)
    if row.also:
        return voice.t("needs.groupOffline" if row.fault.code == "NET.OFFLINE" else "needs.group", n=row.size, problem=problem)
    if row.supply is None:
        return problem
    days = int((row.supply.empty_ms - voice.now_ms) // DAY_MS)
    names = {"slot": slot_name(voice, row.supply.slot), "item": voice.t(f"consumable.{row.supply.item}")}
    return voice.t("needs.supply", n=days, **names) if days >= 1 else voice.t("needs.supplyToday", **names)


# D: is it used --------------------------------------------------------------------------------------------------------------------------


def today_question(fleet: Fleet, area: str | None = None) -> Question:
    return Question(Period(fleet.today, fleet.today), Scope(area=area))


def _behind(name: str, question: Question) -> str:
    """Where the rows of a figure are listed, if nobody has computed it here."""
    return "/figures/behind?" + urlencode({"figure": name} | pairs_of(question))


async def used_now(desk: Desk, fleet: Fleet) -> Found[UsageNow]:
    today = fleet.today

    async def make(at_ms: int) -> UsageNow:
        return await desk.db.ponder(lambda conn: usage_now(conn, today, at_ms))

    return await glance(desk).usage.get(today, make)


async def _usage(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    found = await used_now(desk, fleet)
    used = found.value
    return {
        "used": {
            "at_ms": found.at_ms,
            "cases": fmt.count(used.cases.numerator),
            "cases_href": behind_href(used.cases),
            "active": _percent(used.active),
            "active_part": fmt.count(used.active.numerator),
            "active_whole": fmt.count(used.active.denominator or 0),
            "active_href": behind_href(used.active),
            "active_whole_href": behind_href(used.active, "denominator"),
            "per_day": f"{used.per_day.value:.2f}" if used.per_day.value is not None else "—",
            "per_day_href": "/figures?" + urlencode(pairs_of(used.per_day.question)),
            "zero": fmt.count(used.zero.numerator),
            "zero_href": "/figures/zero?" + urlencode(pairs_of(used.zero.question)),
            "month": fleet.today[:7],
        },
        "hour_bars": _hour_bars(used, local_time(voice.now_ms, desk.view.zone).hour, voice),
        "hour_label": voice.t("used.barsLabel", n=sum(used.hours), usual=f"{sum(used.usual):.1f}", weeks=used.weeks),
    }


def _percent(figure: Figure) -> str:
    return Ratio(figure.numerator, figure.denominator or 0).percent or "—"


def _hour_bars(used: UsageNow, hour_now: int, voice: Voice) -> list[dict[str, Any]]:
    """24 places: a bar for today, a line for the mean; heights of 48."""
    most = max([*used.hours, *used.usual, 1])
    return [
        {
            "x": f"{n * 100 / 24 + 0.4:.2f}",
            "height": max(1, round(48 * used.hours[n] / most)) if used.hours[n] else 0,
            "usual_y": round(50 - 48 * used.usual[n] / most) if used.usual[n] else None,
            "is_coming": n > hour_now,
            "name": f"{n}" if n in HOUR_NAMES else "",
            "title": voice.t("used.bar", hour=f"{n:02}", n=used.hours[n], usual=f"{used.usual[n]:.1f}"),
        }
        for n in range(24)
    ]


# E: by area -----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AreaDay:
    """The last 24 hours of one row, drawn and told."""

    drawn: Markup
    told: dict[str, str]


NO_DAY: Final = AreaDay(Markup(""), dict.fromkeys(TOLD, "0 %"))


async def _areas(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    terminals, calendar = fleet.terminals, fleet.calendar

    async def make(at_ms: int) -> dict[str, AreaDay]:
        return await desk.db.ponder(lambda conn: _last_day(conn, terminals, calendar, at_ms))

    day = await glance(desk).day.get("", make)
    month = by_code((await used_now(desk, fleet)).value.areas)
    areas = by_area(terminals, list(month))
    return {
        "area_rows": [_area_row(area, month.get(area.code), day.value.get(area.code, NO_DAY), fleet, voice) for area in areas]
    }


def _last_day(conn: sqlite3.Connection, terminals: Sequence[TerminalNow], calendar: Calendar, at_ms: int) -> dict[str, AreaDay]:
    """Off the event loop: in a large fleet this is most of the work of the page."""
    times = queries.last_day(conn, terminals, calendar, at_ms)
    found = {}
    for area in by_area(terminals, ()):
        hours = hour_shares(times[one.id] for one in area.terminals)
        drawn = Markup("").join(_RECT.format(block.look, *_place(block)) for block in blocks(hours))
        found[area.code] = AreaDay(drawn, {look: fmt_share(day_share(hours, look)) for look in TOLD})
    return found


_RECT: Final = Markup('<rect class="f-{}" x="{}%" width="{}%" y="{}" height="{}"/>')


def _place(block: Block) -> tuple[str, str, str, str]:
    width = block.to_hour - block.from_hour
    return share(block.from_hour, HOURS), share(width, HOURS), f"{block.top * 18:.2f}", f"{block.height * 18:.2f}"


def _area_row(area: AreaNow, month: AreaMonth | None, day: AreaDay, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    counts = area.counts
    where = "?" + urlencode({"area": area.code}) if area.is_whole else ""
    active = month.active if month is not None else None
    return {
        "name": area.name(voice.lang) or voice.t("areas.none"),
        "href": f"/terminals{where}" if where else "",
        "total": counts.total,
        "online": Ratio(counts.online, counts.expected),
        "abnormal": counts.abnormal,
        "offline": counts.of(StateCode.OFFLINE),
        "cases": area.cases_today,
        "cases_href": _behind("cases", today_question(fleet, area.code)) if where else "",
        "active": Ratio(active.numerator, active.denominator or 0) if active is not None else None,
        "active_href": _behind("active_share", month.question) if month is not None and month.question is not None else "",
        "day": day.drawn,
        "label": voice.t("areas.day", **day.told),
    }


def fmt_share(part: float) -> str:
    """A share with one decimal; what is there is never shown as nothing."""
    return f"{max(0.1, part * 100):.1f} %" if part > 0 else "0 %"


# F: what changed last -------------------------------------------------------------------------------------------------------------------


async def _changes(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    by_id, calendar = fleet.by_id, fleet.calendar

    async def make(at_ms: int) -> list[Change]:
        return await desk.db.ponder(lambda conn: queries.last_changes(conn, by_id, calendar, at_ms, CHANGES))

    found = await glance(desk).changes.get(fleet.change_id, make)
    return {
        "changes": [
            {
                "at_ms": change.at_ms,
                "terminal": change.terminal,
                "label": by_id[change.terminal].label,
                "name": by_id[change.terminal].name_at_site(voice.lang),
                "before": change.before,
                "after": change.after,
                "why": why_words(change, voice),
            }
            for change in found.value
            if change.terminal in by_id
        ]
    }


def why_words(change: Change, voice: Voice) -> str:
    """Why the state changed: what happened, or what is over."""
    if change.after in {"unusable", "partial"}:
        return _problem(change.why, voice)
    if change.after == "maintenance" or change.before == "maintenance":
        return voice.t("changes.maintenance" if change.after == "maintenance" else "changes.maintenanceEnd")
    if change.after in {"offline", "suspect", "unknown", "closed"}:
        key = f"changes.why.{change.why}"
        return voice.t(key) if voice.t.has(key) else ""
    if change.before in {"unusable", "partial"}:
        return voice.t("changes.over", problem=_problem(change.why, voice))
    return voice.t("changes.back")


def _problem(code: str, voice: Voice) -> str:
    kind = FAULTS.get(code)
    return code if kind is None else (kind.zh if voice.lang == "zh" else kind.en)
