"""The whole device side over real transports: pseudo terminals through pyserial, a USB bus through pyusb, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_agent.clock import SystemClock
from edge_agent.config import DeviceEntry
from edge_agent.monitor import Monitor
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.serial import LineSetting, open_serial
from edge_agent.transports.udev import UdevDiscoverer
from edge_agent.transports.usb import BackendDiscoverer, _system_backend
from protocols.canon.words import MediaState, SuggestedAction
from protocols.contract.records import Device, Fault, Queue
from simulators.models.callpad import CallPadBus
from simulators.models.ccid import USB_R502, CcidReader
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, SdtReader
from simulators.ports.pty import AsyncPty
from simulators.ports.slots import Slot
from simulators.ports.usb_backend import SimulatedUsbBackend
from tests.edge_agent.devices.bench import PROFILES, Memory, Records


@contextlib.asynccontextmanager
async def watching(
    entries: Sequence[DeviceEntry], discoverer: Any, opener: SystemOpener
) -> AsyncIterator[tuple[Monitor, Records]]:
    records, numbers = Records(), itertools.count(1)
    monitor = Monitor(
        clock=SystemClock(),
        discoverer=discoverer,
        opener=opener,
        recorder=records,
        store=Memory(),
        profiles=PROFILES,
        inventory=entries,
        new_id=lambda: next(numbers).to_bytes(8, "big"),
        rng=random.Random(1),
    )
    task = asyncio.create_task(monitor.run())
    try:
        yield monitor, records
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


def states(monitor: Monitor) -> dict[str, str]:
    return {view.slot: view.state.device.value for view in monitor.slot_views() if view.state}


async def test_a_terminal_on_pseudo_terminals(tmp_path: Path) -> None:
    """The temporary folder stands for /dev: names that stay, lines that come and go."""
    models = {
        "printer": EscposPrinter(),
        "reader": SdtReader(),
        "scanner": SerialScanner(),
        "pads": CallPadBus(addresses=(1, 2)),
        "sensors": ModbusBus(ClimateModule(1), DoorModule(2)),
    }
    lines = {name: AsyncPty(model, tmp_path / name) for name, model in models.items()}
    place = {name: str(tmp_path / name) for name in models}

    def entry(slot: str, family: str, line: str, profile: str, address: int | None = None) -> DeviceEntry:
        return DeviceEntry(slot=slot, family=family, port=place[line], profile=profile, address=address)

    entries = [
        entry("receipt-printer", "receipt-printer", "printer", "receipt-printer-serial"),
        entry("id-reader", "id-reader", "reader", "sdt-serial"),
        entry("scanner", "scanner", "scanner", "newland-uart"),
        entry("call-pad-1", "call-pad", "pads", "call-pad-ft12", 1),
        entry("call-pad-2", "call-pad", "pads", "call-pad-ft12", 2),
        entry("climate", "climate", "sensors", "xy-md02", 1),
        entry("door", "contacts", "sensors", "di-module-8", 2),
    ]
    discoverer = UdevDiscoverer(place.values(), extra_every_s=0.05)
    now = asyncio.get_running_loop().time
    async with watching(entries, discoverer, SystemOpener()) as (monitor, records):
        await until(lambda: states(monitor) == dict.fromkeys((entry.slot for entry in entries), "online"))
        assert records.of(Fault) == []

        models["printer"].set("paper-out", now())
        await until(lambda: "PRN.PAPER_OUT" in records.open_codes())
        models["pads"].units["2"].act("call-next", now())
        await until(lambda: [key.slot for key in records.of(Queue)] == ["call-pad-2"])
        models["reader"].unplug(now())
        await until(lambda: "IDR.UNPLUGGED" in records.open_codes())
        models["reader"].replug(now())
        await until(lambda: states(monitor)["id-reader"] == "online")
        assert records.of(Device, "id-reader")[-1].asset == "05.01-20120101-0012345678-0087654321"
    for line in lines.values():
        line.close()


async def test_a_reader_at_another_speed_is_found(tmp_path: Path) -> None:
    reader = SdtReader()
    line = AsyncPty(reader, tmp_path / "reader")
    reader.set("wrong-baud", asyncio.get_running_loop().time())
    entries = [DeviceEntry(slot="id-reader", family="id-reader", port=str(tmp_path / "reader"), profile="sdt-serial")]
    async with watching(entries, UdevDiscoverer([str(tmp_path / "reader")]), SystemOpener()) as (monitor, _):
        await until(lambda: states(monitor).get("id-reader") == "online")
    line.close()


async def test_a_line_that_the_system_will_not_set(tmp_path: Path) -> None:
    """What is opened there takes no line setting: pyserial's own error, at the agent's door, under its code."""
    printer = EscposPrinter()
    line = AsyncPty(printer, tmp_path / "printer")
    printer.set("refused", asyncio.get_running_loop().time())
    place = str(tmp_path / "printer")
    entries = [DeviceEntry(slot="receipt-printer", family="receipt-printer", port=place, profile="receipt-printer-serial")]
    async with watching(entries, UdevDiscoverer([place], extra_every_s=0.05), SystemOpener()) as (monitor, records):
        await until(lambda: records.open_codes() == {"PRN.OPEN_FAIL"})
        assert {view.state.action for view in monitor.slot_views() if view.state} == {SuggestedAction.CONFIGURATION}
        printer.clear("refused", asyncio.get_running_loop().time())
        await until(lambda: states(monitor) == {"receipt-printer": "online"} and not records.open_codes())
    line.close()


async def test_parity_that_a_line_cannot_do() -> None:
    """A bare pseudo terminal takes parity once in silence, then glibc says EINVAL: a termios.error, neither OSError nor SerialException."""
    master, slave = os.openpty()
    path = os.ttyname(slave)
    try:
        first = await open_serial(path, LineSetting(parity="even"))
        await first.close()
        entries = [DeviceEntry(slot="call-pad-1", family="call-pad", port=path, profile="call-pad-ft12-bare", address=1)]
        async with watching(entries, UdevDiscoverer([path], extra_every_s=0.05), SystemOpener()) as (monitor, records):
            await until(lambda: records.open_codes() == {"CAL.NO_REPLY"})
            assert {view.state.action for view in monitor.slot_views() if view.state} == {SuggestedAction.CONFIGURATION}
    finally:
        os.close(slave)
        os.close(master)


async def test_a_machine_without_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel shows the printer, no library is there to open it: pyusb's own error, under its code; another device works on."""
    for module in ("libusb1", "libusb0", "openusb"):
        monkeypatch.setattr(f"usb.backend.{module}.get_backend", lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "libusb_package", None)
    monkeypatch.setattr("edge_agent.transports.usb._system_backend", _system_backend.__wrapped__)
    backend = SimulatedUsbBackend(
        [Slot("receipt-printer", EscposPrinter(usb=USB_SNBC), "usb", "1-1.2", "1-1.2")], clock=asyncio.get_running_loop().time
    )
    entries = [DeviceEntry(slot="receipt-printer", family="receipt-printer", port="1-1.2")]
    async with watching(entries, BackendDiscoverer(backend, every_s=0.05), SystemOpener()) as (monitor, records):
        await until(lambda: records.open_codes() == {"PRN.OPEN_FAIL"})
        assert {view.state.action for view in monitor.slot_views() if view.state} == {SuggestedAction.CONFIGURATION}


