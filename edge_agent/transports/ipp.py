"""IPP over HTTP to one device: a question, an answer, a connection of its own for each. h11 reads HTTP; the bytes of IPP pass uninterpreted.

The address stands in the configuration and is a literal one; nothing is resolved, no redirect is followed, no proxy asked. Whatever the other side
sends is counted: an answer has a size, the whole exchange a time, and the connection is closed after it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import h11

from edge_agent.transports.base import PortGone, PortRefused, PortStalled, Sighting, os_errors
from protocols.codecs.ipp import Address, address_of
from protocols.errors import EncodeError

READ_BYTES = 4096
HEAD_MAX_BYTES = 16 * 1024
"""Status line and headers, and what chunked framing adds."""
CLOSE_TIMEOUT_S = 1.0


class IppPort:
    """One printer's address. Holds no connection between questions."""

    def __init__(self, uri: str) -> None:
        """EncodeError for an address that is no literal one."""
        self.address = uri
        self._address: Address = address_of(uri)
        self._closed = False

    async def ask(self, message: bytes, *, max_bytes: int, timeout_s: float) -> bytes:
        """The answer's body, b"" if there is none within `timeout_s`.

        PortGone if nobody listens there, PortRefused for a service that is no IPP, PortStalled for an answer that breaks off or is too long.
        """
        if self._closed:
            raise PortGone("the port is closed")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._exchange(message, max_bytes)
        except TimeoutError:
            return b""

    async def close(self) -> None:
        self._closed = True

    async def _exchange(self, message: bytes, max_bytes: int) -> bytes:
        where = f"{self._address.host} port {self._address.port}"
        with os_errors(where):
            try:
                reader, writer = await asyncio.open_connection(self._address.host, self._address.port)
            except ConnectionRefusedError as err:
                raise PortGone(f"{where}: nobody listens") from err
        try:
            with os_errors(where):
                writer.write(self._request(message))
                await writer.drain()
                return await _read_answer(reader, where, max_bytes)
        except (ConnectionError, asyncio.IncompleteReadError) as err:
            raise PortStalled(f"{where}: the answer breaks off") from err
        finally:
            await _end(writer)

    def _request(self, message: bytes) -> bytes:
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        connection = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", f"{host}:{self._address.port}"),
            ("Content-Type", "application/ipp"),
            ("Content-Length", str(len(message))),
            ("Connection", "close"),
        ]
        request = h11.Request(method="POST", target=self._address.path, headers=headers)
        return (connection.send(request) or b"") + (connection.send(h11.Data(data=message)) or b"")


async def _read_answer(reader: asyncio.StreamReader, where: str, max_bytes: int) -> bytes:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)
    # A response is only read by a connection that has asked; what was asked does not matter to the reading.
    connection.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
    connection.send(h11.EndOfMessage())
    body, received = bytearray(), 0
    while True:
        try:
            event: Any = connection.next_event()
        except h11.RemoteProtocolError as err:
            raise PortStalled(f"{where}: the answer is not HTTP or breaks off") from err
        if event is h11.NEED_DATA:
            data = await reader.read(READ_BYTES)
            received += len(data)
            if received > max_bytes + HEAD_MAX_BYTES:
                raise PortStalled(f"{where}: an answer of more than {max_bytes} bytes")
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            _require_ipp(event, where)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_bytes:
                raise PortStalled(f"{where}: an answer of more than {max_bytes} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return bytes(body)
        elif isinstance(event, h11.ConnectionClosed):
            raise PortStalled(f"{where}: the answer breaks off")


def _require_ipp(response: h11.Response, where: str) -> None:
    if 500 <= response.status_code:
        raise PortStalled(f"{where}: answers with HTTP {response.status_code}")
    kind = dict(response.headers).get(b"content-type", b"").partition(b";")[0].strip().lower()
    if response.status_code != 200 or kind != b"application/ipp":
        raise PortRefused(f"{where}: does not speak IPP (HTTP {response.status_code})")


async def _end(writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    transport.abort()  # nothing that is still on its way matters
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await writer.wait_closed()


def open_ipp(sighting: Sighting) -> IppPort:
    """PortRefused for an address that is no literal one."""
    try:
        return IppPort(sighting.path)
    except EncodeError as err:
        raise PortRefused(f"{sighting.path}: {err}") from None
