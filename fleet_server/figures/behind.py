"""Lists what makes a figure: rows whose weights add up to the number, read through the same rules as the number itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from fleet_server.errors import NotFound
from fleet_server.figures.board import ALL_LEVELS, GOOD_LEVELS, NOT_ANSWERED, OFF_HOURS, Board
from fleet_server.figures.facts import Case, Episode, Outage, each_case
from fleet_server.figures.figure import Behind, Figure, Part
from fleet_server.figures.opening import minute_of_day
from fleet_server.figures.population import Member, ids_json

Rows = Iterator[Behind]
WEIGHED: Final = frozenset(
    {
        ("online_rate", "numerator"), ("online_rate", "denominator"), ("availability", "numerator"), ("availability", "denominator"),
        ("mttr", "numerator"), ("mttr_by_code", "numerator"), ("cases_per_terminal", "denominator"),
        ("cases_per_terminal_day", "denominator"), ("cases_per_terminal_year", "denominator"),
    }
)  # fmt: skip
"""(figure, part) whose rows weigh seconds or machine-days; so do all parts of WEIGHED_PARTS. Everywhere else the number is the number of rows."""
WEIGHED_PARTS: Final = frozenset({"offline", "blind", "unwatched", "silent", "partial", "unusable"})
_Keep = Callable[[Case], bool]


def behind(conn: sqlite3.Connection, board: Board, figure: Figure, part: Part = "numerator") -> Rows:
    """The rows of one part of `figure`, which `board` computed for its whole population. NotFound for a part that the figure does not have.

    Besides numerator and denominator: `outside` of cases, `offline`, `blind` and `unwatched` of the online rate, `partial`, `unusable`, `silent` and
    `blind` of availability, `unknown` of the intact rate, `unanswered` of the good-review rate.
    """
    maker = _MAKERS.get((figure.name, part))
    if maker is None:
        raise NotFound(f"part {part} of figure {figure.name[:40]!r}")
    return maker(conn, board, figure.key)


def is_weighed(name: str, part: str) -> bool:
    return (name, part) in WEIGHED or part in WEIGHED_PARTS or (name, part) in _MAINTENANCE_SECONDS


_MAINTENANCE_SECONDS: Final = frozenset({("online_rate", "maintenance"), ("availability", "maintenance")})


def number_of(figure: Figure, part: str) -> int:
    """What the rows of one part add up to. NotFound for a part that the figure does not have."""
    if part == "numerator":
        return figure.numerator
    if part == "denominator" and figure.denominator is not None:
        return figure.denominator
    if (figure.name, part) not in _MAKERS or part == "denominator":
        raise NotFound(f"part {part} of figure {figure.name[:40]!r}")
    return figure.shown.get(f"{part}_s", figure.shown.get(part, 0))


# Cases ----------------------------------------------------------------------------------------------------------------------------------


def _cases(conn: sqlite3.Connection, board: Board, keep: _Keep | None = None, members: tuple[Member, ...] | None = None) -> Rows:
    for case in each_case(conn, board.members if members is None else members, board.question.period):
        if keep is None or keep(case):
            yield Behind(
                kind="session", id=str(case.id), terminal=case.terminal, day=case.day, at_ms=case.began_ms,
                note=f"{case.item} {case.outcome}",
            )  # fmt: skip


def _all_cases(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board)


def _successful(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, lambda case: case.outcome == "success")


def _of_outcome(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, lambda case: case.outcome == key)


def _of_item(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, lambda case: case.item == key)


def _successful_of_item(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, lambda case: case.item == key and case.outcome == "success")


def _of_terminal(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, members=tuple(one for one in board.members if one.id == key))


def _of_hour(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    zones = {one.id: one.zone for one in board.members}
    return _cases(conn, board, lambda case: f"{minute_of_day(case.began_ms, zones[case.terminal]) // 60:02}" == key)


def _of_hour_and(*, rest: bool) -> Callable[[sqlite3.Connection, Board, str], Rows]:
    def make(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
        zones = {one.id: one.zone for one in board.members}
        openings = board.openings
        return _cases(
            conn,
            board,
            lambda case: (
                f"{minute_of_day(case.began_ms, zones[case.terminal]) // 60:02}" == key and openings.is_rest_day(case.day) == rest
            ),
        )

    return make


def _of_class(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, _in_classes(board, {key}))


def _off_hours(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _cases(conn, board, _in_classes(board, {one.value for one in OFF_HOURS}))


def _in_classes(board: Board, classes: set[str]) -> _Keep:
    by_id = {one.id: one for one in board.members}

    def keep(case: Case) -> bool:
        member = by_id[case.terminal]
        return board.openings.class_of(member.site, member.zone, case.day, case.began_ms).value in classes

    return keep


def _outside(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    period = board.question.period
    parameters = {"ids": ids_json(board.population.outside), "first": period.first, "last": period.last}
    for row, terminal, at_ms, day in conn.execute(_OUTSIDE, parameters):
        yield Behind(kind="session", id=str(row), terminal=terminal, day=day, at_ms=at_ms, note="notInService")


# Terminals ------------------------------------------------------------------------------------------------------------------------------


def _population(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one) for one in board.members)


def _active(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one) for one in board.members if board.cases_read.by_terminal[one.id]["success"])


def _zero(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(row.member, at_ms=row.last_ms, note=row.mark) for row in board.zero_list())


def _machine_days(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one, weight=one.machine_days) for one in board.members if one.machine_days)


def _struck(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one) for one in board.members if board.faults_read.get(one.id))


def _online(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one, weight=s) for one in board.members if (s := board.contact_read[one.id].online_s))


def _watched(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one, weight=s) for one in board.members if (s := board.contact_read[one.id].watched_s))


def _terminal(member: Member, *, weight: int = 1, at_ms: int | None = None, note: str = "") -> Behind:
    return Behind(kind="terminal", id=member.id, terminal=member.id, weight=weight, at_ms=at_ms, note=note)


# Spans and days -------------------------------------------------------------------------------------------------------------------------


def _offline_spans(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_span(one.id, outage) for one in board.members for outage in board.contact_read[one.id].down if outage.open_s)


def _blind_spans(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_span(one.id, outage) for one in board.members for outage in board.contact_read[one.id].blind if outage.open_s)


def _maintained(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one, weight=s) for one in board.members if (s := board.contact_read[one.id].maintenance_s))


def _unwatched(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_terminal(one, weight=s) for one in board.members if (s := board.contact_read[one.id].unwatched_s))


def _span(terminal: str, outage: Outage) -> Behind:
    return Behind(
        kind="presence", id=str(outage.id), terminal=terminal, at_ms=outage.from_ms, weight=outage.open_s, note=outage.state
    )


def _days(conn: sqlite3.Connection, board: Board, columns: str) -> Rows:
    period = board.question.period
    parameters = {"ids": ids_json([one.id for one in board.members]), "first": period.first, "last": period.last}
    for terminal, day, weight in conn.execute(_DAYS.format(columns=columns), parameters):
        yield Behind(kind="terminalDay", id=f"{terminal}/{day}", terminal=terminal, day=day, weight=weight)


def _serving_days(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _days(conn, board, "d.usable_s + d.partial_s")


def _known_days(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return _days(conn, board, "d.usable_s + d.partial_s + d.unusable_s + d.silent_s")


def _days_of(column: str) -> Callable[[sqlite3.Connection, Board, str], Rows]:
    def make(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
        return _days(conn, board, column)

    return make


def _checks(
    *, known: bool, intact_only: bool = False, in_maintenance: bool = False
) -> Callable[[sqlite3.Connection, Board, str], Rows]:
    def make(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
        for one in board.members:
            for check in board.checks_read[one.id]:
                if check.in_maintenance != in_maintenance:
                    continue
                if in_maintenance or (check.is_known == known and not (intact_only and check.broken)):
                    yield Behind(
                        kind="check", id=f"{check.terminal}/{check.at_ms}", terminal=check.terminal, day=check.day, at_ms=check.at_ms,
                        note=" ".join(check.broken),
                    )  # fmt: skip

    return make


# Faults, ratings, queues ----------------------------------------------------------------------------------------------------------------


def _faults(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_fault(one) for member in board.members for one in board.faults_read.get(member.id, ()))


def _faults_of_code(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_fault(one) for member in board.members for one in board.faults_read.get(member.id, ()) if one.code == key)


def _ended(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_fault(one) for one in board.ended_faults())


def _repair_time(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_fault(one, weight=one.lasted_s) for one in board.ended_faults())


def _ended_of_code(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_fault(one) for one in board.ended_faults() if one.code == key)


def _repair_time_of_code(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
    return (_fault(one, weight=one.lasted_s) for one in board.ended_faults() if one.code == key)


def _fault(one: Episode, *, weight: int = 1) -> Behind:
    return Behind(kind="fault", id=one.id, terminal=one.terminal, at_ms=one.since_ms, weight=weight, note=one.code)


def _ratings(levels: tuple[int, ...]) -> Callable[[sqlite3.Connection, Board, str], Rows]:
    def make(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
        period = board.question.period
        parameters = {"ids": ids_json([one.id for one in board.members]), "first": period.first, "last": period.last}
        for row, terminal, at_ms, day, level in conn.execute(_RATINGS, parameters):
            if level in (levels or (int(key),)):
                yield Behind(kind="rating", id=str(row), terminal=terminal, day=day, at_ms=at_ms, note=str(level))

    return make


def _queue(action: str = "") -> Callable[[sqlite3.Connection, Board, str], Rows]:
    def make(conn: sqlite3.Connection, board: Board, key: str) -> Rows:
        period = board.question.period
        parameters = {
            "ids": ids_json([one.id for one in board.members]), "first": period.first, "last": period.last, "action": action or key
        }  # fmt: skip
        for row, terminal, at_ms, day in conn.execute(_QUEUE, parameters):
            yield Behind(kind="queueEvent", id=str(row), terminal=terminal, day=day, at_ms=at_ms, note=action or key)

    return make


_OF_LEVEL: tuple[int, ...] = ()
_MAKERS: Final[dict[tuple[str, str], Callable[[sqlite3.Connection, Board, str], Rows]]] = {
    ("cases", "numerator"): _all_cases,
    ("cases", "outside"): _outside,
    ("cases_success", "numerator"): _successful,
    ("success_rate", "numerator"): _successful,
    ("success_rate", "denominator"): _all_cases,
    ("active_share", "numerator"): _active,
    ("active_share", "denominator"): _population,
    ("zero_terminals", "numerator"): _zero,
    ("cases_per_terminal", "numerator"): _all_cases,
    ("cases_per_terminal", "denominator"): _machine_days,
    ("cases_per_terminal_day", "numerator"): _all_cases,
    ("cases_per_terminal_day", "denominator"): _machine_days,
    ("cases_per_terminal_year", "numerator"): _all_cases,
    ("cases_per_terminal_year", "denominator"): _machine_days,
    ("offhours_share", "numerator"): _off_hours,
    ("offhours_share", "denominator"): _all_cases,
    ("cases_by_outcome", "numerator"): _of_outcome,
    ("cases_by_class", "numerator"): _of_class,
    ("cases_by_terminal", "numerator"): _of_terminal,
    ("cases_by_item", "numerator"): _of_item,
    ("success_by_item", "numerator"): _successful_of_item,
    ("success_by_item", "denominator"): _of_item,
    ("cases_by_hour", "numerator"): _of_hour,
    ("cases_by_hour_work", "numerator"): _of_hour_and(rest=False),
    ("cases_by_hour_rest", "numerator"): _of_hour_and(rest=True),
    ("online_rate", "numerator"): _online,
    ("online_rate", "denominator"): _watched,
    ("online_rate", "offline"): _offline_spans,
    ("online_rate", "blind"): _blind_spans,
    ("online_rate", "unwatched"): _unwatched,
    ("online_rate", "maintenance"): _maintained,
    ("availability", "maintenance"): _days_of("d.maintenance_s"),
    ("availability", "numerator"): _serving_days,
    ("availability", "denominator"): _known_days,
    ("availability", "blind"): _days_of("d.blind_s"),
    ("availability", "silent"): _days_of("d.silent_s"),
    ("availability", "partial"): _days_of("d.partial_s"),
    ("availability", "unusable"): _days_of("d.unusable_s"),
    ("intact_rate", "numerator"): _checks(known=True, intact_only=True),
    ("intact_rate", "denominator"): _checks(known=True),
    ("intact_rate", "unknown"): _checks(known=False),
    ("intact_rate", "maintenance"): _checks(known=True, in_maintenance=True),
    ("faults", "numerator"): _faults,
    ("faults_by_code", "numerator"): _faults_of_code,
    ("fault_rate", "numerator"): _struck,
    ("fault_rate", "denominator"): _population,
    ("mttr", "numerator"): _repair_time,
    ("mttr", "denominator"): _ended,
    ("mttr_by_code", "numerator"): _repair_time_of_code,
    ("mttr_by_code", "denominator"): _ended_of_code,
    ("good_rate", "numerator"): _ratings(GOOD_LEVELS),
    ("good_rate", "denominator"): _ratings(ALL_LEVELS),
    ("good_rate", "unanswered"): _ratings((NOT_ANSWERED,)),
    ("rating_answered_share", "numerator"): _ratings(ALL_LEVELS),
    ("rating_answered_share", "denominator"): _ratings((*ALL_LEVELS, NOT_ANSWERED)),
    ("ratings_by_level", "numerator"): _ratings(_OF_LEVEL),
    ("queue_calls", "numerator"): _queue("callNext"),
    ("queue_by_action", "numerator"): _queue(),
}

_OUTSIDE = """
SELECT s.id, s.terminal, s.began_ms, s.day FROM json_each(:ids) t CROSS JOIN session s
WHERE s.terminal = t.value AND s.day BETWEEN :first AND :last AND s.disputed = 0 ORDER BY s.terminal, s.day, s.began_ms, s.id
"""
_DAYS = """
SELECT d.terminal, d.day, {columns} AS weight FROM json_each(:ids) t CROSS JOIN terminal_day d
WHERE d.terminal = t.value AND d.day BETWEEN :first AND :last AND weight > 0 ORDER BY d.terminal, d.day
"""
_RATINGS = """
SELECT r.id, r.terminal, r.at_ms, r.day, r.level FROM json_each(:ids) t CROSS JOIN rating r
WHERE r.terminal = t.value AND r.day BETWEEN :first AND :last AND r.disputed = 0 ORDER BY r.terminal, r.day, r.at_ms, r.id
"""
_QUEUE = """
SELECT q.id, q.terminal, q.at_ms, q.day FROM json_each(:ids) t CROSS JOIN queue_event q
WHERE q.terminal = t.value AND q.day BETWEEN :first AND :last AND q.action = :action AND q.disputed = 0 ORDER BY q.terminal, q.day, q.at_ms, q.id
"""
