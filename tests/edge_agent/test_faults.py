from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.clock import ClockReading
from edge_agent.faults import FLAP_QUIET_MS, MIN_OPEN_MS, Condition, FaultEngine
from protocols.canon.faults import UnknownFaultCode, fault
from protocols.canon.words import Severity
from protocols.contract.records import ClockQuality, Evidence, Fault

WALL_OFFSET_MS = 1_790_000_000_000


def at(boot_s: float) -> ClockReading:
    boot_ms = round(boot_s * 1000)
    return ClockReading(boot_ms + WALL_OFFSET_MS, boot_ms, ClockQuality.SYNCED)


def counting_ids() -> Callable[[], bytes]:
    numbers = itertools.count(1)
    return lambda: next(numbers).to_bytes(8, "big")


@pytest.fixture
def engine() -> FaultEngine:
    return FaultEngine(new_id=counting_ids())


PAPER = Condition("PRN.PAPER_OUT", Evidence(codec="escpos", query=b"\x10\x04\x04", reply=b"\x7e"))


@pytest.mark.spec("C-305")
def test_a_decisive_bit_opens_at_once_with_its_evidence_and_its_first_moment(engine: FaultEngine) -> None:
    (opened,) = engine.observe("receipt-printer", [PAPER], at(100), mandatory=True, profile="epson-tm-t88v")

    assert (opened.code, opened.change, opened.severity, opened.mandatory) == ("PRN.PAPER_OUT", "open", Severity.P2, True)
    assert opened.since_ms == WALL_OFFSET_MS + 100_000
    assert opened.evidence is not None
    assert opened.evidence.reply == b"\x7e"
    assert opened.profile == "epson-tm-t88v"
    assert engine.observe("receipt-printer", [PAPER], at(101)) == []
    assert engine.open_faults() == [opened]


def test_it_clears_by_itself_after_the_minimum_time_with_the_same_id(engine: FaultEngine) -> None:
    (opened,) = engine.observe("receipt-printer", [PAPER], at(100))
    assert engine.observe("receipt-printer", [], at(101)) == []
    assert engine.next_due_ms() == 100_000 + MIN_OPEN_MS
    assert engine.tick(at(104.9)) == []

    (cleared,) = engine.tick(at(105))

    assert (cleared.id, cleared.change, cleared.since_ms) == (opened.id, "clear", opened.since_ms)
    assert engine.open_faults() == []


def test_a_fluttering_sensor_opens_only_after_unbroken_evidence(engine: FaultEngine) -> None:
    near_end = [Condition("PRN.PAPER_NEAR_END")]
    assert engine.observe("receipt-printer", near_end, at(0)) == []
    assert engine.observe("receipt-printer", [], at(9)) == []
    assert engine.observe("receipt-printer", near_end, at(12)) == []
    assert engine.tick(at(21.9)) == []
    (opened,) = engine.tick(at(22))
    assert opened.since_ms == WALL_OFFSET_MS + 12_000


def test_silence_needs_its_misses_and_a_profile_may_want_more(engine: FaultEngine) -> None:
    silent = [Condition("PRN.OFFLINE", count=5)]
    changes = [engine.observe("receipt-printer", silent, at(second)) for second in range(5)]
    assert [len(change) for change in changes] == [0, 0, 0, 0, 1]


def test_what_an_observation_cannot_judge_stays_open(engine: FaultEngine) -> None:
    """A printer that fell silent has not been refilled."""
    engine.observe("receipt-printer", [PAPER], at(0))
    link_codes = frozenset({"PRN.OFFLINE", "PRN.UNPLUGGED", "PRN.OPEN_FAIL"})
    for second in range(60, 90):
        engine.observe("receipt-printer", [Condition("PRN.UNPLUGGED")], at(second), judged=link_codes)
    assert {body.code for body in engine.open_faults()} == {"PRN.PAPER_OUT", "PRN.UNPLUGGED"}


def test_a_loose_plug_is_one_fault_and_not_twenty(engine: FaultEngine) -> None:
    changes: list[Fault] = []
    for minute in range(10):
        for second in range(0, 30, 2):
            changes += engine.observe("id-reader", [Condition("IDR.UNPLUGGED")], at(minute * 60 + second))
        for second in range(30, 60, 2):
            changes += engine.observe("id-reader", [], at(minute * 60 + second))
    assert [change.change for change in changes] == ["open", "clear", "open", "clear", "open"]
    assert engine.tick(at(600 + FLAP_QUIET_MS / 1000))[0].change == "clear"


def test_slots_do_not_touch_each_other(engine: FaultEngine) -> None:
    engine.observe("call-pad-1", [Condition("CAL.STUCK_KEY")], at(0))
    engine.observe("call-pad-2", [Condition("CAL.STUCK_KEY")], at(0))
    engine.observe("call-pad-1", [], at(1))
    engine.tick(at(10))
    assert [body.slot for body in engine.open_faults()] == ["call-pad-2"]


def test_the_terminal_itself_is_always_mandatory(engine: FaultEngine) -> None:
    (opened,) = engine.observe(None, [Condition("HOST.DISK_FULL")], at(0))
    assert opened.slot is None
    assert opened.mandatory


