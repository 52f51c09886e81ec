"""The fault list: its address, its groups, its files, and that memory and database read one view the same way."""

from __future__ import annotations

import csv
import html
import io
import re
import sqlite3
from typing import Any

import pytest
from openpyxl import load_workbook

from fleet_server.console import fault_view
from fleet_server.console.fault_view import FaultView, matches, parse_view, status_of
from fleet_server.console.fleet import FleetView
from fleet_server.console.queries import lists
from fleet_server.engine import FleetEngine
from tests.fleet_server.console.conftest import Person
from tests.fleet_server.console.test_rules import NOW, fault, terminal
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, OPERATOR

HOUR = 3_600_000


def ids(page: str) -> list[str]:
    return re.findall(r'data-row="([^"]+)" data-terminal', page)


def table_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.lstrip("\ufeff"))))


def test_one_view_has_one_address_and_nonsense_opens_the_list() -> None:
    assert parse_view({}).query() == ""
    view = parse_view({"tab": "all", "severity": "P2", "owner": "mine", "group": "site", "page": "3"})
    assert view.query() == "?tab=all&group=site&severity=P2&owner=mine&page=3"
    assert view.without("severity") == "?tab=all&group=site&owner=mine"
    assert view.cleared == "?tab=all&group=site"
    odd = parse_view({"tab": "x", "severity": "P9", "status": "?", "group": "colour", "page": "-1", "site": "s" * 999})
    assert odd == FaultView(site="s" * 80)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "unclaimed"),
        ({"claimed_by": "a"}, "claimed"),
        ({"claimed_by": "a", "muted_until_ms": NOW + 1}, "muted"),
        ({"muted_until_ms": NOW}, "unclaimed"),
        ({"muted_until_ms": NOW + 1, "false_alarm": True}, "falseAlarm"),
        ({"false_alarm": True, "cleared_ms": NOW}, "recovered"),
    ],
)
def test_every_fault_has_one_status(changes: dict[str, Any], word: str) -> None:
    assert status_of(fault(**changes), NOW) == word


@pytest.mark.parametrize(
    ("view", "fits"),
    [
        (FaultView(), True),
        (FaultView(severity="P1"), False),
        (FaultView(owner="mine"), True),
        (FaultView(owner="nobody"), False),
        (FaultView(owner="me"), True),
        (FaultView(owner="someone"), False),
        (FaultView(site="hall"), True),
        (FaultView(code="X"), False),
        (FaultView(profile="p"), True),
        (FaultView(profile="q"), False),
        (FaultView(terminal="a"), True),
        (FaultView(status="claimed"), True),
        (FaultView(status="falseAlarm"), False),
    ],
)
def test_what_a_filter_lets_through(view: FaultView, fits: bool) -> None:
    one = fault(claimed_by="me", profile="p")
    assert matches(one, terminal("a", one), view, "me", NOW) is fits


def mark(connection: sqlite3.Connection) -> None:
    """Some of each: claimed by two people, muted, muted before, false alarms open and over."""
    every = [row[0] for row in connection.execute("SELECT id FROM fault WHERE cleared_ms IS NULL AND disputed = 0 ORDER BY id")]
    for n, key in enumerate(every):
        connection.execute(
            "UPDATE fault SET claimed_by = ?, muted_until_ms = ?, false_alarm = ? WHERE id = ?",
            ([None, OPERATOR, "other"][n % 3], [None, NOW_MS + HOUR, NOW_MS - HOUR, None][n % 4], int(n % 5 == 4), key),
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'fault')", (NOW_MS, key.partition(":")[0]))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"severity": "P2"},
        {"code": "PRN.PAPER_NEAR_END"},
        {"site": "jindong-hall"},
        {"profile": "snbc-btp"},
        {"terminal": "kf-0037"},
        *({"owner": owner} for owner in ("mine", "nobody", "other")),
        *({"status": status} for status in fault_view.STATUSES),
    ],
    ids=str,
)
async def test_memory_and_database_read_a_view_the_same_way(engine: FleetEngine, changes: dict[str, str]) -> None:
    await engine.write(mark)
    view = FaultView(**changes)  # type: ignore[arg-type]  # only texts are given
    fleet = await FleetView(engine, now_ms=lambda: NOW_MS, zone="Asia/Shanghai").current()
    in_memory = {one.id for row in fleet.terminals for one in row.faults if matches(one, row, view, OPERATOR, NOW_MS)}
    page = await lists.fault_page(engine, view, OPERATOR, now_ms=NOW_MS, today_ms=0)
    assert {one.id for one in page.faults} == in_memory
    assert page.total == len(in_memory)


async def test_the_list_says_how_many_there_are_and_shows_them(operator: Person, engine: FleetEngine) -> None:
    rows = await engine.read("SELECT count(*) AS n FROM fault WHERE cleared_ms IS NULL AND disputed = 0")
    page = await operator.get("/faults")
    assert len(ids(page)) == rows[0]["n"]
    assert f"共 {rows[0]['n']} 条" in page
    all_rows = await engine.read("SELECT count(*) AS n FROM fault WHERE disputed = 0")
    assert re.search(r'<span class="mono">PRN\.[A-Z_]+</span> · 凭条打印机', page), "the device that it is about"
    assert f"共 {all_rows[0]['n']} 条" in await operator.get("/faults?tab=all")
    second = await operator.get("/faults?tab=all&page=2")
    assert len(ids(second)) == min(fault_view.PER_PAGE, all_rows[0]["n"] - fault_view.PER_PAGE)
    assert "没有符合条件的故障" in await operator.get("/faults?owner=nobody-at-all")


