"""The calendar page: the year, where it is known from, the import with its preview, and what kind of time a moment is."""

from __future__ import annotations

import html
import json
import re
from datetime import date, datetime

import pytest

from fleet_server.console.calendar_view import changes_between, months_of, rests_of
from fleet_server.engine import FleetEngine
from fleet_server.sites.calendar import builtin_calendar, with_imported
from fleet_server.sites.holidays import SpecialDay, builtin_days, decode, read_holidays
from tests.fleet_server.console.conftest import Person
from tests.fleet_server.sites.test_holidays import OFF_2027, WORK_2027, invented_2027
from tests.support.clock import HandClock

DECEMBER_MS = int(datetime.fromisoformat("2026-12-01T10:00:00+08:00").timestamp() * 1000)


async def count(engine: FleetEngine) -> int:
    return int((await engine.read("SELECT count(*) AS n FROM holiday"))[0]["n"])


async def test_a_year_by_months_with_its_marks(viewer: Person) -> None:
    page = await viewer.seen("/calendar?year=2026")
    assert "2026 年：248 个工作日" in page
    assert "2 月 16 个工作日" in page
    assert "休 春节 02-15 – 02-23 9" in page
    assert "班 调休上班 10-10 1" in page
    assert "2026 内置，依据国务院办公厅 2025-11-04 的通知" in page
    shown = await viewer.get("/calendar?year=2026")
    february = shown.partition(">2 月<")[2].partition("</table>")[0]
    assert re.findall(r'class="mark holiday[^"]*"[^>]*>(\d+)<i>休', february) == [str(n) for n in range(15, 24)]
    assert re.findall(r'class="mark makeUp[^"]*"[^>]*>(\d+)<i>班', february) == ["14", "28"]
    assert "/calendar/preview" not in shown


async def test_a_year_nobody_knows_says_so(viewer: Person) -> None:
    assert "2027 年：安排未知，只按周末计算为 261 个工作日" in await viewer.seen("/calendar?year=2027")
    assert "2026 年日历" in await viewer.seen("/calendar?year=soon")


async def test_the_warning_comes_with_december(viewer: Person, operator: Person, clock: HandClock) -> None:
    assert "缺少" not in await viewer.seen("/calendar")
    clock.now_ms = DECEMBER_MS
    for person in (operator, viewer):
        await person.sign_in("operator" if person is operator else "viewer")
    page = await viewer.seen("/calendar")
    assert "缺少 2027 年节假日安排。" in page
    assert "2027 未知，请导入" in page
    await operator.post("/calendar/import", text=invented_2027())
    assert "缺少" not in await viewer.seen("/calendar")


async def test_an_import_shows_its_difference_before_anything_is_written(
    operator: Person, viewer: Person, engine: FleetEngine
) -> None:
    answer = await operator.post("/calendar/preview", text=invented_2027())
    assert answer.status_code == 200
    words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())
    assert "文件里有 33 天，其中 33 天与现在不同" in words
    assert "2027 未知 250" in words
    assert "2027-06-09 周三 工作日 → 节假日 端午节" in words
    assert "2027-01-31 周日 休息日 → 调休上班" in words
    assert await count(engine) == 0
    kept = re.search(r'<textarea name="text" hidden>(.*?)</textarea>', answer.text, re.DOTALL)
    assert kept
    saved = await operator.post("/calendar/import", text=html.unescape(kept.group(1)))
    assert saved.headers["location"] == "/calendar?year=2027&done=imported"
    page = await viewer.seen("/calendar?year=2027")
    assert "2027 年：250 个工作日" in page
    assert "2027 导入 33 天，operator，2026-11-18 10:42" in page
    assert "operator 导入 2027 年，33 天" in page
    assert "本来就是" not in page


