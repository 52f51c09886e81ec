"""Owns the figures of one terminal and local day: computed from facts, whole, whenever the day is marked dirty; never counted up.

Seconds count inside the site's opening hours. What the terminal observed itself counts first, because its signed summaries survive an outage. Then
comes the server's view: offline and announced stops count against the terminal, blind spans of the platform count for nobody.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fleet_server.errors import place_of
from fleet_server.facts.work import LONGEST_SPAN_MS, zone_of_terminal
from fleet_server.sites.calendar import Calendar, Span, day_span_ms, load_calendar, open_spans_ms
from fleet_server.sites.hours import hours_of_terminal
from fleet_server.terminals import maintenance

log = logging.getLogger(__name__)

CASE_MAX_MS = 86_400_000
"""A longer case is a clock error; it must not spoil the sum."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A signed summary: seconds within [from_ms, to_ms), spread evenly for want of better."""

    from_ms: int
    to_ms: int
    usable_s: int
    partial_s: int
    unusable_s: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A presence interval; the open one ends now."""

    from_ms: int
    to_ms: int
    state: str


@dataclass(frozen=True, slots=True)
class Seconds:
    """A day's time inside opening hours. What is missing up to `scheduled_s` is unknown without blame: before enrolment, or not told."""

    scheduled_s: int
    usable_s: int
    partial_s: int
    unusable_s: int
    silent_s: int
    blind_s: int
    maintenance_s: int = 0

    @property
    def observed_s(self) -> int:
        return self.usable_s + self.partial_s + self.unusable_s


def availability(*, usable_s: int, partial_s: int, unusable_s: int, silent_s: int) -> float | None:
    """Share of the known time in which the terminal could serve; None if nothing is known. Blind time is not in it."""
    known_s = usable_s + partial_s + unusable_s + silent_s
    return None if known_s == 0 else (usable_s + partial_s) / known_s


def without(spans: Sequence[Span], cut: Sequence[Span]) -> list[Span]:
    """Pure: `spans` less what `cut` covers. Both ordered and disjoint, ends not included."""
    left, n = [], 0
    for start, end in spans:
        at = start
        while n < len(cut) and cut[n][1] <= at:
            n += 1
        k = n
        while k < len(cut) and cut[k][0] < end:
            if cut[k][0] > at:
                left.append((at, cut[k][0]))
            at = max(at, cut[k][1])
            k += 1
        if at < end:
            left.append((at, end))
    return left


def tally(
    open_spans: Sequence[Span], observed: Sequence[Observed], presence: Sequence[Interval], maintained: Sequence[Span] = ()
) -> Seconds:
    """Pure: the seconds of a day from its opening periods, the terminal's summaries and the server's presence intervals (ordered).

    Planned maintenance counts for nobody, whatever was observed meanwhile.
    """
    whole_s = sum(end - start for start, end in open_spans) // 1000
    open_spans = without(open_spans, maintained)
    scheduled_s = sum(end - start for start, end in open_spans) // 1000
    parts = [0.0, 0.0, 0.0]
    for one in observed:
        share = _overlap_ms(open_spans, one.from_ms, one.to_ms) / max(1, one.to_ms - one.from_ms)
        for n, seconds in enumerate((one.usable_s, one.partial_s, one.unusable_s)):
            parts[n] += seconds * share
    return Seconds(
        scheduled_s=scheduled_s,
        usable_s=round(parts[0]),
        partial_s=round(parts[1]),
        unusable_s=round(parts[2]),
        silent_s=_unobserved_s(open_spans, observed, down_spans(presence)),
        blind_s=_unobserved_s(open_spans, observed, [(one.from_ms, one.to_ms) for one in presence if one.state == "unknown"]),
        maintenance_s=whole_s - scheduled_s,
    )


def down_spans(presence: Sequence[Interval]) -> list[Span]:
    """Offline and stopped, with the suspicion that led to it."""
    down = [(one.from_ms, one.to_ms) for one in presence if one.state in {"offline", "stopped"}]
    confirmed = [
        (one.from_ms, one.to_ms) for one, after in pairwise(presence) if one.state == "suspect" and after.state == "offline"
    ]
    return sorted(down + confirmed)


def _unobserved_s(open_spans: Sequence[Span], observed: Sequence[Observed], spans: Iterable[Span]) -> int:
    """Seconds of `spans` inside opening hours that no summary of the terminal speaks of."""
    left_ms = 0.0
    for from_ms, to_ms in spans:
        for start, end in ((max(from_ms, start), min(to_ms, end)) for start, end in open_spans):
            if start < end:
                told_ms = sum(_told_share(one) * _overlap_ms([(start, end)], one.from_ms, one.to_ms) for one in observed)
                left_ms += max(0.0, end - start - told_ms)
    return round(left_ms / 1000)


def _told_share(one: Observed) -> float:
    return min(1.0, (one.usable_s + one.partial_s + one.unusable_s) * 1000 / max(1, one.to_ms - one.from_ms))


def _overlap_ms(spans: Iterable[Span], from_ms: int, to_ms: int) -> int:
    return sum(max(0, min(end, to_ms) - max(start, from_ms)) for start, end in spans)


# The database ---------------------------------------------------------------------------------------------------------------------------


