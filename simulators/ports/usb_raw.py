"""A device model as USB sees it: descriptor bytes, standard requests, transfers. What stands behind usbfs (umockdev) and behind a wire (USB/IP).

A model with endpoints of its own is one interface; keyboards become HID boot keyboards, byte lines become CDC-ACM. Sources: USB 2.0 chapter 9, USB
HID 1.11 (7.2, appendix B), USB CDC PSTN 1.2. Nothing here waits: a transfer that has to wait is asked for again.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from simulators.models.base import Endpoint, Model, UsbIdentity
from simulators.models.keys import DOWN, EV_KEY, UP, KeyDevice, KeyEvent

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT = 1, 2, 3, 4, 5
HID, HID_REPORT, CS_INTERFACE = 0x21, 0x22, 0x24
GET_STATUS, CLEAR_FEATURE, SET_FEATURE, GET_DESCRIPTOR, GET_CONFIGURATION, SET_CONFIGURATION = 0, 1, 3, 6, 8, 9
GET_INTERFACE, SET_INTERFACE = 10, 11
HID_CLASS = 3
ENGLISH = 0x0409
HIGH_SPEED_PACKET = 512
ENDPOINT_HALT = 0

Refusal = Literal["stall", "mute"]
"""Why a request has no answer: the device refuses it, or does not answer at all."""

Lie = Literal[
    "short-configuration", "endless-configuration", "zero-length", "too-many-interfaces", "no-endpoints", "huge-endpoint"
]
"""How a descriptor may lie, for `RawDevice(lie=…)`."""


@dataclass(frozen=True)
class RawInterface:
    """One interface descriptor with what belongs to it."""

    triple: tuple[int, int, int]
    endpoints: tuple[Endpoint, ...]
    extra: bytes = b""
    """Class descriptors between the interface's and its endpoints'."""


@dataclass
class RawDevice:
    """A model on the bus. `on_line` makes a CDC-ACM device of a model that speaks over a byte line."""

    model: Model
    identity: UsbIdentity
    clock: Callable[[], float]
    on_line: bool = False
    lie: Lie | None = None
    line_baud: int | None = None
    """What the host set by SET_LINE_CODING."""
    line_coding: bytes = struct.pack("<IBBB", 9600, 0, 0, 8)
    configured: int = 1
    _strings: list[str] = field(default_factory=list)
    _events: deque[KeyEvent] = field(default_factory=deque)
    _report: bytearray = field(default_factory=lambda: bytearray(8))

    def __post_init__(self) -> None:
        self._strings = [text for text in (self.identity.manufacturer, self.identity.product, self.identity.serial) if text]

    # ------------------------------------------------------------------ what it is

    @property
    def is_keyboard(self) -> bool:
        return isinstance(self.model, KeyDevice)

    @property
    def interfaces(self) -> tuple[RawInterface, ...]:
        who = self.identity
        if self.is_keyboard:
            hid = struct.pack("<BBHBBBH", 9, HID, 0x0111, 0, 1, HID_REPORT, len(KEYBOARD_REPORT))
            return (RawInterface((3, 1, 1), (Endpoint(0x81, 8, 3),), hid),)
        if self.on_line:
            functional = b"\x05\x24\x00\x10\x01\x05\x24\x01\x00\x01\x04\x24\x02\x06\x05\x24\x06\x00\x01"
            return (
                RawInterface((2, 2, 1), (Endpoint(0x83, 16, 3),), functional),
                RawInterface((10, 0, 0), (Endpoint(LINE_OUT), Endpoint(LINE_IN))),
            )
        triple = (who.interface_class, who.interface_subclass, who.interface_protocol)
        extra = b"".join(who.class_descriptors)
        if who.interface_class == HID_CLASS and not extra:
            extra = struct.pack("<BBHBBBH", 9, HID, 0x0111, 0, 1, HID_REPORT, len(VENDOR_REPORT))
        return (RawInterface(triple, who.endpoints, extra),)

    @property
    def endpoints(self) -> Mapping[int, Endpoint]:
        return {endpoint.address: endpoint for interface in self.interfaces for endpoint in interface.endpoints}

    def device_descriptor(self) -> bytes:
        who = self.identity
        return struct.pack(
            "<BBHBBBBHHHBBBB",
            18, DEVICE, 0x0200, 2 if self.on_line else who.device_class, 0, 0, 64, who.vid, who.pid, who.bcd_device,
            self._index(who.manufacturer), self._index(who.product), self._index(who.serial), 1,
        )  # fmt: skip

    def configuration_descriptor(self) -> bytes:
        body = b""
        for number, interface in enumerate(self.interfaces):
            endpoints = () if self.lie == "no-endpoints" else interface.endpoints
            body += struct.pack("<BBBBBBBBB", 9, INTERFACE, number, 0, len(interface.endpoints), *interface.triple, 0)
            body += interface.extra
            for endpoint in endpoints:
                size = 0xFFFF if self.lie == "huge-endpoint" else endpoint.max_packet
                interval = 10 if endpoint.transfer == 3 else 0
                body += struct.pack("<BBBBHB", 7, ENDPOINT, endpoint.address, endpoint.transfer, size, interval)
        count = 32 if self.lie == "too-many-interfaces" else len(self.interfaces)
        if self.lie == "endless-configuration":
            body += b"\x09\x04\x00\x01\x00\xff\x00\x00\x00" * 500 + b"\x02\xfe" * 33_000
        if self.lie == "zero-length":
            body = body[:9] + b"\x00\x05" + body[9:]
        total = min(9 + len(body), 0xFFFF)
        head = struct.pack("<BBHBBBBB", 9, CONFIGURATION, total, count, 1, 0, 0xC0, 50)
        whole = head + body
        return whole[: 9 + 5] if self.lie == "short-configuration" else whole[:0xFFFF]

    def string(self, index: int) -> bytes | None:
        if index == 0:
            text = struct.pack("<H", ENGLISH)
        elif index <= len(self._strings):
            text = self._strings[index - 1].encode("utf-16-le")
        else:
            return None
        return bytes((len(text) + 2, STRING)) + text

    # ------------------------------------------------------------------ requests

    def control(self, setup: bytes, data: bytes = b"") -> bytes | Refusal:
        """A control transfer; what it answers (empty for one that writes)."""
        kind, request, value, index, length = struct.unpack("<BBHHH", setup)
        if self.model.is_mute:
            return "mute"
        if kind & 0x60 == 0:
            answer = self._standard(kind, request, value, index)
        elif self.on_line and kind & 0x7F == 0x21:
            answer = self._line_request(request, data)
        elif self.is_keyboard and kind & 0x7F == 0x21:
            answer = bytes(self._report) if request == 0x01 else b""
        else:
            answer = self.model.control(kind, request, value, index, length, data, self.clock())
        if answer is None:
            return "stall"
        return answer[:length] if kind & 0x80 else b""

    def _standard(self, kind: int, request: int, value: int, index: int) -> bytes | None:
        if request == GET_DESCRIPTOR:
            return self._descriptor(value >> 8, value & 0xFF)
        if request == GET_STATUS:
            halted = kind & 0x1F == 2 and self.model.halted
            return struct.pack("<H", 1 if halted or kind & 0x1F == 0 else 0)
        if request == GET_CONFIGURATION:
            return bytes((self.configured,))
        if request == SET_CONFIGURATION and value in (0, 1):
            self.configured = value
            return b""
        if request == CLEAR_FEATURE:
            if kind & 0x1F == 2 and value == ENDPOINT_HALT:
                self.clear_halt()
            return b""
        if request == GET_INTERFACE:
            return b"\x00"
        if request in (SET_INTERFACE, SET_FEATURE) and value in (0, 1):
            return b"" if request == SET_FEATURE or value == 0 else None
        return None

    def _descriptor(self, kind: int, number: int) -> bytes | None:
        if kind == DEVICE:
            return self.device_descriptor()
        if kind == CONFIGURATION:
            return self.configuration_descriptor() if number == 0 else None
        if kind == STRING:
            return self.string(number)
        if kind == HID_REPORT and self.is_keyboard:
            return KEYBOARD_REPORT
        if kind == HID and self.is_keyboard:
            return self.interfaces[0].extra
        if self.identity.interface_class == HID_CLASS and kind in (HID, HID_REPORT):
            return VENDOR_REPORT if kind == HID_REPORT else self.interfaces[0].extra
        return None

    def _line_request(self, request: int, data: bytes) -> bytes | None:
        if request == 0x20 and len(data) >= 7:
            self.line_coding = data[:7]
            self.line_baud = struct.unpack_from("<I", data)[0]
            return b""
        if request == 0x21:
            return self.line_coding
        return b"" if request in (0x22, 0x23) else None

    def clear_halt(self) -> None:
        self.model.halted = False

    def reset(self) -> None:
        """A bus reset: volatile settings are lost."""
        self.model.halted = False
        self.model.on_power_cycle(self.clock())

    # ------------------------------------------------------------------ transfers

    def write(self, endpoint: int, data: bytes) -> bool:
        """The host sent `data`; False if the endpoint stalls."""
        if self.model.halted or endpoint not in self.endpoints:
            return False
        if self.on_line:
            self.model.feed(data, self.clock(), line_baud=self.line_baud if self.model.baud else None)
        else:
            self.model.feed(data, self.clock(), endpoint=endpoint)
        return True

    def read(self, endpoint: int, max_bytes: int) -> bytes | Refusal | None:
        """What is due on `endpoint`; None while there is nothing."""
        if self.model.halted or endpoint not in self.endpoints:
            return "stall"
        now = self.clock()
        if isinstance(self.model, KeyDevice):
            return self._next_report(self.model, now)
        if not self.on_line:
            return self.model.take(now, max_bytes, endpoint=endpoint) or None
        if endpoint != LINE_IN:
            self.model.advance(now)
            return None
        return self.model.take(now, max_bytes, line_baud=self.line_baud if self.model.baud else None) or None

    def due(self, endpoint: int) -> float | None:
        """When to look again on `endpoint`."""
        if self._events:
            return self.clock()
        if self.is_keyboard or self.on_line:
            return self.model.next_due()
        return self.model.next_due(endpoint=endpoint)

    def _next_report(self, keys: KeyDevice, now: float) -> bytes | None:
        """One boot report for each key that went down or up; repeats are the host's own business."""
        self._events.extend(keys.take_events(now))
        changed = False
        while self._events and not changed:
            event = self._events.popleft()
            if event.type == EV_KEY and event.value in (UP, DOWN):
                changed = _press(self._report, event.code, is_down=event.value == DOWN)
        return bytes(self._report) if changed else None

    def _index(self, text: str) -> int:
        return self._strings.index(text) + 1 if text else 0


