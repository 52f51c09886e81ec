"""The terminal list: columns that people choose, the wanted version, idle terminals, files, tags and maintenance of many."""

from __future__ import annotations

import io
import json
import re
import sqlite3

import pytest
from openpyxl import load_workbook

from fleet_server.console import columns
from fleet_server.console.columns import ALL, FIXED, USUAL, read_choice
from fleet_server.console.listing import Idle, View, is_idle, parse_view, select, version_key, wanted_versions
from fleet_server.engine import FleetEngine
from fleet_server.thresholds.rules import put
from tests.fleet_server.console.conftest import COUNT, Person
from tests.fleet_server.console.test_fault_list import table_of
from tests.fleet_server.console.test_rules import DAY, NOW, terminal
from tests.support.seed import NOW_MS, OPERATOR

HOUR = 3_600_000


# Rules ----------------------------------------------------------------------------------------------------------------------------------


def test_one_machine_that_claims_a_huge_version_marks_nobody_outdated() -> None:
    fleet = [terminal(str(n), version="0.1.0") for n in range(5)] + [
        terminal("liar", version="999999999999.0"),
        terminal("x", version=None),
    ]
    assert wanted_versions(fleet) == {"kiosk": "0.1.0"}


def test_each_type_has_a_version_of_its_own_and_the_newer_of_equally_many_wins() -> None:
    fleet = [
        terminal("a", version="0.9.0"),
        terminal("b", version="0.10.0"),
        terminal("c", version="0.2.0", type="desk"),
    ]
    assert wanted_versions(fleet) == {"kiosk": "0.10.0", "desk": "0.2.0"}
    assert wanted_versions([]) == {}


@pytest.mark.parametrize("version", ["", "1", "²", "9" * 5000, "v1.2-rc.1", "=1+1", "1..2"])
def test_any_version_can_be_ordered(version: str) -> None:
    assert sorted([version_key(version), version_key("1.2.0")])
    assert wanted_versions([terminal(version=version)]) in ({"kiosk": version}, {})


def test_the_idle_limit_is_the_threshold_of_the_class() -> None:
    row = terminal(last_case_ms=NOW - 20 * DAY)
    partner = terminal(last_case_ms=NOW - 20 * DAY, owner_class="social")
    idle = Idle(14, {"social": 30.0})
    assert [is_idle(one, NOW, idle) for one in (row, partner)] == [True, False]
    view = View(idle=True)
    assert [one.owner_class for one in select([row, partner], view, NOW, idle=idle).rows] == ["government"]
    assert select([row], view, NOW, idle=Idle(21)).rows == []


def test_tags_filter_whatever_their_case() -> None:
    rows = [terminal("a", tags=("VIP", "east")), terminal("b")]
    assert [one.id for one in select(rows, parse_view({"tag": "vip"}), NOW).rows] == ["a"]


@pytest.mark.parametrize("text", [None, "", "not json", "{}", "3"])
def test_a_choice_that_cannot_be_read_is_the_usual_one(text: str | None) -> None:
    assert read_choice(text) == USUAL


def test_a_choice_keeps_the_lists_order_and_the_fixed_columns() -> None:
    assert read_choice(json.dumps(["tags", "site", "colour", 3])) == (*FIXED, "site", "tags")
    assert columns.chosen([]) == FIXED


# Pages ----------------------------------------------------------------------------------------------------------------------------------


def headings(page: str) -> list[str]:
    row = re.search(r"<thead.*?</thead>", page, re.DOTALL)
    assert row
    cells = re.findall(r"<th\b[^>]*>(.*?)</th>", row.group(0), re.DOTALL)
    return [text for cell in cells if (text := " ".join(re.sub(r"<[^>]+>", " ", cell).split()))]


async def total(person: Person, path: str) -> int:
    found = re.search(r"共 ([\d,]+) 台", await person.get(path))
    assert found
    return int(found.group(1).replace(",", ""))


async def choose(person: Person, *names: str) -> str:
    answer = await person.client.post(
        "/terminals/columns", data={"column": list(names)}, headers={"X-CSRF-Token": person.csrf, "HX-Request": "true"}
    )
    assert answer.status_code == 200
    return answer.text


