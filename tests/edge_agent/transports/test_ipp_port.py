"""The port to a printer's IPP service: a sound one, and every way a hostile one may answer. Sizes and times are bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edge_agent.transports.base import PortGone, PortRefused, PortStalled, Sighting
from edge_agent.transports.ipp import IppPort, open_ipp
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.udev import UdevDiscoverer
from protocols.codecs import ipp
from simulators.models.ipp import IppPrinter
from simulators.ports.http import IppServer
from tests.edge_agent.devices.bench import PROFILES

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/ipp\r\n"


@asynccontextmanager
async def service(answer: Answer) -> AsyncIterator[IppPort]:
    served: list[tuple[asyncio.Task[None] | None, asyncio.StreamWriter]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append((asyncio.current_task(), writer))
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield IppPort(f"ipp://127.0.0.1:{server.sockets[0].getsockname()[1]}/ipp/print")
    finally:
        server.close()
        for _, writer in served:
            writer.transport.abort()
        await asyncio.gather(*(task for task, _ in served if task is not None))


def saying(data: bytes) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def saying_for_ever(head: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


async def ask(port: IppPort, timeout_s: float = 5.0) -> bytes:
    return await port.ask(b"question", max_bytes=ipp.ANSWER_MAX_BYTES, timeout_s=timeout_s)


async def test_a_printer_answers() -> None:
    async with IppServer(IppPrinter()) as server:
        port = IppPort(server.uri)
        for number in (1, 2):
            query = ipp.encode_status_query(server.uri, number)
            answer = await port.ask(query, max_bytes=ipp.ANSWER_MAX_BYTES, timeout_s=5)
            assert ipp.decode_status(answer, number).state == 3
        await port.close()
        with pytest.raises(PortGone):
            await ask(port)


async def test_chunks_are_put_together() -> None:
    async with service(saying(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")) as port:
        assert await ask(port) == b"abcde"


async def test_nobody_listens() -> None:
    async with service(saying(b"")) as port:
        pass
    with pytest.raises(PortGone, match="nobody listens"):
        await ask(port)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", PortRefused),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello", PortRefused),
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n", PortRefused),
        (b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2\r\nContent-Length: 0\r\n\r\n", PortRefused),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", PortStalled),
        (b"SSH-2.0-OpenSSH_9.2\r\n", PortStalled),
        (HEAD + b"Content-Length: 10\r\n\r\nabc", PortStalled),
        (b"", PortStalled),
        (b"Z" * 100_000, PortStalled),
        (b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"a" * 10_000_000 + b"\r\n\r\n", PortStalled),
        (HEAD + b"Content-Length: 10000000\r\n\r\n" + b"a" * 10_000_000, PortStalled),
    ],
    ids=["404", "html", "redirect", "upgrade", "503", "ssh", "short", "nothing", "no-head", "10-MB-header", "10-MB-body"],
)
async def test_other_answers(said: bytes, error: type[Exception]) -> None:
    async with service(saying(said)) as port:
        with pytest.raises(error) as caught:
            await ask(port)
    assert "ZZZ" not in str(caught.value)
    assert "aaa" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        saying_for_ever(HEAD + b"\r\n", b"a" * 4096),
        saying_for_ever(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 500),
        saying_for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
        saying_for_ever(b"HTTP/1.1 200 OK\r\n", b"X-More: a\r\n" * 100),
    ],
    ids=["body", "chunks", "100-continue", "headers"],
)
async def test_an_endless_answer_ends_by_its_size(answer: Answer) -> None:
    async with service(answer) as port:
        with pytest.raises(PortStalled):
            await ask(port, timeout_s=30)


@pytest.mark.parametrize(
    "answer",
    [
        saying_for_ever(b"", b"", 0.01),
        saying_for_ever(HEAD + b"Content-Length: 5000\r\n\r\n", b"a", 0.01),
        saying_for_ever(HEAD, b"X", 0.01),
    ],
    ids=["silence", "drip-body", "drip-head"],
)
async def test_a_slow_answer_ends_by_its_time(answer: Answer) -> None:
    async with service(answer) as port:
        started_s = time.monotonic()
        assert await ask(port, timeout_s=0.15) == b""
        assert time.monotonic() - started_s < 2


async def test_the_opener_takes_literal_addresses_only() -> None:
    for path in ("ipp://printer.example/ipp/print", "ipp://127.0.0.1@192.0.2.1/"):
        with pytest.raises(PortRefused):
            open_ipp(Sighting(bus="ipp", path=path))
    port = await SystemOpener().open(Sighting(bus="ipp", path="ipp://127.0.0.1:60000/ipp/print"), PROFILES["ipp-a4"])
    assert isinstance(port, IppPort)


def test_an_address_of_the_inventory_is_a_place() -> None:
    address = "ipp://127.0.0.1:60000/ipp/print"
    (found,) = UdevDiscoverer((address,)).sightings()
    assert (found.bus, found.path, found.place) == ("ipp", address, address)
