"""usbfs for umockdev: device models behind the ioctls that libusb sends to /dev/bus/usb/…, answered while they happen.

Runs in the bench process (`simulators.ports.umockdev_bench`), in umockdev's thread. Layouts: include/uapi/linux/usbdevice_fs.h for 64-bit machines.
A kernel that has nothing to reap answers EAGAIN; here that answer is given a moment late, because the stand-in for the device node looks ready to
poll(2) all the time and libusb would spin.
"""

from __future__ import annotations

import errno
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from simulators.ports.usb_raw import RawDevice

CONTROL, BULK = 0xC0185500, 0xC0185502
SETINTERFACE, SETCONFIGURATION, GETDRIVER = 0x80085504, 0x80045505, 0x41045508
SUBMITURB, DISCARDURB, REAPURB, REAPURBNDELAY = 0x8038550A, 0x550B, 0x4008550C, 0x4008550D
CLAIMINTERFACE, RELEASEINTERFACE, CONNECTINFO, IOCTL = 0x8004550F, 0x80045510, 0x40085511, 0xC0105512
RESET, CLEAR_HALT, DISCONNECT, CONNECT = 0x5514, 0x80045515, 0x5516, 0x5517
GET_CAPABILITIES, DISCONNECT_CLAIM, GET_SPEED = 0x8004551A, 0x8108551B, 0x551F

URB_BYTES = 56
URB_CONTROL = 2
SETUP_BYTES = 8
GETDRIVER_BYTES = 260
CAPABILITIES = 0x1 | 0x4 | 0x10
"""Zero-length packets, no limit on a transfer's size, reaping after a disconnect."""
SPEED_HIGH = 3
REAP_WAIT_S = 0.002
BULK_WAIT_MAX_S = 5.0
NO_SUCH_IOCTL = -errno.ENOTTY


@dataclass
class _Urb:
    """One transfer that the host has submitted. `place` is its address in the host's memory, which is its name."""

    place: bytes
    data: Any
    endpoint: int
    kind: int
    buffer: Any
    length: int


