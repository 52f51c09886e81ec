"""Everything that the figures page shows of one question, read from one board: a value that can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fleet_server.figures.board import Board, ZeroCase
from fleet_server.figures.figure import Figure
from fleet_server.figures.population import Group, Member


@dataclass(frozen=True, slots=True)
class Line:
    """One area or site; its figures are asked about itself, so that their links lead to its rows."""

    group: Group
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    headline: Mapping[str, Figure]
    outcomes: tuple[Figure, ...]
    classes: tuple[Figure, ...]
    hours_work: tuple[Figure, ...]
    hours_rest: tuple[Figure, ...]
    items: tuple[tuple[Figure, Figure], ...]
    """Cases and success rate of each item, most cases first."""
    levels: tuple[Figure, ...]
    actions: tuple[Figure, ...]
    codes: tuple[tuple[Figure, Figure | None], ...]
    """Faults and mean time to repair of each code, most faults first."""
    terminals: tuple[tuple[Figure, Member], ...]
    zero: tuple[ZeroCase, ...]
    lines: tuple[Line, ...]
    population: int
    machine_days: int
    elapsed_days: int
    pending_days: int


def sheet_of(board: Board) -> Sheet:
    by_id = {one.id: one for one in board.members}
    success, repair = board.success_by_item(), {one.key: one for one in board.mttr_by_code()}
    return Sheet(
        headline=board.headline(),
        outcomes=tuple(board.by_outcome()),
        classes=tuple(board.by_class()),
        hours_work=tuple(board.by_hour_work()),
        hours_rest=tuple(board.by_hour_rest()),
        items=tuple((one, success[one.key]) for one in board.by_item()),
        levels=tuple(board.by_level()),
        actions=tuple(board.by_queue_action()),
        codes=tuple((one, repair.get(one.key)) for one in board.faults_by_code()),
        terminals=tuple((one, by_id[one.key]) for one in board.by_terminal()),
        zero=tuple(board.zero_list()),
        lines=tuple(_line(board, group) for group in board.groups()),
        population=board.population.size,
        machine_days=sum(one.machine_days for one in board.members),
        elapsed_days=board.population.elapsed_days,
        pending_days=board.pending_days,
    )


def _line(board: Board, group: Group) -> Line:
    asked = group.question(board.question)
    figures = {name: replace(figure, question=asked) for name, figure in board.headline(group.members).items()}
    return Line(replace(group, members=()), figures)
