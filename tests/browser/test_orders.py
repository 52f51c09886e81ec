"""Two people in two browsers: one asks, the other approves or rejects; nobody approves their own; approving by keyboard alone; choosing by thumb."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from fleet_server.console import i18n
from fleet_server.console.i18n import Catalogue
from fleet_server.db import open_raw
from tests.browser.axe import CONTRAST, sideways, small_targets, violations
from tests.browser.conftest import Browse, Looks, Write
from tests.browser.test_every_page import DIALOG_TARGETS, NARROWEST, in_scheme, settled
from tests.browser.test_journeys import tab_to
from tests.support.orders import APPROVER, REQUESTER, add_people, lock_now, report, sign
from tests.support.seed import NOW_MS, OPERATOR

pytestmark = pytest.mark.browser

WORDS = i18n.load_all()
MACHINE, LABEL = "kf-0016", "KF-0016"


@pytest.fixture(params=["zh", "en"])
def say(request: pytest.FixtureRequest) -> Catalogue:
    return WORDS[request.param]


@pytest.fixture
def people(write: Write) -> None:
    write(lambda connection: add_people(connection, NOW_MS))


@pytest.fixture
def database(people: None, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(open_raw(tmp_path / "fleet.sqlite")) as connection:
        connection.isolation_level = None
        yield connection


def newest(database: sqlite3.Connection) -> tuple[bytes, str, str | None]:
    row = database.execute("SELECT id, state, decided_by FROM order_request ORDER BY rowid DESC LIMIT 1").fetchone()
    return bytes(row[0]), row[1], row[2]


async def ask_for_a_restart_of_the_host(page: Page, say: Catalogue, note: str) -> None:
    """On the terminal's page, from the menu to the dialog that says that it takes two."""
    await page.locator("#remote > summary").click()
    await page.locator("#remote").get_by_role("button", name=say("act.restart"), exact=True).click()
    dialog = page.locator("#dialog dialog[open]")
    await expect(dialog.get_by_text(say("act.two.no"))).to_be_visible()
    await expect(dialog.get_by_text(say("act.two.risky"))).to_be_hidden()
    await dialog.locator("select[name=what]").select_option("host")
    await expect(dialog.get_by_text(say("act.two.risky"))).to_be_visible()
    await expect(dialog.get_by_text(say("act.two.no"))).to_be_hidden()
    await dialog.locator("input[name=note]").fill(note)
    await dialog.get_by_role("button", name=say("act.ask")).click()
    await expect(page.locator("#toast")).to_have_text(say("act.asked", what=say("order.what.restartHostIdle")))
    await expect(dialog).to_have_count(0)


async def test_one_asks_and_another_approves_while_both_look(
    browse: Browse, database: sqlite3.Connection, say: Catalogue
) -> None:
    async with browse() as first, browse() as second:
        asking = await first.signed_in(f"/terminals/{MACHINE}", lang=say.language, name=REQUESTER)
        deciding = await second.signed_in("/approvals", lang=say.language, name=APPROVER)
        await expect(deciding.get_by_text(say("approval.none"))).to_be_visible()
        badge = deciding.locator("header.top span[data-approvals]").first
        await expect(badge).to_be_hidden()
        await ask_for_a_restart_of_the_host(asking, say, "reader hangs")
        # The page of the second person says so by itself.
        card = deciding.locator("article.approval")
        await expect(card).to_contain_text(say("order.what.restartHostIdle"))
        await expect(card).to_contain_text(LABEL)
        await expect(card).to_contain_text("reader hangs")
        await expect(card).to_contain_text(REQUESTER)
        await expect(badge).to_have_text("1")
        request, state, _ = newest(database)
        assert state == "waiting"
        await asking.goto(f"{first.url}/orders/{request.hex()}")
        await expect(asking.get_by_text(say("approval.mine"))).to_be_visible()
        await expect(asking.get_by_role("button", name=say("approval.approve"))).to_have_count(0)
        await card.get_by_role("button", name=say("approval.approve")).click()
        await expect(deciding.get_by_text(say("approval.none"))).to_be_visible()
        await expect(badge).to_be_hidden()
        assert newest(database)[1:] == ("approved", APPROVER)
        # And the page of the first.
        await expect(asking.locator(".order-head")).to_contain_text(APPROVER)
        sign(database, request, NOW_MS)
        report(database, request, MACHINE, "waiting", "session", NOW_MS)
        database.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'order')", (NOW_MS, MACHINE))
        await expect(asking.locator(f"#item-{MACHINE}")).to_contain_text(say("order.reason.session"))
        report(database, request, MACHINE, "done", "none", NOW_MS + 1000)
        database.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'order')", (NOW_MS, MACHINE))
        await expect(asking.locator(f"#item-{MACHINE}")).to_contain_text(say("order.say.done"))
        assert first.take() + second.take() == []


