"""Reads for the overview, the terminal list and the fault list."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.channel import as_dict
from fleet_server.console import fault_view
from fleet_server.console.columns import FROM_CONNECTION, FROM_DEVICES
from fleet_server.console.fault_view import FaultView
from fleet_server.console.fleet import FAULT_COLUMNS, fault_of
from fleet_server.console.history import FAULT_LOOK, PRESENCE_LOOK, Cell, Span, cell_edges, cells, closed_outside, outside
from fleet_server.console.model import FaultNow, TerminalNow
from fleet_server.engine import FleetEngine
from fleet_server.faults.severity import impact
from fleet_server.sites.calendar import Calendar, HoursError, local_days, open_spans_ms, parse_hours
from fleet_server.terminals import maintenance

WEEK_MS: Final = 7 * 86_400_000
COUNT_MAX: Final = 10_000
"""Faults of all years are counted so far and no further: nobody turns a hundred pages."""

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
    maintenance: Mapping[str, list[tuple[int, int]]]
    """Taken out of play by a person; ordered and disjoint."""


async def load_past(db: FleetEngine, terminals: Sequence[str], start_ms: int, end_ms: int) -> Past:
    """Four queries, however many terminals."""
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
        presence[row["terminal"]].append(Span(row["from_ms"], row["to_ms"] or end_ms, look, title=row["state"], why=row["cause"]))
    observed: defaultdict[str, list[Span]] = defaultdict(list)
    for row in read(_OBSERVED):
        observed[row["terminal"]].append(Span(row["from_ms"], row["to_ms"], "normal", title="online"))
    faults: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read(_FAULTS):
        faults[row["terminal"]].append(row)
    maintained = maintenance.spans(conn, terminals, start_ms, end_ms)
    return Past(presence, observed, faults, maintained)


def maintenance_spans(past: Past, terminal: str) -> list[Span]:
    return [Span(start, end, "maintenance") for start, end in past.maintenance.get(terminal, ())]


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
        left = outside(spans, past.maintenance.get(terminal.id, ()))
        result[terminal.id] = cells([*left, *maintenance_spans(past, terminal.id)], edges[terminal.place.timezone], now_ms)
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


_FAULT_PAGE_COLUMNS: Final = ", ".join(f"f.{name.strip()}" for name in FAULT_COLUMNS.split(","))
_FAULT_FROM: Final = "FROM fault f LEFT JOIN terminal t ON t.id = f.terminal"


@dataclass(frozen=True, slots=True)
class FaultPage:
    """Some faults out of the database, and how many there are in all, by group; counted up to COUNT_MAX."""

    faults: list[FaultNow]
    total: int
    by_group: Mapping[str, int]


async def fault_page(
    db: FleetEngine, view: FaultView, me: str, *, now_ms: int, today_ms: int, limit: int = fault_view.PER_PAGE
) -> FaultPage:
    """One page of a tab: what recovered last first, else what opened last first."""
    condition, params = fault_view.where(view, me, now_ms, today_ms)
    newest = "f.cleared_ms" if view.tab == "today" else "f.opened_ms"
    key = {"site": "coalesce(t.site, '')", "code": "f.code"}.get(view.group, "''")
    # Every part of these statements is one of this module's or of `fault_view`'s constants; values are parameters.
    # Groups are made of the newest so many: to sort years of faults by site takes seconds, and nobody turns to their end.
    found = f"SELECT {key} AS name, {_FAULT_PAGE_COLUMNS} {_FAULT_FROM} WHERE {condition}"
    if view.group:
        found += f" ORDER BY {newest} DESC"
    counted = await db.read(f"SELECT name, count(*) AS n FROM ({found} LIMIT {COUNT_MAX}) GROUP BY name", params)  # noqa: S608
    total = sum(row["n"] for row in counted)
    if view.group:
        found = f"SELECT * FROM ({found} LIMIT {COUNT_MAX}) ORDER BY name, {newest.removeprefix('f.')} DESC"  # noqa: S608
    else:
        # Few rows are found faster than an index in the order of time is walked; the plus keeps SQLite from walking it.
        found += f" ORDER BY {'+' if total < COUNT_MAX else ''}{newest} DESC"
    skip = (view.page - 1) * fault_view.PER_PAGE
    rows = await db.read(f"{found} LIMIT :limit OFFSET :skip", {**params, "limit": limit, "skip": skip}) if skip < total else []
    return FaultPage([fault_of(row) for row in rows], total, {row["name"]: row["n"] for row in counted})


@dataclass(frozen=True, slots=True)
class Extra:
    """What only the columns show that nobody sees before choosing them."""

    models: tuple[str, ...] = ()
    serials: tuple[str, ...] = ()
    firmware: tuple[str, ...] = ()
    offset_ms: int | None = None
    certificate_ms: int | None = None


async def extras(db: FleetEngine, terminals: Sequence[str], columns: Collection[str]) -> dict[str, Extra]:
    """For the chosen columns of some terminals; nothing is read that no column asks for."""
    ids = {"ids": json.dumps(list(terminals))}
    devices: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    if FROM_DEVICES & set(columns):
        for row in await db.read(
            "SELECT d.terminal, d.profile, d.firmware, d.asset FROM json_each(:ids) AS wanted"
            " JOIN device d ON d.terminal = wanted.value ORDER BY d.terminal, d.slot",
            ids,
        ):
            devices[row["terminal"]].append(row)
    connection: dict[str, dict[str, Any]] = {}
    if FROM_CONNECTION & set(columns):
        for row in await db.read(
            "SELECT l.terminal, l.clock_offset_ms, l.cert_not_after_ms FROM json_each(:ids) AS wanted"
            " JOIN terminal_live l ON l.terminal = wanted.value",
            ids,
        ):
            connection[row["terminal"]] = row

    def distinct(terminal: str, name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row[name] for row in devices[terminal] if row[name]))

    return {
        one: Extra(
            models=distinct(one, "profile"),
            serials=distinct(one, "asset"),
            firmware=distinct(one, "firmware"),
            offset_ms=connection.get(one, {}).get("clock_offset_ms"),
            certificate_ms=connection.get(one, {}).get("cert_not_after_ms"),
        )
        for one in terminals
    }


async def column_choice(db: FleetEngine, staff: str, page: str) -> str | None:
    rows = await db.read("SELECT columns FROM list_columns WHERE staff = ? AND page = ?", (staff, page))
    return rows[0]["columns"] if rows else None


def put_column_choice(connection: sqlite3.Connection, staff: str, page: str, columns: Sequence[str], now_ms: int) -> None:
    connection.execute(
        "INSERT INTO list_columns (staff, page, columns, set_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (staff, page) DO UPDATE SET columns = excluded.columns, set_ms = excluded.set_ms",
        (staff, page, json.dumps(list(columns)), now_ms),
    )


@dataclass(frozen=True, slots=True)
class ProfileQuality:
    """How often a profile was wrong: faults that it raised, and those that people marked as false alarms."""

    profile: str
    faults: int
    false_alarms: int


async def profile_quality(db: FleetEngine) -> list[ProfileQuality]:
    """Over everything stored, so that each number is exactly the list behind it; most often wrong first."""
    rows = await db.read(
        "SELECT profile, count(*) AS faults, sum(false_alarm) AS wrong FROM fault WHERE disputed = 0 AND profile IS NOT NULL"
        " GROUP BY profile ORDER BY 1.0 * sum(false_alarm) / count(*) DESC, count(*) DESC, profile"
    )
    return [ProfileQuality(row["profile"], row["faults"], row["wrong"]) for row in rows]


async def recent_counts(db: FleetEngine, now_ms: int) -> dict[tuple[str, str], int]:
    """How often each (terminal, code) opened within 24 hours."""
    rows = await db.read(
        "SELECT terminal, code, count(*) AS n FROM fault WHERE opened_ms > ? AND disputed = 0 GROUP BY terminal, code",
        (now_ms - 86_400_000,),
    )
    return {(row["terminal"], row["code"]): row["n"] for row in rows}


async def fault_steps(db: FleetEngine, fault: str) -> list[dict[str, Any]]:
    """What people did about one fault, and what ended or outgrew it by itself; oldest first."""
    return await db.read(
        "SELECT at_ms, kind, by, text, until_ms FROM fault_event WHERE fault = ? AND (by IS NOT NULL OR kind IN ('worse', 'muteEnded'))"
        " ORDER BY at_ms, id LIMIT 50",
        (fault,),
    )
