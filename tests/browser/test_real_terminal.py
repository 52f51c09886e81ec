"""Paper is pulled on a terminal of its own processes, and two browsers that were open all the while tell one story, without a reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect

from fleet_server.console import i18n
from protocols.canon.faults import FAULTS
from tests.browser.conftest import Window, new_window
from tests.support.processes import Processes
from tests.support.seed import PASSWORD, VIEWER
from tests.support.server import RunningServer
from tests.support.terminal import RealTerminal
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.broker]

DUTY = "duty"  # the server made an account called operator at its first start
TERMINAL = "kf-0001"
ZH, EN = i18n.load("zh"), i18n.load("en")
PAPER_OUT = FAULTS["PRN.PAPER_OUT"]
WAIT_MS = 40_000


def running(folder: Path, processes: Processes) -> RunningServer:
    server = RunningServer(folder / "server", processes)
    server.init()
    server.start()
    server.add_account(DUTY, PASSWORD)
    server.add_account(VIEWER, PASSWORD, role="viewer", lang="en")
    return server


def started(folder: Path, processes: Processes) -> tuple[RunningServer, RealTerminal]:
    server = running(folder, processes)
    terminal = RealTerminal(folder / "terminals", processes, server, TERMINAL)
    terminal.plug_in()
    terminal.write_config()
    terminal.enrol()
    terminal.start()
    wait_until(lambda: len(server.rows("SELECT 1 FROM device")) >= 5, "all devices are known", timeout_s=40)
    return server, terminal


@asynccontextmanager
async def window(chromium: Browser, url: str) -> AsyncIterator[Window]:
    context, made = await new_window(chromium, url)
    try:
        yield made
    finally:
        await context.close()


async def says(page: Page, selector: str, text: str) -> None:
    # Only the tab that somebody looks at fetches.
    await page.bring_to_front()
    await expect(page.locator(selector).first).to_contain_text(text, timeout=WAIT_MS)


async def agree(overview: Page, listed: Page, machine: Page, faults: Page, *, broken: bool) -> None:
    """Sentence, tile, list, terminal page and fault row."""
    await says(overview, "[data-tile=abnormal]", "1" if broken else "0")
    await says(overview, ".headline", PAPER_OUT.zh if broken else ZH("overview.all", n=1))
    await says(listed, f"#row-{TERMINAL}", ZH("state.unusable" if broken else "state.normal"))
    await says(machine, "#head .chip", EN("state.unusable" if broken else "state.normal"))
    await says(faults, "#list", PAPER_OUT.en if broken else EN("faults.none.open"))


async def test_paper_out_is_one_story_in_two_browsers(chromium: Browser, tmp_path: Path, processes: Processes) -> None:
    server, terminal = await asyncio.to_thread(started, tmp_path, processes)
    try:
        async with window(chromium, server.web_url) as one, window(chromium, server.web_url) as two:
            pages = (
                await one.signed_in("/", name=DUTY),
                await one.opened("/terminals"),
                await two.signed_in(f"/terminals/{TERMINAL}", name=VIEWER, lang="en"),
                await two.opened("/faults"),
            )
            await says(pages[1], f"#row-{TERMINAL}", ZH("state.normal"))
            for page in pages:
                await page.evaluate("window.notReloaded = true")
            await asyncio.to_thread(terminal.fault, "receipt-printer", "paper-out")
            await agree(*pages, broken=True)
            await pages[3].bring_to_front()
            await pages[3].locator(f"tr[data-terminal={TERMINAL}]").get_by_text(EN("evidence.word")).click()
            await expect(pages[3].get_by_role("dialog")).to_contain_text(EN("evidence.signatureOk"))
            await pages[3].keyboard.press("Escape")
            await asyncio.to_thread(terminal.clear, "receipt-printer", "paper-out")
            # Somebody has just used this list, so nothing moves in it by itself.
            await pages[3].locator("[data-pill]").click(timeout=WAIT_MS)
            await agree(*pages, broken=False)
            for page in pages:
                assert await page.evaluate("window.notReloaded === true")
            assert one.take() == two.take() == []
    finally:
        terminal.close()


def with_a_site(folder: Path, processes: Processes) -> tuple[RunningServer, RealTerminal]:
    server = running(folder, processes)
    with server.database() as connection:
        connection.execute(
            "INSERT INTO site (code, area, name_zh, name_en, kind, hours, timezone) VALUES (?, '', '大厅', 'Hall', 'hall', ?, 'Asia/Shanghai')",
            ("hall", '{"always": true}'),
        )
    terminal = RealTerminal(folder / "terminals", processes, server, TERMINAL)
    terminal.plug_in()
    terminal.write_config()
    return server, terminal


def typed(terminal: RealTerminal, command: str) -> None:
    """Somebody types at the kiosk what the console said, and starts the agent."""
    program, *words = command.split()
    assert program == "edge-agent"
    child = terminal.processes.start_python("-m", "edge_agent.cli", *words, "--config", terminal.config)
    assert child.popen.wait(40) == 0, child.output()
    terminal.start()


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_a_terminal_is_added_and_its_row_turns_normal_by_itself(
    chromium: Browser, tmp_path: Path, processes: Processes, lang: i18n.Language
) -> None:
    say = i18n.load(lang)
    server, terminal = await asyncio.to_thread(with_a_site, tmp_path, processes)
    try:
        async with window(chromium, server.web_url) as office:
            page = await office.signed_in("/terminals", name=DUTY, lang=lang)
            await page.get_by_role("button", name=say("add.button")).click()
            await page.fill("#dialog input[name=code]", TERMINAL.upper())
            await page.fill("#dialog input[name=name_zh]", "新机")
            await page.select_option("#dialog select[name=site]", "hall")
            await page.fill("#dialog textarea[name=inventory]", "receipt-printer M")
            await page.locator("#dialog button.primary").click()
            command = await page.locator("#dialog .command code").inner_text()
            await page.locator("#dialog [data-close]").click()
            chip = page.locator(f"#row-{TERMINAL} .chip")
            await expect(chip).to_have_text(say("state.notEnrolled"))
            await page.evaluate("window.notReloaded = true")
            await page.mouse.move(5, 5)
            await asyncio.to_thread(typed, terminal, command)
            await expect(chip).to_have_text(say("state.normal"), timeout=WAIT_MS)
            assert await page.evaluate("window.notReloaded === true")
            assert office.take() == []
    finally:
        terminal.close()
