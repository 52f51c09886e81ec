"""Accounts in the console: operators manage them, everybody has a page of their own, and limits that were set are kept."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import pytest

from fleet_server.engine import FleetEngine
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, PASSWORD, VIEWER


async def kinds(engine: FleetEngine) -> list[tuple[str, str, str]]:
    rows = await engine.read("SELECT kind, staff, set_by FROM account_event ORDER BY id")
    return [(row["kind"], row["staff"], row["set_by"]) for row in rows]


def shown_password(page: str) -> str:
    found = re.search(r'id="first-password">([^<]+)<', page)
    assert found
    return html.unescape(found.group(1))


async def test_an_account_is_added_with_a_password_shown_once(
    operator: Person, new_person: Callable[[], Person], engine: FleetEngine
) -> None:
    answer = await operator.post("/accounts/add", name="Zhang.Wei", display="张伟", role="viewer", lang="zh")
    assert answer.status_code == 200
    password = shown_password(answer.text)
    assert password not in await operator.get("/accounts/zhang.wei", part=True)
    stored = await engine.read("SELECT * FROM staff WHERE name = 'zhang.wei'")
    assert password not in repr(stored)
    assert stored[0]["must_change"] == 1
    person = new_person()
    first = await person.client.post("/login", data={"name": "zhang.wei", "password": password, "lang": "zh"})
    assert (first.status_code, first.headers["location"]) == (303, "/password")
    assert (await person.client.get("/terminals")).headers["location"] == "/password"
    page = await operator.seen("/accounts")
    assert "张伟 zhang.wei 查看 待改密码" in page
    assert "operator 添加账户 zhang.wei（查看）" in page
    assert await kinds(engine) == [("add", "zhang.wei", "operator")]


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        ({"name": "张伟"}, "账号只能用"),
        ({"name": "viewer"}, "已经有了"),
        ({"name": "new-one", "role": "king"}, "没有这种角色"),
        ({"name": "new-one", "display": "330702" + "19900101" + "0015"}, "看起来含有身份证号"),
    ],
)
async def test_what_cannot_be_an_account(operator: Person, engine: FleetEngine, form: dict[str, str], sentence: str) -> None:
    answer = await operator.post("/accounts/add", **{"display": "", "role": "viewer", "lang": "zh", **form})
    assert sentence in answer.text
    assert len(await engine.read("SELECT 1 FROM staff")) == 2


async def test_the_last_operator_and_oneself_stay(operator: Person, engine: FleetEngine) -> None:
    for action, sentence in (("disable", "不能停用自己"), ("reset", "我的账户"), ("role", "最后一个")):
        answer = await operator.post(f"/accounts/operator/{action}", role="viewer")
        assert sentence in answer.text
        assert "first-password" not in answer.text
    assert await kinds(engine) == []
    assert (await operator.client.get("/")).status_code == 200


async def test_a_role_changes_at_once_and_means_signing_in_again(operator: Person, viewer: Person) -> None:
    assert "角色已修改" in (await operator.post(f"/accounts/{VIEWER}/role", role="operator")).text
    assert (await viewer.client.get("/")).status_code == 302
    await viewer.sign_in(VIEWER)
    assert (await viewer.client.get("/accounts")).status_code == 200
    await operator.post(f"/accounts/{VIEWER}/role", role="viewer")
    await viewer.sign_in(VIEWER)
    assert (await viewer.client.get("/accounts")).status_code == 403
    assert "账户" not in (await viewer.get("/system")).partition('class="subnav"')[2].partition("</nav>")[0]


async def test_a_disabled_account_is_out_and_gets_the_same_answer_as_anybody(
    operator: Person, viewer: Person, new_person: Callable[[], Person]
) -> None:
    assert "已停用" in (await operator.post(f"/accounts/{VIEWER}/disable")).text
    assert (await viewer.client.get("/")).status_code == 302
    pages = set()
    for name in (VIEWER, "nobody"):
        answer = await new_person().client.post("/login", data={"name": name, "password": PASSWORD, "lang": "zh"})
        assert answer.status_code == 401
        pages.add(answer.text.replace(f'value="{name}"', ""))
    assert len(pages) == 1
    await operator.post(f"/accounts/{VIEWER}/enable")
    await viewer.sign_in(VIEWER)


async def test_a_lock_is_seen_with_its_end_and_can_be_ended(
    operator: Person, stranger: Person, clock: HandClock, engine: FleetEngine
) -> None:
    for _ in range(5):
        await stranger.client.post("/login", data={"name": VIEWER, "password": "wrong", "lang": "zh"})
    page = await operator.seen("/accounts")
    assert "已锁定 至 10:52:07" in page
    assert "系统 viewer 连续输错密码，自动锁定" in page
    assert await kinds(engine) == [("locked", "viewer", "")]
    assert "已解除锁定" in (await operator.post(f"/accounts/{VIEWER}/unlock")).text
    await stranger.sign_in(VIEWER)


async def test_a_reset_password_ends_the_old_one(operator: Person, viewer: Person, new_person: Callable[[], Person]) -> None:
    password = shown_password((await operator.post(f"/accounts/{VIEWER}/reset")).text)
    assert (await viewer.client.get("/")).status_code == 302
    old = await new_person().client.post("/login", data={"name": VIEWER, "password": PASSWORD, "lang": "zh"})
    assert old.status_code == 401
    new = await new_person().client.post("/login", data={"name": VIEWER, "password": password, "lang": "zh"})
    assert new.headers["location"] == "/password"


async def test_an_account_or_action_nobody_knows(operator: Person) -> None:
    assert (await operator.client.get("/accounts/nobody")).status_code == 404
    assert (await operator.post("/accounts/nobody/disable")).status_code == 404
    assert (await operator.post(f"/accounts/{VIEWER}/delete")).status_code == 404


# One's own ------------------------------------------------------------------------------------------------------------------------------


async def test_name_language_and_keys_belong_to_the_account(viewer: Person, new_person: Callable[[], Person]) -> None:
    assert 'id="letters" checked' in await viewer.get("/account")
    assert (await viewer.post("/account", display="陈 静", lang="en")).headers["location"] == "/account?done=saved"
    page = await viewer.get("/account?done=saved")
    assert "Saved." in page
    assert "陈 静" in page
    assert 'id="letters">' in page
    other = new_person()
    await other.client.post("/login", data={"name": VIEWER, "password": PASSWORD, "lang": "en"})
    assert 'id="letters">' in await other.get("/")
    assert (await viewer.post("/account/letters", letters="on")).status_code == 204
    assert 'id="letters" checked' in await other.get("/")


async def test_a_display_name_like_a_citizens_number_is_refused(viewer: Person) -> None:
    answer = await viewer.post("/account", display="138" + "0013" + "8000", lang="zh")
    assert answer.status_code == 400
    assert "看起来含有" in answer.text


async def test_own_sessions_are_listed_and_can_be_ended(
    viewer: Person, new_person: Callable[[], Person], engine: FleetEngine
) -> None:
    other = new_person()
    await other.sign_in(VIEWER)
    page = await viewer.get("/account")
    (session,) = re.findall(r'name="session" value="([0-9a-f]{64})"', page)
    assert "当前浏览器" in page
    assert (await viewer.post("/account/sessions/end", session="00" * 32)).status_code == 404
    assert (await viewer.post("/account/sessions/end", session="xyz")).status_code == 404
    assert (await viewer.post("/account/sessions/end", session=session)).headers["location"] == "/account?done=ended"
    assert (await other.client.get("/")).status_code == 302
    assert (await viewer.client.get("/")).status_code == 200


async def test_nobody_ends_the_session_of_another(viewer: Person, operator: Person) -> None:
    rows = re.findall(r'name="session" value="([0-9a-f]{64})"', await operator.get("/account"))
    assert rows == []
    await viewer.get("/")
    assert (await operator.client.get("/")).status_code == 200


async def test_signing_out_everywhere_means_here_too(
    viewer: Person, new_person: Callable[[], Person], engine: FleetEngine
) -> None:
    other = new_person()
    await other.sign_in(VIEWER)
    answer = await viewer.post("/account/sessions/end-all")
    assert answer.headers["location"] == "/login?why=signedOut"
    for person in (viewer, other):
        assert (await person.client.get("/")).status_code == 302
    assert await kinds(engine) == [("signOut", VIEWER, VIEWER)]


async def test_signing_in_again_leaves_no_old_session_behind(viewer: Person, engine: FleetEngine) -> None:
    before = viewer.client.cookies["kf_session"]
    await viewer.sign_in(VIEWER)
    assert viewer.client.cookies["kf_session"] != before
    assert len(await engine.read("SELECT 1 FROM login")) == 1


# Limits that were set -------------------------------------------------------------------------------------------------------------------


async def test_limits_of_sessions_follow_the_thresholds_at_once(operator: Person, viewer: Person, clock: HandClock) -> None:
    await operator.post("/thresholds/account.idle_min", value="5")
    clock.now_ms += 5 * 60_000
    assert (await viewer.client.get("/")).status_code == 302


async def test_the_length_of_passwords_and_the_lock_follow_too(operator: Person, viewer: Person, stranger: Person) -> None:
    await operator.post("/thresholds/account.password_min", value="20")
    assert "至少 20 个字符" in await viewer.get("/password")
    answer = await viewer.post("/password", old=PASSWORD, new="river-stone-4712", again="river-stone-4712")
    assert "密码至少 20 个字符" in answer.text
    await operator.post("/thresholds/account.failed_max", value="3")
    await operator.post("/thresholds/account.locked_min", value="60")
    for _ in range(3):
        await stranger.client.post("/login", data={"name": VIEWER, "password": "wrong", "lang": "zh"})
    assert "已锁定 至 11:42:07" in await operator.seen("/accounts")


def test_the_clock_of_these_tests_says_what_they_expect() -> None:
    assert NOW_MS % 60_000 == 7_000
