"""Key devices: the kernel's struct, stuck keys, storms; a citizen's keys are never told."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import keys
from protocols.codecs.keys import (
    DOWN,
    EV_KEY,
    EV_MSC,
    EV_SYN,
    REPEAT,
    SYN_DROPPED,
    UP,
    EventReader,
    InputEvent,
    KeyFreed,
    KeyMonitor,
    Press,
    RepeatStorm,
    ResyncNeeded,
    StormOver,
    StuckKey,
)
from protocols.errors import EncodeError, ProtocolError
from tests.protocols.codecs.feeding import every_cut, feed, h

SYN = InputEvent(0, 0, EV_SYN, 0, 0)


def key(code: int, value: int) -> InputEvent:
    return InputEvent(0, 0, EV_KEY, code, value)


def tap(code: int) -> list[InputEvent]:
    return [key(code, DOWN), SYN, key(code, UP), SYN]


def test_the_kernels_struct() -> None:
    # Key "1" (code 2) down at 1700000000.250000, written with another library's layout (two longs, two shorts, one int).
    raw = h("00 F1 53 65 00 00 00 00 90 D0 03 00 00 00 00 00 01 00 02 00 01 00 00 00")
    assert raw == struct.pack("=qqHHi", 1_700_000_000, 250_000, 1, 2, 1)
    event = InputEvent(1_700_000_000, 250_000, EV_KEY, 2, DOWN)
    assert every_cut(EventReader, raw * 3) == [event] * 3
    assert keys.pack_event(event) == raw


def test_numbers_that_do_not_fit() -> None:
    with pytest.raises(EncodeError):
        keys.pack_event(InputEvent(0, 0, 1, 0x1_0000, 1))


def test_a_cut_event_waits() -> None:
    decoder = EventReader()
    assert feed(decoder, [keys.pack_event(SYN)[:23]]) == []
    assert feed(decoder, [keys.pack_event(SYN)[23:]]) == [SYN]


def test_only_named_keys_are_told() -> None:
    monitor = KeyMonitor({2: "level-5"})
    assert monitor.feed([*tap(2), *tap(3), *tap(79)], 1.0) == [Press("level-5")]
    assert monitor.press_count == 3


def test_nothing_of_a_key_shows_in_text() -> None:
    event = InputEvent(12, 34, EV_KEY, 79, 1)
    assert "79" not in repr(event)
    assert "79" not in str(event)
    assert "458831" not in repr(InputEvent(0, 0, EV_MSC, 4, 458831))


def test_auto_repeat_of_a_named_key_is_one_press() -> None:
    monitor = KeyMonitor({2: "level-5"})
    found = monitor.feed([key(2, DOWN), SYN, *[key(2, REPEAT), SYN] * 20, key(2, UP), SYN], 1.0)
    assert found == [Press("level-5")]


def test_stuck_and_freed() -> None:
    monitor = KeyMonitor({2: "level-5"}, stuck_after_s=10)
    assert monitor.feed([key(2, DOWN), key(30, DOWN), SYN], 0.0) == [Press("level-5")]
    assert monitor.tick(9.99) == []
    assert set(monitor.tick(10.0)) == {StuckKey("level-5", 10.0), StuckKey(None, 10.0)}
    assert monitor.tick(11.0) == []
    assert monitor.feed([key(30, UP), SYN], 12.0) == []
    assert monitor.feed([key(2, UP), SYN], 13.0) == [KeyFreed()]


def test_repeat_events_prove_a_key_that_was_down_before_we_looked() -> None:
    monitor = KeyMonitor(stuck_after_s=10)
    assert monitor.feed([key(30, REPEAT), SYN], 5.0) == []
    assert monitor.tick(15.0) == [StuckKey(None, 10.0)]


def test_down_at_open() -> None:
    monitor = KeyMonitor(stuck_after_s=10)
    assert monitor.resync({30}, 100.0) == []
    assert monitor.tick(110.0) == [StuckKey(None, 10.0)]
    assert monitor.resync(set(), 111.0) == [KeyFreed()]


def test_dropped_events_ask_for_the_bitmap_and_the_torn_tail_is_ignored() -> None:
    monitor = KeyMonitor({2: "level-5"}, stuck_after_s=10)
    monitor.feed([key(30, DOWN), SYN], 0.0)
    found = monitor.feed([InputEvent(0, 0, EV_SYN, SYN_DROPPED, 0), key(2, DOWN), SYN], 1.0)
    assert found == [ResyncNeeded()]
    assert monitor.press_count == 1
    assert monitor.resync({2}, 1.1) == []
    # 30 was released unseen, 2 counts from the resync.
    assert monitor.tick(10.5) == []
    assert monitor.tick(11.1) == [StuckKey("level-5", 10.0)]


def test_storm() -> None:
    monitor = KeyMonitor(storm_per_s=40, storm_window_s=2)
    found = []
    for step in range(100):
        found += monitor.feed(tap(30), step * 0.01)
    assert [type(item) for item in found] == [RepeatStorm]
    assert all(item.per_s >= 40 for item in found if isinstance(item, RepeatStorm))
    assert monitor.tick(10.0) == [StormOver()]


def test_a_fast_typist_is_no_storm() -> None:
    monitor = KeyMonitor()
    found = []
    for step in range(300):
        found += monitor.feed(tap(30), step / 12)
    assert found == []


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    monitor = KeyMonitor({2: "level-5"})
    now = 0.0
    decoder = EventReader()
    for item in feed(decoder, pieces):
        assert not isinstance(item, ProtocolError)
        now += 0.5
        monitor.feed([item], now)
    assert decoder.pending_bytes < keys.EVENT_BYTES


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([UP, DOWN, REPEAT])), max_size=60))
def test_after_all_keys_are_up_nothing_is_stuck(steps: list[tuple[int, int]]) -> None:
    monitor = KeyMonitor(stuck_after_s=1)
    for at, (code, value) in enumerate(steps):
        monitor.feed([key(code, value), SYN], at * 0.7)
    monitor.resync(set(), 1000.0)
    assert monitor.tick(2000.0) == []


def test_a_key_that_goes_down_twice_without_coming_up_is_one_press() -> None:
    monitor = KeyMonitor({2: "level-5"})
    assert monitor.feed([key(2, DOWN), SYN, key(2, DOWN), SYN], 1.0) == [Press("level-5")]
