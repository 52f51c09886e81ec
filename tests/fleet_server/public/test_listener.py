"""The public listener against clients that hold on to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from fleet_server import punctual
from fleet_server.public.listener import HEAD_MAX_BYTES, server
from fleet_server.settings import Public
from tests.support.waiting import until

SHORT_S = 0.2
BIG = b"x" * (16 * 1024 * 1024)
"""More than the kernel takes on a client's behalf."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    del receive
    body = BIG if scope["path"] == "/big" else b"small"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    for start in range(0, len(body), 65536):
        await send({"type": "http.response.body", "body": body[start : start + 65536], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def served(port: int, **limits: Any) -> AsyncIterator[uvicorn.Server]:
    listener = server(application, Public(port=port, **limits))
    running = asyncio.create_task(listener.serve())
    try:
        await until(lambda: listener.started, "the listener")
        yield listener
    finally:
        listener.should_exit = True
        await running


def ask(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


async def test_who_does_not_take_an_answer_loses_it(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punctual, "REQUEST_WITHIN_S", SHORT_S)
    port = free_port()
    async with served(port) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65536)
        writer.write(ask("/big"))
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        other_writer.write(ask("/"))
        assert b"small" in await other_reader.readuntil(b"small"), "nobody else waits for it"
        other_writer.transport.abort()
        await until(lambda: not listener.server_state.connections, "the listener lets go of it")
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        got = 0
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                while piece := await reader.read(65536):
                    got += len(piece)
        assert got < len(BIG), "the rest was not kept for it"
        writer.transport.abort()


async def test_who_asks_quickly_gets_everything(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with served(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/big"))
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert len(await reader.readexactly(len(BIG))) == len(BIG)
        writer.transport.abort()


async def test_connections_are_bounded_and_room_comes_back(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with served(port, max_connections=16):
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(16)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/"))
        assert b"503" in await reader.readline()
        for _, one in [*held, (reader, writer)]:
            one.transport.abort()

        async def served_again() -> bool:
            again_reader, again_writer = await asyncio.open_connection("127.0.0.1", port)
            again_writer.write(ask("/"))
            line = await again_reader.readline()
            again_writer.transport.abort()
            return b"200" in line

        await until(served_again, "room for the next")


async def test_an_endless_head_is_refused(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with served(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_MAX_BYTES)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert b"200" not in await reader.read(200)
        writer.transport.abort()
