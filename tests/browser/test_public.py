"""The citizens' pages in a real browser: by name, by area, by position; with and without a script; large, dark, narrow."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from fleet_server.db import open_raw
from fleet_server.public.__main__ import application
from fleet_server.public.keeper import Keeper
from fleet_server.public.listener import server
from fleet_server.settings import Public, Settings
from tests.browser import axe
from tests.support.console import running_clock
from tests.support.processes import free_port
from tests.support.seed import NOW_MS, Seeded
from tests.support.server import listens
from tests.support.waiting import until, wait_until

pytestmark = pytest.mark.browser

LAT, LON = 29.3057, 120.0713
"""Where the citizen of these tests stands: in Yiwu."""
TRACES = ("29.3", "120.07", "29,3")
SPREAD = (
    "UPDATE site SET lat = 29.0 + (rowid % 7) * 0.05, lon = 119.5 + (rowid % 11) * 0.06",
    "UPDATE site SET lat = 29.3100, lon = 120.0713 WHERE code = 'yiwu-mall'",
    "UPDATE site SET lat = 29.3060, lon = 120.0713, phone = '0579-8500 1234' WHERE code = 'yiwu-hall'",
    "UPDATE site SET address_zh = '稠州北路 800 号' WHERE code = 'yiwu-hall'",
    "UPDATE presence SET state = 'offline' WHERE to_ms IS NULL AND terminal IN (SELECT id FROM terminal WHERE site = 'yiwu-hall')",
)
"""The nearest site is out of order, the next one works."""
SIZES = {"phone": (390, 844), "narrow": (360, 740), "desk": (1366, 768), "zoomed": (683, 384)}
"""`zoomed`: the desk at 200 %."""
PAGES = ("/", "/?area=yiwu", "/sites/yiwu-hall", "/sites/yiwu-mall", "/sites/nowhere")


class Face:
    """The public face in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "fleet.sqlite"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings = Settings(data_dir=folder, public=Public(enabled=True, port=self.port))
        self._clock = running_clock(NOW_MS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def write(self, *statements: str) -> None:
        with closing(open_raw(self.database)) as connection:
            for statement in statements:
                connection.execute(statement)

    def is_all_unavailable(self) -> bool:
        sites = httpx.get(f"{self.url}/api/v1/sites").json()["sites"]
        return {site["state"] for site in sites} <= {"unavailable", "closed"}

    async def _serve(self) -> None:
        keeper = Keeper(self.database, now_ms=self._clock)
        await keeper.refresh()
        running = asyncio.create_task(keeper.run())
        listener = server(application(self._settings, keeper), self._settings.public)
        serving = asyncio.create_task(listener.serve())
        while not self._stop.is_set():
            await asyncio.sleep(0.05)
        listener.should_exit = True
        await serving
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        keeper.close()

    def start(self) -> None:
        self._thread.start()
        wait_until(lambda: listens(self.port), "the public face to listen")

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)


