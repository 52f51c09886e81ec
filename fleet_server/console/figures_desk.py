"""Answers questions about figures without holding up a page: off the event loop, each question once at a time, kept while its inputs stand still.

What is kept is a value with the moment of its computation, which every page shows. Answers that took long are served as they are while they are
computed anew behind the page; quick ones are waited for.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from fleet_server.engine import FleetEngine
from fleet_server.figures.board import Board
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import Question

log = logging.getLogger(__name__)

T = TypeVar("T")
KEPT: Final = 64
"""Answers in memory; one of 4,000 terminals is under a megabyte."""
SURE_FOR_MS: Final = 10_000
"""So long an answer is not even compared with its inputs."""
COST_TIMES: Final = 20
"""An answer is good for at least so many times what it cost: figures take no more than a twentieth of a processor."""
UNTOUCHED_FOR_MS: Final = 300_000
"""So long at most, although no input moved: not everything that may change a figure marks a day (a terminal's site, a false alarm)."""
WAIT_BELOW_MS: Final = 1_500
TOO_OLD_MS: Final = 1_800_000
"""Beyond it an old answer is worse than waiting."""


class StillComputing(Exception):
    """Nothing to show yet; the computation goes on."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """`at_ms`: the moment for which it holds; `cost_ms`: what it took."""

    value: T
    at_ms: int
    cost_ms: int
    inputs: tuple[object, ...]


class FiguresDesk:
    """One for each web process. `now_ms` is the wall clock."""

    def __init__(self, db: FleetEngine, now_ms: Callable[[], int]) -> None:
        self._db, self._now_ms = db, now_ms
        self._kept: OrderedDict[Hashable, Answer[Any]] = OrderedDict()
        self._running: dict[Hashable, asyncio.Task[Answer[Any]]] = {}

    async def headline(self, question: Question, *, patience_s: float | None = None) -> Answer[Mapping[str, Figure]]:
        """Every figure that is one number, by name (`Board.headline`)."""
        return await self.answer("headline", question, Board.headline, patience_s=patience_s)

    async def answer(
        self, what: str, question: Question, work: Callable[[Board], T], *, patience_s: float | None = None
    ) -> Answer[T]:
        """`work` on a board of `question`. `what` names the work: the same name always means the same work.

        StillComputing after `patience_s`; whoever asks again later finds the answer.
        """
        try:
            return await asyncio.wait_for(self._answer(what, question, work), patience_s)
        except TimeoutError:
            raise StillComputing from None

    async def _answer(self, what: str, question: Question, work: Callable[[Board], T]) -> Answer[T]:
        key = (what, question)
        kept = self._kept.get(key)
        if kept is None:
            return await self._compute(key, question, work)
        self._kept.move_to_end(key)
        age_ms = self._now_ms() - kept.at_ms
        if 0 <= age_ms < max(SURE_FOR_MS, COST_TIMES * kept.cost_ms):
            return kept
        if 0 <= age_ms < UNTOUCHED_FOR_MS and await self._db.look(lambda conn: inputs_of(conn, question)) == kept.inputs:
            return kept
        if kept.cost_ms < WAIT_BELOW_MS or not 0 <= age_ms < TOO_OLD_MS:
            return await self._compute(key, question, work)
        self._begin(key, question, work)
        return kept

    async def _compute(self, key: Hashable, question: Question, work: Callable[[Board], T]) -> Answer[T]:
        # Shielded: who asked may go away, others wait for the same answer.
        return await asyncio.shield(self._begin(key, question, work))

    def _begin(self, key: Hashable, question: Question, work: Callable[[Board], T]) -> asyncio.Task[Answer[T]]:
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = asyncio.create_task(self._run(key, question, work))
            running.add_done_callback(lambda task: self._ended(key, task))
        return running

    async def _run(self, key: Hashable, question: Question, work: Callable[[Board], T]) -> Answer[T]:
        at_ms = self._now_ms()

        def compute(conn: sqlite3.Connection) -> Answer[T]:
            begun_s = time.monotonic()
            value = work(Board(conn, question, at_ms))
            return Answer(value, at_ms, int((time.monotonic() - begun_s) * 1000), inputs_of(conn, question))

        answer = await self._db.ponder(compute)
        self._kept[key] = answer
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return answer

    def _ended(self, key: Hashable, task: asyncio.Task[Answer[Any]]) -> None:
        self._running.pop(key, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whoever waited is told by the exception itself; a refresh behind a page has nobody else.
            log.warning("figures could not be computed: %s", type(error).__name__)


def inputs_of(conn: sqlite3.Connection, question: Question) -> tuple[object, ...]:
    """What tells cheaply that a figure of `question` may have moved: its days, the faults while it still runs, and the registry."""
    period = question.period
    days = conn.execute(
        "SELECT sum(at_ms), count(*) FROM changed_day WHERE day BETWEEN ? AND ?", (period.first, period.last)
    ).fetchone()
    registry = conn.execute("SELECT count(*), max(enrolled_ms), max(revoked_ms) FROM terminal").fetchone()
    holidays = conn.execute("SELECT count(*) FROM holiday").fetchone()
    return (*tuple(days), *tuple(registry), *tuple(holidays))
