"""The start page below its tiles: usage, areas, the last changes, everything that needs a person; each number with its rows."""

from __future__ import annotations

import asyncio
import html
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.console.area_now import HOURS, LOOKS, blocks, by_area, day_share, hour_edges, hour_shares, hour_times
from fleet_server.console.history import Span
from fleet_server.console.kept import TOO_OLD_MS, YOUNG_MS, Kept
from fleet_server.console.pages.overview import fmt_share
from fleet_server.console.state_changes import Change, Lasting, Story, changes
from fleet_server.engine import FleetEngine
from fleet_server.sites.calendar import builtin_calendar
from tests.fleet_server.console.conftest import COUNT, Person
from tests.fleet_server.console.test_rules import SITE, terminal
from tests.support.clock import HandClock
from tests.support.seed import DAY, HOUR, MINUTE, NOW_MS, Seeded

NUMBER = re.compile(r'<a[^>]* href="(/terminals\?[^"]+)"[^>]*>([\d,]+)</a>')


def whole(text: str) -> int:
    return int(text.replace(",", ""))


async def listed(person: Person, href: str) -> int:
    found = re.search(r"共 ([\d,]+) 台", await person.get(html.unescape(href)))
    return whole(found.group(1)) if found else 0


# Areas ------------------------------------------------------------------------------------------------------------------------------------


async def test_every_number_of_the_areas_is_the_rows_behind_it(viewer: Person) -> None:
    part = await viewer.get("/parts/areas", part=True)
    links = NUMBER.findall(part)
    assert len(links) == 9 * 5
    for href, number in links:
        assert await listed(viewer, href) == whole(number), href


async def test_the_areas_add_up_to_the_tiles(viewer: Person) -> None:
    page = await viewer.get("/")
    tiles = {name: whole(number) for name, number in re.findall(r'data-tile="(\w+)">([\d,]+)<', page)}
    rows = re.findall(r'<tr role="row" data-row="area-\d+".*?</tr>', page, re.DOTALL)
    assert len(rows) == 9

    def total(kind: str) -> int:
        pattern = rf'href="/terminals\?area=\w+{kind}">([\d,]+)</a>'
        return sum(whole(found.group(1)) for row in rows if (found := re.search(pattern, row.split("</td>", 1)[1])))

    assert total("") == tiles["total"] == COUNT
    for name, state in (("abnormal", "abnormal"), ("online", "online"), ("offline", "OFFLINE")):
        assert total(f"&(?:amp;)?state={state}") == tiles[name], name
    cases = sum(whole(found.group(1)) for row in rows if (found := re.search(r'figure=cases[^"]*">([\d,]+)</a>', row)))
    assert cases == tiles["cases"]


