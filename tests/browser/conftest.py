"""A console, and browsers that look at it. The browser is Debian's Chromium, driven through Playwright.

One browser and one console that nobody changes serve all tests of a worker; a test that changes something gets a console of its own.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from fleet_server.db import open_raw
from tests.support.console import Console, console_server
from tests.support.content_seed import seed_content
from tests.support.orders import seed_orders
from tests.support.seed import OPERATOR, PASSWORD, Seeded, seed
from tests.support.updates_seed import seed_updates

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever a page might ask for by mistake, it does not leave this machine.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
HERE = Path(__file__).parent
WAIT_MS = 15_000
"""A deadline, not a measure: busy machines take their time."""
expect.set_options(timeout=WAIT_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All coroutine tests of this folder run on the loop that the one browser belongs to."""
    for item in items:
        if HERE in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=210)


@pytest.fixture(scope="session")
def steady_console(template: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console that tests only look at."""
    folder = tmp_path_factory.mktemp("steady")
    shutil.copyfile(template.path, folder / "fleet.sqlite")
    seed_updates(folder / "fleet.sqlite", template.now_ms)
    seed_content(folder / "fleet.sqlite", template.now_ms)
    with closing(open_raw(folder / "fleet.sqlite")) as connection:
        # The language belongs to the account, so each language has one.
        connection.execute(
            "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms, lang)"
            " SELECT name || '-en', display, password_hash, role, 0, 0, created_ms, 'en' FROM staff"
        )
        connection.execute("BEGIN IMMEDIATE")
        seed_orders(connection, template.now_ms)
        connection.execute("COMMIT")
    with console_server(folder, Seeded(folder / "fleet.sqlite", template.machines, template.now_ms)) as running:
        yield running


@pytest.fixture
def console(template: Seeded, tmp_path: Path) -> Iterator[Console]:
    shutil.copyfile(template.path, tmp_path / "fleet.sqlite")
    with console_server(tmp_path, Seeded(tmp_path / "fleet.sqlite", template.machines, template.now_ms)) as running:
        yield running


Work = Callable[[sqlite3.Connection], None]
Write = Callable[[Work], None]


@pytest.fixture
def write(console: Console, tmp_path: Path) -> Write:
    """Commit something into the console's database, as ingest does from its own process."""

    def commit(work: Callable[[sqlite3.Connection], None]) -> None:
        with closing(open_raw(tmp_path / "fleet.sqlite")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            work(connection)
            connection.execute("COMMIT")

    return commit


class Window:
    """One browser with its own cookies. Everything it asks for and complains about is kept."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self._context, self.url = context, url
        self.asked: list[str] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.asked.append(request.url))
        context.on("console", lambda message: self._complain(message.type, message.text))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _complain(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    async def page(self) -> Page:
        return await self._context.new_page()

    async def signed_in(
        self, path: str = "/", *, lang: str = "zh", name: str = OPERATOR, password: str = PASSWORD, page: Page | None = None
    ) -> Page:
        page = page or await self.page()
        await page.goto(f"{self.url}/login?next={quote(path, safe='')}")
        await page.fill("input[name=name]", name)
        await page.fill("input[name=password]", password)
        await page.select_option("select[name=lang]", lang)
        await page.click("button.primary")
        await page.wait_for_url(f"{self.url}{path}")
        await live(page)
        return page

    async def opened(self, path: str) -> Page:
        """A further tab of somebody who is signed in."""
        page = await self.page()
        await page.goto(self.url + path)
        await live(page)
        return page

    def foreign(self) -> list[str]:
        """Requests that were meant for anybody but the console."""
        return [url for url in self.asked if not url.startswith((self.url, "data:", "blob:"))]

    def take(self) -> list[str]:
        """What was wrong since the last call: complaints, and requests to others."""
        wrong = [*self.complaints, *(f"request to {url}" for url in self.foreign())]
        self.complaints.clear()
        self.asked.clear()
        return wrong


async def live(page: Page) -> None:
    """Wait until the page's event stream runs."""
    await page.wait_for_function("() => /实时|Live/.test(document.querySelector('[data-live-text]')?.textContent ?? '')")


Browse = Callable[..., Any]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


async def new_window(
    chromium: Browser, url: str, *, width: int = 1366, height: int = 768, dark: bool = False, phone: bool = False
) -> tuple[BrowserContext, Window]:
    context = await chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        has_touch=phone,
        is_mobile=phone,
        locale="zh-CN",
        timezone_id="Asia/Shanghai",
    )
    context.set_default_timeout(WAIT_MS)
    return context, Window(context, url)


@pytest.fixture
def browse(chromium: Browser, console: Console) -> Browse:
    """A function that opens a browser of its own: `async with browse(width=390) as window`."""

    @asynccontextmanager
    async def open_window(**choices: Any) -> AsyncIterator[Window]:
        context, window = await new_window(chromium, console.url, **choices)
        try:
            yield window
        finally:
            await context.close()

    return open_window


@dataclass
class Looks:
    """Windows onto the steady console, one for each (language, device, person); they stay signed in from test to test."""

    chromium: Browser
    url: str
    contexts: list[BrowserContext] = field(default_factory=list)
    pages: dict[tuple[str, bool, str], tuple[Window, Page]] = field(default_factory=dict)

    async def at(self, lang: str, *, phone: bool, name: str | None = OPERATOR) -> tuple[Window, Page]:
        """A tab of that person's browser, free of what earlier tests left; `name` None: nobody signed in."""
        key = lang, phone, name or ""
        if key not in self.pages:
            width, height = (390, 844) if phone else (1366, 768)
            context, window = await new_window(self.chromium, self.url, phone=phone, width=width, height=height)
            self.contexts.append(context)
            if name is None:
                page = await window.page()
                await context.add_cookies([{"name": "kf_lang", "value": lang, "url": self.url}])
            else:
                page = await window.signed_in("/system", lang=lang, name=name if lang == "zh" else f"{name}-{lang}")
            self.pages[key] = window, page
        window, page = self.pages[key]
        window.take()
        return window, page

    async def close(self) -> None:
        for context in self.contexts:
            await context.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def looks(chromium: Browser, steady_console: Console) -> AsyncIterator[Looks]:
    made = Looks(chromium, steady_console.url)
    yield made
    await made.close()


def numbers(text: str) -> list[int]:
    """The whole numbers of a text, thousands commas taken out."""
    return [int(found.replace(",", "")) for found in re.findall(r"\d[\d,]*", text)]
