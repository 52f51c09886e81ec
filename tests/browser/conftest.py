"""A console, and browsers that look at it. The browser is Debian's Chromium, driven through Playwright."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from fleet_server.db import open_raw
from tests.support.console import Console, console_server
from tests.support.seed import OPERATOR, PASSWORD, Seeded, seed

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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    return seed(tmp_path_factory.mktemp("seed") / "fleet.sqlite", count=210)


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

    async def signed_in(self, path: str = "/", *, lang: str = "zh", name: str = OPERATOR) -> Page:
        page = await self.page()
        await page.goto(f"{self.url}/login?next={path}")
        await page.fill("input[name=name]", name)
        await page.fill("input[name=password]", PASSWORD)
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


async def live(page: Page) -> None:
    """Wait until the page's event stream runs."""
    await page.wait_for_function("() => /实时|Live/.test(document.querySelector('[data-live-text]')?.textContent ?? '')")


Browse = Callable[..., Any]


@pytest.fixture
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
def browse(chromium: Browser, console: Console) -> Browse:
    """A function that opens a browser of its own: `async with browse(width=390) as window`."""

    @asynccontextmanager
    async def open_window(
        *, width: int = 1366, height: int = 768, dark: bool = False, phone: bool = False
    ) -> AsyncIterator[Window]:
        context = await chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            has_touch=phone,
            is_mobile=phone,
            locale="zh-CN",
            timezone_id="Asia/Shanghai",
        )
        context.set_default_timeout(15_000)
        try:
            yield Window(context, console.url)
        finally:
            await context.close()

    return open_window
