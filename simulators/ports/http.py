"""An IPP printer model behind HTTP on a loopback port, for programs that print over the network or through ipp-usb.

h11 reads requests (chunked bodies and `Expect: 100-continue` included, as CUPS sends them). Documents pass to the model, which keeps none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h11

from simulators.models.ipp import IppPrinter

READ_BYTES = 65536
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
IDLE_S = 60.0
END_S = 5.0


class IppServer:
    """`async with IppServer(model) as server:` listens on a port from the system; `server.uri` is the printer's address."""

    def __init__(
        self, model: IppPrinter, *, host: str = "127.0.0.1", port: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.model = model
        self.uri = ""
        self._host = host
        self._port = port
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._asking = asyncio.Lock()
        self._served: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> IppServer:
        self._server = await asyncio.start_server(self._accept, self._host, self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self.uri = self.model.uri = f"ipp://{self._host}:{self._port}/ipp/print"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._served.values():
            writer.transport.abort()
        if self._served:
            await asyncio.wait(tuple(self._served), timeout=END_S)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._served[task] = writer
        try:
            async with asyncio.timeout(None) as limit:
                await self._converse(reader, writer, limit)
        except (ConnectionError, TimeoutError, h11.RemoteProtocolError):
            pass
        finally:
            self._served.pop(task, None)
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: asyncio.Timeout) -> None:
        connection = h11.Connection(h11.SERVER)
        loop = asyncio.get_running_loop()
        while True:
            limit.reschedule(loop.time() + IDLE_S)
            body = await _request(connection, reader, writer)
            if body is None:
                return
            answer = await self._exchange(body)
            headers = [("Content-Type", "application/ipp"), ("Content-Length", str(len(answer)))]
            for event in (h11.Response(status_code=200, headers=headers), h11.Data(data=answer), h11.EndOfMessage()):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()

    async def _exchange(self, body: bytes) -> bytes:
        """What the model answers, when it is due; one question at a time."""
        async with self._asking:
            self.model.drop_output()
            self.model.feed(body, self._clock())
            while not (answer := self.model.take(self._clock(), 1 << 24)):
                due = self.model.output_due(None)
                await asyncio.sleep(0.05 if due is None else max(0.001, due - self._clock()))
            return answer


async def _request(connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """The next request's body; None when the other side is done."""
    body = bytearray()
    while True:
        event: Any = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue:
                writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            connection.receive_data(await reader.read(READ_BYTES))
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_MESSAGE_BYTES:
                return None
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None
