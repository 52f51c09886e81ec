"""A page shows the last news: also what arrives while a part is being fetched, or sooner than the part's pace."""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
import time

import pytest
from playwright.async_api import Page, Route, expect

from tests.browser.conftest import Browse, Window, Work, Write
from tests.support.seed import NOW_MS

pytestmark = pytest.mark.browser

MACHINE = "kf-0001"


def fault(code: str) -> Work:
    def write(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
            " VALUES (?, ?, 'receipt-printer', ?, 'P2', 1, ?, ?, 0, 0, 'terminal', 0)",
            (f"{MACHINE}:{code}", MACHINE, code, NOW_MS, NOW_MS),
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'fault', 'x')", (NOW_MS, MACHINE))

    return write


def order_news(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'order')", (NOW_MS, MACHINE))


def asked(window: Window, path: str) -> int:
    return sum(url.endswith(path) for url in window.asked)


async def asked_for(page: Page, window: Window, path: str, times: int) -> None:
    while asked(window, path) < times:
        await page.wait_for_event("request")


async def test_news_that_arrives_while_a_part_is_being_fetched_is_shown(browse: Browse, write: Write) -> None:
    async with browse() as window:
        page = await window.signed_in(f"/terminals/{MACHINE}?tab=faults")
        read, release = asyncio.Event(), asyncio.Event()

        async def hold(route: Route) -> None:
            """The server's answer is made, and under way for long."""
            answer = await route.fetch()
            read.set()
            await release.wait()
            await route.fulfill(response=answer)

        await page.route(f"**/terminals/{MACHINE}/tab*", hold, times=1)
        write(fault("PRN.JAM"))
        await read.wait()
        heads = asked(window, "/head")
        write(fault("PRN.COVER_OPEN"))
        await asked_for(page, window, "/head", heads + 1)  # the news has come
        await expect(page.locator("#tab")).not_to_contain_text("PRN.")
        release.set()
        await expect(page.locator("#tab")).to_contain_text("PRN.JAM")
        await expect(page.locator("#tab")).to_contain_text("PRN.COVER_OPEN")


async def test_a_part_with_a_pace_gathers_news_and_shows_the_last(browse: Browse, write: Write) -> None:
    async with browse() as window:
        page = await window.signed_in("/updates")
        window.take()
        began_s, before = time.monotonic(), 0
        for told in range(8):
            before = asked(window, "/updates")
            write(order_news)
            await asked_for(page, window, "/parts/needs-state", told + 1)
        await asked_for(page, window, "/updates", before + 1)
        # The first at once and again because the page is older than its stream; then one in each three seconds.
        assert asked(window, "/updates") <= 2 + math.ceil((time.monotonic() - began_s) / 3)


async def test_an_open_menu_stays_open_when_two_parts_arrive_at_once(browse: Browse, write: Write) -> None:
    async with browse() as window:
        page = await window.page()
        await page.clock.install()
        await window.signed_in(f"/terminals/{MACHINE}", page=page)
        await page.locator("#remote > summary").click()
        release = asyncio.Event()

        async def hold(route: Route) -> None:
            await release.wait()
            await route.continue_()

        await page.route(f"**/terminals/{MACHINE}/devices", hold)
        await page.clock.pause_at(await page.evaluate("Date.now() + 1"))  # an answer that was put into the page does not settle
        write(fault("PRN.JAM"))
        await expect(page.locator("#head")).to_have_class(re.compile("htmx-settling"))
        release.set()
        await expect(page.locator("#devices")).to_have_class(re.compile("htmx-settling"))
        await page.clock.run_for(1_000)
        await expect(page.locator("#head")).not_to_have_class(re.compile("htmx-settling"))
        await expect(page.locator("#remote")).to_have_attribute("open", "")
