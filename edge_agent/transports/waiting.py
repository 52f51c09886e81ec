"""Waits for a file descriptor on the running loop, one reader and one writer at a time, without a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from edge_agent.transports.base import PortError, PortGone


class FdWaiter:
    """Owns the loop's registrations of one descriptor. `close` ends a pending wait with PortGone."""

    def __init__(self, fd: int, name: str) -> None:
        self._fd = fd
        self._name = name
        self._pending: set[asyncio.Future[None]] = set()
        self.closed = False

    async def readable(self, timeout_s: float) -> bool:
        """Whether the descriptor became readable (or broke) within `timeout_s`."""
        loop = asyncio.get_running_loop()
        return await self._wait(loop.add_reader, loop.remove_reader, timeout_s)

    async def writable(self, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        return await self._wait(loop.add_writer, loop.remove_writer, timeout_s)

    def close(self) -> None:
        """Must be called before the descriptor is closed: a number may be reused at once."""
        self.closed = True
        for future in self._pending:
            if not future.done():
                future.set_exception(PortGone(f"{self._name}: closed"))

    def require_open(self) -> None:
        if self.closed:
            raise PortGone(f"{self._name}: closed")

    async def _wait(self, add: Callable[..., Any], remove: Callable[[int], Any], timeout_s: float) -> bool:
        self.require_open()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            add(self._fd, _wake, future)
        except OSError as err:
            raise PortGone(f"{self._name}: the device is gone") from err
        self._pending.add(future)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            self._pending.discard(future)
            remove(self._fd)
        return True


async def in_thread(work: Callable[[], Any], undo: Callable[[Any], None]) -> Any:
    """Run a blocking `work` once in the loop's executor. If the caller is cancelled meanwhile, `undo` takes the late result back."""
    future = asyncio.get_running_loop().run_in_executor(None, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(lambda late: _take_back(late, undo))
        raise


def _take_back(late: asyncio.Future[Any], undo: Callable[[Any], None]) -> None:
    if late.cancelled() or late.exception() is not None:
        return
    try:
        undo(late.result())
    except (OSError, PortError):
        return  # it was given up anyway


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
