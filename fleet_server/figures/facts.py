"""Reads what figures are made of, summed by terminal: one statement for each kind of fact, however long the period and large the fleet.

Disputed facts and false alarms are never read.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from fleet_server.faults.severity import Impact, impact
from fleet_server.figures.opening import Openings, OpenTime, minute_of_day
from fleet_server.figures.population import Member, ids_json, in_service_ms
from fleet_server.figures.question import Period
from fleet_server.sites.calendar import Span, TimeClass, day_span_ms
from fleet_server.terminals import maintenance

CHECKS: Final = (9 * 60, 15 * 60)
"""Minutes after local midnight at which the intact rate looks at a terminal: 09:00 and 15:00, if its site is open then."""
_DOWN: Final = frozenset({"offline", "stopped"})
_NEVER_MS: Final = 1 << 62
_AT_ONCE: Final = 250
"""Terminals whose presence is in memory together: a year of them is 200,000 intervals."""


# Cases ----------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases counted in several ways; each way adds up to the same sum."""

    by_terminal: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Outcomes."""
    by_class: dict[str, Counter[TimeClass]] = field(default_factory=lambda: defaultdict(Counter))
    by_item: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(item, outcome)."""
    by_hour: Counter[int] = field(default_factory=Counter)
    by_hour_rest: Counter[int] = field(default_factory=Counter)
    """Those of weekends and holidays alone."""


class Case(NamedTuple):
    id: int
    terminal: str
    item: str
    outcome: str
    began_ms: int
    day: str


def each_case(conn: sqlite3.Connection, members: Sequence[Member], period: Period) -> Iterator[Case]:
    """Every case of the members in the period, ordered by terminal and day."""
    rows = conn.execute(_CASES, {"ids": ids_json([one.id for one in members]), "first": period.first, "last": period.last})
    return map(Case._make, rows)


def count_cases(conn: sqlite3.Connection, members: Sequence[Member], period: Period, openings: Openings) -> Cases:
    by_id = {one.id: one for one in members}
    cases = Cases()
    for _, terminal, item, outcome, began_ms, day in each_case(conn, members, period):
        member = by_id[terminal]
        cases.by_terminal[terminal][outcome] += 1
        cases.by_class[terminal][openings.class_of(member.site, member.zone, day, began_ms)] += 1
        cases.by_item[item, outcome] += 1
        hour = minute_of_day(began_ms, member.zone) // 60
        cases.by_hour[hour] += 1
        if openings.is_rest_day(day):
            cases.by_hour_rest[hour] += 1
    return cases


def cases_outside(conn: sqlite3.Connection, terminals: Sequence[str], period: Period) -> int:
    """Cases of terminals that were not in service in the period: not counted, but told."""
    if not terminals:
        return 0
    found = conn.execute(_OUTSIDE, {"ids": ids_json(terminals), "first": period.first, "last": period.last}).fetchone()
    return int(found[0])


def last_success_ms(conn: sqlite3.Connection, terminals: Sequence[str], last: str) -> dict[str, int]:
    """When each terminal's last successful case up to the day `last` began; terminals that never had one are missing."""
    return dict(conn.execute(_LAST_SUCCESS, {"ids": ids_json(terminals), "last": last}))


# Time -----------------------------------------------------------------------------------------------------------------------------------


class DaySums(NamedTuple):
    """Seconds of a terminal's days inside opening hours, as `terminal_day` has them."""

    usable_s: int = 0
    partial_s: int = 0
    unusable_s: int = 0
    silent_s: int = 0
    blind_s: int = 0
    scheduled_s: int = 0
    maintenance_s: int = 0

    @property
    def serving_s(self) -> int:
        return self.usable_s + self.partial_s

    @property
    def known_s(self) -> int:
        return self.serving_s + self.unusable_s + self.silent_s


NO_DAYS: Final = DaySums()


def sum_days(conn: sqlite3.Connection, members: Sequence[Member], period: Period) -> dict[str, DaySums]:
    rows = conn.execute(_DAYS, {"ids": ids_json([one.id for one in members]), "first": period.first, "last": period.last})
    return {row[0]: DaySums(*row[1:]) for row in rows}