async def test_each_person_keeps_their_own_columns(operator: Person, viewer: Person, engine: FleetEngine) -> None:
    page = await choose(operator, "site", "network", "certificate", "tags", "nonsense")
    assert headings(page) == ["状态 ↑", "终端", "点位", "网络", "证书到期", "标签"]
    assert headings(await operator.get("/terminals"))[2:] == ["点位", "网络", "证书到期", "标签"]
    assert len(headings(await viewer.get("/terminals"))) == len(USUAL)
    rows = await engine.read("SELECT staff, columns FROM list_columns")
    assert rows == [{"staff": OPERATOR, "columns": '["state", "code", "site", "network", "certificate", "tags"]'}]
    assert len(headings(await choose(operator))) == len(USUAL)


async def test_every_column_shows_something_true(operator: Person, engine: FleetEngine) -> None:
    def know(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE device SET firmware = 'FW 2.1', asset = 'SN-0007' WHERE terminal = 'kf-0016'")
        connection.execute(
            "UPDATE terminal_live SET clock_offset_ms = 90000, cert_not_after_ms = ?, outbox_depth = 12 WHERE terminal = 'kf-0016'",
            (NOW_MS + 3 * DAY,),
        )
        connection.execute("UPDATE terminal SET tags = '[\"东区\"]' WHERE id = 'kf-0016'")
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'enrolment')")

    await engine.write(know)
    await choose(operator, *ALL)
    page = await operator.seen("/terminals?q=kf-0016")
    for word in ("SNBC BTP series (USB)", "FW 2.1", "SN-0007", "互联网", "+1 分钟", "2026-11-21", "12", "政务终端", "东区"):
        assert word in page, word
    rows = table_of(await operator.get("/terminals.csv?q=kf-0016"))
    cells = dict(zip(rows[0], rows[1], strict=True))
    assert (cells["固件"], cells["序列号"], cells["时钟偏差（毫秒）"], cells["标签"]) == ("FW 2.1", "SN-0007", "90000", "东区")
    assert cells["证书到期"].startswith("2026-11-21")


async def test_the_files_have_the_columns_and_rows_of_the_view(operator: Person) -> None:
    await choose(operator, "fault", "cases")
    rows = table_of(await operator.get("/terminals.csv"))
    assert rows[0] == ["终端", "名称", "状态", "当前故障", "级别", "开始时间", "今日办件", "30 天办件"]
    assert len(rows) == COUNT + 1
    answer = await operator.client.get("/terminals.xlsx?state=abnormal&sort=-code")
    sheet = load_workbook(io.BytesIO(answer.content)).worksheets[0]
    assert [cell.value for cell in sheet[3]] == rows[0]
    page = await operator.get("/terminals?state=abnormal&sort=-code")
    shown = re.findall(r'id="row-([^"]+)"', page)
    assert [sheet.cell(4 + n, 1).value for n in range(sheet.max_row - 3)] == [one.upper() for one in shown]


async def test_the_idle_chip_follows_the_threshold(operator: Person, engine: FleetEngine) -> None:
    assert "14 天无办件" in await operator.seen("/terminals")
    idle = await total(operator, "/terminals?idle=1")
    assert 0 < idle < COUNT
    await engine.write(lambda connection: put(connection, "idle.notice_days", 1, by="lead", now_ms=NOW_MS))
    assert await total(operator, "/terminals?idle=1") > idle
    assert "1 天无办件" in await operator.seen("/terminals")


async def test_sorts_and_chips_keep_the_view(operator: Person) -> None:
    page = (await operator.get("/terminals?kind=hall&type=kiosk&q=kf")).replace("&amp;", "&")
    assert 'href="/terminals?q=kf&kind=hall&type=kiosk&sort=version"' in page
    assert 'href="/terminals?q=kf&kind=hall"' in page  # the chip that takes the type away
    for name in USUAL:
        assert "<tbody" in await operator.get(f"/terminals?sort={name}")
        assert "<tbody" in await operator.get(f"/terminals?sort=-{name}")


