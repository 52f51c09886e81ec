"""The event stream of the console: one stream per browser, and a clear answer where there is no room for another."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from litestar import Response, get
from litestar.enums import MediaType
from litestar.response import Stream
from litestar.status_codes import HTTP_204_NO_CONTENT, HTTP_503_SERVICE_UNAVAILABLE

from fleet_server.console.desk import Asked, Desk, TheDesk
from fleet_server.live.hub import FULL_RETRY_S

CHECK_MS: Final = 15_000
"""How often an open stream looks whether its session still lives."""


@get("/live", sync_to_thread=False)
def live(request: Asked, desk: TheDesk) -> Stream | Response[str]:
    """Server-sent events; ends with the session, so that a signed-out browser cannot go on watching.

    `Last-Event-ID`, or `after` of a browser that opens anew, says how far it has been told. 503 with `Retry-After` where there is no room.
    """
    token: str = request.auth
    if not desk.hub.has_room(token):
        return _full(desk, request)
    return Stream(
        _while_signed_in(desk, token, request.headers.get("Last-Event-ID") or request.query_params.get("after") or None),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@get("/live/room", sync_to_thread=False)
def room(request: Asked, desk: TheDesk) -> Response[str]:
    """Why a stream was refused, for scripts: an EventSource is not told the status. 204: there is room."""
    return Response("", status_code=HTTP_204_NO_CONTENT) if desk.hub.has_room(request.auth) else _full(desk, request)


def _full(desk: Desk, request: Asked) -> Response[str]:
    return Response(
        desk.voice(request).t("live.full", n=FULL_RETRY_S),
        media_type=MediaType.TEXT,
        status_code=HTTP_503_SERVICE_UNAVAILABLE,
        headers={"Retry-After": str(FULL_RETRY_S), "Cache-Control": "no-store"},
    )


async def _while_signed_in(desk: Desk, token: str, last_event_id: str | None) -> AsyncGenerator[bytes, None]:
    checked_ms = desk.now_ms()
    async with aclosing(desk.hub.listen(last_event_id, token)) as messages:
        async for message in messages:
            yield message
            now_ms = desk.now_ms()
            if now_ms - checked_ms >= CHECK_MS:
                checked_ms = now_ms
                if await desk.sessions.find(token, now_ms=now_ms) is None:
                    return
