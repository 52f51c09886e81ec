"""Jobs on a port: what somebody else does with a device between two looks of its driver. A job is done once or not at all, never again."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from edge_agent.devices.base import Driver, SlotBinding
from edge_agent.errors import place_of
from edge_agent.transports.base import Port, PortError, PortGone, PortStalled

log = logging.getLogger(__name__)

JOB_SLACK_S = 5.0
"""Beyond what a job may take; then it is ended from outside."""
JOB_ENDS_S = 2.0
"""A job that was ended lets go of the port within this; if not, the port is closed under it."""

T = TypeVar("T")
Work = Callable[[Port, SlotBinding], Awaitable[T]]
"""What is done on a port while its driver waits."""


class JobAnswer(Exception):
    """What a job tells its giver instead of a result; handed on as it is."""


class JobFailed(Exception):
    """A job ended by a mistake in it; what it had in hand is not told."""


@dataclass(slots=True)
class Job:
    """Something to be done between two looks. `over`: it has ended, and the port is the driver's again."""

    slot: str
    work: Work[Any]
    within_s: float
    answer: asyncio.Future[tuple[Any, Exception | None]]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[Any] | None = None

    def settle(self, result: Any, error: Exception | None = None) -> None:
        self.over.set()
        if not self.answer.done():
            self.answer.set_result((result, error))


@dataclass(slots=True)
class Desk:
    """Where jobs are given to the task that holds a port. `listening`: its present wait, which may be cut short, once for each `hurry`."""

    driver: Driver
    port: Port
    slots: Mapping[str, SlotBinding]
    listening: asyncio.Timeout | None = None
    hurried: bool = False
    jobs: deque[Job] = field(default_factory=deque)

    def hurry(self) -> None:
        self.hurried = True
        self._wake()

    def take_hurry(self) -> bool:
        hurried, self.hurried = self.hurried, False
        return hurried

    async def perform(self, slot: str, work: Work[T], within_s: float) -> T:
        """Have it done; returns when it is. Cancelled, it returns when the port is the driver's again.

        Raises what `work` raises (PortError and the caller's own errors), JobFailed for its mistakes, TimeoutError, PortGone.
        """
        job = Job(slot, work, within_s, asyncio.get_running_loop().create_future())
        self.jobs.append(job)
        self._wake()
        try:
            result, error = await asyncio.shield(job.answer)
        except asyncio.CancelledError:
            await self._withdraw(job)
            raise
        if error is not None:
            raise error
        done: T = result
        return done

    async def do_next(self) -> None:
        """Do the next job, once. What it could not finish in time is ended; a job that does not even end then loses the port.

        Raises PortGone if the device went away meanwhile, PortStalled if the job keeps the port.
        """
        job = self.jobs.popleft()
        job.task = task = asyncio.ensure_future(job.work(self.port, self.slots[job.slot]))
        unfinished: Exception = PortGone("the port was given up during the job")
        try:
            try:
                await asyncio.wait({task}, timeout=job.within_s + JOB_SLACK_S)
                unfinished = TimeoutError()
            finally:
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task}, timeout=JOB_ENDS_S)
        finally:
            error = _error_of(task, job.slot, unfinished)
            job.settle(None if error is not None else task.result(), error)
        if not task.done():
            task.add_done_callback(_forget)
            raise PortStalled("a job keeps the port")
        if isinstance(error, PortGone):
            raise error

    def close(self) -> None:
        """The port is given up: what waits is not done."""
        while self.jobs:
            self.jobs.popleft().settle(None, PortGone("the port was given up before it was this job's turn"))

    async def _withdraw(self, job: Job) -> None:
        if job in self.jobs:
            self.jobs.remove(job)
            job.settle(None)
        if job.task is not None and not job.over.is_set():
            job.task.cancel()
            await job.over.wait()

    def _wake(self) -> None:
        if self.listening is not None:
            self.listening.reschedule(asyncio.get_running_loop().time())


def _error_of(task: asyncio.Task[Any], slot: str, unfinished: Exception) -> Exception | None:
    """What the giver of a job is told. A mistake in the job is told without its text, which may quote what the job had in hand."""
    if not task.done() or task.cancelled():
        return unfinished
    error = task.exception()
    if error is None or isinstance(error, PortError | TimeoutError | JobAnswer):
        return error
    log.error("a job failed", extra={"slot": slot, "error": type(error).__name__, "at": place_of(error)})
    return JobFailed("a job failed by a mistake in it")


def _forget(task: asyncio.Task[Any]) -> None:
    """The end of a job that nobody waits for; taken so that nothing of it is logged."""
    if not task.cancelled():
        task.exception()
