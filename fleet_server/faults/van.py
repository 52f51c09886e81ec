"""Owns the alarms about a van's plan: a stop that it missed, and a van far from where it is to stand. In the caller's transaction.

What a van tells is about 100 m coarse, five minutes apart, and silent while somebody is served (decision 0013): the last place told holds until the
next. A stop is judged when a place of after its window is known: a van without a network is not accused, its records come later and in order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from fleet_server.faults.platform import clear_platform_fault, open_platform_fault
from fleet_server.sites.distance import distance_km
from fleet_server.terminals.van_stops import KEPT_MS, SHORTEST_MS

MISSED, OFF_ROUTE = "VAN.STOP_MISSED", "VAN.OFF_ROUTE"
NEAR_KM: Final = 0.5
"""Wider than a square and the coarseness of a place together."""
FAR_KM: Final = 5.0
"""Chosen: another village, not the next car park."""
LATE_MS: Final = 30 * 60_000
"""So long after a window began, and for so long, the van has to be far away before that is an alarm."""
BELIEVED_MS: Final = 2 * 3_600_000
"""A place told longer ago says nothing."""
SHOWN_MS: Final = 12 * 3_600_000
"""A missed stop is an alarm for the rest of the day, unless the next one is reached."""
WAITED_MS: Final = 7 * 86_400_000
"""So long a stop waits for the places that judge it."""

Outcome = Literal["reached", "missed"]


@dataclass(frozen=True, slots=True)
class Stop:
    id: int
    latitude: float
    longitude: float
    from_ms: int
    to_ms: int
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Place:
    at_ms: int
    latitude: float
    longitude: float


def outcome_of(stop: Stop, places: Sequence[Place]) -> Outcome | None:
    """What became of a stop, by places in the order of time; None while that is not known."""
    for number, place in enumerate(places):
        if not _is_near(stop, place, NEAR_KM) or place.at_ms >= stop.to_ms:
            continue
        if place.at_ms >= stop.from_ms:
            return "reached"
        following_ms = places[number + 1].at_ms if number + 1 < len(places) else place.at_ms
        if following_ms - stop.from_ms >= SHORTEST_MS and stop.from_ms - place.at_ms <= BELIEVED_MS:
            return "reached"  # it came early and served through the beginning
    return "missed" if places and places[-1].at_ms >= stop.to_ms else None


def is_off_route(stops: Sequence[Stop], places: Sequence[Place], now_ms: int) -> bool:
    """Whether the van has been far from every stop whose window runs, for a while."""
    running = [stop for stop in stops if stop.from_ms + LATE_MS <= now_ms < stop.to_ms]
    lately = [place for place in places if now_ms - LATE_MS <= place.at_ms <= now_ms]
    return bool(running) and len(lately) >= 2 and not any(_is_near(stop, place, FAR_KM) for stop in running for place in lately)


def missed_since(stops: Sequence[Stop], now_ms: int) -> int | None:
    """Since when a missed stop is an alarm; None for none."""
    reached_ms = max((stop.from_ms for stop in stops if stop.outcome == "reached"), default=0)
    return min(
        (
            stop.to_ms
            for stop in stops
            if stop.outcome == "missed" and stop.to_ms > now_ms - SHOWN_MS and stop.from_ms > reached_ms
        ),
        default=None,
    )


def follow_vans(conn: sqlite3.Connection, now_ms: int) -> int:
    """Judge stops, and open and clear both alarms; returns how many rows changed. Vans without a plan, or out of service, have none."""
    conn.execute("DELETE FROM van_stop WHERE to_ms < ?", (now_ms - KEPT_MS,))
    changed = 0
    planned = {row[0] for row in conn.execute(_PLANNED, (now_ms, now_ms - WAITED_MS))}
    alarmed = {row[0] for row in conn.execute(_ALARMED, (MISSED, OFF_ROUTE))}
    for terminal in sorted(planned | alarmed):
        stops = (
            [Stop(*row) for row in conn.execute(_STOPS, (terminal, now_ms, now_ms - WAITED_MS))] if terminal in planned else []
        )
        earliest_ms = min((stop.from_ms for stop in stops if stop.outcome is None or stop.to_ms > now_ms), default=now_ms)
        places = [Place(*row) for row in conn.execute(_PLACES, (terminal, earliest_ms - BELIEVED_MS))]
        judged = []
        for stop in stops:
            outcome = stop.outcome or outcome_of(stop, places)
            if outcome != stop.outcome:
                conn.execute("UPDATE van_stop SET outcome = ? WHERE id = ?", (outcome, stop.id))
                conn.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'place')", (now_ms, terminal))
                changed += 1
            judged.append(replace(stop, outcome=outcome))
        since_ms = missed_since(judged, now_ms)
        changed += _hold(conn, terminal, MISSED, since_ms is not None, now_ms, since_ms)
        changed += _hold(conn, terminal, OFF_ROUTE, is_off_route(judged, places, now_ms), now_ms, None)
    return changed


def _hold(conn: sqlite3.Connection, terminal: str, code: str, wanted: bool, now_ms: int, since_ms: int | None) -> bool:
    if wanted:
        return open_platform_fault(conn, terminal, code, now_ms, since_ms=since_ms) is not None
    return clear_platform_fault(conn, terminal, code, now_ms)


def _is_near(stop: Stop, place: Place, within_km: float) -> bool:
    return distance_km(stop.latitude, stop.longitude, place.latitude, place.longitude) <= within_km


_PLANNED = (
    "SELECT DISTINCT s.terminal FROM van_stop s JOIN terminal t ON t.id = s.terminal AND t.type = 'van' AND t.revoked_ms IS NULL"
    " WHERE s.from_ms <= ? AND s.to_ms > ?"
)
_ALARMED = "SELECT DISTINCT terminal FROM fault WHERE code IN (?, ?) AND source = 'platform' AND cleared_ms IS NULL"
_STOPS = (
    "SELECT id, lat_e4 / 10000.0, lon_e4 / 10000.0, from_ms, to_ms, outcome FROM van_stop"
    " WHERE terminal = ? AND from_ms <= ? AND to_ms > ? ORDER BY from_ms"
)
_PLACES = (
    "SELECT at_ms, lat_e4 / 10000.0, lon_e4 / 10000.0 FROM van_position"
    " WHERE terminal = ? AND at_ms >= ? AND disputed = 0 ORDER BY at_ms"
)
