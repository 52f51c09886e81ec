"""What the notifications page reads: channels, how they fared, the log, and why open faults were not told. One moment for all of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet_server.engine import FleetEngine
from fleet_server.notifications import store
from fleet_server.notifications.filters import FilterError, Filters, read_filters
from fleet_server.notifications.planner import Fault, Hold, Listener, Place, why
from fleet_server.notifications.reading import read
from fleet_server.notifications.store import Change, Line, Newest, Stored

LOG_PAGE = 30
CHANGES = 20
UNTOLD_MAX = 20
"""Faults whose reasons are shown at once, worst first."""


@dataclass(frozen=True, slots=True)
class Untold:
    """An open fault that some channel that is on was not told of; `holds` by channel name."""

    fault: Fault
    place: Place | None
    holds: Mapping[str, Hold]


@dataclass(frozen=True, slots=True)
class Seen:
    rows: list[Stored]
    newest: Mapping[int, Newest]
    log: list[Line]
    changes: list[Change]
    untold: list[Untold]
    untold_more: int


def look(conn: sqlite3.Connection, *, zone: str, now_ms: int, channel: int | None, before: int | None, terminal: str) -> Seen:
    """`terminal`: what somebody looks for, a part of a number or id; empty for the worst of all."""
    rows = store.channels(conn)
    untold, more = _untold(conn, rows, zone, now_ms, terminal.casefold())
    return Seen(
        rows,
        store.newest(conn),
        store.messages(conn, LOG_PAGE + 1, channel=channel, before=before),
        store.changes(conn, CHANGES),
        untold,
        more,
    )


def _untold(conn: sqlite3.Connection, rows: list[Stored], zone: str, now_ms: int, wanted: str) -> tuple[list[Untold], int]:
    listeners = [(row.name, Listener(id=row.id, filters=filters_of(row), zone=zone)) for row in rows if row.enabled]
    if not listeners:
        return [], 0
    sent = store.sent_so_far(conn)
    # Since always: whether this page's process has just begun says nothing about the platform.
    seen = read(conn, [], watching_since_ms=0, now_ms=now_ms)
    subjects: dict[str, list[Fault]] = {}
    for fault in seen.faults:
        subjects.setdefault(fault.subject, []).append(fault)
    ordered = sorted(
        subjects.values(), key=lambda found: (min(row.severity for row in found), min(row.opened_ms for row in found))
    )
    shown: list[Untold] = []
    more = 0
    for found in ordered:
        place = seen.places.get(found[0].terminal)
        if wanted and wanted not in found[0].terminal.casefold() and (place is None or wanted not in place.label.casefold()):
            continue
        told = [found[0].subject in sent[listener.id].standing for _, listener in listeners if listener.id in sent]
        if all(told) and not wanted:
            continue
        if len(shown) == UNTOLD_MAX:
            more += 1
            continue
        holds = {
            name: why(now_ms, seen, listener, sent[listener.id], found) for name, listener in listeners if listener.id in sent
        }
        shown.append(Untold(min(found, key=lambda row: (row.severity, row.opened_ms)), place, holds))
    return shown, more


def filters_of(row: Stored) -> Filters:
    """For pages: what a newer version wrote must not take the whole page away."""
    try:
        return read_filters(row.filters)
    except FilterError:
        return Filters()


async def areas(db: FleetEngine) -> list[dict[str, Any]]:
    return await db.read("SELECT code, parent, name_zh, name_en FROM area ORDER BY sort, code")
