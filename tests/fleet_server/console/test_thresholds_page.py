"""The page of thresholds: every one with its meaning, its value by class, who set it; operators change them within bounds and order."""

from __future__ import annotations

import re

import pytest

from fleet_server.console import i18n
from fleet_server.console.render import Voice
from fleet_server.console.threshold_view import SECTIONS, read_value, typed, value_words
from fleet_server.engine import FleetEngine
from fleet_server.errors import Refused
from fleet_server.thresholds.defaults import DEFAULTS
from tests.fleet_server.console.conftest import Person
from tests.support.seed import NOW_MS

WORDS = i18n.load_all()


async def settings(engine: FleetEngine) -> list[dict[str, object]]:
    return await engine.read("SELECT name, scope, value, set_by, set_ms FROM threshold ORDER BY id")


def row_of(page: str, name: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition(f'id="{name}"')[2].partition("</tr>")[0]).split())


async def test_every_threshold_is_listed_once_with_its_meaning(viewer: Person) -> None:
    page = await viewer.get("/thresholds")
    for name in DEFAULTS:
        assert page.count(f'id="{name}"') == 1
    assert {group for _, groups in SECTIONS for group in groups} == {default.group for default in DEFAULTS.values()}
    row = row_of(page, "presence.offline_s")
    assert "判为离线 服务时段内这么久没有消息，判为离线。" in row
    assert "5 分钟；社会化终端 4 小时" in row
    assert "政务终端 5 分钟 社会化终端 4 小时" in row
    assert f"共 {len(DEFAULTS)} 项，其中 0 项已改为自定值" in await viewer.seen("/thresholds")
    dialog = await viewer.get("/thresholds/presence.offline_s", part=True)
    assert "hx-post" not in dialog
    assert "从未改过" in dialog


@pytest.mark.parametrize("language", i18n.LANGUAGES)
def test_every_threshold_has_its_sentence(language: i18n.Language) -> None:
    assert [name for name in DEFAULTS if not WORDS[language].has(f"threshold.help.{name}")] == []


async def test_setting_one_says_who_and_when_and_back_again(operator: Person, viewer: Person, engine: FleetEngine) -> None:
    done = await operator.post("/thresholds/idle.notice_days", scope="", value="21")
    assert done.headers["HX-Redirect"] == f"/thresholds?done=idle.notice_days&at={NOW_MS}#idle.notice_days"
    assert await settings(engine) == [
        {"name": "idle.notice_days", "scope": "", "value": 21.0, "set_by": "operator", "set_ms": NOW_MS}
    ]
    row = row_of(await viewer.get("/thresholds"), "idle.notice_days")
    assert "14 天 21 天 operator，2026-11-18 10:42" in row
    await operator.post("/thresholds/idle.notice_days", scope="", value="21", back="1")
    row = row_of(await viewer.get("/thresholds"), "idle.notice_days")
    assert "operator" not in row
    dialog = await viewer.get("/thresholds/idle.notice_days", part=True)
    assert dialog.index("恢复默认") < dialog.index("设为 21 天")
    assert await engine.read("SELECT ref FROM change WHERE kind = 'setting'") == [{"ref": "threshold:idle.notice_days"}] * 2


async def test_a_class_of_its_own(operator: Person, viewer: Person) -> None:
    assert (await operator.post("/thresholds/presence.offline_s", scope="social", value="10800")).status_code == 200
    row = row_of(await viewer.get("/thresholds"), "presence.offline_s")
    assert "政务终端 5 分钟 社会化终端 3 小时 operator" in row


@pytest.mark.parametrize(
    ("name", "scope", "value", "sentence"),
    [
        ("presence.suspect_s", "", "300", "必须小于“判为离线”（5 分钟）"),
        ("presence.suspect_s", "", "10", "只能在 45 秒 与 7 天 之间"),
        ("presence.alarm_s", "", "299", "不能小于“判为离线”（5 分钟）"),
        ("availability.month_min", "", "101", "只能在 0 % 与 100 % 之间"),
        ("idle.notice_days", "", "two weeks", "请填写数字"),
        ("idle.notice_days", "", "", "请填写数字"),
        ("idle.notice_days", "", "14.5", "只能是整数"),
        ("idle.notice_days", "private", "15", "没有这一类终端"),
        ("platform.blind_s", "social", "70", "不能按终端类别设置"),
        ("idle.notice_days", "", "nan", "只能在 1 天 与 365 天 之间"),
    ],
)
async def test_what_makes_no_sense_comes_back_with_the_reason(
    operator: Person, engine: FleetEngine, name: str, scope: str, value: str, sentence: str
) -> None:
    answer = await operator.post(f"/thresholds/{name}", scope=scope, value=value)
    assert answer.status_code == 200
    assert "HX-Redirect" not in answer.headers
    assert sentence in answer.text
    assert f'name="value" value="{value}"' in answer.text
    assert await settings(engine) == []


async def test_shares_are_typed_in_percent(operator: Person, engine: FleetEngine) -> None:
    assert 'value="98"' in await operator.get("/thresholds/availability.month_min", part=True)
    await operator.post("/thresholds/availability.month_min", scope="", value="97.5%")
    assert [row["value"] for row in await settings(engine)] == [0.975]
    assert "97.5 %" in row_of(await operator.get("/thresholds"), "availability.month_min")


async def test_a_threshold_nobody_knows(operator: Person) -> None:
    assert (await operator.client.get("/thresholds/no.such")).status_code == 404
    assert (await operator.post("/thresholds/no.such", value="1")).status_code == 404


@pytest.mark.parametrize(
    ("value", "unit", "zh", "en"),
    [
        (90, "s", "90 秒", "90 s"),
        (300, "s", "5 分钟", "5 min"),
        (7_200, "s", "2 小时", "2 h"),
        (15_000, "s", "4 小时 10 分", "4 h 10 min"),
        (86_400, "s", "24 小时", "24 h"),
        (604_800, "s", "7 天", "7 days"),
        (120, "min", "2 小时", "2 h"),
        (1, "day", "1 天", "1 day"),
        (2, "workday", "2 个工作日", "2 working days"),
        (0.975, "share", "97.5 %", "97.5 %"),
        (5, "count", "5", "5"),
    ],
)
def test_values_in_words(value: float, unit: str, zh: str, en: str) -> None:
    assert value_words(Voice(WORDS["zh"], 0, "Asia/Shanghai"), value, unit) == zh
    assert value_words(Voice(WORDS["en"], 0, "Asia/Shanghai"), value, unit) == en


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_what_the_form_shows_is_what_it_saves(name: str) -> None:
    default = DEFAULTS[name]
    for value in (default.value, default.low, default.high, *default.by_class.values()):
        assert read_value(default, typed(default, value)) == pytest.approx(value)
    with pytest.raises(Refused):
        read_value(default, "abc")
