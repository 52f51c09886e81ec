from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.clock import ClockReading
from edge_agent.devices.base import Measured
from edge_agent.usage import ReadingBook, UnitId, UsageBook
from protocols.canon.words import PaperState, TonerState
from protocols.contract.records import ClockQuality, Counters
from tests.edge_agent.devices.bench import PROFILES

PRINTER = PROFILES["epson-tm-t88"]
LASER = next(profile for profile in PROFILES.values() if any(rule.counts == "pages" for rule in profile.consumable))
NOT = TonerState.NOT_SUPPORTED


def at(boot_s: float) -> ClockReading:
    return ClockReading(round(boot_s * 1000), round(boot_s * 1000), ClockQuality.SYNCED)


def book() -> UsageBook:
    usage = UsageBook()
    usage.configure("receipt-printer", PRINTER)
    usage.configure("a4-printer", LASER)
    return usage


def test_counts_are_told_once_and_lifetimes_go_on() -> None:
    usage = book()
    usage.count("receipt-printer", ok=3, failed=1)
    first = usage.close_span(0, 900_000)
    assert first is not None
    (row,) = first.slots
    assert (row.slot, row.total, row.ok, row.failed, row.lifetime, row.derived) == ("receipt-printer", 4, 3, 1, 4, False)
    assert usage.close_span(900_000, 1_800_000) is None
    usage.count("receipt-printer", ok=1)
    second = usage.close_span(1_800_000, 2_700_000)
    assert second is not None
    assert second.slots[0].lifetime == 5


def test_a_units_own_counter_is_used_where_nobody_reports_jobs() -> None:
    usage = book()
    usage.unit_total("a4-printer", 10_000)
    assert usage.close_span(0, 1) is None  # the first look is no use
    usage.unit_total("a4-printer", 10_007)
    counters = usage.close_span(0, 1)
    assert counters is not None
    (row,) = counters.slots
    assert (row.total, row.ok, row.lifetime, row.derived) == (7, 7, 10_007, True)


def test_another_unit_does_not_make_the_count_jump_or_run_backwards() -> None:
    usage = book()
    usage.unit_total("a4-printer", 10_000)
    usage.unit_total("a4-printer", 12)
    usage.unit_total("a4-printer", 15)
    counters = usage.close_span(0, 1)
    assert counters is not None
    assert (counters.slots[0].total, counters.slots[0].lifetime) == (3, 10_003)


def test_levels_are_told_in_steps_and_reach_zero() -> None:
    usage = book()
    told = [body for _ in range(700) for body in usage.count("receipt-printer", ok=1)]
    assert [body.event for body in told] == ["level"] * len(told)
    assert 15 <= len(told) <= 21
    assert told[-1].remaining == 0
    assert [body.remaining for body in told] == sorted((body.remaining for body in told), reverse=True)
    assert [condition.code for condition in usage.conditions("receipt-printer")] == ["PRN.PAPER_NEAR_END"]


def test_a_new_roll_is_a_refill_when_the_sensor_has_settled() -> None:
    usage = book()
    usage.sensed("receipt-printer", PaperState.FULL, NOT, at(0))
    (empty,) = usage.sensed("receipt-printer", PaperState.OUT, NOT, at(10))
    assert (empty.event, empty.remaining, empty.source) == ("level", 0, "sensor")
    assert usage.sensed("receipt-printer", PaperState.FULL, NOT, at(20)) == []
    assert usage.sensed("receipt-printer", PaperState.OUT, NOT, at(21)) == []  # not yet in place
    assert usage.sensed("receipt-printer", PaperState.FULL, NOT, at(30)) == []
    (refill,) = usage.sensed("receipt-printer", PaperState.FULL, NOT, at(35))
    assert (refill.event, refill.remaining, refill.source) == ("refill", refill.capacity, "sensor")


def test_a_fluttering_near_end_lever_is_no_refill() -> None:
    usage = book()
    usage.sensed("receipt-printer", PaperState.FULL, NOT, at(0))
    told = []
    for second in range(1, 400):
        word = PaperState.LOW if second % 10 < 5 else PaperState.FULL
        told += usage.sensed("receipt-printer", word, NOT, at(second))
    assert [body.event for body in told] == ["level"]


