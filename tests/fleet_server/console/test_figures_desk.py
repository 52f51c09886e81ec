"""Figures are computed once for all who ask at once, off the event loop, and kept no longer than they hold."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from fleet_server.console import figures_desk
from fleet_server.console.figures_desk import KEPT, FiguresDesk
from fleet_server.engine import FleetEngine
from fleet_server.figures.board import Board
from fleet_server.figures.question import Period, Question, Scope
from tests.support.clock import HandClock

NOVEMBER = Question(Period.month("2026-11"))


class Work:
    """Counts how often and on which threads it ran; can be held up."""

    def __init__(self) -> None:
        self.runs, self.threads = 0, set[str]()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, board: Board) -> int:
        self.gate.wait(10)
        self.runs += 1
        self.threads.add(threading.current_thread().name)
        return board.population.size


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work()
    yield made
    made.gate.set()


@pytest.fixture
def desk(engine: FleetEngine, clock: HandClock) -> FiguresDesk:
    return FiguresDesk(engine, clock)


async def test_many_who_ask_at_once_wait_for_one_answer(desk: FiguresDesk, work: Work) -> None:
    work.gate.clear()
    asked = [asyncio.create_task(desk.answer("x", NOVEMBER, work)) for _ in range(20)]
    await asyncio.sleep(0)
    work.gate.set()
    answers = await asyncio.gather(*asked)
    assert work.runs == 1
    assert len({id(one) for one in answers}) == 1
    assert work.threads == {"db-think_0"}


async def test_who_goes_away_takes_nothing_from_the_others(desk: FiguresDesk, work: Work) -> None:
    work.gate.clear()
    first = asyncio.create_task(desk.answer("x", NOVEMBER, work))
    second = asyncio.create_task(desk.answer("x", NOVEMBER, work))
    await asyncio.sleep(0)
    first.cancel()
    work.gate.set()
    assert (await second).value > 0
    assert work.runs == 1


async def test_pages_read_on_while_figures_are_computed(desk: FiguresDesk, engine: FleetEngine, work: Work) -> None:
    work.gate.clear()
    asked = asyncio.create_task(desk.answer("x", NOVEMBER, work))
    for _ in range(6):  # more than there are readers
        assert await asyncio.wait_for(engine.read("SELECT 1 AS one"), 5) == [{"one": 1}]
    work.gate.set()
    await asked


async def test_another_question_or_other_work_is_another_answer(desk: FiguresDesk, work: Work) -> None:
    await desk.answer("x", NOVEMBER, work)
    await desk.answer("y", NOVEMBER, work)
    await desk.answer("x", Question(NOVEMBER.period, Scope(area="jindong")), work)
    await desk.answer("x", NOVEMBER, work)
    assert work.runs == 3


async def test_an_untouched_answer_is_kept_for_minutes_and_then_made_anew(
    desk: FiguresDesk, work: Work, clock: HandClock
) -> None:
    first = await desk.answer("x", NOVEMBER, work)
    clock.now_ms += 60_000
    assert await desk.answer("x", NOVEMBER, work) is first
    clock.now_ms += figures_desk.UNTOUCHED_FOR_MS
    second = await desk.answer("x", NOVEMBER, work)
    assert second is not first
    assert second.at_ms == clock.now_ms


async def test_a_dear_answer_is_served_as_it_is_and_made_anew_behind(
    desk: FiguresDesk, work: Work, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures_desk, "WAIT_BELOW_MS", -1)
    first = await desk.answer("x", NOVEMBER, work)
    clock.now_ms += figures_desk.UNTOUCHED_FOR_MS
    work.gate.clear()
    assert await desk.answer("x", NOVEMBER, work) is first
    assert await desk.answer("x", NOVEMBER, work) is first
    work.gate.set()
    await asyncio.gather(*desk._running.values())
    assert (await desk.answer("x", NOVEMBER, work)).at_ms == clock.now_ms
    assert work.runs == 2
    clock.now_ms += figures_desk.TOO_OLD_MS
    assert (await desk.answer("x", NOVEMBER, work)).at_ms == clock.now_ms


async def test_a_failure_is_told_and_not_kept(desk: FiguresDesk, work: Work) -> None:
    def fails(board: Board) -> int:
        raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        await desk.answer("x", NOVEMBER, fails)
    assert (await desk.answer("x", NOVEMBER, work)).value > 0


async def test_no_more_is_kept_than_fits(desk: FiguresDesk, work: Work) -> None:
    for n in range(KEPT + 5):
        await desk.answer("x", Question(NOVEMBER.period, Scope(site=f"s{n}")), work)
    assert len(desk._kept) == KEPT


async def test_the_headline_is_that_of_the_board(desk: FiguresDesk, engine: FleetEngine, clock: HandClock) -> None:
    found = (await desk.headline(NOVEMBER)).value
    assert found == await engine.look(lambda conn: Board(conn, NOVEMBER, clock.now_ms).headline())
