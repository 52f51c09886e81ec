"""Puts figures made from evidence beside those of the database, and names every fact in which they differ.

Facts whose originals the files do not hold (erased after their keeping time, or of another range) are counted apart: nothing speaks for or
against them.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from fleet_server.figures.board import ALL_LEVELS, GOOD_LEVELS, OFF_HOURS, Board
from fleet_server.figures.opening import Openings
from fleet_server.figures.population import Member, ids_json
from fleet_server.figures.question import Period, Question
from fleet_server.figures.recompute import Evidence, Fact, Place, Retold, Standing, retell
from fleet_server.sites.calendar import DEFAULT_ZONE, day_span_ms, load_calendar, local_day, local_days, open_spans_ms
from fleet_server.sites.hours import load_hours
from fleet_server.terminals import maintenance
from fleet_server.usage.days import Observed, tally

DIFFERENCES_TOLD: Final = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One number, three times: from the files, from the database, and the part of the database's whose originals the files hold."""

    name: str
    from_evidence: int
    from_database: int
    provable: int

    @property
    def is_same(self) -> bool:
        return self.from_evidence == self.provable


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    period: Period
    terminals: int
    lines: tuple[Line, ...]
    differences: tuple[str, ...]
    """Facts that one side does not have, or tells otherwise; the first DIFFERENCES_TOLD."""
    retold: Retold
    originals: int
    missing: int
    """Batches of these terminals whose originals the files do not hold."""

    @property
    def is_same(self) -> bool:
        return not self.differences and all(line.is_same for line in self.lines)


class _Row(NamedTuple):
    """A fact on a day, as both sides can tell it."""

    terminal: str
    day: str
    at_ms: int
    value: tuple[object, ...]


@dataclass
class _Side:
    """Facts by name: a case by its id, anything else by its place in the chain."""

    cases: dict[str, _Row] = field(default_factory=dict)
    ratings: dict[str, _Row] = field(default_factory=dict)
    queue: dict[str, _Row] = field(default_factory=dict)
    served_s: dict[str, int] = field(default_factory=dict)
    """Seconds it could serve inside opening hours, by terminal and day."""

    def everything(self) -> dict[str, object]:
        return {**self.cases, **self.ratings, **self.queue, **self.served_s}


def compare(conn: sqlite3.Connection, evidence: Evidence, period: Period | None, now_ms: int) -> Comparison:
    """Figures of the files' terminals over `period`; without one over every day that the files speak of. Whole days only: today is left out."""
    standing = standing_of(conn, evidence.terminals)
    retold = retell(evidence, standing)
    zones = _zones(conn, evidence.terminals)
    told = {
        kind: [(fact, local_day(fact.at_ms, zones.get(fact.terminal, DEFAULT_ZONE))) for fact in facts]
        for kind, facts in (("cases", retold.cases.values()), ("ratings", retold.ratings), ("queue", retold.queue))
    }
    yesterday = local_day(now_ms - 86_400_000)
    chosen = period or _spoken_of([day for dated in told.values() for _, day in dated], yesterday)
    board = Board(conn, Question(chosen), now_ms)
    members = {one.id: one for one in board.members if one.id in evidence.terminals}
    openings = Openings(load_calendar(conn), load_hours(conn, {one.site for one in members.values()}), chosen.each_day())

    places = _places(conn, evidence.terminals)
    stored, provable = _Side(), _Side()
    _read_stored(conn, members, chosen, places, evidence, stored, provable)
    from_files = _Side(
        cases={_case_name(f.terminal, f.key): _Row(f.terminal, day, f.at_ms, f.value) for f, day in told["cases"]},
        ratings={_name("rating", f): _Row(f.terminal, day, f.at_ms, f.value) for f, day in told["ratings"]},
        queue={_name("queue", f): _Row(f.terminal, day, f.at_ms, f.value) for f, day in told["queue"]},
    )
    for rows in (from_files.cases, from_files.ratings, from_files.queue):
        for name in [
            name for name, row in rows.items() if not (row.terminal in members and chosen.first <= row.day <= chosen.last)
        ]:
            del rows[name]
    for name in stored.cases.keys() - provable.cases.keys():
        # Told twice, and the telling that counts is not in the files.
        from_files.cases.pop(name, None)
    _serve(conn, retold.served, members, chosen, yesterday, places, evidence, (from_files, stored, provable))

    numbers = {
        side: _numbers(one, members, openings) for side, one in (("files", from_files), ("all", stored), ("provable", provable))
    }
    differences = _differences(from_files.everything(), provable.everything())
    differences += [f"{place.stream.hex()}/{place.no}: the server does not have this batch" for place in retold.unknown]
    differences += _beside_board(board, list(members.values()), numbers["all"])
    return Comparison(
        period=chosen,
        terminals=len(evidence.terminals),
        lines=tuple(
            Line(name, numbers["files"][name], numbers["all"][name], numbers["provable"][name]) for name in numbers["all"]
        ),
        differences=tuple(differences[:DIFFERENCES_TOLD]),
        retold=retold,
        originals=len(evidence.originals),
        missing=len(standing.keys() - evidence.originals.keys()),
    )


