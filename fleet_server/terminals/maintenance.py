"""Owns when a terminal is out of play on purpose: set by a person with a reason and an end, at most seven days ahead, ended by a person or by time.

The columns of `terminal` say what holds now, the table `maintenance` keeps every span for figures and timelines. Works in the caller's transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from fleet_server import audit
from fleet_server.errors import Conflict, NotFound, Refused

LONGEST_MS: Final = 7 * 86_400_000
Span = tuple[int, int]


def start(connection: sqlite3.Connection, terminal: str, *, by: str, reason: str, until_ms: int, now_ms: int) -> None:
    """From now until `until_ms`; a span that lasts is ended and a new one begins. Refused beyond seven days, NotFound for a retired terminal."""
    if not now_ms < until_ms <= now_ms + LONGEST_MS:
        raise Refused("until", "until")
    done = connection.execute(
        "UPDATE terminal SET maintenance_until_ms = ?, maintenance_reason = ?, maintenance_by = ? WHERE id = ? AND revoked_ms IS NULL",
        (until_ms, reason, by, terminal),
    )
    if done.rowcount != 1:
        raise NotFound(f"terminal {terminal[:32]!r}")
    _close(connection, terminal, by, now_ms)
    connection.execute(
        'INSERT INTO maintenance (terminal, from_ms, until_ms, reason, "by") VALUES (?, ?, ?, ?, ?)',
        (terminal, now_ms, until_ms, reason, by),
    )
    audit.write(
        connection, by, None, "maintenance.start", f"terminal:{terminal}", {"until_ms": until_ms, "reason": reason}, now_ms=now_ms
    )


def end(connection: sqlite3.Connection, terminal: str, *, by: str, now_ms: int) -> None:
    """Back into play now. Conflict if the terminal is not in maintenance, NotFound if there is none."""
    row = connection.execute(
        "SELECT maintenance_until_ms FROM terminal WHERE id = ? AND revoked_ms IS NULL", (terminal,)
    ).fetchone()
    if row is None:
        raise NotFound(f"terminal {terminal[:32]!r}")
    if row[0] is None or row[0] <= now_ms:
        raise Conflict("terminal", "notInMaintenance")
    connection.execute(
        "UPDATE terminal SET maintenance_until_ms = NULL, maintenance_reason = NULL, maintenance_by = NULL WHERE id = ?",
        (terminal,),
    )
    _close(connection, terminal, by, now_ms)
    audit.write(connection, by, None, "maintenance.end", f"terminal:{terminal}", now_ms=now_ms)


def _close(connection: sqlite3.Connection, terminal: str, by: str, now_ms: int) -> None:
    connection.execute(
        "UPDATE maintenance SET to_ms = ?, ended_by = ? WHERE terminal = ? AND to_ms IS NULL AND until_ms > ?",
        (now_ms, by, terminal, now_ms),
    )


def spans(connection: sqlite3.Connection, terminals: Iterable[str], from_ms: int, to_ms: int) -> dict[str, list[Span]]:
    """Maintenance inside [from_ms, to_ms) by terminal: ordered, disjoint, cut to the interval. Terminals without any are missing."""
    rows = connection.execute(_SPANS, {"ids": json.dumps(list(terminals)), "from": from_ms, "to": to_ms, "longest": LONGEST_MS})
    found: defaultdict[str, list[Span]] = defaultdict(list)
    for terminal, start_ms, end_ms in rows:
        low, high = max(start_ms, from_ms), min(end_ms, to_ms)
        if found[terminal] and low <= found[terminal][-1][1]:
            before = found[terminal].pop()
            low, high = before[0], max(before[1], high)
        found[terminal].append((low, high))
    return dict(found)


_SPANS = """
SELECT m.terminal, m.from_ms, coalesce(m.to_ms, m.until_ms) FROM json_each(:ids) t CROSS JOIN maintenance m
WHERE m.terminal = t.value AND m.from_ms >= :from - :longest AND m.from_ms < :to AND coalesce(m.to_ms, m.until_ms) > :from
  AND coalesce(m.to_ms, m.until_ms) > m.from_ms
ORDER BY m.terminal, m.from_ms, m.id
"""