async def test_a_file_is_read_in_the_encodings_that_offices_use(operator: Person) -> None:
    rows = ["日期,类型,名称"]
    for name, first, last in OFF_2027:
        one = date.fromisoformat(first)
        rows += [f"{one.year}/{one.month}/{day},休,{name}" for day in range(one.day, date.fromisoformat(last).day + 1)]
    rows += [f"{day},班," for day in WORK_2027]
    for encoding in ("utf-8-sig", "gb18030"):
        sent = await operator.client.post(
            "/calendar/preview",
            files={"file": ("2027.csv", "\r\n".join(rows).encode(encoding), "text/csv")},
            data={"_csrf": operator.csrf},
        )
        assert sent.status_code == 200
        assert "端午节" in sent.text


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", ["里面没有日期"]),
        ("日期,类型\n2027-02-30,休\n2027-01-01,maybe", ["第 2 行：日期要写成", "第 3 行：类型只能是"]),
        ('{"off": [7]}', ["off 第 1 项：日期要写成"]),
        ("day,kind\n2027-05-01,off", ["2027 年：01-01 至 01-01 之间，元旦放假 0 天，少于 1 天"]),
        ("{", ["不是 JSON"]),
        ("a,b\n1,2", ["表头要有"]),
    ],
)
async def test_problems_are_told_line_by_line_and_the_text_stays(
    operator: Person, engine: FleetEngine, text: str, sentences: list[str]
) -> None:
    for address in ("/calendar/preview", "/calendar/import"):
        answer = await operator.post(address, text=text)
        assert answer.status_code == 400
        for sentence in sentences:
            assert sentence in answer.text
        assert f">{html.escape(text, quote=False)}</textarea>".replace("&quot;", "&#34;") in answer.text.replace("&#34;", '"')
    assert await count(engine) == 0


async def test_an_import_may_stand_for_all_and_can_be_taken_back(operator: Person, engine: FleetEngine) -> None:
    await operator.post("/calendar/import", text="day,kind\n2026-11-23,off")
    assert await count(engine) == 1
    tree = {"off": [{"from": "2026-12-25", "to": "2026-12-25", "name_zh": "试行"}]}
    await operator.post("/calendar/import", text=json.dumps(tree))
    assert await count(engine) == 2
    await operator.post("/calendar/import", text=json.dumps(tree), replace="1")
    assert await engine.read("SELECT day, kind FROM holiday") == [{"day": "2026-12-25", "kind": "off"}]
    assert (await operator.post("/calendar/forget", year="2026")).headers["location"] == "/calendar?year=2026&done=forgotten"
    assert await count(engine) == 0
    page = await operator.seen("/calendar")
    assert "撤销 2026 年的导入，1 天" in page
    assert "2026 年：248 个工作日" in page


async def test_the_template_is_a_year_that_the_import_reads(viewer: Person) -> None:
    answer = await viewer.client.get("/calendar/days.csv")
    assert 'filename="holidays-2026.csv"' in answer.headers["content-disposition"]
    days = read_holidays(decode(answer.content), is_json=False)
    assert days == sorted((one for one in builtin_days() if one.day.year == 2026), key=lambda one: one.day)
    assert (
        'filename="holidays-2025.csv"' in (await viewer.client.get("/calendar/days.csv?year=2025")).headers["content-disposition"]
    )


@pytest.mark.parametrize(
    ("at", "code", "reason"),
    [
        ("2026-02-14T10:00", "WORK", "2026-02-14（周六）是调休上班，10:00 在开放时段 09:00–12:00 内"),
        ("2026-09-20T10:00", "WORK", "2026-09-20（周日）是调休上班"),
        ("2026-02-23T10:00", "HOLIDAY", "2026-02-23（周一）放假：春节"),
        ("2026-09-26T10:00", "HOLIDAY", "2026-09-26（周六）放假：中秋节"),
        ("2026-10-17T10:00", "WEEKEND", "2026-10-17（周六）是周末，不是调休上班日"),
        ("2026-11-18T12:30", "NOON", "12:30 在 12:00 与 13:30 之间的午休里"),
        ("2026-11-18T08:59", "BEFORE_HOURS", "08:59 早于开门时间 09:00"),
        ("2026-11-18T17:00", "AFTER_HOURS", "17:00 已过关门时间 17:00"),
    ],
)
async def test_what_kind_of_time_a_moment_is_and_why(viewer: Person, at: str, code: str, reason: str) -> None:
    page = await viewer.seen(f"/calendar?site=yiwu-hall&at={at}")
    assert f" {code} " in page.partition("这一刻算什么时间")[2]
    assert reason in page