def standing_of(conn: sqlite3.Connection, terminals: Iterable[str]) -> dict[Place, Standing]:
    """What the server noted about each batch when it came, and what people have said about disputed ones since."""
    rows = conn.execute(
        "SELECT b.terminal, b.stream, b.no, b.received_ms, b.disputed FROM json_each(?) t CROSS JOIN batch b WHERE b.terminal = t.value",
        (ids_json(sorted(terminals)),),
    )
    return {
        Place(terminal, bytes(stream), no): Standing(received_ms, bool(disputed))
        for terminal, stream, no, received_ms, disputed in rows
    }


# Both sides -----------------------------------------------------------------------------------------------------------------------------


def _read_stored(
    conn: sqlite3.Connection,
    members: Mapping[str, Member],
    period: Period,
    places: Mapping[int, Place],
    evidence: Evidence,
    stored: _Side,
    provable: _Side,
) -> None:
    parameters = {"ids": ids_json(list(members)), "first": period.first, "last": period.last}

    def is_provable(batch: int) -> bool:
        return places.get(batch) in evidence.originals

    for terminal, sid, item, outcome, began_ms, day, batch in conn.execute(_CASES, parameters):
        name, row = _case_name(terminal, bytes(sid)), _Row(terminal, day, began_ms, (item, outcome))
        stored.cases[name] = row
        if is_provable(batch):
            provable.cases[name] = row
    for kind, statement, every, proven in (
        ("rating", _RATINGS, stored.ratings, provable.ratings),
        ("queue", _QUEUE, stored.queue, provable.queue),
    ):
        for terminal, batch, idx, value, at_ms, day in conn.execute(statement, parameters):
            place = places.get(batch)
            name = f"{terminal} {kind} batch {batch}/{idx}" if place is None else _name_at(kind, terminal, place, idx)
            every[name] = row = _Row(terminal, day, at_ms, (value,))
            if is_provable(batch):
                proven[name] = row


def _serve(
    conn: sqlite3.Connection,
    served: Iterable[Fact],
    members: Mapping[str, Member],
    period: Period,
    yesterday: str,
    places: Mapping[int, Place],
    evidence: Evidence,
    sides: tuple[_Side, _Side, _Side],
) -> None:
    """Served seconds of whole days: from the files' summaries, as stored, and as stored where all summaries of the day are in the files."""
    from_files, stored, provable = sides
    calendar, hours = load_calendar(conn), load_hours(conn, {one.site for one in members.values()})
    last = min(period.last, yesterday)
    spans: defaultdict[tuple[str, str], list[Observed]] = defaultdict(list)
    for fact in served:
        if fact.terminal in members:
            usable_s, partial_s, unusable_s, to_ms = (int(str(part)) for part in fact.value)
            for day in local_days(fact.at_ms, to_ms, members[fact.terminal].zone):
                spans[fact.terminal, day].append(Observed(fact.at_ms, to_ms, usable_s, partial_s, unusable_s))
    for (terminal, day), observed in spans.items():
        if period.first <= day <= last:
            member = members[terminal]
            open_spans = open_spans_ms(hours[member.site].on(day), calendar, member.zone, day) if member.site in hours else ()
            # That somebody took a terminal out of play is not in what it signed.
            maintained = maintenance.spans(conn, [terminal], *day_span_ms(day, member.zone)).get(terminal, ())
            seconds = tally(open_spans, sorted(observed, key=lambda one: one.from_ms), (), maintained)
            if serving_s := seconds.usable_s + seconds.partial_s:
                from_files.served_s[f"{terminal} {day} served seconds"] = serving_s
    doubtful: set[tuple[str, str]] = set()
    for terminal, from_ms, to_ms, batch in conn.execute(_SERVICEABILITY, (ids_json(list(members)),)):
        if places.get(batch) not in evidence.originals:
            doubtful.update((terminal, day) for day in local_days(from_ms, to_ms, members[terminal].zone))
    parameters = {"ids": ids_json(list(members)), "first": period.first, "last": last}
    for terminal, day, serving_s in conn.execute(_DAYS, parameters):
        stored.served_s[f"{terminal} {day} served seconds"] = serving_s
    provable.served_s.update(stored.served_s)
    for terminal, day in doubtful:
        for side in (from_files, provable):
            side.served_s.pop(f"{terminal} {day} served seconds", None)


# Numbers --------------------------------------------------------------------------------------------------------------------------------


