"""What people set, reckon and hand on: hours, holidays, thresholds, channels, figures, the month report, wallboards. In both languages."""

from __future__ import annotations

import re
from datetime import date, timedelta
from pathlib import Path

import pytest
from openpyxl import load_workbook
from playwright.async_api import Page, expect

from fleet_server.console import i18n
from fleet_server.console.i18n import Catalogue
from fleet_server.notifications.secrets import SecretBox
from tests.browser.axe import violations
from tests.browser.conftest import Browse, Work, Write, live
from tests.support.channels import add_local_channel
from tests.support.console import Console, running_clock
from tests.support.fakes.http import serve
from tests.support.fakes.receiver import Receiver
from tests.support.seed import NOW_MS, OPERATOR

pytestmark = pytest.mark.browser

WORDS = i18n.load_all()
SITE = "jindong-hall"
SIGNING = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="  # given to the test's own receiver
HEAD = "日期,类型,名称\n"
RESTS = (
    ("01-01", 3, "元旦"),
    ("02-05", 7, "春节"),
    ("04-03", 3, "清明节"),
    ("05-01", 5, "劳动节"),
    ("06-09", 1, "端午节"),
    ("09-15", 1, "中秋节"),
    ("10-01", 7, "国庆节"),
)
HOLIDAYS = HEAD + "".join(
    f"{date.fromisoformat(f'2027-{first}') + timedelta(days=n)},休,{name}\n" for first, days, name in RESTS for n in range(days)
)
"""A year that could be: the importer refuses one that cannot."""


@pytest.fixture(params=["zh", "en"])
def say(request: pytest.FixtureRequest) -> Catalogue:
    return WORDS[request.param]


