"""Owns figures as they were published: stored with all they were made of, never changed, and compared with what the facts say today."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from fleet_server.errors import NotFound
from fleet_server.figures.board import Board
from fleet_server.figures.figure import Figure, Unit
from fleet_server.figures.question import Period, Question, Scope


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A published figure."""

    id: int
    figure: Figure
    published_in: str
    computed_ms: int
    published_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """Figures that were published together; `question` is that of the first of them."""

    id: int
    last: int
    count: int
    question: Question
    published_in: str
    published_by: str
    computed_ms: int


@dataclass(frozen=True, slots=True)
class Trace:
    """A published figure beside the same figure computed from today's facts. Late records and verdicts on disputed ones may move it."""

    then: Snapshot
    now: Figure

    @property
    def is_same(self) -> bool:
        before = self.then.figure
        return (before.numerator, before.denominator, before.population) == (
            self.now.numerator,
            self.now.denominator,
            self.now.population,
        )


def publish(
    conn: sqlite3.Connection, figures: Iterable[Figure], *, published_in: str, now_ms: int, published_by: str = ""
) -> list[int]:
    """Store each figure; returns the ids in order. `published_in` names where: `month-report`, `month-close`, … In the caller's transaction."""
    ids: list[int] = []
    for one in figures:
        done = conn.execute(
            "INSERT INTO figure_snapshot (name, key, scope, first_day, last_day, numerator, denominator, factor, unit, population, rule, shown,"
            " published_in, computed_ms, published_by, publication) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                one.name,
                one.key,
                one.question.scope.to_json(),
                one.question.period.first,
                one.question.period.last,
                one.numerator,
                one.denominator,
                one.factor,
                one.unit,
                one.population,
                one.rule,
                msgspec.json.encode(dict(one.shown), order="sorted").decode(),
                published_in,
                now_ms,
                published_by,
                ids[0] if ids else 0,
            ),
        )
        assert done.lastrowid is not None
        ids.append(done.lastrowid)
    if ids:
        conn.execute("UPDATE figure_snapshot SET publication = id WHERE id = ?", ids[:1])
    return ids


def publications(conn: sqlite3.Connection, limit: int = 200) -> list[Publication]:
    """Newest first."""
    rows = conn.execute(_PUBLICATIONS.format(where=""), {"limit": limit})
    return [_publication(row) for row in rows]


def publications_of(conn: sqlite3.Connection, question: Question) -> list[Publication]:
    """Those that hold figures of exactly this scope and period, newest first; a whole month's holds its areas too."""
    where = "WHERE publication IN (SELECT publication FROM figure_snapshot WHERE scope = :scope AND first_day = :first AND last_day = :last)"
    period = question.period
    parameters = {"limit": 200, "scope": question.scope.to_json(), "first": period.first, "last": period.last}
    return [_publication(row) for row in conn.execute(_PUBLICATIONS.format(where=where), parameters)]


def load_publication(conn: sqlite3.Connection, publication: int) -> Publication:
    """NotFound if there is none."""
    row = conn.execute(_PUBLICATIONS.format(where="WHERE publication = :id"), {"limit": 1, "id": publication}).fetchone()
    if row is None:
        raise NotFound(f"publication {publication}")
    return _publication(row)


def published_together(conn: sqlite3.Connection, publication: int) -> list[Snapshot]:
    """All figures of a publication, in the order in which they were published."""
    return [_snapshot(row) for row in conn.execute(f"{_SELECT} WHERE publication = ? ORDER BY id", (publication,))]


def trace_all(conn: sqlite3.Connection, snapshots: Iterable[Snapshot], now_ms: int) -> list[Trace]:
    """Each beside today's figure; one reading of the facts for each question among them."""
    boards: dict[Question, Board] = {}
    found = []
    for one in snapshots:
        question = one.figure.question
        board = boards.get(question) or boards.setdefault(question, Board(conn, question, now_ms))
        found.append(Trace(one, compute(board, one.figure.name, one.figure.key)))
    return found


def load_snapshot(conn: sqlite3.Connection, snapshot_id: int) -> Snapshot:
    """NotFound if there is none."""
    row = conn.execute(f"{_SELECT} WHERE id = ?", (snapshot_id,)).fetchone()
    if row is None:
        raise NotFound(f"figure snapshot {snapshot_id}")
    return _snapshot(row)


def find_snapshots(conn: sqlite3.Connection, question: Question, name: str | None = None) -> list[Snapshot]:
    """What was published for this scope and period, newest first."""
    rows = conn.execute(
        f"{_SELECT} WHERE scope = ? AND first_day = ? AND last_day = ? AND (?4 IS NULL OR name = ?4) ORDER BY id DESC",
        (question.scope.to_json(), question.period.first, question.period.last, name),
    )
    return [_snapshot(row) for row in rows]


def trace(conn: sqlite3.Connection, snapshot_id: int, now_ms: int) -> Trace:
    """The published figure beside today's. A share of a period that was still running is computed over all its days that have begun since."""
    then = load_snapshot(conn, snapshot_id)
    return Trace(then, compute(Board(conn, then.figure.question, now_ms), then.figure.name, then.figure.key))