async def bulk(person: Person, verb: str, ids: list[str], **fields: str) -> tuple[str, str]:
    answer = await person.client.post(
        "/terminals/bulk", data={"verb": verb, "id": ids, **fields}, headers={"X-CSRF-Token": person.csrf, "HX-Request": "true"}
    )
    assert answer.status_code == 200, answer.text
    trigger = answer.headers.get("HX-Trigger", "")
    toast = json.loads(trigger)["kf:toast"]["text"] if trigger.startswith("{") else ""
    return toast, " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


async def test_many_terminals_go_into_maintenance_and_come_out(operator: Person, engine: FleetEngine) -> None:
    ids = ["kf-0016", "kf-0037", "kf-0001"]
    _, dialog = await bulk(operator, "maintenance", ids)
    assert "将 3 台终端设为维护" in dialog
    toast, _ = await bulk(operator, "maintenance", ids, asked="1", until="at", at="2026-11-20T18:00", reason="机房断电")
    assert toast == "设为维护：3 条已完成。"
    page = await operator.seen("/terminals?state=MAINTENANCE")
    assert all(one.upper() in page for one in ids)
    toast, dialog = await bulk(operator, "endMaintenance", [*ids, "kf-0002"])
    assert "结束维护：3 条已完成。" in dialog
    assert "KF-0002 没有处于维护中。" in dialog
    rows = await engine.read('SELECT terminal, from_ms, to_ms, reason, "by", ended_by FROM maintenance ORDER BY terminal')
    assert [(row["terminal"], row["ended_by"]) for row in rows] == [(one, OPERATOR) for one in sorted(ids)]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"until": "at", "at": "2026-11-26T10:00", "reason": "x"}, "结束时间不符合要求"),
        ({"until": "2h", "reason": ""}, "不能为空"),
    ],
)
async def test_maintenance_of_many_that_makes_no_sense_asks_again(
    operator: Person, engine: FleetEngine, fields: dict[str, str], sentence: str
) -> None:
    _, dialog = await bulk(operator, "maintenance", ["kf-0016"], asked="1", **fields)
    assert sentence in dialog
    assert await engine.read("SELECT 1 FROM maintenance") == []


async def test_tags_are_added_and_removed(operator: Person, engine: FleetEngine) -> None:
    ids = ["kf-0016", "kf-0037"]
    assert "给 2 台终端添加标签" in (await bulk(operator, "addTag", ids))[1]
    assert (await bulk(operator, "addTag", ids, asked="1", tag="  东区  重点 "))[0] == "添加标签：2 条已完成。"
    _, dialog = await bulk(operator, "addTag", [*ids, "kf-0001"], asked="1", tag="东区 重点")
    assert "2 条未执行：已有这个标签。" in dialog
    page = await operator.get("/terminals?tag=" + "东区 重点")
    assert len(re.findall(r'id="row-', page)) == 3
    assert "从 1 台终端移除标签" in (await bulk(operator, "removeTag", ["kf-0016"]))[1]
    assert (await bulk(operator, "removeTag", ["kf-0016"], asked="1", tag="东区 重点"))[0] == "移除标签：1 条已完成。"
    rows = await engine.read("SELECT tags FROM terminal WHERE id IN ('kf-0016', 'kf-0037') ORDER BY id")
    assert [json.loads(row["tags"]) for row in rows] == [[], ["东区 重点"]]
    for tag in ("a,b", "x" * 21, "电话 138" + "0013" + "8000"):
        assert 'role="alert"' in (await operator.post("/terminals/bulk", verb="addTag", id="kf-0016", asked="1", tag=tag)).text


async def test_past_maintenance_is_drawn_in_the_week(operator: Person, engine: FleetEngine) -> None:
    def past(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO maintenance (terminal, from_ms, to_ms, until_ms, reason, \"by\") VALUES ('kf-0001', ?, ?, ?, 'x', 'operator')",
            (NOW_MS - 40 * HOUR, NOW_MS - 30 * HOUR, NOW_MS - 20 * HOUR),
        )

    before = (await operator.get("/terminals?q=kf-0001")).count("f-maintenance")
    await engine.write(past)
    assert (await operator.get("/terminals?q=kf-0001")).count("f-maintenance") >= before + 1


def test_the_usual_columns_fit_and_many_chosen_ones_scroll() -> None:
    assert not columns.is_wide(USUAL)
    assert not columns.is_wide((*FIXED, "tags"))
    assert columns.is_wide((*USUAL, "tags"))