@pytest.mark.parametrize("word", [PaperState.UNKNOWN, PaperState.JAMMED, PaperState.NOT_SUPPORTED])
def test_what_says_nothing_about_paper_changes_nothing(word: PaperState) -> None:
    usage = book()
    usage.sensed("receipt-printer", PaperState.OUT, NOT, at(0))
    assert [body for second in range(1, 100) for body in usage.sensed("receipt-printer", word, NOT, at(second))] == []


def test_a_refill_by_hand_corrects_the_estimate() -> None:
    usage = book()
    usage.count("receipt-printer", ok=600)
    assert usage.conditions("receipt-printer")
    (refill,) = usage.refilled("receipt-printer", "roll")
    assert (refill.remaining, refill.source) == (refill.capacity, "manual")
    assert usage.conditions("receipt-printer") == ()
    assert usage.refilled("receipt-printer", "toner") == []
    assert usage.refilled("nobody", "roll") == []


def test_failing_reads_become_a_rate_and_good_ones_take_it_back() -> None:
    usage = UsageBook()
    usage.configure("id-reader", PROFILES["sdt-usb"])
    usage.count("id-reader", ok=10)
    assert usage.conditions("id-reader") == ()
    usage.count("id-reader", failed=8)
    assert [condition.code for condition in usage.conditions("id-reader")] == ["IDR.READ_FAIL_RATE"]
    usage.count("id-reader", ok=20)
    assert usage.conditions("id-reader") == ()


def test_everything_survives_a_restart() -> None:
    usage = book()
    usage.count("receipt-printer", ok=3)
    usage.unit_total("a4-printer", 500)
    usage.sensed("receipt-printer", PaperState.OUT, NOT, at(0))
    kept = usage.export()
    assert not usage.dirty
    again = book()
    again.restore(kept)
    again.configure("receipt-printer", PRINTER)
    counters = again.close_span(0, 1)
    assert counters is not None
    assert counters.slots[0].lifetime == 3
    assert {slot: remaining for slot, item, remaining, _ in again.levels() if item == "roll"} == {"receipt-printer": 0}


def test_spoiled_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="not readable"):
        UsageBook().restore(b"\xc1")


def test_more_slots_than_one_record_holds_wait_for_the_next() -> None:
    usage = UsageBook()
    for number in range(1, 61):
        usage.count(f"call-pad-{number}", ok=1)
    first, second = usage.close_span(0, 1), usage.close_span(1, 2)
    assert first is not None
    assert second is not None
    assert (len(first.slots), len(second.slots)) == (40, 20)
    assert usage.close_span(2, 3) is None


