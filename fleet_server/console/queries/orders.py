"""Reads for orders: requests with their progress, the result at each terminal, what waits for approval, versions of configurations."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.channel import as_dict
from fleet_server.console.order_view import OrderView
from fleet_server.console.order_words import BAD, GOOD, OPEN, QUIET
from fleet_server.engine import FleetEngine
from fleet_server.orders.requests import REQUEST_COLUMNS

PER_PAGE: Final = 25
PER_REQUEST: Final = 100
HISTORY: Final = 30
"""Orders that a terminal's page shows; the rest is behind a filter of the list."""


def _in(states: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(f"'{state}'" for state in sorted(states))


_COUNTED: Final = f"""
SELECT r.*, count(i.id) AS all_, coalesce(sum(i.state IN ({_in(GOOD)})), 0) AS done, coalesce(sum(i.state IN ({_in(BAD)})), 0) AS bad,
  coalesce(sum(i.state IN ({_in(QUIET)})), 0) AS quiet, coalesce(sum(i.state IN ({_in(OPEN)})), 0) AS open
FROM (SELECT {REQUEST_COLUMNS} FROM order_request r {{where}} ORDER BY at_ms DESC, id LIMIT :limit OFFSET :offset) r
LEFT JOIN order_item i ON i.request = r.id
GROUP BY r.id ORDER BY r.at_ms DESC, r.id"""  # noqa: S608 - words from our own lists
_HAS: Final = "EXISTS (SELECT 1 FROM order_item i WHERE i.request = r.id AND i.state IN ({states}))"
_STATUS: Final = {
    "waiting": "r.state = 'waiting'",
    "open": f"r.state = 'approved' AND {_HAS.format(states=_in(OPEN))}",
    "failed": f"r.state = 'approved' AND {_HAS.format(states=_in(BAD))}",
    "done": f"r.state = 'approved' AND NOT {_HAS.format(states=_in(OPEN | BAD))}",
    "ended": "r.state IN ('rejected', 'withdrawn', 'lapsed', 'refused')",
}


@dataclass(frozen=True, slots=True)
class Page:
    rows: list[dict[str, Any]]
    total: int


async def page(db: FleetEngine, view: OrderView) -> Page:
    where, params = _where(view)
    limits = {"limit": PER_PAGE, "offset": (view.page - 1) * PER_PAGE}
    found = await db.read(f"SELECT count(*) AS n FROM order_request r {where}", params)  # noqa: S608 - conditions from _STATUS
    rows = await db.read(_COUNTED.format(where=where), params | limits)
    return Page(rows, found[0]["n"])


def _where(view: OrderView) -> tuple[str, dict[str, Any]]:
    wanted = []
    params: dict[str, Any] = {}
    if view.kind:
        wanted.append("r.kind = :kind")
        params["kind"] = view.kind
    if view.by:
        wanted.append("r.requested_by = :by")
        params["by"] = view.by
    if view.state:
        wanted.append(_STATUS[view.state])
    if view.terminal:
        wanted.append("EXISTS (SELECT 1 FROM order_item i WHERE i.request = r.id AND i.terminal = :terminal)")
        params["terminal"] = view.terminal
    return ("WHERE " + " AND ".join(wanted) if wanted else ""), params


async def people(db: FleetEngine) -> list[str]:
    """Who ever asked for anything."""
    return [row["name"] for row in await db.read("SELECT DISTINCT requested_by AS name FROM order_request ORDER BY 1")]


async def request(db: FleetEngine, request_id: bytes) -> dict[str, Any] | None:
    rows = await db.read(_COUNTED.format(where="WHERE id = :id"), {"id": request_id, "limit": 1, "offset": 0})
    return rows[0] if rows else None


_ITEMS: Final = """
SELECT i.terminal, i.order_id, i.kind, i.state, i.reason, i.since_ms, i.state_ms, i.expires_ms, i.sealed_ms, i.issues, i.counter,
  l.lines, l.size, l.cut AS cut, l.received_ms AS log_ms, l.removed_ms
FROM order_item i LEFT JOIN pulled_log l ON l.order_id = i.order_id
WHERE i.request = :request {which}
ORDER BY {order} LIMIT :limit OFFSET :offset"""
_FIRST: Final = (
    "SELECT request, terminal FROM (SELECT request, terminal, row_number() OVER (PARTITION BY request ORDER BY terminal) AS n"
    " FROM order_item WHERE request IN ({marks})) WHERE n <= ?"
)
_TOLD: Final = (
    "SELECT order_id, state, reason, at_ms, batch, idx FROM order_report WHERE terminal = ? AND disputed = 0 AND order_id IN ({marks})"
    " ORDER BY at_ms, batch, idx"
)
_UNDECIDED: Final = f"SELECT {REQUEST_COLUMNS} FROM order_request WHERE state = 'waiting' AND expires_ms > ? ORDER BY at_ms, id"  # noqa: S608 - columns
_GROUPS: Final = {"done": GOOD, "failed": BAD, "open": OPEN, "quiet": QUIET}


async def items(
    db: FleetEngine, request_id: bytes, result: str = "", page_no: int = 1, limit: int = PER_REQUEST
) -> list[dict[str, Any]]:
    """Terminals of a request: what went wrong first, then what is open, then what is done."""
    which = f"AND i.state IN ({_in(_GROUPS[result])})" if result in _GROUPS else ""
    order = f"CASE WHEN i.state IN ({_in(BAD)}) THEN 0 WHEN i.state IN ({_in(OPEN)}) THEN 1 ELSE 2 END, i.terminal"
    params = {"request": request_id, "limit": limit, "offset": (page_no - 1) * limit}
    return await db.read(_ITEMS.format(which=which, order=order), params)


async def terminals_of(db: FleetEngine, request_ids: Sequence[bytes], limit: int) -> dict[bytes, list[str]]:
    """The first terminals of each request, in order."""
    rows = await db.read(
        _FIRST.format(marks=_marks(request_ids)),
        (*request_ids, limit),
    )
    found: dict[bytes, list[str]] = {}
    for row in rows:
        found.setdefault(bytes(row["request"]), []).append(row["terminal"])
    return found


async def undecided(db: FleetEngine, now_ms: int) -> list[dict[str, Any]]:
    """Requests that wait for a second person, the oldest first."""
    return await db.read(_UNDECIDED, (now_ms,))


async def undecided_count(db: FleetEngine, me: str, now_ms: int) -> int:
    """How many of them, and of rollouts, others asked for."""
    rows = await db.read(
        "SELECT (SELECT count(*) FROM order_request WHERE state = 'waiting' AND expires_ms > ?1 AND requested_by <> ?2)"
        " + (SELECT count(*) FROM rollout WHERE state = 'waiting' AND created_by <> ?2) AS n",
        (now_ms, me),
    )
    return int(rows[0]["n"])


async def undecided_rollouts(db: FleetEngine) -> list[dict[str, Any]]:
    """Rollouts that wait for a second person, the oldest first."""
    return await db.read(
        "SELECT r.id, r.title, r.created_by, r.submitted_ms, (SELECT count(*) FROM rollout_member m WHERE m.rollout = r.id) AS terminals"
        " FROM rollout r WHERE r.state = 'waiting' ORDER BY r.submitted_ms, r.id"
    )


# One terminal ---------------------------------------------------------------------------------------------------------------------------


async def of_terminal(db: FleetEngine, terminal: str, limit: int = HISTORY) -> list[dict[str, Any]]:
    """Its newest orders, each with its request."""
    return await db.read(
        "SELECT i.request, i.terminal, i.order_id, i.kind, i.state, i.reason, i.since_ms, i.state_ms, i.sealed_ms, i.issues, i.counter,"
        " r.at_ms, r.body, r.requested_by, r.note, r.needs_two, r.state AS request_state, r.decided_by, r.decided_ms, r.decided_note,"
        " r.expires_ms, l.lines, l.size, l.cut AS cut, l.received_ms AS log_ms, l.removed_ms"
        " FROM order_item i JOIN order_request r ON r.id = i.request LEFT JOIN pulled_log l ON l.order_id = i.order_id"
        " WHERE i.terminal = ? ORDER BY r.at_ms DESC, r.id LIMIT ?",
        (terminal, limit),
    )


async def told_of(db: FleetEngine, terminal: str, order_ids: Sequence[bytes]) -> dict[bytes, list[dict[str, Any]]]:
    """What the terminal told of each of these orders."""
    rows = await db.read(
        _TOLD.format(marks=_marks(order_ids)),
        (terminal, *order_ids),
    )
    found: dict[bytes, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(bytes(row["order_id"]), []).append(row)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is wanted of a terminal, and what it says that it holds."""

    lock: str | None
    """JSON of the lock that is wanted."""
    lock_by: str | None
    lock_ms: int | None
    locked: bool
    """The terminal's own word."""
    wanted_version: int | None
    told_version: int
    told_state: str
    told_reason: str


async def held(db: FleetEngine, terminal: str) -> Held:
    return await db.look(lambda conn: read_held(conn, terminal))


def read_held(conn: sqlite3.Connection, terminal: str) -> Held:
    wanted = _one(conn, "SELECT configuration, lock, lock_by, lock_ms FROM wanted WHERE terminal = ?", terminal)
    told = _one(
        conn,
        "SELECT locked, config_version, state, reason FROM desired_report"
        " WHERE terminal = ? AND disputed = 0 AND state <> 'refused' ORDER BY counter DESC, at_ms DESC LIMIT 1",
        terminal,
    )
    return Held(
        lock=wanted.get("lock"),
        lock_by=wanted.get("lock_by"),
        lock_ms=wanted.get("lock_ms"),
        locked=bool(told.get("locked", 0)),
        wanted_version=wanted.get("configuration"),
        told_version=told.get("config_version", 0),
        told_state=told.get("state", ""),
        told_reason=told.get("reason", ""),
    )


async def versions(db: FleetEngine, terminal: str) -> list[dict[str, Any]]:
    """Versions that were ever asked for here, the newest first, with what became of asking for them last."""
    return await db.read(
        "SELECT c.version, c.made_ms, c.made_by, c.note, c.content, i.state, i.request, max(r.at_ms) AS asked_ms, r.state AS request_state"
        " FROM order_item i JOIN order_request r ON r.id = i.request AND r.kind = 'configuration'"
        " JOIN configuration c ON c.version = json_extract(r.body, '$.version')"
        " WHERE i.terminal = ? GROUP BY c.version ORDER BY c.version DESC",
        (terminal,),
    )


async def newest_versions(db: FleetEngine, limit: int = 20) -> list[dict[str, Any]]:
    """Versions to choose from, the newest first."""
    return await db.read("SELECT version, made_ms, made_by, note FROM configuration ORDER BY version DESC LIMIT ?", (limit,))


async def configuration(db: FleetEngine, version: int) -> dict[str, Any] | None:
    rows = await db.read("SELECT version, made_ms, made_by, note, content FROM configuration WHERE version = ?", (version,))
    return rows[0] if rows else None


async def wanted_versions(db: FleetEngine, terminals: Sequence[str]) -> dict[str, int | None]:
    rows = await db.read(
        "SELECT terminal, configuration FROM wanted WHERE terminal IN (SELECT value FROM json_each(?))",
        (json.dumps(list(terminals)),),
    )
    return {row["terminal"]: row["configuration"] for row in rows}


def _marks(values: Sequence[bytes]) -> str:
    return ", ".join("?" * len(values))


def _one(conn: sqlite3.Connection, sql: str, terminal: str) -> dict[str, Any]:
    cursor = conn.execute(sql, (terminal,))
    row = cursor.fetchone()
    if row is None:
        return {}
    return dict(row) if isinstance(row, dict) else as_dict(cursor, row)
