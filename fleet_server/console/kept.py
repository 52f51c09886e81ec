"""Keeps one computed value for all who ask: a young one is given as it is, an older one is renewed behind the page, a very old one is waited for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
YOUNG_MS: Final = 15_000
TOO_OLD_MS: Final = 120_000
"""Nobody looked for a while: the first one who does waits, and sees no figures of another hour."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """`at_ms`: the moment for which the value holds."""

    value: T
    at_ms: int


class Kept(Generic[T]):
    """`now_ms` is the wall clock. `key` of `get` tells what the value was made for: another key is never answered with an old value."""

    def __init__(self, now_ms: Callable[[], int], *, young_ms: int = YOUNG_MS) -> None:
        self._now_ms, self._young_ms = now_ms, young_ms
        self._found: tuple[object, Found[T]] | None = None
        self._task: tuple[object, asyncio.Task[Found[T]]] | None = None

    async def get(self, key: object, make: Callable[[int], Awaitable[T]]) -> Found[T]:
        """`make(at_ms)` computes the value that holds at `at_ms`; it runs once at a time, however many ask."""
        found = self._found[1] if self._found is not None and self._found[0] == key else None
        age_ms = self._now_ms() - found.at_ms if found is not None else -1
        if found is not None and 0 <= age_ms < self._young_ms:
            return found
        task = self._begin(key, make)
        if found is not None and 0 <= age_ms < TOO_OLD_MS:
            return found
        # Shielded: who asked may go away, others wait for the same value.
        return await asyncio.shield(task)

    def _begin(self, key: object, make: Callable[[int], Awaitable[T]]) -> asyncio.Task[Found[T]]:
        if self._task is None or self._task[0] != key or self._task[1].done():
            task = asyncio.create_task(self._run(key, make))
            task.add_done_callback(_say_failure)
            self._task = (key, task)
        return self._task[1]

    async def _run(self, key: object, make: Callable[[int], Awaitable[T]]) -> Found[T]:
        at_ms = self._now_ms()
        found = Found(await make(at_ms), at_ms)
        self._found = (key, found)
        return found


def _say_failure(task: asyncio.Task[Found[T]]) -> None:
    """Whoever waited is told by the exception itself; a renewal behind a page has nobody else."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a figure of the start page could not be computed: %s", type(error).__name__)
