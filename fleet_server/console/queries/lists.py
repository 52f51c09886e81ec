"""Reads for the overview, the terminal list and the fault list."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.channel import as_dict
from fleet_server.console.fleet import FAULT_COLUMNS, fault_of
from fleet_server.console.history import FAULT_LOOK, PRESENCE_LOOK, Cell, Span, cell_edges, cells, closed_outside
from fleet_server.console.model import FaultNow, TerminalNow
from fleet_server.engine import FleetEngine
from fleet_server.faults.severity import impact
from fleet_server.sites.calendar import Calendar, HoursError, local_days, open_spans_ms, parse_hours

WEEK_MS: Final = 7 * 86_400_000
FAULT_LIMIT: Final = 200

_PRESENCE: Final = """
SELECT p.terminal, p.from_ms, p.to_ms, p.state, p.cause FROM json_each(:ids) AS wanted
JOIN presence p ON p.terminal = wanted.value AND p.from_ms < :end
  AND p.from_ms >= coalesce((SELECT max(q.from_ms) FROM presence q WHERE q.terminal = wanted.value AND q.from_ms <= :start), :start)"""
# Before the server watched a terminal, its own signed summaries say when it was observed.
_OBSERVED: Final = """
SELECT s.terminal, s.from_ms, s.to_ms FROM json_each(:ids) AS wanted
JOIN serviceability s ON s.terminal = wanted.value AND s.from_ms >= :start - 86400000 AND s.to_ms > :start
  AND s.from_ms < coalesce((SELECT min(q.from_ms) FROM presence q WHERE q.terminal = wanted.value), :end)
WHERE s.disputed = 0 AND s.observed_s > 0"""
_FAULTS: Final = """
SELECT id, terminal, slot, code, severity, mandatory, since_ms, opened_ms, cleared_ms, open_batch, open_idx, source, late FROM fault
WHERE terminal IN (SELECT value FROM json_each(:ids)) AND disputed = 0 AND since_ms < :end AND (cleared_ms IS NULL OR cleared_ms > :start)"""


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of some terminals between two instants."""

    presence: Mapping[str, list[Span]]
    observed: Mapping[str, list[Span]]
    faults: Mapping[str, list[dict[str, Any]]]


async def load_past(db: FleetEngine, terminals: Sequence[str], start_ms: int, end_ms: int) -> Past:
    """Three queries, however many terminals."""
    return await db.look(lambda conn: read_past(conn, terminals, start_ms, end_ms))


def read_past(conn: sqlite3.Connection, terminals: Sequence[str], start_ms: int, end_ms: int) -> Past:
    """The same on a connection that only reads, for work off the event loop."""

    def read(sql: str) -> Iterable[dict[str, Any]]:
        cursor = conn.execute(sql, params)
        return (as_dict(cursor, row) for row in cursor)

    params = {"ids": json.dumps(list(terminals)), "start": start_ms, "end": end_ms}
    presence: defaultdict[str, list[Span]] = defaultdict(list)
    for row in read(_PRESENCE):
        look = PRESENCE_LOOK.get(row["state"], "unknown")
        presence[row["terminal"]].append(Span(row["from_ms"], row["to_ms"] or end_ms, look, title=row["state"]))
    observed: defaultdict[str, list[Span]] = defaultdict(list)
    for row in read(_OBSERVED):
        observed[row["terminal"]].append(Span(row["from_ms"], row["to_ms"], "normal", title="online"))
    faults: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read(_FAULTS):
        faults[row["terminal"]].append(row)
    return Past(presence, observed, faults)


