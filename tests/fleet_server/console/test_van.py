"""A van on its page and on the map; coordinates as public maps of China want them; what sensors measured, in words."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest

from fleet_server.console.chinese_maps import on_chinese_maps
from fleet_server.console.pages.answers import local_field
from fleet_server.console.pages.van_stops import place_of
from fleet_server.console.van_view import stops
from fleet_server.engine import FleetEngine
from fleet_server.errors import Refused
from fleet_server.faults.van import follow_vans
from fleet_server.sites.distance import distance_km
from fleet_server.terminals import van_stops
from tests.fleet_server.console.conftest import Person
from tests.support.seed import DAY, HOUR, MINUTE, NOW_MS

TERMINAL = "kf-0022"


@pytest.mark.spec("C-214")
@pytest.mark.parametrize(
    ("wgs84", "gcj02"),
    [
        # Vectors published with the reference implementations of the formula (eviltransform, tests of all its languages).
        ((31.1774276, 121.5272106), (31.17530398364597, 121.531541859215)),
        ((22.543847, 113.912316), (22.540796131694766, 113.9171764808363)),
        ((39.911954, 116.377817), (39.91334545536069, 116.38404722455657)),
        ((48.8566, 2.3522), (48.8566, 2.3522)),  # outside China nothing moves
    ],
)
def test_public_maps_of_china(wgs84: tuple[float, float], gcj02: tuple[float, float]) -> None:
    assert on_chinese_maps(*wgs84) == pytest.approx(gcj02, abs=1e-9)


def row(minute: int, lat_e4: int, lon_e4: int = 1_196_470) -> dict[str, Any]:
    return {"at_ms": minute * MINUTE, "lat_e4": lat_e4, "lon_e4": lon_e4}


def test_a_stop_is_a_quarter_of_an_hour_in_one_place() -> None:
    day = [
        row(0, 290_790),
        row(5, 290_790),
        row(10, 290_800),
        row(15, 290_790),
        row(20, 291_500),
        row(25, 292_000),
        row(30, 292_090),
    ]
    assert [(one.from_ms // MINUTE, one.to_ms // MINUTE) for one in stops(day)] == [(0, 15)]
    day += [row(35, 292_090), row(40, 292_090), row(45, 292_100)]
    assert [(one.from_ms // MINUTE, one.to_ms // MINUTE, one.latitude) for one in stops(day)] == [
        (0, 15, 29.079),
        (30, 45, 29.209),
    ]
    assert stops([]) == []


def drive(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE terminal SET type = 'van' WHERE id = ?", (TERMINAL,))
    told = [(n * 5 * MINUTE, 292_090) for n in range(6)] + [(40 * MINUTE, 293_000), (45 * MINUTE, 293_060)]
    for n, (after_ms, lat_e4) in enumerate(told):
        connection.execute(
            "INSERT INTO van_position (terminal, slot, at_ms, lat_e4, lon_e4, fix, satellites, batch, idx, disputed)"
            " VALUES (?, 'gps', ?, ?, 1200750, 'gps', 11, -1, ?, 0)",
            (TERMINAL, NOW_MS - HOUR + after_ms, lat_e4, n),
        )
    slots = json.loads(connection.execute("SELECT inventory FROM terminal WHERE id = ?", (TERMINAL,)).fetchone()[0])
    slots.append({"slot": "gps", "family": "gps", "mandatory": False})
    connection.execute("UPDATE terminal SET inventory = ? WHERE id = ?", (json.dumps(slots), TERMINAL))
    site = connection.execute("SELECT site FROM terminal WHERE id = ?", (TERMINAL,)).fetchone()[0]
    connection.execute("UPDATE site SET kind = 'van' WHERE code = ?", (site,))
    connection.execute("INSERT INTO change (at_ms, kind) VALUES (?, 'setting')", (NOW_MS,))


async def test_a_van_on_its_page(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(drive)
    page = await viewer.seen(f"/terminals/{TERMINAL}")
    assert "北纬 29.306，东经 120.075" in page
    moved = on_chinese_maps(29.306, 120.075)
    assert f"公众地图坐标（GCJ-02） {moved[0]:.3f}, {moved[1]:.3f}" in page
    assert "单点，卫星 11 颗" in page
    assert len(re.findall(r"停靠 20\d\d-", page)) == 1
    assert "29.209, 120.075" in page


async def test_a_van_is_drawn_where_it_is(viewer: Person, engine: FleetEngine) -> None:
    before = await viewer.get("/map")
    await engine.write(drive)
    after = await viewer.get("/map")
    assert "120.075,29.306" not in before.replace(" ", "")
    assert "120.075,29.306" in after.replace(" ", "")
    await engine.write(lambda connection: connection.execute("UPDATE van_position SET at_ms = at_ms - ?", (2 * DAY,)))
    assert "120.075,29.306" not in (await viewer.get("/map")).replace(" ", "")


async def test_what_a_sensor_measured_stands_in_words(viewer: Person, engine: FleetEngine) -> None:
    def measure(connection: sqlite3.Connection) -> None:
        slot = json.loads(connection.execute("SELECT inventory FROM terminal WHERE id = ?", (TERMINAL,)).fetchone()[0])[0]["slot"]
        for n, (quantity, unit, tenths, age_ms) in enumerate(
            (
                ("batteryVoltage", "volt", 275, MINUTE),
                ("batteryVoltage", "volt", 990, 20 * MINUTE),
                ("load", "percent", 140, MINUTE),
                ("inputVoltage", "volt", 2260, 2 * DAY),
                ("pressure", "hectopascal", 10_130, MINUTE),
            )
        ):
            connection.execute(
                "INSERT INTO reading (terminal, slot, from_ms, to_ms, quantity, unit, min_tenths, mean_tenths, max_tenths, batch, idx, disputed)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, -1, ?, 0)",
                (TERMINAL, slot, NOW_MS - age_ms - MINUTE, NOW_MS - age_ms, quantity, unit, tenths - 1, tenths, tenths + 1, n),
            )

    await engine.write(measure)
    page = await viewer.seen(f"/terminals/{TERMINAL}")
    assert "电池电压 27.5 V（27.4 至 27.6，" in page
    assert "负载 14.0 %（13.9 至 14.1，" in page
    assert "99.0" not in page
    assert "输入电压" not in page  # two days old


@pytest.mark.parametrize(
    ("text", "system", "place"),
    [
        ("29.079, 119.647", "wgs84", (29.079, 119.647)),
        (" 29.079，119.647 ", "wgs84", (29.079, 119.647)),
        ("-12.5 45", "wgs84", (-12.5, 45.0)),
        ("２９.５，１２０", "wgs84", (29.5, 120.0)),
    ],
)
def test_how_a_place_is_written(text: str, system: str, place: tuple[float, float]) -> None:
    assert place_of(text, system) == place


def test_a_place_of_a_public_map_is_stored_as_a_receiver_tells_it() -> None:
    shown = on_chinese_maps(29.079, 119.647)
    latitude, longitude = place_of(f"{shown[0]:.6f}, {shown[1]:.6f}", "gcj02")
    assert distance_km(29.079, 119.647, latitude, longitude) < 0.002
    assert distance_km(29.079, 119.647, *shown) > 0.3, "or nothing would be said by it"


@pytest.mark.parametrize("text", ["", "here", "29.079", "29.079, 119.647, 3", "1e3, 2", "29.079, 119.647 N", "999, 1"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(Refused):
        place_of(text, "wgs84")


async def test_a_stop_is_planned_seen_and_taken_back(operator: Person, viewer: Person, engine: FleetEngine) -> None:
    await engine.write(drive)
    assert "计划停靠点" in await operator.seen(f"/terminals/{TERMINAL}/devices")
    assert "计划停靠点" not in await viewer.seen(f"/terminals/{TERMINAL}/devices"), "only who may plan is offered it"
    zone = "Asia/Shanghai"
    window = {"from": local_field(NOW_MS + HOUR, zone), "to": local_field(NOW_MS + 3 * HOUR, zone)}
    fields = {"name": "东湖广场", "place": "29.209, 120.075", "system": "wgs84", **window}
    for wrong, word in (
        ({"place": "广场"}, "这不是有效的纬度和经度"),
        ({"to": window["from"]}, "时间不合适"),
        ({"from": "soon"}, "时间不合适"),
        ({"name": ""}, "不能为空"),
        ({"name": "330702199001011235"}, "身份证号"),
    ):
        answer = await operator.post(f"/terminals/{TERMINAL}/stops", **(fields | wrong))
        assert word in answer.text, wrong
    await operator.post(f"/terminals/{TERMINAL}/stops", **fields)
    (row,) = await engine.read("SELECT * FROM van_stop")
    assert (row["terminal"], row["name"], row["lat_e4"], row["lon_e4"], row["outcome"]) == (
        TERMINAL,
        "东湖广场",
        292_090,
        1_200_750,
        None,
    )
    assert row["to_ms"] - row["from_ms"] == 2 * HOUR
    for person in (operator, viewer):
        page = await person.seen(f"/terminals/{TERMINAL}")
        assert "计划停靠：东湖广场" in page
        assert "未开始或进行中" in page
    dialog = await operator.get(f"/terminals/{TERMINAL}/stops")
    assert "东湖广场" in dialog
    assert f"/stops/{row['id']}/remove" in dialog
    await operator.post(f"/terminals/{TERMINAL}/stops/{row['id']}/remove")
    assert await engine.read("SELECT * FROM van_stop") == []
    told = [one["action"] for one in await engine.read("SELECT action FROM audit WHERE action LIKE 'van.%' ORDER BY id")]
    assert told == ["van.plan", "van.takeBack"]


async def test_a_stop_that_was_missed_is_said_on_the_page_and_in_the_list(operator: Person, engine: FleetEngine) -> None:
    def miss(connection: sqlite3.Connection) -> None:
        drive(connection)
        van_stops.plan(
            connection, TERMINAL, by="op", name="西园村口", latitude=29.5, longitude=120.4, from_ms=NOW_MS - 2 * HOUR,
            to_ms=NOW_MS - HOUR, now_ms=NOW_MS - 3 * HOUR,
        )  # fmt: skip
        assert follow_vans(connection, NOW_MS) == 2

    await engine.write(miss)
    page = await operator.seen(f"/terminals/{TERMINAL}")
    assert "计划停靠：西园村口" in page
    assert "未到达" in page
    assert "车辆未到停靠点" in page


async def test_only_a_van_has_a_plan(operator: Person, engine: FleetEngine) -> None:
    fields = {"name": "x", "place": "29.209, 120.075", "system": "wgs84"}
    zone = "Asia/Shanghai"
    window = {"from": local_field(NOW_MS + HOUR, zone), "to": local_field(NOW_MS + 3 * HOUR, zone)}
    answer = await operator.post("/terminals/kf-0016/stops", **fields, **window)
    assert answer.status_code == 404
    assert await engine.read("SELECT * FROM van_stop") == []
