"""Changing areas and sites: the tree stays a tree, nothing in use goes away, everything says who and when."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.sites import audit, changes
from fleet_server.sites.calendar import parse_hours
from fleet_server.sites.changes import AreaValues, SiteValues
from fleet_server.sites.hours import load_hours
from tests.support.facts import T0, FactBench

CITY = AreaValues(parent=None, name_zh="金华市", name_en="Jinhua", sort=0)
HALL = SiteValues(
    area="city", name_zh="大厅", name_en="Hall", kind="hall", address_zh=None, lat=29.1, lon=119.6, timezone="Asia/Shanghai", network="internet",
    phone=None,
)  # fmt: skip
DAY_HOURS = '{"mon": [["09:00", "17:00"]]}'
LATE_HOURS = '{"mon": [["12:00", "20:00"]]}'


@pytest.fixture
def town(bench: FactBench) -> FactBench:
    changes.add_area(bench.conn, "city", CITY, by="op", now_ms=T0)
    changes.add_area(bench.conn, "north", replace(CITY, parent="city", name_zh="城北"), by="op", now_ms=T0)
    changes.add_site(bench.conn, "hall", HALL, DAY_HOURS, by="op", now_ms=T0)
    return bench


def seen(bench: FactBench, code: str = "hall") -> str:
    names = (*changes.SITE_FIELDS, "hours")
    row = bench.one(f"SELECT {', '.join(names)} FROM site WHERE code = ?", code)
    return changes.fingerprint(dict(zip(names, row, strict=True)))


def refused(call: object, *args: object, **more: object) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        call(*args, **more)  # type: ignore[operator]  # a rule
    return caught.value.field, caught.value.reason


def test_an_area_is_renamed_and_moved_with_what_is_below_it(town: FactBench) -> None:
    changes.add_area(town.conn, "far", replace(CITY, name_zh="远郊"), by="op", now_ms=T0)
    assert changes.edit_area(town.conn, "north", replace(CITY, parent="far", name_zh="北区"), by="eva", now_ms=T0 + 5)
    assert town.one("SELECT parent, name_zh FROM area WHERE code = 'north'") == ("far", "北区")
    (last, *_) = audit.recent(town.conn, "area:north")
    assert (last.set_by, last.at_ms, last.kind) == ("eva", T0 + 5, "area.edit")
    assert last.detail == {"parent": ["city", "far"], "name_zh": ["城北", "北区"]}


def test_saving_the_same_writes_nothing(town: FactBench) -> None:
    before = town.rows("SELECT id FROM setting_event")
    assert not changes.edit_area(town.conn, "city", CITY, by="op", now_ms=T0)
    assert not changes.edit_site(town.conn, "hall", HALL, seen=seen(town), by="op", now_ms=T0)
    assert town.rows("SELECT id FROM setting_event") == before


def test_the_tree_stays_a_tree(town: FactBench) -> None:
    edit = changes.edit_area
    assert refused(edit, town.conn, "city", replace(CITY, parent="north"), by="op", now_ms=T0) == ("parent", "areaBelowItself")
    assert refused(edit, town.conn, "city", replace(CITY, parent="city"), by="op", now_ms=T0) == ("parent", "areaBelowItself")
    assert refused(edit, town.conn, "north", replace(CITY, parent="moon"), by="op", now_ms=T0) == ("parent", "noArea")
    parent = "north"
    for level in range(3, changes.DEPTH_MAX + 1):
        changes.add_area(town.conn, f"l{level}", replace(CITY, parent=parent), by="op", now_ms=T0)
        parent = f"l{level}"
    assert refused(changes.add_area, town.conn, "deep", replace(CITY, parent=parent), by="op", now_ms=T0) == (
        "parent",
        "areaTooDeep",
    )
    changes.add_area(town.conn, "above", CITY, by="op", now_ms=T0)
    assert refused(edit, town.conn, "city", replace(CITY, parent="above"), by="op", now_ms=T0) == ("parent", "areaTooDeep")


def test_an_area_in_use_stays(town: FactBench) -> None:
    remove = changes.remove_area
    assert refused(remove, town.conn, "city", by="op", now_ms=T0) == ("area", "areaNotEmpty")
    town.conn.execute(
        "INSERT INTO channel (kind, name, config, filters, enabled, set_by, set_ms) VALUES ('webhook', 'c', '{}', ?, 1, 'op', 0)",
        (json.dumps({"areas": ["north"]}),),
    )
    assert refused(remove, town.conn, "north", by="op", now_ms=T0) == ("area", "areaHasChannel")
    town.conn.execute("DELETE FROM channel")
    remove(town.conn, "north", by="op", now_ms=T0 + 1)
    assert audit.recent(town.conn, "area:north")[0].detail["name_zh"] == "城北"
    with pytest.raises(NotFound):
        remove(town.conn, "north", by="op", now_ms=T0)


def test_codes_are_taken_whatever_their_case(town: FactBench) -> None:
    with pytest.raises(Conflict):
        changes.add_area(town.conn, "CITY", CITY, by="op", now_ms=T0)
    with pytest.raises(Conflict):
        changes.add_site(town.conn, "Hall", HALL, DAY_HOURS, by="op", now_ms=T0)
    assert refused(changes.add_site, town.conn, "h2", replace(HALL, area="x"), DAY_HOURS, by="op", now_ms=T0) == (
        "area",
        "noArea",
    )


def test_new_hours_hold_from_their_day_and_days_before_keep_what_held(town: FactBench) -> None:
    town.conn.execute("INSERT INTO terminal (id, code, type, site, created_ms) VALUES ('kf-7', 'KF-7', 'kiosk', 'hall', 0)")
    for day in ("2026-06-14", "2026-06-15", "2026-06-16"):
        town.conn.execute("INSERT INTO terminal_day (terminal, day) VALUES ('kf-7', ?)", (day,))
    town.conn.execute("DELETE FROM dirty_day")
    done = changes.set_hours(
        town.conn, "hall", LATE_HOURS, from_day="2026-06-15", today="2026-06-16", seen=seen(town), by="eva", now_ms=T0
    )
    assert done
    dated = load_hours(town.conn, ["hall"])["hall"]
    assert dated.on("2026-06-14") == parse_hours(DAY_HOURS)
    assert dated.on("2026-06-15") == parse_hours(LATE_HOURS)
    assert town.rows("SELECT day FROM dirty_day ORDER BY day") == [("2026-06-15",), ("2026-06-16",)]
    (event, *_) = audit.recent(town.conn, "site:hall")
    assert (event.set_by, event.kind, event.detail["from"]) == ("eva", "site.hours", "2026-06-15")
    assert event.detail["hours"] == [DAY_HOURS, LATE_HOURS]


def test_hours_cannot_begin_tomorrow(town: FactBench) -> None:
    args = {"from_day": "2026-06-17", "today": "2026-06-16", "seen": seen(town), "by": "op", "now_ms": T0}
    assert refused(changes.set_hours, town.conn, "hall", LATE_HOURS, **args) == ("hours_from", "future")
    assert town.one("SELECT hours FROM site WHERE code = 'hall'") == (DAY_HOURS,)


def test_the_same_hours_in_other_words_are_no_change(town: FactBench) -> None:
    args = {"from_day": "2026-06-16", "today": "2026-06-16", "seen": seen(town), "by": "op", "now_ms": T0}
    assert not changes.set_hours(town.conn, "hall", '{"mon":[["09:00","17:00"]],"tue":[]}', **args)  # type: ignore[arg-type]  # as typed
    assert town.rows("SELECT * FROM site_hours") == []


def test_a_form_cannot_undo_what_somebody_saved_meanwhile(town: FactBench) -> None:
    old = seen(town)
    assert changes.edit_site(town.conn, "hall", replace(HALL, name_zh="新大厅"), seen=old, by="eva", now_ms=T0)
    assert refused(changes.edit_site, town.conn, "hall", HALL, seen=old, by="op", now_ms=T0) == ("site", "changedMeanwhile")
    args = {"from_day": "2026-06-16", "today": "2026-06-16", "seen": old, "by": "op", "now_ms": T0}
    assert refused(changes.set_hours, town.conn, "hall", LATE_HOURS, **args) == ("site", "changedMeanwhile")
    assert town.one("SELECT name_zh FROM site WHERE code = 'hall'") == ("新大厅",)


def test_a_site_with_terminals_stays_also_with_retired_ones(town: FactBench) -> None:
    town.conn.execute(
        "INSERT INTO terminal (id, code, type, site, created_ms, revoked_ms) VALUES ('kf-8', 'KF-8', 'kiosk', 'hall', 0, 5)"
    )
    remove = {"today": "2026-06-16", "by": "op", "now_ms": T0}
    assert refused(changes.remove_site, town.conn, "hall", **remove) == ("site", "siteHasTerminals")
    town.conn.execute("DELETE FROM terminal WHERE id = 'kf-8'")
    changes.remove_site(town.conn, "hall", **remove)  # type: ignore[arg-type]  # as above
    assert town.rows("SELECT code FROM site WHERE code = 'hall'") == []


def test_removing_loses_no_history(town: FactBench) -> None:
    changes.remove_site(town.conn, "hall", today="2026-06-16", by="eva", now_ms=T0 + 9)
    (removal, addition) = audit.recent(town.conn, "site:hall")
    assert (removal.kind, removal.set_by, removal.detail["hours"]) == ("site.remove", "eva", DAY_HOURS)
    assert addition.kind == "site.add"
    changes.add_site(town.conn, "hall", HALL, LATE_HOURS, by="op", now_ms=T0 + 10)
    dated = load_hours(town.conn, ["hall"])["hall"]
    assert (dated.on("2026-06-15"), dated.on("2026-06-16")) == (parse_hours(DAY_HOURS), parse_hours(LATE_HOURS))


def test_open_pages_are_told(town: FactBench) -> None:
    town.conn.execute("DELETE FROM change")
    changes.edit_site(town.conn, "hall", replace(HALL, lat=None, lon=None), seen=seen(town), by="op", now_ms=T0)
    assert town.rows("SELECT terminal, kind, ref FROM change") == [(None, "setting", "site:hall")]


def test_a_subject_is_looked_up_to_the_letter(town: FactBench) -> None:
    changes.add_area(town.conn, "a1", CITY, by="op", now_ms=T0)
    assert len(audit.recent(town.conn, "area:*")) == 3
    assert audit.recent(town.conn, audit.literal("area:*")) == []
