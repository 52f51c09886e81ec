"""Reads for the start page. What takes longer works on a connection that only reads, off the event loop."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.channel import as_dict
from fleet_server.console.area_now import HOURS, hour_edges, hour_times
from fleet_server.console.format import DAY_MS, HOUR_MS
from fleet_server.console.history import lane
from fleet_server.console.model import SEVERITY_RANK, TerminalNow
from fleet_server.console.queries import lists
from fleet_server.console.state_changes import Change, Lasting, Story, changes
from fleet_server.engine import FleetEngine
from fleet_server.sites.calendar import Calendar, day_span_ms, local_day
from fleet_server.terminals import maintenance

CHANGE_DAYS: Final = 14
CANDIDATES: Final = 3
"""Of so many times the wanted number the newest happenings are looked through: not each of them changes a state."""


@dataclass(frozen=True, slots=True)
class CasesNow:
    today: int
    yesterday: int
    """Yesterday until the same time of day."""
    success: int


async def cases_now(db: FleetEngine, today: str, zone: str, now_ms: int) -> CasesNow:
    """By the rule of the figures: cases of local days, of terminals that were in service on that day."""
    start_ms, end_ms = day_span_ms(today, zone)
    yesterday = local_day(start_ms - 1, zone)
    same_ms = day_span_ms(yesterday, zone)[0] + now_ms - start_ms
    params = {"today": today, "yesterday": yesterday, "start": start_ms, "end": end_ms, "before": day_span_ms(yesterday, zone)[0]}
    rows = await db.read(_CASES, params | {"same": same_ms})
    return CasesNow(rows[0]["cases"], rows[0]["yesterday"], rows[0]["success"])


async def last_recovery_ms(db: FleetEngine) -> int | None:
    rows = await db.read("SELECT max(cleared_ms) AS at FROM fault WHERE disputed = 0 AND severity <> 'P4'")
    at_ms: int | None = rows[0]["at"]
    return at_ms


# The last 24 hours ----------------------------------------------------------------------------------------------------------------------


def last_day(
    conn: sqlite3.Connection, terminals: Sequence[TerminalNow], calendar: Calendar, now_ms: int
) -> dict[str, list[dict[str, int]]]:
    """By terminal and hour: how long it looked how."""
    edges = hour_edges(now_ms)
    start_ms = edges[0]
    ids = [terminal.id for terminal in terminals if terminal.enrolled_ms is not None]
    past = lists.read_past(conn, ids, start_ms, now_ms)
    found = {}
    for terminal in terminals:
        hours = lists.opening(terminal, calendar, start_ms, now_ms)
        spans = [
            *lists.connection_spans(terminal, past, hours),
            *lists.service_spans(past.faults.get(terminal.id, ()), now_ms),
            *lists.maintenance_spans(past, terminal.id),
        ]
        found[terminal.id] = hour_times(lane(spans, start_ms, now_ms), edges, now_ms)
    assert len(edges) == HOURS + 1
    return found


# The last changes of state --------------------------------------------------------------------------------------------------------------


def last_changes(
    conn: sqlite3.Connection, terminals: Mapping[str, TerminalNow], calendar: Calendar, now_ms: int, limit: int
) -> list[Change]:
    """The newest first; changes of terminals that are gone are left out."""
    since_ms = now_ms - CHANGE_DAYS * DAY_MS
    params = {"since": since_ms, "now": now_ms, "limit": limit * CANDIDATES}
    newest = [(at_ms, terminal) for at_ms, terminal in conn.execute(_HAPPENINGS, params) if terminal in terminals]
    found: list[Change] = []
    for reach in (limit, len(newest)):
        candidates = newest[:reach]
        if not candidates:
            break
        from_ms = candidates[-1][0]
        stories = _stories(conn, sorted({terminal for _, terminal in candidates}), terminals, calendar, from_ms, now_ms)
        found = [change for story in stories for change in changes(story, from_ms, now_ms)]
        if len(found) >= limit or reach == len(newest):
            break
    found.sort(key=lambda change: (-change.at_ms, change.terminal))
    return found[:limit]


def _stories(
    conn: sqlite3.Connection,
    ids: Sequence[str],
    terminals: Mapping[str, TerminalNow],
    calendar: Calendar,
    from_ms: int,
    now_ms: int,
) -> Iterable[Story]:
    params = {"ids": json.dumps(ids), "from": from_ms - HOUR_MS, "now": now_ms}
    presence: defaultdict[str, list[Lasting]] = defaultdict(list)
    for terminal, start_ms, end_ms, state, cause in conn.execute(_PRESENCE, params):
        presence[terminal].append(Lasting(from_ms=start_ms, to_ms=end_ms, word=state, why=cause))
    faults: defaultdict[str, list[Lasting]] = defaultdict(list)
    cursor = conn.execute(_FAULTS, params)
    for row in (as_dict(cursor, values) for values in cursor):
        faults[row["terminal"]] += _effect(row)
    away = maintenance.spans(conn, ids, from_ms - HOUR_MS, now_ms + 1)
    for terminal in ids:
        yield Story(
            terminal=terminal,
            presence=presence[terminal],
            faults=faults[terminal],
            maintenance=[Lasting(from_ms=low, to_ms=high, word="", why="") for low, high in away.get(terminal, ())],
            opening=lists.opening(terminals[terminal], calendar, from_ms - DAY_MS, now_ms + DAY_MS),
        )


def _effect(row: Mapping[str, Any]) -> list[Lasting]:
    look = lists.fault_look(row)
    if look is None or row["code"] == "NET.OFFLINE":
        return []
    rank = (0 if look == "unusable" else 10) + SEVERITY_RANK.get(row["severity"], 9)
    return [Lasting(from_ms=row["since_ms"], to_ms=row["to_ms"], word=look, why=row["code"], rank=rank)]


_CASES: Final = """
SELECT count(*) FILTER (WHERE s.day = :today) AS cases, count(*) FILTER (WHERE s.day = :today AND s.outcome = 'success') AS success,
  count(*) FILTER (WHERE s.day = :yesterday AND s.began_ms < :same) AS yesterday
