"""Clients that take their time on purpose, at a real listener."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from fleet_server import punctual
from fleet_server.punctual import HEAD_MAX_BYTES, PunctualProtocol
from tests.support.waiting import until

SHORT_S = 0.15


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers /slow over three limits, anything else with the length of its body."""
    length, more = 0, True
    while more and scope["method"] == "POST":
        message = await receive()
        length, more = length + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(6 if scope["path"] == "/slow" else 0):
        await asyncio.sleep(SHORT_S / 2)
        await send({"type": "http.response.body", "body": b".", "more_body": True})
    await send({"type": "http.response.body", "body": str(length).encode()})


@asynccontextmanager
async def served(port: int) -> AsyncIterator[None]:
    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=port,
        http=PunctualProtocol,
        h11_max_incomplete_event_size=HEAD_MAX_BYTES,
        lifespan="off",
        log_config=None,
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started, "the listener")
        yield
    finally:
        server.should_exit = True
        await running


async def answer(port: int, *parts: bytes) -> bytes:
    """What comes until the server hangs up; the connection stays open on this side."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                return await reader.read()
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost:",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nonly this",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo",
    ],
    ids=["nothing", "half a head", "half a body", "half a second head"],
)
async def test_a_request_that_does_not_arrive_ends_its_connection(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(punctual, "REQUEST_WITHIN_S", SHORT_S)
    port = free_port()
    async with served(port):
        got = await answer(port, sent)
    assert got.count(b"200 OK") == sent.count(b"\r\n\r\nGET")


async def test_an_answer_may_take_longer_than_a_request(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punctual, "REQUEST_WITHIN_S", SHORT_S)
    port = free_port()
    async with served(port):
        got = await answer(port, b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert got.count(b"\r\n.\r\n") == 6


async def test_an_endless_head_is_refused(free_port: Callable[[], int]) -> None:
    port = free_port()
    async with served(port):
        got = await answer(port, b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_MAX_BYTES)
        assert b"200" not in got
        fine = await answer(
            port, b"GET / HTTP/1.1\r\nConnection: close\r\nHost: a\r\nX: " + b"a" * (HEAD_MAX_BYTES // 2) + b"\r\n\r\n"
        )
        assert b"200 OK" in fine