LINE_OUT, LINE_IN = 0x02, 0x82

KEYBOARD_REPORT = bytes.fromhex(
    "05010906a101 0507 19e0 29e7 1500 2501 7501 9508 8102 9501 7508 8101"
    "9505 7501 0508 1901 2905 9102 9501 7503 9101"
    "9506 7508 1500 26ff00 0507 1900 2aff00 8100 c0"
)
"""Keyboard in boot form: HID 1.11 appendix B.1, with the full range of key codes."""

VENDOR_REPORT = bytes.fromhex("0600ff 0901 a101 1500 26ff00 7508 9508 0901 8102 0902 9102 c0")
"""A HID device with eight bytes in and out of the vendor's own meaning, such as the bridge of a UPS."""

_MODIFIERS: Mapping[int, int] = {29: 0, 42: 1, 56: 2, 125: 3, 97: 4, 54: 5, 100: 6, 126: 7}
"""Kernel key code → bit of the first byte."""
_USAGES: Mapping[int, int] = {
    **dict(zip((30, 48, 46, 32, 18, 33, 34, 35, 23, 36, 37, 38, 50), range(0x04, 0x11), strict=True)),
    **dict(zip((49, 24, 25, 16, 19, 31, 20, 22, 47, 17, 45, 21, 44), range(0x11, 0x1E), strict=True)),
    **dict(zip(range(2, 12), range(0x1E, 0x28), strict=True)),
    28: 0x28, 1: 0x29, 14: 0x2A, 15: 0x2B, 57: 0x2C, 12: 0x2D, 13: 0x2E, 26: 0x2F, 27: 0x30, 43: 0x31, 39: 0x33, 40: 0x34, 41: 0x35, 51: 0x36,
    52: 0x37, 53: 0x38, 98: 0x54, 55: 0x55, 74: 0x56, 78: 0x57, 96: 0x58, 79: 0x59, 80: 0x5A, 81: 0x5B, 75: 0x5C, 76: 0x5D, 77: 0x5E,
    71: 0x5F, 72: 0x60, 73: 0x61, 82: 0x62, 83: 0x63,
}  # fmt: skip
"""Kernel key code → HID usage, after the keyboard page of the HID usage tables."""


def _press(report: bytearray, code: int, *, is_down: bool) -> bool:
    """Put a key into a boot report or take it out; whether the report changed."""
    before = bytes(report)
    if code in _MODIFIERS:
        bit = 1 << _MODIFIERS[code]
        report[0] = report[0] | bit if is_down else report[0] & ~bit
    elif (usage := _USAGES.get(code)) is not None:
        slots = [key for key in report[2:] if key not in (0, usage)]
        if is_down:
            slots = [*slots, usage][:6]
        report[2:] = bytes(slots).ljust(6, b"\x00")
    return bytes(report) != before