async def test_a_moment_is_judged_by_the_hours_that_held_then(operator: Person) -> None:
    page = await operator.get("/sites/yiwu-hall")
    seen = re.search(r'action="/sites/yiwu-hall/hours".*?name="seen" value="([^"]+)"', page, re.DOTALL)
    assert seen
    form = {
        "seen": seen.group(1),
        "hours_from": "2026-11-17",
        "tue.0.from": "20:00",
        "tue.0.to": "22:00",
        "mon.0.from": "20:00",
        "mon.0.to": "22:00",
    }
    assert (await operator.post("/sites/yiwu-hall/hours", **form)).status_code == 303
    assert " WORK " in (await operator.seen("/calendar?site=yiwu-hall&at=2026-11-16T10:00")).partition("这一刻算什么时间")[2]
    assert (
        " BEFORE_HOURS " in (await operator.seen("/calendar?site=yiwu-hall&at=2026-11-17T10:00")).partition("这一刻算什么时间")[2]
    )


async def test_working_days_are_counted_ahead(viewer: Person) -> None:
    assert "第 5 个工作日是 2026-10-13（周二）" in await viewer.seen("/calendar?start=2026-09-30&n=5")
    page = await viewer.seen("/calendar?start=2026-12-30&n=5")
    assert "结果只按周末推算" in page


@pytest.mark.parametrize(
    "query",
    ["site=nowhere&at=2026-11-18T10:00", "site=yiwu-hall&at=", "at=9999-12-31T23:59", "start=x&n=1", "n=99999999999", "year=0"],
)
async def test_odd_questions_are_no_trouble(viewer: Person, query: str) -> None:
    assert (await viewer.client.get(f"/calendar?{query}")).status_code == 200


def test_months_have_whole_weeks_and_every_day_once() -> None:
    months = months_of(builtin_calendar(), 2026, [], date(2026, 11, 18), "zh")
    days = [cell.day for month in months for week in month.weeks for cell in week if cell]
    assert days == sorted(days)
    assert len(days) == 365
    assert sum(month.working_days for month in months) == 248
    assert all(len(week) == 7 for month in months for week in month.weeks)
    assert [cell.day.isoformat() for month in months for week in month.weeks for cell in week if cell and cell.today] == [
        "2026-11-18"
    ]


def test_a_holiday_is_one_line_and_a_gap_makes_two() -> None:
    calendar = with_imported(builtin_calendar(), [("2027-01-01", "off"), ("2027-01-02", "off"), ("2027-01-04", "off")])
    days = [SpecialDay(date(2027, 1, n), "off", "元旦") for n in (1, 2, 4)]
    assert [(one.first.day, one.last.day, one.name) for one in rests_of(calendar, days, "en")] == [
        (1, 2, "New Year"),
        (4, 4, "New Year"),
    ]


def test_a_difference_names_only_days_that_change() -> None:
    before = builtin_calendar()
    after = with_imported(before, [("2026-10-01", "off"), ("2026-10-10", "off"), ("2026-11-21", "work")])
    found = changes_between(before, after, [2026], [], "zh")
    assert [(one.day.isoformat(), one.before, one.after) for one in found] == [
        ("2026-10-10", "makeUp", "holiday"),
        ("2026-11-21", "weekend", "makeUp"),
    ]
