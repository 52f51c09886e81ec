"""Pages agree with one another and with the database, whatever a machine is called."""

from __future__ import annotations

import csv
import io
import re
import sqlite3

import pytest

from fleet_server.engine import FleetEngine
from tests.fleet_server.console.conftest import COUNT, Person
from tests.support.clock import HandClock
from tests.support.seed import NOW_MS, Seeded

HOUR, MINUTE = 3_600_000, 60_000
TILES = {
    "total": "/terminals",
    "online": "/terminals?state=online",
    "abnormal": "/terminals?state=abnormal",
    "offline": "/terminals?state=OFFLINE",
}


async def rows_behind(person: Person, path: str) -> int:
    """How many rows the list says it has, checked against the rows it shows."""
    page = await person.get(path)
    found = re.search(r"第 (\d+)–(\d+) 台，共 ([\d,]+) 台", page)
    total = int(found.group(3).replace(",", "")) if found else 0
    shown = len(re.findall(r'<tr role="row" id="row-', page))
    assert shown == min(50, total)
    return total


def tile(page: str, name: str) -> int:
    found = re.search(rf'data-tile="{name}">([\d,]+)<', page)
    assert found, name
    return int(found.group(1).replace(",", ""))


async def test_every_tile_is_the_number_of_rows_behind_it(viewer: Person) -> None:
    page = await viewer.get("/")
    for name, path in TILES.items():
        assert tile(page, name) == await rows_behind(viewer, path), name


async def test_the_arithmetic_of_states_holds_on_the_page(viewer: Person) -> None:
    page = await viewer.seen("/")
    numbers = {
        name: int(found.group(1))
        for name, pattern in {
            "maintenance": r"维护中 (\d+) ·",
            "not_enrolled": r"待接入 (\d+) ·",
            "closed": r"非服务时段 (\d+)",
            "unusable": r"不能办事 (\d+) ·",
            "partial": r"部分可办 (\d+)",
            "suspect": r"失联待确认 (\d+)",
        }.items()
        if (found := re.search(pattern, page))
    }
    html = await viewer.get("/")
    total, online, offline = tile(html, "total"), tile(html, "online"), tile(html, "offline")
    assert total == COUNT
    assert total == online + offline + numbers["closed"] + numbers["maintenance"] + numbers["not_enrolled"]
    assert tile(html, "abnormal") == numbers["unusable"] + numbers["partial"]


async def test_the_sentence_names_what_cannot_serve_and_the_longest_of_it(viewer: Person) -> None:
    page = await viewer.seen("/")
    assert "现在 4 台不能办事， 2 台部分可办， 2 台离线。最久的一台已 4 小时 12 分 ： KF-0016" in page
    assert "A4 打印机缺纸" in page


