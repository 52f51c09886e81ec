"""Thresholds: a default until somebody sets another value, and who that was."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

import fleet_server
from fleet_server.errors import Refused
from fleet_server.presence.limits import DEFAULT_LIMITS, load_limits
from fleet_server.thresholds.defaults import DEFAULTS, ORDERS, TERMINAL_CLASSES
from fleet_server.thresholds.rules import OutOfOrder, all_effective, effective, history, put, values
from tests.support.facts import T0, FactBench


def test_a_default_holds_until_somebody_sets_another_value(bench: FactBench) -> None:
    before = effective(bench.conn, "idle.notice_days")
    assert (before.value, before.unit, before.is_default, before.set_by) == (14, "day", True, None)
    after = put(bench.conn, "idle.notice_days", 21, by="operator", now_ms=T0)
    assert (after.value, after.set_by, after.set_ms) == (21, "operator", T0)
    assert effective(bench.conn, "idle.notice_days", "social").value == 21


def test_back_to_the_default_and_all_of_it_is_remembered(bench: FactBench) -> None:
    put(bench.conn, "queue.calls_max", 4, by="a", now_ms=T0)
    assert put(bench.conn, "queue.calls_max", None, by="b", now_ms=T0 + 1).is_default
    assert [(one.value, one.set_by, one.set_ms) for one in history(bench.conn, "queue.calls_max")] == [
        (None, "b", T0 + 1),
        (4, "a", T0),
    ]


def test_a_class_has_its_own_default_which_the_fleets_setting_does_not_reach(bench: FactBench) -> None:
    assert effective(bench.conn, "presence.offline_s", "social").value == 14_400
    put(bench.conn, "presence.offline_s", 400, by="a", now_ms=T0)
    assert effective(bench.conn, "presence.offline_s", "government").value == 400
    assert effective(bench.conn, "presence.offline_s", "social").value == 14_400
    put(bench.conn, "presence.offline_s", 10_800, by="a", now_ms=T0, terminal_class="social")
    found = effective(bench.conn, "presence.offline_s", "social")
    assert (found.value, found.scope) == (10_800, "social")


def test_a_setting_for_a_class_leaves_the_others_alone(bench: FactBench) -> None:
    put(bench.conn, "availability.month_min", 0.9, by="a", now_ms=T0, terminal_class="social")
    assert effective(bench.conn, "availability.month_min", "social").value == 0.9
    assert effective(bench.conn, "availability.month_min", "government").is_default


@pytest.mark.parametrize(
    ("name", "value", "scope", "reason"),
    [
        ("no.such", 1.0, "", "unknown"),
        ("idle.notice_days", 1.0, "private", "unknown"),
        ("idle.notice_days", 0.0, "", "outOfBounds"),
        ("availability.month_min", 1.01, "", "outOfBounds"),
        ("availability.month_min", float("nan"), "", "outOfBounds"),
        ("queue.calls_max", 2.5, "", "notWhole"),
        ("presence.offline_s", 300.5, "", "notWhole"),
        ("platform.blind_s", 60.0, "social", "fleetOnly"),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_row(
    bench: FactBench, name: str, value: float, scope: str, reason: str
) -> None:
    with pytest.raises(Refused) as refused:
        put(bench.conn, name, value, by="a", now_ms=T0, terminal_class=scope)
    assert refused.value.reason == reason
    assert bench.rows("SELECT * FROM threshold") == []


def test_a_setting_names_somebody(bench: FactBench) -> None:
    with pytest.raises(Refused):
        put(bench.conn, "idle.notice_days", 20, by="", now_ms=T0)


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_every_default_lies_inside_its_bounds_and_can_be_set(bench: FactBench, name: str) -> None:
    default = DEFAULTS[name]
    assert default.zh and default.en
    assert set(default.by_class) <= set(TERMINAL_CLASSES)
    for value in (default.value, *default.by_class.values()):
        assert default.low <= value <= default.high
    assert default.per_class or not default.by_class
    changed = put(bench.conn, name, default.value, by="a", now_ms=T0)
    assert (changed.value, changed.set_by) == (default.value, "a")
    for value in (default.low, default.high):
        with contextlib.suppress(OutOfOrder):
            assert put(bench.conn, name, value, by="a", now_ms=T0).value == value


def test_orders_name_thresholds_of_one_kind_and_hold_for_the_defaults(bench: FactBench) -> None:
    for terminal_class in ("", *TERMINAL_CLASSES):
        found = values(bench.conn, terminal_class)
        for order in ORDERS:
            units = {DEFAULTS[name].unit for name in (order.smaller, order.larger)}
            assert len(units) == 1 or units <= {"s", "min", "h", "day"}
            if len(units) == 1:
                assert found[order.smaller] <= found[order.larger]


@pytest.mark.parametrize(
    ("name", "value", "scope", "other", "must_be_less"),
    [
        ("presence.suspect_s", 300, "", "presence.offline_s", True),
        ("presence.suspect_s", 4 * 3600, "social", "presence.offline_s", True),
        ("presence.offline_s", 90, "government", "presence.suspect_s", False),
        ("presence.offline_s", 601, "", "presence.alarm_s", True),
        ("account.session_h", 0.25, "", "account.idle_min", False),
        ("reviews.unrated_days", 45, "", "reviews.remind_last_days", False),
    ],
)
def test_a_value_keeps_its_place_among_the_others(
    bench: FactBench, name: str, value: float, scope: str, other: str, must_be_less: bool
) -> None:
    if name == "account.session_h":
        value, _ = 1, put(bench.conn, "account.idle_min", 480, by="a", now_ms=T0)
    with pytest.raises(OutOfOrder) as refused:
        put(bench.conn, name, value, by="a", now_ms=T0, terminal_class=scope)
    assert (refused.value.other.name, refused.value.must_be_less) == (other, must_be_less)
    assert bench.rows("SELECT * FROM threshold WHERE name = ?", name) == []


def test_the_fleets_setting_is_refused_where_a_class_that_follows_it_would_break(bench: FactBench) -> None:
    put(bench.conn, "idle.withdraw_months", 4, by="a", now_ms=T0, terminal_class="social")
    with pytest.raises(OutOfOrder):
        put(bench.conn, "idle.relocate_months", 3, by="a", now_ms=T0)
    put(bench.conn, "idle.withdraw_months", 6, by="a", now_ms=T0)
    with pytest.raises(OutOfOrder):
        put(bench.conn, "idle.relocate_months", 4, by="a", now_ms=T0)
    assert put(bench.conn, "idle.relocate_months", 3, by="a", now_ms=T0).value == 3


def test_going_back_to_the_default_keeps_the_order_too(bench: FactBench) -> None:
    put(bench.conn, "idle.withdraw_months", 9, by="a", now_ms=T0)
    put(bench.conn, "idle.relocate_months", 8, by="a", now_ms=T0)
    with pytest.raises(OutOfOrder):
        put(bench.conn, "idle.withdraw_months", None, by="a", now_ms=T0)


def test_presence_runs_on_what_holds(bench: FactBench) -> None:
    assert load_limits(bench.conn) == DEFAULT_LIMITS
    ours, partner = DEFAULT_LIMITS.of("government"), DEFAULT_LIMITS.of("social")
    assert (ours.suspect_ms, ours.offline_ms, ours.alarm_ms) == (90_000, 300_000, 600_000)
    assert partner.offline_ms == 4 * 3_600_000
    assert DEFAULT_LIMITS.of("nobody knows this class") is ours
    put(bench.conn, "presence.offline_s", 240, by="operator", now_ms=T0)
    put(bench.conn, "platform.blind_s", 30, by="operator", now_ms=T0)
    changed = load_limits(bench.conn)
    assert (changed.of("government").offline_ms, changed.of("social").offline_ms) == (240_000, 4 * 3_600_000)
    assert changed.crowd.blind_ms == 30_000


def test_the_list_has_every_threshold_once(bench: FactBench) -> None:
    assert [one.name for one in all_effective(bench.conn)] == list(DEFAULTS)


def test_the_catalogue_says_truly_what_a_threshold_does() -> None:
    """What decides something is asked for by name in some rule; what is only on record is asked for nowhere."""
    package = Path(fleet_server.__file__).parent
    own = {package / "thresholds", package / "console" / "threshold_view.py"}
    files = [file for file in package.rglob("*.py") if own.isdisjoint({file, *file.parents})]
    text = "\n".join(file.read_text("utf-8") for file in files)
    asked = {name for name in DEFAULTS if f'"{name}"' in text}
    assert {name for name, default in DEFAULTS.items() if default.use != "record"} == asked