def pending_days(conn: sqlite3.Connection, members: Sequence[Member], period: Period) -> int:
    """Terminal-days of the period that are still to be computed again."""
    ids = ids_json([one.id for one in members])
    return int(conn.execute(_PENDING, {"ids": ids, "first": period.first, "last": period.last}).fetchone()[0])


class Outage(NamedTuple):
    """A span in which the server did not see the terminal: down (offline, stopped) or blind. `open_s` of it inside opening hours."""

    id: int
    from_ms: int
    to_ms: int
    state: str
    open_s: int


@dataclass(frozen=True)
class Contact:
    """The server's view of one terminal inside opening hours. The parts add up to the open time in which it was in service."""

    online_s: int
    offline_s: int
    blind_s: int
    unwatched_s: int
    """In service and open, but no presence was kept then."""
    maintenance_s: int
    """Taken out of play by a person: in none of the others."""
    down: tuple[Outage, ...]
    """Only those that touch opening hours; a machine that is switched off at night is not down."""
    blind: tuple[Outage, ...]
    maintained: tuple[Span, ...]
    seen_ms: tuple[int, int]
    """[from, to) in which presence was kept; empty if it never was."""

    @property
    def watched_s(self) -> int:
        return self.online_s + self.offline_s

    @property
    def out_of_sight(self) -> list[Span]:
        """[from, to) in which the server could not hold it for reachable, as far as opening hours are concerned; they may overlap."""
        spans = [(one.from_ms, one.to_ms) for one in (*self.down, *self.blind)]
        return (
            [(0, self.seen_ms[0]), *spans, (self.seen_ms[1], _NEVER_MS)]
            if self.seen_ms[0] < self.seen_ms[1]
            else [(0, _NEVER_MS)]
        )


def read_contact(
    conn: sqlite3.Connection, members: Sequence[Member], period: Period, openings: Openings, now_ms: int
) -> dict[str, Contact]:
    start_ms, end_ms = day_span_ms(period.first)[0], day_span_ms(period.last)[1]
    # Zones differ by up to a day; what is read too much is cut off again below.
    start_ms, end_ms = start_ms - 86_400_000, end_ms + 86_400_000
    found = {}
    for part in _parts(members):
        ids = [one.id for one in part]
        maintained = maintenance.spans(conn, ids, start_ms, end_ms)
        rows = conn.execute(_PRESENCE, {"ids": ids_json(ids), "start": start_ms, "end": end_ms, "now": now_ms})
        by_terminal = {name: [(row[1], row[2], row[3], row[4]) for row in told] for name, told in groupby(rows, key=_terminal_of)}
        for member in part:
            from_ms, to_ms = in_service_ms(member, period.first, period.last, now_ms)
            open_time = openings.of_site(member.site, member.zone)
            found[member.id] = weigh_contact(
                by_terminal.get(member.id, ()), open_time, from_ms, to_ms, maintained=maintained.get(member.id, ())
            )
    return found


def _parts(members: Sequence[Member]) -> Iterator[Sequence[Member]]:
    """So many members at a time that the rows of a year fit into memory."""
    return (members[n : n + _AT_ONCE] for n in range(0, len(members), _AT_ONCE))


def _terminal_of(row: Sequence[str]) -> str:
    return row[0]