async def test_the_hours_of_a_site_are_changed_and_who_did_it_is_kept(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in(f"/sites/{SITE}", lang=say.language)
        form = page.locator("form#hours")
        today = form.locator("[data-spans=wed] input.time")
        await expect(today.first).to_have_value("09:00")
        await today.first.fill("26:00")
        await form.get_by_role("button", name=say("hours.save")).click()
        await expect(form.get_by_role("alert")).to_have_text(say("settings.fix"))
        await expect(today.first).to_have_attribute("aria-invalid", "true")
        await today.first.fill("08:30")
        await form.get_by_role("button", name=say("hours.save")).click()
        await live(page)
        await expect(page.locator("form#hours [data-spans=wed] input.time").first).to_have_value("08:30")
        history = page.locator("section.card", has=page.get_by_role("heading", name=say("site.history")))
        await expect(history).to_contain_text(OPERATOR)
        terminals = await window.opened(f"/terminals?site={SITE}")
        await expect(terminals.locator("#rows td[title*='08:30']").first).to_be_visible()


async def test_a_year_of_holidays_is_looked_at_before_it_is_taken_over(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/calendar?year=2027", lang=say.language)
        await page.fill("#import textarea[name=text]", f"{HEAD}2027-01-01,maybe,元旦")
        await page.get_by_role("button", name=say("calendar.preview")).click()
        await expect(page.get_by_role("alert").first).to_contain_text(say("calendar.refused"))
        await expect(page.locator("#import textarea[name=text]")).to_have_value(f"{HEAD}2027-01-01,maybe,元旦")
        await page.fill("#import textarea[name=text]", HOLIDAYS)
        await page.get_by_role("button", name=say("calendar.preview")).click()
        await expect(page.locator("h1")).to_have_text(say("calendar.previewTitle"))
        await expect(page.locator(".diff").first).to_contain_text("2027-01-01")
        await page.get_by_role("button", name=say("calendar.save")).click()
        await live(page)
        await page.goto(f"{window.url}/calendar?year=2027")
        await expect(page.locator("table.plain-table").first).to_contain_text("01-01 – 01-03")
        await expect(page.locator(".months .mark.holiday")).to_have_count(sum(days for _, days, _ in RESTS))


async def test_a_threshold_is_set_shown_with_its_author_and_set_back(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/thresholds", lang=say.language)
        row = page.locator("tr[id='presence.offline_s']")
        await row.get_by_role("button").click()
        value = page.locator("#dialog input[name=value]")
        await value.fill("nonsense")
        await page.locator("#dialog button.primary").click()
        await expect(page.locator("#dialog [role=alert]")).to_be_visible()
        await value.fill("600")
        await page.locator("#dialog button.primary").click()
        await expect(row).to_contain_text(OPERATOR)
        await expect(row).to_have_class(re.compile("changed"))
        await row.get_by_role("button").click()
        await page.locator("#dialog").get_by_role("button", name=say("threshold.back")).click()
        await expect(row).not_to_have_class(re.compile("changed"))


@pytest.fixture
def box(tmp_path: Path) -> SecretBox:
    """Where the console keeps the secrets of channels."""
    folder = tmp_path / "authority"
    folder.mkdir(mode=0o700, exist_ok=True)
    return SecretBox(folder)


def local_channel(box: SecretBox, url: str) -> Work:
    return lambda connection: add_local_channel(connection, box, url, SIGNING, now_ms=NOW_MS)


async def test_a_channel_is_tried_before_it_is_trusted(
    browse: Browse, console: Console, write: Write, box: SecretBox, say: Catalogue
) -> None:
    receiver = Receiver(SIGNING)
    with serve(receiver, now_ms=running_clock()) as served:
        write(local_channel(box, served.url("/")))
        async with browse() as window:
            page = await window.signed_in("/notifications", lang=say.language)
            await page.get_by_role("button", name=say("notify.testNamed", name="duty")).click()
            await expect(page.locator("#toast")).to_have_text(say("notify.tested", name="duty"))
            assert [tree["type"] for _, tree in receiver.received] == ["fleet.test"]
            await expect(page.locator("#deliveries .n-log > li")).to_have_count(1)
            await page.get_by_role("button", name=say("notify.add")).click()
            await page.fill("#dialog input[name=name]", "elsewhere")
            await page.fill("#dialog input[name=url]", "http://127.0.0.1:9/")
            await page.locator("#dialog button.primary").click()
            await expect(page.locator("#dialog [role=alert]")).to_have_text(say("refused.channelHome"))


async def test_figures_lead_to_what_they_are_made_of(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/figures?period=2026-11&area=yiwu", lang=say.language)
        tile = page.locator("[data-figure=cases]")
        value = (await tile.locator(".big a").inner_text()).strip()
        assert int(value.replace(",", "")) > 0
        await tile.locator(".big a").click()
        await expect(page.locator("[data-value]")).to_have_text(value)
        await expect(page.locator("#behind table tbody tr").first).to_be_visible()
        assert await violations(page) == []
        back = page.locator(".crumbs a")
        await expect(back).to_have_text(say("nav.figures"))
        await back.click()
        await expect(page).to_have_url(re.compile(r"/figures\?.*area=yiwu"))


async def test_an_open_fault_behind_a_figure_has_its_evidence(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/figures/behind?figure=faults&period=2026-11&terminal=kf-0058", lang=say.language)
        await page.locator("#behind a[hx-get^='/evidence/']:not([hx-get^='/evidence/fault/'])").first.click()
        await expect(page.get_by_role("dialog")).to_contain_text(say("evidence.signatureOk"))


async def test_the_month_report_is_downloaded_and_opens(browse: Browse, say: Catalogue, tmp_path: Path) -> None:
    async with browse() as window:
        page = await window.signed_in("/figures/month-report?month=2026-10", lang=say.language)
        async with page.expect_download() as waiting:
            await page.get_by_role("link", name=say("figures.downloadReport")).click()
        download = await waiting.value
        file = tmp_path / "report.xlsx"
        await download.save_as(file)
        book = load_workbook(file)
        first = book.worksheets[0]
        text = " ".join(str(cell.value) for row in first.iter_rows() for cell in row if cell.value is not None)
        assert "2026" in text
        assert first.merged_cells.ranges
        assert any(sheet.freeze_panes for sheet in book.worksheets)


async def test_a_closed_month_keeps_its_figures(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/figures/published", lang=say.language)
        await page.select_option("select[name=month]", "2026-10")
        await page.get_by_role("button", name=say("figures.close"), exact=True).click()
        await page.wait_for_url(re.compile(r"/figures/published/\d+"))
        await live(page)
        assert await violations(page) == []
        await page.goto(f"{window.url}/figures/published")
        await expect(page.locator(".month-state.closed").first).to_contain_text("2026-10")


async def test_a_wallboard_opens_with_its_address_alone_and_ends_when_revoked(browse: Browse, say: Catalogue) -> None:
    async with browse() as office, browse(width=1920, height=1080, dark=True) as hall:
        page = await office.signed_in("/wallboards", lang=say.language)
        form = page.locator("form.wall-form[action='/wallboards']")
        await form.locator("input[name=name]").fill("大厅东墙")
        await form.locator("input[type=checkbox]").first.check()
        await form.locator("select[name=lang]").select_option(say.language)
        await form.locator("button.primary").click()
        address = await page.locator("#wall-address").inner_text()
        screen = await hall.page()
        await screen.goto(address.replace(address.split("/wall")[0], office.url))
        await expect(screen.locator("html")).to_have_attribute("lang", say.html_lang)
        await expect(screen.locator("main, body").first).to_contain_text("KF-", timeout=15_000)
        await signed_out(screen, office.url)
        await page.goto(f"{office.url}/wallboards")
        await expect(page.locator(".walls")).to_contain_text("大厅东墙")
        assert address.rpartition("#")[2] not in await page.content(), "the address is shown once"
        await page.locator(".wall-row summary", has_text=say("wall.revoke")).click()
        await page.get_by_role("button", name=say("wall.revokeNow", name="大厅东墙")).click()
        await live(page)
        await screen.reload()
        await expect(screen.locator("body")).not_to_contain_text("KF-")


async def signed_out(screen: Page, url: str) -> None:
    """A wall's token opens no page of the console."""
    answer = await screen.request.get(f"{url}/terminals", max_redirects=0)
    assert answer.status in {302, 303}
