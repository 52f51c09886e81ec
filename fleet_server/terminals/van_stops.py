"""Owns where a van is to stand and when: planned stops, made and taken back by a person. Works in the caller's transaction."""

from __future__ import annotations

import sqlite3
from typing import Final

from fleet_server import audit
from fleet_server.errors import Conflict, NotFound, Refused

SHORTEST_MS: Final = 15 * 60_000
"""Shorter stops cannot be told from a traffic light: a van tells its place every five minutes."""
LONGEST_MS: Final = 24 * 3_600_000
AHEAD_MS: Final = 90 * 86_400_000
MOST: Final = 200
"""Of one van, still to come: three a day for two months."""
KEPT_MS: Final = 90 * 86_400_000
"""As long as where it was."""


def plan(
    connection: sqlite3.Connection,
    terminal: str,
    *,
    by: str,
    name: str,
    latitude: float,
    longitude: float,
    from_ms: int,
    to_ms: int,
    now_ms: int,
) -> int:
    """A stop to come (WGS-84); its number. Refused for a window or place that does not fit, Conflict for too many, NotFound: no van."""
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise Refused("place", "place")
    if not (SHORTEST_MS <= to_ms - from_ms <= LONGEST_MS and now_ms < to_ms and from_ms <= now_ms + AHEAD_MS):
        raise Refused("window", "window")
    if (
        connection.execute("SELECT 1 FROM terminal WHERE id = ? AND type = 'van' AND revoked_ms IS NULL", (terminal,)).fetchone()
        is None
    ):
        raise NotFound(f"van {terminal[:32]!r}")
    (count,) = connection.execute("SELECT count(*) FROM van_stop WHERE terminal = ? AND to_ms > ?", (terminal, now_ms)).fetchone()
    if count >= MOST:
        raise Conflict("stop", "manyStops")
    made = connection.execute(
        'INSERT INTO van_stop (terminal, name, lat_e4, lon_e4, from_ms, to_ms, made_ms, "by") VALUES (?, ?, ?, ?, ?, ?, ?, ?)',
        (terminal, name, round(latitude * 10_000), round(longitude * 10_000), from_ms, to_ms, now_ms, by),
    )
    _tell(connection, terminal, now_ms)
    audit.write(
        connection,
        by,
        None,
        "van.plan",
        f"terminal:{terminal}",
        {"stop": name, "from_ms": from_ms, "to_ms": to_ms},
        now_ms=now_ms,
    )
    return int(made.lastrowid or 0)


def take_back(connection: sqlite3.Connection, terminal: str, stop: int, *, by: str, now_ms: int) -> None:
    """It is not to be driven to. NotFound if there is none; Conflict if what became of it is known already."""
    row = connection.execute("SELECT name, outcome FROM van_stop WHERE id = ? AND terminal = ?", (stop, terminal)).fetchone()
    if row is None:
        raise NotFound("no such stop")
    if row[1] is not None:
        raise Conflict("stop", "stopOver")
    connection.execute("DELETE FROM van_stop WHERE id = ?", (stop,))
    _tell(connection, terminal, now_ms)
    audit.write(connection, by, None, "van.takeBack", f"terminal:{terminal}", {"stop": row[0]}, now_ms=now_ms)


def _tell(connection: sqlite3.Connection, terminal: str, now_ms: int) -> None:
    connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'place')", (now_ms, terminal))
