"""A van on its page and on the map; coordinates as public maps of China want them; what sensors measured, in words."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

import pytest

from fleet_server.console.chinese_maps import on_chinese_maps
from fleet_server.console.van_view import stops
from fleet_server.engine import FleetEngine
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
