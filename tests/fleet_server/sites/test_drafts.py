"""What people type about sites and opening hours: read as meant, refused at the very field that is wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.forms import FormRefused, Problems
from fleet_server.sites.calendar import Hours, parse_hours
from fleet_server.sites.drafts import DAYS, fields_of, read_area, read_code, read_hours, read_site

SITE = {"name_zh": "义乌行政服务中心", "area": "yiwu", "kind": "hall", "network": "govExtranet"}


def problems_of(form: dict[str, str]) -> dict[str, str]:
    problems = Problems()
    read_site({**SITE, **form}, problems)
    return found(problems)


def found(problems: Problems) -> dict[str, str]:
    try:
        problems.check()
    except FormRefused as refused:
        return dict(refused.problems)
    return {}


def hours_of(from_day: str = "", **form: str) -> tuple[str, dict[str, str]]:
    problems = Problems()
    text = read_hours({name.replace("_", "."): value for name, value in form.items()}, problems, from_day=from_day)
    return text, found(problems)


def test_a_site_is_read_with_its_usual_values() -> None:
    problems = Problems()
    site = read_site(
        {**SITE, "lat": " 29.3063° ", "lon": "120.0751", "phone": "0579-8512 3456", "name_en": "  Yiwu   Hall "}, problems
    )
    assert found(problems) == {}
    assert (site.lat, site.lon, site.phone, site.name_en) == (29.3063, 120.0751, "0579-8512 3456", "Yiwu Hall")
    assert (site.timezone, site.address_zh) == ("Asia/Shanghai", None)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"name_zh": " "}, {"name_zh": "empty"}),
        ({"name_zh": "长" * 41}, {"name_zh": "tooLong"}),
        ({"name_zh": "大厅\u202e"}, {"name_zh": "characters"}),
        ({"area": ""}, {"area": "noArea"}),
        ({"kind": "palace"}, {"kind": "choose"}),
        ({"network": ""}, {"network": "choose"}),
        ({"timezone": "Asia/Jinhua"}, {"timezone": "timezone"}),
        ({"lat": "29"}, {"lon": "bothCoordinates"}),
        ({"lon": "120"}, {"lat": "bothCoordinates"}),
        ({"lat": "120.07", "lon": "29.3"}, {"lat": "swapped"}),
        ({"lat": "91", "lon": "120"}, {"lat": "latitude"}),
        ({"lat": "29", "lon": "181"}, {"lon": "longitude"}),
        ({"lat": "0", "lon": "0"}, {"lat": "nullIsland"}),
        ({"lat": "north", "lon": "120"}, {"lat": "number"}),
        ({"lat": "nan", "lon": "120"}, {"lat": "number"}),
        ({"phone": "call me"}, {"phone": "phone"}),
        ({"name_zh": "", "kind": "", "phone": "x"}, {"name_zh": "empty", "kind": "choose", "phone": "phone"}),
    ],
)
def test_each_wrong_field_is_named(form: dict[str, str], expected: dict[str, str]) -> None:
    named = problems_of(form)
    assert {field: named[field] for field in expected} == expected


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "=1+1", "市民中心 🏛️ 24 小时", "A" * 40])
def test_odd_names_are_names(name: str) -> None:
    assert problems_of({"name_zh": name}) == {}


@pytest.mark.parametrize(
    ("code", "fine"), [("yiwu-hall-2", True), ("330782", True), ("-x", False), ("a/b", False), ("", False), ("义乌", False)]
)
def test_codes_stand_in_addresses(code: str, fine: bool) -> None:
    problems = Problems()
    read_code({"code": code}, problems)
    assert found(problems) == ({} if fine else {"code": "code"})


def test_an_areas_order_is_a_number() -> None:
    problems = Problems()
    assert read_area({"name_zh": "义乌市", "sort": "x"}, problems).parent is None
    assert found(problems) == {"sort": "number"}


# Opening hours --------------------------------------------------------------------------------------------------------------------------


def test_a_day_with_a_lunch_break_in_any_order_and_any_spelling() -> None:
    text, problems = hours_of(
        mon_7_from="13:30", mon_7_to="1700", mon_2_from="9:00", mon_2_to="12：00", tue_0_from="", tue_0_to=""
    )
    assert problems == {}
    assert json.loads(text) == {"mon": [["09:00", "12:00"], ["13:30", "17:00"]]}


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"mon_0_from": "12:00", "mon_0_to": "09:00"}, {"mon.0.to": "backwards"}),
        ({"mon_0_from": "09:00", "mon_0_to": "09:00"}, {"mon.0.to": "backwards"}),
        ({"mon_0_from": "09:00", "mon_0_to": ""}, {"mon.0.to": "empty"}),
        ({"sun_3_from": "", "sun_3_to": "17:00"}, {"sun.3.from": "empty"}),
        ({"mon_0_from": "25:00", "mon_0_to": "26:00"}, {"mon.0.from": "time", "mon.0.to": "time"}),
        ({"mon_0_from": "09:60", "mon_0_to": "12:00"}, {"mon.0.from": "time"}),
        ({"mon_0_from": "09:00", "mon_0_to": "12:00", "mon_1_from": "11:59", "mon_1_to": "17:00"}, {"mon.1.from": "overlaps"}),
        ({"mon_0_from": "13:00", "mon_0_to": "17:00", "mon_1_from": "09:00", "mon_1_to": "14:00"}, {"mon.0.from": "overlaps"}),
        ({"mon_0_from": "09:00", "mon_0_to": "12:00", "mon_1_from": "12:00", "mon_1_to": "17:00"}, {"mon.1.from": "touches"}),
        ({"holiday_0_from": "24:00", "holiday_0_to": "24:00"}, {"holiday.0.to": "backwards"}),
        ({"date_0_day": "2026-02-30"}, {"date.0.day": "day"}),
        ({"date_0_day": "2026-12-24", "date_4_day": "2026-12-24"}, {"date.4.day": "dayTwice"}),
        ({"date_0_day": "2026-12-24", "date_0_1_from": "9", "date_0_1_to": "12:00"}, {"date.0.1.from": "time"}),
    ],
)
def test_periods_that_cannot_be_meant_are_refused_at_their_field(form: dict[str, str], expected: dict[str, str]) -> None:
    assert hours_of(**form)[1] == expected


def test_a_single_day_may_be_closed_or_have_hours_of_its_own() -> None:
    text, problems = hours_of(date_0_day="2026-12-24", date_5_day="2026-12-31", date_5_0_from="09:00", date_5_0_to="12:00")
    assert problems == {}
    assert json.loads(text) == {"dates": {"2026-12-24": [], "2026-12-31": [["09:00", "12:00"]]}}


def test_days_before_the_hours_begin_are_left_to_the_hours_that_held_then() -> None:
    text, _ = hours_of("2026-12-01", date_0_day="2026-11-30", date_1_day="2026-12-01")
    assert json.loads(text) == {"dates": {"2026-12-01": []}}


def test_always_open_keeps_the_week_for_later() -> None:
    text, _ = hours_of(always="1", mon_0_from="09:00", mon_0_to="24:00")
    assert json.loads(text) == {"mon": [["09:00", "24:00"]], "always": True}


def test_more_periods_than_a_day_can_have_are_refused() -> None:
    form = {f"mon_{n}_{edge}": f"{2 * n + side:02}:00" for n in range(7) for side, edge in enumerate(("from", "to"))}
    assert hours_of(**form)[1] == {"mon.6.from": "tooManySpans"}


_SPANS = st.lists(st.integers(0, 96), min_size=0, max_size=8, unique=True).map(
    lambda marks: [(a * 15, b * 15) for a, b in zip(*[iter(sorted(marks))] * 2, strict=False)]
)


@given(
    week=st.lists(_SPANS, min_size=7, max_size=7),
    holiday=_SPANS,
    always=st.booleans(),
    dates=st.dictionaries(st.dates(), _SPANS, max_size=4),
)
def test_what_the_form_shows_is_what_it_saves(
    week: list[list[tuple[int, int]]], holiday: list[tuple[int, int]], always: bool, dates: dict[object, list[tuple[int, int]]]
) -> None:
    hours = Hours(
        week=tuple(tuple(day) for day in week),
        holiday=tuple(holiday),
        always=always,
        dates=tuple(sorted((day, tuple(spans)) for day, spans in dates.items())),  # type: ignore[misc]  # dates sort
    )
    problems = Problems()
    text = read_hours(fields_of(hours), problems)
    assert found(problems) == {}
    assert parse_hours(text) == hours


def test_the_days_are_those_of_the_stored_hours() -> None:
    for day in DAYS:
        assert any(parse_hours(json.dumps({day: [["09:00", "10:00"]]})).week)
