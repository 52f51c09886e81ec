"""A stopped agent ends, whatever its tasks do with the first cancellation."""

from __future__ import annotations

import asyncio

from edge_agent.supervisor import _end


async def _deaf_once() -> None:
    """As Python 3.11's `wait_for` does it when the result comes together with the cancellation."""
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)


async def test_a_task_that_forgets_a_cancellation_is_cancelled_again() -> None:
    tasks = [asyncio.create_task(_deaf_once()), asyncio.create_task(asyncio.sleep(3600))]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await _end(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_a_task_that_has_failed_does_not_hold_up_the_end() -> None:
    async def failing() -> None:
        raise OSError

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await _end([task])
    assert isinstance(task.exception(), OSError)