def test_a_code_outside_the_catalogue_is_refused(engine: FaultEngine) -> None:
    with pytest.raises(UnknownFaultCode):
        engine.observe("receipt-printer", [Condition("PRN.ON_FIRE")], at(0))


def test_a_removed_slot_takes_its_faults_along(engine: FaultEngine) -> None:
    (opened,) = engine.observe("receipt-printer", [PAPER], at(0))
    (closed,) = engine.retire(["id-reader"], at(1))
    assert (closed.id, closed.change) == (opened.id, "clear")


def test_open_faults_survive_a_restart_and_a_reboot(engine: FaultEngine) -> None:
    (opened,) = engine.observe("receipt-printer", [PAPER], at(5000))
    kept = engine.export(at(5001), unreported=[opened])

    after_reboot = FaultEngine(new_id=counting_ids())
    assert after_reboot.restore(kept, at(10)) == [opened]
    assert [(body.id, body.since_ms) for body in after_reboot.open_faults()] == [(opened.id, opened.since_ms)]
    assert after_reboot.observe("receipt-printer", [PAPER], at(11)) == []
    assert after_reboot.tick(at(12)) == []
    (cleared,) = after_reboot.observe("receipt-printer", [], at(13))
    assert cleared.id == opened.id


@pytest.mark.parametrize("spoiled", [b"", b"\x00", b"\xc1" * 40, b"\x82\xa8episodes\x01\xaaunreported\x90"])
def test_spoiled_state_is_refused_whole(engine: FaultEngine, spoiled: bytes) -> None:
    with pytest.raises(ValueError, match="not readable"):
        engine.restore(spoiled, at(0))
    assert engine.open_faults() == []


def test_a_birth_lists_the_most_severe_first(engine: FaultEngine) -> None:
    for number in range(1, 140):
        engine.observe(f"call-pad-{number}", [Condition("CAL.STUCK_KEY")], at(number))
    engine.observe("door", [Condition("ENV.TAMPER", count=1)], at(999))
    listed = engine.open_for_birth()
    assert len(listed) == 128
    assert listed[0].code == "ENV.TAMPER"


CODES = ("PRN.PAPER_OUT", "PRN.PAPER_NEAR_END", "PRN.OFFLINE", "IDR.UNPLUGGED", "IDR.READ_FAIL_RATE", "ENV.DOOR_OPEN")
steps = st.lists(
    st.tuples(
        st.sampled_from(("receipt-printer", "id-reader", None)),
        st.sets(st.sampled_from(CODES), max_size=3),
        st.integers(0, 120_000),
        st.sampled_from(("observe", "blind", "tick", "restart")),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whatever_happens_the_story_told_is_consistent(history: list[tuple[str | None, set[str], int, str]]) -> None:
    """Opens and clears alternate with one id per episode; the snapshot is the sum of the changes, restarts included."""
    new_id = counting_ids()
    engine = FaultEngine(new_id=new_id)
    boot_ms = 0
    told: dict[bytes, Fault] = {}
    used: set[bytes] = set()
    suspected: dict[tuple[str | None, str], int] = {}
    for slot, codes, passed_ms, step in history:
        boot_ms += passed_ms
        now = ClockReading(boot_ms + WALL_OFFSET_MS, boot_ms, ClockQuality.SYNCED)
        if step == "restart":
            kept = engine.export(now)
            engine = FaultEngine(new_id=new_id)
            assert engine.restore(kept, now) == []
            suspected.clear()
            changes = []
        elif step == "tick":
            changes = engine.tick(now)
        else:
            judged = frozenset(codes) if step == "blind" else None
            for code in codes:
                suspected.setdefault((slot, code), now.wall_ms)
            if judged is None:
                for key in [key for key in suspected if key[0] == slot and key[1] not in codes]:
                    del suspected[key]
            changes = engine.observe(slot, [Condition(code) for code in sorted(codes)], now, judged=judged)
        for change in changes:
            if change.change == "open":
                assert change.id not in used
                used.add(change.id)
                assert not any((body.slot, body.code) == (change.slot, change.code) for body in told.values())
                told[change.id] = change
                assert change.since_ms == suspected[change.slot, change.code]
                assert now.wall_ms - change.since_ms >= fault(change.code).debounce_s * 1000
            else:
                opened = told.pop(change.id)
                assert (opened.slot, opened.code, opened.since_ms) == (change.slot, change.code, change.since_ms)
        assert {body.id for body in engine.open_faults()} == set(told)
        due = engine.next_due_ms()
        assert due is None or due > boot_ms or step != "tick" or not engine.tick(now)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3000)), min_size=50, max_size=300))
def test_flapping_never_floods(flips: list[tuple[bool, int]]) -> None:
    engine = FaultEngine(new_id=counting_ids())
    boot_ms, changes = 0, []
    for bad, passed_ms in flips:
        boot_ms += passed_ms
        now = ClockReading(boot_ms + WALL_OFFSET_MS, boot_ms, ClockQuality.SYNCED)
        changes += engine.observe("receipt-printer", [PAPER] if bad else [], now)
    # Two whole episodes and one that stays, per window of ten minutes, whatever the sensor does.
    assert len(changes) <= 5 * (1 + boot_ms // 600_000)
