"""The screen on a wall. It has no account: a view token, brought in the address's fragment, is exchanged for a cookie of these routes alone."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import msgspec
from litestar import Response, get, post
from litestar.datastructures import Cookie
from litestar.enums import MediaType
from litestar.response import Stream

from fleet_server.console import wall
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of, language
from fleet_server.console.i18n import language_of
from fleet_server.console.pages.city import outline_answer
from fleet_server.console.render import Voice
from fleet_server.live.hub import encode
from fleet_server.wallboards import store
from fleet_server.wallboards.rules import Board

COOKIE: Final = "kf_wall"
SECURE_COOKIE: Final = "__Secure-kf_wall"
PATH: Final = "/wall"
"""Browsers send the cookie below this path only; /wallboards is not below it."""
OPEN: Final = {"public": True, "before_change": True}
PRIVATE: Final = {"Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex"}
TOLD: Final = frozenset({b"rows", b"counts", b"platform", b"touched", b"resync"})
"""Events that mean "something is different"; a screen is told no more than that, and asks for its own view."""


@get("/wall", opt=OPEN)
async def wall_page(request: Asked, desk: TheDesk) -> Response[str]:
    """The page of a screen with its cookie; without one, the door that reads the token from the address."""
    board = await _board(request, desk)
    voice = _voice(desk, board.look.lang if board else language(request, None))
    values = {
        "version": wall.version(),
        "words": json.dumps(wall.words(voice), ensure_ascii=False),
        "board": board,
        "outline_address": f"/wall/outline.json?v={desk.outline.digest}",
        "squeeze": f"{desk.outline.squeeze:.4f}",
    }
    html = desk.render("wall.html" if board else "wall_door.html", voice, None, values)
    return Response(html, media_type=MediaType.HTML, headers=PRIVATE)


@post("/wall/enter", status_code=200, opt=OPEN)
async def wall_enter(request: Asked, desk: TheDesk) -> Response[bytes]:
    """A token for a cookie. Wrong ones are counted by address."""
    now_ms = desk.now_ms()
    address = request.client.host if request.client else ""
    if wait_ms := desk.wall_door.wait_ms(address, now_ms):
        return Response(
            b"", status_code=429, media_type=MediaType.TEXT, headers={**PRIVATE, "Retry-After": str(-(-wait_ms // 1000))}
        )
    token = (await form_of(request)).get("token", "")
    board = await store.find(desk.db, token, now_ms=now_ms)
    if board is None:
        desk.wall_door.failed(address, now_ms)
        return Response(b"", status_code=401, media_type=MediaType.TEXT, headers=PRIVATE)
    answer = Response(b"", media_type=MediaType.TEXT, headers=PRIVATE)
    answer.set_cookie(
        Cookie(
            key=_cookie(desk),
            value=token,
            path=PATH,
            httponly=True,
            samesite="strict",
            secure=desk.settings.web.tls,
            max_age=max(1, (board.expires_ms - now_ms) // 1000),
        )
    )
    return answer


@get("/wall/state", opt=OPEN)
async def wall_state(request: Asked, desk: TheDesk) -> Response[bytes]:
    board = await _board(request, desk)
    if board is None:
        return Response(b"", status_code=401, media_type=MediaType.TEXT, headers=PRIVATE)
    fleet = await desk.fleet(request)
    found = await wall.snapshot(desk, fleet, board, _voice(desk, board.look.lang))
    return Response(msgspec.json.encode(found), media_type=MediaType.JSON, headers=PRIVATE)


@get("/wall/live", opt=OPEN)
async def wall_live(request: Asked, desk: TheDesk) -> Response[bytes] | Stream:
    """The console's own stream, of which a screen hears that something changed, and nothing of what."""
    if await _board(request, desk) is None:
        return Response(b"", status_code=401, media_type=MediaType.TEXT, headers=PRIVATE)
    return Stream(
        _changes(desk, request.cookies.get(_cookie(desk), "")),
        media_type="text/event-stream",
        headers={**PRIVATE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@get("/wall/outline.json", opt=OPEN)
async def wall_outline(request: Asked, desk: TheDesk) -> Response[bytes]:
    if await _board(request, desk) is None:
        return Response(b"", status_code=401, media_type=MediaType.TEXT, headers=PRIVATE)
    return outline_answer(desk)


HANDLERS = [wall_page, wall_enter, wall_state, wall_live, wall_outline]


async def _changes(desk: Desk, token: str) -> AsyncGenerator[bytes, None]:
    """Ends with the token: looked at with every tick, so a revoked screen knows within seconds."""
    async with aclosing(desk.hub.listen(None)) as messages:
        async for message in messages:
            name = _event_of(message)
            if name == b"tick":
                if await store.find(desk.db, token, now_ms=desk.now_ms()) is None:
                    yield encode("over", "", 0)
                    return
                yield message
            elif name in TOLD:
                yield encode("changed", "", 0)
            elif not name:
                yield message  # how long to wait before connecting again


def _event_of(message: bytes) -> bytes:
    _, found, rest = message.partition(b"\nevent: ")
    return rest.partition(b"\n")[0] if found else b""


def _cookie(desk: Desk) -> str:
    return SECURE_COOKIE if desk.settings.web.tls else COOKIE


async def _board(request: Asked, desk: Desk) -> Board | None:
    return await store.find(desk.db, request.cookies.get(_cookie(desk), ""), now_ms=desk.now_ms())


def _voice(desk: Desk, lang: str) -> Voice:
    return Voice(desk.render.catalogues[language_of(lang)], desk.now_ms(), desk.view.zone)
