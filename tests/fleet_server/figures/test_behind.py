"""Each figure opens what makes it: rows whose weights add up to the number, for a month at random."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fleet_server.errors import NotFound
from fleet_server.figures.behind import behind, is_weighed, number_of
from fleet_server.figures.board import Board
from fleet_server.figures.catalogue import CATALOGUE
from fleet_server.figures.figure import Behind, Figure, Part
from fleet_server.figures.question import FLEET, Period, Question, Scope
from fleet_server.figures.snapshots import NAMES, compute
from tests.fleet_server.figures.conftest import JUNE, NOW, Town, fill
from tests.support.facts import FactBench

SHOWN_PARTS: dict[tuple[str, str], Part] = {
    ("cases", "outside"): "outside",
    ("online_rate", "offline_s"): "offline",
    ("online_rate", "blind_s"): "blind",
    ("online_rate", "unwatched_s"): "unwatched",
    ("availability", "silent_s"): "silent",
    ("availability", "partial_s"): "partial",
    ("availability", "unusable_s"): "unusable",
    ("availability", "blind_s"): "blind",
    ("intact_rate", "unknown"): "unknown",
    ("good_rate", "unanswered"): "unanswered",
}


def every_figure(board: Board) -> list[Figure]:
    lists = (
        board.by_outcome(), board.by_class(), board.by_terminal(), board.by_item(), list(board.success_by_item().values()),
        board.by_hour(), board.by_hour_work(), board.by_hour_rest(), board.faults_by_code(), board.mttr_by_code(), board.by_level(),
        board.by_queue_action(),
    )  # fmt: skip
    return [*board.headline().values(), *(figure for figures in lists for figure in figures)]


def rows_of(board: Board, figure: Figure, part: Part) -> list[Behind]:
    return list(behind(board._conn, board, figure, part))


def check(board: Board, figure: Figure) -> None:
    parts: tuple[tuple[Part, int | None], ...] = (("numerator", figure.numerator), ("denominator", figure.denominator))
    for part, number in parts:
        if number is None:
            continue
        rows = rows_of(board, figure, part)
        place = f"{figure.name} {figure.key} {part}"
        assert sum(row.weight for row in rows) == number, place
        assert number_of(figure, part) == number, place
        if not is_weighed(figure.name, part):
            assert len(rows) == number, place
        ids = [(row.kind, row.id) for row in rows]
        assert len(set(ids)) == len(ids), place
    for name, number in figure.shown.items():
        shown = SHOWN_PARTS.get((figure.name, name))
        if shown is not None:
            assert sum(row.weight for row in rows_of(board, figure, shown)) == number == number_of(figure, shown), (
                f"{figure.name} {name}"
            )


@pytest.mark.parametrize(
    "scope",
    [
        FLEET,
        Scope(area="east"),
        Scope(area="west", type="kiosk"),
        Scope(site="zone24"),
        Scope(terminal="kf-01"),
        Scope(area="none"),
    ],
)
def test_rows_add_up_to_every_figure(busy_town: Town, scope: Scope) -> None:
    board = busy_town.board(scope=scope)
    figures = every_figure(board)
    for figure in figures:
        check(board, figure)
    if scope == FLEET:
        # The town has something of everything, else nothing would be shown by this.
        assert {one.name for one in figures} == set(NAMES)
        single = board.headline()
        assert all(one.numerator and one.numerator != one.denominator for one in single.values())
        assert single["cases"].shown["outside"] == 1
        assert all(single["online_rate"].shown[name] for name in ("offline_s", "blind_s", "unwatched_s"))
        assert single["intact_rate"].shown["unknown"] and single["good_rate"].shown["unanswered"]


@pytest.mark.parametrize("seed", range(6))
def test_rows_add_up_in_other_towns_and_periods(schema: Path, seed: int) -> None:
    bench = FactBench(schema)
    rng = random.Random(seed)
    town = fill(Town(bench), rng)
    first = rng.randrange(1, 25)
    board = town.board(Period(f"2026-06-{first:02}", f"2026-06-{first + rng.randrange(6):02}"))
    for figure in every_figure(board):
        check(board, figure)
    bench.close()


def test_cases_are_the_rows_of_the_table(busy_town: Town) -> None:
    """A count by another road: no board, no index, no local-day arithmetic."""
    in_service = {one.id for one in busy_town.board().members}
    rows = busy_town.bench.rows("SELECT terminal, outcome, day FROM session WHERE disputed = 0")
    wanted = [row for row in rows if row[0] in in_service and str(row[2]).startswith("2026-06")]
    board = busy_town.board()
    assert board.cases().numerator == len(wanted) > 200
    assert board.active_share().numerator == len({row[0] for row in wanted if row[1] == "success"})


def test_every_way_of_counting_cases_adds_up_to_the_same(busy_town: Town) -> None:
    board = busy_town.board()
    for figures in (board.by_outcome(), board.by_class(), board.by_terminal(), board.by_item(), board.by_hour()):
        assert sum(figure.numerator for figure in figures) == board.cases().numerator


def test_areas_add_up_to_the_fleet_and_equal_a_board_of_their_own(busy_town: Town) -> None:
    board = busy_town.board()
    groups = board.groups()
    assert [group.code for group in groups] == ["east", "west", ""]
    assert sum(len(group.members) for group in groups) == board.population.size
    for name, whole in board.headline().items():
        parts = [board.headline(group.members)[name] for group in groups]
        assert sum(part.numerator for part in parts) == whole.numerator, name
        if whole.denominator is not None:
            assert sum(part.denominator or 0 for part in parts) == whole.denominator, name
    for group in groups:
        own = Board(busy_town.conn, group.question(board.question), NOW).headline()
        for name, figure in board.headline(group.members).items():
            assert (figure.numerator, figure.denominator, figure.population) == (
                own[name].numerator,
                own[name].denominator,
                own[name].population,
            ), name


def test_below_a_leaf_area_the_groups_are_sites(busy_town: Town) -> None:
    assert [group.code for group in busy_town.board(scope=Scope(area="west")).groups()] == ["hall-w", "zone24"]
    assert [group.code for group in busy_town.board(scope=Scope(area="east")).groups()] == ["east", "far-east"]


def test_figures_need_few_statements_however_many_terminals(busy_town: Town) -> None:
    said: list[str] = []
    board = busy_town.board()
    busy_town.conn.set_trace_callback(said.append)
    every_figure(board)
    for group in board.groups():
        board.headline(group.members)
    board.zero_list()
    busy_town.conn.set_trace_callback(None)
    assert len(said) <= 20, said


def test_every_figure_has_words_and_can_be_computed_by_name(busy_town: Town) -> None:
    assert set(CATALOGUE) == set(NAMES)
    board = Board(busy_town.conn, Question(JUNE), NOW)
    for figure in every_figure(board):
        assert compute(board, figure.name, figure.key) == figure
    nothing = compute(board, "cases_by_item", "no.such-item")
    assert (nothing.numerator, nothing.denominator) == (0, None)
    with pytest.raises(NotFound):
        compute(board, "no_such_figure")


def test_a_part_that_a_figure_does_not_have_is_not_found(busy_town: Town) -> None:
    board = busy_town.board()
    with pytest.raises(NotFound):
        behind(busy_town.conn, board, board.cases(), "denominator")
