"""evdev for umockdev: keyboard models behind the ioctls of /dev/input/event…, and their key events as `struct input_event`.

Runs in the bench process. Layouts: include/uapi/linux/input.h for 64-bit machines. Sizes are the caller's, as in the kernel.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable
from typing import Any

from simulators.models.base import UsbIdentity
from simulators.models.keys import EV_KEY, EV_MSC, EV_SYN, MSC_SCAN, KeyDevice

EV_LED, EV_REP = 0x11, 0x14
VERSION = 0x010001
BUS_USB = 3
REPEAT_DELAY_MS, REPEAT_PERIOD_MS = 250, 33
KEY_MAX = 255
WRITE_BYTES = 24 * 16
UNSENT_MAX_BYTES = 24 * 4096

GRAB = 0x40044590
_READ, _WRITE = 2, 1


class InputNode:
    """One event node. `pump` must be called when `model.next_due()` says so."""

    def __init__(self, model: KeyDevice, identity: UsbIdentity, place: str, clock: Callable[[], float]) -> None:
        self.model = model
        self.identity = identity
        self.gone = False
        self._place = place
        self._clock = clock
        self._fd = -1
        self._pressed: set[int] = set()
        self._unsent = bytearray()
        self._grabbed_by: Any = None

    def opened(self, fd: int) -> None:
        """`fd` is the bench's end of the node."""
        self._fd = fd
        os.set_blocking(fd, False)

    def pump(self) -> None:
        """Deliver the events that are due. What the node does not take at once waits, up to UNSENT_MAX_BYTES; then whole events are lost."""
        for event in self.model.take_events(self._clock()):
            if event.type == EV_KEY:
                (self._pressed.discard if event.value == 0 else self._pressed.add)(event.code)
            now_s, now_us = divmod(time.time_ns() // 1000, 1_000_000)
            if len(self._unsent) < UNSENT_MAX_BYTES:
                self._unsent += struct.pack("<qqHHi", now_s, now_us, event.type, event.code, event.value)
        while self._unsent:
            try:
                del self._unsent[: os.write(self._fd, self._unsent[:WRITE_BYTES])]
            except BlockingIOError:
                return

    def handle(self, client: Any) -> bool:
        """Signal handler of `handle-ioctl`."""
        result = self._answer(client, int(client.get_request()))
        client.complete(-1 if result < 0 else result, -result if result < 0 else 0)
        return True

    def _answer(self, client: Any, request: int) -> int:
        if self.gone:
            return -errno.ENODEV
        if request == GRAB:
            return self._grab(client)
        direction, size, kind, number = request >> 30, request >> 16 & 0x3FFF, request >> 8 & 0xFF, request & 0xFF
        if kind != ord("E") or direction & _READ == 0:
            return -errno.EINVAL
        answer = self._question(number)
        if answer is None:
            return -errno.ENOENT if number == 0x08 else -errno.EINVAL
        told = answer[:size]
        client.get_arg().resolve(0, size).update(0, told.ljust(size, b"\0"))
        return len(told) if number in (0x06, 0x07, 0x08, 0x18, 0x19) or 0x20 <= number < 0x40 else 0

    def _grab(self, client: Any) -> int:
        owner = self._grabbed_by if self._grabbed_by is not None and self._grabbed_by.get_connected() else None
        if any(bytes(client.get_arg().retrieve())):
            if owner is not None:
                return -errno.EBUSY
            self._grabbed_by = client
            return 0
        if owner is None or hash(owner) != hash(client):
            return -errno.EINVAL
        self._grabbed_by = None
        return 0

    def _question(self, number: int) -> bytes | None:
        who = self.identity
        fixed = {
            0x01: struct.pack("<I", VERSION),
            0x02: struct.pack("<HHHH", BUS_USB, who.vid, who.pid, 0x0111),
            0x03: struct.pack("<II", REPEAT_DELAY_MS, REPEAT_PERIOD_MS),
            0x06: f"{who.manufacturer} {who.product}".strip().encode() + b"\0",
            0x07: f"usb-0000:00:14.0-{self._place.partition('-')[2]}/input0".encode() + b"\0",
            0x08: who.serial.encode() + b"\0" if who.serial else None,
            0x18: _bits(self._pressed, KEY_MAX),
            0x19: _bits((), 15),
            0x84: struct.pack("<i", 0),
        }
        if number in fixed:
            return fixed[number]
        if not 0x20 <= number < 0x40:
            return None
        by_type = {
            0: (EV_SYN, EV_KEY, EV_MSC, EV_LED, EV_REP),
            EV_KEY: tuple(range(1, 128)),
            EV_MSC: (MSC_SCAN,),
            EV_LED: (0, 1, 2),
        }
        return _bits(by_type.get(number - 0x20, ()), KEY_MAX if number - 0x20 == EV_KEY else 31)


def _bits(numbers: Any, highest: int) -> bytes:
    out = bytearray(highest // 8 + 1)
    for number in numbers:
        out[number // 8] |= 1 << number % 8
    return bytes(out)
