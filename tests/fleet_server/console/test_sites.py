"""The pages of areas and sites: what they show, what operators change there, and how a wrong form comes back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from fleet_server.console.area_tree import build
from fleet_server.console.i18n import load_all
from fleet_server.console.opening_words import week_sentence
from fleet_server.console.render import Voice
from fleet_server.engine import FleetEngine
from tests.fleet_server.console.conftest import Person
from tests.support.clock import HandClock

SITE = {
    "name_zh": "义乌北站",
    "name_en": "Yiwu North",
    "area": "yiwu",
    "kind": "station",
    "network": "internet",
    "timezone": "Asia/Shanghai",
}
WORDS = load_all()
DAY_MS = 86_400_000


def seen_of(page: str, form: str) -> str:
    found = re.search(rf'action="[^"]*{form}"[^>]*>.*?name="seen" value="([^"]+)"', page, re.DOTALL)
    assert found
    return found.group(1)


async def site_form(person: Person, code: str = "yiwu-hall") -> tuple[str, dict[str, str]]:
    """The token of the page, and the facts as its form shows them."""
    page = await person.get(f"/sites/{code}")
    facts = dict(re.findall(r'<input name="([a-z_]+)" value="([^"]*)"', page))
    facts |= {
        name: re.search(rf'<select name="{name}".*?<option value="([^"]*)" selected', page, re.DOTALL).group(1)  # type: ignore[union-attr]  # it is there
        for name in ("area", "kind", "network")
    }
    return seen_of(page, f"/sites/{code}"), facts


async def test_everybody_sees_areas_and_sites_with_hours_in_words(viewer: Person) -> None:
    page = await viewer.seen("/sites")
    assert "义乌行政服务中心" in page
    assert "周一至周五 09:00–12:00、13:30–17:00；周六、周日不开放；节假日不开放" in page
    assert "每天 10:00–22:00" in page
    assert "54 个点位，全部 54 个" in page
    assert "添加点位" not in page
    only = await viewer.seen("/sites?area=yiwu")
    assert "6 个点位，全部 54 个" in only
    assert "东阳" not in only.partition("6 个点位")[0].partition("开放时间 终端 网络")[2]
    assert "1 个点位" in await viewer.seen("/sites?q=义乌 行政&kind=hall")
    assert "没有符合条件的点位" in await viewer.seen("/sites?q=nothing-is-called-so")


async def test_a_sites_page_for_a_viewer_has_no_forms(viewer: Person) -> None:
    page = await viewer.get("/sites/yiwu-hall")
    assert 'action="/sites/' not in page
    assert "现在开放" in page
    assert (await viewer.client.get("/sites/nowhere")).status_code == 404


async def test_a_site_is_added_and_found_at_once(operator: Person, viewer: Person, engine: FleetEngine) -> None:
    form = {**SITE, "code": "yiwu-north", "lat": "29.4", "lon": "120.1", "mon.0.from": "8:30", "mon.0.to": "11:30"}
    answer = await operator.post("/sites/add", **form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sites/yiwu-north?done=added")
    assert "义乌北站" in await viewer.seen("/sites?area=yiwu")
    page = await viewer.seen("/sites/yiwu-north")
    assert "08:30–11:30" in page
    assert "operator 添加" in page
    rows = await engine.read("SELECT lat, lon, hours, kind FROM site WHERE code = 'yiwu-north'")
    assert rows == [{"lat": 29.4, "lon": 120.1, "hours": '{"mon": [["08:30", "11:30"]]}', "kind": "station"}]


async def test_a_wrong_form_comes_back_with_what_was_typed(operator: Person, engine: FleetEngine) -> None:
    form = {**SITE, "code": "yiwu north", "lat": "120", "lon": "29", "mon.0.from": "9:00", "mon.0.to": "8:00"}
    answer = await operator.post("/sites/add", **form)
    assert answer.status_code == 400
    for field, sentence in (("code", "编号只能用"), ("lat", "填反了"), ("mon.0.to", "结束时间要晚于")):
        assert re.search(rf'id="error-{re.escape(field)}">[^<]*{sentence}', answer.text)
    assert 'value="yiwu north"' in answer.text
    assert 'value="义乌北站"' in answer.text
    assert await engine.read("SELECT 1 FROM site WHERE name_zh = '义乌北站'") == []


async def test_facts_are_edited_with_who_and_what(operator: Person, viewer: Person) -> None:
    seen, facts = await site_form(operator)
    answer = await operator.post("/sites/yiwu-hall", **{**facts, "seen": seen, "name_zh": "义乌政务大厅", "kind": "community"})
    assert answer.headers["location"] == "/sites/yiwu-hall?done=saved"
    page = await viewer.seen("/sites/yiwu-hall")
    assert "operator 修改 中文名称：义乌行政服务中心 → 义乌政务大厅 类型：大厅 → 社区" in page
    # Lists read the name anew at once.
    assert "义乌政务大厅" in await viewer.seen("/terminals?site=yiwu-hall")
    seen, facts = await site_form(operator)
    assert (await operator.post("/sites/yiwu-hall", **{**facts, "seen": seen})).headers["location"].endswith("done=same")


async def test_two_people_at_one_site(operator: Person) -> None:
    seen, facts = await site_form(operator)
    await operator.post("/sites/yiwu-hall", **{**facts, "seen": seen, "name_zh": "甲"})
    answer = await operator.post("/sites/yiwu-hall", **{**facts, "seen": seen, "name_zh": "乙"})
    assert answer.status_code == 409
    assert "刚才有别人修改过" in answer.text
    assert 'value="乙"' in answer.text
    again = await operator.post(
        "/sites/yiwu-hall", **{**facts, "seen": seen_of(answer.text, "/sites/yiwu-hall"), "name_zh": "乙"}
    )
    assert again.status_code == 303


async def test_new_hours_leave_past_days_alone(operator: Person, engine: FleetEngine) -> None:
    seen = seen_of(await operator.get("/sites/yiwu-hall"), "/sites/yiwu-hall/hours")
    form = {"seen": seen, "hours_from": "2026-11-16", "mon.0.from": "12:00", "mon.0.to": "20:00", "date.100.day": "2026-12-24"}
    answer = await operator.post("/sites/yiwu-hall/hours", **form)
    assert answer.headers["location"] == "/sites/yiwu-hall?done=hours"
    page = await operator.seen("/sites/yiwu-hall?done=hours")
    assert "2026-11-16 之前 周一至周五 09:00–12:00、13:30–17:00；" in page
    assert "2026-12-24 周四 不开放" in page
    assert "修改开放时间 自 2026-11-16 起" in page
    kept = await engine.read("SELECT until_day FROM site_hours WHERE site = 'yiwu-hall'")
    assert kept == [{"until_day": "2026-11-16"}]
    dirty = await engine.read(
        "SELECT min(day) AS first FROM dirty_day d JOIN terminal t ON t.id = d.terminal WHERE t.site = 'yiwu-hall'"
    )
    assert dirty[0]["first"] in {None, "2026-11-16", "2026-11-17", "2026-11-18"}


@pytest.mark.parametrize(
    ("form", "field", "sentence"),
    [
        ({"mon.0.from": "09:00", "mon.0.to": "12:00", "mon.1.from": "11:00", "mon.1.to": "13:00"}, "mon.1.from", "重叠"),
        ({"hours_from": "2026-11-19", "mon.0.from": "09:00", "mon.0.to": "12:00"}, "hours_from", "不能晚于今天"),
        ({"hours_from": "whenever", "mon.0.from": "09:00", "mon.0.to": "12:00"}, "hours_from", "日期不对"),
    ],
)
async def test_wrong_hours_are_told_where_they_are(operator: Person, form: dict[str, str], field: str, sentence: str) -> None:
    seen = seen_of(await operator.get("/sites/yiwu-hall"), "/sites/yiwu-hall/hours")
    answer = await operator.post("/sites/yiwu-hall/hours", seen=seen, **form)
    assert answer.status_code == 400
    assert re.search(rf'id="error-{re.escape(field)}">[^<]*{sentence}', answer.text)


async def test_a_closed_day_closes_the_site_for_presence_and_page(operator: Person, clock: HandClock) -> None:
    seen = seen_of(await operator.get("/sites/yiwu-zone24"), "/sites/yiwu-zone24/hours")
    assert "今天 全天开放" in await operator.seen("/sites/yiwu-zone24")
    await operator.post("/sites/yiwu-zone24/hours", seen=seen, always="1", **{"date.0.day": "2026-11-18"})
    assert "现在不开放 · 今天 不开放" in await operator.seen("/sites/yiwu-zone24")


async def test_a_site_with_terminals_cannot_be_removed_an_empty_one_can(operator: Person) -> None:
    refused = await operator.post("/sites/yiwu-hall/remove")
    assert refused.status_code == 400
    assert "还有终端登记在这个点位" in refused.text
    await operator.post("/sites/add", **SITE, code="empty-1")
    assert (await operator.post("/sites/empty-1/remove")).headers["location"] == "/sites?done=removed"
    page = await operator.seen("/sites")
    assert "已删除 2026-11-18 10:42 点位 义乌北站 empty-1 operator" in page


async def test_areas_are_added_moved_and_removed(operator: Person, viewer: Person) -> None:
    added = await operator.post("/areas/add", code="yiwu-n", name_zh="北苑街道", name_en="Beiyuan", parent="yiwu", sort="3")
    assert added.headers["HX-Redirect"] == "/sites?area=yiwu-n&done=added"
    assert "义乌市 › 北苑街道" in await viewer.seen("/sites?area=yiwu-n")
    moved = await operator.post("/areas/yiwu-n/edit", name_zh="北苑街道", name_en="Beiyuan", parent="lanxi", sort="3")
    assert moved.headers["HX-Redirect"].startswith("/sites?area=yiwu-n")
    page = await viewer.seen("/sites?area=yiwu-n")
    assert "上级区域：义乌市 → 兰溪市" in page
    below = await operator.post("/areas/lanxi/edit", name_zh="兰溪市", parent="yiwu-n")
    assert "不能移到自己或自己的下级里" in below.text
    assert (await operator.post("/areas/yiwu-n/remove")).headers["HX-Redirect"] == "/sites?done=removed"
    kept = await operator.post("/areas/lanxi/remove")
    assert (kept.status_code, kept.text) == (400, "区域里还有点位或下级区域，不能删除。")


async def test_odd_names_do_no_harm(operator: Person) -> None:
    for code, name in (("odd-1", "<script>alert(1)</script>"), ("odd-2", "=1+1"), ("odd-3", "🏛️" * 20)):
        assert (await operator.post("/sites/add", **{**SITE, "name_zh": name}, code=code)).status_code == 303
    page = await operator.get("/sites?area=yiwu")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


async def test_sites_in_an_area_that_is_gone_are_shown_as_lost(viewer: Person, engine: FleetEngine) -> None:
    await engine.write(lambda connection: connection.execute("UPDATE site SET area = 'gone' WHERE code = 'yiwu-hall'"))
    assert "未归属区域 1" in await viewer.seen("/sites")
    assert "1 个点位" in await viewer.seen("/sites?area=%3F")
    assert (await viewer.client.get("/sites/yiwu-hall")).status_code == 200


async def test_english(new_person: Callable[[], Person]) -> None:
    person = new_person()
    await person.sign_in("operator", lang="en")
    page = await person.seen("/sites/yiwu-hall")
    assert "Open now · today 09:00–12:00, 13:30–17:00" in page
    assert not re.search(r"[\u4e00-\u9fff]", (await person.seen("/sites")).replace("中文", ""))


@pytest.mark.parametrize(
    ("hours", "zh", "en"),
    [
        ("{}", "未设置", "not set"),
        ('{"always": true}', "全天开放", "open all day"),
        ("nonsense", "无法识别，请重新填写", "cannot be read, enter them again"),
        (
            '{"mon": [["09:00", "24:00"]], "sun": [["00:00", "24:00"]]}',
            "周一 09:00–24:00；周二至周六不开放；周日 全天开放；节假日不开放",
            "Monday 09:00–24:00; Tuesday–Saturday closed; Sunday open all day; Holidays closed",
        ),
    ],
)
def test_hours_in_words(hours: str, zh: str, en: str) -> None:
    assert week_sentence(Voice(WORDS["zh"], 0, "Asia/Shanghai"), hours) == zh
    assert week_sentence(Voice(WORDS["en"], 0, "Asia/Shanghai"), hours) == en


def test_a_tree_with_a_circle_or_a_missing_parent_still_shows_every_area() -> None:
    areas = [
        {"code": code, "parent": parent, "name_zh": code, "name_en": "", "sort": 0}
        for code, parent in (("a", "b"), ("b", "a"), ("c", "b"), ("d", "moon"), ("e", "e"), ("f", None))
    ]
    tree = build(areas, [{"area": "c"}, {"area": "c"}, {"area": "f"}, {"area": "moon"}])
    assert {node.code for node in tree.flat()} == {"a", "b", "c", "d", "e", "f"}
    assert tree.by_code["a"].sites == 2
    assert tree.inside("b") == {"b", "c"}
