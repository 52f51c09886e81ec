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
from fleet_server.console.desk import Desk, desk_of
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


def create_app(settings: Settings) -> Litestar:
    """The console over the database of `settings`, which has this version's schema already."""
    from fleet_server.piccolo_conf import DB

    db.use(settings.layout.database)
    return app_at(make_desk(settings, DB, Passwords()))


def make_desk(
    settings: Settings,
    engine: FleetEngine,
    passwords: Passwords,
    *,
    render: Renderer | None = None,
    root: Ed25519PublicKey | None = None,
    now_ms: Callable[[], int] = wall_ms,
) -> Desk:
    """The parts of a console. Templates that are compiled already, a root, and a clock other than the machine's are for tests."""
    view = FleetView(engine, now_ms=now_ms, zone=settings.timezone)
    return Desk(
        settings=settings,
        db=engine,
        sessions=Sessions(engine, passwords),
        view=view,
        hub=Hub(view, engine, now_ms=now_ms, run_dir=settings.layout.run),
        render=render or Renderer(i18n.load_all()),
        now_ms=now_ms,
        cookie=SECURE_COOKIE if settings.web.tls else COOKIE,
        outline=load_outline(settings.outline),
        wall_door=Door(),
        root=root,
    )


def app_at(desk: Desk) -> Litestar:
    """The application around a desk. It looks the desk up in its state at each request."""
    headers = dict(SECURITY_HEADERS)
    if desk.settings.web.tls:
        headers["Strict-Transport-Security"] = f"max-age={YEAR_S}"
    static = create_static_files_router(
        path="/static",
        directories=[STATIC],
        opt={"public": True},
        cache_control=CacheControlHeader(public=True, max_age=YEAR_S, immutable=True),
    )
    return Litestar(
        route_handlers=[*HANDLERS, live, room, static],
        dependencies={"desk": Provide(desk_of, sync_to_thread=False)},
        middleware=[DefineMiddleware(SessionGate, exclude=["^/static/"])],
        guards=[require_role],
        before_request=refuse_forged,
        exception_handlers={Exception: answer_for},
        before_send=[_adding(headers)],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        lifespan=[_closing_the_hub],
        state=State({"desk": desk}),
    )


@asynccontextmanager
async def _closing_the_hub(app: Litestar) -> AsyncGenerator[None, None]:
    yield
    await app.state.desk.hub.close()


def _adding(headers: dict[str, str]) -> Callable[[Message, Scope], Awaitable[None]]:
    """On every answer, errors and files included, unless its handler chose otherwise."""

    async def add(message: Message, scope: Scope) -> None:
        if message["type"] == "http.response.start":
            present = MutableScopeHeaders.from_message(message)
            for name, value in headers.items():
                present.setdefault(name, value)

    return add