async def test_terminals_without_a_site_have_a_row_of_their_own(viewer: Person, engine: FleetEngine) -> None:
    def orphan(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE terminal SET site = 'nowhere' WHERE id IN ('kf-0016', 'kf-0017')")
        connection.execute(
            "INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0016', 'enrolment'), (1, 'kf-0017', 'enrolment')"
        )

    await engine.write(orphan)
    part = await viewer.get("/parts/areas", part=True)
    row = re.search(r'<tr role="row"><td.*?</tr>|<tr role="row">\s*<td.*?</tr>', part, re.DOTALL)
    assert row
    assert "未划区域" in row.group(0)
    assert "/terminals" not in row.group(0)


def test_rows_are_the_areas_below_the_only_root() -> None:
    def at(name: str, *chain: str) -> Any:
        from dataclasses import replace

        return terminal(name, place=replace(SITE, areas=tuple((code, code, code) for code in chain)))

    fleet = [at("a", "city", "east"), at("b", "city", "west", "old-town"), at("c", "city"), at("d"), at("e", "city", "new")]
    rows = by_area(fleet, ["city", "west", "east"])
    assert [(row.code, [one.id for one in row.terminals], row.is_whole) for row in rows] == [
        ("city", ["c"], False),  # "area=city" would list all
        ("west", ["b"], True),
        ("east", ["a"], True),
        ("new", ["e"], True),
        ("", ["d"], False),
    ]
    assert [row.code for row in by_area([at("a", "north", "x"), at("b", "south", "y")], [])] == ["north", "south"]


# The last 24 hours --------------------------------------------------------------------------------------------------------------------------

EDGES = hour_edges(NOW_MS)
START = EDGES[0]


def test_a_lane_is_divided_into_hours_and_ends_now() -> None:
    spans = [Span(START - DAY, START + HOUR + 15 * MINUTE, "normal"), Span(START + HOUR + 15 * MINUTE, NOW_MS + DAY, "offline")]
    hours = hour_times(spans, EDGES, NOW_MS)
    assert hours[0] == {"normal": HOUR}
    assert hours[1] == {"normal": 15 * MINUTE, "offline": 45 * MINUTE}
    assert hours[-1] == {"offline": NOW_MS - EDGES[-2]}
    assert len(hours) == HOURS


def test_machines_of_an_area_share_its_hours() -> None:
    fine, broken = [{"normal": HOUR}] * HOURS, [{"unusable": HOUR}] * HOURS
    (first, *_) = hour_shares([fine, fine, fine, broken])
    assert first == (("unusable", 0.25), ("normal", 0.75))
    assert day_share(hour_shares([fine, fine, fine, broken]), "unusable") == 0.25
    assert hour_shares([]) == [()] * HOURS


def test_equal_hours_are_one_block_and_nothing_known_is_hatched() -> None:
    (block,) = blocks([()] * HOURS)
    assert (block.look, block.from_hour, block.to_hour, block.height) == ("noData", 0, HOURS, 1.0)
    one = blocks([(("normal", 1.0),)] * 20 + [(("unusable", 0.001), ("normal", 0.999))] * 4)
    assert [(block.look, block.from_hour, block.to_hour) for block in one] == [
        ("normal", 0, 20),
        ("unusable", 20, 24),
        ("normal", 20, 24),
    ]
    assert one[1].height >= 0.09  # one machine of a thousand is still seen


@given(st.lists(st.dictionaries(st.sampled_from(LOOKS), st.integers(1, HOUR), max_size=5), min_size=HOURS, max_size=HOURS))
def test_every_column_is_full_and_no_trouble_is_left_out(times: list[dict[str, int]]) -> None:
    hours = hour_shares([times])
    drawn = blocks(hours)
    for n in range(HOURS):
        column = [block for block in drawn if block.from_hour <= n < block.to_hour]
        assert abs(sum(block.height for block in column) - 1) < 0.06
        assert {"unusable", "offline"} & set(times[n]) <= {block.look for block in column}


@pytest.mark.parametrize(("part", "shown"), [(0, "0 %"), (0.0001, "0.1 %"), (0.25, "25.0 %"), (1, "100.0 %")])
def test_what_is_there_is_never_shown_as_nothing(part: float, shown: str) -> None:
    assert fmt_share(part) == shown


# Usage ------------------------------------------------------------------------------------------------------------------------------------


async def test_usage_is_what_the_facts_say(viewer: Person, engine: FleetEngine) -> None:
    page = await viewer.seen("/parts/usage")
    month = "day BETWEEN '2026-11-01' AND '2026-11-18' AND disputed = 0"
    (row,) = await engine.read(
        f"SELECT count(*) AS cases, count(DISTINCT CASE WHEN outcome = 'success' THEN terminal END) AS active FROM session WHERE {month}"
    )
    (fleet,) = await engine.read("SELECT count(*) AS n FROM terminal WHERE enrolled_ms IS NOT NULL")
    n, active = fleet["n"], row["active"]
    assert f"本月办件 {row['cases']:,}" in page
    assert f"有办件终端占比 {int(active * 1000 / n) / 10} % {active} / {n}" in page
    assert f"零办件终端 {n - active} 台" in page
    assert f"单台日均 {row['cases'] / (n * 18):.2f}" in page


async def test_the_hours_of_today_stand_beside_the_same_weekday(viewer: Person, engine: FleetEngine, clock: HandClock) -> None:
    def past(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM session")
        for weeks, cases in ((0, 3), (1, 4), (2, 2)):
            for n in range(cases):
                began_ms = NOW_MS - weeks * 7 * DAY - HOUR
                connection.execute(
                    "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
                    " VALUES ('kf-0001', ?, 'a.b', 'touch', 'success', 'none', ?, 1, date((? + 28800000) / 1000, 'unixepoch'), 0, 0, 0)",
                    (bytes([weeks, n] * 8), began_ms, began_ms),
                )

    await engine.write(past)
    clock.now_ms += TOO_OLD_MS
    part = await viewer.get("/parts/usage", part=True)
    assert "<title>09 时：今日 3 件，同星期平均 1.5 件</title>" in part  # 4 and 2 of four Wednesdays
    assert part.count("<title>") == 24


async def test_figures_carry_a_mark_while_a_backlog_is_coming(viewer: Person, app: Any) -> None:
    from fleet_server.live.backlog import Backlog

    assert "统计中" not in await viewer.seen("/")
    app.state.desk.hub.backlog = Backlog(62, 1204)
    page = await viewer.seen("/")
    assert page.count("统计中") == 2  # the tile of today's cases and the block of usage
    assert "正在接收历史记录 62 %" in page


async def test_todays_cases_count_by_the_rule_of_the_figures(viewer: Person, engine: FleetEngine) -> None:
    before = whole(re.findall(r'data-tile="cases">([\d,]+)<', await viewer.get("/"))[0])

    def strange(connection: sqlite3.Connection) -> None:
        for n, (name, day, disputed) in enumerate(
            [
                ("kf-0201", "2026-11-18", 0),
                ("kf-0001", "2026-11-18", 1),
                ("kf-0001", "2026-11-17", 0),
                ("kf-0001", "2026-11-18", 0),
            ]
        ):
            connection.execute(
                "INSERT INTO session (terminal, sid, item, channel, outcome, cause, began_ms, duration_ms, day, batch, idx, disputed)"
                " VALUES (?, ?, 'a.b', 'touch', 'success', 'none', ?, 1, ?, 0, 0, ?)",
                (name, bytes([n] * 16), NOW_MS - HOUR, day, disputed),
            )

    await engine.write(strange)  # not enrolled; disputed; another day; one that counts
    page = await viewer.get("/")
    assert whole(re.findall(r'data-tile="cases">([\d,]+)<', page)[0]) == before + 1
    assert 'href="/figures/behind?figure=cases&amp;period=2026-11-18..2026-11-18"' in page


# What needs a person ------------------------------------------------------------------------------------------------------------------------


async def test_all_rows_stand_behind_the_number(viewer: Person, engine: FleetEngine) -> None:
    def storm(connection: sqlite3.Connection) -> None:
        for n in range(1, 60, 5):
            connection.execute(
                "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
                " VALUES (?, ?, 'scanner', 'SCN.UNPLUGGED', 'P2', 1, ?, ?, 0, 0, 'terminal', 0)",
                (f"kf-{n:04d}:storm", f"kf-{n:04d}", NOW_MS - HOUR, NOW_MS - HOUR),
            )
            connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, ?, 'fault')", (f"kf-{n:04d}",))

    await engine.write(storm)
    start = await viewer.get("/")
    found = re.search(r'<a class="more" href="/needs" data-count="(\d+)">查看全部 (\d+) 条', start)
    assert found
    everything = await viewer.get("/needs")
    assert len(re.findall(r'<tr role="row" class="stripe', everything)) == int(found.group(1)) > 10
    assert len(re.findall(r'<tr role="row" class="stripe', start)) == 10
    assert f"<title>({found.group(1)}) " in start
    assert 'hx-get="/parts/needs?all=1"' in everything


async def test_a_stream_in_dispute_is_a_row_of_its_own(viewer: Person, engine: FleetEngine) -> None:
    def fork(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE stream SET disputed = 1 WHERE terminal = 'kf-0007'")
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0007', 'fault')")

    await engine.write(fork)
    page = await viewer.seen("/needs")
    assert re.search(r"紧急 KF-0007 \S+ .*? 记录流有争议，待判定", page)


# The last changes ---------------------------------------------------------------------------------------------------------------------------


def told(word: str, from_min: float, to_min: float, why: str = "", rank: int = 0) -> Lasting:
    return Lasting(from_ms=round(from_min * MINUTE), to_ms=round(to_min * MINUTE), word=word, why=why or word, rank=rank)


def story(**parts: Any) -> Story:
    whole_day: dict[str, Any] = {"presence": [told("online", 0, 1440)], "faults": [], "maintenance": [], "opening": [(0, DAY)]}
    return Story(terminal="a", **{**whole_day, **parts})


def steps(found: list[Change]) -> list[tuple[float, str, str, str]]:
    return [(change.at_ms / MINUTE, change.before, change.after, change.why) for change in found]


def test_a_fault_comes_and_goes() -> None:
    one = story(faults=[told("unusable", 10, 20, "LSR.PAPER_OUT"), told("partial", 5, 30, "EVA.UNPLUGGED", 12)])
    assert steps(changes(one, 0, DAY)) == [
        (5, "normal", "partial", "EVA.UNPLUGGED"),
        (10, "partial", "unusable", "LSR.PAPER_OUT"),
        (20, "unusable", "partial", "EVA.UNPLUGGED"),
        (30, "partial", "normal", "EVA.UNPLUGGED"),
    ]


def test_silence_hides_faults_and_the_clock_alone_changes_nothing() -> None:
    one = story(
        presence=[
            told("online", 0, 10),
            told("suspect", 10, 14, "silence"),
            told("offline", 14, 90, "silence"),
            told("online", 90, 1440),
        ],
        faults=[told("unusable", 5, 100, "PRN.JAM")],
        opening=[(0, 60 * MINUTE), (80 * MINUTE, DAY)],
    )
    assert steps(changes(one, 0, DAY)) == [
        (5, "normal", "unusable", "PRN.JAM"),
        (10, "unusable", "suspect", "silence"),
        (14, "suspect", "offline", "silence"),
        (90, "offline", "unusable", "PRN.JAM"),  # not "closed" at 60, not "offline" again at 80
        (100, "unusable", "normal", "PRN.JAM"),
    ]


def test_maintenance_comes_before_everything() -> None:
    one = story(faults=[told("unusable", 10, 20, "PRN.JAM")], maintenance=[told("", 5, 30)])
    assert [step[1:3] for step in steps(changes(one, 0, DAY))] == [("normal", "maintenance"), ("maintenance", "normal")]


async def test_the_last_changes_say_from_where_to_where_and_why(viewer: Person, engine: FleetEngine) -> None:
    def maintain(connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO maintenance (terminal, from_ms, until_ms, reason, \"by\") VALUES ('kf-0022', ?, ?, 'x', 'operator')",
            (NOW_MS - MINUTE, NOW_MS + HOUR),
        )
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (1, 'kf-0022', 'enrolment')")

    await engine.write(maintain)
    page = await viewer.seen("/parts/changes")
    rows = re.findall(r"(\d\d:\d\d:\d\d|\d\d-\d\d \d\d:\d\d) (KF-\d{4}) (.+?) → 变为 (.+?)(?= \d\d[:-]\d\d| *$)", page)
    assert len(rows) == 20
    assert rows[0][1:3] == ("KF-0022", "正常")
    assert rows[0][3] == "维护中 设为维护"
    assert ("KF-0058", "正常", "异常·不能办事 身份证阅读器安全模块未授权") in [row[1:] for row in rows]
    assert any(row[3].startswith("离线 没有消息") for row in rows)


# Kept values --------------------------------------------------------------------------------------------------------------------------------


class Making:
    """Counts how often a value is made; `wait` holds it up."""

    def __init__(self) -> None:
        self.made = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, at_ms: int) -> int:
        self.made += 1
        await self.gate.wait()
        return at_ms


@pytest.fixture
def making() -> Making:
    return Making()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_young_value_is_given_an_older_one_renewed_behind_and_an_old_one_waited_for(
    making: Making, clock: HandClock
) -> None:
    kept: Kept[int] = Kept(clock)
    begun_ms = clock.now_ms
    assert (await kept.get("a", making)).value == begun_ms
    clock.now_ms += YOUNG_MS - 1
    assert (await kept.get("a", making)).value == begun_ms
    assert making.made == 1
    clock.now_ms += 1
    assert (await kept.get("a", making)).value == begun_ms  # at once, while it is renewed
    await settle()
    assert (await kept.get("a", making)).value == clock.now_ms
    clock.now_ms += TOO_OLD_MS
    assert (await kept.get("a", making)).value == clock.now_ms


async def test_many_who_ask_together_wait_for_one(making: Making, clock: HandClock) -> None:
    kept: Kept[int] = Kept(clock)
    making.gate.clear()
    asking = [asyncio.create_task(kept.get("a", making)) for _ in range(5)]
    await settle()
    asking[0].cancel()  # one who goes away takes nothing from the others
    making.gate.set()
    assert {(await one).value for one in asking[1:]} == {clock.now_ms}
    assert making.made == 1


async def test_another_key_is_never_answered_with_an_old_value(making: Making, clock: HandClock) -> None:
    kept: Kept[int] = Kept(clock)
    await kept.get("yesterday", making)
    clock.now_ms += 1
    assert (await kept.get("today", making)).value == clock.now_ms


async def test_a_failure_is_told_to_who_waits_and_forgotten(clock: HandClock, making: Making) -> None:
    kept: Kept[int] = Kept(clock)

    async def fail(at_ms: int) -> int:
        raise RuntimeError(str(at_ms))

    with pytest.raises(RuntimeError):
        await kept.get("a", fail)
    assert (await kept.get("a", making)).value == clock.now_ms


# The calendar in the frame -------------------------------------------------------------------------------------------------------------------


def move_sessions(to_ms: int) -> Callable[[sqlite3.Connection], None]:
    return lambda connection: connection.execute(
        "UPDATE login SET created_ms = ?, seen_ms = ?, expires_ms = ?", (to_ms, to_ms, to_ms + HOUR)
    )  # type: ignore[return-value]


async def test_the_badge_follows_imported_days_at_once(viewer: Person, engine: FleetEngine, clock: HandClock) -> None:
    assert "工作日" in await viewer.seen("/needs")
    await engine.write(
        lambda connection: connection.execute("INSERT INTO holiday (day, kind, name_zh) VALUES ('2026-11-18', 'off', '试点')")
    )
    clock.now_ms += 6_000
    page = await viewer.seen("/needs")
    assert "节假日" in page
    assert "KF-0151" not in page  # a hall that is closed today is not offline


async def test_from_december_on_the_next_years_holidays_are_asked_for(
    viewer: Person, engine: FleetEngine, clock: HandClock, seeded: Seeded
) -> None:
    missing = 2027
    assert missing not in builtin_calendar().years
    assert "节假日尚未导入" not in await viewer.seen("/needs")
    clock.now_ms = NOW_MS + 13 * DAY  # 1 December
    await engine.write(move_sessions(clock.now_ms))
    assert f"{missing} 年节假日尚未导入" in await viewer.seen("/needs")
    assert 'class="badge badge-warn" href="/calendar"' in await viewer.get("/needs")
    await engine.write(
        lambda connection: connection.execute("INSERT INTO holiday (day, kind, name_zh) VALUES ('2027-01-01', 'off', '元旦')")
    )
    clock.now_ms += 6_000
    assert "节假日尚未导入" not in await viewer.seen("/needs")
