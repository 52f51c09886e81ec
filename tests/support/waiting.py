"""Waiting in tests: for a condition, with a deadline, never for an amount of time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

# Short enough not to be felt, long enough not to load the machine that is being waited for.
LOOK_EVERY_S = 0.02


def wait_until(look: Callable[[], T], what: str, *, timeout_s: float = 20.0) -> T:
    """Return the first truthy value that `look` gives; fail with `what` after `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {found!r})")
        time.sleep(LOOK_EVERY_S)


async def until(look: Callable[[], Awaitable[T]] | Callable[[], T], what: str, *, timeout_s: float = 20.0) -> T:
    """`wait_until` for a coroutine test; `look` may be a coroutine function."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        seen = look()
        found: T = await seen if inspect.isawaitable(seen) else seen
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {found!r})")
        await asyncio.sleep(LOOK_EVERY_S)