FROM terminal t CROSS JOIN session s
WHERE t.enrolled_ms IS NOT NULL AND s.terminal = t.id AND s.day IN (:today, :yesterday) AND s.disputed = 0
  AND t.enrolled_ms < CASE s.day WHEN :today THEN :end ELSE :start END
  AND (t.revoked_ms IS NULL OR t.revoked_ms >= CASE s.day WHEN :today THEN :start ELSE :before END)"""

_HAPPENINGS: Final = """
SELECT at_ms, terminal FROM (
  SELECT * FROM (SELECT since_ms AS at_ms, terminal FROM fault
    WHERE disputed = 0 AND opened_ms > :since AND severity <> 'P4' AND code <> 'NET.OFFLINE' ORDER BY opened_ms DESC LIMIT :limit)
  UNION ALL SELECT * FROM (SELECT cleared_ms, terminal FROM fault
    WHERE disputed = 0 AND opened_ms > :since AND severity <> 'P4' AND code <> 'NET.OFFLINE' AND cleared_ms IS NOT NULL
    ORDER BY cleared_ms DESC LIMIT :limit)
  UNION ALL SELECT * FROM (SELECT from_ms, terminal FROM presence ORDER BY id DESC LIMIT :limit)
  UNION ALL SELECT * FROM (SELECT from_ms, terminal FROM maintenance ORDER BY id DESC LIMIT :limit)
  UNION ALL SELECT * FROM (SELECT coalesce(to_ms, until_ms), terminal FROM maintenance ORDER BY id DESC LIMIT :limit)
) WHERE at_ms <= :now AND at_ms > :since ORDER BY at_ms DESC, terminal"""
_PRESENCE: Final = """
SELECT p.terminal, p.from_ms, coalesce(p.to_ms, :now + 1), p.state, p.cause FROM json_each(:ids) t CROSS JOIN presence p
WHERE p.terminal = t.value AND p.from_ms >= coalesce(
  (SELECT max(x.from_ms) FROM presence x WHERE x.terminal = t.value AND x.from_ms <= :from), :from) ORDER BY p.from_ms, p.id"""
_FAULTS: Final = """
SELECT f.terminal, f.slot, f.code, f.severity, f.mandatory, f.since_ms, coalesce(f.cleared_ms, :now + 1) AS to_ms
FROM json_each(:ids) t CROSS JOIN fault f
WHERE f.terminal = t.value AND f.disputed = 0 AND f.false_alarm = 0 AND f.since_ms <= :now AND (f.cleared_ms IS NULL OR f.cleared_ms > :from)"""
