"""Owns what a month report says: every number is a figure of the board; nothing is computed here but differences between months."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fleet_server.errors import NotFound
from fleet_server.figures.board import Board, ZeroCase
from fleet_server.figures.figure import Figure
from fleet_server.figures.population import Group, Member, load_areas
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.sites.calendar import load_calendar

COMPARED = (
    "cases", "cases_success", "success_rate", "active_share", "zero_terminals", "cases_per_terminal", "cases_per_terminal_year",
    "offhours_share", "online_rate", "availability", "intact_rate", "fault_rate", "mttr", "good_rate",
)  # fmt: skip
"""Figures that are set beside those of last month and of the same month last year."""
Headline = dict[str, Figure]


@dataclass(frozen=True, slots=True)
class AreaLine:
    """One area (or site), with its figures and its cases by class of time."""

    group: Group
    figures: Headline
    by_class: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class TerminalLine:
    member: Member
    area_zh: str
    area_en: str
    figures: Headline
    outcomes: dict[str, Figure]
    silent_s: int
    blind_s: int
    """Neither in availability's numerator nor in its denominator."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure in three months; None where the other month has no terminals. `is_running`: part of a month is compared with no whole one."""

    now: Figure
    before: Figure | None
    year_before: Figure | None
    is_running: bool

    def change(self, other: Figure | None) -> float | None:
        """Growth of a count or mean as a share of the other month, of a share in percentage points; None if one of the two is unknown."""
        if self.is_running or other is None or other.value is None or self.now.value is None:
            return None
        if self.now.unit == "share":
            return (self.now.value - other.value) * 100
        return (self.now.value - other.value) / other.value if other.value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthReport:
    question: Question
    scope_zh: str
    scope_en: str
    now_ms: int
    areas: tuple[AreaLine, ...]
    total: AreaLine
    compared: tuple[Compared, ...]
    terminals: tuple[TerminalLine, ...]
    zero: tuple[ZeroCase, ...]
    by_hour: tuple[Figure, ...]
    faults_by_code: tuple[Figure, ...]
    is_running: bool
    missing_year: int | None
    """The period's year, if its holidays are not known."""

    def figures(self) -> Iterator[Figure]:
        """Everything to publish: the whole scope's figures, then each area's, each asked about itself."""
        yield from self.total.figures.values()
        yield from self.total.by_class
        for line in self.areas:
            asked = line.group.question(self.question)
            for figure in (*line.figures.values(), *line.by_class):
                yield replace(figure, question=asked)


def month_report(conn: sqlite3.Connection, month: str, *, area: str | None = None, now_ms: int) -> MonthReport:
    """The report of `YYYY-MM` over an area with everything below it, or the fleet. NotFound for an area that does not exist."""
    areas = load_areas(conn)
    if area is not None and area not in areas:
        raise NotFound(f"area {area[:40]!r}")
    question = Question(Period.month(month), Scope(area=area))
    board = Board(conn, question, now_ms)
    groups = board.groups()
    total = Group("none", "", "", "", board.members)
    names = {one.code: (one.name_zh, one.name_en) for one in areas.values()}
    return MonthReport(
        question=question,
        scope_zh=names[area][0] if area is not None else "",
        scope_en=names[area][1] if area is not None else "",
        now_ms=now_ms,
        areas=tuple(_area_line(board, group) for group in groups),
        total=AreaLine(total, board.headline(), tuple(board.by_class())),
        compared=_compared(conn, board, question, now_ms),
        terminals=tuple(_terminal_line(board, one, names) for group in groups for one in group.members),
        zero=tuple(board.zero_list()),
        by_hour=tuple(board.by_hour()),
        faults_by_code=tuple(board.faults_by_code()),
        is_running=_is_running(board),
        missing_year=_missing_year(conn, question.period),
    )


def _area_line(board: Board, group: Group) -> AreaLine:
    return AreaLine(group, board.headline(group.members), tuple(board.by_class(group.members)))


def _terminal_line(board: Board, member: Member, names: dict[str, tuple[str, str]]) -> TerminalLine:
    one = [member]
    figures = board.headline(one)
    area_zh, area_en = names.get(member.area, ("", ""))
    shown = figures["availability"].shown
    return TerminalLine(
        member, area_zh, area_en, figures, {part.key: part for part in board.by_outcome(one)}, shown.get("silent_s", 0), shown.get("blind_s", 0)
    )  # fmt: skip


def _compared(conn: sqlite3.Connection, board: Board, question: Question, now_ms: int) -> tuple[Compared, ...]:
    now = board.headline()
    before, year_before = (
        _headline_of(conn, replace(question, period=period), now_ms)
        for period in (question.period.before(), question.period.year_before())
    )
    is_running = _is_running(board)
    return tuple(Compared(now[name], before.get(name), year_before.get(name), is_running) for name in COMPARED)


def _is_running(board: Board) -> bool:
    return board.population.today <= board.question.period.last


def _headline_of(conn: sqlite3.Connection, question: Question, now_ms: int) -> Headline:
    """Nothing if no terminal was in service then: that is no month to compare with."""
    board = Board(conn, question, now_ms)
    return board.headline() if board.members else {}


def _missing_year(conn: sqlite3.Connection, period: Period) -> int | None:
    year = int(period.first[:4])
    return None if year in load_calendar(conn).years else year