steps = st.lists(
    st.one_of(
        st.tuples(st.just("count"), st.integers(0, 5), st.integers(0, 5)),
        st.tuples(st.just("unit"), st.integers(0, 100_000), st.just(0)),
        st.tuples(st.just("close"), st.just(0), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_nothing_is_counted_twice_or_lost_and_lifetimes_never_fall(history: list[tuple[str, int, int]]) -> None:
    usage = book()
    counted = told = 0
    lifetime = 0
    spans: list[Counters | None] = []
    for what, first, second in history:
        if what == "count":
            usage.count("receipt-printer", ok=first, failed=second)
            counted += first + second
        elif what == "unit":
            usage.unit_total("a4-printer", first)
        elif what == "close":
            spans.append(usage.close_span(0, 1))
        else:
            kept = usage.export()
            usage = book()
            usage.restore(kept)
    spans.append(usage.close_span(0, 1))
    for counters in spans:
        for row in counters.slots if counters else ():
            assert row.total == row.ok + row.failed
            if row.slot == "receipt-printer":
                told += row.total
                assert row.lifetime is not None
                assert row.lifetime >= lifetime
                lifetime = row.lifetime
    assert told == counted == lifetime


def test_readings_keep_their_spread_and_start_anew() -> None:
    readings = ReadingBook()
    for tenths in (305, 200, 340):
        readings.add("climate", [Measured("temperature", tenths), Measured("humidity", 546)])
    humidity, temperature = readings.close_span(0, 900_000)
    assert (temperature.min_tenths, temperature.mean_tenths, temperature.max_tenths, temperature.unit) == (
        200,
        282,
        340,
        "celsius",
    )
    assert (humidity.mean_tenths, humidity.unit) == (546, "percent")
    assert readings.close_span(0, 1) == []


# ---------------------------------------------------------------------------------------------------------------------- other units


def lifetime_of(usage: UsageBook, slot: str) -> int | None:
    counters = usage.close_span(0, 1)
    return None if counters is None else next(row.lifetime for row in counters.slots if row.slot == slot)


def again(usage: UsageBook) -> UsageBook:
    """After a restart."""
    fresh = UsageBook()
    fresh.restore(usage.export())
    fresh.configure("receipt-printer", PRINTER)
    fresh.configure("a4-printer", LASER)
    return fresh


@pytest.mark.parametrize("restarts", [False, True])
def test_a_lifetime_goes_on_over_swaps_and_restarts(restarts: bool) -> None:
    usage = book()
    expected = 0
    told: list[int | None] = []
    for first, last in ((10_000, 10_050), (12, 40), (900_000, 900_001)):
        usage.seen("a4-printer", UnitId(serial=f"unit-{first}"))
        expected = first if not told else expected
        for total in (first, (first + last) // 2, last):
            usage.unit_total("a4-printer", total)
            usage = again(usage) if restarts else usage
        expected += last - first
        told.append(lifetime_of(usage, "a4-printer"))
        assert told[-1] == expected
    assert told == [10_050, 10_078, 10_079]
    assert (usage.units("a4-printer"), usage.lifetime("a4-printer")) == (3, 10_079)


@pytest.mark.parametrize(
    ("before", "after", "swapped"),
    [
        (UnitId(profile="a", serial="1"), UnitId(profile="a", serial="2"), True),
        (UnitId(profile="a"), UnitId(profile="b"), True),
        (UnitId(profile="a", asset="x"), UnitId(profile="a", asset="y"), True),
        (UnitId(profile="a", serial="1"), UnitId(profile="a"), False),
        (UnitId(profile="a"), UnitId(profile="a", asset="x"), False),
        (UnitId(), UnitId(profile="a", serial="1", asset="x"), False),
    ],
)
def test_another_unit_is_told_by_what_both_say(before: UnitId, after: UnitId, swapped: bool) -> None:
    usage = book()
    assert usage.seen("a4-printer", before) is False
    assert usage.seen("a4-printer", after) is swapped
    assert usage.seen("a4-printer", after) is False
    assert usage.units("a4-printer") == (2 if swapped else 1)


def test_a_unit_that_is_swapped_for_one_that_counted_more_does_not_make_the_count_jump() -> None:
    usage = book()
    usage.seen("a4-printer", UnitId(serial="old"))
    usage.unit_total("a4-printer", 100)
    usage.seen("a4-printer", UnitId(serial="new"))
    usage.unit_total("a4-printer", 5_000_000)
    usage.unit_total("a4-printer", 5_000_003)
    assert lifetime_of(usage, "a4-printer") == 103


def test_what_an_earlier_version_kept_is_taken_over() -> None:
    usage = book()
    usage.unit_total("a4-printer", 777)
    old = msgspec.msgpack.decode(usage.export())
    for row in old["slots"].values():
        for name in ("life", "unit", "units"):
            row.pop(name)
    fresh = UsageBook()
    fresh.restore(msgspec.msgpack.encode(old))
    fresh.unit_total("a4-printer", 780)
    assert lifetime_of(fresh, "a4-printer") == 780


def test_a_rate_of_failed_reads_outlives_a_restart() -> None:
    usage = UsageBook()
    usage.configure("id-reader", PROFILES["sdt-serial"])
    usage.count("id-reader", ok=3, failed=6)
    assert [condition.code for condition in usage.conditions("id-reader")] == ["IDR.READ_FAIL_RATE"]
    fresh = UsageBook()
    fresh.restore(usage.export())
    fresh.configure("id-reader", PROFILES["sdt-serial"])
    assert [condition.code for condition in fresh.conditions("id-reader")] == ["IDR.READ_FAIL_RATE"]
    fresh.count("id-reader", ok=20)
    assert fresh.conditions("id-reader") == ()
