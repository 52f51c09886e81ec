"""The map: what it counts, that its numbers are the lists' rows, and that no site is dropped."""

from __future__ import annotations

import html
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from fleet_server.console import citymap
from fleet_server.console.citymap import MapView, city, in_order, parse_map_view
from fleet_server.console.i18n import load_all
from fleet_server.console.model import NOWHERE
from fleet_server.console.outline import load_outline
from fleet_server.console.queries.map import Ground
from fleet_server.console.render import Voice
from fleet_server.db import open_raw
from fleet_server.terminals.state import StateCode
from tests.fleet_server.console.conftest import Person
from tests.fleet_server.console.test_rules import NOW, terminal
from tests.support.clock import HandClock
from tests.support.seed import Seeded

OUTLINE = load_outline(None)
CITY = ("jinhua", "金华市", "Jinhua")
YIWU = replace(NOWHERE, code="y1", name_zh="义乌大厅", areas=(CITY, ("yw", "义乌市", "Yiwu"), ("yw-1", "稠城街道", "Choucheng")))
WUYI = replace(NOWHERE, code="w1", name_zh="武义大厅", areas=(CITY, ("3307x", "武义", "Wuyi")))
FREE = replace(NOWHERE, code="f1", name_zh="流动车", areas=())
CITYWIDE = replace(NOWHERE, code="c1", name_zh="市本级", areas=(CITY,))
GROUND = Ground({"y1": (120.07, 29.3), "w1": (119.8, 28.9), "c1": (2.3, 48.9)}, {"3307x": "330723"}, {"yw": 2, "3307x": 1})


def fleet() -> list[Any]:
    return [
        terminal("a", place=YIWU),
        terminal("b", place=YIWU, state=StateCode.UNUSABLE),
        terminal("c", place=YIWU, state=StateCode.CLOSED),
        terminal("d", place=WUYI, state=StateCode.OFFLINE),
        terminal("e", place=WUYI, state=StateCode.PARTIAL),
        terminal("f", place=FREE),
        terminal("g", place=CITYWIDE, state=StateCode.MAINTENANCE),
    ]


def voice(lang: Any = "zh") -> Voice:
    return Voice(load_all()[lang], NOW, "Asia/Shanghai")


def test_areas_are_known_by_code_else_by_name_and_add_up_to_the_fleet() -> None:
    areas = city(fleet(), GROUND, OUTLINE, "en").areas
    assert [(area.code, area.key, area.by_state.total) for area in areas] == [
        ("3307x", "330723", 2),
        ("yw", "330782", 3),
        ("jinhua", "", 1),
        ("", "", 1),
    ]
    assert sum(area.by_state.total for area in areas) == len(fleet())


def test_a_row_whose_list_would_show_more_is_no_link() -> None:
    areas = city(fleet(), GROUND, OUTLINE, "en").areas
    assert [area.whole for area in areas] == [True, True, False, False]


def test_a_share_counts_those_that_should_be_reachable_and_nothing_is_neither_good_nor_bad() -> None:
    by_code = {area.code: area for area in city(fleet(), GROUND, OUTLINE, "en").areas}
    assert (by_code["yw"].serving.part, by_code["yw"].serving.whole) == (1, 2)  # the closed one is in neither
    assert by_code["yw"].shade == 4
    assert by_code["jinhua"].shade == -1
    calm = city([terminal("a", place=YIWU)], GROUND, OUTLINE, "en").areas[0]
    assert calm.shade == 0


def test_a_site_shows_its_worst_state_and_the_worst_lies_on_top() -> None:
    now = city(fleet(), GROUND, OUTLINE, "en")
    assert [(site.place.code, site.look, site.size) for site in now.sites] == [("w1", "offline", 2), ("y1", "unusable", 3)]


def test_a_site_without_a_place_on_the_map_is_listed() -> None:
    now = city(fleet(), GROUND, OUTLINE, "en")
    assert {(site.place.code, site.astray) for site in now.unplaced} == {("f1", False), ("c1", True)}
    assert sum(site.size for site in (*now.sites, *now.unplaced)) == len(fleet())


def test_a_chosen_state_chooses_what_is_drawn_but_not_the_shares() -> None:
    now = city(fleet(), GROUND, OUTLINE, "en", "OFFLINE")
    assert [site.place.code for site in now.sites] == ["w1"]
    assert [area.shown for area in now.areas] == [1, 0, 0, 0]
    assert now.areas[1].serving.whole == 2
    drawn = citymap.feed(now, voice(), "OFFLINE")
    assert drawn["sites"][0]["href"] == "/terminals?site=w1&state=OFFLINE"
    assert [area["href"] for area in drawn["areas"]] == [
        "/terminals?area=3307x&state=OFFLINE",
        "/terminals?area=yw&state=OFFLINE",
    ]


def test_a_tooltip_is_words_and_names_the_worst_first() -> None:
    drawn = citymap.feed(city(fleet(), GROUND, OUTLINE, "zh"), voice())
    assert drawn["sites"][1]["tip"] == "义乌大厅\n共 3 台 · 异常·不能办事 1 · 非服务时段 1 · 正常 1"


