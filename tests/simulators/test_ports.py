"""The same models behind a pty with pyserial, behind pyusb, and behind in-memory pipes that have the agent's port shapes."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
import usb.core
import usb.util

from edge_agent.transports import base
from edge_agent.transports.serial import LineSetting, open_serial
from edge_agent.transports.usb import BackendDiscoverer, UsbSetting, open_usb
from simulators.models.escpos import USB_POS58, USB_TM_T88V, EscposPrinter
from simulators.models.keys import EvaluatorPad
from simulators.models.laser import LaserPrinter
from simulators.models.sdt import USB_SPLIT, SdtReader
from simulators.ports.pipe import InputEvent, PipeDiscoverer, PipeKeyPort, PipeOpener, PipePort, PipeUsbPort, PortKit
from simulators.ports.pty import AsyncPty, PtyLine, ThreadPty
from simulators.ports.slots import CH340, Slot
from simulators.ports.usb_backend import SimulatedUsbBackend
from simulators.terminal import VirtualTerminal, build_terminal
from tests.support.waiting import wait_until

STATUS = bytes.fromhex("aaaaaa9669000311ffed")
ANSWER = bytes.fromhex("aaaaaa9669000400009094")
KIT = PortKit.of(base)


class TestPty:
    @pytest.fixture
    def printer(self) -> EscposPrinter:
        return EscposPrinter(baud=9600)

    @pytest.fixture
    def link(self, tmp_path: Path, printer: EscposPrinter) -> Iterator[Path]:
        path = tmp_path / "receipt-printer"
        with ThreadPty(printer, path):
            yield path
        assert not path.is_symlink()

    def test_round_trips_with_pyserial(self, printer: EscposPrinter, link: Path) -> None:
        with serial.Serial(str(link), 9600, timeout=5) as line:
            for fault, answer in ((None, b"\x12"), ("paper-out", b"\x7e")):
                if fault:
                    printer.set(fault, time.monotonic())
                line.write(b"\x10\x04\x04")
                assert line.read(1) == answer

    def test_unsolicited_status(self, printer: EscposPrinter, link: Path) -> None:
        with serial.Serial(str(link), 9600, timeout=5) as line:
            line.write(b"\x1d\x61\x0e")
            assert line.read(4) == bytes.fromhex("1000000f")
            printer.set("cover-open", time.monotonic())
            assert line.read(4) == bytes.fromhex("3800000f")

    def test_wrong_speed_is_garbage_both_ways(self, printer: EscposPrinter, link: Path) -> None:
        with serial.Serial(str(link), 115200, timeout=0.3) as line:
            line.write(b"\x10\x04\x04")
            assert line.read(1) == b"", "the printer understood nothing"
            printer.act("print", time.monotonic(), "1")
            line.baudrate = 9600
            line.write(b"\x10\x04\x04")
            line.timeout = 5
            assert line.read(1) == b"\x12"

    def test_parity_is_accepted_at_every_open(self, link: Path) -> None:
        for _ in range(3):
            with serial.Serial(str(link), 9600, parity=serial.PARITY_EVEN, timeout=5) as line:
                line.write(b"\x10\x04\x01")
                assert line.read(1) == b"\x12"
            wait_until(lambda: _speed_of(link) == 50, "the line to be reset after the close")

    def test_unplug_removes_the_tty_and_replug_brings_it_back(self, printer: EscposPrinter, link: Path) -> None:
        line = serial.Serial(str(link), 9600, timeout=0.2)
        printer.unplug(time.monotonic())
        wait_until(lambda: not link.is_symlink(), "the link to go")
        with pytest.raises((serial.SerialException, OSError)):
            _talk_for_a_while(line)
        line.close()
        printer.replug(time.monotonic())
        wait_until(link.is_symlink, "the link to come back")
        with serial.Serial(str(link), 9600, timeout=5) as again:
            again.write(b"\x10\x04\x04")
            assert again.read(1) == b"\x12"

    async def test_in_use_is_seen_by_the_agents_transport(self, tmp_path: Path) -> None:
        printer = EscposPrinter(baud=9600)
        pty = AsyncPty(printer, tmp_path / "printer")
        try:
            printer.set("in-use", time.monotonic())
            await asyncio.sleep(0)
            with pytest.raises(base.PortBusy):
                await open_serial(str(tmp_path / "printer"), LineSetting(baud=9600))
            printer.clear("in-use", time.monotonic())
            await asyncio.sleep(0)
            port = await open_serial(str(tmp_path / "printer"), LineSetting(baud=9600))
            await port.write(b"\x10\x04\x04", timeout_s=1)
            assert await port.read(max_bytes=8, timeout_s=5) == b"\x12"
            await port.close()
        finally:
            pty.close()

    def test_a_pty_without_a_client_lets_its_driver_sleep(self, printer: EscposPrinter, tmp_path: Path) -> None:
        """A master without an open slave is hung up all the time; whoever waits for it must not spin."""
        line = PtyLine(printer, tmp_path / "printer")
        line.service()
        with serial.Serial(str(line.link), 9600, timeout=5) as client:
            client.write(b"\x10\x04\x04")
            wait_until(lambda: line.service() is None and client.in_waiting == 1, "the answer")
        line.service()
        poll = select.poll()
        poll.register(line.fileno(), select.POLLIN)
        assert poll.poll(50) == []
        line.close()


def _talk_for_a_while(line: Any) -> None:
    for _ in range(50):
        line.write(b"\x10\x04\x04")
        line.read(1)


def _speed_of(link: Path) -> int:
    fd = os.open(link, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        return {termios.B50: 50, termios.B9600: 9600}.get(termios.tcgetattr(fd)[5], -1)
    finally:
        os.close(fd)


class TestPyusb:
    def find(self, backend: SimulatedUsbBackend, vid: int) -> Any:
        device = usb.core.find(idVendor=vid, backend=backend)
        assert device is not None
        return device

    def claimed(self, backend: SimulatedUsbBackend, vid: int) -> Any:
        device = self.find(backend, vid)
        if device.is_kernel_driver_active(0):
            device.detach_kernel_driver(0)
        usb.util.claim_interface(device, 0)
        return device

    def test_descriptors_and_strings(self) -> None:
        backend = SimulatedUsbBackend()
        backend.attach(EscposPrinter(usb=USB_TM_T88V), port_numbers=(1, 4))
        device = self.find(backend, 0x04B8)
        assert (device.manufacturer, device.product, device.serial_number) == ("EPSON", "TM-T88V", "J1QF000000")
        assert device.port_numbers == (1, 4)
        interface = device.get_active_configuration()[(0, 0)]
        assert (interface.bInterfaceClass, interface.bInterfaceSubClass, interface.bInterfaceProtocol) == (7, 1, 2)
        assert [endpoint.bEndpointAddress for endpoint in interface] == [0x01, 0x82]
        assert "EPSON" in str(device) or device.bNumConfigurations == 1
        assert usb.core.find(idVendor=0x1234, backend=backend) is None

    def test_kernel_driver_must_be_detached_first(self) -> None:
        backend = SimulatedUsbBackend()
        backend.attach(EscposPrinter(usb=USB_POS58))
        device = self.find(backend, 0x0416)
        with pytest.raises(usb.core.USBError) as refused:
            usb.util.claim_interface(device, 0)
        assert refused.value.errno == errno.EBUSY
        assert self.claimed(backend, 0x0416).ctrl_transfer(0xA1, 1, 0, 0, 1).tobytes() == b"\x18"

    def test_bulk_status_timeout_and_halt(self) -> None:
        printer = LaserPrinter(chinese=False)
        backend = SimulatedUsbBackend()
        backend.attach(printer)
        device = self.claimed(backend, 0x17EF)
        with pytest.raises(usb.core.USBTimeoutError) as late:
            device.read(0x82, 64, timeout=20)
        assert late.value.errno == errno.ETIMEDOUT
        device.write(0x01, b"\x1b%-12345X@PJL INFO PAGECOUNT\r\n\x1b%-12345X")
        assert device.read(0x82, 512, timeout=2000).tobytes() == b"@PJL INFO PAGECOUNT\r\n1204\r\n\x0c"
        printer.set("usb-halt", time.monotonic())
        with pytest.raises(usb.core.USBError) as halted:
            device.write(0x01, b"x")
        assert halted.value.errno == errno.EPIPE
        device.clear_halt(0x01)
        assert device.write(0x01, b"x") == 1

    def test_short_buffer_overflows(self) -> None:
        printer = EscposPrinter(usb=USB_POS58)
        backend = SimulatedUsbBackend()
        backend.attach(printer)
        device = self.claimed(backend, 0x0416)
        device.write(0x01, b"\x1d\x61\x0e")
        with pytest.raises(usb.core.USBError) as overflow:
            device.read(0x81, 1, timeout=2000)
        assert overflow.value.errno == errno.EOVERFLOW

    def test_unplug_and_replug_under_a_new_address(self) -> None:
        reader = SdtReader(usb=USB_SPLIT)
        backend = SimulatedUsbBackend()
        backend.attach(reader)
        device = self.claimed(backend, 0x0400)
        address = device.address
        reader.unplug(time.monotonic())
        with pytest.raises(usb.core.USBError) as gone:
            device.write(0x02, b"x")
        assert gone.value.errno == errno.ENODEV
        assert usb.core.find(idVendor=0x0400, backend=backend) is None
        reader.replug(time.monotonic())
        with pytest.raises(usb.core.USBError):
            device.write(0x02, b"x")
        again = self.claimed(backend, 0x0400)
        assert again.address != address
        again.write(0x02, STATUS[:7])
        again.write(0x06, STATUS[7:])
        assert again.read(0x81, 64, timeout=2000).tobytes() + again.read(0x85, 64, timeout=2000).tobytes() == ANSWER

    async def test_the_agents_usb_transport_runs_on_it(self) -> None:
        terminal = build_terminal("kiosk", seed=2)
        backend = SimulatedUsbBackend(list(terminal.slots.values()))
        discoverer = BackendDiscoverer(backend, every_s=0.01)
        found = {sighting.place: sighting for sighting in discoverer.sightings()}
        slot = terminal.slots["laser-printer"]
        port = await open_usb(found[slot.place], UsbSetting(detach_kernel_driver=True), backend=backend)
        await port.write(b"\x1b%-12345X@PJL INFO STATUS\r\n\x1b%-12345X", timeout_s=1)
        assert b"CODE=10001" in await port.read(max_bytes=999, timeout_s=5)
        terminal.set("laser-printer", "unplug")
        with pytest.raises(base.PortGone):
            await port.write(b"x", timeout_s=1)
        await discoverer.changes()
        assert slot.place not in {sighting.place for sighting in discoverer.sightings()}
        await port.close()


class TestPipes:
    def slot(self, model: Any, bus: Any = "serial", **more: Any) -> Slot:
        return Slot("device", model, bus, "/dev/ttyUSB0" if bus == "serial" else "1-1.2", "1-1.2", **more)

    async def open(self, slot: Slot, profile: object = None) -> Any:
        sightings = PipeDiscoverer([slot], KIT).sightings()
        assert isinstance(sightings[0], base.Sighting)
        return await PipeOpener([slot], KIT).open(sightings[0], profile)

    async def test_shapes(self) -> None:
        serial_port = await self.open(self.slot(SdtReader(), adapter=CH340))
        usb_port = await self.open(self.slot(SdtReader(usb=USB_SPLIT), "usb"))
        key_port = await self.open(self.slot(EvaluatorPad(), "input"))
        assert isinstance(serial_port, PipePort)
        assert isinstance(serial_port, base.SpeedPort)
        assert isinstance(usb_port, PipeUsbPort)
        assert isinstance(usb_port, base.UsbPort)
        assert isinstance(key_port, PipeKeyPort)
        assert isinstance(key_port, base.KeyPort)
        for port in (serial_port, usb_port, key_port):
            await port.close()

    async def test_serial_round_trip_speed_and_timeout(self) -> None:
        port = await self.open(self.slot(SdtReader(), adapter=CH340))
        await port.write(STATUS, timeout_s=1)
        assert await port.read(max_bytes=99, timeout_s=5) == ANSWER
        assert await port.read(max_bytes=99, timeout_s=0.01) == b""
        await port.set_baud(9600)
        await port.write(STATUS, timeout_s=1)
        assert await port.read(max_bytes=99, timeout_s=0.05) == b""
        await port.set_baud(115200)
        await port.write(STATUS, timeout_s=1)
        assert await port.read(max_bytes=99, timeout_s=5) == ANSWER
        await port.close()

    async def test_one_holder_at_a_time(self) -> None:
        slot = self.slot(SdtReader(), adapter=CH340)
        port = await self.open(slot)
        with pytest.raises(base.PortBusy):
            await self.open(slot)
        await port.close()
        again = await self.open(slot)
        await again.close()
        slot.model.set("in-use", time.monotonic())
        with pytest.raises(base.PortBusy):
            await self.open(slot)

    async def test_a_waiting_read_sees_news_and_unplug(self) -> None:
        printer = EscposPrinter(usb=USB_POS58)
        port = await self.open(self.slot(printer, "usb"))
        await port.write(b"\x1d\x61\x0e", timeout_s=1)
        assert await port.read(max_bytes=64, timeout_s=5) == bytes.fromhex("1000000f")
        waiting = asyncio.ensure_future(port.read(max_bytes=64, timeout_s=30))
        await asyncio.sleep(0)
        printer.set("paper-out", time.monotonic())
        assert await asyncio.wait_for(waiting, 5) == bytes.fromhex("18000f0f")
        waiting = asyncio.ensure_future(port.read(max_bytes=64, timeout_s=30))
        await asyncio.sleep(0)
        await asyncio.to_thread(printer.unplug, time.monotonic())
        with pytest.raises(base.PortGone):
            await asyncio.wait_for(waiting, 5)
        await port.close()

    async def test_usb_endpoints_control_and_halt(self) -> None:
        reader = SdtReader(usb=USB_SPLIT)
        port = await self.open(self.slot(reader, "usb"))
        assert (port.endpoints_out, port.endpoints_in) == ((0x02, 0x06), (0x81, 0x85))
        await port.write_to(0x02, STATUS[:7], timeout_s=1)
        await port.write_to(0x06, STATUS[7:], timeout_s=1)
        head = await port.read_from(0x81, max_bytes=64, timeout_s=5)
        assert head + await port.read_from(0x85, max_bytes=64, timeout_s=5) == ANSWER
        with pytest.raises(base.PortRefused):
            await port.read_from(0x83, max_bytes=64, timeout_s=1)
        with pytest.raises(base.PortStalled):
            await port.control_in(0xA1, 0, 0, 0, 64, timeout_s=1)
        reader.set("usb-halt", time.monotonic())
        with pytest.raises(base.PortStalled):
            await port.write_to(0x02, STATUS[:7], timeout_s=1)
        await port.write_to(0x02, STATUS[:7], timeout_s=1)
        await port.close()
        with pytest.raises(base.PortGone):
            await port.read(max_bytes=1, timeout_s=0)

    async def test_key_events(self) -> None:
        pad = EvaluatorPad()
        port = await self.open(self.slot(pad, "input"))
        pad.act("rate", time.monotonic(), "5")
        events = await port.read_events(timeout_s=5)
        assert isinstance(events[0], base.InputEvent)
        assert [event.code for event in events if event.type == 1] == [2]
        assert await port.pressed_keys() == frozenset({2})
        assert repr(InputEvent(1, 2, 1, 6, 1)) == "InputEvent(type=1)"
        await port.close()

    async def test_discoverer_wakes_on_plug_and_mode_switch(self) -> None:
        terminal = build_terminal("desk", seed=1)
        discoverer = terminal.discoverer(KIT)
        before = discoverer.sightings()
        assert len(before) == len(terminal.slots)
        for device, fault in (("id-reader", "unplug"), ("scanner", "mode-switched")):
            waiting = asyncio.ensure_future(discoverer.changes())
            await asyncio.sleep(0)
            assert not waiting.done()
            terminal.set(device, fault)
            await asyncio.wait_for(waiting, 5)
            discoverer.sightings()
        after = {sighting.usb_path: sighting for sighting in discoverer.sightings()}
        assert terminal.slots["id-reader"].place not in after
        switched = after[terminal.slots["scanner"].usb_path]
        assert (switched.bus, switched.pid) == ("serial", 0x1D06)
        with pytest.raises(base.PortRefused):
            await terminal.opener(KIT).open(switched, None)

    async def test_a_fleet_in_one_loop(self) -> None:
        """400 terminals, one device each polled at the same time: no descriptors, no tasks of the simulator's own, and quick."""
        terminals = [build_terminal("kiosk", seed=seed) for seed in range(400)]

        async def poll(terminal: VirtualTerminal) -> bytes:
            place = terminal.slots["receipt-printer"].place
            sighting = next(s for s in terminal.discoverer(KIT).sightings() if s.usb_path == place)
            port: Any = await terminal.opener(KIT).open(sighting, None)
            await port.write(b"\x10\x04\x01", timeout_s=1)
            answer: bytes = await port.read(max_bytes=9, timeout_s=20)
            await port.close()
            return answer

        started = time.process_time()
        answers = await asyncio.gather(*(poll(terminal) for terminal in terminals))
        assert set(answers) == {b"\x12"}
        assert time.process_time() - started < 5.0
