"""One terminal's page: consumables with their days, events by kind, outages of the month, thresholds in its sentence."""

from __future__ import annotations

import re
import sqlite3
from types import SimpleNamespace

import pytest

from fleet_server.console import i18n
from fleet_server.console.history import Span
from fleet_server.console.pages.terminal import _rest_sentence
from fleet_server.console.pages.terminal_tabs import outages
from fleet_server.console.queries.terminal import EVENT_KINDS
from fleet_server.console.render import Voice
from fleet_server.engine import FleetEngine
from fleet_server.thresholds.rules import put
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock
from tests.support.seed import DAY, HOUR, MINUTE, NOW_MS


def use_paper(terminal: str, *remaining: int, until_ms: int = NOW_MS) -> object:
    """A level a day up to `until_ms`, the first of them a refill; they replace what the seed told."""

    def write(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM consumable_level WHERE terminal = ? AND item = 'paper'", (terminal,))
        for n, left in enumerate(remaining):
            at_ms = until_ms - (len(remaining) - 1 - n) * DAY
            connection.execute(
                "INSERT INTO consumable_level (terminal, slot, item, at_ms, event, remaining, capacity, unit, batch, idx)"
                " VALUES (?, 'laser-printer', 'paper', ?, ?, ?, 500, 'sheet', ?, 0)",
                (terminal, at_ms, "level" if n else "refill", left, -1 - n),
            )
        connection.execute(
            "UPDATE consumable SET remaining = ?, source = 'counter', refilled_ms = ? WHERE terminal = ? AND item = 'paper'",
            (remaining[-1], until_ms - (len(remaining) - 1) * DAY, terminal),
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, 'device')", (NOW_MS, terminal))

    return write


async def test_a_consumable_says_how_long_it_lasts_and_what_that_is_based_on(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(use_paper("kf-0022", 430, 375, 320, 265, 210))  # type: ignore[arg-type]
    page = await viewer.seen("/terminals/kf-0022")
    assert "纸约 210 张 · 约 3 天" in page
    assert "无传感器，按计数估算" in page
    assert "每天约 55 张（2026-11-14 起 5 个读数）" in page
    assert "上次补充 2026-11-14" in page
    assert "A4 打印机已补充：纸约 430 张" in page


async def test_without_enough_levels_the_page_says_so(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(use_paper("kf-0022", 430, 375))  # type: ignore[arg-type]
    page = await viewer.seen("/terminals/kf-0022")
    assert "纸约 375 张" in page
    assert "读数不足，不估算可用天数" in page
    assert "375 张 · 约" not in page


async def test_what_runs_out_stands_on_the_start_page_until_it_is_refilled(viewer: Person, engine: FleetEngine) -> None:
    assert "纸约剩" not in await viewer.seen("/")
    await engine.write(use_paper("kf-0022", 330, 240, 150))  # type: ignore[arg-type]
    page = await viewer.seen("/needs")
    assert "提示 KF-0022 义乌农商银行营业部 综合自助机 1 号 A4 打印机：纸约剩 1 天 不影响办事" in page
    await engine.write(lambda connection: put(connection, "consumable.warn_days", 1, by="operator", now_ms=NOW_MS))
    await engine.write(lambda connection: connection.execute("INSERT INTO change (at_ms, kind) VALUES (1, 'setting')"))
    assert "纸约剩" not in await viewer.seen("/needs")
    await engine.write(lambda connection: put(connection, "consumable.warn_days", 3, by="operator", now_ms=NOW_MS))
    await engine.write(lambda connection: connection.execute("INSERT INTO change (at_ms, kind) VALUES (1, 'setting')"))
    assert "纸约剩" in await viewer.seen("/needs")
    await engine.write(use_paper("kf-0022", 500))  # type: ignore[arg-type]
    assert "纸约剩" not in await viewer.seen("/needs")


async def test_events_can_be_listed_by_kind(viewer: Person, engine: FleetEngine) -> None:
    def happen(connection: sqlite3.Connection) -> None:
        connection.execute(
            'INSERT INTO maintenance (terminal, from_ms, to_ms, until_ms, reason, "by", ended_by)'
            " VALUES ('kf-0037', ?, ?, ?, '换纸', 'operator', 'zhao')",
            (NOW_MS - 3 * HOUR, NOW_MS - 2 * HOUR, NOW_MS),
        )
        connection.execute(
            "INSERT INTO fault_event (fault, at_ms, kind, \"by\", text) SELECT id, ?, 'note', 'operator', '已联系' FROM fault"
            " WHERE terminal = 'kf-0037' AND code = 'LSR.JAM'",
            (NOW_MS - HOUR,),
        )

    await engine.write(use_paper("kf-0037", 500, 450, 400))  # type: ignore[arg-type]
    await engine.write(happen)
    told = {
        "fault": "A4 打印机卡纸",
        "device": "A4 打印机：卡纸",
        "presence": "在线",
        "boot": "启动：代理 0.1.0",
        "person": "operator 设为维护：换纸",
        "supply": "A4 打印机已补充",
    }
    assert set(told) == set(EVENT_KINDS)
    for kind, words in told.items():
        tab = await viewer.get(f"/terminals/kf-0037/tab?tab=events&kind={kind}", part=True)
        kinds = set(re.findall(r'<span class="kind"><span class="tag">(.*?)</span>', tab))
        assert words in tab, kind
        assert len(kinds) == 1, (kind, kinds)
        assert f'hx-get="/terminals/kf-0037/tab?tab=events&kind={kind}" data-live' in tab.replace("&amp;", "&")
    people = await viewer.get("/terminals/kf-0037/tab?tab=events&kind=person", part=True)
    assert "zhao 结束维护" in people
    assert "operator 备注：已联系" in people
    everything = await viewer.get("/terminals/kf-0037/tab?tab=events&kind=nonsense", part=True)
    assert all(words in everything for words in told.values())


async def test_the_sentence_names_the_threshold_of_the_class(viewer: Person, engine: FleetEngine, clock: HandClock) -> None:
    assert "满 5 分钟仍无消息即为离线" in await viewer.seen("/terminals/kf-0163")
    await engine.write(lambda connection: put(connection, "presence.offline_s", 240, by="operator", now_ms=NOW_MS))
    clock.now_ms += 6_000
    assert "满 4 分钟仍无消息即为离线" in await viewer.seen("/terminals/kf-0163")
    assert 'title="服务时段内 4 分钟没有消息，或已预告停机。"' in await viewer.get("/terminals/kf-0151")


def part(from_min: int, to_min: int, look: str, title: str = "") -> Span:
    return Span(from_min * MINUTE, to_min * MINUTE, look, title=title)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([part(0, 100, "normal")], []),
        ([part(0, 10, "unusable", "PRN.JAM"), part(10, 100, "normal")], [(10 * MINUTE, "PRN.JAM")]),
        (  # what touches is one outage, told by what began it
            [
                part(0, 10, "unusable", "PRN.JAM"),
                part(10, 30, "offline", "offline"),
                part(30, 40, "normal"),
                part(40, 45, "offline"),
            ],
            [(30 * MINUTE, "PRN.JAM"), (5 * MINUTE, "NET.OFFLINE")],
        ),
        ([part(60, 120, "unusable", "PRN.JAM")], [(40 * MINUTE, "PRN.JAM")]),  # only opening hours count
        ([part(110, 120, "unusable", "PRN.JAM")], []),
        ([part(0, 100, "noData")], []),
    ],
)
def test_outages_of_the_month(parts: list[Span], expected: list[tuple[int, str]]) -> None:
    assert outages(parts, [(0, 100 * MINUTE)]) == expected


async def test_the_month_tells_what_it_was_down_for(viewer: Person, engine: FleetEngine) -> None:
    page = await viewer.seen("/terminals/kf-0016")
    found = re.search(r"11 月：可用率 [\d.]+ %，停机 (\d+) 次共 (.+?)（(.+?)）。", page)
    assert found
    assert sum(int(one.rsplit(" ", 1)[1]) for one in found.group(3).split("，")) == int(found.group(1))
    assert "A4 打印机缺纸" in found.group(3)


async def test_maintenance_is_drawn_on_the_service_lane(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(
        lambda connection: connection.execute(
            "INSERT INTO maintenance (terminal, from_ms, to_ms, until_ms, reason, \"by\") VALUES ('kf-0022', ?, ?, ?, 'x', 'operator')",
            (NOW_MS - 5 * HOUR, NOW_MS - 3 * HOUR, NOW_MS),
        )
    )
    lane = (await viewer.get("/terminals/kf-0022/timeline", part=True)).split('<div class="lane">')[2]
    assert "f-maintenance" in lane
    assert "维护中" in lane


@pytest.mark.parametrize(
    ("language", "few", "many"),
    [
        ("zh", "叫号器 1 号、叫号器 2 号正常。", "其余 9 个外设正常。"),
        ("en", " Call pad 1, Call pad 2: fine.", " The other 9 peripherals are fine."),
    ],
)
def test_well_devices_are_named_while_they_are_few(language: str, few: str, many: str) -> None:
    voice = Voice(i18n.load(language), NOW_MS, "UTC")
    for count, said in ((2, few), (9, many)):
        lamps = (*((f"call-pad-{n + 1}", "ok") for n in range(count)), ("ups", "bad"))
        assert _rest_sentence(SimpleNamespace(lamps=lamps), voice) == said  # type: ignore[arg-type]  # all that is asked of it