@pytest.mark.parametrize(
    ("group", "names"), [("site", {"金东城西社区 2 条", "武义市民中心 24 小时自助区 1 条"}), ("code", {"终端离线 2 条"})]
)
async def test_groups_have_a_heading_with_their_number(operator: Person, group: str, names: set[str]) -> None:
    for tab in ("open", "all"):
        page = await operator.get(f"/faults?group={group}&tab={tab}")
        headings = re.findall(r'class="group"><th[^>]*>(.*?)</th>', page)
        assert len(headings) == len(set(headings)) >= 1
    page = await operator.get(f"/faults?group={group}")
    headings = [" ".join(re.sub(r"<[^>]+>", " ", one).split()) for one in re.findall(r'class="group"><th[^>]*>(.*?)</th>', page)]
    assert names <= set(headings)
    assert sum(int(one.split()[-2]) for one in headings) == len(ids(page))


async def test_three_openings_in_a_day_are_recurring(operator: Person, engine: FleetEngine) -> None:
    def again(connection: sqlite3.Connection, n: int) -> None:
        connection.execute(
            "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, cleared_ms, disputed, late, source,"
            " false_alarm) VALUES (?, 'kf-0016', 'laser-printer', 'LSR.PAPER_OUT', 'P2', 1, ?, ?, ?, 0, 0, 'terminal', 0)",
            (f"kf-0016:again{n}", NOW_MS - n * HOUR, NOW_MS - n * HOUR, NOW_MS - n * HOUR + 1),
        )

    await engine.write(lambda connection: again(connection, 5))
    assert "反复" not in await operator.seen("/faults?terminal=kf-0016")
    await engine.write(lambda connection: again(connection, 6))
    assert "反复" in await operator.seen("/faults?terminal=kf-0016")


async def test_a_muted_fault_says_until_when_and_why(operator: Person) -> None:
    key = ids(await operator.get("/faults?terminal=kf-0016"))[0]
    assert (await operator.post(f"/faults/{key}/mute", until="4h", reason="备件在途")).headers["HX-Trigger"] == "kf:acted"
    page = html.unescape(await operator.get("/faults?status=muted"))
    assert ids(page) == [key]
    assert "已静默" in page
    assert "至 14:42:07" in page
    assert "operator：备件在途" in page
    assert key not in ids(await operator.get("/faults?status=claimed"))


ODD = ["<script>alert(1)</script>", "=1+1", "🚐 流动服务车", "金" * 40, "＝cmd|' /C calc'!A0"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("path", ["/terminals", "/faults"])
async def test_odd_names_are_text_in_page_csv_and_excel(operator: Person, engine: FleetEngine, name: str, path: str) -> None:
    def rename(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO area (code, parent, name_zh, name_en, sort) VALUES ('empty', NULL, '', '', 9)")
        connection.execute(
            "UPDATE site SET area = 'empty', name_zh = ? WHERE code = (SELECT site FROM terminal WHERE id = 'kf-0016')", (name,)
        )
        connection.execute("UPDATE terminal SET name_zh = ? WHERE id = 'kf-0016'", (name,))
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'enrolment')")

    await engine.write(rename)
    query = "?q=kf-0016" if path == "/terminals" else "?terminal=kf-0016"
    page = await operator.get(path + query)
    assert "<script>alert" not in page
    assert name in await operator.seen(path + query)
    rows = table_of(await operator.get(f"{path}.csv{query}"))
    cells = [cell for cell in rows[1] if cell.lstrip("'") == name]
    assert cells
    assert not any(cell.startswith(("=", "+", "-", "@", "＝")) for cell in rows[1])
    answer = await operator.client.get(f"{path}.xlsx{query}")
    sheet = load_workbook(io.BytesIO(answer.content)).worksheets[0]
    found = [cell for row in sheet.iter_rows() for cell in row if cell.value == name]
    assert found
    assert {cell.data_type for cell in found} == {"s"}


async def test_the_files_hold_the_whole_view(operator: Person, engine: FleetEngine) -> None:
    rows = await engine.read("SELECT count(*) AS n FROM fault WHERE disputed = 0")
    assert len(table_of(await operator.get("/faults.csv?tab=all"))) == rows[0]["n"] + 1
    assert len(table_of(await operator.get("/faults.csv?severity=P3"))) == len(ids(await operator.get("/faults?severity=P3"))) + 1
    answer = await operator.client.get("/faults.xlsx")
    sheet = load_workbook(io.BytesIO(answer.content)).worksheets[0]
    assert sheet.max_row == 3 + len(ids(await operator.get("/faults")))
    assert answer.headers["content-disposition"].endswith('.xlsx"')


async def test_what_recovered_today_is_what_was_cleared_since_midnight(
    operator: Person, engine: FleetEngine, clock: HandClock
) -> None:
    midnight = NOW_MS - (NOW_MS + 8 * HOUR) % (24 * HOUR)
    rows = await engine.read("SELECT id FROM fault WHERE cleared_ms >= ? AND disputed = 0 ORDER BY cleared_ms DESC", (midnight,))
    assert ids(await operator.get("/faults?tab=today")) == [row["id"] for row in rows]


async def test_faults_of_a_retired_terminal_stay_without_a_link(operator: Person, engine: FleetEngine) -> None:
    assert (await operator.post("/terminals/kf-0016/retire", reason="报废", confirm="KF-0016")).headers[
        "HX-Redirect"
    ] == "/terminals"
    page = await operator.get("/faults?tab=all&terminal=kf-0016")
    assert ids(page)
    assert "（已停用）" in page
    assert 'href="/terminals/kf-0016"' not in page
    assert ids(await operator.get("/faults?terminal=kf-0016")) == []