async def test_a_terminal_on_usb() -> None:
    printer = EscposPrinter(usb=USB_SNBC)
    slots = [
        Slot("receipt-printer", printer, "usb", "1-1.2", "1-1.2"),
        Slot("id-reader", SdtReader(usb=USB_SPLIT), "usb", "1-1.3", "1-1.3"),
        Slot("other-reader", SdtReader(usb=USB_WHOLE), "usb", "1-1.4", "1-1.4"),
    ]
    backend = SimulatedUsbBackend(slots, clock=asyncio.get_running_loop().time)
    entries = [
        DeviceEntry(slot="receipt-printer", family="receipt-printer", port="1-1.2"),
        DeviceEntry(slot="id-reader", family="id-reader", port="1-1.3"),
        DeviceEntry(slot="other-reader", family="id-reader", port="1-1.4"),
    ]
    now = asyncio.get_running_loop().time
    async with watching(entries, BackendDiscoverer(backend, every_s=0.05), SystemOpener(usb_backend=backend)) as (
        monitor,
        records,
    ):
        await until(lambda: states(monitor) == dict.fromkeys((entry.slot for entry in entries), "online"))
        printer.set("cover-open", now())
        await until(lambda: "PRN.COVER_OPEN" in records.open_codes())
        printer.unplug(now())
        await until(lambda: "PRN.UNPLUGGED" in records.open_codes())
        assert records.open_codes() == {"PRN.COVER_OPEN", "PRN.UNPLUGGED"}
        printer.replug(now())
        await until(lambda: states(monitor)["receipt-printer"] == "userError")


async def test_a_smart_card_reader_on_usb() -> None:
    """A notice of the interrupt pipe while bulk pipes rest; a hang, and the reset that ends it."""
    reader = CcidReader(usb=USB_R502)
    backend = SimulatedUsbBackend([Slot("card-reader", reader, "usb", "1-1.2", "1-1.2")], clock=asyncio.get_running_loop().time)
    entries = [DeviceEntry(slot="card-reader", family="card-reader", port="1-1.2")]
    now = asyncio.get_running_loop().time
    async with watching(entries, BackendDiscoverer(backend, every_s=0.05), SystemOpener(usb_backend=backend)) as (
        monitor,
        records,
    ):
        await until(lambda: states(monitor) == {"card-reader": "online"})
        for action, media in (("insert-card", MediaState.PRESENT), ("remove-card", MediaState.NOT_PRESENT)):
            reader.act(action, now())
            await until(lambda media=media: records.of(Device)[-1].media is media)  # type: ignore[misc]
        assert records.of(Fault) == []
        reader.set("hang", now())
        desk = asyncio.create_task(monitor.test("card-reader", "query"))
        await until(lambda: "CRD.OPEN_FAIL" in records.open_codes())
        await until(lambda: states(monitor) == {"card-reader": "online"} and not records.open_codes())
        await desk
        assert reader.powered == [False]