async def test_when_all_is_well_the_page_says_so(viewer: Person, engine: FleetEngine, clock: HandClock) -> None:
    def heal(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE fault SET cleared_ms = ? WHERE cleared_ms IS NULL", (NOW_MS - 26 * MINUTE,))
        connection.execute("UPDATE presence SET state = 'online' WHERE to_ms IS NULL")
        connection.execute("INSERT INTO change (at_ms, terminal, kind) SELECT ?, id, 'presence' FROM terminal", (NOW_MS,))

    await engine.write(heal)
    page = await viewer.seen("/")
    assert "台在服务时段内的终端均可办事。上一个故障" in page
    assert "没有需要人处理的事项。" in page


async def test_a_blind_platform_makes_terminals_unknown_not_offline(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(
        lambda connection: connection.execute(
            "INSERT INTO platform_gap (from_ms, cause) VALUES (?, 'broker')", (NOW_MS - MINUTE,)
        )
    )
    await engine.write(
        lambda connection: connection.execute("INSERT INTO change (at_ms, kind, ref) VALUES (?, 'platform', 'broker')", (NOW_MS,))
    )
    html, page = await viewer.get("/"), await viewer.seen("/")
    assert "平台侧中断：10:41:07 起未收到终端数据" in page
    assert "平台看不到终端" in page
    assert tile(html, "offline") == 0
    assert tile(html, "online") == 0
    assert await rows_behind(viewer, "/terminals?state=UNKNOWN") > COUNT - 10


async def test_ingest_that_died_silently_is_noticed(viewer: Person, engine: FleetEngine, clock: HandClock) -> None:
    await engine.write(
        lambda connection: connection.execute("INSERT INTO watch_mark (name, at_ms) VALUES ('watch', ?)", (NOW_MS - 1000,))
    )
    clock.now_ms += 1000
    assert "平台侧中断" not in await viewer.seen("/")
    clock.now_ms += 120_000
    assert "接收服务停止" in await viewer.seen("/")


async def test_at_night_closed_sites_are_closed_and_round_the_clock_sites_are_offline(
    viewer: Person, engine: FleetEngine, clock: HandClock, seeded: Seeded
) -> None:
    hall = next(machine for machine in seeded.machines if machine.kind == "hall" and machine.fate == "online")
    zone = next(machine for machine in seeded.machines if machine.kind == "zone24" and machine.fate == "online")
    at_ms = NOW_MS + 12 * HOUR + 18 * MINUTE  # 23:00

    def silence(connection: sqlite3.Connection) -> None:
        for machine in (hall, zone):
            connection.execute("UPDATE presence SET to_ms = ? WHERE terminal = ? AND to_ms IS NULL", (at_ms - HOUR, machine.id))
            connection.execute(
                "INSERT INTO presence (terminal, from_ms, state, cause) VALUES (?, ?, 'offline', 'silence')",
                (machine.id, at_ms - HOUR),
            )
            connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'presence')", (at_ms, machine.id))
        connection.execute("UPDATE login SET created_ms = ?, seen_ms = ?, expires_ms = ?", (at_ms, at_ms, at_ms + HOUR))

    await engine.write(silence)
    clock.now_ms = at_ms
    assert f"{hall.code}" in await viewer.get("/terminals?state=CLOSED")
    assert f"{zone.code}" in await viewer.get("/terminals?state=OFFLINE")


ODD_NAMES = [
    "<script>alert(1)</script>",
    "=1+1",
    "🚐 流动服务车",
    "金" * 40,
    "'\"><img src=x onerror=alert(1)>",
    "{{ 7*7 }}",
    "%s{n}",
]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_any_name_is_shown_as_it_is(viewer: Person, engine: FleetEngine, name: str) -> None:
    def rename(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE terminal SET name_zh = ?, name_en = ? WHERE id = 'kf-0016'", (name, name))
        connection.execute(
            "UPDATE site SET name_zh = ?, name_en = ? WHERE code = (SELECT site FROM terminal WHERE id = 'kf-0016')", (name, name)
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'enrolment')")

    await engine.write(rename)
    for path in ("/", "/terminals", "/terminals/kf-0016", "/faults", "/terminals?q=kf-0016"):
        page = await viewer.get(path)
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert name in (await viewer.seen(path)) or path == "/terminals/kf-0016"
    table = list(csv.reader(io.StringIO((await viewer.get("/terminals.csv?q=kf-0016")).lstrip("\ufeff"))))
    cell = table[1][1]
    assert cell.lstrip("'") == name.lstrip("'")
    assert not cell.startswith(("=", "+", "-", "@"))


async def test_an_empty_area_and_a_terminal_without_site_harm_nobody(viewer: Person, engine: FleetEngine) -> None:
    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO area (code, parent, name_zh, name_en, sort) VALUES ('empty', NULL, '', '', 9)")
        connection.execute("UPDATE area SET parent = 'jindong' WHERE code = 'jindong'")  # its own parent: a mistake in an import
        connection.execute("UPDATE terminal SET site = 'nowhere', inventory = 'not json', tags = '{}' WHERE id = 'kf-0016'")
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'enrolment')")

    await engine.write(orphan)
    for path in ("/", "/terminals?area=empty", "/terminals?area=jindong", "/terminals/kf-0016", "/terminals.csv", "/faults"):
        await viewer.get(path)


@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/terminals",
        "/terminals?state=abnormal&sort=-downtime&idle=1",
        "/terminals?q=nothing-at-all",
        *[
            f"/terminals/{terminal}?tab={tab}"
            for terminal in ("kf-0016", "kf-0201", "kf-0151", "kf-0163", "kf-0181")
            for tab in ("events", "usage", "faults", "diagnostics")
        ],
        "/terminals/kf-0016?range=30d",
        "/terminals/kf-0016?range=7d&back=2",
        "/terminals/kf-0016?evidence=1/0",
        "/faults",
        "/faults?tab=today",
        "/faults?tab=all",
        "/system",
        "/evidence/fault/kf-0151:ffffffffffffffff",
    ],
)
async def test_every_page_opens_in_both_languages(viewer: Person, lang: str, path: str) -> None:
    await viewer.post("/language", lang=lang, back="/")
    page = await viewer.get(path)
    assert f'<html lang="{"zh-CN" if lang == "zh" else "en"}">' in page