def weigh_contact(
    intervals: Sequence[tuple[int, int, int, str]],
    open_time: OpenTime,
    from_ms: int,
    to_ms: int,
    *,
    maintained: Sequence[Span] = (),
) -> Contact:
    """Pure: presence intervals (id, from, to, state), ordered, weighed by opening time inside [from_ms, to_ms), maintenance taken out.

    A suspicion that ended in offline counts as offline, any other as online.
    """
    scheduled_ms = open_time.within_ms(from_ms, to_ms)
    open_time = open_time.without(maintained)
    open_ms = open_time.within_ms(from_ms, to_ms)
    down: list[Outage] = []
    blind: list[Outage] = []
    seen_ms, run_from_ms, run_to_ms, first_ms = 0, from_ms, from_ms, to_ms
    for n, (row, told_from_ms, told_to_ms, state) in enumerate(intervals):
        start, end = max(told_from_ms, from_ms), min(told_to_ms, to_ms)
        if start >= end:
            continue
        first_ms = min(first_ms, start)
        if start > run_to_ms:
            # Intervals follow one another; where they do not, nothing is known.
            seen_ms += open_time.within_ms(run_from_ms, run_to_ms)
            run_from_ms = start
        run_to_ms = max(run_to_ms, end)
        if state == "online":
            continue
        if state in _DOWN or (state == "suspect" and n + 1 < len(intervals) and intervals[n + 1][3] == "offline"):
            kept = down
        elif state == "unknown":
            kept = blind
        else:
            continue
        if outage_ms := open_time.within_ms(start, end):
            kept.append(Outage(row, start, end, state, outage_ms // 1000))
    seen_ms += open_time.within_ms(run_from_ms, run_to_ms)
    offline_s, blind_s = sum(one.open_s for one in down), sum(one.open_s for one in blind)
    return Contact(
        online_s=max(0, seen_ms // 1000 - offline_s - blind_s),
        offline_s=offline_s,
        blind_s=blind_s,
        unwatched_s=max(0, open_ms - seen_ms) // 1000,
        maintenance_s=(scheduled_ms - open_ms) // 1000,
        down=tuple(down),
        blind=tuple(blind),
        maintained=tuple(maintained),
        seen_ms=(first_ms, run_to_ms),
    )


# Faults ---------------------------------------------------------------------------------------------------------------------------------


class Episode(NamedTuple):
    """A fault of the terminal itself that lay in the period, P4 and false alarms left out; `to_ms` is None while it is open."""

    id: str
    terminal: str
    slot: str | None
    code: str
    severity: str
    mandatory: bool
    since_ms: int
    cleared_ms: int | None

    @property
    def impact(self) -> Impact:
        return impact(self.code, self.severity, slot=self.slot, mandatory=self.mandatory)

    @property
    def breaks_mandatory(self) -> bool:
        """A peripheral that must be there is not normal, or out of what it consumes."""
        return self.mandatory and self.slot is not None

    @property
    def lasted_s(self) -> int:
        """Seconds from the first observation to the end; 0 while it is open."""
        return 0 if self.cleared_ms is None else max(0, self.cleared_ms - self.since_ms) // 1000

    def lies_at(self, at_ms: int) -> bool:
        return self.since_ms <= at_ms and (self.cleared_ms is None or at_ms < self.cleared_ms)


def read_faults(conn: sqlite3.Connection, members: Sequence[Member], period: Period, now_ms: int) -> dict[str, list[Episode]]:
    """Episodes that touch the time a member was in service in the period, by terminal, oldest first."""
    by_id = {one.id: in_service_ms(one, period.first, period.last, now_ms) for one in members}
    start_ms, end_ms = min((span[0] for span in by_id.values()), default=0), max((span[1] for span in by_id.values()), default=0)
    rows = conn.execute(_FAULTS, {"ids": ids_json(list(by_id)), "start": start_ms, "end": end_ms})
    found: defaultdict[str, list[Episode]] = defaultdict(list)
    for row in rows:
        episode = Episode(row[0], row[1], row[2], row[3], row[4], bool(row[5]), row[6], row[7])
        from_ms, to_ms = by_id[episode.terminal]
        if episode.since_ms < to_ms and (episode.cleared_ms is None or episode.cleared_ms > from_ms):
            found[episode.terminal].append(episode)
    return dict(found)


class Check(NamedTuple):
    """A look at one terminal at a fixed time. `broken`: faults of mandatory peripherals; `is_known` is False where nobody could tell."""

    terminal: str
    day: str
    at_ms: int
    broken: tuple[str, ...]
    is_known: bool
    in_maintenance: bool


@dataclass(frozen=True, slots=True)
class Checks:
    """All looks at one terminal in opening hours while it was in service. `moments` are shared by the terminals of a site; the rest is by place."""

    terminal: str
    moments: Sequence[tuple[str, int]]
    broken: Mapping[int, tuple[str, ...]]
    unknown: frozenset[int]
    maintained: frozenset[int]

    @property
    def known(self) -> int:
        return len(self.moments) - len(self.unknown) - len(self.maintained)

    @property
    def intact(self) -> int:
        return self.known - sum(n not in self.unknown and n not in self.maintained for n in self.broken)

    def __iter__(self) -> Iterator[Check]:
        for n, (day, at_ms) in enumerate(self.moments):
            yield Check(self.terminal, day, at_ms, self.broken.get(n, ()), n not in self.unknown, n in self.maintained)


def read_checks(
    conn: sqlite3.Connection,
    members: Sequence[Member],
    period: Period,
    openings: Openings,
    contact: Mapping[str, Contact],
    faults: Mapping[str, Sequence[Episode]],
    now_ms: int,
) -> dict[str, Checks]:
    """A terminal out of the server's sight is known where its own summary speaks of that moment."""
    found: dict[str, Checks] = {}
    doubtful: list[tuple[str, int]] = []
    moments_of_doubt: list[tuple[str, int]] = []
    for member in members:
        from_ms, to_ms = in_service_ms(member, period.first, period.last, now_ms)
        every = openings.open_moments(member.site, member.zone, CHECKS)
        first, last = _place(every, from_ms), _place(every, to_ms)
        moments = every if (first, last) == (0, len(every)) else every[first:last]
        seen = contact[member.id]
        maintained = frozenset(n for span in seen.maintained for n in _inside(moments, *span))
        unseen = {n for span in seen.out_of_sight for n in _inside(moments, *span)} - maintained
        broken: defaultdict[int, list[str]] = defaultdict(list)
        for one in faults.get(member.id, ()):
            if one.breaks_mandatory:
                for n in _inside(moments, one.since_ms, _NEVER_MS if one.cleared_ms is None else one.cleared_ms):
                    broken[n].append(one.id)
        doubtful += [(member.id, n) for n in sorted(unseen)]
        moments_of_doubt += [(member.id, moments[n][1]) for n in sorted(unseen)]
        found[member.id] = Checks(member.id, moments, {n: tuple(ids) for n, ids in broken.items()}, frozenset(unseen), maintained)
    told: defaultdict[str, set[int]] = defaultdict(set)
    for (terminal, n), is_told in zip(doubtful, _told_by_themselves(conn, moments_of_doubt), strict=True):
        if is_told:
            told[terminal].add(n)
    return found | {
        terminal: replace(found[terminal], unknown=found[terminal].unknown - known) for terminal, known in told.items()
    }


def _place(moments: Sequence[tuple[str, int]], at_ms: int) -> int:
    return bisect_left(moments, at_ms, key=_at_ms)


def _at_ms(moment: tuple[str, int]) -> int:
    return moment[1]


def _inside(moments: Sequence[tuple[str, int]], from_ms: int, to_ms: int) -> range:
    """Places of the moments in [from_ms, to_ms)."""
    return range(_place(moments, from_ms), _place(moments, to_ms))


def _told_by_themselves(conn: sqlite3.Connection, moments: Sequence[tuple[str, int]]) -> list[bool]:
    """Whether a terminal's own summary covers each moment."""
    if not moments:
        return []
    return [bool(row[0]) for row in conn.execute(_TOLD, (msgspec.json.encode(moments).decode(),))]


# Ratings and queues ---------------------------------------------------------------------------------------------------------------------


def count_ratings(conn: sqlite3.Connection, members: Sequence[Member], period: Period) -> dict[str, Counter[int]]:
    """Levels by terminal; 0: asked, not answered."""
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    parameters = {"ids": ids_json([one.id for one in members]), "first": period.first, "last": period.last}
    for terminal, level, count in conn.execute(_RATINGS, parameters):
        found[terminal][level] = count
    return dict(found)


def count_queue_events(conn: sqlite3.Connection, members: Sequence[Member], period: Period) -> dict[str, Counter[str]]:
    """Keys of call pads by terminal."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    parameters = {"ids": ids_json([one.id for one in members]), "first": period.first, "last": period.last}
    for terminal, action, count in conn.execute(_QUEUE, parameters):
        found[terminal][action] = count
    return dict(found)


# Statements -----------------------------------------------------------------------------------------------------------------------------
# The list of terminals drives each of them, so that every one is a series of ranges in an index on (terminal, day) or (terminal, time).

_CASES = """
SELECT s.id, s.terminal, s.item, s.outcome, s.began_ms, s.day FROM json_each(:ids) t CROSS JOIN session s
WHERE s.terminal = t.value AND s.day BETWEEN :first AND :last AND s.disputed = 0 ORDER BY s.terminal, s.day, s.began_ms, s.id
"""

_OUTSIDE = """
SELECT count(*) FROM json_each(:ids) t CROSS JOIN session s
WHERE s.terminal = t.value AND s.day BETWEEN :first AND :last AND s.disputed = 0
"""

_LAST_SUCCESS = """
SELECT t.value, (SELECT s.began_ms FROM session s WHERE s.terminal = t.value AND s.day <= :last AND s.outcome = 'success' AND s.disputed = 0
  ORDER BY s.day DESC, s.began_ms DESC LIMIT 1) AS began_ms
FROM json_each(:ids) t WHERE began_ms IS NOT NULL
"""

_DAYS = """
SELECT d.terminal, sum(d.usable_s), sum(d.partial_s), sum(d.unusable_s), sum(d.silent_s), sum(d.blind_s), sum(d.scheduled_s),
  sum(d.maintenance_s)
FROM json_each(:ids) t CROSS JOIN terminal_day d WHERE d.terminal = t.value AND d.day BETWEEN :first AND :last GROUP BY d.terminal
"""

_PENDING = """
SELECT count(*) FROM json_each(:ids) t CROSS JOIN dirty_day d WHERE d.terminal = t.value AND d.day BETWEEN :first AND :last
"""

_PRESENCE = """
SELECT p.terminal, p.id, p.from_ms, coalesce(p.to_ms, :now), p.state FROM json_each(:ids) t CROSS JOIN presence p
WHERE p.terminal = t.value
  AND p.from_ms <= coalesce((SELECT min(x.from_ms) FROM presence x WHERE x.terminal = t.value AND x.from_ms >= :end), :end)
  AND p.from_ms >= coalesce((SELECT max(x.from_ms) FROM presence x WHERE x.terminal = t.value AND x.from_ms < :start), :start)
ORDER BY p.terminal, p.from_ms, p.id
"""

_FAULTS = """
SELECT f.id, f.terminal, f.slot, f.code, f.severity, f.mandatory, f.since_ms, f.cleared_ms FROM json_each(:ids) t CROSS JOIN fault f
WHERE f.terminal = t.value AND f.opened_ms < :end AND (f.cleared_ms IS NULL OR f.cleared_ms > :start) AND f.disputed = 0 AND f.false_alarm = 0
  AND f.source = 'terminal' AND f.severity <> 'P4'
ORDER BY f.terminal, f.since_ms, f.id
"""

_TOLD = """
SELECT coalesce((SELECT v.to_ms FROM serviceability v WHERE v.terminal = json_extract(t.value, '$[0]')
  AND v.from_ms <= json_extract(t.value, '$[1]') AND v.disputed = 0 AND v.observed_s > 0 ORDER BY v.from_ms DESC LIMIT 1)
  > json_extract(t.value, '$[1]'), 0)
FROM json_each(?) t ORDER BY t.key
"""

_RATINGS = """
SELECT r.terminal, r.level, count(*) FROM json_each(:ids) t CROSS JOIN rating r
WHERE r.terminal = t.value AND r.day BETWEEN :first AND :last AND r.disputed = 0 GROUP BY r.terminal, r.level
"""

_QUEUE = """
SELECT q.terminal, q.action, count(*) FROM json_each(:ids) t CROSS JOIN queue_event q
WHERE q.terminal = t.value AND q.day BETWEEN :first AND :last AND q.disputed = 0 GROUP BY q.terminal, q.action
"""
