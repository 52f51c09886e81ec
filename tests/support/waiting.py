"""Waiting in tests: for a condition, with a deadline, never for an amount of time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

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


@overload
async def until(look: Callable[[], Coroutine[Any, Any, T]], what: str, *, timeout_s: float = 20.0) -> T: ...
@overload
async def until(look: Callable[[], T], what: str, *, timeout_s: float = 20.0) -> T: ...
async def until(look: Callable[[], Any], what: str, *, timeout_s: float = 20.0) -> Any:
    """`wait_until` for a coroutine test; `look` may be a coroutine function."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        seen = look()
        found = await seen if inspect.isawaitable(seen) else seen
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last seen: {found!r})")
        await asyncio.sleep(LOOK_EVERY_S)
