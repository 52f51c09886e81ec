"""Somebody's browser without a browser: its own cookies, the token of its pages, and pages as a person reads them."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from litestar import Litestar
from litestar.testing import AsyncTestClient

from fleet_server.app import app_at
from fleet_server.console.desk import Desk
from fleet_server.engine import FleetEngine
from tests.support.console import desk_for
from tests.support.seed import OPERATOR, PASSWORD

BASE = "http://console.test"


@dataclass
class Person:
    client: httpx.AsyncClient
    csrf: str = ""

    async def get(self, path: str, *, part: bool = False) -> str:
        answer = await self.client.get(path, headers={"HX-Request": "true"} if part else {})
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
        return answer.text

    async def seen(self, path: str) -> str:
        """The page as a person reads it: no tags, entities resolved, one space between words."""
        return plain(await self.get(path))

    async def post(self, path: str, **fields: str) -> httpx.Response:
        return await self.client.post(path, data=fields, headers={"X-CSRF-Token": self.csrf, "HX-Request": "true"})

    async def sign_in(self, name: str, password: str = PASSWORD, lang: str = "zh") -> None:
        answer = await self.client.post("/login", data={"name": name, "password": password, "lang": lang})
        assert answer.status_code == 303, answer.text[:200]
        found = re.search(r'hx-headers=\'\{"X-CSRF-Token": "([^"]+)"\}', await self.get("/"))
        assert found
        self.csrf = found.group(1)


def plain(text: str) -> str:
    """Markup as text."""
    text = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


_IDLE: list[Litestar] = []
"""Applications between two tests. Putting one together takes longer than most tests, and all that it knows of a test is the desk in its state."""


@asynccontextmanager
async def running_at(desk: Desk) -> AsyncIterator[Litestar]:
    """A started application at this desk, without a socket."""
    app = _IDLE.pop() if _IDLE else app_at(desk)
    app.state.desk = desk
    async with AsyncTestClient(app, base_url=BASE):
        yield app
    _IDLE.append(app)


@asynccontextmanager
async def console_of(database: Path, folder: Path, now_ms: Callable[[], int]) -> AsyncIterator[Callable[[], Person]]:
    """A console in this process over `database`, by the clock `now_ms`; gives a function that makes browsers."""
    engine = FleetEngine()
    engine.use(database)
    try:
        async with running_at(desk_for(folder, engine, now_ms)) as app, AsyncExitStack() as stack:

            def make() -> Person:
                client = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE, follow_redirects=False)  # type: ignore[arg-type]  # Litestar's scope type is its own
                stack.push_async_callback(client.aclose)
                return Person(client)

            yield make
    finally:
        engine.close()


@asynccontextmanager
async def operator_of(database: Path, folder: Path, now_ms: Callable[[], int], lang: str = "zh") -> AsyncIterator[Person]:
    """One operator, signed in."""
    async with console_of(database, folder, now_ms) as browsers:
        person = browsers()
        await person.sign_in(OPERATOR, lang=lang)
        yield person
