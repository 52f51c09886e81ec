"""A stretch of network that can be cut: a TCP relay on loopback between a terminal and the broker."""

from __future__ import annotations

import asyncio
import contextlib


class Relay:
    """`port` leads to `target` until `cut`; then connections break without a word, old and new ones, until `mend`. The port stays ours meanwhile."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self._whole = True
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        await self.cut()
        if self._server is not None:
            self._server.close()

    def mend(self) -> None:
        self._whole = True

    async def cut(self) -> None:
        self._whole = False
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if not self._whole:
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            self._open.discard(task)
            return
        try:
            ways = [asyncio.create_task(_pour(reader, far_writer)), asyncio.create_task(_pour(far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except asyncio.CancelledError:
            pass  # cut: both ends learn it from the broken connection alone
        finally:
            self._open.discard(task)
            writer.transport.abort()
            far_writer.transport.abort()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
