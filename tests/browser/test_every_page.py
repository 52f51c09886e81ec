"""Each page in both languages, light and dark, at a desk and on a phone: axe-core, sideways scrolling, targets, complaints, requests elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.testing import AsyncTestClient
from playwright.async_api import Page

from fleet_server.app import app_at
from fleet_server.engine import FleetEngine
from tests.browser.addresses import DIALOGS, ELSEWHERE, EXAMPLES, PUBLIC_PAGES, STEADY_PAGES, STREAMS, addresses
from tests.browser.axe import CONTRAST, sideways, small_targets, violations
from tests.browser.conftest import Looks
from tests.support.console import desk_for
from tests.support.seed import NOW_MS, OPERATOR, PASSWORD, Seeded

pytestmark = pytest.mark.browser

NARROWEST = 360
WIDEST = 1920
PRIMARY = "main button, main a.button, main select, main input:not([type=checkbox], [type=radio], [type=hidden]), nav.bottom a"
DIALOG_TARGETS = "#dialog button, #dialog select, #dialog input:not([type=checkbox], [type=radio], [type=hidden])"
PARAMETER = re.compile(r"\{(\w+):\w+\}")


async def settled(page: Page) -> None:
    """Fonts, pictures and what a page fetches by itself have arrived; nothing is half-way in an animation."""
    await page.wait_for_load_state("load")
    await page.evaluate("Promise.all(document.getAnimations().map((one) => one.finished.catch(() => null)))")
    await page.wait_for_function("() => !document.querySelector('.htmx-request, .htmx-swapping, .htmx-settling')")


async def in_scheme(page: Page, scheme: str) -> None:
    await page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize(("address", "inside"), addresses(), ids=[address for address, _ in addresses()])
async def test_a_page_is_for_everybody(looks: Looks, address: str, inside: bool, lang: str, phone: bool) -> None:
    window, page = await looks.at(lang, phone=phone, name=OPERATOR if inside else None)
    await in_scheme(page, "light")
    answer = await page.goto(window.url + address)
    assert answer is not None
    assert answer.status == 200, address
    await settled(page)
    wrong = await violations(page)
    # Shape and words are the same in the dark; colours are not.
    await in_scheme(page, "dark")
    wrong += [f"dark {line}" for line in await violations(page, only=CONTRAST)]
    if phone:
        wrong += await small_targets(page, PRIMARY)
        await page.set_viewport_size({"width": NARROWEST, "height": 800})
        wrong += filter(None, [await sideways(page)])
        await page.set_viewport_size({"width": 390, "height": 844})
    else:
        await page.set_viewport_size({"width": WIDEST, "height": 1080})
        wrong += filter(None, [await sideways(page)])
        await page.set_viewport_size({"width": 1366, "height": 768})
    assert await page.evaluate("document.documentElement.lang") == {"zh": "zh-CN", "en": "en"}[lang]
    wrong += window.take()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("phone", [False, True], ids=["desk", "phone"])
@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("address", DIALOGS.values())
async def test_a_dialog_is_for_everybody(looks: Looks, address: str, lang: str, phone: bool) -> None:
    window, page = await looks.at(lang, phone=phone)
    await in_scheme(page, "light")
    await page.goto(f"{window.url}/system")
    await page.evaluate("(address) => htmx.ajax('GET', address, { target: '#dialog', swap: 'innerHTML' })", address)
    dialog = page.locator("#dialog dialog[open]")
    await dialog.wait_for()
    await settled(page)
    wrong = await violations(page, within="#dialog")
    await in_scheme(page, "dark")
    wrong += [f"dark {line}" for line in await violations(page, only=CONTRAST, within="#dialog")]
    assert await page.evaluate("document.activeElement.closest('dialog') !== null"), "the keyboard is not in the dialog"
    if phone:
        wrong += await small_targets(page, DIALOG_TARGETS)
        await page.set_viewport_size({"width": NARROWEST, "height": 800})
        wrong += filter(None, [await sideways(page)])
        await page.set_viewport_size({"width": 390, "height": 844})
    await page.keyboard.press("Escape")
    await dialog.wait_for(state="detached")
    wrong += window.take()
    assert not wrong, "\n".join(wrong)


async def test_no_page_is_forgotten(template: Seeded, tmp_path: Path) -> None:
    engine = FleetEngine()
    engine.use(template.path)
    app = app_at(desk_for(tmp_path, engine, lambda: NOW_MS))
    known = {*STEADY_PAGES, *DIALOGS, *PUBLIC_PAGES, *ELSEWHERE}
    assert known <= set(readable(app)), "these routes are gone"
    async with AsyncTestClient(app, base_url="http://console.test") as client:
        transport = httpx.ASGITransport(app=client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://console.test") as person:
            answer = await person.post("/login", data={"name": OPERATOR, "password": PASSWORD, "lang": "zh"})
            assert answer.status_code == 303
            forgotten = []
            for route in readable(app):
                if route in known or route in STREAMS:
                    continue
                answer = await person.get(PARAMETER.sub(lambda found: EXAMPLES[found.group(1)], route))
                if (
                    answer.status_code == 200
                    and answer.headers["content-type"].startswith("text/html")
                    and "<html" in answer.text
                ):
                    forgotten.append(route)
    engine.close()
    assert forgotten == [], "add what to open there to tests/browser/addresses.py"


def readable(app: Litestar) -> list[str]:
    """Routes that answer GET."""
    return [route.path for route in app.routes if isinstance(route, HTTPRoute) and "GET" in route.methods]
