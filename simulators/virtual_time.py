"""An event loop whose time runs as fast as the work allows: hours of polling pass in milliseconds, in the same order as on a clock."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

START_S = 1000.0
REAL_WAIT_S = 10


class _Selector(selectors.DefaultSelector):
    """Never sleeps: where it would, the loop's time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            return super().select(REAL_WAIT_S)  # waiting for a real descriptor
        if not ready and timeout:
            self.now_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """For `asyncio.Runner(loop_factory=VirtualLoop)`. Only work inside the process keeps its pace; threads and other processes do not wait for it."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; hours of its time pass in milliseconds."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
