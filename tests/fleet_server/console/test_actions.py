"""What operators do: claim, note, maintenance, new terminals; and what they may not write."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fleet_server.console import actions
from fleet_server.console.actions import BadInventory, person_text, read_inventory
from fleet_server.engine import FleetEngine
from fleet_server.enrolment import codes
from fleet_server.errors import Refused
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, OPERATOR

HOUR = 3_600_000
OFFLINE = "kf-0152:ffffffffffffffff"


async def test_a_claim_shows_everywhere_and_can_be_given_back(operator: Person, viewer: Person, engine: FleetEngine) -> None:
    answer = await operator.post(f"/faults/{OFFLINE}/claim")
    assert answer.status_code == 200
    assert answer.headers["HX-Trigger"] == "kf:acted"
    assert f"/faults/{OFFLINE}/unclaim" in await operator.get("/faults")
    rows = await engine.read("SELECT claimed_by, claimed_ms FROM fault WHERE id = ?", (OFFLINE,))
    assert rows == [{"claimed_by": OPERATOR, "claimed_ms": NOW_MS}]
    assert "operator 认领" in await viewer.seen("/terminals/kf-0152")
    assert (await operator.post(f"/faults/{OFFLINE}/unclaim")).status_code == 200
    assert f"/faults/{OFFLINE}/claim" in await operator.get("/faults")


async def test_only_one_of_two_gets_a_fault(operator: Person, new_person: Callable[[], Person], engine: FleetEngine) -> None:
    await engine.write(lambda connection: connection.execute("UPDATE staff SET role = 'operator' WHERE name = 'viewer'"))
    second = new_person()
    await second.sign_in("viewer")
    assert (await operator.post(f"/faults/{OFFLINE}/claim")).status_code == 200
    answer = await second.post(f"/faults/{OFFLINE}/claim")
    assert answer.status_code == 409
    assert "已被别人认领" in answer.text
    assert (await second.post(f"/faults/{OFFLINE}/unclaim")).status_code == 409


async def test_what_has_recovered_cannot_be_claimed(operator: Person, engine: FleetEngine) -> None:
    await engine.write(lambda connection: connection.execute("UPDATE fault SET cleared_ms = 1 WHERE id = ?", (OFFLINE,)))
    answer = await operator.post(f"/faults/{OFFLINE}/claim")
    assert (answer.status_code, answer.text) == (409, "故障已恢复。")


async def test_nobody_can_close_a_fault(operator: Person, engine: FleetEngine) -> None:
    for verb in ("clear", "close", "recover", "delete"):
        assert (await operator.post(f"/faults/{OFFLINE}/{verb}")).status_code in {404, 405}
    assert (await engine.read("SELECT cleared_ms FROM fault WHERE id = ?", (OFFLINE,)))[0]["cleared_ms"] is None


async def test_a_note_is_kept_with_its_author(operator: Person, viewer: Person) -> None:
    assert (await operator.post(f"/faults/{OFFLINE}/note", text="已电话\n通知  网格员")).status_code == 200
    assert "operator 备注：已电话 通知 网格员" in await viewer.seen("/terminals/kf-0152")


def resident_number() -> str:
    """Looks like one; its check digit is wrong on purpose."""
    return "330702" + "19900101" + "0015"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "x" * 501,
        "证件 " + resident_number(),
        "电话 138" + "0013" + "8000",
        "138 0013 8000 李",
        "33070219900101" + "001x",
    ],
    ids=["empty", "blank", "long", "resident", "mobile", "spaced mobile", "resident x"],
)
async def test_a_note_about_a_citizen_is_refused(operator: Person, engine: FleetEngine, text: str) -> None:
    answer = await operator.post(f"/faults/{OFFLINE}/note", text=text)
    assert answer.status_code == 200
    assert 'role="alert"' in answer.text
    assert await engine.read("SELECT 1 FROM fault_event WHERE kind = 'note'") == []


@pytest.mark.parametrize(
    "text", ["KF-0317 换了 2 卷纸", "序列号 123456789012", "2026-11-18 10:42 到场", "工单 20261118-0042", "10.20.30.40"]
)
def test_ordinary_notes_pass(text: str) -> None:
    assert person_text("text", text, 500) == text


async def test_maintenance_has_a_reason_and_an_end(operator: Person, clock: HandClock) -> None:
    assert (await operator.post("/terminals/kf-0037/maintenance", reason="更换硒鼓", until="2h")).status_code == 200
    page = await operator.seen("/terminals/kf-0037")
    assert "维护中：更换硒鼓（operator），到 2026-11-18 12:42:07 自动结束。 另有故障：A4 打印机卡纸。".replace(
        "。 另", "。另"
    ) in page.replace("。 另", "。另")
    assert "KF-0037" not in (await operator.seen("/")).partition("最近变化")[0]
    for _ in range(5):
        clock.now_ms += 24 * 60_000
        assert (await operator.post("/here")).status_code == 204
    assert "异常·不能办事" in await operator.seen("/terminals/kf-0037")


async def test_maintenance_can_be_ended_by_hand(operator: Person) -> None:
    assert (await operator.post("/terminals/kf-0181/maintenance/end")).status_code == 200
    assert "维护中" not in (await operator.seen("/terminals/kf-0181")).partition("状态时间线")[0]
    answer = await operator.post("/terminals/kf-0181/maintenance/end")
    assert (answer.status_code, answer.text) == (409, "没有处于维护中。")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"reason": "", "until": "2h"}, "不能为空"),
        ({"reason": "x", "until": "8d"}, "结束时间不符合要求"),
        ({"reason": "x", "until": ""}, "结束时间不符合要求"),
        ({"reason": "找 138" + "0013" + "8000", "until": "2h"}, "身份证号或手机号"),
    ],
)
async def test_maintenance_without_sense_is_refused(operator: Person, fields: dict[str, str], sentence: str) -> None:
    assert sentence in (await operator.post("/terminals/kf-0037/maintenance", **fields)).text


def test_maintenance_ends_within_seven_days() -> None:
    assert actions.until_of("7d", NOW_MS, "Asia/Shanghai") - NOW_MS == actions.LONGEST_MAINTENANCE_MS
    assert actions.until_of("today", NOW_MS, "Asia/Shanghai") - NOW_MS < 14 * HOUR
    with pytest.raises(Refused):
        actions.until_of("never", NOW_MS, "Asia/Shanghai")


NEW = {
    "code": "KF-0401",
    "type": "kiosk",
    "name_zh": "新机",
    "name_en": "New",
    "site": "jindong-hall",
    "class": "government",
    "inventory": "id-reader M\r\nscanner o\r\n",
}


async def test_adding_a_terminal_shows_a_code_once_and_keeps_only_its_hash(operator: Person, engine: FleetEngine) -> None:
    answer = await operator.post("/terminals/add", **NEW)
    found = re.search(r'class="code-big"[^>]*>([A-Z2-7-]+)<', answer.text)
    assert found
    code = found.group(1)
    assert f"edge-agent enrol --terminal kf-0401 --server https://127.0.0.1:8443 --ca-file ca.pem --code {code}" in answer.text
    rows = await engine.read("SELECT * FROM enrolment_code WHERE terminal = 'kf-0401'")
    assert rows[0]["code_hash"] == codes.digest("kf-0401", code.replace("-", ""))
    assert rows[0]["created_by"] == OPERATOR
    assert code not in repr(rows)
    assert "待接入" in await operator.seen("/terminals?q=KF-0401")
    assert (
        '"slot": "id-reader", "mandatory": true'
        in (await engine.read("SELECT inventory FROM terminal WHERE id = 'kf-0401'"))[0]["inventory"]
    )


async def test_a_terminal_that_waits_gets_a_new_code_and_the_old_one_dies(operator: Person, engine: FleetEngine) -> None:
    await operator.post("/terminals/kf-0201/code")
    await operator.post("/terminals/kf-0201/code")
    rows = await engine.read("SELECT expires_ms FROM enrolment_code WHERE terminal = 'kf-0201' ORDER BY id")
    assert [row["expires_ms"] > NOW_MS for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"code": "KF-0016"}, "这个编号已经存在"),
        ({"code": "kf-0016"}, "这个编号已经存在"),
        ({"code": "KF 1"}, "编号只能用"),
        ({"code": "-x-"}, "编号只能用"),
        ({"code": "X" * 33}, "编号只能用"),
        ({"type": "spaceship"}, "没有这种终端类型"),
        ({"site": ""}, "请选择点位"),
        ({"site": "nowhere"}, "请选择点位"),
        ({"name_zh": ""}, "不能为空"),
        ({"name_zh": "金" * 41}, "太长"),
        ({"inventory": "id-reader M\nBAD SLOT x"}, "第 2 行不符合格式"),
    ],
)
async def test_a_form_that_does_not_fit_comes_back_with_what_was_typed(
    operator: Person, engine: FleetEngine, change: dict[str, str], sentence: str
) -> None:
    before = await engine.read("SELECT count(*) AS n FROM terminal")
    answer = await operator.post("/terminals/add", **{**NEW, **change})
    assert answer.status_code == 200
    assert sentence in answer.text
    assert 'value="New"' in answer.text
    assert await engine.read("SELECT count(*) AS n FROM terminal") == before


@pytest.mark.parametrize("text", ["id-reader X", "id reader M", "Id-Reader M", "a M\na o", "x" * 70])
def test_inventories_that_do_not_fit(text: str) -> None:
    with pytest.raises(BadInventory):
        read_inventory(text)


def test_an_inventory_may_be_empty_and_marks_are_optional() -> None:
    assert read_inventory("\n  \n") == ()
    assert read_inventory("call-pad-3") == ({"slot": "call-pad-3", "mandatory": False},)