def _numbers(side: _Side, members: Mapping[str, Member], openings: Openings) -> dict[str, int]:
    """The same figures from whichever side."""
    off_hours = {one.value for one in OFF_HOURS}
    classes = [
        openings.class_of(members[row.terminal].site, members[row.terminal].zone, row.day, row.at_ms).value
        for row in side.cases.values()
    ]
    levels = [row.value[0] for row in side.ratings.values()]
    return {
        "cases": len(side.cases),
        "cases_success": sum(row.value[1] == "success" for row in side.cases.values()),
        "active_terminals": len({row.terminal for row in side.cases.values() if row.value[1] == "success"}),
        "offhours_cases": sum(one in off_hours for one in classes),
        "reviews": sum(level in ALL_LEVELS for level in levels),
        "good_reviews": sum(level in GOOD_LEVELS for level in levels),
        "queue_calls": sum(row.value[0] == "callNext" for row in side.queue.values()),
        "served_s": sum(side.served_s.values()),
    }


def _beside_board(board: Board, members: list[Member], numbers: Mapping[str, int]) -> list[str]:
    """The rows read here must be those that the published figures count."""
    good = board.good_rate(members)
    published: dict[str, int | None] = {
        "cases": board.cases(members).numerator,
        "cases_success": board.cases_success(members).numerator,
        "active_terminals": board.active_share(members).numerator,
        "offhours_cases": board.offhours_share(members).numerator,
        "reviews": good.denominator,
        "good_reviews": good.numerator,
        "queue_calls": board.queue_calls(members).numerator,
    }
    return [
        f"{name}: the figure says {number}, its rows {numbers[name]}"
        for name, number in published.items()
        if number != numbers[name]
    ]


def _differences(from_files: Mapping[str, object], stored: Mapping[str, object]) -> list[str]:
    found = []
    for name in sorted(from_files.keys() | stored.keys()):
        one, other = from_files.get(name), stored.get(name)
        if one != other:
            found.append(f"{name}: evidence {_words(one)}, database {_words(other)}")
    return found


def _words(value: object) -> str:
    if isinstance(value, _Row):
        return f"{value.day} at {value.at_ms} {' '.join(map(str, value.value))}"
    return "nothing" if value is None else str(value)


def _case_name(terminal: str, key: bytes) -> str:
    return f"{terminal} case {key.hex()}"


def _name(kind: str, fact: Fact) -> str:
    return _name_at(kind, fact.terminal, fact.place, fact.idx)


def _name_at(kind: str, terminal: str, place: Place, idx: int) -> str:
    return f"{terminal} {kind} {place.stream.hex()}/{place.no}/{idx}"


def _spoken_of(days: list[str], yesterday: str) -> Period:
    past = [day for day in days if day <= yesterday]
    return Period(min(past), max(past)) if past else Period(yesterday, yesterday)


# Reads ----------------------------------------------------------------------------------------------------------------------------------


def _zones(conn: sqlite3.Connection, terminals: Iterable[str]) -> dict[str, str]:
    rows = conn.execute(
        "SELECT t.id, s.timezone FROM json_each(?) i CROSS JOIN terminal t JOIN site s ON s.code = t.site WHERE t.id = i.value",
        (ids_json(sorted(terminals)),),
    )
    return {terminal: zone for terminal, zone in rows if zone}


def _places(conn: sqlite3.Connection, terminals: Iterable[str]) -> dict[int, Place]:
    rows = conn.execute(
        "SELECT b.id, b.terminal, b.stream, b.no FROM json_each(?) t CROSS JOIN batch b WHERE b.terminal = t.value",
        (ids_json(sorted(terminals)),),
    )
    return {batch: Place(terminal, bytes(stream), no) for batch, terminal, stream, no in rows}


_CASES = """
SELECT s.terminal, s.sid, s.item, s.outcome, s.began_ms, s.day, s.batch FROM json_each(:ids) t CROSS JOIN session s
WHERE s.terminal = t.value AND s.day BETWEEN :first AND :last AND s.disputed = 0
"""
_RATINGS = """
SELECT r.terminal, r.batch, r.idx, r.level, r.at_ms, r.day FROM json_each(:ids) t CROSS JOIN rating r
WHERE r.terminal = t.value AND r.day BETWEEN :first AND :last AND r.disputed = 0
"""
_QUEUE = """
SELECT q.terminal, q.batch, q.idx, q.action, q.at_ms, q.day FROM json_each(:ids) t CROSS JOIN queue_event q
WHERE q.terminal = t.value AND q.day BETWEEN :first AND :last AND q.disputed = 0
"""
_SERVICEABILITY = """
SELECT v.terminal, v.from_ms, v.to_ms, v.batch FROM json_each(?) t CROSS JOIN serviceability v WHERE v.terminal = t.value AND v.disputed = 0
"""
_DAYS = """
SELECT d.terminal, d.day, d.usable_s + d.partial_s AS serving_s FROM json_each(:ids) t CROSS JOIN terminal_day d
WHERE d.terminal = t.value AND d.day BETWEEN :first AND :last AND serving_s > 0
"""
