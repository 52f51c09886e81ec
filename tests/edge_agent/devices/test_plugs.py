"""Comings and goings on USB: a single re-plug is nothing, a pattern is a cable, a hub or the supply."""

from __future__ import annotations

import asyncio

from edge_agent.devices.plugs import HUB_LOST, UNSTABLE, PlugWatch, hub_of
from simulators import scripts
from simulators.conformance.watch import WALL_OFFSET_MS
from simulators.terminal import Ticker, build_terminal
from tests.edge_agent.devices.bench import Bench, in_virtual_time

ALL = ("1-1.1", "1-1.2", "1-1.3", "1-2")


def test_places_and_their_hubs() -> None:
    assert [hub_of(place) for place in ("1-1.4", "1-1.2.3", "1-2", "2-1")] == ["1-1", "1-1.2", None, None]


def test_four_returns_within_an_hour() -> None:
    watch = PlugWatch()
    assert watch.look(ALL, 0) == frozenset()
    for count in range(1, 5):
        assert watch.look(ALL[1:], count * 600) == frozenset()
        assert watch.look(ALL, count * 600 + 2) == (frozenset() if count < 4 else {UNSTABLE})
    assert watch.look(ALL, 4 * 600 + 3000) == frozenset(), "the first of them is more than an hour ago"


def test_returns_that_take_a_day_are_no_pattern() -> None:
    watch = PlugWatch()
    watch.look(ALL, 0)
    for count in range(1, 20):
        assert watch.look(ALL[1:], count * 7200) == frozenset()
        assert watch.look(ALL, count * 7200 + 2) == frozenset()


def test_a_device_that_is_being_switched_over_may_come_and_go() -> None:
    watch = PlugWatch()
    watch.look(ALL, 0)
    for count in range(1, 9):
        watch.look(ALL[1:], count * 10, expected_to_move=frozenset({ALL[0]}))
        assert watch.look(ALL, count * 10 + 2, expected_to_move=frozenset({ALL[0]})) == frozenset()


def test_a_hub_goes_with_all_that_hangs_on_it() -> None:
    watch = PlugWatch()
    watch.look(ALL, 0)
    assert watch.look(("1-1.3", "1-2"), 1) == frozenset(), "one is left"
    assert watch.look(("1-2",), 2) == {HUB_LOST}
    assert watch.look(ALL, 5) == frozenset()


def test_one_after_the_other_is_no_hub() -> None:
    watch = PlugWatch()
    watch.look(("1-1.1", "1-1.2"), 0)
    watch.look(("1-1.1",), 10)
    assert watch.look((), 60) == frozenset()


def test_devices_of_the_computers_own_sockets_have_no_hub() -> None:
    watch = PlugWatch()
    watch.look(("1-1", "1-2"), 0)
    assert watch.look((), 1) == frozenset()


def test_under_the_monitor() -> None:
    async def story() -> None:
        slots = build_terminal("booth", seed=1, whole=True, epoch_s=WALL_OFFSET_MS / 1000).slots
        async with Bench(*slots.values()) as bench:
            await bench.until(lambda: bool(bench.states()) and set(bench.states().values()) == {"online"}, within_s=60)
            ticker = Ticker([bench.terminal])
            bench.terminal.play(scripts.parse("every 60s from 0s scanner unplug for 2s\n"))
            opened = await bench.until_open(UNSTABLE, within_s=400)
            assert opened.slot is None
            assert bench.records.open_codes() == {UNSTABLE}, "two seconds each time are a re-enumeration, no missing scanner"
            bench.terminal.stop_script()
            await bench.until(lambda: not bench.records.open_codes(), within_s=7200)
            on_hub = [name for name, slot in slots.items() if slot.usb_path]
            for name in on_hub:
                bench.terminal.set(name, "unplug")
            await bench.until_open(HUB_LOST, within_s=60)
            for name in on_hub:
                bench.terminal.clear(name, "unplug")
            await bench.until(lambda: HUB_LOST not in bench.records.open_codes(), within_s=60)
            ticker.close()
            await asyncio.sleep(0)

    in_virtual_time(story())
