"""What people do with the console, from the first look to the last, in both languages; on duty by keyboard alone. Words come from the catalogues."""

from __future__ import annotations

import re
import sqlite3

import pytest
from playwright.async_api import Locator, Page, expect

from fleet_server.console import i18n
from fleet_server.console.i18n import Catalogue
from protocols.canon.faults import FAULTS
from tests.browser.conftest import Browse, Work, Write, live
from tests.support.seed import NOW_MS, OPERATOR, PASSWORD, VIEWER

pytestmark = pytest.mark.browser

WORDS = i18n.load_all()
MACHINE, LABEL, CODE = "kf-0058", "KF-0058", "IDR.NOT_AUTHORISED"
OWN_PASSWORD = "quiet-lamp-2208"


@pytest.fixture(params=["zh", "en"])
def say(request: pytest.FixtureRequest) -> Catalogue:
    """The words of one language; each journey is made in both."""
    return WORDS[request.param]


def sentence(say: Catalogue, code: str) -> str:
    return FAULTS[code].zh if say.language == "zh" else FAULTS[code].en


def row_of(page: Page, terminal: str = MACHINE) -> Locator:
    return page.locator(f"tr[data-terminal={terminal}], #row-{terminal}").first


def recovered(terminal: str = MACHINE) -> Work:
    """The machine reports that it is well again."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute(
            "UPDATE fault SET cleared_ms = ?, cleared_by = 'terminal' WHERE terminal = ? AND cleared_ms IS NULL",
            (NOW_MS + 1000, terminal),
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'fault')", (NOW_MS + 1000, terminal))

    return work


async def tab_to(page: Page, target: Locator, *, most: int = 120) -> None:
    """Reach `target` as somebody without a mouse does."""
    for _ in range(most):
        if await target.count() and await target.first.evaluate("(one) => one === document.activeElement"):
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{target} is not reached by Tab")


async def go_down_to(page: Page, row: Locator, *, most: int = 60) -> None:
    """Reach a row with j."""
    await row.wait_for()
    for _ in range(most):
        await page.keyboard.press("j")
        if await row.evaluate("(one) => one === document.activeElement"):
            return
    raise AssertionError(f"{row} is not reached by j")


async def closed(page: Page) -> None:
    """No dialog is open any more."""
    await expect(page.locator("#dialog dialog")).to_have_count(0)


async def test_the_first_sign_in_asks_for_a_password_of_ones_own(browse: Browse, write: Write, say: Catalogue) -> None:
    def new_account(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE staff SET must_change = 1 WHERE name = ?", (OPERATOR,))

    write(new_account)
    async with browse() as window:
        page = await window.page()
        await page.goto(f"{window.url}/login")
        await expect(page.locator("input[name=name]")).to_be_focused()
        await page.keyboard.type(OPERATOR)
        await page.keyboard.press("Tab")
        await page.keyboard.type(PASSWORD)
        await page.keyboard.press("Tab")
        if say.language == "en":
            await page.keyboard.press("ArrowDown")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await expect(page).to_have_url(f"{window.url}/password")
        await expect(page.locator(".message.info")).to_have_text(say("account.mustChange"))
        await page.goto(f"{window.url}/terminals")
        await expect(page).to_have_url(f"{window.url}/password")
        for new, again, problem in (
            (OWN_PASSWORD, OWN_PASSWORD + "x", "refused.passwordTwice"),
            (PASSWORD, PASSWORD, "refused.passwordSame"),
            (OWN_PASSWORD, OWN_PASSWORD, ""),
        ):
            await expect(page.locator("input[name=old]")).to_be_focused()
            for text in (PASSWORD, new, again):
                await page.keyboard.type(text)
                await page.keyboard.press("Tab")
            await page.keyboard.press("Enter")
            if problem:
                await expect(page.get_by_role("alert")).to_have_text(say(problem))
        await page.wait_for_url(f"{window.url}/")
        await live(page)
        await expect(page.locator("html")).to_have_attribute("lang", say.html_lang)
        await expect(page).to_have_title(re.compile(re.escape(say("nav.overview"))))


async def test_on_duty_by_keyboard_from_the_sentence_to_the_recovery(browse: Browse, write: Write, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/", lang=say.language)
        await expect(page.locator(".headline")).to_contain_text("KF-0016")  # longest without service
        row = row_of(page)
        await expect(row).to_contain_text(sentence(say, CODE))
        await expect(row).to_contain_text(say("impact.noService"))
        await expect(row).to_contain_text(say("fault.unclaimed"))
        await go_down_to(page, row)
        await page.keyboard.press("c")
        await expect(row).to_contain_text(OPERATOR)
        await go_to_fault_list(page, window.url)
        row = row_of(page)
        await go_down_to(page, row)
        await page.keyboard.press("n")
        await expect(page.locator("#dialog textarea")).to_be_focused()
        await page.keyboard.type("已联系点位管理员")
        await tab_to(page, page.locator("#dialog button.primary"))
        await page.keyboard.press("Enter")
        await closed(page)
        await go_down_to(page, row)
        await page.keyboard.press("Enter")
        drawer = page.get_by_role("dialog", name=sentence(say, CODE))
        await expect(drawer).to_contain_text(say("evidence.signatureOk"))
        await expect(drawer).to_contain_text("66")  # the byte that says: not authorised
        await expect(page).to_have_url(re.compile(r"/faults\?evidence=\d+/\d+"))
        await page.keyboard.press("Escape")
        await expect(drawer).to_have_count(0)
        await page.keyboard.press("Escape")
        write(recovered())
        await page.keyboard.press("g")
        await page.keyboard.press("o")
        await page.wait_for_url(f"{window.url}/")
        await live(page)
        await expect(page.locator("#needs")).to_be_visible()
        await expect(row_of(page)).to_have_count(0)
        await page.goto(f"{window.url}/terminals/{MACHINE}")
        await expect(page.locator("#head .chip")).to_have_text(say("state.normal"))
        assert window.take() == []


async def go_to_fault_list(page: Page, url: str) -> None:
    await page.keyboard.press("g")
    await page.keyboard.press("f")
    await page.wait_for_url(f"{url}/faults")
    await live(page)


async def test_a_mute_quiets_and_ends(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/faults", lang=say.language)
        row = row_of(page)
        more = row.locator("details.drop summary")
        await more.click()
        await row.get_by_role("button", name=say("mute.button"), exact=True).click()
        await page.locator("#dialog button.primary").click()
        assert await page.evaluate("!document.querySelector('#dialog input[name=reason]').checkValidity()"), (
            "a reason is required"
        )
        await page.fill("#dialog input[name=reason]", "已报修，等备件")
        await page.locator("#dialog button.primary").click()
        await closed(page)
        await expect(row).to_contain_text(say("fault.state.muted"))
        overview = await window.opened("/")
        await expect(overview.locator("#needs tr[data-row]").first).to_be_visible()
        await expect(row_of(overview)).to_have_count(0)
        await page.bring_to_front()
        await more.click()
        await row.get_by_role("button", name=say("mute.end")).click()
        await expect(row).not_to_contain_text(say("fault.state.muted"))
        await overview.bring_to_front()
        await expect(row_of(overview)).to_contain_text(sentence(say, CODE))


async def test_a_false_alarm_keeps_its_row_and_needs_nobody(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/faults", lang=say.language)
        row = row_of(page)
        await row.locator("details.drop summary").click()
        await row.get_by_role("button", name=say("falseAlarm.mark")).click()
        await expect(row.get_by_role("cell", name=say("fault.state.falseAlarm"), exact=True)).to_be_visible()
        overview = await window.opened("/")
        await expect(overview.locator("#needs tr[data-row]").first).to_be_visible()
        await expect(row_of(overview)).to_have_count(0)
        await page.bring_to_front()
        await row.locator("details.drop summary").click()
        await row.get_by_role("button", name=say("falseAlarm.undo")).click()
        await expect(row).to_contain_text(say("fault.state.unclaimed"))
        await overview.bring_to_front()
        await expect(row_of(overview)).to_contain_text(sentence(say, CODE))


async def test_maintenance_takes_a_terminal_out_and_puts_it_back(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in(f"/terminals/{MACHINE}", lang=say.language)
        head = page.locator("#head")
        await tab_to(page, head.get_by_role("button", name=say("maintenance.start")))
        await page.keyboard.press("Enter")
        await expect(page.locator("#dialog input[name=reason]")).to_be_focused()
        await page.keyboard.type("更换读卡模块")
        await page.keyboard.press("Enter")
        await closed(page)
        await expect(head.locator(".chip")).to_have_text(say("state.maintenance"))
        await expect(head).to_contain_text("更换读卡模块")
        overview = await window.opened("/")
        await expect(row_of(overview)).to_have_count(0)
        await page.bring_to_front()
        await head.get_by_role("button", name=say("maintenance.end")).click()
        await expect(head.locator(".chip")).to_have_text(say("state.unusable"))


async def test_a_view_is_an_address_and_columns_stay_with_the_account(browse: Browse, say: Catalogue) -> None:
    async with browse() as window, browse() as other:
        page = await window.signed_in("/terminals", lang=say.language)
        await page.evaluate("window.notReloaded = true")
        await page.locator("a.chipfilter", has_text=say("state.unusable")).click()
        await expect(page).to_have_url(re.compile("state=UNUSABLE"))
        await page.get_by_role("columnheader").get_by_role("link", name=say("column.code")).click()
        await expect(page).to_have_url(re.compile("sort=code"))
        await expect(page.locator("th[aria-sort=ascending]")).to_contain_text(say("column.code"))
        labels = await page.locator("#rows tr b").all_inner_texts()
        assert labels == sorted(labels)
        assert len(labels) > 1
        await page.locator("#columns summary").click()
        await page.get_by_role("checkbox", name=say("column.serial")).check()
        await expect(page.get_by_role("columnheader", name=say("column.serial"))).to_be_visible()
        assert await page.evaluate("window.notReloaded === true")
        copied = page.url.removeprefix(window.url)
        same = await other.signed_in(copied, lang=say.language)
        assert await same.locator("#rows tr b").all_inner_texts() == labels
        await expect(same.get_by_role("columnheader", name=say("column.serial"))).to_be_visible()
        await page.locator("a.chipfilter.removable").click()
        await expect(page).to_have_url(f"{window.url}/terminals?sort=code")


async def test_faults_in_groups_and_many_at_once(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/faults", lang=say.language)
        total = await page.locator("tr[data-severity]").count()
        await page.select_option("#filter-group", "code")
        await expect(page).to_have_url(re.compile("group=code"))
        await expect(page.locator("tr.group").first).to_be_visible()
        assert await page.locator("tr[data-severity]").count() == total
        names = await page.locator("tr.group th").all_inner_texts()
        assert sum(int(re.findall(r"\d+", name)[-1]) for name in names) == total
        claimable = page.locator("tr[data-severity]", has=page.get_by_role("button", name=say("action.claim"), exact=True))
        before = await claimable.count()
        chosen = [await claimable.nth(number).get_attribute("data-row") for number in range(3)]
        for fault in chosen:
            await page.locator(f"input[data-pick][value='{fault}']").check()
        bar = page.locator("#bulk")
        await expect(bar).to_contain_text(say("bulk.chosenFaults", n=3))
        await bar.get_by_role("button", name=say("bulk.fault.claim"), exact=True).click()
        await expect(bar).to_be_hidden()
        await expect(claimable).to_have_count(before - 3)
        for fault in chosen:
            await expect(page.locator(f"tr[data-row='{fault}']")).to_contain_text(OPERATOR)


async def test_the_language_changes_in_place(browse: Browse) -> None:
    async with browse() as window:
        page = await window.signed_in("/terminals?state=OFFLINE&sort=code")
        for lang in i18n.LANGUAGES[::-1]:
            await page.locator(f".top form.lang button[value={lang}]").click()
            await expect(page.locator("html")).to_have_attribute("lang", WORDS[lang].html_lang)
            await expect(page).to_have_url(f"{window.url}/terminals?state=OFFLINE&sort=code")
            await expect(page.locator("h1")).to_have_text(WORDS[lang]("nav.terminals"))


WRITES = "main form[hx-post], main [hx-post], main form[method=post], main button.primary, main input[type=checkbox][data-pick]"


async def test_a_viewer_sees_everything_and_changes_nothing(browse: Browse, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in("/", lang=say.language, name=VIEWER)
        await expect(row_of(page)).to_contain_text(sentence(say, CODE))
        for path in ("/", "/faults", "/terminals", f"/terminals/{MACHINE}", "/system"):
            await page.goto(window.url + path)
            await live(page)
            offered = await page.locator(WRITES).evaluate_all(
                "(all) => all.map((one) => one.getAttribute('hx-post') || one.outerHTML.slice(0, 100))"
            )
            # How a list looks is a viewer's own matter.
            assert [one for one in offered if not one.startswith("/terminals/columns")] == [], path
        fault = await page.evaluate(
            f'async () => (await (await fetch(\'/faults\')).text()).match(/data-row="({MACHINE}:[^"]+)"/)[1]'
        )
        for path in (f"/faults/{fault}/claim", f"/terminals/{MACHINE}/maintenance", "/terminals/add"):
            status = await page.evaluate(
                "async (path) => (await fetch(path, { method: 'POST', headers: JSON.parse(document.body.getAttribute('hx-headers')) })).status",
                path,
            )
            assert status == 403, path
