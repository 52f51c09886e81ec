"""Orders in the console: asked from a terminal and from a selection, approved by a second person, told in sentences, retried, exported."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from fleet_server.db import open_raw
from fleet_server.orders import requests
from fleet_server.public.opening import UNKNOWN_HOURS
from fleet_server.public.rows import read_live
from fleet_server.public.rules import Word, contact_word
from protocols.contract.orders import Restart
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.orders import (
    APPROVER,
    AUDITOR,
    CONFIGURED,
    LOCKED,
    REQUESTER,
    TALKATIVE,
    add_people,
    lock_now,
    report,
    seed_orders,
    sign,
)
from tests.support.seed import NOW_MS, OPERATOR, Seeded

HOUR = 3_600_000


@pytest.fixture
def database(seeded: Seeded) -> Iterator[sqlite3.Connection]:
    with closing(open_raw(seeded.path)) as connection:
        connection.isolation_level = None
        yield connection


@pytest.fixture
def people(database: sqlite3.Connection) -> None:
    add_people(database, NOW_MS)


@pytest.fixture
def ordered(database: sqlite3.Connection) -> None:
    seed_orders(database, NOW_MS)


@pytest.fixture
async def requester(new_person: Callable[[], Person], people: None) -> Person:
    person = new_person()
    await person.sign_in(REQUESTER)
    return person


@pytest.fixture
async def approver(new_person: Callable[[], Person], people: None) -> Person:
    person = new_person()
    await person.sign_in(APPROVER)
    return person


def newest(database: sqlite3.Connection) -> requests.Request:
    row = database.execute(f"SELECT {requests.REQUEST_COLUMNS} FROM order_request ORDER BY rowid DESC LIMIT 1").fetchone()
    return requests.as_request(row)


# Asking ---------------------------------------------------------------------------------------------------------------------------------


async def test_a_test_of_a_device_is_asked_from_its_terminal(operator: Person, database: sqlite3.Connection) -> None:
    dialog = await operator.seen("/terminals/kf-0037/orders/test")
    assert "凭条打印机：打印测试页" in dialog
    assert "身份证阅读器：试读一次" in dialog
    assert "身份证阅读器：打印测试页" not in dialog
    assert "一个人即可下发。" in dialog
    answer = await operator.post(
        "/terminals/orders/test", id="kf-0037", choice="receipt-printer print", valid="15m", note="换纸后试打"
    )
    assert answer.status_code == 200
    assert "kf:toast" in answer.headers["HX-Trigger"]
    row = newest(database)
    assert (row.kind, row.requested_by, row.state, row.needs_two, row.note) == (
        "selfTest",
        OPERATOR,
        "approved",
        "",
        "换纸后试打",
    )
    assert row.expires_ms == NOW_MS + 15 * 60_000
    page = await operator.seen("/terminals/kf-0037?tab=orders")
    assert "让凭条打印机打印测试页" in page
    assert "等待服务器签名。" in page


@pytest.mark.parametrize(
    ("fields", "two"),
    [
        ({"what": "application", "when": "idle"}, ""),
        ({"what": "agent", "when": "idle"}, ""),
        ({"what": "application", "when": "now"}, "risky"),
        ({"what": "host", "when": "idle"}, "risky"),
    ],
)
async def test_a_restart_that_interrupts_waits_for_a_second_person(
    operator: Person, database: sqlite3.Connection, fields: dict[str, str], two: str
) -> None:
    answer = await operator.post("/terminals/orders/restart", id="kf-0037", **fields)
    assert answer.status_code == 200, answer.text
    row = newest(database)
    assert (row.needs_two, row.state) == (two, "waiting" if two else "approved")


async def test_wrong_fields_are_answered_in_the_dialog(operator: Person, database: sqlite3.Connection) -> None:
    for action, fields, sentence in (
        ("test", {"choice": "id-reader print"}, "请选择测试内容。"),
        ("test", {"choice": "door query"}, "所选终端都不能执行这个指令。"),
        ("restart", {"what": "city"}, "请选择重启什么、什么时候。"),
        ("logs", {"from": "2026-11-18T10:00", "to": "2026-11-18T09:00"}, "日志时间段不对"),
        ("lock", {"zh": ""}, "field-error"),
        ("lock", {"zh": "联系 13812345678"}, "field-error"),
        ("restart", {"what": "agent", "when": "idle", "note": "330702199001011235"}, "field-error"),
        ("configuration", {"version": "99"}, "没有这个配置版本。"),
    ):
        answer = await operator.post(f"/terminals/orders/{action}", id="kf-0037", **fields)
        assert answer.status_code == 200
        assert sentence in answer.text, (action, fields)
        assert "<dialog" in answer.text
    assert database.execute("SELECT count(*) FROM order_request").fetchone()[0] == 0


async def test_a_selection_names_what_and_how_many(operator: Person, database: sqlite3.Connection) -> None:
    answer = await operator.client.post(
        "/terminals/orders/form",
        data={"id": ["kf-0037", "kf-0016", "kf-0201"], "action": "restart"},
        headers={"X-CSRF-Token": operator.csrf, "HX-Request": "true"},
    )
    assert "将对 2 台终端执行。" in answer.text
    assert "1 台未入网，不会下发。" in answer.text
    assert re.findall(r'name="id" value="([^"]+)"', answer.text) == ["kf-0037", "kf-0016"]
    answer = await operator.client.post(
        "/terminals/orders/restart",
        data={"id": ["kf-0037", "kf-0016"], "what": "agent", "when": "idle"},
        headers={"X-CSRF-Token": operator.csrf, "HX-Request": "true"},
    )
    row = newest(database)
    assert answer.headers["HX-Redirect"] == f"/orders/{row.id.hex()}"
    assert row.terminals == 2


async def test_many_at_once_need_a_second_person_and_the_dialog_says_so(operator: Person, database: sqlite3.Connection) -> None:
    ids = [row[0] for row in database.execute("SELECT id FROM terminal WHERE enrolled_ms IS NOT NULL ORDER BY id LIMIT 21")]
    headers = {"X-CSRF-Token": operator.csrf, "HX-Request": "true"}
    dialog = await operator.client.post("/terminals/orders/form", data={"id": ids, "action": "lock"}, headers=headers)
    assert "一小时内涉及 20 台以上：需要另一人批准后才会下发。" in dialog.text
    await operator.client.post("/terminals/orders/lock", data={"id": ids, "zh": "停电检修"}, headers=headers)
    assert newest(database).needs_two == "batch"


async def test_a_test_leaves_out_terminals_without_the_device(operator: Person, database: sqlite3.Connection) -> None:
    answer = await operator.client.post(
        "/terminals/orders/test",
        data={"id": ["kf-0037", "kf-0013"], "choice": "id-reader read"},
        headers={"X-CSRF-Token": operator.csrf, "HX-Request": "true"},
    )
    assert answer.status_code == 200
    items = database.execute("SELECT terminal FROM order_item WHERE request = ?", (newest(database).id,)).fetchall()
    assert items == [("kf-0037",)], "a set of call pads has no reader"


# Approving ------------------------------------------------------------------------------------------------------------------------------


async def test_what_one_asks_another_approves(requester: Person, approver: Person, database: sqlite3.Connection) -> None:
    await requester.post("/terminals/orders/restart", id="kf-0016", what="host", when="idle", note="反复报缺纸")
    row = newest(database)
    assert "data-approvals" in await approver.get("/")
    page = await approver.seen("/approvals")
    for word in ("等没有人办理时重启主机", "requester", "KF-0016", "反复报缺纸", "批准", "驳回"):
        assert word in page
    assert "没有待审批的指令。" in await requester.seen("/approvals")
    answer = await approver.post(f"/orders/{row.id.hex()}/approve")
    assert answer.status_code == 200
    after = requests.get(database, row.id)
    assert (after.state, after.decided_by) == ("approved", APPROVER)
    assert "approver 于" in await requester.seen(f"/orders/{row.id.hex()}")


async def test_nobody_approves_their_own(operator: Person, database: sqlite3.Connection) -> None:
    await operator.post("/terminals/orders/restart", id="kf-0016", what="host", when="idle")
    row = newest(database)
    page = await operator.seen("/approvals")
    assert "这是你自己的申请，须由另一人审批。" in page
    assert f"/orders/{row.id.hex()}/approve" not in await operator.get("/approvals")
    answer = await operator.post(f"/orders/{row.id.hex()}/approve")
    assert answer.status_code == 400
    assert "自己" in answer.text
    assert requests.get(database, row.id).state == "waiting"
    answer = await operator.post(f"/orders/{row.id.hex()}/reject", note="改主意了")
    assert "自己" in answer.text
    assert requests.get(database, row.id).state == "waiting"


async def test_a_requester_is_told_why_not(requester: Person, operator: Person, database: sqlite3.Connection) -> None:
    await operator.post("/terminals/orders/restart", id="kf-0016", what="host", when="idle")
    page = await requester.seen(f"/orders/{newest(database).id.hex()}")
    assert "你的角色不能审批，可以查看。" in page
    assert (await requester.post(f"/orders/{newest(database).id.hex()}/approve")).status_code == 403


async def test_a_rejection_needs_a_reason_that_the_requester_reads(
    requester: Person, approver: Person, database: sqlite3.Connection
) -> None:
    await requester.post("/terminals/orders/restart", id="kf-0016", what="host", when="now")
    row = newest(database)
    empty = await approver.post(f"/orders/{row.id.hex()}/reject", note=" ")
    assert "<dialog" in empty.text
    assert requests.get(database, row.id).state == "waiting"
    await approver.post(f"/orders/{row.id.hex()}/reject", note="高峰时段")
    assert requests.get(database, row.id).state == "rejected"
    page = await requester.seen(f"/orders/{row.id.hex()}")
    assert "驳回：高峰时段" in page
    assert "申请被驳回。" in page


async def test_a_request_is_taken_back_by_whoever_asked(
    requester: Person, approver: Person, database: sqlite3.Connection
) -> None:
    await requester.post("/terminals/orders/restart", id="kf-0016", what="host", when="now")
    row = newest(database)
    assert (await approver.post(f"/orders/{row.id.hex()}/withdraw")).status_code == 403
    assert (await requester.post(f"/orders/{row.id.hex()}/withdraw")).status_code == 200
    assert requests.get(database, row.id).state == "withdrawn"


async def test_two_who_decide_at_once_are_not_both_told_yes(
    requester: Person, approver: Person, operator: Person, database: sqlite3.Connection
) -> None:
    await requester.post("/terminals/orders/restart", id="kf-0016", what="host", when="now")
    row = newest(database)
    assert (await approver.post(f"/orders/{row.id.hex()}/approve")).status_code == 200
    late = await operator.post(f"/orders/{row.id.hex()}/approve")
    assert late.status_code == 409
    assert "已经处理过" in late.text


async def test_a_request_that_nobody_approved_in_time_is_no_longer_offered(
    requester: Person, operator: Person, database: sqlite3.Connection, clock: HandClock
) -> None:
    await requester.post("/terminals/orders/restart", id="kf-0016", what="host", when="idle", valid="15m")
    assert "等没有人办理时重启主机" in await operator.seen("/approvals")
    clock.now_ms += 16 * 60_000
    assert "等没有人办理时重启主机" not in await operator.seen("/approvals")
    assert (await operator.post(f"/orders/{newest(database).id.hex()}/approve")).status_code == 409


# Results --------------------------------------------------------------------------------------------------------------------------------


async def test_the_list_tells_all_and_filters(operator: Person, ordered: None) -> None:
    page = await operator.seen("/orders")
    for word in ("等没有人办理时重启自助应用", "KF-0001 等 5 台", "进行中", "待审批", "已驳回", "取回"):
        assert word in page
    assert "3 / 5" in page
    only = await operator.seen("/orders?kind=lock")
    assert "锁定终端" in only
    assert "重启" not in only.partition("申请时间")[2]
    assert "等没有人办理时重启自助应用" in await operator.seen("/orders?state=failed")
    assert "没有符合条件的指令。" in await operator.seen("/orders?kind=unlock")


async def test_one_order_tells_each_terminal_with_its_reason(
    operator: Person, ordered: None, database: sqlite3.Connection
) -> None:
    wanted = database.execute("SELECT id FROM order_request WHERE kind = 'restart' AND terminals = 5").fetchone()[0]
    page = await operator.seen(f"/orders/{wanted.hex()}")
    for sentence in ("终端已完成。", "终端没有设置重启的方法。", "有人正在办理业务，等办完再执行。", "3 / 5"):
        assert sentence in page
    failed = await operator.seen(f"/orders/{wanted.hex()}?result=failed")
    assert "终端没有设置重启的方法。" in failed
    assert "终端已完成。" not in failed
    answer = await operator.client.get(f"/orders/{wanted.hex()}/result.csv")
    rows = list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert len(rows) == 6
    assert rows[1][3:6] == ["等没有人办理时重启自助应用", "失败", "终端没有设置重启的方法。"]


async def test_what_failed_is_asked_again_alone(operator: Person, ordered: None, database: sqlite3.Connection) -> None:
    wanted = database.execute("SELECT id FROM order_request WHERE kind = 'restart' AND terminals = 5").fetchone()[0]
    failed = database.execute("SELECT terminal FROM order_item WHERE request = ? AND state = 'failed'", (wanted,)).fetchall()
    answer = await operator.post(f"/orders/{wanted.hex()}/retry")
    row = newest(database)
    assert answer.headers["HX-Redirect"] == f"/orders/{row.id.hex()}"
    assert database.execute("SELECT terminal FROM order_item WHERE request = ?", (row.id,)).fetchall() == failed
    assert row.kind == "restart"
    done = database.execute("SELECT id FROM order_request WHERE kind = 'lock'").fetchone()[0]
    assert (await operator.post(f"/orders/{done.hex()}/retry")).status_code == 409


async def test_what_waits_is_cancelled(operator: Person, people: None, database: sqlite3.Connection) -> None:
    wanted = requests.request_order(
        database, ["kf-0016", "kf-0037"], Restart(what="agent"), by=OPERATOR, expires_ms=NOW_MS + HOUR, now_ms=NOW_MS
    )
    sign(database, wanted, NOW_MS)
    report(database, wanted, "kf-0016", "waiting", "session", NOW_MS)
    report(database, wanted, "kf-0037", "done", "none", NOW_MS)
    assert f"/orders/{wanted.hex()}/cancel" in await operator.get(f"/orders/{wanted.hex()}")
    assert (await operator.post(f"/orders/{wanted.hex()}/cancel")).status_code == 200
    row = newest(database)
    assert (row.kind, row.terminals) == ("cancel", 1)
    assert "撤销还没有开始的指令" in await operator.seen("/terminals/kf-0016?tab=orders")


async def test_a_terminal_tells_its_orders_step_by_step(operator: Person, ordered: None) -> None:
    page = await operator.seen(f"/terminals/{TALKATIVE}?tab=orders")
    for sentence in (
        "operator 申请。",
        "服务器签名下发。",
        "终端已收到。",
        "设备报告了故障。",
        "设备正被其他程序占用。",
        "等待另一人审批。",
    ):
        assert sentence in page


@pytest.mark.parametrize("wanted", ["x", "00", "g" * 32, "0" * 34])
async def test_an_address_of_no_request_is_not_found(operator: Person, wanted: str) -> None:
    assert (await operator.client.get(f"/orders/{wanted}")).status_code == 404


# Locked ---------------------------------------------------------------------------------------------------------------------------------


async def test_a_locked_terminal_is_out_of_use_on_purpose(operator: Person, ordered: None) -> None:
    page = await operator.seen(f"/terminals/{LOCKED}")
    assert "已锁定：人为停用，不办理业务。" in page
    assert "屏幕显示：本机读卡区维护，请使用旁边的终端。" in page
    assert "维护中" in page
    listed = await operator.get("/terminals?state=MAINTENANCE")
    assert f'id="row-{LOCKED}"' in listed
    assert "已锁定" in listed
    # Its fault needs nobody while it serves nobody.
    assert LOCKED not in await operator.get("/needs")


async def test_a_lock_counts_once_the_terminal_says_so(operator: Person, database: sqlite3.Connection) -> None:
    database.execute(
        "INSERT INTO wanted (terminal, lock, lock_by, lock_ms, changed_by) VALUES ('kf-0005', '{\"zh\":\"停用\"}', 'operator', 1, 'x')"
    )
    database.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0005', 'order')")
    page = await operator.seen("/terminals/kf-0005")
    assert "已要求锁定，终端还没有确认。" in page
    assert "已锁定：" not in page
    lock_now(database, "kf-0005", "停用", NOW_MS)
    assert "已锁定：" in await operator.seen("/terminals/kf-0005")
    database.execute("UPDATE wanted SET lock = NULL WHERE terminal = 'kf-0005'")
    database.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0005', 'order')")
    assert "已要求解锁，终端还没有确认。" in await operator.seen("/terminals/kf-0005")


# Configuration --------------------------------------------------------------------------------------------------------------------------


def fields_of(page: str) -> dict[str, str]:
    """What stands in the form."""
    found = dict(re.findall(r'<input name="([di]\d+\.\w+|\w+_s)" value="([^"]*)"', page))
    for name, options in re.findall(r'<select name="([di]\d+\.\w+)"[^>]*>(.*?)</select>', page, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)" selected', options)
        found[name] = chosen[1] if chosen else ""
    return found


async def test_a_configuration_is_edited_diffed_and_brought_back(
    operator: Person, ordered: None, database: sqlite3.Connection
) -> None:
    page = await operator.get(f"/terminals/{CONFIGURED}/configuration")
    form = fields_of(page)
    assert (form["d1.slot"], form["d1.family"], form["d1.port"]) == ("laser-printer", "a4-printer", "1-1.2")
    same = await operator.post(f"/terminals/{CONFIGURED}/configuration", **form, do="save")
    assert "内容没有变化，没有保存。" in same.text
    form |= {"d1.port": "1-1.6", "d3.mandatory": "no", "summary_s": "1200"}
    saved = await operator.post(f"/terminals/{CONFIGURED}/configuration", **form, do="save", note="换口")
    assert saved.status_code == 303, saved.text[:400]
    row = newest(database)
    assert (row.kind, row.state, row.needs_two) == ("configuration", "waiting", "risky")
    told = await operator.seen(f"/orders/{row.id.hex()}")
    assert "设备A4 打印机的“端口”由“1-1.2”改为“1-1.6”。" in told
    assert "设备扫码器的“必备”由“必备”改为“可选”。" in told
    assert "汇总间隔（秒）由 900 改为 1200。" in told
    # Back to the first version once another is wanted.
    database.execute("UPDATE order_request SET state = 'approved' WHERE id = ?", (row.id,))
    version = database.execute("SELECT max(version) FROM configuration").fetchone()[0]
    database.execute("UPDATE wanted SET configuration = ? WHERE terminal = ?", (version, CONFIGURED))
    page = await operator.get(f"/terminals/{CONFIGURED}/configuration")
    assert f"/terminals/{CONFIGURED}/configuration/1/back" in page
    dialog = await operator.seen(f"/terminals/{CONFIGURED}/configuration/1/back")
    assert "由“1-1.6”改为“1-1.2”。" in dialog
    await operator.post("/terminals/orders/configuration", id=CONFIGURED, version="1", note="新口接触不良")
    back = newest(database)
    assert (back.kind, json.loads(back.body)["version"], back.state) == ("configuration", 1, "waiting")
    database.execute("UPDATE configuration SET content = replace(content, '1-1.2', '1-1.9') WHERE version = 1")
    assert "申请内容与提交时不一致，不能审批。" in await operator.seen(f"/orders/{back.id.hex()}")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"d0.slot": "ID Reader"}, "位置名称只能用小写字母"),
        ({"d0.slot": "laser-printer"}, "这一项填了两次。"),
        ({"d0.family": "toaster"}, "没有这种类别。"),
        ({"d0.profile": "No Such"}, "没有这个型号档案。"),
        ({"d0.port": "a b"}, "端口写法不对"),
        ({"d0.port": "1-1.2"}, "同一端口上的设备都要填写不同的地址。"),
        ({"d0.address": "300"}, "地址须为 0 至 255 的整数。"),
        ({"i0.code": "330702199001011235"}, "事项编码写法不对"),
        ({"summary_s": "5"}, "须为 60 至 86400 的整数。"),
        ({"summary_s": "x"}, "须为 60 至 86400 的整数。"),
    ],
)
async def test_a_configuration_that_no_terminal_would_take_is_not_saved(
    operator: Person, ordered: None, database: sqlite3.Connection, change: dict[str, str], sentence: str
) -> None:
    before = database.execute("SELECT count(*) FROM configuration").fetchone()[0]
    form = fields_of(await operator.get(f"/terminals/{CONFIGURED}/configuration")) | change
    answer = await operator.post(f"/terminals/{CONFIGURED}/configuration", **form, do="save")
    assert answer.status_code == 400
    assert sentence in answer.text
    assert 'aria-invalid="true"' in answer.text
    assert database.execute("SELECT count(*) FROM configuration").fetchone()[0] == before


async def test_rows_come_and_go_before_anything_is_saved(operator: Person, ordered: None, database: sqlite3.Connection) -> None:
    form = fields_of(await operator.get(f"/terminals/{CONFIGURED}/configuration"))
    more = fields_of((await operator.post(f"/terminals/{CONFIGURED}/configuration", **form, do="addDevice")).text)
    assert "d4.slot" in more
    assert "d4.slot" not in form
    less = fields_of((await operator.post(f"/terminals/{CONFIGURED}/configuration", **form, do="removeDevice-0")).text)
    assert less["d0.slot"] == "laser-printer"
    assert "d3.slot" not in less
    assert database.execute("SELECT count(*) FROM configuration").fetchone()[0] == 2


async def test_where_nothing_was_sent_the_form_begins_with_the_inventory(operator: Person) -> None:
    page = await operator.get("/terminals/kf-0058/configuration")
    assert "还没有下发过配置" in page
    form = fields_of(page)
    assert (form["d0.slot"], form["d0.family"]) == ("id-reader", "id-reader")
    assert (form["d1.slot"], form["d1.family"]) == ("laser-printer", "a4-printer")


async def test_a_viewer_sees_a_configuration_and_cannot_change_it(viewer: Person, ordered: None) -> None:
    page = await viewer.get(f"/terminals/{CONFIGURED}/configuration")
    assert "保存为新版本并提交审批</button></div>" not in page
    assert "<fieldset disabled>" in page


# Roles ----------------------------------------------------------------------------------------------------------------------------------


async def test_each_role_is_shown_what_it_may_do(
    requester: Person, approver: Person, viewer: Person, new_person: Callable[[], Person], database: sqlite3.Connection
) -> None:
    auditor = new_person()
    await auditor.sign_in(AUDITOR)
    for person, remote, audit in (
        (requester, True, False),
        (approver, False, False),
        (auditor, False, True),
        (viewer, False, False),
    ):
        page = await person.get("/terminals/kf-0037")
        assert ("/terminals/kf-0037/orders/restart" in page) is remote
        assert "/retire" not in page
        assert ('href="/audit"' in await person.get("/orders")) is audit
        assert (await person.client.get("/audit")).status_code == (200 if audit else 403)
        assert ("data-pick" in await person.get("/terminals")) is remote


async def test_the_page_of_accounts_explains_every_role(operator: Person) -> None:
    page = await operator.seen("/accounts")
    for words in ("可以发起指令申请", "审批他人发起的指令", "查看并导出审计日志", "能看全部页面，不能操作。"):
        assert words in page


async def test_the_overview_counts_locked_terminals_among_those_out_of_play(operator: Person, ordered: None) -> None:
    page = await operator.get("/")
    assert "维护中的终端里有 1 台已锁定。" in page
    assert "维护中 3" in page


async def test_citizens_are_told_that_a_locked_terminal_serves_nobody(seeded: Seeded, database: sqlite3.Connection) -> None:
    lock_now(database, "kf-0005", "停用", NOW_MS)
    with closing(open_raw(seeded.path)) as reader:
        reader.row_factory = sqlite3.Row
        locked = [row for row in read_live(reader, NOW_MS).terminals if row.locked]
    assert len(locked) == 1
    assert contact_word(locked[0], UNKNOWN_HOURS, False, NOW_MS).word is Word.UNAVAILABLE
