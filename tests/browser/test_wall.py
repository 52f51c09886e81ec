"""The wallboard in a real browser: let in by its address, turning by itself, over a server that restarts, and out when its token is revoked."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from fleet_server.accounts.passwords import new_token, token_hash
from fleet_server.db import open_raw
from tests.browser import axe
from tests.browser.conftest import Browse, Write
from tests.browser.test_map import _offline
from tests.support.console import Console
from tests.support.seed import DAY, NOW_MS

Hang = Callable[..., Any]


@pytest.fixture
def hang(browse: Browse, console: Console, tmp_path: Path) -> Hang:
    """A function that hangs a screen up: `async with hang(views="now,map", interval_s=5) as (page, window)`."""

    @asynccontextmanager
    async def make(
        *,
        views: str = "now,needs,map,areas,usage",
        interval_s: int = 300,
        lang: str = "zh",
        width: int = 1920,
        height: int = 1080,
    ) -> AsyncIterator[tuple[Page, Any]]:
        token = new_token()
        with closing(open_raw(tmp_path / "fleet.sqlite")) as connection:
            connection.execute(
                "INSERT INTO wallboard (name, token_hash, lang, views, interval_s, created_ms, created_by, expires_ms)"
                " VALUES ('一号屏', ?, ?, ?, ?, ?, 'operator', ?)",
                (token_hash(token), lang, views, interval_s, NOW_MS, NOW_MS + DAY),
            )
        async with browse(width=width, height=height) as window:
            page = await window.page()
            await page.goto(f"{console.url}/wall#{token}")
            await expect(page.locator("#name")).to_have_text("一号屏")
            yield page, window

    return make


def _view(page: Page, name: str) -> Any:
    return page.locator(f"#view-{name}")


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_every_view_fits_the_screen_and_nothing_complains(hang: Hang, lang: str) -> None:
    async with hang(lang=lang) as (page, window):
        assert page.url.endswith("/wall"), "the token stays in the address bar"
        for view in ("now", "needs", "map", "areas", "usage"):
            await expect(_view(page, view)).to_be_visible()
            if view == "map":
                await page.wait_for_function("() => document.querySelectorAll('#map svg path').length > 20")
            outside = await page.evaluate(
                "() => [...document.querySelectorAll('.view:not([hidden]) [data-content] > *')]"
                ".filter((one) => one.getBoundingClientRect().bottom > document.querySelector('footer').getBoundingClientRect().top + 1)"
                ".map((one) => one.className)"
            )
            assert outside == [], view
            assert await axe.violations(page) == []
            await page.keyboard.press("ArrowRight")
        await expect(_view(page, "now")).to_be_visible()
        assert window.complaints == []
        assert window.foreign() == []


async def test_it_turns_by_itself_and_a_key_holds_it(hang: Hang) -> None:
    async with hang(views="now,areas", interval_s=5) as (page, _):
        await expect(_view(page, "now")).to_be_visible()
        await expect(_view(page, "areas")).to_be_visible(timeout=9_000)
        await page.keyboard.press("Space")
        await expect(page.locator("#paused")).to_be_visible()
        await page.keyboard.press("ArrowLeft")
        await expect(_view(page, "now")).to_be_visible()
        await page.keyboard.press("Space")
        await expect(page.locator("#paused")).to_be_hidden()
        await expect(_view(page, "areas")).to_be_visible(timeout=9_000)


async def test_a_change_shows_by_itself(hang: Hang, write: Write) -> None:
    async with hang(views="now") as (page, _):
        offline = page.locator("#view-now .tile.s-offline b")
        before = int(await offline.inner_text())
        write(_offline("kf-0006"))
        await expect(offline).to_have_text(str(before + 1), timeout=10_000)


async def test_a_revoked_screen_says_so_within_one_interval_and_forgets_what_it_showed(hang: Hang, write: Write) -> None:
    async with hang(views="now,needs", interval_s=10) as (page, _):
        await expect(_view(page, "now")).to_be_visible()

        def revoke(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE wallboard SET revoked_ms = ?, revoked_by = 'operator'", (NOW_MS,))

        write(revoke)
        await expect(page.locator("#over")).to_be_visible(timeout=10_000)
        await expect(page.locator("#over")).to_contain_text("令牌已撤销")
        await expect(page.locator("#screen")).to_be_hidden()
        assert "KF-" not in await page.locator("main").inner_html()
        await page.reload()
        await expect(page.locator("#door")).to_contain_text("值班人员")


async def test_it_gets_over_a_server_that_restarts(hang: Hang, console: Console, write: Write) -> None:
    async with hang(views="now") as (page, _):
        offline = page.locator("#view-now .tile.s-offline b")
        before = int(await offline.inner_text())
        console.stop()
        await expect(page.locator("#lost")).to_be_visible(timeout=15_000)
        await expect(page.locator("#lost")).to_contain_text("实时连接已断开")
        write(_offline("kf-0006"))
        console.start()
        await expect(page.locator("#lost")).to_be_hidden(timeout=20_000)
        await expect(offline).to_have_text(str(before + 1), timeout=20_000)


async def test_a_new_version_of_the_server_is_loaded_by_itself(hang: Hang) -> None:
    async with hang(views="now") as (page, _):
        await page.evaluate("() => { window.kept = true; document.body.dataset.version = 'older'; }")
        await page.wait_for_function("() => window.kept === undefined", timeout=45_000)
        await expect(page.locator("#view-now .sentence")).to_be_visible()


async def test_a_wrong_address_says_what_to_do(browse: Browse, console: Console) -> None:
    async with browse() as window:
        page = await window.page()
        await page.goto(f"{console.url}/wall#not-a-token")
        await expect(page.locator("#door")).to_contain_text("令牌无效")
        assert "not-a-token" not in page.url
        await page.goto(f"{console.url}/wall")
        await expect(page.locator("#door")).to_contain_text("值班人员提供的大屏地址")


async def test_a_blind_platform_is_purple_on_the_wall(hang: Hang, write: Write) -> None:
    async with hang(views="now") as (page, _):

        def blind(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (?, NULL, 'broker')", (NOW_MS - 120_000,))
            connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, NULL, 'platform', NULL)", (NOW_MS,))

        write(blind)
        await expect(page.locator(".bar.blind")).to_contain_text("平台侧中断", timeout=10_000)


async def test_an_operator_makes_a_screen_and_takes_it_down(browse: Browse) -> None:
    async with browse() as window:
        page = await window.signed_in("/wallboards")
        await page.locator('form[action="/wallboards"] input[name=name]').fill("窗口大厅")
        await page.keyboard.press("Enter")
        address = await page.locator("#wall-address").inner_text()
        assert await axe.violations(page) == []
        async with browse(width=1920, height=1080) as wall:
            screen = await wall.page()
            await screen.goto(address)
            await expect(screen.locator("#view-now .sentence")).to_be_visible()
            await page.goto(f"{window.url}/wallboards")
            await page.locator("summary", has_text="撤销").first.click()
            await page.locator("button.danger").click()
            await expect(page.locator(".empty")).to_contain_text("还没有大屏")
            await expect(screen.locator("#over")).to_be_visible(timeout=10_000)
        assert window.complaints == []