def compute(board: Board, name: str, key: str = "") -> Figure:
    """One figure by its name; a part of a breakdown that has nothing is zero. NotFound for a name that does not exist."""
    if name in _SINGLE:
        return _SINGLE[name](board)
    if name not in _BROKEN_DOWN:
        raise NotFound(f"figure {name[:40]!r}")
    for one in _BROKEN_DOWN[name](board):
        if one.key == key:
            return one
    nothing = _BROKEN_DOWN_UNITS[name]
    return Figure(
        name=name,
        question=board.question,
        unit=nothing,
        numerator=0,
        denominator=0 if nothing in {"share", "hour"} else None,
        population=board.population.size,
        key=key,
    )


_SINGLE: Final[dict[str, Callable[[Board], Figure]]] = {
    "cases": Board.cases,
    "cases_success": Board.cases_success,
    "success_rate": Board.success_rate,
    "active_share": Board.active_share,
    "zero_terminals": Board.zero_terminals,
    "cases_per_terminal": Board.cases_per_terminal,
    "cases_per_terminal_day": Board.cases_per_terminal_day,
    "cases_per_terminal_year": Board.cases_per_terminal_year,
    "offhours_share": Board.offhours_share,
    "online_rate": Board.online_rate,
    "availability": Board.availability,
    "intact_rate": Board.intact_rate,
    "faults": Board.faults,
    "fault_rate": Board.fault_rate,
    "mttr": Board.mttr,
    "good_rate": Board.good_rate,
    "rating_answered_share": Board.rating_answered_share,
    "queue_calls": Board.queue_calls,
}
_BROKEN_DOWN: Final[dict[str, Callable[[Board], Iterable[Figure]]]] = {
    "cases_by_outcome": Board.by_outcome,
    "cases_by_class": Board.by_class,
    "cases_by_terminal": Board.by_terminal,
    "cases_by_item": Board.by_item,
    "success_by_item": lambda board: board.success_by_item().values(),
    "cases_by_hour": Board.by_hour,
    "cases_by_hour_work": Board.by_hour_work,
    "cases_by_hour_rest": Board.by_hour_rest,
    "mttr_by_code": Board.mttr_by_code,
    "faults_by_code": Board.faults_by_code,
    "ratings_by_level": Board.by_level,
    "queue_by_action": Board.by_queue_action,
}
_BROKEN_DOWN_UNITS: Final[dict[str, Unit]] = {
    "cases_by_outcome": "case",
    "cases_by_class": "case",
    "cases_by_terminal": "case",
    "cases_by_item": "case",
    "success_by_item": "share",
    "cases_by_hour": "case",
    "cases_by_hour_work": "case",
    "cases_by_hour_rest": "case",
    "mttr_by_code": "hour",
    "faults_by_code": "fault",
    "ratings_by_level": "rating",
    "queue_by_action": "key",
}
NAMES: Final = (*_SINGLE, *_BROKEN_DOWN)
"""Every figure there is."""

_SELECT = (
    "SELECT id, name, key, scope, first_day, last_day, numerator, denominator, factor, unit, population, rule, shown, published_in, computed_ms,"
    " published_by FROM figure_snapshot"
)


_PUBLICATIONS = """
SELECT p.id, p.last, p.count, s.scope, s.first_day, s.last_day, s.published_in, s.published_by, s.computed_ms
FROM (SELECT publication AS id, max(id) AS last, count(*) AS count FROM figure_snapshot {where} GROUP BY publication) p
JOIN figure_snapshot s ON s.id = p.id ORDER BY p.id DESC LIMIT :limit
"""


def _publication(row: Iterable[object]) -> Publication:
    found = msgspec.convert(tuple(row), _PublicationRow)
    return Publication(
        id=found.id,
        last=found.last,
        count=found.count,
        question=Question(Period(found.first_day, found.last_day), Scope.from_json(found.scope)),
        published_in=found.published_in,
        published_by=found.published_by,
        computed_ms=found.computed_ms,
    )


class _PublicationRow(msgspec.Struct, frozen=True, array_like=True):
    id: int
    last: int
    count: int
    scope: str
    first_day: str
    last_day: str
    published_in: str
    published_by: str
    computed_ms: int


def _snapshot(row: Iterable[object]) -> Snapshot:
    found = msgspec.convert(tuple(row), _Row)
    figure = Figure(
        name=found.name,
        key=found.key,
        question=Question(Period(found.first_day, found.last_day), Scope.from_json(found.scope)),
        numerator=found.numerator,
        denominator=found.denominator,
        factor=found.factor,
        unit=found.unit,
        population=found.population,
        rule=found.rule,
        shown=msgspec.json.decode(found.shown, type=dict[str, int]),
    )
    return Snapshot(found.id, figure, found.published_in, found.computed_ms, found.published_by)


class _Row(msgspec.Struct, frozen=True, array_like=True):
    id: int
    name: str
    key: str
    scope: str
    first_day: str
    last_day: str
    numerator: int
    denominator: int | None
    factor: float
    unit: Unit
    population: int
    rule: str
    shown: str
    published_in: str
    computed_ms: int
    published_by: str