async def test_nobody_approves_their_own_even_by_hand(browse: Browse, database: sqlite3.Connection, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in(f"/terminals/{MACHINE}", lang=say.language, name=OPERATOR)
        await ask_for_a_restart_of_the_host(page, say, "x")
        request, _, _ = newest(database)
        await page.goto(f"{window.url}/approvals")
        await expect(page.get_by_text(say("approval.mine"))).to_be_visible()
        await expect(page.get_by_role("button", name=say("approval.approve"))).to_have_count(0)
        # The button is not what holds the rule.
        status = await page.evaluate(
            "async (address) => (await fetch(address, { method: 'POST', headers: JSON.parse(document.body.getAttribute('hx-headers')) })).status",
            f"/orders/{request.hex()}/approve",
        )
        assert status == 400
        assert newest(database)[1] == "waiting"


async def test_a_rejection_reaches_whoever_asked_with_its_reason(
    browse: Browse, database: sqlite3.Connection, say: Catalogue
) -> None:
    async with browse() as first, browse(width=390, height=844, phone=True) as second:
        asking = await first.signed_in(f"/terminals/{MACHINE}", lang=say.language, name=REQUESTER)
        await ask_for_a_restart_of_the_host(asking, say, "slow")
        request, _, _ = newest(database)
        await asking.goto(f"{first.url}/orders/{request.hex()}")
        deciding = await second.signed_in("/approvals", lang=say.language, name=APPROVER)
        await deciding.get_by_role("button", name=say("approval.reject")).click()
        await deciding.locator("#dialog input[name=note]").fill("after closing time")
        await deciding.locator("#dialog button.primary").click()
        await expect(deciding.get_by_text(say("approval.none"))).to_be_visible()
        await expect(asking.locator(".order-head")).to_contain_text("after closing time")
        assert newest(database)[1:] == ("rejected", APPROVER)


async def test_approving_needs_no_mouse(browse: Browse, database: sqlite3.Connection, say: Catalogue) -> None:
    async with browse() as first, browse() as second:
        asking = await first.signed_in(f"/terminals/{MACHINE}", lang=say.language, name=REQUESTER)
        await ask_for_a_restart_of_the_host(asking, say, "y")
        page = await second.signed_in("/approvals", lang=say.language, name=APPROVER)
        await expect(page.locator("article.approval")).to_have_count(1)
        await tab_to(page, page.locator("article.approval button.primary"))
        await page.keyboard.press("Enter")
        await expect(page.get_by_text(say("approval.none"))).to_be_visible()
        assert newest(database)[1:] == ("approved", APPROVER)


async def test_a_selection_is_made_by_thumb(browse: Browse, database: sqlite3.Connection, say: Catalogue) -> None:
    async with browse(width=390, height=844, phone=True) as window:
        page = await window.signed_in("/terminals?q=KF-00", lang=say.language)
        for terminal in ("kf-0016", "kf-0037"):
            await page.locator(f"#row-{terminal} td.pick label").tap()
        bar = page.locator("#bulk")
        await expect(bar).to_contain_text(say("bulk.chosenTerminals", n=2))
        await bar.locator("#remote > summary").tap()
        await bar.get_by_role("button", name=say("act.restart"), exact=True).tap()
        dialog = page.locator("#dialog dialog[open]")
        await expect(dialog).to_contain_text(say("act.many", n=2))
        await expect(dialog).to_contain_text("KF-0016")
        assert await violations(page, within="#dialog") == []
        assert await sideways(page) == ""
        await dialog.get_by_role("button", name=say("act.send")).tap()
        await page.wait_for_url("**/orders/*")
        await expect(page.locator("[id^=item-]")).to_have_count(2)


async def test_the_screen_of_a_locked_terminal_is_seen_before_it_is_locked(
    browse: Browse, database: sqlite3.Connection, say: Catalogue
) -> None:
    async with browse() as window:
        page = await window.signed_in(f"/terminals/{MACHINE}", lang=say.language)
        await page.locator("#remote > summary").click()
        await page.locator("#remote").get_by_role("button", name=say("act.lock"), exact=True).click()
        await page.locator("#dialog input[name=zh]").fill("纸路检修，请到二楼")
        await page.locator("#dialog input[name=en]").fill("Please go to the second floor")
        screen = page.locator("#dialog .glass")
        await expect(screen).to_contain_text("纸路检修，请到二楼")
        await expect(screen).to_contain_text("Please go to the second floor")
        await page.locator("#dialog button.primary").click()
        await expect(page.locator("#toast")).to_be_visible()
        head = page.locator("#head")
        lock_now(database, MACHINE, "纸路检修，请到二楼", NOW_MS, counter=2)
        await expect(head).to_contain_text(say("orders.locked"))
        await expect(head).to_contain_text("纸路检修，请到二楼")
        await page.locator("#remote > summary").click()
        await expect(page.locator("#remote").get_by_role("button", name=say("act.unlock"), exact=True)).to_be_visible()


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("action", ["test", "logs", "lock", "unlock", "configuration"])
async def test_a_dialog_of_remote_control_is_for_everybody(looks: Looks, action: str, lang: str, phone: bool) -> None:
    window, page = await looks.at(lang, phone=phone)
    await in_scheme(page, "light")
    await page.goto(f"{window.url}/terminals/{MACHINE}")
    address = f"/terminals/{MACHINE}/orders/{action}"
    await page.evaluate("(address) => htmx.ajax('GET', address, { target: '#dialog', swap: 'innerHTML' })", address)
    await page.locator("#dialog dialog[open]").wait_for()
    await settled(page)
    wrong = await violations(page, within="#dialog")
    await in_scheme(page, "dark")
    wrong += [f"dark {line}" for line in await violations(page, only=CONTRAST, within="#dialog")]
    if phone:
        wrong += await small_targets(page, DIALOG_TARGETS)
        await page.set_viewport_size({"width": NARROWEST, "height": 800})
        wrong += filter(None, [await sideways(page)])
        await page.set_viewport_size({"width": 390, "height": 844})
    assert wrong + window.take() == []


async def test_a_configuration_is_edited_by_form(browse: Browse, database: sqlite3.Connection, say: Catalogue) -> None:
    async with browse() as window:
        page = await window.signed_in(f"/terminals/{MACHINE}/configuration", lang=say.language)
        await page.get_by_role("button", name=say("config.addItem")).click()
        await page.locator("input[name='i0.code']").fill("330702199001011235")
        await page.get_by_role("button", name=say("config.save")).last.click()
        await expect(page.get_by_role("alert")).to_have_text(say("config.problems"))
        await expect(page.locator("input[name='i0.code']")).to_have_attribute("aria-invalid", "true")
        await page.locator("input[name='i0.code']").fill("social.pension-proof")
        await page.locator("input[name='d1.port']").fill("1-1.2")
        await page.get_by_role("button", name=say("config.save")).last.click()
        await page.wait_for_url("**/orders/*")
        await expect(page.locator(".order-head")).to_contain_text(say("approval.mine"))
        await expect(page.locator(".differs").first).to_contain_text("social.pension-proof")