@pytest.fixture(scope="module")
def face(template: Seeded, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    folder = tmp_path_factory.mktemp("public")
    shutil.copyfile(template.path, folder / "fleet.sqlite")
    made = Face(folder)
    made.write(*SPREAD)
    made.start()
    yield made
    made.stop()


@dataclass
class Citizen:
    """A browser; what it asked for and complained about is kept."""

    context: BrowserContext
    page: Page
    url: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    async def go(self, path: str) -> None:
        await self.page.goto(self.url + path)

    def foreign(self) -> list[str]:
        return [url for url in self.asked if not url.startswith(self.url)]


@asynccontextmanager
async def citizen(
    chromium: Browser, face: Face, size: str = "desk", *, position: bool = False, **more: Any
) -> AsyncIterator[Citizen]:
    width, height = SIZES[size]
    where = {"geolocation": {"latitude": LAT, "longitude": LON}, "permissions": ["geolocation"]} if position else {}
    context = await chromium.new_context(
        viewport={"width": width, "height": height},
        is_mobile=size in {"phone", "narrow"},
        has_touch=size in {"phone", "narrow"},
        locale="zh-CN",
        timezone_id="Asia/Shanghai",
        **where,  # type: ignore[arg-type]  # named parameters by name
        **more,
    )
    context.set_default_timeout(15_000)
    page = await context.new_page()
    made = Citizen(context, page, face.url)
    context.on(
        "request", lambda request: made.asked.append(f"{request.url} {request.post_data or ''} {sorted(request.headers.items())}")
    )
    page.on("console", lambda message: made.complaints.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    try:
        yield made
    finally:
        await context.close()


async def test_the_nearest_that_works_is_first_and_no_request_says_where_i_am(chromium: Browser, face: Face) -> None:
    async with citizen(chromium, face, "phone", position=True) as me:
        await me.go("/")
        await me.page.tap("[data-locate]")
        first = me.page.locator(".card").first
        await expect(first).to_contain_text("义乌万达广场")
        await expect(first).to_contain_text("离您最近、现在可用")
        await expect(first).to_contain_text("480 米")
        await expect(me.page.locator(".card").nth(1)).to_contain_text("义乌行政服务中心")
        await expect(me.page.locator(".card").nth(1)).to_contain_text("暂不可用")
        await expect(me.page.locator("#said")).to_contain_text("离您最近的是义乌万达广场，480 米")
        await me.page.locator(".more button").click()
        await expect(me.page.locator(".card")).to_have_count(40)
        await first.locator("a").click()
        await expect(me.page.locator("h1")).to_have_text("义乌万达广场")
        assert any("/cards?all=1" in url for url in me.asked), "the whole list was fetched, the same for everybody"
        assert [url for url in me.asked if any(trace in url for trace in TRACES)] == []
        stored = await me.page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert not any(trace in stored for trace in TRACES)
        assert me.foreign() == []
        assert me.complaints == []


async def test_nobody_is_asked_for_a_position_before_a_tap_and_a_no_is_answered(chromium: Browser, face: Face) -> None:
    async with citizen(chromium, face) as me:
        await me.page.add_init_script(
            "window.askedFor = 0; const ask = navigator.geolocation.getCurrentPosition.bind(navigator.geolocation);"
            "navigator.geolocation.getCurrentPosition = (...words) => { window.askedFor += 1; ask(...words); };"
        )
        await me.go("/")
        await expect(me.page.locator("[data-locate]")).to_be_visible()
        assert await me.page.evaluate("window.askedFor") == 0
        await me.page.click("[data-locate]")
        await expect(me.page.locator("#said")).to_contain_text("请按地区选择")
        assert await me.page.evaluate("window.askedFor") == 1
        await expect(me.page.locator("[data-locate]")).to_be_enabled()


async def test_everything_but_distance_works_without_a_script(chromium: Browser, face: Face) -> None:
    async with citizen(chromium, face, java_script_enabled=False) as me:
        await me.go("/")
        await expect(me.page.locator("[data-locate]")).to_be_hidden()
        await me.page.get_by_role("link", name="义乌市").click()
        await expect(me.page.locator(".card")).to_have_count(6)
        await me.page.fill("input[name=q]", "人民医院")
        await me.page.click("form button")
        await expect(me.page.locator(".card")).to_have_count(1)
        await me.page.get_by_role("link", name="义乌人民医院").click()
        await expect(me.page.locator("h1")).to_have_text("义乌人民医院")
        await me.page.get_by_role("link", name="长者版").click()
        await expect(me.page.locator("html")).to_have_class("elder")
        await me.page.get_by_role("link", name="English").click()
        await expect(me.page.locator("h1")).to_contain_text("Hospital")
        assert "mode=elder" in me.page.url


async def test_elder_mode_stays_until_it_is_left(chromium: Browser, face: Face) -> None:
    async with citizen(chromium, face, "phone") as me:
        await me.go("/")
        await me.page.get_by_role("link", name="长者版").click()
        await expect(me.page.locator("html")).to_have_class("elder")
        await me.go("/?area=yiwu")
        await me.page.wait_for_url("**/*mode=elder*")
        card = me.page.locator(".card", has_text="义乌行政服务中心")
        call = card.get_by_role("link", name="打电话 0579-8500 1234")
        assert await call.get_attribute("href") == "tel:0579-85001234"
        await expect(me.page.locator("select")).to_have_count(0)
        await me.page.get_by_role("link", name="标准版").click()
        await me.page.wait_for_url(lambda url: "mode=" not in url)
        await me.go("/")
        assert "mode" not in me.page.url


async def test_elder_mode_is_as_large_as_the_rules_ask(chromium: Browser, face: Face) -> None:
    """移动互联网应用适老化通用设计规范 (2021): text 18 dp/pt at least, lines 1.3 apart, main targets 60 × 60; usual pages 44 × 44."""
    read = """() => [...document.querySelectorAll('main *, header *, footer *')]
        .filter((one) => one.checkVisibility() && [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
        .filter((one) => !one.closest('.visually-hidden'))
        .map((one) => { const style = getComputedStyle(one);
          return [parseFloat(style.fontSize), parseFloat(style.lineHeight) / parseFloat(style.fontSize), one.outerHTML.slice(0, 80)]; })"""
    targets = """() => [...document.querySelectorAll('main a, main button, main input, header a')]
        .filter((one) => one.checkVisibility())
        .map((one) => { const box = (one.closest('.card h3') ? one.closest('.card') : one).getBoundingClientRect();
          return [Math.min(box.width, box.height), one.outerHTML.slice(0, 80)]; })"""
    async with citizen(chromium, face, "narrow") as me:
        for path in ("/?mode=elder", "/?mode=elder&area=yiwu", "/sites/yiwu-hall?mode=elder", "/?mode=elder&lang=en"):
            await me.go(path)
            found = await me.page.evaluate(read)
            assert [line for line in found if line[0] < 24 or line[1] < 1.3] == [], path
            assert max(line[0] for line in found) >= 40, "the largest text is 30 pt"
            assert [line for line in await me.page.evaluate(targets) if line[0] < 60] == [], path
        await me.go("/?mode=usual&area=yiwu")
        assert [line for line in await me.page.evaluate(targets) if line[0] < 44 and "checkbox" not in line[1]] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", ["phone", "narrow", "desk", "zoomed"])
async def test_pages_are_accessible_and_fit(chromium: Browser, face: Face, size: str, dark: bool) -> None:
    """WCAG 2.1 A and AA by axe-core, nothing wider than the window, in both languages and both modes."""
    async with citizen(chromium, face, size, color_scheme="dark" if dark else "light") as me:
        for path in PAGES:
            for query in ("mode=usual", "mode=elder&lang=en"):
                await me.go(f"{path}{'&' if '?' in path else '?'}{query}")
                assert await axe.violations(me.page) == [], (path, query)
                assert await axe.sideways(me.page) == "", (path, query)
        assert [line for line in me.complaints if "404" not in line] == []


async def test_the_keyboard_reaches_everything(chromium: Browser, face: Face) -> None:
    async with citizen(chromium, face) as me:
        await me.go("/?area=yiwu")
        await me.page.keyboard.press("Tab")
        assert await me.page.evaluate("document.activeElement.className") == "skip"
        await me.page.keyboard.press("Enter")
        reached = []
        for _ in range(16):
            await me.page.keyboard.press("Tab")
            reached.append(await me.page.evaluate("document.activeElement.textContent.trim().slice(0, 20)"))
        for wanted in ("查找离我最近的", "查找", "清除条件", "义乌万达广场"):
            assert wanted in reached, reached


async def test_states_change_in_an_open_page_and_a_lost_server_is_said(
    chromium: Browser, template: Seeded, tmp_path: Path
) -> None:
    shutil.copyfile(template.path, tmp_path / "fleet.sqlite")
    face = Face(tmp_path)
    face.start()
    try:
        async with citizen(chromium, face) as me:
            await me.page.clock.install(time=time.time())
            await me.go("/?q=义乌万达")
            await expect(me.page.locator(".card .chip")).to_contain_text("可用")
            await me.page.locator(".card h3 a").focus()
            face.write("UPDATE presence SET state = 'offline' WHERE to_ms IS NULL")
            chip = me.page.locator(".card .chip", has_text="暂不可用")
            # The server looks every other second of real time; the page's own clock is this test's.
            await until(face.is_all_unavailable, "the server has seen it")
            await me.page.clock.run_for(31_000)
            await expect(chip).to_be_visible()
            await expect(me.page.locator("#age")).to_contain_text("前更新")
            assert await me.page.evaluate("document.activeElement.textContent") == "义乌万达广场", "who was reading stays there"
            await me.context.set_offline(True)
            await me.page.clock.run_for(125_000)
            await expect(me.page.locator("#lost")).to_contain_text("无法更新")
            await me.context.set_offline(False)
            await me.page.clock.run_for(31_000)
            await expect(me.page.locator("#lost")).to_be_hidden()
    finally:
        face.stop()
