"""Sessions: in, out, expired, locked, and what a cookie is worth."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from fleet_server.accounts.bootstrap import FIRST_OPERATOR, ensure_first_operator
from fleet_server.accounts.rules import ABSOLUTE_MS, IDLE_MS, LOCKED_MS, MAX_FAILED
from fleet_server.accounts.sessions import EVEN_S
from fleet_server.engine import FleetEngine
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import OPERATOR, PASSWORD, VIEWER, quick_passwords

WRONG = "账号或密码不正确"


async def attempt(person: Person, name: str, password: str) -> int:
    answer = await person.client.post("/login", data={"name": name, "password": password, "lang": "zh"})
    if answer.status_code != 303:
        assert WRONG in answer.text
    return answer.status_code


async def test_before_signing_in_nothing_is_told(stranger: Person) -> None:
    page = await stranger.get("/login")
    assert "KF-" not in page
    assert "210" not in page
    assert "0.1.0" not in page


async def test_wrong_name_and_wrong_password_are_one_answer(stranger: Person) -> None:
    pages = set()
    for name in (VIEWER, "nobody"):
        answer = await stranger.client.post("/login", data={"name": name, "password": "wrong-pass-word", "lang": "zh"})
        assert answer.status_code == 401
        pages.add(answer.text.replace(f'value="{name}"', ""))
    assert len(pages) == 1


async def test_five_failures_lock_the_account_for_everybody_and_for_a_while(
    stranger: Person, new_person: Callable[[], Person], clock: HandClock
) -> None:
    for _ in range(MAX_FAILED):
        assert await attempt(stranger, VIEWER, "wrong") == 401
    assert await attempt(new_person(), VIEWER, PASSWORD) == 401
    clock.now_ms += LOCKED_MS - 1
    assert await attempt(new_person(), VIEWER, PASSWORD) == 401
    clock.now_ms += 1
    assert await attempt(new_person(), VIEWER, PASSWORD) == 303


async def test_a_right_password_forgets_earlier_failures(stranger: Person) -> None:
    for _ in range(3):
        for _ in range(MAX_FAILED - 1):
            assert await attempt(stranger, VIEWER, "wrong") == 401
        assert await attempt(stranger, VIEWER, PASSWORD) == 303


async def test_the_cookie_is_closed_to_scripts_and_other_sites_and_new_each_time(stranger: Person, engine: FleetEngine) -> None:
    tokens = set()
    for _ in range(2):
        answer = await stranger.client.post("/login", data={"name": VIEWER, "password": PASSWORD, "lang": "zh"})
        cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("kf_session="))
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert "Path=/" in cookie
        tokens.add(cookie.partition(";")[0].partition("=")[2])
    assert len(tokens) == 2
    stored = await engine.read("SELECT token_hash FROM login")
    assert not any(token.encode() in row["token_hash"] for token in tokens for row in stored)
    assert all(len(row["token_hash"]) == 32 for row in stored)


async def test_an_idle_session_ends(viewer: Person, clock: HandClock) -> None:
    clock.now_ms += IDLE_MS - 1
    assert (await viewer.client.get("/")).status_code == 200
    clock.now_ms += IDLE_MS - 1
    assert (await viewer.client.get("/")).status_code == 200
    clock.now_ms += IDLE_MS
    answer = await viewer.client.get("/terminals?state=OFFLINE")
    assert answer.status_code == 302
    assert answer.headers["location"] == "/login?next=%2Fterminals%3Fstate%3DOFFLINE&why=expired"


async def test_a_page_that_refreshes_itself_does_not_keep_a_session_alive(viewer: Person, clock: HandClock) -> None:
    for _ in range(4):
        clock.now_ms += IDLE_MS // 4
        await viewer.client.get("/parts/summary", headers={"X-Live": "1", "HX-Request": "true"})
    assert (await viewer.client.get("/")).status_code == 302


async def test_somebody_who_only_reads_is_there(viewer: Person, clock: HandClock) -> None:
    for _ in range(4):
        clock.now_ms += IDLE_MS - 1
        assert (await viewer.post("/here")).status_code == 204
    assert (await viewer.client.get("/")).status_code == 200


async def test_no_session_outlives_twelve_hours(viewer: Person, clock: HandClock) -> None:
    for _ in range(ABSOLUTE_MS // (IDLE_MS // 2) - 1):
        clock.now_ms += IDLE_MS // 2
        assert (await viewer.client.get("/")).status_code == 200
    clock.now_ms += IDLE_MS // 2
    assert (await viewer.client.get("/")).status_code == 302


async def test_signing_out_ends_the_session_on_the_server(viewer: Person, engine: FleetEngine) -> None:
    token = viewer.client.cookies["kf_session"]
    assert (await viewer.post("/logout")).status_code == 303
    viewer.client.cookies.set("kf_session", token)
    assert (await viewer.client.get("/")).status_code == 302
    assert await engine.read("SELECT 1 FROM login") == []


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("/faults?tab=all", "/faults?tab=all"),
        ("//evil.test/x", "/"),
        ("https://evil.test", "/"),
        ("/\\evil.test", "/"),
        ("javascript:alert(1)", "/"),
        ("/x\r\nSet-Cookie: a=b", "/"),
        ("", "/"),
    ],
)
async def test_signing_in_leads_back_but_never_away(stranger: Person, wanted: str, target: str) -> None:
    fields = {"name": VIEWER, "password": PASSWORD, "lang": "zh", "next": wanted}
    answer = await stranger.client.post("/login", data=fields)
    assert answer.headers["location"] == target


async def test_the_first_start_makes_one_operator_and_never_another(engine: FleetEngine) -> None:
    await engine.write(lambda connection: connection.execute("DELETE FROM staff"))
    made = await ensure_first_operator(engine, quick_passwords(), now_ms=1)
    assert made is not None
    name, password = made
    assert name == FIRST_OPERATOR
    assert len(password) >= 16
    assert await ensure_first_operator(engine, quick_passwords(), now_ms=2) is None
    stored = await engine.read("SELECT * FROM staff")
    assert len(stored) == 1
    assert password not in repr(stored)
    assert stored[0]["must_change"] == 1


async def test_a_first_password_opens_only_the_page_that_changes_it(
    new_person: Callable[[], Person], engine: FleetEngine, stranger: Person
) -> None:
    await engine.write(lambda connection: connection.execute("UPDATE staff SET must_change = 1 WHERE name = ?", (OPERATOR,)))
    fields = {"name": OPERATOR, "password": PASSWORD, "lang": "zh"}
    answer = await stranger.client.post("/login", data=fields)
    assert answer.headers["location"] == "/password"
    for path in ("/", "/terminals", "/faults", "/evidence/1/0"):
        blocked = await stranger.client.get(path)
        assert (blocked.status_code, blocked.headers["location"]) == (302, "/password")
    page = await stranger.get("/password")
    assert "首次登录" in page
    stranger.csrf = page.partition('name="_csrf" value="')[2].partition('"')[0]
    new = "a-brand-new-7-word"
    changed = await stranger.post("/password", old=PASSWORD, new=new, again=new)
    assert changed.status_code == 303
    assert (await stranger.client.get("/")).status_code == 200
    assert await attempt(new_person(), OPERATOR, PASSWORD) == 401
    assert await attempt(new_person(), OPERATOR, new) == 303


@pytest.mark.parametrize(
    ("old", "new", "again", "sentence"),
    [
        ("not-it-at-all-9", "river-stone-4712", "river-stone-4712", "当前密码不正确"),
        (PASSWORD, "short-1", "short-1", "至少 12 个字符"),
        (PASSWORD, "aaaaaaaaaaaa1", "aaaaaaaaaaaa1", "太简单"),
        (PASSWORD, "my-viewer-pass-1", "my-viewer-pass-1", "不能包含账号名"),
        (PASSWORD, "river-stone-4712", "river-stone-4713", "不一致"),
        (PASSWORD, PASSWORD, PASSWORD, "不能与当前密码相同"),
    ],
)
async def test_a_new_password_has_to_be_better(viewer: Person, old: str, new: str, again: str, sentence: str) -> None:
    answer = await viewer.post("/password", old=old, new=new, again=again)
    assert answer.status_code == 400
    assert sentence in answer.text


async def test_guessing_the_password_from_a_session_locks_the_account_and_ends_the_session(
    viewer: Person, new_person: Callable[[], Person]
) -> None:
    """A browser that somebody left open, or a stolen cookie, must not be worth the account."""
    for _ in range(MAX_FAILED):
        assert (await viewer.post("/password", old="wrong", new="river-stone-4712", again="river-stone-4712")).status_code == 400
    assert (await viewer.post("/password", old=PASSWORD, new="river-stone-4712", again="river-stone-4712")).status_code == 401
    assert await attempt(new_person(), VIEWER, PASSWORD) == 401


async def test_a_refusal_takes_as_long_for_a_name_that_exists(stranger: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a known name costs more (a write, here made slow) is rounded away."""
    write = FleetEngine.write

    async def slow_write(self: FleetEngine, work: Callable[[sqlite3.Connection], Any]) -> Any:
        await asyncio.sleep(EVEN_S / 5)
        return await write(self, work)

    monkeypatch.setattr(FleetEngine, "write", slow_write)
    took = {}
    for name in (VIEWER, "nobody"):
        began_s = time.monotonic()
        await attempt(stranger, name, "wrong")
        took[name] = (time.monotonic() - began_s) // EVEN_S
    assert took[VIEWER] >= 1
    assert took["nobody"] >= 1


async def test_changing_the_password_ends_all_other_sessions(viewer: Person, new_person: Callable[[], Person]) -> None:
    other = new_person()
    await other.sign_in(VIEWER)
    new = "another-9-long-word"
    assert (await viewer.post("/password", old=PASSWORD, new=new, again=new)).status_code == 303
    assert (await viewer.client.get("/")).status_code == 200
    assert (await other.client.get("/")).status_code == 302


async def test_the_language_is_the_accounts(viewer: Person, new_person: Callable[[], Person]) -> None:
    assert "终端总数" in await viewer.get("/")
    assert (await viewer.post("/language", lang="en", back="/faults")).headers["location"] == "/faults"
    assert "Cases today" in await viewer.get("/")
    # The browser remembers it for the sign-in page, the account for other browsers.
    await viewer.post("/logout")
    assert "Sign in" in await viewer.get("/login")
