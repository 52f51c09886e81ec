"""Shapes of ports and of what finds them, and the few errors they may raise. Simulated devices implement these shapes structurally.

Bytes pass through uninterpreted: no port logs them, keeps them or puts them into an error.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from protocols.codecs.keys import InputEvent as InputEvent  # part of the ports' shape: simulators take it from here

if TYPE_CHECKING:
    from protocols.profile.schema import Profile

Bus = Literal["usb", "serial", "input", "video", "sound", "display", "pcsc", "ipp", "pipe"]
Role = Literal["touch", "capture", "playback"]


class PortError(Exception):
    """A port cannot be used. The message says what the port does, never which bytes passed."""


class PortGone(PortError):
    """The device is not there (any more): unplugged, or its node vanished."""


class PortBusy(PortError):
    """Another program holds the port. Neutral: reported as in use, never as a fault."""


class PortRefused(PortError):
    """The system does not let us: permission, line setting, missing library. A person has to change the configuration."""


class PortStalled(PortError):
    """The device is there and does not take or deliver: stalled endpoint, blocked write, transfer error. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Hardware that is there, known or not. `usb_path` is the place in the USB tree (`1-1.4`), stable across re-enumeration."""

    bus: Bus
    path: str
    vid: int | None = None
    pid: int | None = None
    serial: str | None = None
    product: str | None = None
    usb_path: str | None = None
    role: Role | None = None
    """A touch screen among the input nodes; the direction of a sound node."""
    heads: int = 1
    """Capture nodes of the whole USB device, of a camera."""
    mbps: int | None = None
    """Speed at which the USB device runs, where it matters (cameras)."""

    @property
    def place(self) -> str:
        """What a slot is bound to: the USB port path where there is one, else the path."""
        return self.usb_path or self.path


@runtime_checkable
class BytePort(Protocol):
    """A stream of bytes. Every wait has a timeout; all methods raise PortError only."""

    async def write(self, data: bytes, *, timeout_s: float) -> None: ...
    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        """At least one byte, or b"" after `timeout_s`."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class SpeedPort(BytePort, Protocol):
    """A byte port with a line speed, for devices that somebody may have switched."""

    async def set_baud(self, baud: int) -> None: ...


@runtime_checkable
class UsbPort(BytePort, Protocol):
    """An interface of a USB device; `read` and `write` use its first bulk pair."""

    @property
    def endpoints_out(self) -> tuple[int, ...]: ...
    @property
    def endpoints_in(self) -> tuple[int, ...]: ...
    async def write_to(self, endpoint: int, data: bytes, *, timeout_s: float) -> None: ...
    async def read_from(self, endpoint: int, *, max_bytes: int, timeout_s: float) -> bytes: ...
    async def control_in(
        self, request_type: int, request: int, value: int, index: int, length: int, *, timeout_s: float
    ) -> bytes: ...


@runtime_checkable
class InterfacePort(UsbPort, Protocol):
    """A USB interface with all that its class may need: pipes by kind, requests to the device, a class descriptor, and ways out of a hang."""

    @property
    def bulk_out(self) -> tuple[int, ...]: ...
    @property
    def bulk_in(self) -> tuple[int, ...]: ...
    @property
    def interrupt_in(self) -> tuple[int, ...]: ...
    def class_descriptor(self, kind: int) -> bytes:
        """The descriptor of that type beside the interface's own, as the device sent it; b"" if there is none."""
        ...

    async def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, *, timeout_s: float
    ) -> None: ...
    async def clear_halt(self, endpoint: int) -> None:
        """Take a pipe out of its halt and set its toggle anew on both sides; harmless where it is not halted."""
        ...

    async def reset(self) -> None:
        """Reset the device as a re-plug does. The claim survives where the device comes back as it was; else PortGone."""
        ...


@dataclass(frozen=True, slots=True)
class CardReaders:
    """What a PC/SC service says: `code` of its last answer (0 is success), and for each reader's name its 32-bit event state."""

    code: int
    states: tuple[tuple[str, int], ...] = ()


@runtime_checkable
class ReaderPort(Protocol):
    """A PC/SC service, watched. Nothing here connects to a card."""

    async def look(self, *, timeout_s: float) -> CardReaders:
        """The state of all readers now. A service that is not there is an answer (`code`), no error."""
        ...

    async def changed(self, *, timeout_s: float) -> bool:
        """Whether a reader or a card came or went since the last look, within `timeout_s`."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class KeyPort(Protocol):
    """Key events of an input device."""

    async def read_events(self, *, timeout_s: float) -> Sequence[InputEvent]:
        """Events in order; empty after `timeout_s`."""
        ...

    async def pressed_keys(self) -> frozenset[int]: ...
    async def close(self) -> None: ...


@runtime_checkable
class AskPort(Protocol):
    """A service at an address that answers one message with one message."""

    @property
    def address(self) -> str: ...
    async def ask(self, message: bytes, *, max_bytes: int, timeout_s: float) -> bytes:
        """The whole answer, b"" if there is none within `timeout_s`. Never more than `max_bytes`: a longer answer is PortStalled."""
        ...

    async def close(self) -> None: ...


Port = BytePort | UsbPort | KeyPort | ReaderPort | AskPort


class PortOpener(Protocol):
    """Opens what a sighting names, as its profile says. Owner mode only: whoever calls it means to hold the port."""

    async def open(self, sighting: Sighting, profile: Profile) -> Port: ...


class Discoverer(Protocol):
    """What is plugged in."""

    def sightings(self) -> Sequence[Sighting]: ...
    async def changes(self) -> Any:
        """Returns when `sightings()` may differ from what it said last. May return for nothing; must not return for ever without waiting."""
        ...


_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EIO, errno.ENOENT, errno.EBADF, errno.ENOTCONN, errno.ESHUTDOWN})
_BUSY = frozenset({errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS})


def port_error(number: int | None, what: str) -> PortError:
    """The PortError for an errno; `what` names the port and the operation. Unknown numbers are PortStalled: trying again decides."""
    if number in _GONE:
        return PortGone(f"{what}: the device is gone")
    if number in _BUSY:
        return PortBusy(f"{what}: another program holds it")
    if number in _REFUSED:
        return PortRefused(f"{what}: the system refuses ({errno.errorcode.get(number or 0, 'unknown')})")
    return PortStalled(f"{what}: failed ({errno.errorcode.get(number or 0, 'unknown')})")


@contextmanager
def os_errors(what: str) -> Iterator[None]:
    """Every OSError inside becomes a PortError."""
    try:
        yield
    except OSError as err:
        raise port_error(err.errno, what) from err
