"""python-evdev, unmodified, on keyboard models: live events, the kernel's bitmap, grabs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.stacks.conftest import Far, FarError, device

Start = Callable[..., Any]
EV_SYN, EV_KEY, SYN_DROPPED = 0, 1, 3
UP, DOWN, REPEAT = 0, 1, 2
NODE = "/dev/input/event3"


def keys(side: Far, port: int, *, until: Callable[[list[list[int]]], bool]) -> list[list[int]]:
    """Key and dropped events until `until` is content."""
    seen: list[list[int]] = []
    for _ in range(100):
        events = side("events", port=port, timeout_s=2.0)
        assert events, f"no more events after {seen}"
        seen += [event for event in events if event[0] == EV_KEY or event[:2] == [EV_SYN, SYN_DROPPED]]
        if until(seen):
            return seen
    raise AssertionError(f"never: {seen}")


def test_keys_arrive_as_the_kernel_tells_them(plug: Start, far: Start) -> None:
    bench = plug(device("keys", "keypad", "1-1.3"))
    side = far(bench)
    port = side("open_input", path=NODE, grab=True)
    bench.do("press", "keys", "press", "5")
    assert keys(side, port, until=lambda seen: len(seen) >= 2) == [[EV_KEY, 76, DOWN], [EV_KEY, 76, UP]]


def test_a_key_that_is_down_at_open_is_known_and_repeats(plug: Start, far: Start) -> None:
    bench = plug(device("keys", "keypad", "1-1.3"))
    bench.do("fault", "keys", "stuck-key")
    side = far(bench)
    watcher = far(bench)
    first = watcher("open_input", path=NODE, grab=False)
    keys(watcher, first, until=lambda seen: [EV_KEY, 76, DOWN] in seen)
    port = side("open_input", path=NODE, grab=True)  # not grabbed while a key is down: it would hang for the desktop
    assert side("pressed", port=port) == [76]
    seen = keys(watcher, first, until=lambda seen: seen.count([EV_KEY, 76, REPEAT]) >= 3)
    assert [EV_KEY, 76, UP] not in seen
    bench.do("clear", "keys", "stuck-key")
    keys(watcher, first, until=lambda seen: [EV_KEY, 76, UP] in seen)
    assert side("pressed", port=port) == []


def test_another_program_has_grabbed_the_keys(plug: Start, far: Start) -> None:
    bench = plug(device("keys", "keypad", "1-1.3"))
    first, second = far(bench), far(bench)
    held = first("open_input", path=NODE, grab=True)
    with pytest.raises(FarError, match="PortBusy"):
        second("open_input", path=NODE, grab=True)
    second("open_input", path=NODE, grab=False)  # to watch only
    first("close", port=held)
    second.until_free("open_input", path=NODE, grab=True)


def test_a_grab_ends_with_the_program(plug: Start, far: Start) -> None:
    bench = plug(device("keys", "keypad", "1-1.3"))
    first, second = far(bench), far(bench)
    first("open_input", path=NODE, grab=True)
    first.close()
    second.until_free("open_input", path=NODE, grab=True)


def test_after_lost_events_the_bitmap_says_what_is_down(plug: Start, far: Start) -> None:
    bench = plug(device("keys", "keypad", "1-1.3"))
    side = far(bench)
    port = side("open_input", path=NODE, grab=False)
    bench.do("fault", "keys", "stuck-key")
    keys(side, port, until=lambda seen: [EV_KEY, 76, DOWN] in seen)
    bench.do("fault", "keys", "dropped")
    keys(side, port, until=lambda seen: [EV_SYN, SYN_DROPPED, 0] in seen)
    assert side("pressed", port=port) == [76]


def test_unplugged_while_open_comes_back_as_the_next_node(plug: Start, far: Start) -> None:
    bench = plug(device("keys", "keypad", "1-1.3"))
    side = far(bench)
    port = side("open_input", path=NODE, grab=True)
    bench.do("fault", "keys", "unplug")
    side.until_places(set())
    with pytest.raises(FarError, match="PortGone"):
        side("pressed", port=port)
    bench.do("clear", "keys", "unplug")
    side.until_nodes("input", [("/dev/input/event4", "1-1.3")])
    port = side("open_input", path="/dev/input/event4", grab=True)
    bench.do("press", "keys", "press", "1")
    keys(side, port, until=lambda seen: [EV_KEY, 79, UP] in seen)


def test_an_evaluator_and_a_scanner_side_by_side(plug: Start, far: Start) -> None:
    bench = plug(device("rate", "evaluator", "1-1.3"), device("scan", "scanner-hid", "1-1.4"))
    side = far(bench)
    assert [(one[1], one[4]) for one in side.sightings("input")] == [(NODE, "1-1.3"), ("/dev/input/event4", "1-1.4")]
    rate, scan = side("open_input", path=NODE, grab=True), side("open_input", path="/dev/input/event4", grab=True)
    bench.do("press", "rate", "rate", "5")
    bench.do("press", "scan", "scan", "AB1")
    assert keys(side, rate, until=lambda seen: len(seen) >= 2) == [[EV_KEY, 2, DOWN], [EV_KEY, 2, UP]]
    seen = keys(side, scan, until=lambda seen: [EV_KEY, 28, UP] in seen)
    assert [event[1] for event in seen if event[2] == DOWN] == [42, 30, 42, 48, 2, 28]