def recompute_some(conn: sqlite3.Connection, limit: int, now_ms: int | None = None) -> int:
    """Compute up to `limit` dirty days, newest first, in the caller's transaction; returns how many were computed (0: nothing is dirty)."""
    at_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    dirty = conn.execute("SELECT id, terminal, day FROM dirty_day ORDER BY day DESC LIMIT ?", (limit,)).fetchall()
    if not dirty:
        return 0
    calendar = load_calendar(conn)
    for _, terminal, day in dirty:
        try:
            conn.execute(_UPSERT, _figures(conn, terminal, day, calendar, at_ms))
        except sqlite3.OperationalError:
            raise
        except Exception as err:  # noqa: BLE001 - one day that cannot be computed must not keep all others from it
            log.error("figures could not be computed", extra={"terminal": terminal, "day": day, "reason": place_of(err)})
    conn.executemany("DELETE FROM dirty_day WHERE id = ?", [(row[0],) for row in dirty])
    conn.executemany(_CHANGED, [(day, at_ms) for day in {row[2] for row in dirty}])
    conn.executemany(
        "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'session', ?)",
        [(at_ms, terminal, day) for _, terminal, day in dirty if at_ms - day_span_ms(day)[1] < _NEWS_MS],
    )
    return len(dirty)


_NEWS_MS = 86_400_000
"""Figures of days longer ago than yesterday need no hint: open pages show them when they are asked for."""


def _figures(conn: sqlite3.Connection, terminal: str, day: str, calendar: Calendar, now_ms: int) -> tuple[object, ...]:
    zone = zone_of_terminal(conn, terminal)
    cases = conn.execute(_CASES, (CASE_MAX_MS, terminal, day)).fetchone()
    ratings = conn.execute(
        "SELECT level, count(*) FROM rating WHERE terminal = ? AND day = ? AND disputed = 0 GROUP BY level", (terminal, day)
    )
    start, end = day_span_ms(day, zone)
    seconds = tally(
        [
            (max(from_ms, start), min(to_ms, now_ms))
            for from_ms, to_ms in _open(conn, terminal, calendar, zone, day)
            if from_ms < now_ms
        ],
        _observed(conn, terminal, start, end),
        _presence(conn, terminal, start, end, now_ms),
        maintenance.spans(conn, [terminal], start, end).get(terminal, ()),
    )
    return (
        terminal,
        day,
        *cases,
        seconds.usable_s,
        seconds.partial_s,
        seconds.unusable_s,
        seconds.observed_s,
        seconds.scheduled_s,
        seconds.silent_s,
        seconds.blind_s,
        seconds.maintenance_s,
        json.dumps({str(level): count for level, count in ratings}, sort_keys=True),
        now_ms,
    )


def _open(conn: sqlite3.Connection, terminal: str, calendar: Calendar, zone: str, day: str) -> tuple[Span, ...]:
    return open_spans_ms(hours_of_terminal(conn, terminal, day), calendar, zone, day)


def _observed(conn: sqlite3.Connection, terminal: str, start: int, end: int) -> list[Observed]:
    rows = conn.execute(
        "SELECT from_ms, to_ms, usable_s, partial_s, unusable_s FROM serviceability"
        " WHERE terminal = ? AND from_ms >= ? AND from_ms < ? AND to_ms > ? AND disputed = 0",
        (terminal, start - LONGEST_SPAN_MS, end, start),
    )
    return [Observed(*row) for row in rows]


def _presence(conn: sqlite3.Connection, terminal: str, start: int, end: int, now_ms: int) -> list[Interval]:
    """Intervals that touch the day, and the next behind it, which says whether a suspicion was confirmed."""
    rows = conn.execute(
        "SELECT from_ms, coalesce(to_ms, ?1), state FROM presence WHERE terminal = ?2"
        " AND from_ms <= coalesce((SELECT min(from_ms) FROM presence WHERE terminal = ?2 AND from_ms >= ?4), ?4)"
        " AND from_ms >= coalesce((SELECT max(from_ms) FROM presence WHERE terminal = ?2 AND from_ms < ?3), ?3) ORDER BY from_ms, id",
        (now_ms, terminal, start, end),
    )
    return [Interval(*row) for row in rows]


_CHANGED = """
INSERT INTO changed_day (day, at_ms) VALUES (?, ?) ON CONFLICT (day) DO UPDATE SET at_ms = max(excluded.at_ms, changed_day.at_ms + 1)
"""

_CASES = """
SELECT count(*), coalesce(sum(outcome = 'success'), 0), coalesce(sum(outcome = 'failed'), 0), coalesce(sum(outcome = 'abandoned'), 0),
  coalesce(sum(item = 'query' OR item LIKE '%.query' OR item LIKE '%-query'), 0), coalesce(sum(min(duration_ms, ?)), 0)
FROM session WHERE terminal = ? AND day = ? AND disputed = 0
"""

_UPSERT = """
INSERT INTO terminal_day (terminal, day, sessions, success, failed, abandoned, query_count, duration_ms_sum, usable_s, partial_s, unusable_s,
  observed_s, scheduled_s, silent_s, blind_s, maintenance_s, ratings, computed_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (terminal, day) DO UPDATE SET sessions = excluded.sessions, success = excluded.success, failed = excluded.failed,
  abandoned = excluded.abandoned, query_count = excluded.query_count, duration_ms_sum = excluded.duration_ms_sum, usable_s = excluded.usable_s,
  partial_s = excluded.partial_s, unusable_s = excluded.unusable_s, observed_s = excluded.observed_s, scheduled_s = excluded.scheduled_s,
  silent_s = excluded.silent_s, blind_s = excluded.blind_s,
  maintenance_s = excluded.maintenance_s, ratings = excluded.ratings, computed_ms = excluded.computed_ms
"""
