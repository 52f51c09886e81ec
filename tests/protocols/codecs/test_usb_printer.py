"""USB printer class: setup packets and answers of usbprint 1.1."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.canon.words import DeviceState, PaperState
from protocols.codecs import usb_printer
from protocols.errors import EncodeError, FrameError, ProtocolError
from tests.protocols.codecs.feeding import h


def test_requests() -> None:
    port = usb_printer.port_status_request(1)
    assert (port.request_type, port.request, port.value, port.index, port.length) == (0xA1, 0x01, 0, 1, 1)
    assert port.evidence == h("A1 01 00 00 01 00 01 00")
    identity = usb_printer.device_id_request(1, alternate=2)
    assert (identity.request_type, identity.request, identity.value, identity.index) == (0xA1, 0x00, 0, 0x0102)
    with pytest.raises(EncodeError):
        usb_printer.port_status_request(256)


@pytest.mark.parametrize(
    ("byte", "device", "paper", "conditions"),
    [
        (0x18, DeviceState.ONLINE, PaperState.FULL, ()),
        (0x38, DeviceState.ONLINE, PaperState.OUT, ("PAPER_OUT",)),
        (0x30, DeviceState.ONLINE, PaperState.OUT, ("PAPER_OUT",)),
        (0x10, DeviceState.HARDWARE_ERROR, PaperState.FULL, ("PRINT_ERROR",)),
        (0x08, DeviceState.OFFLINE, PaperState.FULL, ("OFFLINE",)),
    ],
)
def test_port_status(byte: int, device: DeviceState, paper: PaperState, conditions: tuple[str, ...]) -> None:
    reading = usb_printer.reading_of_port_status(bytes((byte,)))
    assert (reading.device, reading.paper, reading.conditions) == (device, paper, conditions)


def test_decisive_bits() -> None:
    assert [(hit.mask, hit.key) for hit in usb_printer.explain(b"", b"\x30")] == [
        (0x20, "usb_printer.paper_empty"),
        (0x08, "usb_printer.error"),
    ]
    assert usb_printer.explain(b"", b"\x18") == ()


def test_device_id() -> None:
    reply = h("00 32") + b"MFG:EPSON;CMD:ESC/POS;MDL:TM-T88V;CLS:PRINTER;"
    found = usb_printer.parse_device_id(reply)
    assert (found.manufacturer, found.model, found.commands, found.device_class) == ("EPSON", "TM-T88V", ("ESC/POS",), "PRINTER")
    assert not found.speaks_pjl


def test_a_length_that_is_wrong_is_survived() -> None:
    text = b"MFG:Lenovo;CMD:PJL,PCL,PCLXL;MDL:LJ2650DN;CLS:PRINTER;"
    for prefix in (h("00 00"), h("FF FF"), h("00 01"), (len(text) + 2).to_bytes(2, "big"), (len(text) + 2).to_bytes(2, "little")):
        found = usb_printer.parse_device_id(prefix + text)
        assert (found.model, found.speaks_pjl) == ("LJ2650DN", True)


def test_long_names_and_control_characters() -> None:
    found = usb_printer.parse_device_id(b"\x00\x40MANUFACTURER:H\x00P;MODEL:X ;COMMAND SET:PJL, ZJS ;SERN:A1")
    assert (found.manufacturer, found.model, found.commands, found.serial) == ("H?P", "X", ("PJL", "ZJS"), "A1")


@pytest.mark.parametrize("reply", [b"", b"\x00", b"\x00\x02", b"\x00\x06abcd", b"\xff" * 64])
def test_no_device_id(reply: bytes) -> None:
    with pytest.raises(FrameError):
        usb_printer.parse_device_id(reply)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(reply: bytes) -> None:
    for parse in (usb_printer.parse_device_id, usb_printer.reading_of_port_status):
        with contextlib.suppress(ProtocolError):
            parse(reply)
    for hit in usb_printer.explain(b"", reply):
        assert hit.offset < len(reply)
