"""Mutes that end, false alarms that are counted, and many faults at once."""

from __future__ import annotations

import json
import re
import sqlite3

import pytest

from fleet_server.console import actions
from fleet_server.engine import FleetEngine
from fleet_server.errors import Refused
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, OPERATOR

HOUR = 3_600_000
OFFLINE = "kf-0152:ffffffffffffffff"
ZONE = "Asia/Shanghai"


async def open_ids(engine: FleetEngine) -> list[str]:
    return [row["id"] for row in await engine.read("SELECT id FROM fault WHERE cleared_ms IS NULL AND disputed = 0 ORDER BY id")]


async def needed(person: Person) -> int:
    found = re.search(r'id="needs-state"[^>]*data-n="(\d+)"', await person.get("/"))
    assert found
    return int(found.group(1))


async def test_a_mute_takes_a_fault_off_the_list_of_needs_and_ends_with_its_time(
    operator: Person, engine: FleetEngine, clock: HandClock
) -> None:
    before = await needed(operator)
    answer = await operator.post(f"/faults/{OFFLINE}/mute", until="1h", reason="等运营商")
    assert answer.headers["HX-Trigger"] == "kf:acted"
    assert await needed(operator) == before - 1
    rows = await engine.read("SELECT muted_until_ms, muted_reason, muted_by, muted_severity FROM fault WHERE id = ?", (OFFLINE,))
    assert rows == [{"muted_until_ms": NOW_MS + HOUR, "muted_reason": "等运营商", "muted_by": OPERATOR, "muted_severity": "P2"}]
    for _ in range(3):
        clock.now_ms += 20 * 60_000
        assert (await operator.post("/here")).status_code == 204
    assert await needed(operator) == before
    assert (await operator.post(f"/faults/{OFFLINE}/unmute")).status_code == 409  # it is over already


async def test_a_mute_can_be_changed_and_ended_by_hand(operator: Person, viewer: Person) -> None:
    await operator.post(f"/faults/{OFFLINE}/mute", until="1h", reason="等运营商")
    await operator.post(f"/faults/{OFFLINE}/mute", until="at", at="2026-11-19T09:30", reason="明早来")
    assert "静默至 11-19 09:30（operator：明早来）" in await viewer.seen(f"/faults/{OFFLINE}/steps")
    assert (await operator.post(f"/faults/{OFFLINE}/unmute")).status_code == 200
    steps = await viewer.seen(f"/faults/{OFFLINE}/steps")
    assert "operator 静默至 11:42:07：终端离线（等运营商）" in steps
    assert "operator 结束静默：终端离线" in steps
    assert "未认领" in steps


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"until": "1h", "reason": ""}, "不能为空"),
        ({"until": "1h", "reason": "找 138" + "0013" + "8000"}, "身份证号或手机号"),
        ({"until": "30d", "reason": "x"}, "结束时间不符合要求"),
        ({"until": "at", "at": "2026-11-18T10:00", "reason": "x"}, "结束时间不符合要求"),
        ({"until": "at", "at": "2026-11-30T10:00", "reason": "x"}, "结束时间不符合要求"),
        ({"until": "at", "at": "soon", "reason": "x"}, "结束时间不符合要求"),
    ],
)
async def test_a_mute_without_sense_is_refused_and_keeps_what_was_typed(
    operator: Person, engine: FleetEngine, fields: dict[str, str], sentence: str
) -> None:
    for path, more in ((f"/faults/{OFFLINE}/mute", {}), ("/faults/bulk", {"verb": "mute", "asked": "1", "id": OFFLINE})):
        answer = await operator.post(path, **fields, **more)
        assert sentence in answer.text
        assert f'value="{fields["reason"]}"' in answer.text
    assert await engine.read("SELECT 1 FROM fault_event WHERE kind = 'mute'") == []


async def test_what_has_recovered_cannot_be_muted(operator: Person, engine: FleetEngine) -> None:
    await engine.write(lambda connection: connection.execute("UPDATE fault SET cleared_ms = 1 WHERE id = ?", (OFFLINE,)))
    answer = await operator.post(f"/faults/{OFFLINE}/mute", until="1h", reason="x")
    assert "故障已恢复" in answer.text


@pytest.mark.parametrize(
    ("word", "at", "until_ms"),
    [
        ("4h", "", NOW_MS + 4 * HOUR),
        ("today", "", NOW_MS - (NOW_MS + 8 * HOUR) % (24 * HOUR) + 24 * HOUR),
        ("at", "2026-11-18T12:42", NOW_MS + 2 * HOUR - 7_000),
    ],
)
def test_ends_are_meant_in_the_sites_time(word: str, at: str, until_ms: int) -> None:
    assert actions.until_of(word, NOW_MS, ZONE, at) == until_ms


def test_a_local_time_depends_on_the_zone() -> None:
    assert (
        actions.until_of("at", NOW_MS, "Asia/Urumqi", "2026-11-18T12:42")
        - actions.until_of("at", NOW_MS, ZONE, "2026-11-18T12:42")
        == 2 * HOUR
    )
    with pytest.raises(Refused):
        actions.until_of("at", NOW_MS, ZONE, "2026-02-30T10:00")


