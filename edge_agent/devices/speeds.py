"""A serial unit that may have been set to another speed: asked at all of them once, and again now and then while it is silent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from edge_agent.clock import ClockReading
from edge_agent.transports.base import BytePort, SpeedPort

AFTER_MISSES = 3
EVERY_MS = 600_000

A = TypeVar("A")


class SpeedSearch:
    """`usual`: what the line is set to again when no speed was answered."""

    def __init__(self, port: BytePort, bauds: Sequence[int], usual: int) -> None:
        self._port, self._bauds, self._usual = port, bauds, usual
        self._searched_ms: int | None = None

    async def find(self, ask: Callable[[], Awaitable[A | None]], *, misses: int, now: ClockReading) -> A | None:
        """The answer at the first speed that has one, which stays set; None if there is none, or it is not the time to look."""
        port = self._port
        if not isinstance(port, SpeedPort) or len(self._bauds) < 2 or misses + 1 < AFTER_MISSES:
            return None
        if self._searched_ms is not None and now.boot_ms - self._searched_ms < EVERY_MS:
            return None
        self._searched_ms = now.boot_ms
        for baud in self._bauds:
            await port.set_baud(baud)
            answer = await ask()
            if answer is not None:
                return answer
        await port.set_baud(self._usual)
        return None
