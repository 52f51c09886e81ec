from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import usb.core

from edge_agent.transports.base import PortBusy, PortGone, PortRefused, PortStalled, Sighting, UsbPort
from edge_agent.transports.usb import BackendDiscoverer, UsbSetting, default_backend, open_usb, usb_sightings
from simulators.models.base import Endpoint, UsbIdentity
from simulators.models.escpos import EscposPrinter
from simulators.models.sdt import USB_SPLIT, SdtReader
from simulators.ports.slots import Slot
from simulators.ports.usb_backend import SimulatedUsbBackend

PRINTER = UsbIdentity(0x0416, 0x5011, (Endpoint(0x03), Endpoint(0x82)), 7, 1, 2, "Generic", "POS80", kernel_driver="usblp")
PLACE = Sighting("usb", "1-1.4", 0x0416, 0x5011, usb_path="1-1.4")
OWNER = UsbSetting(detach_kernel_driver=True)


class Bus:
    def __init__(self) -> None:
        self.printer = EscposPrinter(usb=PRINTER)
        self.reader = SdtReader(usb=USB_SPLIT)
        self.backend = SimulatedUsbBackend(
            [
                Slot("receipt-printer", self.printer, "usb", "1-1.4", "1-1.4"),
                Slot("id-reader", self.reader, "usb", "1-1.2", "1-1.2"),
            ]
        )


@pytest.fixture
def bus() -> Bus:
    return Bus()


async def test_pipes_are_discovered_and_used(bus: Bus) -> None:
    port = await open_usb(PLACE, OWNER, backend=bus.backend)
    assert isinstance(port, UsbPort)
    assert (port.endpoints_out, port.endpoints_in) == ((0x03,), (0x82,))
    await port.write(b"\x10\x04\x01\x10\x04\x04", timeout_s=1)
    first = await port.read(max_bytes=1, timeout_s=1)
    second = await port.read(max_bytes=64, timeout_s=1)
    assert len(first) == len(second) == 1  # a packet that was larger than asked for is not lost
    assert await port.read(max_bytes=64, timeout_s=0.02) == b""
    await port.close()
    await port.close()


async def test_the_control_pipe_reads_the_port_status(bus: Bus) -> None:
    port = await open_usb(PLACE, OWNER, backend=bus.backend)
    assert await port.control_in(0xA1, 1, 0, 0, 1, timeout_s=1) == b"\x18"
    await port.close()


async def test_a_reader_with_four_pipes_shows_them_all(bus: Bus) -> None:
    port = await open_usb(Sighting("usb", "1-1.2", usb_path="1-1.2"), UsbSetting(), backend=bus.backend)
    assert (port.endpoints_out, port.endpoints_in) == ((0x02, 0x06), (0x81, 0x85))
    await port.write_to(0x02, bytes.fromhex("aaaaaa96690003"), timeout_s=1)
    await port.write_to(0x06, bytes.fromhex("11ffed"), timeout_s=1)
    assert await port.read_from(0x81, max_bytes=7, timeout_s=1) == bytes.fromhex("aaaaaa96690004")
    assert await port.read_from(0x85, max_bytes=64, timeout_s=1) == bytes.fromhex("00009094")
    await port.close()


async def test_the_kernel_driver_is_detached_for_an_owner_only_and_given_back(bus: Bus) -> None:
    with pytest.raises(PortBusy):
        await open_usb(PLACE, UsbSetting(), backend=bus.backend)
    port = await open_usb(PLACE, OWNER, backend=bus.backend)
    await port.close()
    with pytest.raises(PortBusy):
        await open_usb(PLACE, UsbSetting(), backend=bus.backend)


async def test_another_program_in_the_way_is_busy(bus: Bus) -> None:
    first = await open_usb(PLACE, OWNER, backend=bus.backend)
    with pytest.raises(PortBusy):
        await open_usb(PLACE, OWNER, backend=bus.backend)
    await first.close()


