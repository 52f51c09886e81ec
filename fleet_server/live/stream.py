"""The event stream of the console: one route, one stream per browser."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from litestar import get
from litestar.response import Stream

from fleet_server.console.desk import Asked, Desk, TheDesk

CHECK_MS: Final = 15_000
"""How often an open stream looks whether its session still lives."""


@get("/live", sync_to_thread=False)
def live(request: Asked, desk: TheDesk) -> Stream:
    """Server-sent events; ends with the session, so that a signed-out browser cannot go on watching."""
    token: str = request.auth
    return Stream(
        _while_signed_in(desk, token, request.headers.get("Last-Event-ID")),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _while_signed_in(desk: Desk, token: str, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
    checked_ms = desk.now_ms()
    async with aclosing(desk.hub.listen(last_event_id)) as messages:
        async for message in messages:
            yield message
            now_ms = desk.now_ms()
            if now_ms - checked_ms >= CHECK_MS:
                checked_ms = now_ms
                if await desk.sessions.find(token, now_ms=now_ms) is None:
                    return