def opening(terminal: TerminalNow, calendar: Calendar, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    """Opening spans of the terminal's site; a site whose hours cannot be read counts as always open, so that nothing is hidden."""
    place = terminal.place
    try:
        hours = parse_hours(place.hours)
    except HoursError:
        return [(start_ms, end_ms)]
    if hours.always and not hours.dates:
        return [(start_ms, end_ms)]
    spans: list[tuple[int, int]] = []
    for day in local_days(start_ms, end_ms, place.timezone):
        spans.extend(open_spans_ms(hours, calendar, place.timezone, day))
    return spans


def connection_spans(terminal: TerminalNow, past: Past, opening_spans: Sequence[tuple[int, int]]) -> list[Span]:
    """Presence, silence outside opening hours shown as closed, and before it the terminal's own summaries."""
    return [*past.observed.get(terminal.id, ()), *closed_outside(past.presence.get(terminal.id, ()), opening_spans)]


def fault_look(row: Mapping[str, Any]) -> str | None:
    """What a fault made of the service; None for a notice."""
    return FAULT_LOOK.get(impact(row["code"], row["severity"], slot=row["slot"], mandatory=bool(row["mandatory"])))


def service_spans(faults: Iterable[Mapping[str, Any]], end_ms: int) -> list[Span]:
    """What open faults made of the service."""
    spans = []
    for row in faults:
        if row["code"] == "NET.OFFLINE":
            continue  # presence tells that story already
        look = fault_look(row)
        if look is not None:
            spans.append(Span(row["since_ms"], row["cleared_ms"] or end_ms, look, title=row["code"], late=bool(row["late"])))
    return spans


async def week_cells(db: FleetEngine, terminals: Sequence[TerminalNow], calendar: Calendar, now_ms: int) -> dict[str, list[Cell]]:
    """28 cells for each of the terminals of one page."""
    edges = {zone: cell_edges(now_ms, zone) for zone in {terminal.place.timezone for terminal in terminals}}
    if not edges:
        return {}
    start_ms = min(times[0] for times in edges.values())
    past = await load_past(db, [terminal.id for terminal in terminals], start_ms, now_ms)
    result = {}
    for terminal in terminals:
        hours = opening(terminal, calendar, start_ms, now_ms)
        spans = [*connection_spans(terminal, past, hours), *service_spans(past.faults.get(terminal.id, ()), now_ms)]
        result[terminal.id] = cells(spans, edges[terminal.place.timezone], now_ms)
    return result


async def downtime_ms(db: FleetEngine, now_ms: int) -> dict[str, int]:
    """Milliseconds without service in the last seven days, for every terminal: the order of one column."""
    rows = await db.read(
        "SELECT terminal, sum(min(coalesce(cleared_ms, :now), :now) - max(since_ms, :start)) AS down FROM fault"
        " WHERE severity IN ('P1', 'P2') AND (code LIKE 'APP.%' OR (mandatory = 1 AND slot IS NOT NULL)) AND disputed = 0"
        " AND since_ms < :now AND (cleared_ms IS NULL OR cleared_ms > :start) GROUP BY terminal"
        " UNION ALL "
        "SELECT terminal, sum(min(coalesce(to_ms, :now), :now) - max(from_ms, :start)) FROM presence"
        " WHERE state IN ('offline', 'stopped') AND from_ms < :now AND (to_ms IS NULL OR to_ms > :start) GROUP BY terminal",
        {"now": now_ms, "start": now_ms - WEEK_MS},
    )
    total: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        total[row["terminal"]] += row["down"]
    return total


def down_and_blank_ms(row: Sequence[Cell]) -> tuple[int, int]:
    """How much of the week the cells show as down, and as unknown; for the sentence beside the picture."""
    down = sum(cell.to_ms - cell.from_ms for cell in row if cell.look in {"unusable", "offline"})
    blank = sum(cell.to_ms - cell.from_ms for cell in row if cell.look in {"noData", "unknown"})
    return down, blank


@dataclass(frozen=True, slots=True)
class CasesNow:
    today: int
    yesterday: int
    """Yesterday until the same time of day."""
    success: int


async def cases_now(db: FleetEngine, start_ms: int, now_ms: int) -> CasesNow:
    rows = await db.read(
        "SELECT count(*) AS cases, coalesce(sum(outcome = 'success'), 0) AS success,"
        " (SELECT count(*) FROM session WHERE began_ms >= :before AND began_ms < :same AND disputed = 0) AS yesterday"
        " FROM session WHERE began_ms >= :start AND began_ms <= :now AND disputed = 0",
        {"start": start_ms, "now": now_ms, "before": start_ms - 86_400_000, "same": now_ms - 86_400_000},
    )
    return CasesNow(rows[0]["cases"], rows[0]["yesterday"], rows[0]["success"])


async def last_recovery_ms(db: FleetEngine) -> int | None:
    rows = await db.read("SELECT max(cleared_ms) AS at FROM fault WHERE disputed = 0 AND severity <> 'P4'")
    at_ms: int | None = rows[0]["at"]
    return at_ms


async def recent_changes(db: FleetEngine, now_ms: int, limit: int) -> list[dict[str, Any]]:
    """The last changes of state of the whole fleet: faults opened and cleared, terminals lost and found. No heartbeats."""
    return await db.read(
        "SELECT * FROM (SELECT terminal, opened_ms AS at_ms, 'opened' AS kind, code, NULL AS state FROM fault"
        "   WHERE disputed = 0 AND late = 0 AND opened_ms > :since AND code <> 'NET.OFFLINE' ORDER BY opened_ms DESC LIMIT :limit)"
        " UNION ALL SELECT * FROM (SELECT terminal, cleared_ms AS at_ms, 'cleared', code, NULL FROM fault"
        "   WHERE disputed = 0 AND opened_ms > :since AND cleared_ms IS NOT NULL AND code <> 'NET.OFFLINE' ORDER BY cleared_ms DESC LIMIT :limit)"
        " UNION ALL SELECT * FROM (SELECT p.terminal, p.from_ms AS at_ms, 'presence', q.state, p.state"
        "   FROM (SELECT * FROM presence ORDER BY id DESC LIMIT 200) p"
        "   JOIN presence q ON q.terminal = p.terminal AND q.to_ms = p.from_ms ORDER BY p.from_ms DESC LIMIT :limit)"
        " ORDER BY at_ms DESC LIMIT :limit",
        {"since": now_ms - 14 * 86_400_000, "limit": limit},
    )


async def faults_of(db: FleetEngine, *, tab: str, start_ms: int) -> list[FaultNow]:
    """Recovered since `start_ms` (`today`), or the newest of all; at most FAULT_LIMIT + 1 so that the page can say that there are more."""
    if tab == "today":
        where, order = "cleared_ms >= :start", "cleared_ms DESC"
    else:
        where, order = "1", "opened_ms DESC"
    rows = await db.read(
        f"SELECT {FAULT_COLUMNS} FROM fault WHERE disputed = 0 AND {where} ORDER BY {order} LIMIT {FAULT_LIMIT + 1}",  # noqa: S608 - constants
        {"start": start_ms},
    )
    return [fault_of(row) for row in rows]


async def recent_counts(db: FleetEngine, now_ms: int) -> dict[tuple[str, str], int]:
    """How often each (terminal, code) opened within 24 hours."""
    rows = await db.read(
        "SELECT terminal, code, count(*) AS n FROM fault WHERE opened_ms > ? AND disputed = 0 GROUP BY terminal, code",
        (now_ms - 86_400_000,),
    )
    return {(row["terminal"], row["code"]): row["n"] for row in rows}


async def fault_steps(db: FleetEngine, fault: str) -> list[dict[str, Any]]:
    """What happened to one fault and who did what, oldest first."""
    return await db.read(
        "SELECT at_ms, kind, by, text FROM fault_event WHERE fault = ? AND by IS NOT NULL ORDER BY at_ms, id LIMIT 50", (fault,)
    )