async def test_a_row_alone_looks_like_the_row_in_its_list(viewer: Person) -> None:
    alone = await viewer.get("/terminals/rows?ids=kf-0037", part=True)
    page = await viewer.get("/terminals?q=kf-0037")
    row = re.search(r'<tr role="row" id="row-kf-0037".*?</tr>', page, re.DOTALL)
    assert row
    assert (
        re.sub(r' hx-swap-oob="true"', "", alone.split("<template>")[1].split("</template>")[0]).split() == row.group(0).split()
    )


async def test_the_drawer_is_in_the_address(viewer: Person) -> None:
    answer = await viewer.client.get(
        "/evidence/1/0", headers={"HX-Request": "true", "HX-Current-URL": "http://console.test/faults?tab=all&evidence=9/9"}
    )
    assert answer.headers["HX-Replace-Url"] == "/faults?tab=all&evidence=1/0"
    assert 'hx-get="/evidence/1/0" hx-trigger="load"' in await viewer.get("/faults?tab=all&evidence=1/0")
    assert 'hx-trigger="load"' not in await viewer.get("/faults?evidence=javascript:1/0")


async def test_retired_terminals_count_nowhere(viewer: Person, engine: FleetEngine) -> None:
    def retire(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE terminal SET revoked_ms = ? WHERE id = 'kf-0016'", (NOW_MS,))
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'enrolment')")

    await engine.write(retire)
    assert tile(await viewer.get("/"), "total") == COUNT - 1
    assert (await viewer.client.get("/terminals/kf-0016")).status_code == 404
    assert "KF-0016" not in await viewer.get("/faults")


async def test_disputed_facts_stay_out_of_pages(viewer: Person, engine: FleetEngine) -> None:
    def dispute(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE fault SET disputed = 1 WHERE terminal = 'kf-0016'")
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'fault')")

    await engine.write(dispute)
    assert "KF-0016" not in await viewer.get("/faults")
    assert "正常" in await viewer.seen("/terminals/kf-0016")


async def test_the_list_follows_its_address(viewer: Person) -> None:
    assert await rows_behind(viewer, "/terminals?q=kf-0016") == 1
    assert await rows_behind(viewer, "/terminals?code=LSR.PAPER_OUT") == 1
    assert await rows_behind(viewer, "/terminals?type=callPadSet&area=jindong") < await rows_behind(
        viewer, "/terminals?type=callPadSet"
    )
    second = await viewer.get("/terminals?sort=code&page=2")
    assert "KF-0051" in second
    assert 'href="/terminals?sort=code"' in second  # back to the first page
    assert "KF-0210" in await viewer.get("/terminals?sort=-code")
    assert f"共 {COUNT} 台" in await viewer.seen("/terminals?page=9999&state=nonsense&sort=nonsense")


async def test_unknown_hardware_is_listed_and_not_called_a_fault(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(
        lambda connection: connection.execute(
            "INSERT INTO sighting (terminal, port, bus, vid, pid, present, at_ms) VALUES ('kf-0016', '1-1.9', 'usb', 4660, 22136, 1, ?)",
            (NOW_MS,),
        )
    )
    page = await viewer.seen("/terminals/kf-0016")
    assert "未识别设备 仅登记，不轮询 1234:5678" in page