@pytest.mark.parametrize(
    ("address", "view"),
    [
        ({}, MapView()),
        ({"state": "abnormal", "sort": "-unusable"}, MapView("abnormal", "unusable", True)),
        ({"state": "nonsense", "sort": "-nonsense"}, MapView()),
    ],
)
def test_the_address_is_the_view(address: dict[str, str], view: MapView) -> None:
    assert parse_map_view(address) == view
    assert parse_map_view(dict(pair.split("=") for pair in view.query()[1:].split("&") if pair)) == view


def test_the_table_sorts_by_what_is_asked_and_keeps_the_order_of_equals() -> None:
    areas = city(fleet(), GROUND, OUTLINE, "en").areas
    assert [row.code for row in in_order(areas, MapView(sort="unusable", descending=True))] == ["yw", "3307x", "jinhua", ""]
    assert [row.code for row in in_order(areas, MapView(sort="total"))] == ["jinhua", "", "3307x", "yw"]
    assert [row.code for row in in_order(areas, MapView(descending=True))] == ["", "jinhua", "yw", "3307x"]


# The page --------------------------------------------------------------------------------------------------------------------------------


def _feed(page: str) -> dict[str, Any]:
    found = re.search(r'id="map-feed"[^>]*data-feed="([^"]*)"', page)
    assert found
    read: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return read


async def _rows(person: Person, address: str) -> int:
    found = re.search(r"共 ([\d,]+) 台", await person.seen(address))
    assert found, address
    return int(found.group(1).replace(",", ""))


async def test_every_number_of_the_table_is_the_rows_behind_its_link(viewer: Person) -> None:
    page = await viewer.get("/map")
    links = re.findall(r'<a [^>]*href="(/terminals\?area=[^"]+)"[^>]*>(.*?)</a>', page, flags=re.DOTALL)
    numbers = 0
    for href, inner in links:
        text = re.sub(r"<svg.*?</svg>|<[^>]+>", " ", inner, flags=re.DOTALL).split()
        if text and (text[-1].isdigit() or "/" in text):
            wanted = int(text[text.index("/") - 1] if "/" in text else text[-1])
            assert await _rows(viewer, html.unescape(href)) == wanted, href
            numbers += 1
    assert numbers > 20


async def test_every_machine_is_on_the_map_or_listed_beside_it(viewer: Person, seeded: Seeded) -> None:
    page = await viewer.get("/map")
    drawn = sum(site["n"] for site in _feed(page)["sites"])
    beside = [int(n) for n in re.findall(r">[^<]*共 (\d+) 台", page.partition('class="unplaced"')[2].partition("</section>")[0])]
    assert len(beside) == 1
    assert drawn + sum(beside) == len(seeded.machines)
    assert "磐安万达广场" in page


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_the_sentence_names_the_worst_area(new_person: Callable[[], Person], lang: str) -> None:
    person = new_person()
    await person.sign_in("viewer", lang=lang)
    seen = await person.seen("/map")
    assert re.search("问题最多的是" if lang == "zh" else "Most trouble in", seen)


async def test_a_change_reaches_the_map(viewer: Person, seeded: Seeded, clock: HandClock) -> None:
    before = {site["id"]: site["look"] for site in _feed(await viewer.get("/map"))["sites"]}
    machine = next(one for one in seeded.machines if one.fate == "online" and before[one.site] == "normal")
    with closing(open_raw(seeded.path)) as connection:
        _take_offline(connection, machine.id, clock.now_ms)
    after = {site["id"]: site["look"] for site in _feed(await viewer.get("/map"))["sites"]}
    assert (before[machine.site], after[machine.site]) == ("normal", "offline")


def _take_offline(connection: sqlite3.Connection, terminal_id: str, now_ms: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE presence SET to_ms = ? WHERE terminal = ? AND to_ms IS NULL", (now_ms, terminal_id))
    connection.execute(
        "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, NULL, 'offline', 'silence')",
        (terminal_id, now_ms),
    )
    connection.execute("UPDATE terminal_live SET last_seen_ms = ? WHERE terminal = ?", (now_ms - 400_000, terminal_id))
    connection.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'presence', NULL)", (now_ms, terminal_id))
    connection.execute("COMMIT")


async def test_names_of_people_who_like_markup_stay_text(operator: Person, seeded: Seeded, clock: HandClock) -> None:
    with closing(open_raw(seeded.path)) as connection:
        connection.execute("UPDATE site SET name_zh = '<script>alert(1)</script>{a|b}' WHERE code = 'yiwu-hall'")
        connection.execute("UPDATE area SET name_zh = '\"><img src=x>' WHERE code = 'wuyi'")
    clock.now_ms += 301_000  # names are read again now and then
    page = await operator.get("/map")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert any("<script>" in site["name"] for site in _feed(page)["sites"])


async def test_the_outline_may_be_kept_and_is_for_people_who_signed_in(viewer: Person, stranger: Person) -> None:
    answer = await viewer.client.get("/map/outline.json")
    assert "immutable" in answer.headers["Cache-Control"]
    assert len(answer.json()["features"]) == 9
    assert (await stranger.client.get("/map/outline.json")).status_code == 302
