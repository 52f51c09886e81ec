"""A published number can be traced: what it was made of then, and what the facts say now."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_server import db
from fleet_server.errors import NotFound
from fleet_server.figures.board import Board
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.figures.snapshots import find_snapshots, load_snapshot, publish, trace
from tests.fleet_server.figures.conftest import JUNE, NOW, Town


def test_a_published_figure_comes_back_as_it_was(busy_town: Town) -> None:
    board = busy_town.board(scope=Scope(area="east", type="kiosk"))
    figures = [*board.headline().values(), *board.by_item()]
    ids = publish(busy_town.conn, figures, published_in="month-report", now_ms=NOW)
    for snapshot_id, figure in zip(ids, figures, strict=True):
        found = load_snapshot(busy_town.conn, snapshot_id)
        assert found.figure == figure
        assert (found.published_in, found.computed_ms) == ("month-report", NOW)
        assert trace(busy_town.conn, snapshot_id, NOW).is_same


def test_a_late_case_moves_todays_number_and_not_the_published_one(busy_town: Town) -> None:
    (snapshot_id,) = publish(busy_town.conn, [busy_town.board().cases()], published_in="x", now_ms=NOW)
    busy_town.case("kf-00", "06-09 10:00")
    found = trace(busy_town.conn, snapshot_id, NOW + 1)
    assert not found.is_same
    assert found.now.numerator == found.then.figure.numerator + 1


def test_publications_are_found_by_scope_period_and_name_newest_first(busy_town: Town) -> None:
    conn = busy_town.conn
    board = busy_town.board()
    first = publish(conn, [board.cases(), board.active_share()], published_in="a", now_ms=NOW)
    second = publish(conn, [board.cases()], published_in="b", now_ms=NOW + 1)
    publish(conn, [busy_town.board(Period("2026-06-01", "2026-06-02")).cases()], published_in="c", now_ms=NOW)
    question = Question(JUNE)
    assert [one.id for one in find_snapshots(conn, question, "cases")] == [second[0], first[0]]
    assert len(find_snapshots(conn, question)) == 3
    assert find_snapshots(conn, Question(JUNE, Scope(area="east"))) == []


def test_a_snapshot_that_does_not_exist_is_not_found(town: Town) -> None:
    with pytest.raises(NotFound):
        load_snapshot(town.conn, 1)


async def test_pages_compute_figures_on_a_connection_that_cannot_write(busy_town: Town, tmp_path: Path) -> None:
    """Rows come in another shape there; the figures are the same."""
    path = tmp_path / "fleet.sqlite"
    busy_town.conn.execute("VACUUM INTO ?", (str(path),))
    expected = busy_town.board()
    db.use(path)
    try:
        found = await db.look(lambda conn: _all(Board(conn, Question(JUNE), NOW)))
        assert found == _all(expected)
        ids = await db.write(lambda conn: publish(conn, [expected.cases()], published_in="console", now_ms=NOW))
        assert (await db.look(lambda conn: load_snapshot(conn, ids[0]))).figure == expected.cases()
        with pytest.raises(Exception, match="readonly"):
            await db.look(lambda conn: conn.execute("DELETE FROM session"))
    finally:
        db.close()


def _all(board: Board) -> object:
    return board.headline(), board.zero_list(), board.by_item(), board.groups()
