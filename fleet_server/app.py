"""Composition root of the console: every part is made here and handed to whoever needs it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from litestar import Litestar
from litestar.datastructures import CacheControlHeader, MutableScopeHeaders, State
from litestar.di import Provide
from litestar.middleware import DefineMiddleware
from litestar.static_files import create_static_files_router
from litestar.types import Message, Scope

from fleet_server import db
from fleet_server.accounts.access import COOKIE, SECURE_COOKIE, SessionGate, refuse_forged, require_role
from fleet_server.accounts.passwords import Passwords
from fleet_server.accounts.sessions import Sessions
from fleet_server.console import i18n
from fleet_server.console.desk import Desk
from fleet_server.console.fleet import FleetView
from fleet_server.console.outline import load_outline
from fleet_server.console.pages import HANDLERS
from fleet_server.console.problems import answer_for
from fleet_server.console.render import STATIC, Renderer
from fleet_server.engine import FleetEngine
from fleet_server.live.hub import Hub
from fleet_server.live.stream import live, room
from fleet_server.settings import Settings
from fleet_server.wallboards.door import Door

MAX_BODY_BYTES = 64 * 1024
"""Forms are small; nobody uploads anything here."""
YEAR_S = 31_536_000

SECURITY_HEADERS = {
    # Everything from this server, no inline script, no inline style: what is injected does not run.
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=(), serial=()",
    "Cache-Control": "no-store",
}


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def create_app(
    settings: Settings,
    *,
    engine: FleetEngine | None = None,
    passwords: Passwords | None = None,
    root: Ed25519PublicKey | None = None,
    now_ms: Callable[[], int] = wall_ms,
    debug: bool = False,
) -> Litestar:
    """The console over the database of `settings`, which has this version's schema already. `engine`, hasher, root and clock are for tests."""
    if engine is None:
        from fleet_server.piccolo_conf import DB

        db.use(settings.layout.database)
        engine = DB
    headers = dict(SECURITY_HEADERS)
    if settings.web.tls:
        headers["Strict-Transport-Security"] = f"max-age={YEAR_S}"
    cookie = SECURE_COOKIE if settings.web.tls else COOKIE
    sessions = Sessions(engine, passwords or Passwords())
    view = FleetView(engine, now_ms=now_ms, zone=settings.timezone)
    hub = Hub(view, engine, now_ms=now_ms, run_dir=settings.layout.run)
    desk = Desk(
        settings=settings,
        db=engine,
        sessions=sessions,
        view=view,
        hub=hub,
        render=Renderer(i18n.load_all()),
        now_ms=now_ms,
        cookie=cookie,
        outline=load_outline(settings.outline),
        wall_door=Door(),
        root=root,
    )

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncGenerator[None, None]:
        yield
        await hub.close()

    static = create_static_files_router(
        path="/static",
        directories=[STATIC],
        opt={"public": True},
        cache_control=CacheControlHeader(public=True, max_age=YEAR_S, immutable=True),
    )
    return Litestar(
        route_handlers=[*HANDLERS, live, room, static],
        dependencies={"desk": Provide(lambda: desk, sync_to_thread=False)},
        middleware=[DefineMiddleware(SessionGate, sessions=sessions, cookie=cookie, now_ms=now_ms, exclude=["^/static/"])],
        guards=[require_role],
        before_request=refuse_forged,
        exception_handlers={Exception: answer_for},
        before_send=[_adding(headers)],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        lifespan=[lifespan],
        state=State({"desk": desk}),
        debug=debug,
    )


def _adding(headers: dict[str, str]) -> Callable[[Message, Scope], Awaitable[None]]:
    """On every answer, errors and files included, unless its handler chose otherwise."""

    async def add(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            present = MutableScopeHeaders.from_message(message)
            for name, value in headers.items():
                present.setdefault(name, value)

    return add
