"""The map in a real browser: drawn under the console's content policy, live, by keyboard, in both languages, light and dark, on a phone."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser import axe
from tests.browser.conftest import Browse, Write
from tests.support.seed import NOW_MS

TEXTS = "() => [...document.querySelectorAll('#map svg text')].map((text) => text.textContent)"
GROUPS = "() => window.kfMap.groups"
KEPT = "() => { document.querySelector('#map svg').kept = true; }"


async def drawn(page: Page) -> None:
    await expect(page.locator("#map")).to_have_attribute("data-drawn", "yes")
    await page.wait_for_function("() => document.querySelectorAll('#map svg path').length > 20")


def _offline(terminal: str) -> Any:
    def work(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE presence SET to_ms = ? WHERE terminal = ? AND to_ms IS NULL", (NOW_MS, terminal))
        connection.execute(
            "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, NULL, 'offline', 'silence')",
            (terminal, NOW_MS),
        )
        connection.execute("UPDATE terminal_live SET last_seen_ms = ? WHERE terminal = ?", (NOW_MS - 400_000, terminal))
        connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'presence', NULL)", (NOW_MS, terminal))

    return work


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_city_is_drawn_without_a_complaint_and_can_be_read_by_everybody(browse: Browse, lang: str, dark: bool) -> None:
    async with browse(dark=dark) as window:
        page = await window.signed_in("/map", lang=lang)
        await drawn(page)
        texts = " ".join(await page.evaluate(TEXTS))
        for name in ("义乌市", "磐安县") if lang == "zh" else ("Yiwu", "Pan'an"):
            assert name in texts
        assert await axe.violations(page) == []
        assert window.complaints == []
        assert window.foreign() == []


async def test_a_phone_scrolls_down_only(browse: Browse) -> None:
    async with browse(width=360, height=740, phone=True) as window:
        page = await window.signed_in("/map")
        await drawn(page)
        assert await axe.sideways(page) == ""
        assert await axe.violations(page) == []
        assert window.complaints == []


async def test_a_change_shows_in_place_without_a_reload(browse: Browse, write: Write) -> None:
    async with browse() as window:
        page = await window.signed_in("/map")
        await drawn(page)
        before = await page.evaluate(GROUPS)
        pujiang = next(group for group in before if group["look"] == "normal")
        await page.evaluate(KEPT)
        name = "pujiang"
        write(_offline(await _machine_of(page, name)))
        await page.wait_for_function(
            "() => window.kfMap.groups.filter((group) => group.look === 'offline').length > 1", timeout=10_000
        )
        after = await page.evaluate(GROUPS)
        assert len(after) >= len(before)
        assert pujiang["n"] > 1
        assert await page.evaluate("() => document.querySelector('#map svg').kept === true"), "the drawing was made anew"
        await expect(page.locator(f'#areas tr[data-row="{name}"] a.s-offline')).to_have_text("1")
        assert window.complaints == []


async def _machine_of(page: Page, area: str) -> str:
    """A terminal that is well, of an area whose every site is."""
    answer = await page.request.get(page.url.replace("/map", f"/terminals?area={area}&state=NORMAL&sort=-code"))
    found: str = (await answer.text()).partition('id="row-')[2].partition('"')[0]
    assert found.startswith("kf-")
    return found


async def test_the_keyboard_walks_through_sites_and_areas_and_opens_the_list(browse: Browse) -> None:
    async with browse() as window:
        page = await window.signed_in("/map")
        await drawn(page)
        await page.focus("#map")
        await page.keyboard.press("ArrowLeft")  # backwards: the last area
        await expect(page.locator("#map-say")).to_contain_text("可办")
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/terminals?area=*")


async def test_a_group_opens_into_its_sites_and_a_site_into_its_list(browse: Browse) -> None:
    async with browse() as window:
        page = await window.signed_in("/map")
        await drawn(page)
        await page.focus("#map")
        await page.keyboard.press("ArrowRight")
        await expect(page.locator("#map-say")).to_contain_text("个点位")
        count = len(await page.evaluate(GROUPS))
        for _ in range(6):
            await page.keyboard.press("Enter")
            if "/terminals" in page.url or len(await page.evaluate(GROUPS)) > count:
                break
            await page.keyboard.press("ArrowRight")
        assert len(await page.evaluate(GROUPS)) > count
        await page.keyboard.press("Escape")
        await page.wait_for_function(f"() => window.kfMap.groups.length === {count}")


async def test_a_click_on_a_county_opens_its_list(browse: Browse) -> None:
    async with browse(width=1920, height=1080) as window:
        page = await window.signed_in("/map")
        await drawn(page)
        # A name stands inside its county and lets clicks through.
        await page.locator("#map svg text", has_text="兰溪市").click(force=True)
        await page.wait_for_url("**/terminals?area=lanxi")


async def test_a_state_filters_the_map_and_the_address_says_so(browse: Browse) -> None:
    async with browse() as window:
        page = await window.signed_in("/map")
        await drawn(page)
        whole = len(await page.evaluate(GROUPS))
        await page.locator("#map-head .chipfilter.s-offline").click()
        await page.wait_for_url("**/map?state=OFFLINE")
        await page.wait_for_function(f"() => window.kfMap.groups.length < {whole}")
        groups = await page.evaluate(GROUPS)
        assert {group["look"] for group in groups} == {"offline"}
        await page.locator("#areas th a", has_text="离线").click()
        await page.wait_for_url("**/map?state=OFFLINE&sort=-offline")
        await expect(page.locator("#areas th[aria-sort=descending]")).to_contain_text("离线")
        assert window.complaints == []
