"""Pure rules of pages: what needs a person, what a list shows, how a past looks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.console import listing
from fleet_server.console.history import CELL_MS, CELLS, RANK, Span, cell_edges, cells, closed_outside, device_look, lane
from fleet_server.console.listing import View, parse_view, select
from fleet_server.console.model import NOWHERE, USUAL, DeviceNow, FaultNow, Place, SupplyNow, TerminalNow, lamp
from fleet_server.console.needs import needs
from fleet_server.terminals.state import StateCode

NOW = 1_795_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
ALARM_MS, GROUP_FROM = 10 * MINUTE, 5
SITE = replace(NOWHERE, code="hall", name_zh="大厅", name_en="Hall")


def fault(terminal: str = "a", **changes: Any) -> FaultNow:
    values: dict[str, Any] = {
        "id": f"{terminal}:{changes.get('code', 'x')}",
        "terminal": terminal,
        "slot": "laser-printer",
        "code": "LSR.PAPER_OUT",
        "severity": "P2",
        "mandatory": True,
        "since_ms": NOW - HOUR,
        "opened_ms": NOW - HOUR,
    }
    return FaultNow(**{**values, **changes})


def terminal(name: str = "a", *faults: FaultNow, **changes: Any) -> TerminalNow:
    values: dict[str, Any] = {
        "id": name,
        "code": name.upper(),
        "type": "kiosk",
        "name_zh": "",
        "name_en": "",
        "owner_class": "government",
        "place": SITE,
        "inventory": (),
        "tags": (),
        "created_ms": 0,
        "enrolled_ms": 0,
        "maintenance_until_ms": None,
        "maintenance_reason": None,
        "maintenance_by": None,
        "state": StateCode.UNUSABLE if faults else StateCode.NORMAL,
        "state_since_ms": None,
        "last_seen_ms": NOW,
        "last_report_ms": NOW,
        "connected": True,
        "version": "0.1.0",
        "outbox_depth": 0,
        "faults": faults,
        "devices": {},
        "lamps": (),
        "cases_today": 0,
        "cases_30d": 0,
        "last_case_ms": NOW - HOUR,
        "haystack": name,
    }
    return TerminalNow(**{**values, **changes})


# What needs a person ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "state", "wanted"),
    [
        ({}, StateCode.UNUSABLE, True),
        ({"severity": "P3", "mandatory": False}, StateCode.PARTIAL, True),
        ({"severity": "P4"}, StateCode.NORMAL, False),
        ({"muted_until_ms": NOW + 1}, StateCode.UNUSABLE, False),
        ({"muted_until_ms": NOW}, StateCode.UNUSABLE, True),
        ({"false_alarm": True}, StateCode.UNUSABLE, False),
        ({}, StateCode.MAINTENANCE, False),
        ({}, StateCode.UNKNOWN, True),
        ({}, StateCode.CLOSED, True),
        ({"code": "NET.OFFLINE", "slot": None, "since_ms": NOW - ALARM_MS}, StateCode.OFFLINE, True),
        ({"code": "NET.OFFLINE", "slot": None, "since_ms": NOW - ALARM_MS + 1}, StateCode.OFFLINE, False),
        ({"code": "NET.OFFLINE", "slot": None}, StateCode.CLOSED, False),
        ({"code": "NET.OFFLINE", "slot": None, "source": "platform"}, StateCode.UNKNOWN, False),
        ({"code": "SEC.CLONE", "slot": None, "severity": "P1", "source": "platform"}, StateCode.NORMAL, True),
    ],
)
def test_what_needs_a_person(changes: dict[str, Any], state: StateCode, wanted: bool) -> None:
    assert bool(needs([terminal("a", fault(**changes), state=state)], NOW)) is wanted


def test_how_long_silence_may_last_is_a_threshold_of_the_class() -> None:
    partner = replace(USUAL, presence=replace(USUAL.presence, alarm_ms=4 * HOUR))
    silent = fault(code="NET.OFFLINE", slot=None, since_ms=NOW - 3 * HOUR)
    assert needs([terminal("a", silent, state=StateCode.OFFLINE)], NOW)
    assert not needs([terminal("a", silent, state=StateCode.OFFLINE, limits=partner)], NOW)
    assert needs([terminal("a", silent, state=StateCode.OFFLINE, limits=partner)], NOW + HOUR)


@pytest.mark.parametrize("state", [StateCode.MAINTENANCE, StateCode.UNKNOWN, StateCode.CLOSED, StateCode.OFFLINE])
def test_alarms_about_identity_and_signature_are_never_put_aside(state: StateCode) -> None:
    for code in ("SEC.CLONE", "SEC.SIGNATURE"):
        (row,) = needs(
            [terminal("a", fault(code=code, slot=None, severity="P1", source="platform"), state=state, disputed_ms=NOW)], NOW
        )[:1]
        assert (row.fault.code, row.fault.claimable) == (code, True)


def test_a_stream_in_dispute_needs_a_verdict_also_when_its_alarm_is_gone() -> None:
    (row,) = needs([terminal("a", disputed_ms=NOW - HOUR)], NOW)
    assert (row.kind, row.fault.severity, row.fault.claimable, row.since_ms) == ("dispute", "P1", False, NOW - HOUR)
    clone = fault(code="SEC.CLONE", slot=None, severity="P1", source="platform")
    assert [row.kind for row in needs([terminal("a", clone, disputed_ms=NOW)], NOW)] == ["fault"]
    assert not needs([terminal("a", replace(clone, muted_until_ms=NOW + 1), disputed_ms=NOW)], NOW)


def supply(days: float, **changes: Any) -> SupplyNow:
    values = {
        "slot": "laser-printer",
        "item": "paper",
        "remaining": 90,
        "unit": "sheet",
        "per_day": 30.0,
        "levels": 4,
        "since_ms": 0,
    }
    return SupplyNow(**{**values, "empty_ms": NOW + round(days * DAY), **changes})


def test_a_consumable_that_lasts_three_days_comes_last_and_cannot_be_claimed() -> None:
    rows = needs(
        [
            terminal("low", supplies=(supply(3),)),
            terminal("fine", supplies=(supply(3.01),)),
            terminal("p3", fault(severity="P3")),
        ],
        NOW,
    )
    assert [(row.terminal.id, row.kind) for row in rows] == [("p3", "fault"), ("low", "supply")]
    notice = rows[1].fault
    assert (notice.impact, notice.claimable, rows[1].since_ms) == ("none", False, NOW)
    assert notice.sentence("zh") == "耗材即将用尽"


def test_how_many_days_are_few_is_a_threshold_and_a_fault_of_the_slot_says_more() -> None:
    week = replace(USUAL, warn_days=7.0)
    assert needs([terminal("a", supplies=(supply(6),), limits=week)], NOW)
    assert not needs([terminal("a", supplies=(supply(6),))], NOW)
    empty = fault(code="LSR.PAPER_OUT")
    assert [row.kind for row in needs([terminal("a", empty, supplies=(supply(0),))], NOW)] == ["fault"]
    near_end = fault(code="LSR.PAPER_NEAR_END", severity="P4")
    assert [row.kind for row in needs([terminal("a", near_end, supplies=(supply(1),))], NOW)] == ["supply"]
    assert not needs([terminal("a", supplies=(supply(1),), state=StateCode.MAINTENANCE)], NOW)


def test_severity_first_then_unclaimed_then_longest() -> None:
    rows = [
        terminal("young", fault("young", since_ms=NOW - MINUTE)),
        terminal("claimed", fault("claimed", since_ms=NOW - 9 * HOUR, claimed_by="x"), place=replace(SITE, code="b")),
        terminal("minor", fault("minor", severity="P3", since_ms=NOW - 99 * HOUR)),
        terminal("old", fault("old", since_ms=NOW - 2 * HOUR)),
        terminal("worst", fault("worst", severity="P1", claimed_by="x", since_ms=NOW)),
    ]
    assert [need.terminal.id for need in needs(rows, NOW)] == ["worst", "old", "young", "claimed", "minor"]


def test_many_of_one_site_are_one_row() -> None:
    def rows(count: int, site: str = "hall") -> list[TerminalNow]:
        place = replace(SITE, code=site)
        return [
            terminal(f"t{n}", fault(f"t{n}", code="NET.OFFLINE", slot=None, since_ms=NOW - (n + 11) * MINUTE), state=StateCode.OFFLINE, place=place)
            for n in range(count)
        ]  # fmt: skip

    assert [need.size for need in needs(rows(GROUP_FROM - 1), NOW)] == [1] * (GROUP_FROM - 1)
    (row,) = needs(rows(GROUP_FROM + 1), NOW)
    assert row.size == GROUP_FROM + 1
    assert row.since_ms == NOW - (GROUP_FROM + 11) * MINUTE
    few = replace(USUAL, site_many=3)
    assert [need.size for need in needs([replace(one, limits=few) for one in rows(3)], NOW)] == [3]
    assert len(needs(rows(GROUP_FROM, site=""), NOW)) == GROUP_FROM  # no site: nothing in common


# The list ---------------------------------------------------------------------------------------------------------------------------------

WORDS = st.text(max_size=20)
PARAMS = st.dictionaries(
    st.sampled_from(["q", "state", "area", "kind", "type", "code", "version", "site", "idle", "sort", "page"]), WORDS, max_size=11
)


@given(PARAMS)
def test_any_address_opens_a_list_and_one_view_has_one_address(params: dict[str, str]) -> None:
    from urllib.parse import parse_qsl

    view = parse_view(params)
    select([terminal()], view, NOW)
    assert parse_view(dict(parse_qsl(view.query().lstrip("?")))) == view


@pytest.mark.parametrize("sort", [*listing.SORTS, "downtime"])
@pytest.mark.parametrize("descending", [False, True])
def test_every_order_takes_rows_that_know_nothing(sort: str, descending: bool) -> None:
    bare = terminal("bare", version=None, last_seen_ms=None, last_report_ms=None, last_case_ms=None, place=NOWHERE)
    rows = select([bare, terminal("b", fault("b"))], View(sort=sort, descending=descending), NOW).rows
    assert {row.id for row in rows} == {"bare", "b"}


def test_worst_first_is_the_order_of_a_list_nobody_sorted() -> None:
    rows = [
        terminal("normal"),
        terminal("partial", fault(severity="P3", mandatory=False), state=StateCode.PARTIAL),
        terminal("offline", state=StateCode.OFFLINE),
        terminal("unusable", fault(), state=StateCode.UNUSABLE),
    ]
    assert [row.id for row in select(rows, View(), NOW).rows] == ["unusable", "offline", "partial", "normal"]


def test_counts_on_chips_leave_out_the_state_filter_but_no_other() -> None:
    rows = [terminal("a"), terminal("b", state=StateCode.OFFLINE), terminal("c", type="van")]
    selected = select(rows, View(state="OFFLINE", type="kiosk"), NOW)
    assert [row.id for row in selected.rows] == ["b"]
    assert (selected.by_state.of(StateCode.NORMAL), selected.by_state.of(StateCode.OFFLINE), selected.by_state.total) == (1, 1, 2)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"last_case_ms": NOW - 14 * DAY}, True),
        ({"last_case_ms": NOW - 14 * DAY + 1}, False),
        ({"last_case_ms": None, "enrolled_ms": NOW - 20 * DAY}, True),
        ({"last_case_ms": None, "enrolled_ms": NOW - DAY}, False),
        ({"last_case_ms": NOW - 30 * DAY, "state": StateCode.UNUSABLE}, False),
    ],
)
def test_idle_is_no_case_while_it_could_have_served(changes: dict[str, Any], idle: bool) -> None:
    assert listing.is_idle(terminal(**changes), NOW) is idle


def test_pages_hold_fifty() -> None:
    rows = [terminal(f"t{n:03d}") for n in range(101)]
    selected = select(rows, View(sort="code", page=3), NOW)
    assert (selected.pages, selected.page, selected.first, len(selected.shown)) == (3, 3, 101, 1)
    assert select(rows, View(page=99), NOW).page == 3
    assert select([], View(), NOW).first == 0


# Lamps ------------------------------------------------------------------------------------------------------------------------------------


def device(state: str) -> DeviceNow:
    return DeviceNow(
        slot="s", family="f", device=state, paper="", toner="", media="", cover="", owner="owner", at_ms=NOW, since_ms=NOW
    )


@pytest.mark.parametrize(
    ("known", "faults", "state", "look"),
    [
        (device("online"), (), StateCode.NORMAL, "ok"),
        (device("inUse"), (), StateCode.NORMAL, "inUse"),
        (device("noDevice"), (), StateCode.NORMAL, "missing"),
        (device("unknown"), (), StateCode.NORMAL, "noData"),
        (device("hardwareError"), (), StateCode.NORMAL, "warn"),
        (None, (), StateCode.NORMAL, "noData"),
        (device("online"), (), StateCode.OFFLINE, "noData"),
        (device("online"), (), StateCode.UNKNOWN, "noData"),
        (device("online"), (), StateCode.SUSPECT, "ok"),
        (device("online"), (fault(),), StateCode.UNUSABLE, "bad"),
        (device("online"), (fault(severity="P4"),), StateCode.NORMAL, "warn"),
        (device("online"), (fault(),), StateCode.OFFLINE, "bad"),
    ],
)
def test_an_old_fine_is_not_fine(known: DeviceNow | None, faults: tuple[FaultNow, ...], state: StateCode, look: str) -> None:
    assert lamp(known, faults, state) == look


# The past ---------------------------------------------------------------------------------------------------------------------------------


def test_cells_end_with_the_one_that_holds_now() -> None:
    edges = cell_edges(NOW, "Asia/Shanghai")
    assert len(edges) == CELLS + 1
    assert edges[-2] <= NOW < edges[-1]
    assert {b - a for a, b in pairwise(edges)} == {CELL_MS}
    assert (edges[0] + 8 * HOUR) % CELL_MS == 0


def test_a_cell_shows_the_worst_of_it_and_nothing_where_nothing_is_known() -> None:
    edges = cell_edges(NOW, "Asia/Shanghai")
    spans = [
        Span(edges[10], NOW, "normal"),
        Span(edges[20] + 1, edges[20] + 2, "offline"),
        Span(edges[20] + 1, edges[20] + 3, "partial"),
        Span(edges[3], edges[3], "unusable"),  # no length: never happened
        Span(edges[0] - 99, edges[0], "unusable"),  # ended before
    ]
    looks = [cell.look for cell in cells(spans, edges, NOW)]
    assert looks[:10] == ["noData"] * 10
    assert looks[20] == "offline"
    assert looks[21:] == ["normal"] * 7


def test_what_lies_ahead_of_now_is_not_drawn() -> None:
    edges = cell_edges(NOW, "Asia/Shanghai")
    looks = [cell.look for cell in cells([Span(NOW, edges[-1], "offline")], edges, NOW)]
    assert set(looks) == {"noData"}


SPANS = st.lists(
    st.builds(
        lambda start, length, look: Span(start, start + length, look),
        st.integers(-50, 150),
        st.integers(0, 80),
        st.sampled_from(sorted(RANK)),
    ),
    max_size=12,
)


@given(SPANS)
def test_a_lane_covers_its_range_once_and_shows_the_top(spans: list[Span]) -> None:
    parts = lane(spans, 0, 100)
    assert parts[0].from_ms == 0
    assert parts[-1].to_ms == 100
    for left, right in pairwise(parts):
        assert left.to_ms == right.from_ms
        assert left.look != right.look
    for at in range(100):
        here = [span.look for span in spans if span.from_ms <= at < span.to_ms]
        shown = next(part.look for part in parts if part.from_ms <= at < part.to_ms)
        assert RANK[shown] == max((RANK[look] for look in here), default=0)


@given(SPANS, st.lists(st.tuples(st.integers(0, 100), st.integers(1, 30)), max_size=4))
def test_silence_outside_opening_hours_is_closed_and_no_time_is_lost(spans: list[Span], hours: list[tuple[int, int]]) -> None:
    opening = sorted({(start, start + length) for start, length in hours})
    opening = [span for n, span in enumerate(opening) if all(span[0] >= other[1] for other in opening[:n])]
    result = closed_outside(spans, opening)
    assert sum(span.to_ms - span.from_ms for span in result) == sum(span.to_ms - span.from_ms for span in spans)
    for span in result:
        if span.look in {"offline", "suspect"}:
            assert any(start <= span.from_ms and span.to_ms <= end for start, end in opening)


@pytest.mark.parametrize(
    ("words", "look"),
    [
        ({}, "normal"),
        ({"paper": "out"}, "unusable"),
        ({"paper": "low"}, "partial"),
        ({"cover": "open"}, "unusable"),
        ({"device": "inUse", "paper": "out"}, "inUse"),
        ({"device": "unknown"}, "noData"),
        ({"device": "noDevice"}, "unusable"),
    ],
)
def test_looks_of_device_states(words: dict[str, str], look: str) -> None:
    usual = {
        "device": "online",
        "paper": "notSupported",
        "toner": "notSupported",
        "media": "notSupported",
        "cover": "notSupported",
    }
    assert device_look(**{**usual, **words}) == look


def test_a_place_without_names_has_its_code() -> None:
    assert Place(code="x", name_zh="", name_en="", kind="", timezone="", network="", hours="").name("zh") == "x"