class UsbNode:
    """One device node. `attach` it to a testbed before the device is added."""

    def __init__(self, raw: RawDevice, *, is_busy: Callable[[], bool] = lambda: False) -> None:
        self.raw = raw
        self.driver = raw.identity.kernel_driver
        self.gone = False
        self._is_busy = is_busy
        self._claims: dict[int, Any] = {}
        self._waiting: dict[str, list[_Urb]] = {}
        self._changed = threading.Event()

    def unplugged(self) -> None:
        """Every later call answers ENODEV, as on an open descriptor of a device that left."""
        self.gone = True

    def handle(self, client: Any) -> bool:
        """Signal handler of `handle-ioctl`."""
        request = int(client.get_request())
        if request in (REAPURB, REAPURBNDELAY):
            result = self._reap(client)
        else:
            result = NO_SUCH_IOCTL if (work := self._calls.get(request)) is None else work(self, client)
        client.complete(-1 if result < 0 else result, -result if result < 0 else 0)
        return True

    def _is_taken(self, number: int, client: Any) -> bool:
        """Whether somebody else has the interface; who closed the node has nothing any more."""
        owner = self._claims.get(number)
        if owner is not None and not owner.get_connected():
            del self._claims[number]
            self._waiting.pop(_who(owner), None)
            return False
        return owner is not None and _who(owner) != _who(client)

    # ------------------------------------------------------------------ interfaces

    def _claim(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        number = _u32(client)
        if number >= len(self.raw.interfaces):
            return -errno.ENOENT
        if self.driver is not None or self._is_busy() or self._is_taken(number, client):
            return -errno.EBUSY
        self._claims[number] = client
        return 0

    def _release(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        return 0 if self._claims.pop(_u32(client), None) is not None else -errno.EINVAL

    def _set_interface(self, client: Any) -> int:
        number, alternate = struct.unpack("<II", _bytes(client, 8))
        if self.gone:
            return -errno.ENODEV
        return 0 if number < len(self.raw.interfaces) and alternate == 0 else -errno.EINVAL

    def _set_configuration(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        if self._claims:
            return -errno.EBUSY
        self.raw.configured = 1 if _u32(client) == 1 else 0
        return 0

    def _get_driver(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        told = client.get_arg().resolve(0, GETDRIVER_BYTES)
        owner = "usbfs" if struct.unpack_from("<I", bytes(told.retrieve()))[0] in self._claims else self.driver
        if owner is None:
            return -errno.ENODATA
        told.update(4, owner.encode().ljust(GETDRIVER_BYTES - 4, b"\0"))
        return 0

    def _interface_ioctl(self, client: Any) -> int:
        """The driver of one interface is told to let go, or to come back."""
        _, code = struct.unpack("<II", _bytes(client, 16)[:8])
        if self.gone:
            return -errno.ENODEV
        if code == DISCONNECT:
            if self.driver is None:
                return -errno.ENODATA
            self.driver = None
            return 0
        if code == CONNECT:
            if self._claims or self.driver is not None:
                return -errno.EBUSY
            self.driver = self.raw.identity.kernel_driver
            return 1 if self.driver else 0
        return -errno.ENOTTY

    def _disconnect_claim(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        number = struct.unpack("<I", _bytes(client, 4))[0]
        if self._is_busy() or self._is_taken(number, client):
            return -errno.EBUSY
        self.driver = None
        self._claims[number] = client
        return 0

    def _capabilities(self, client: Any) -> int:
        client.get_arg().resolve(0, 4).update(0, struct.pack("<I", CAPABILITIES))
        return 0

    def _speed(self, client: Any) -> int:
        return SPEED_HIGH

    def _clear_halt(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        self.raw.clear_halt()
        return 0

    def _reset(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        self.raw.reset()
        return 0

    # ------------------------------------------------------------------ transfers

    def _submit(self, client: Any) -> int:
        if self.gone:
            return -errno.ENODEV
        place = bytes(client.get_arg().retrieve())  # resolving puts an address of this process there
        data = client.get_arg().resolve(0, URB_BYTES)
        header = bytes(data.retrieve())
        kind, endpoint = header[0], header[1]
        length = struct.unpack_from("<i", header, 24)[0]
        if length < 0:
            return -errno.EINVAL
        buffer = data.resolve(16, length) if length else None
        urb = _Urb(place, data, endpoint, kind, buffer, length)
        if kind != URB_CONTROL:
            if endpoint not in self.raw.endpoints:
                return -errno.ENOENT
            if not any(_who(owner) == _who(client) for owner in self._claims.values()):
                return -errno.EBUSY
        self._waiting.setdefault(_who(client), []).append(urb)
        return 0

    def _discard(self, client: Any) -> int:
        place = bytes(client.get_arg().retrieve())
        for urb in self._waiting.get(_who(client), []):
            if urb.place == place and urb not in self._done_of(client):
                self._finish(client, urb, -errno.ENOENT, 0)
                return 0
        return -errno.EINVAL

    def _reap(self, client: Any) -> int:
        """Hand a finished transfer back. One that cannot finish yet gets until the answer is due, at most REAP_WAIT_S."""
        deadline = time.monotonic() + REAP_WAIT_S
        done = self._done_of(client)
        while not done:
            for urb in list(self._waiting.get(_who(client), [])):
                self._attempt(client, urb)
                if done:
                    break
            if done or time.monotonic() >= deadline:
                break
            time.sleep(REAP_WAIT_S / 4)
        if not done:
            return -errno.ENODEV if self.gone else -errno.EAGAIN
        client.get_arg().resolve(0, 8).set_ptr(0, done.pop(0).data)
        return 0

    def _attempt(self, client: Any, urb: _Urb) -> None:
        if self.gone:
            self._finish(client, urb, -errno.ENODEV, 0)
        elif urb.kind == URB_CONTROL:
            self._attempt_control(client, urb)
        elif urb.endpoint & 0x80:
            got = self.raw.read(urb.endpoint, max(urb.length, self.raw.endpoints[urb.endpoint].max_packet))
            if got == "stall":
                self._finish(client, urb, -errno.EPIPE, 0)
            elif isinstance(got, bytes):
                if got and urb.buffer is not None:
                    urb.buffer.update(0, got[: urb.length])
                self._finish(client, urb, -errno.EOVERFLOW if len(got) > urb.length else 0, min(len(got), urb.length))
        else:
            sent = b"" if urb.buffer is None else bytes(urb.buffer.retrieve())
            if self.raw.write(urb.endpoint, sent):
                self._finish(client, urb, 0, len(sent))
            else:
                self._finish(client, urb, -errno.EPIPE, 0)

    def _attempt_control(self, client: Any, urb: _Urb) -> None:
        raw = bytes(urb.buffer.retrieve())
        answer = self.raw.control(raw[:SETUP_BYTES], raw[SETUP_BYTES:] if not raw[0] & 0x80 else b"")
        if answer == "mute":
            return
        if isinstance(answer, str):
            self._finish(client, urb, -errno.EPIPE, 0)
            return
        if answer:
            urb.buffer.update(SETUP_BYTES, answer[: urb.length - SETUP_BYTES])
        self._finish(client, urb, 0, len(answer) if raw[0] & 0x80 else urb.length - SETUP_BYTES)

    def _finish(self, client: Any, urb: _Urb, status: int, actual: int) -> None:
        urb.data.update(4, struct.pack("<i", status))
        urb.data.update(28, struct.pack("<i", actual))
        self._waiting[_who(client)].remove(urb)
        self._done_of(client).append(urb)

    def _done_of(self, client: Any) -> list[_Urb]:
        return self._waiting.setdefault(f"{_who(client)} done", [])

    _calls: dict[int, Callable[[UsbNode, Any], int]] = {  # noqa: RUF012 - a table of methods
        CLAIMINTERFACE: _claim,
        RELEASEINTERFACE: _release,
        SETINTERFACE: _set_interface,
        SETCONFIGURATION: _set_configuration,
        GETDRIVER: _get_driver,
        IOCTL: _interface_ioctl,
        DISCONNECT_CLAIM: _disconnect_claim,
        GET_CAPABILITIES: _capabilities,
        GET_SPEED: _speed,
        CLEAR_HALT: _clear_halt,
        RESET: _reset,
        SUBMITURB: _submit,
        DISCARDURB: _discard,
    }


def _bytes(client: Any, size: int) -> bytes:
    return bytes(client.get_arg().resolve(0, size).retrieve())


def _u32(client: Any) -> int:
    number: int = struct.unpack("<I", _bytes(client, 4))[0]
    return number


def _who(client: Any) -> str:
    """An open descriptor, as one word."""
    return str(hash(client))
