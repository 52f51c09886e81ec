"""Device models on the wire of USB/IP, asked by the package's own client: what `make vm` plugs into a kernel."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from usbip import core, host

from simulators.models.base import Model
from simulators.models.keys import Keypad
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.scanner import USB_NEWLAND_CDC, SerialScanner
from simulators.models.sdt import USB_SPLIT, SdtReader
from simulators.ports.usb_raw import RawDevice
from simulators.ports.usbip import UsbIpServer

FIND, NO_CARD = bytes.fromhex("aaaaaa96690003200122"), bytes.fromhex("aaaaaa9669000400008084")


class Bus:
    def __init__(self, parts: ExitStack) -> None:
        self._parts = parts
        self.models: dict[str, Model] = {
            "1-1": SdtReader(usb=USB_SPLIT),
            "1-2": LaserPrinter(),
            "1-3": Keypad(),
            "1-4": SerialScanner(rs232=False),
        }
        identities = {"1-1": USB_SPLIT, "1-2": USB_LJ2650, "1-3": self.models["1-3"].usb, "1-4": USB_NEWLAND_CDC}
        self.raws = {
            busid: RawDevice(model, identity, time.monotonic, on_line=busid == "1-4")
            for busid, model in self.models.items()
            if (identity := identities[busid]) is not None
        }
        self.server = UsbIpServer(self.raws)
        self.port = self.server.start()
        parts.callback(self.server.close)

    def attach(self, busid: str) -> host.Connection:
        connection = host.Connection(socket.create_connection(("127.0.0.1", self.port), timeout=5))
        self._parts.callback(connection.close)
        connection.import_device(busid)
        return connection


@pytest.fixture
def bus() -> Iterator[Bus]:
    with ExitStack() as parts:
        yield Bus(parts)


def test_an_id_reader_answers_on_its_four_pipes(bus: Bus) -> None:
    wire = bus.attach("1-1")
    wire.transfer_out(0x02, FIND[:7])
    wire.transfer_out(0x06, FIND[7:])
    assert bytes(wire.transfer_in(0x01, 64)) + bytes(wire.transfer_in(0x05, 64)) == NO_CARD


def test_descriptors_strings_and_class_requests(bus: Bus) -> None:
    wire = bus.attach("1-2")
    device = bytes(wire.control(0x80, 6, 0x0100, 0, 18))
    assert device[8:12] == bytes.fromhex("ef175056")
    whole = bytes(wire.control(0x80, 6, 0x0200, 0, 255))
    assert len(whole) == int.from_bytes(whole[2:4], "little") == 32
    assert bytes(wire.control(0x80, 6, 0x0302, 0x0409, 255))[2:].decode("utf-16-le") == "LJ2650DN"
    assert bytes(wire.control(0xA1, 1, 0, 0, 1)) == b"\x18"
    with pytest.raises(core.USBError):
        wire.control(0xC0, 0x42, 0, 0, 8)


def test_a_stalled_pipe_until_its_halt_is_cleared(bus: Bus) -> None:
    wire = bus.attach("1-1")
    bus.models["1-1"].set("usb-halt", time.monotonic())
    with pytest.raises(core.USBError):
        wire.transfer_out(0x02, FIND[:7])
    wire.control(0x02, 1, 0, 0x02, b"")
    wire.transfer_out(0x02, FIND[:7])


def test_keys_are_boot_reports(bus: Bus) -> None:
    wire = bus.attach("1-3")
    bus.models["1-3"].act("press", time.monotonic(), "5")
    assert [bytes(wire.transfer_in(0x01, 8)).hex() for _ in range(2)] == ["00005d0000000000", "0000000000000000"]


def test_a_line_takes_parity_and_answers(bus: Bus) -> None:
    wire = bus.attach("1-4")
    wire.control(0x21, 0x20, 0, 0, bytes.fromhex("80250000000208"))
    assert bytes(wire.control(0xA1, 0x21, 0, 0, 7)).hex() == "80250000000208"
    assert bus.raws["1-4"].line_baud == 9600
    wire.transfer_out(0x02, b"~\x010000#QRYSYS*;\x03")
    assert bytes(wire.transfer_in(0x02, 64)).startswith(b"\x02\x010000#QRYSYS")


def test_an_unplugged_device_drops_its_connection_and_can_be_attached_again(bus: Bus) -> None:
    wire = bus.attach("1-1")
    bus.models["1-1"].unplug(time.monotonic())
    with pytest.raises((core.USBError, OSError)):
        wire.transfer_in(0x01, 64)
    with pytest.raises((core.USBError, OSError)):
        bus.attach("1-1")
    bus.attach("1-2")
    bus.models["1-1"].replug(time.monotonic())
    wire = bus.attach("1-1")
    wire.transfer_out(0x02, FIND[:7])
    wire.transfer_out(0x06, FIND[7:])
    assert bytes(wire.transfer_in(0x01, 64)) + bytes(wire.transfer_in(0x05, 64)) == NO_CARD