async def test_an_unplug_is_gone_on_the_next_transfer_and_a_replug_is_found_again(bus: Bus) -> None:
    port = await open_usb(PLACE, OWNER, backend=bus.backend)
    reading = asyncio.create_task(port.read(max_bytes=64, timeout_s=5))
    await asyncio.sleep(0.01)
    bus.printer.unplug(time.monotonic())
    with pytest.raises(PortGone):
        await reading
    with pytest.raises(PortGone):
        await port.write(b"\x10\x04\x01", timeout_s=1)
    await port.close()
    with pytest.raises(PortGone):
        await open_usb(PLACE, OWNER, backend=bus.backend)
    bus.printer.replug(time.monotonic())
    again = await open_usb(PLACE, OWNER, backend=bus.backend)
    await again.write(b"\x10\x04\x01", timeout_s=1)
    assert len(await again.read(max_bytes=8, timeout_s=1)) == 1
    await again.close()


async def test_a_stall_is_reported_and_its_halt_cleared(bus: Bus) -> None:
    port = await open_usb(PLACE, OWNER, backend=bus.backend)
    bus.printer.halted = True
    with pytest.raises(PortStalled):
        await port.write(b"\x10\x04\x01", timeout_s=1)
    await port.write(b"\x10\x04\x01", timeout_s=1)
    assert len(await port.read(max_bytes=8, timeout_s=1)) == 1
    await port.close()


async def test_a_place_with_another_device_is_not_taken_for_ours(bus: Bus) -> None:
    with pytest.raises(PortGone):
        await open_usb(Sighting("usb", "1-1.4", 0x04B8, 0x0202, usb_path="1-1.4"), OWNER, backend=bus.backend)


async def test_an_interface_that_is_not_there_is_refused(bus: Bus) -> None:
    with pytest.raises(PortRefused):
        await open_usb(PLACE, UsbSetting(interface=3), backend=bus.backend)


class _Failing(SimulatedUsbBackend):
    """Raises one errno from every bulk transfer."""

    number = errno.EIO

    def bulk_write(self, *arguments: Any) -> int:
        raise usb.core.USBError("broken", -1, self.number)

    def bulk_read(self, *arguments: Any) -> int:
        raise usb.core.USBError("broken", -1, self.number)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENODEV, PortGone),
        (errno.EIO, PortGone),
        (errno.EBUSY, PortBusy),
        (errno.EACCES, PortRefused),
        (errno.EPIPE, PortStalled),
        (errno.EOVERFLOW, PortStalled),
        (errno.ETIMEDOUT, PortStalled),
        (None, PortStalled),
    ],
)
async def test_every_errno_of_libusb_becomes_a_port_error(number: int | None, error: type[Exception]) -> None:
    backend = _Failing([Slot("receipt-printer", EscposPrinter(usb=PRINTER), "usb", "1-1.4", "1-1.4")])
    backend.number = number  # type: ignore[assignment]  # libusb1 leaves it None for errors without an errno
    port = await open_usb(PLACE, OWNER, backend=backend)
    with pytest.raises(error):
        await port.write(b"\x10\x04\x01", timeout_s=1)
    await port.close()


async def test_time_out_zero_is_never_passed_on(bus: Bus) -> None:
    port = await open_usb(PLACE, OWNER, backend=bus.backend)
    async with asyncio.timeout(5):
        assert await port.read(max_bytes=64, timeout_s=0) == b""
    await port.close()


async def test_enumeration_and_hot_plug_without_udev(bus: Bus) -> None:
    assert {sighting.usb_path for sighting in usb_sightings(bus.backend)} == {"1-1.4", "1-1.2"}
    discoverer = BackendDiscoverer(bus.backend, every_s=0.01)
    discoverer.sightings()
    waiting = asyncio.create_task(discoverer.changes())
    bus.printer.unplug(time.monotonic())
    async with asyncio.timeout(5):
        await waiting
    assert [sighting.usb_path for sighting in discoverer.sightings()] == ["1-1.2"]


@pytest.fixture(autouse=True)
def _no_thread_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    import threading

    yield
    deadline = time.monotonic() + 5
    while any(thread.name.startswith("usb-") for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "a USB worker outlived its port"
        time.sleep(0.01)


def test_all_ports_share_one_libusb() -> None:
    """A context of its own for each opening is freed before its devices are."""
    with ThreadPoolExecutor(4) as pool:
        backends = list(pool.map(lambda _: default_backend(), range(8)))
    assert len({id(backend) for backend in backends}) == 1
