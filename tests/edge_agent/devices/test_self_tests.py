"""Self-tests of devices: somebody on site does something, and the device is seen to work. What was read or pressed is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edge_agent.devices.read_test import READ_TEST_S
from edge_agent.monitor import Tested
from protocols.contract.records import Rating
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import EvaluatorPad, HidScanner, Keypad
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import SdtReader
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time

SLOTS: dict[str, Callable[[], Slot]] = {
    "scanner-keys": lambda: Slot("scanner", HidScanner(), "input", "/dev/input/event3", "1-1.4"),
    "scanner-line": lambda: Slot("scanner", SerialScanner(), "serial", "/dev/ttyUSB0", "1-1.4", adapter=CH340),
    "keypad": lambda: Slot("keypad", Keypad(), "input", "/dev/input/event4", "1-1.5"),
    "evaluator": lambda: Slot("evaluator", EvaluatorPad(), "input", "/dev/input/event5", "1-1.6"),
}
ACTS = {"scanner": ("scan", "HELLO-1"), "keypad": ("press", "5"), "evaluator": ("rate", "5")}


async def result_of(bench: Bench, slot: str, *, act: bool) -> tuple[Tested, float]:
    loop = asyncio.get_running_loop()
    await bench.until_state(slot, "online")
    began_s = loop.time()
    test = asyncio.create_task(bench.monitor.test(slot, "read"))
    await asyncio.sleep(1)
    if act:
        bench.terminal.press(slot, *ACTS[slot])
    return await test, loop.time() - began_s


@pytest.mark.parametrize("which", SLOTS)
def test_read_is_ok_when_somebody_does_it_and_not_when_nobody_does(which: str) -> None:
    async def story() -> None:
        slot = SLOTS[which]()
        async with Bench(slot) as bench:
            said, seconds = await result_of(bench, slot.name, act=True)
            assert (said, seconds < 10) == ("ok", True)
            assert bench.records.of(Rating) == []  # the installer's finger is no citizen's opinion
            said, seconds = await result_of(bench, slot.name, act=False)
            assert said == "device"
            assert seconds == pytest.approx(READ_TEST_S, abs=3)
            assert bench.states()[slot.name] == "online"  # the device is not blamed for it

    in_virtual_time(story())


@pytest.mark.parametrize("fault", ["missing-suffix", "lamp-dead"])
def test_a_reading_that_does_not_end_well_is_none(fault: str) -> None:
    async def story() -> None:
        slot = SLOTS["scanner-line"]()
        async with Bench(slot) as bench:
            await bench.until_state("scanner", "online")
            bench.terminal.set("scanner", fault)
            assert (await result_of(bench, "scanner", act=True))[0] == "device"

    in_virtual_time(story())


@pytest.mark.parametrize(
    ("slot", "tests"),
    [
        (Slot("receipt-printer", EscposPrinter(usb=USB_SNBC, maker="SNBC"), "usb", "1-1.2", "1-1.2"), {"query", "print"}),
        (Slot("id-reader", SdtReader(), "serial", "/dev/ttyUSB0", "1-1.3", adapter=CH340), {"query"}),
        (Slot("keypad", Keypad(), "input", "/dev/input/event4", "1-1.5"), {"query", "read"}),
    ],
    ids=lambda value: value.name if isinstance(value, Slot) else "",
)
def test_a_device_has_the_tests_that_it_can_do(slot: Slot, tests: set[str]) -> None:
    async def story() -> None:
        async with Bench(slot) as bench:
            await bench.until_state(slot.name, "online")
            able = {test for test in ("query", "print", "read", "beep") if bench.monitor.can_test(slot.name, test)}
            assert able >= tests
            for test in {"query", "print", "read", "beep"} - able:
                assert await bench.monitor.test(slot.name, test) == "unsupported"

    in_virtual_time(story())
