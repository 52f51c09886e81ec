"""The self-test `read`: somebody on site holds a code in front of the device, or presses a key, and it is seen to work. What was read is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from edge_agent.devices.base import Observation

READ_TEST_S = 20.0
"""For a person to do it who has just asked for the test."""
READ: frozenset[str] = frozenset({"read"})


async def read_test(
    listen: Callable[[float], Awaitable[Sequence[Observation]]], verdict: Callable[[Sequence[Observation]], bool | None]
) -> bool:
    """Listen until `verdict` knows, or the time is over. What is seen meanwhile is the test's and is not counted."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + READ_TEST_S
    while (left_s := deadline_s - loop.time()) > 0:
        said = verdict(await listen(left_s))
        if said is not None:
            return said
    return False


def by_tally(seen: Sequence[Observation]) -> bool | None:
    """One sound reading is enough; one without its end is none."""
    tallies = [one.tally for one in seen if one.tally is not None]
    return None if not tallies else any(tally.ok for tally in tallies)


def by_events(seen: Sequence[Observation]) -> bool | None:
    return True if any(one.events for one in seen) else None