async def test_a_false_alarm_keeps_its_row_and_counts_against_its_profile(operator: Person, engine: FleetEngine) -> None:
    rows = await engine.read(
        "SELECT id, profile FROM fault WHERE profile IS NOT NULL AND cleared_ms IS NULL AND terminal = 'kf-0131'"
    )
    key, profile = rows[0]["id"], rows[0]["profile"]
    before = await needed(operator)
    assert (await operator.post(f"/faults/{key}/false-alarm")).status_code == 200
    assert (await operator.post(f"/faults/{key}/false-alarm")).text == "已标为误报。"
    assert await needed(operator) == before - 1
    assert "误报" in await operator.seen("/faults?terminal=kf-0131")
    assert "异常·不能办事" in await operator.seen("/terminals/kf-0131")  # the machine still says so
    page = await operator.get("/profiles")
    links = re.findall(rf'href="(/faults\?tab=all(?:&amp;status=falseAlarm)?&amp;profile={profile})">(\d+)</a>', page)
    assert len(links) == 2
    for href, number in links:
        behind = await operator.get(href.replace("&amp;", "&"))
        assert len(re.findall(r'data-row="[^"]+" data-terminal', behind)) == int(number)
    assert links[1][1] == "1"
    assert (await operator.post(f"/faults/{key}/real-alarm")).status_code == 200
    assert await needed(operator) == before
    steps = await operator.seen(f"/faults/{key}/steps")
    assert "operator 标为误报：读证失败率偏高" in steps
    assert "operator 取消误报：读证失败率偏高" in steps
    assert (await operator.post(f"/faults/{key}/real-alarm")).status_code == 409


async def bulk(person: Person, verb: str, ids: list[str], **fields: str) -> tuple[str, str]:
    """(what the page says for a moment, what the dialog shows)"""
    answer = await person.client.post(
        "/faults/bulk", data={"verb": verb, "id": ids, **fields}, headers={"X-CSRF-Token": person.csrf, "HX-Request": "true"}
    )
    assert answer.status_code == 200, answer.text
    trigger = answer.headers.get("HX-Trigger", "")
    toast = json.loads(trigger)["kf:toast"]["text"] if trigger.startswith("{") else ""
    return toast, " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


async def test_many_are_claimed_at_once_and_those_that_refuse_are_named(operator: Person, engine: FleetEngine) -> None:
    ids = await open_ids(engine)
    taken, over = ids[0], ids[1]

    def prepare(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE fault SET claimed_by = NULL")
        connection.execute("UPDATE fault SET claimed_by = 'other' WHERE id = ?", (taken,))
        connection.execute("UPDATE fault SET cleared_ms = 1 WHERE id = ?", (over,))

    await engine.write(prepare)
    toast, dialog = await bulk(operator, "claim", [*ids, ids[2], "kf-0001:nothing"])
    assert toast == ""
    assert f"认领：{len(ids) - 2} 条已完成。" in dialog
    assert "1 条未执行：已被别人认领。" in dialog
    assert "1 条未执行：故障已恢复。" in dialog
    assert "1 条未执行：已不存在或已停用。" in dialog
    rows = await engine.read("SELECT count(*) AS n FROM fault WHERE claimed_by = ?", (OPERATOR,))
    assert rows[0]["n"] == len(ids) - 2
    toast, dialog = await bulk(operator, "unclaim", ids[2:4])
    assert (toast, dialog) == ("取消认领：2 条已完成。", "")


async def test_a_bulk_mute_and_note_ask_first(operator: Person, engine: FleetEngine) -> None:
    ids = (await open_ids(engine))[:3]
    _, dialog = await bulk(operator, "mute", ids)
    assert "静默 3 条故障" in dialog
    assert await engine.read("SELECT 1 FROM fault_event WHERE kind = 'mute'") == []
    assert (await bulk(operator, "mute", ids, asked="1", until="4h", reason="停电"))[0] == "静默：3 条已完成。"
    rows = await engine.read("SELECT DISTINCT muted_until_ms FROM fault WHERE muted_until_ms IS NOT NULL")
    assert rows == [{"muted_until_ms": NOW_MS + 4 * HOUR}]
    assert "给 3 条故障加备注" in (await bulk(operator, "note", ids))[1]
    assert (await bulk(operator, "note", ids, asked="1", text="已报修"))[0] == "备注：3 条已完成。"
    rows = await engine.read("SELECT count(*) AS n FROM fault_event WHERE kind = 'note' AND text = '已报修'")
    assert rows[0]["n"] == 3
    assert (await bulk(operator, "falseAlarm", ids))[0] == "标为误报：3 条已完成。"


async def test_bulk_requests_that_make_no_sense_change_nothing(operator: Person, engine: FleetEngine) -> None:
    for fields, sentence in (
        ({"verb": "delete", "id": OFFLINE}, "没有这个操作。"),
        ({"verb": "claim"}, "没有选中任何一行。"),
    ):
        answer = await operator.post("/faults/bulk", **fields)
        assert (answer.status_code, answer.text) == (400, sentence)
    answer = await operator.client.post(
        "/faults/bulk",
        data={"verb": "claim", "id": [str(n) for n in range(actions.MAX_AT_ONCE + 1)]},
        headers={"X-CSRF-Token": operator.csrf, "HX-Request": "true"},
    )
    assert (answer.status_code, answer.text) == (400, "一次最多 500 行。")
    assert await engine.read("SELECT 1 FROM fault_event WHERE kind = 'claim'") == []


async def test_each_undoes_only_what_refused() -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (id TEXT)")
    connection.execute("BEGIN")

    def act(one: str) -> None:
        connection.execute("INSERT INTO t VALUES (?)", (one,))
        if one == "b":
            raise Refused("x", "because")

    tally = actions.each(connection, ["a", "b", "c", "a"], act)
    connection.execute("COMMIT")
    assert (tally.done, tally.refused) == (["a", "c"], [("b", "because")])
    assert connection.execute("SELECT id FROM t ORDER BY id").fetchall() == [("a",), ("c",)]
    connection.close()
