"""A kiosk page in a real browser has a device through the agent: the token goes in a subprotocol, and a page of another site stays out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Browser

from edge_agent.local_api.websocket import SUBPROTOCOL, TOKEN_PREFIX
from tests.edge_agent.owner.test_sockets import PLAIN_TOKEN, TOKEN, Doors, open_doors

pytestmark = pytest.mark.browser

TALK = """
([url, protocols]) => new Promise(resolve => {
  const heard = [];
  const socket = new WebSocket(url, protocols);
  const send = (name, requestId, payload) => socket.send(JSON.stringify(
    {header: {type: "command", name, requestId, version: name.startsWith("KioskFleet") ? "1.0" : "2.0"}, payload}));
  socket.onopen = () => send("KioskFleet.Claim", 1, {leaseS: 30});
  socket.onmessage = event => {
    const message = JSON.parse(event.data);
    heard.push(message.header.type + " " + message.header.name + " " + (message.header.completionCode || ""));
    if (message.header.type !== "completion") return;
    if (message.header.requestId === 1) send("Common.Status", 2, {});
    else { socket.close(1000); resolve({heard, protocol: socket.protocol, mine: message.payload.kioskFleet.mine}); }
  };
  socket.onclose = event => resolve({heard, code: event.code});
})
"""


@asynccontextmanager
async def site() -> AsyncIterator[str]:
    """A page on loopback, as kiosks have it: Chromium lets no page of a public address near it without asking. Its origin."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<!doctype html><title>kiosk</title><link rel=icon href='data:,'>"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def talk(chromium: Browser, doors: Doors, origin: str, protocols: list[str]) -> dict[str, Any]:
    context = await chromium.new_context()
    try:
        page = await context.new_page()
        await page.goto(f"{origin}/")
        url = f"ws://127.0.0.1:{doors.api.http_port}/xfs4iot/v1.0/scanner"
        said: dict[str, Any] = await page.evaluate(TALK, [url, protocols])
        return said
    finally:
        await context.close()


@pytest.mark.spec("D-103, D-104")
async def test_the_kiosks_page_claims_a_device_and_others_do_not_get_in(chromium: Browser) -> None:
    async with site() as kiosk, site() as foreign, open_doors(origins=frozenset({kiosk}), hosts=set()) as doors:
        assert doors.hosts is not None
        doors.hosts.add(f"127.0.0.1:{doors.api.http_port}")
        offered = [SUBPROTOCOL, TOKEN_PREFIX + TOKEN]
        said = await talk(chromium, doors, kiosk, offered)
        assert said == {
            "heard": [
                "acknowledge KioskFleet.Claim ",
                "completion KioskFleet.Claim success",
                "acknowledge Common.Status ",
                "completion Common.Status success",
            ],
            "protocol": SUBPROTOCOL,
            "mine": True,
        }
        for origin, protocols in (
            (foreign, offered),
            (kiosk, [SUBPROTOCOL]),
            (kiosk, [SUBPROTOCOL, TOKEN_PREFIX + PLAIN_TOKEN]),
        ):
            assert await talk(chromium, doors, origin, protocols) == {"heard": [], "code": 1006}
        assert dict(doors.service.claimed()) == {}
