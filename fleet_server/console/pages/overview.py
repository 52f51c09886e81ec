"""The start page: what cannot serve, since when, why, who has it."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get
from markupsafe import Markup

from fleet_server.console import listing
from fleet_server.console.desk import Asked, Desk, TheDesk
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import Ratio
from fleet_server.console.looks import LOOK
from fleet_server.console.model import FaultNow, TerminalNow
from fleet_server.console.queries import lists
from fleet_server.console.render import Voice, share
from fleet_server.sites.calendar import day_span_ms
from fleet_server.terminals.state import WORST_FIRST, Counts, StateCode
from protocols.canon.faults import FAULTS

ROWS: Final = 10
CHANGES: Final = 12


@get("/", name="overview")
async def overview(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    values = {**await _summary(desk, fleet, voice), **await _needs(desk, fleet, voice), **await _changes(desk, fleet, voice)}
    return await desk.page(request, "overview.html", nav="overview", voice=voice, **values)


@get("/parts/summary")
async def summary(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_summary.html", voice=voice, **await _summary(desk, fleet, voice))


@get("/parts/needs")
async def needs_part(request: Asked, desk: TheDesk) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_needs.html", voice=voice, **await _needs(desk, fleet, voice))


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


HANDLERS = [overview, summary, needs_part, changes_part, strips, needs_state]


async def _summary(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    by_state = listing.counts(fleet.terminals)
    start_ms, _ = day_span_ms(fleet.today, desk.view.zone)
    cases = await lists.cases_now(desk.db, start_ms, voice.now_ms)
    recovered_ms = None if _trouble(by_state) else await lists.last_recovery_ms(desk.db)
    return {
        "headline": headline(voice, fleet, by_state, recovered_ms),
        "tiles": {
            "total": by_state.total,
            "maintenance": by_state.of(StateCode.MAINTENANCE),
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
        "cases": {"today": cases.today, "yesterday": cases.yesterday, "success": Ratio(cases.success, cases.today)},
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


async def _needs(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    from fleet_server.console.needs import needs

    rows = needs(fleet.terminals, voice.now_ms)
    return {
        "need_rows": rows[:ROWS],
        "need_total": len(rows),
        "last_recovery_ms": None if rows else await lists.last_recovery_ms(desk.db),
    }


async def _changes(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    changes = []
    for row in await lists.recent_changes(desk.db, voice.now_ms, CHANGES):
        terminal = fleet.by_id.get(row["terminal"])
        if terminal is None:
            continue
        changes.append({
            "at_ms": row["at_ms"],
            "terminal": terminal.id,
            "label": terminal.label,
            "sentence": _change_words(row, voice),
        })  # fmt: skip
    return {"changes": changes}


def _change_words(row: dict[str, Any], voice: Voice) -> str:
    if row["kind"] == "presence":
        return voice.t(
            "changes.presence", **{"from": voice.t(f"presence.{row['code']}"), "to": voice.t(f"presence.{row['state']}")}
        )
    kind = FAULTS.get(row["code"])
    problem = row["code"] if kind is None else (kind.zh if voice.lang == "zh" else kind.en)
    return voice.t(f"changes.{row['kind']}", problem=problem)
