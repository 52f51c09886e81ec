"""USB printer class requests: identity string and port status byte (usbprint 1.1, sections 4.2.1 and 4.2.2). Opens nothing.

The port status is a hint, not a state: inexpensive controllers answer with a constant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protocols.canon.words import DeviceState, PaperState
from protocols.codecs.common import Explanation, PrinterReading
from protocols.errors import EncodeError, FrameError

CODEC = "usb_printer"
DEVICE_ID_MAX_BYTES = 1023
"""Length asked for; the answer says in its first two bytes how long it would be."""
_TWO_WAY = 0xA1


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """Arguments of one control-in transfer; `evidence` is its 8-byte setup packet."""

    request_type: int
    request: int
    value: int
    index: int
    length: int

    @property
    def evidence(self) -> bytes:
        words = (self.value, self.index, self.length)
        return bytes((self.request_type, self.request)) + b"".join(word.to_bytes(2, "little") for word in words)


@dataclass(frozen=True, slots=True)
class PortStatus:
    """The status byte, read as the class says."""

    status: int
    paper_empty: bool
    selected: bool
    no_error: bool


@dataclass(frozen=True, slots=True)
class DeviceId:
    """IEEE 1284 identity. Keys are upper-cased and short names expanded; values are the maker's text."""

    manufacturer: str
    model: str
    commands: tuple[str, ...]
    device_class: str
    serial: str

    @property
    def speaks_pjl(self) -> bool:
        return "PJL" in (command.upper() for command in self.commands)


def port_status_request(interface: int) -> ControlRequest:
    """GET_PORT_STATUS: one byte."""
    return ControlRequest(_TWO_WAY, 0x01, 0, _byte(interface), 1)


def device_id_request(interface: int, *, alternate: int = 0, configuration_index: int = 0) -> ControlRequest:
    """GET_DEVICE_ID; `configuration_index` counts from 0, unlike the configuration's value."""
    return ControlRequest(
        _TWO_WAY, 0x00, _byte(configuration_index), _byte(interface) << 8 | _byte(alternate), DEVICE_ID_MAX_BYTES
    )


def parse_port_status(reply: bytes) -> PortStatus:
    """FrameError unless the answer is one byte."""
    if len(reply) != 1:
        raise FrameError(f"a port status has 1 byte, not {len(reply)}", evidence=reply[:8])
    status = reply[0]
    return PortStatus(status, paper_empty=bool(status & 0x20), selected=bool(status & 0x10), no_error=bool(status & 0x08))


def reading_of_port_status(reply: bytes) -> PrinterReading:
    """Canonical state of a printer that shows nothing but its port status; cover and toner stay unknown or unsupported."""
    port = parse_port_status(reply)
    conditions: list[str] = []
    if port.paper_empty:
        conditions.append("PAPER_OUT")
    elif not port.no_error:
        conditions.append("PRINT_ERROR")
    elif not port.selected:
        conditions.append("OFFLINE")
    device = DeviceState.ONLINE
    if "PRINT_ERROR" in conditions:
        device = DeviceState.HARDWARE_ERROR
    elif "OFFLINE" in conditions:
        device = DeviceState.OFFLINE
    return PrinterReading(
        device=device,
        paper=PaperState.OUT if port.paper_empty else PaperState.FULL,
        conditions=tuple(conditions),
        explanations=explain(b"", reply),
    )


def parse_device_id(reply: bytes) -> DeviceId:
    """The identity string. Its length bytes are big-endian and count themselves; units that get this wrong are still read.

    FrameError when there is no `KEY:value;` text in it.
    """
    if len(reply) < 2:
        raise FrameError(f"a device id has at least 2 bytes, not {len(reply)}", evidence=reply)
    promised = int.from_bytes(reply[:2], "big")
    text = reply[2 : max(2, min(promised, len(reply)))] if 2 < promised <= len(reply) else reply[2:]
    fields: dict[str, str] = {}
    for part in text.decode("ascii", "replace").split(";"):
        key, colon, value = part.partition(":")
        if colon and key.strip():
            fields.setdefault(key.strip().upper(), _clean(value))
    if not fields:
        raise FrameError("a device id without KEY:value; fields", evidence=reply[:32], retryable=False)
    commands = fields.get("CMD", fields.get("COMMAND SET", ""))
    return DeviceId(
        manufacturer=fields.get("MFG", fields.get("MANUFACTURER", "")),
        model=fields.get("MDL", fields.get("MODEL", "")),
        commands=tuple(command.strip() for command in commands.split(",") if command.strip()),
        device_class=fields.get("CLS", fields.get("CLASS", "")),
        serial=fields.get("SN", fields.get("SERN", fields.get("SERIALNUMBER", ""))),
    )


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """Decisive bits of a port status byte; an absent `selected` or `no error` bit decides as well."""
    if len(reply) != 1:
        return ()
    found = []
    if reply[0] & 0x20:
        found.append(Explanation(0, 0x20, "usb_printer.paper_empty"))
    if not reply[0] & 0x08:
        found.append(Explanation(0, 0x08, "usb_printer.error"))
    if not reply[0] & 0x10:
        found.append(Explanation(0, 0x10, "usb_printer.not_selected"))
    return tuple(found)


def _clean(value: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", value).strip()[:96]


def _byte(value: int) -> int:
    if not 0 <= value <= 0xFF:
        raise EncodeError(f"{value} is not a byte")
    return value
