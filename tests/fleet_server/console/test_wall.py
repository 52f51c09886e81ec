"""The wallboard: a token that is shown once, opens one thing, ends, and is never kept in the clear; and a screen that names nobody."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar import Litestar

from fleet_server.app import app_at, make_desk
from fleet_server.console.pages.wall import _changes, _event_of
from fleet_server.db import open_raw
from fleet_server.engine import FleetEngine
from fleet_server.live.hub import encode
from fleet_server.settings import Settings, Web
from fleet_server.wallboards.door import TRIES, WINDOW_MS
from fleet_server.wallboards.rules import VIEWS
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import FLEET, OPERATOR, Seeded, quick_passwords

FORM = {"name": "指挥大厅", "interval_s": "15", "lang": "zh", "days": "30", **{f"view_{view}": "1" for view in VIEWS}}
DAY_MS = 86_400_000


async def issue(operator: Person, **changes: str) -> str:
    """A new screen; its token."""
    answer = await operator.post("/wallboards", **{**FORM, **changes})
    assert answer.status_code == 200, answer.text[:300]
    found = re.search(r'<code id="wall-address">http://console\.test/wall#([\w-]{43})</code>', answer.text)
    assert found
    return found.group(1)


async def enter(screen: Person, token: str) -> httpx.Response:
    return await screen.client.post("/wall/enter", data={"token": token})


@pytest.fixture
async def token(operator: Person) -> str:
    return await issue(operator)


@pytest.fixture
async def screen(stranger: Person, token: str) -> Person:
    """A browser on a wall, let in."""
    assert (await enter(stranger, token)).status_code == 200
    return stranger


async def state(screen: Person) -> dict[str, Any]:
    answer = await screen.client.get("/wall/state")
    assert answer.status_code == 200
    read: dict[str, Any] = answer.json()
    return read


# The token -------------------------------------------------------------------------------------------------------------------------------


async def test_the_address_is_shown_once_and_only_its_hash_is_kept(operator: Person, token: str, seeded: Seeded) -> None:
    assert token not in await operator.get("/wallboards")
    with closing(sqlite3.connect(seeded.path)) as connection:
        dump = "\n".join(connection.iterdump())
    assert token not in dump
    assert "指挥大厅" in dump


async def test_the_cookie_is_for_the_wall_alone(stranger: Person, token: str) -> None:
    answer = await enter(stranger, token)
    cookie = answer.headers["set-cookie"]
    for part in ("kf_wall=", "Path=/wall;", "HttpOnly", "SameSite=strict", f"Max-Age={30 * DAY_MS // 1000}"):
        assert part.casefold() in cookie.casefold() + ";", part
    assert "secure" not in cookie.casefold()
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    for path in ("/", "/terminals", "/map", "/map/outline.json", "/wallboards", "/live"):
        refused = await stranger.client.get(path, headers={"Accept": "text/html"})
        assert refused.status_code in {302, 401}, path
    assert (await stranger.client.post("/wallboards", data=FORM)).status_code == 401


async def test_with_tls_the_cookie_is_secure(tmp_path: Path, engine: FleetEngine, clock: HandClock, token: str) -> None:
    settings = Settings(data_dir=tmp_path, fleet=FLEET, web=Web(tls=True))
    made = app_at(make_desk(settings, engine, quick_passwords(), now_ms=clock))
    transport: Any = httpx.ASGITransport(app=made)  # type: ignore[arg-type]  # Litestar's scope type is its own
    async with httpx.AsyncClient(transport=transport, base_url="https://console.test") as client:
        answer = await client.post("/wall/enter", data={"token": token})
        assert answer.headers["set-cookie"].startswith("__Secure-kf_wall=")
        assert "secure" in answer.headers["set-cookie"].casefold().split("=", 1)[1]
        assert (await client.get("/wall/state")).status_code == 200


@pytest.mark.parametrize("path", ["/wall/state", "/wall/live", "/wall/outline.json"])
async def test_without_a_token_there_is_nothing_to_see(stranger: Person, path: str) -> None:
    answer = await stranger.client.get(path)
    assert (answer.status_code, answer.content) == (401, b"")
    door = await stranger.client.get("/wall")
    assert door.status_code == 200
    assert "data-door" in door.text
    assert "KF-" not in door.text
    assert door.headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("wrong", ["", "x", "a" * 43, "a" * 5000, "令牌"])
async def test_a_wrong_token_opens_nothing(stranger: Person, token: str, wrong: str) -> None:
    answer = await enter(stranger, wrong)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


async def test_who_tries_too_often_waits_even_with_the_right_token(stranger: Person, token: str, clock: HandClock) -> None:
    for _ in range(TRIES):
        assert (await enter(stranger, "wrong")).status_code == 401
    answer = await enter(stranger, token)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == str(WINDOW_MS // 1000)
    clock.now_ms += WINDOW_MS
    assert (await enter(stranger, token)).status_code == 200


async def test_another_site_cannot_hand_a_screen_a_token(stranger: Person, token: str) -> None:
    headers = {"Origin": "http://evil.test", "Sec-Fetch-Site": "cross-site"}
    assert (await stranger.client.post("/wall/enter", data={"token": token}, headers=headers)).status_code == 400


async def test_a_token_ends_by_itself(screen: Person, clock: HandClock) -> None:
    assert (await screen.client.get("/wall/state")).status_code == 200
    clock.now_ms += 30 * DAY_MS
    assert (await screen.client.get("/wall/state")).status_code == 401


async def test_a_revoked_token_ends_at_once_and_says_who_and_when(operator: Person, screen: Person, token: str) -> None:
    assert (await operator.post("/wallboards/1/revoke")).status_code == 303
    assert (await screen.client.get("/wall/state")).status_code == 401
    assert (await enter(screen, token)).status_code == 401
    assert "由 operator 于 2026-11-18 10:42 撤销" in await operator.seen("/wallboards")
    assert (await operator.post("/wallboards/1/revoke")).status_code == 404


async def test_nothing_of_a_token_is_logged(stranger: Person, token: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await enter(stranger, token)
    await enter(stranger, "wrong-token-of-a-stranger")
    await state(stranger)
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore")))
    assert token not in ours
    assert "wrong-token-of-a-stranger" not in ours


async def test_issued_tokens_do_not_show_in_a_repr(seeded: Seeded) -> None:
    from fleet_server.wallboards.store import Issued

    assert "secret" not in repr(Issued(1, "secret"))


# Setting a screen up ---------------------------------------------------------------------------------------------------------------------


async def test_a_viewer_sees_screens_and_sets_none_up(viewer: Person, token: str) -> None:
    page = await viewer.get("/wallboards")
    assert "指挥大厅" in page
    assert "/revoke" not in page
    assert 'action="/wallboards"' not in page
    for path in ("/wallboards", "/wallboards/1", "/wallboards/1/revoke"):
        assert (await viewer.post(path, **FORM)).status_code == 403


async def test_settings_change_and_say_who_changed_them(operator: Person, screen: Person) -> None:
    answer = await operator.post("/wallboards/1", name="二号屏", interval_s="60", lang="en", view_needs="1")
    assert answer.status_code == 303
    now = await state(screen)
    assert (now["name"], now["order"], now["interval_s"], now["lang"]) == ("二号屏", ["needs"], 60, "en")
    assert now["views"].keys() == {"needs"}
    assert "map" not in now
    assert "修改 operator" in await operator.seen("/wallboards")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"name": " "}, "不能为空"),
        ({"name": "x" * 41}, "太长"),
        ({"name": "大厅 139" + "1234" + "5678"}, "身份证号或手机号"),
        ({"interval_s": "2"}, "5 到 300 秒"),
        ({f"view_{view}": "" for view in VIEWS}, "至少选择一项"),
        ({"days": "9999"}, "请选择有效期"),
    ],
)
async def test_what_does_not_fit_is_said_at_its_field(operator: Person, changes: dict[str, str], sentence: str) -> None:
    answer = await operator.post("/wallboards", **{**FORM, **changes})
    assert answer.status_code == 400
    assert sentence in answer.text
    assert "还没有大屏" in answer.text


async def test_a_name_of_markup_stays_text(operator: Person, stranger: Person) -> None:
    token = await issue(operator, name="<img src=x onerror=alert(1)>")
    assert "<img" not in await operator.get("/wallboards")
    await enter(stranger, token)
    assert "<img" not in await stranger.get("/wall")


# What a screen is shown ------------------------------------------------------------------------------------------------------------------


async def test_a_screen_shows_the_same_numbers_as_the_start_page(operator: Person, screen: Person) -> None:
    now, overview = await state(screen), await operator.get("/")
    for name in ("total", "online", "abnormal", "offline"):
        shown = re.search(rf'data-tile="{name}">([\d,]+)<', overview)
        assert shown
        assert f"<b>{shown.group(1)}</b>" in now["views"]["now"], name
    cases = re.search(r'data-tile="cases">([\d,]+)<', overview)
    assert cases
    assert f"<b>{cases.group(1)}</b>" in now["views"]["usage"]


async def test_a_screen_names_no_staff(operator: Person, screen: Person) -> None:
    listed = re.search(r'hx-post="/faults/([^/"]+)/claim"', await operator.get("/"))
    assert listed
    assert (await operator.post(f"/faults/{listed.group(1)}/claim")).status_code in {200, 204}
    now = await state(screen)
    assert OPERATOR not in str(now)
    assert "已认领" in now["views"]["needs"] or "已认领" in now["views"]["now"]


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_every_view_is_whole_in_both_languages_and_leads_nowhere(operator: Person, stranger: Person, lang: str) -> None:
    await enter(stranger, await issue(operator, lang=lang))
    now = await state(stranger)
    assert list(now["views"]) == list(VIEWS)
    for view, markup in now["views"].items():
        assert "<a " not in markup, view
        assert " style=" not in markup, view
        assert "<script" not in markup, view
    assert ("不能办事" if lang == "zh" else "without service") in now["views"]["now"]
    assert f'lang="{"zh-CN" if lang == "zh" else "en"}"' in await stranger.get("/wall")


async def test_a_blind_platform_is_said_in_the_bar_and_the_sentence(screen: Person, seeded: Seeded, clock: HandClock) -> None:
    with closing(open_raw(seeded.path)) as connection:
        connection.execute(
            "INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (?, NULL, 'broker')", (clock.now_ms - 120_000,)
        )
    clock.now_ms += 1_500
    now = await state(screen)
    assert [bar["kind"] for bar in now["bars"]] == ["blind"]
    assert "消息服务中断" in now["bars"][0]["text"]
    assert "状态未知" in now["views"]["now"]


async def test_the_page_and_its_data_agree_on_the_version(screen: Person) -> None:
    page = await screen.get("/wall")
    assert f'data-version="{(await state(screen))["version"]}"' in page


# The stream ------------------------------------------------------------------------------------------------------------------------------


class Told:
    """A hub that says what it is given."""

    def __init__(self, *messages: bytes) -> None:
        self._messages = messages

    async def listen(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        assert last_event_id is None
        for message in self._messages:
            yield message
            await asyncio.sleep(0)


async def test_a_screen_hears_that_something_changed_and_nothing_of_what(app: Litestar, token: str) -> None:
    told = Told(
        b"retry: 2000\n\n",
        encode("tick", "1", 5),
        encode("rows", '["kf-0001"]', 6),
        encode("ages", '{"kf-0001": [1, 2]}', 7),
        encode("alarm", '[{"label": "KF-0001"}]', 8),
        encode("touched", '["kf-0001"]', 9),
        encode("counts", "", 10),
    )
    desk = replace(app.state.desk, hub=told)
    heard = [message async for message in _changes(desk, token)]
    assert b"kf-0001" not in b"".join(heard).lower()
    assert [_event_of(message) for message in heard] == [b"", b"tick", b"changed", b"changed", b"changed"]


async def test_the_stream_ends_with_the_token(app: Litestar, operator: Person, token: str) -> None:
    told = Told(encode("tick", "1", 5), encode("rows", "[]", 6), encode("tick", "2", 6), encode("rows", "[]", 7))
    stream = _changes(replace(app.state.desk, hub=told), token)
    assert _event_of(await anext(stream)) == b"tick"
    await operator.post("/wallboards/1/revoke")
    assert [_event_of(message) async for message in stream] == [b"changed", b"over"]


async def test_a_screen_that_watches_is_seen(operator: Person, screen: Person, clock: HandClock) -> None:
    assert "尚未打开" not in await operator.seen("/wallboards")


async def test_two_screens_are_two_tokens(operator: Person, new_person: Callable[[], Person]) -> None:
    first, second = await issue(operator), await issue(operator, name="二号屏")
    screens = [new_person(), new_person()]
    for screen, token in zip(screens, (first, second), strict=True):
        await enter(screen, token)
    await operator.post("/wallboards/1/revoke")
    assert [(await screen.client.get("/wall/state")).status_code for screen in screens] == [401, 200]


async def test_a_screen_in_an_operators_browser_does_not_keep_the_session_alive(
    operator: Person, token: str, clock: HandClock
) -> None:
    await enter(operator, token)
    for _ in range(4):
        clock.now_ms += 10 * 60_000
        assert (await operator.client.get("/wall/state")).status_code == 200
    assert (await operator.client.get("/")).status_code == 302
