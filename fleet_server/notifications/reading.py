"""Reads what the planner decides on: open faults, what became of those told, maintenance, locks, mutes, the platform's sight. Writes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from fleet_server.faults.severity import impact
from fleet_server.notifications.planner import Fault, Pace, Place, PlatformState, Seen
from fleet_server.presence.limits import load_limits
from fleet_server.presence.rules import platform_blind_since
from fleet_server.presence.store import MARK
from fleet_server.terminals.lock import IS_LOCKED
from fleet_server.thresholds.rules import values

BEHIND_BATCHES = 20
"""Waiting batches from which a terminal is sending a backlog (chosen: in ordinary life it has one or two)."""

_COLUMNS = (
    "f.id, f.terminal, f.code, f.severity, f.slot, f.mandatory, f.opened_ms, coalesce(b.committed_ms, f.opened_ms), f.late, f.cleared_ms,"
    " f.claimed_by IS NOT NULL, f.false_alarm, f.muted_until_ms, coalesce(f.cleared_by = 'retired', 0)"
)
_FROM = "FROM fault f LEFT JOIN batch b ON b.id = coalesce(f.open_batch, f.clear_batch)"
_OPEN = f"SELECT {_COLUMNS} {_FROM} WHERE f.cleared_ms IS NULL AND f.disputed = 0"
# The plus keeps SQLite from walking the index of codes: a code has thousands of rows, a terminal some dozens.
LAST_OF_SUBJECT = (
    f"SELECT {_COLUMNS} {_FROM} WHERE f.terminal = ? AND +f.code = ? AND f.cleared_ms IS NOT NULL AND f.disputed = 0"
    " ORDER BY f.cleared_ms DESC LIMIT 1"
)
_PLACES = (
    f"SELECT t.id, t.code, t.name_zh, t.name_en, t.maintenance_until_ms, s.code, s.name_zh, s.name_en, s.area, l.outbox_depth, {IS_LOCKED}"  # noqa: S608 - a constant
    " FROM terminal t LEFT JOIN site s ON s.code = t.site LEFT JOIN terminal_live l ON l.terminal = t.id"
    " WHERE t.id IN (SELECT value FROM json_each(?))"
)


def read(conn: sqlite3.Connection, told: Iterable[str], *, watching_since_ms: int, now_ms: int) -> Seen:
    """`told` are the subjects that some channel holds for open. One consistent look if the caller has begun a transaction."""
    rows = conn.execute(_OPEN).fetchall()
    lasting = {(row[1], row[2]) for row in rows}
    for subject in told:
        terminal, bar, code = subject.partition("|")
        if bar and (terminal, code) not in lasting:
            rows += conn.execute(LAST_OF_SUBJECT, (terminal, code)).fetchall()
    places, maintenance, locked = _places(conn, {row[1] for row in rows})
    return Seen(
        faults=[_fault(row) for row in rows],
        mutes={row[0]: row[12] for row in rows if row[12] is not None},
        maintenance=maintenance,
        locked=locked,
        platform=_platform(conn, watching_since_ms, now_ms),
        places=places,
        pace=read_pace(conn),
    )


def read_pace(conn: sqlite3.Connection) -> Pace:
    """As operators set it."""
    found = values(conn)
    return Pace(
        gather_ms=round(found["notification.gather_s"] * 1000),
        settle_ms=round(found["notification.settle_s"] * 1000),
        late_ms=round(found["notification.late_s"] * 1000),
        late_behind_ms=round(found["notification.late_behind_s"] * 1000),
    )


def _fault(row: tuple[object, ...]) -> Fault:
    key, terminal, code, severity, slot, mandatory, opened_ms, known_ms, late, cleared_ms, claimed, false_alarm, _, retired = row
    assert isinstance(code, str) and isinstance(severity, str) and isinstance(opened_ms, int) and isinstance(known_ms, int)
    return Fault(
        id=str(key),
        terminal=str(terminal),
        code=code,
        severity=severity,
        impact=impact(code, severity, slot=None if slot is None else str(slot), mandatory=bool(mandatory)).value,
        opened_ms=opened_ms,
        known_ms=known_ms,
        late=bool(late),
        cleared_ms=cleared_ms if isinstance(cleared_ms, int) else None,
        claimed=bool(claimed),
        false_alarm=bool(false_alarm),
        retired=bool(retired),
    )


def _places(conn: sqlite3.Connection, terminals: Iterable[str]) -> tuple[Mapping[str, Place], Mapping[str, int], frozenset[str]]:
    above = dict(conn.execute("SELECT code, parent FROM area").fetchall())
    places: dict[str, Place] = {}
    maintenance: dict[str, int] = {}
    locked: set[str] = set()
    for row in conn.execute(_PLACES, (json.dumps(sorted(terminals)),)):
        terminal, label, name_zh, name_en, until_ms, site, site_zh, site_en, area, depth, is_locked = row
        places[terminal] = Place(
            label=label or terminal,
            name_zh=name_zh,
            name_en=name_en,
            site=site or "",
            site_zh=site_zh or "",
            site_en=site_en or "",
            areas=tuple(_path(area, above)),
            behind=depth is not None and depth >= BEHIND_BATCHES,
        )
        if until_ms is not None:
            maintenance[terminal] = until_ms
        if is_locked:
            locked.add(terminal)
    return places, maintenance, frozenset(locked)


def _path(area: str | None, above: Mapping[str, str | None]) -> Iterable[str]:
    """An area and those above it; a ring, which an import could make, ends."""
    seen: set[str] = set()
    while area and area not in seen:
        seen.add(area)
        yield area
        area = above.get(area)


def _platform(conn: sqlite3.Connection, watching_since_ms: int, now_ms: int) -> PlatformState:
    mark = conn.execute("SELECT at_ms FROM watch_mark WHERE name = ?", (MARK,)).fetchone()
    lasting = conn.execute("SELECT from_ms, cause FROM platform_gap WHERE to_ms IS NULL").fetchall()
    last = conn.execute("SELECT from_ms, to_ms FROM platform_gap WHERE to_ms IS NOT NULL ORDER BY to_ms DESC LIMIT 1").fetchone()
    blind_ms = load_limits(conn).crowd.blind_ms
    blind = platform_blind_since(None if mark is None else mark[0], lasting, now_ms, blind_ms=blind_ms)
    return PlatformState(
        blind_since_ms=None if blind is None else blind[0],
        cause="" if blind is None else blind[1],
        silence_since_ms=min((from_ms for from_ms, cause in lasting if cause == "silence"), default=None),
        last_gap_ms=None if last is None else (last[0], last[1]),
        watching_since_ms=watching_since_ms,
    )
