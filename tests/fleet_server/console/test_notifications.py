"""The page of notification channels: who may do what, what a form may be, and that no secret ever comes back out."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet_server.console import channels as forms
from fleet_server.console.channels import Before, form_again, form_of_channel, read_channel
from fleet_server.db import open_raw
from fleet_server.errors import Refused
from fleet_server.notifications import store
from fleet_server.notifications.digest import Digest
from fleet_server.notifications.planner import Message, Plan
from fleet_server.notifications.secrets import SecretBox
from tests.fleet_server.console.conftest import Person
from tests.support.channels import add_local_channel
from tests.support.clock import HandClock
from tests.support.fakes.http import Answer, serve
from tests.support.fakes.receiver import Receiver
from tests.support.seed import NOW_MS, OPERATOR, Seeded

PLANTED = "PLANTED-token-4711"
URL = f"https://10.1.2.3/hook?key={PLANTED}"
ALL = {"sev_P1": "on", "sev_P2": "on", "recoveries": "on", "every_min": "1"}
MAIL = {
    "host": "10.1.2.4",
    "port": "587",
    "security": "starttls",
    "sender": "fleet@example.org",
    "to": "duty@example.org\nlead@example.org",
    "user": "fleet",
    "password": PLANTED,
}


@pytest.fixture(autouse=True)
def authority(tmp_path: Path) -> Path:
    folder = tmp_path / "authority"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def database(seeded: Seeded) -> Iterator[sqlite3.Connection]:
    with closing(open_raw(seeded.path)) as connection:
        yield connection


def channel(seeded: Seeded, name: str = "duty") -> store.Stored:
    with database(seeded) as connection:
        return store.channel(connection, name)


def clear(seeded: Seeded, authority: Path, name: str = "duty") -> dict[str, Any]:
    row = channel(seeded, name)
    found: dict[str, Any] = json.loads(SecretBox(authority).open(row.secret, row.bound_to))
    return found


async def added(person: Person, kind: str = "wecom", name: str = "duty", **fields: str) -> str:
    answer = await person.post("/notifications/add", kind=kind, name=name, **{**ALL, "url": URL, **fields})
    assert answer.status_code == 200, answer.text
    return answer.text


def set_locally(seeded: Seeded, authority: Path, url: str, secret: str | None = None, kind: str = "webhook") -> store.Stored:
    """As `fleet-server channel` sets one: it may reach this machine."""
    with database(seeded) as connection:
        add_local_channel(connection, SecretBox(authority), url, secret, kind=kind, now_ms=NOW_MS)
    return channel(seeded)


# The page -------------------------------------------------------------------------------------------------------------------------------


async def test_without_a_channel_the_page_says_that_nobody_is_told(operator: Person) -> None:
    text = await operator.seen("/notifications")
    assert "还没有通知渠道：故障只能在控制台看到。" in text
    assert "添加渠道" in text


async def test_a_viewer_sees_channels_and_log_and_no_way_to_change_them(operator: Person, viewer: Person, seeded: Seeded) -> None:
    await added(operator)
    page = await viewer.get("/notifications")
    assert "企业微信机器人" in page
    assert "10.1.2.3" in page
    assert PLANTED not in page
    assert not re.search(r'hx-post="/notifications|/notifications/add|/edit', page)
    number = channel(seeded).id
    for path in ("/notifications/add", f"/notifications/{number}/edit", f"/notifications/{number}/remove"):
        assert (await viewer.client.get(path, headers={"HX-Request": "true"})).status_code == 403
        assert (await viewer.post(path)).status_code == 403
    for path in ("test", "enable", "disable"):
        assert (await viewer.post(f"/notifications/{number}/{path}")).status_code == 403


async def test_a_stranger_is_shown_the_way_in(stranger: Person) -> None:
    answer = await stranger.client.get("/notifications")
    assert answer.status_code in {302, 303}
    assert answer.headers["location"].startswith("/login")


async def test_what_a_channel_hears_is_said_in_words(operator: Person, viewer: Person, seeded: Seeded) -> None:
    with database(seeded) as connection:
        area = connection.execute("SELECT code, name_zh FROM area ORDER BY code").fetchone()
    await added(
        operator,
        **{
            f"area_{area[0]}": "on",
            "kind_NET": "on",
            "quiet_from_P2": "20:00",
            "quiet_to_P2": "08:00",
            "escalate_P1": "10",
            "every_min": "15",
        },
    )
    text = await viewer.seen("/notifications")
    for words in (
        "级别：紧急、严重",
        f"区域：{area[1]}",
        "类别：网络",
        "严重：20:00 至 08:00 不打扰",
        "紧急：10 分钟无人认领再提醒",
        "最多每 15 分钟一条",
    ):
        assert words in text
    assert "还没有消息" in text


async def test_no_page_form_or_answer_holds_a_secret(operator: Person, seeded: Seeded, caplog: pytest.LogCaptureFixture) -> None:
    said = [await added(operator, "dingtalk", secret="SEC" + PLANTED)]
    said.append(await added(operator, "mail", "office", url="", **MAIL))
    for name in ("duty", "office"):
        number = channel(seeded, name).id
        said.append(await operator.get(f"/notifications/{number}/edit", part=True))
        answer = await operator.post(f"/notifications/{number}/edit", name="", url=URL, secret=PLANTED, password=PLANTED)
        assert "不能为空。" in answer.text
        said.append(answer.text)
    said.append(await operator.get("/notifications"))
    assert [PLANTED in text for text in said] == [False] * len(said)
    assert PLANTED not in caplog.text
    with database(seeded) as connection:
        assert PLANTED not in "\n".join(connection.iterdump())


async def test_a_made_signing_secret_is_shown_once(operator: Person, seeded: Seeded, authority: Path) -> None:
    shown = await added(operator, "webhook")
    secret = clear(seeded, authority)["secret"]
    assert secret.startswith("whsec_")
    assert secret in shown
    assert secret not in await operator.get("/notifications")
    assert secret not in await operator.get(f"/notifications/{channel(seeded).id}/edit", part=True)


async def test_who_changed_what_is_kept_and_shown(operator: Person, viewer: Person, seeded: Seeded) -> None:
    await added(operator)
    number = channel(seeded).id
    for verb in ("disable", "enable"):
        assert (await operator.post(f"/notifications/{number}/{verb}")).status_code == 200
    assert (await operator.post(f"/notifications/{number}/edit", name="nights", **ALL)).status_code == 200
    assert (await operator.post(f"/notifications/{number}/remove")).status_code == 200
    with database(seeded) as connection:
        changes = store.changes(connection, 9)
        assert store.channels(connection) == []
    assert [(one.what, one.name, one.by) for one in changes] == [
        ("remove", "nights", OPERATOR),
        ("set", "nights", OPERATOR),
        ("enable", "duty", OPERATOR),
        ("disable", "duty", OPERATOR),
        ("add", "duty", OPERATOR),
    ]
    assert "operator 删除了“nights”" in await viewer.seen("/notifications")


async def test_a_change_keeps_the_secret_under_its_new_name(operator: Person, seeded: Seeded, authority: Path) -> None:
    await added(operator, "feishu", secret="S" + PLANTED)
    number = channel(seeded).id
    assert (await operator.post(f"/notifications/{number}/edit", name="nights", keyword="告警", **ALL)).status_code == 200
    assert clear(seeded, authority, "nights") == {"url": URL, "secret": "S" + PLANTED}
    assert json.loads(channel(seeded, "nights").config)["keyword"] == "告警"


async def test_a_new_address_hears_what_holds_and_an_old_one_keeps_what_it_heard(operator: Person, seeded: Seeded) -> None:
    await added(operator)
    number = channel(seeded).id
    with database(seeded) as connection:
        connection.execute(
            "INSERT INTO standing (channel, subject, severity, level, told_ms) VALUES (?, 'kf|X', 'P1', 0, 1)", (number,)
        )
    await operator.post(f"/notifications/{number}/edit", name="duty", **ALL, url=URL)
    with database(seeded) as connection:
        assert connection.execute("SELECT count(*) FROM standing").fetchone()[0] == 1
    await operator.post(f"/notifications/{number}/edit", name="duty", **ALL, url=URL + "2")
    with database(seeded) as connection:
        assert connection.execute("SELECT count(*) FROM standing").fetchone()[0] == 0


async def test_two_channels_of_one_name_are_refused(operator: Person) -> None:
    await added(operator)
    assert "已有同名渠道。" in await added(operator)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://127.0.0.1:8443/x", "地址指向本服务器自身"),
        ("https://[::1]/x", "地址指向本服务器自身"),
        ("https://localhost/x", "地址指向本服务器自身"),
        ("https://169.254.169.254/latest/meta-data", "不能作为通知目标"),
        ("https://100.100.100.200/latest", "不能作为通知目标"),
        ("http://10.1.2.3/", "请填写完整地址"),
        ("file:///etc/passwd", "请填写完整地址"),
        ("gopher://10.1.2.3/", "请填写完整地址"),
        ("", "请填写完整地址"),
    ],
)
async def test_an_address_that_a_channel_must_not_have_is_refused_with_the_reason(operator: Person, url: str, words: str) -> None:
    assert words in await added(operator, url=url)
    assert "还没有通知渠道" in await operator.seen("/notifications")


async def test_an_address_of_this_machine_stays_only_while_nobody_changes_it(
    operator: Person, seeded: Seeded, authority: Path
) -> None:
    row = set_locally(seeded, authority, "http://127.0.0.1:9/x", "whsec_" + "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
    assert (await operator.post(f"/notifications/{row.id}/edit", name="duty", **ALL)).text == ""
    assert json.loads(channel(seeded).config)["own_machine"] is True
    answer = await operator.post(f"/notifications/{row.id}/edit", name="duty", url="http://127.0.0.1:10/x", **ALL)
    assert "地址指向本服务器自身" in answer.text
    answer = await operator.post(f"/notifications/{row.id}/edit", name="duty", url="http://10.9.9.9/x", **ALL)
    assert answer.text == ""
    assert "own_machine" not in json.loads(channel(seeded).config)


async def test_a_stored_password_is_not_taken_to_another_server(operator: Person, seeded: Seeded, authority: Path) -> None:
    await added(operator, "mail", url="", **MAIL)
    number = channel(seeded).id
    kept = {**ALL, **MAIL, "name": "duty", "password": ""}
    assert (await operator.post(f"/notifications/{number}/edit", **{**kept, "to": "other@example.org"})).text == ""
    assert clear(seeded, authority)["password"] == PLANTED
    for change in ({"host": "10.6.6.6"}, {"port": "2525"}, {"user": "somebody"}, {"security": "tls"}):
        answer = await operator.post(f"/notifications/{number}/edit", **{**kept, **change})
        assert "请填写登录密码" in answer.text, change
    assert json.loads(channel(seeded).config)["host"] == "10.1.2.4"


async def test_a_lost_key_is_said_and_mended_by_setting_the_channel_anew(
    operator: Person, seeded: Seeded, authority: Path
) -> None:
    await added(operator)
    (authority / "channels.key").unlink()
    assert "不可用" in await operator.seen("/notifications")
    number = channel(seeded).id
    assert "请填写完整地址" in (await operator.post(f"/notifications/{number}/edit", name="duty", **ALL)).text
    assert (await operator.post(f"/notifications/{number}/edit", name="duty", url=URL, **ALL)).text == ""
    assert clear(seeded, authority)["url"] == URL


# Testing a channel, the log -----------------------------------------------------------------------------------------------------------------


async def test_a_test_message_is_sent_logged_and_changes_nothing_for_the_planner(
    operator: Person, seeded: Seeded, authority: Path, clock: HandClock
) -> None:
    secret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    receiver = Receiver(secret)
    with serve(receiver, now_ms=clock) as served:
        row = set_locally(seeded, authority, served.url("/"), secret)
        answer = await operator.post(f"/notifications/{row.id}/test")
        assert json.loads(answer.headers["HX-Trigger"])["kf:toast"]["text"] == "测试消息已送达“duty”"
        assert [tree["type"] for _, tree in receiver.received] == ["fleet.test"]
        assert (await operator.post(f"/notifications/{row.id}/test")).status_code == 409
        clock.now_ms += 11_000
        receiver.answers = [Answer(status=404)]
        answer = await operator.post(f"/notifications/{row.id}/test")
        assert json.loads(answer.headers["HX-Trigger"])["kf:toast"]["text"] == "测试消息未送达“duty”：对方回答错误 404"
    with database(seeded) as connection:
        assert [(line.state, line.error, line.test) for line in store.messages(connection, 9)] == [
            ("failed", "HTTP 404", True),
            ("sent", None, True),
        ]
        sent = store.sent_so_far(connection)[row.id]
        assert (sent.waiting, sent.last_ms, sent.paused_until_ms) == (False, None, 0)
        assert store.newest(connection) == {}
    text = await operator.seen("/notifications")
    assert "测试消息" in text
    assert "对方回答错误 404" in text


async def test_the_log_keeps_the_name_of_a_removed_channel_and_pages(
    operator: Person, viewer: Person, seeded: Seeded, authority: Path
) -> None:
    row = set_locally(seeded, authority, "http://127.0.0.1:9/x", "x")
    with database(seeded) as connection:
        for number in range(40):
            at_ms = NOW_MS - (40 - number) * 60_000
            store.queue(
                connection,
                Plan([Message(row.id, f"digest/{number}", Digest(id=f"m{number}", at_ms=at_ms, test=True))], []),
                at_ms,
            )
            due = store.claim(connection, store.due(connection, at_ms)[0], at_ms)
            assert due is not None
            store.delivered(connection, due, at_ms + 500)
        store.remove_channel(connection, "duty", by="t", now_ms=NOW_MS)
    page = await viewer.get("/notifications")
    assert page.count('class="n-to wrap-any">duty<') == 30
    older = re.search(r"/notifications\?before=(\d+)", page)
    assert older
    assert (await viewer.get(f"/notifications?before={older.group(1)}")).count('class="n-to wrap-any">duty<') == 10


@pytest.mark.parametrize(
    "path", ["/notifications?channel=x", "/notifications?before=x", "/notifications?before=-1&channel=99999999999999999999"]
)
async def test_odd_addresses_end_calmly(operator: Person, path: str) -> None:
    assert (await operator.client.get(path)).status_code in {200, 400, 404}


# Why not told -------------------------------------------------------------------------------------------------------------------------------


async def test_a_muted_fault_says_until_when_and_one_that_is_not_heard_says_why(
    operator: Person, viewer: Person, seeded: Seeded
) -> None:
    await added(operator, name="all", sev_P3="on", sev_P4="on")
    await added(operator, name="worst", sev_P2="")
    with database(seeded) as connection:
        fault, terminal = connection.execute(
            "SELECT id, terminal FROM fault WHERE cleared_ms IS NULL AND disputed = 0 AND severity = 'P2' ORDER BY id LIMIT 1"
        ).fetchone()
        connection.execute("DELETE FROM fault WHERE terminal = ? AND id <> ?", (terminal, fault))
        connection.execute("UPDATE terminal SET maintenance_until_ms = NULL WHERE id = ?", (terminal,))
        connection.execute("UPDATE fault SET muted_until_ms = ? WHERE id = ?", (NOW_MS + 3_600_000, fault))
        connection.execute("INSERT OR REPLACE INTO watch_mark (name, at_ms) VALUES ('watch', ?)", (NOW_MS,))
    text = await viewer.seen(f"/notifications?q={terminal}")
    assert "all、worst：已静默至" in text
    with database(seeded) as connection:
        connection.execute("UPDATE fault SET muted_until_ms = ? WHERE id = ?", (NOW_MS - 1, fault))
    text = await viewer.seen(f"/notifications?q={terminal}")
    assert "all：将随下一条消息发送。" in text
    assert "worst：不接收这个级别。" in text


# The form, without a server -------------------------------------------------------------------------------------------------------------------


def refused(kind: str, form: dict[str, str], before: Before | None = None) -> tuple[str, str]:
    with pytest.raises(Refused) as found:
        read_channel(kind, form, {"A1"}, before)
    return found.value.field, found.value.reason


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"name": " "}, ("name", "empty")),
        ({"name": "x" * 65}, ("name", "tooLong")),
        ({"name": "call 13812345678"}, ("name", "personal")),
        ({"sev_P1": "", "sev_P2": ""}, ("severities", "channelSeverities")),
        ({"quiet_from_P1": "20:00"}, ("quiet", "channelQuiet")),
        ({"quiet_from_P1": "20:00", "quiet_to_P1": "20:00"}, ("quiet", "channelQuiet")),
        ({"quiet_from_P1": "25:00", "quiet_to_P1": "08:00"}, ("quiet", "channelQuiet")),
        ({"escalate_P1": "0"}, ("escalate_min", "channelMinutes")),
        ({"escalate_P1": "-5"}, ("escalate_min", "channelMinutes")),
        ({"every_min": "1441"}, ("every_min", "channelMinutes")),
        ({"every_min": "١"}, ("every_min", "channelMinutes")),
        ({"secret": "whsec_short"}, ("secret", "channelSecret")),
    ],
)
def test_each_mistake_is_named(change: dict[str, str], expected: tuple[str, str]) -> None:
    assert refused("webhook", {"name": "duty", "url": URL, **ALL, **change}) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"host": ""}, ("host", "channelHost")),
        ({"host": "a b"}, ("host", "channelHost")),
        ({"port": "70000"}, ("port", "channelMailPort")),
        ({"port": "x"}, ("port", "channelMailPort")),
        ({"security": "ssl"}, ("security", "channelMailSecurity")),
        ({"sender": "nobody"}, ("sender", "channelMailSender")),
        ({"to": ""}, ("to", "channelMailTo")),
        ({"to": "a@example.org\nnobody"}, ("to", "channelMailTo")),
        ({"security": "none"}, ("security", "channelTls")),
        ({"password": ""}, ("password", "channelPassword")),
    ],
)
def test_each_mistake_of_a_mail_channel_is_named(change: dict[str, str], expected: tuple[str, str]) -> None:
    assert refused("mail", {"name": "duty", **ALL, **MAIL, **change}) == expected


@pytest.mark.parametrize("kind", ["webhook", "mail", "dingtalk", "wecom", "feishu"])
def test_a_form_that_is_sent_back_as_it_was_shown_changes_nothing(kind: str) -> None:
    fields = MAIL if kind == "mail" else {"url": URL, "keyword": "告警" if kind in forms.KEYWORD else ""}
    more = {
        "sev_P3": "on",
        "area_A1": "on",
        "kind_PRN": "on",
        "quiet_from_P3": "20:00",
        "quiet_to_P3": "08:00",
        "escalate_P2": "30",
    }
    made = read_channel(kind, {"name": "duty", **ALL, **more, **fields}, {"A1", "A2"})
    encode = msgspec.json.encode
    before = Before(made.name, encode(made.config).decode(), encode(made.filters).decode(), encode(made.secret))
    shown = form_of_channel(kind, before)
    assert PLANTED not in str(shown)
    again = read_channel(kind, shown, {"A1", "A2"}, before)
    assert (again.config, again.secret, again.filters, again.new_address, again.made) == (
        made.config,
        made.secret,
        made.filters,
        False,
        None,
    )


def test_reprs_and_refused_forms_hold_no_secret() -> None:
    draft = read_channel("wecom", {"name": "duty", "url": URL, **ALL}, set())
    before = Before("duty", "{}", "{}", PLANTED.encode())
    assert PLANTED not in repr(draft) + repr(before)
    assert PLANTED not in str(form_again({"name": "x", "url": PLANTED, "secret": PLANTED, "password": PLANTED}))


def test_an_area_that_is_not_there_cannot_be_chosen() -> None:
    assert read_channel("wecom", {"name": "duty", "url": URL, **ALL, "area_A1": "on", "area_B9": "on"}, {"A1"}).filters.areas == (
        "A1",
    )
