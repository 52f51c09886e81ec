"""Block "usage" of the start page: this month's figures, by area too, and today by hour beside the same weekday. Made by the figures' own code.

Works on a connection that only reads, off the event loop.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from fleet_server.figures.board import Board
from fleet_server.figures.figure import Figure
from fleet_server.figures.population import Group
from fleet_server.figures.question import Period, Question

WEEKS: Final = 4
"""So many of the last same weekdays make the mean."""


@dataclass(frozen=True, slots=True)
class AreaMonth:
    """One row of the table by area: who it is, and which share of it had cases."""

    group: Group
    question: Question | None
    """The question with just this group for its population; None for terminals that no address names."""
    active: Figure


@dataclass(frozen=True, slots=True)
class UsageNow:
    cases: Figure
    active: Figure
    per_day: Figure
    zero: Figure
    areas: tuple[AreaMonth, ...]
    hours: tuple[int, ...]
    """Today's cases by local hour."""
    usual: tuple[float, ...]
    """Mean of the last same weekdays on which anybody was in service, by hour."""
    weeks: int


def usage_now(conn: sqlite3.Connection, today: str, at_ms: int) -> UsageNow:
    board = Board(conn, Question(Period.month(today[:7])), at_ms)
    before = [_hours(conn, (date.fromisoformat(today) - timedelta(weeks=n)).isoformat(), at_ms) for n in range(1, WEEKS + 1)]
    known = [hours for hours in before if hours is not None]
    return UsageNow(
        cases=board.cases(),
        active=board.active_share(),
        per_day=board.cases_per_terminal_day(),
        zero=board.zero_terminals(),
        areas=tuple(
            AreaMonth(group, group.question(board.question), board.active_share(group.members)) for group in board.groups()
        ),
        hours=_hours(conn, today, at_ms) or (0,) * 24,
        usual=tuple(sum(hours[n] for hours in known) / len(known) if known else 0.0 for n in range(24)),
        weeks=len(known),
    )


def _hours(conn: sqlite3.Connection, day: str, at_ms: int) -> tuple[int, ...] | None:
    """Cases by hour of one day; None if no terminal was in service."""
    board = Board(conn, Question(Period(day, day)), at_ms)
    return tuple(one.numerator for one in board.by_hour()) if board.members else None


def by_code(areas: tuple[AreaMonth, ...]) -> Mapping[str, AreaMonth]:
    """Rows by code of their area or site; "" for those in none."""
    return {one.group.code: one for one in areas}
