"""Input devices through python-evdev, read on the loop. Says that keys move; what they spell is dropped by whoever reads.

A device is grabbed only when no key is down: a key held at that moment would stay pressed for the desktop for ever.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import evdev

from edge_agent.transports.base import PortBusy, PortStalled, port_error
from edge_agent.transports.waiting import FdWaiter
from protocols.codecs.keys import DOWN, EV_KEY, EV_SYN, SYN_DROPPED, SYN_REPORT, InputEvent

EVIOCGVERSION = 0x80044501
"""Of the kernel's input.h: the driver's version."""


class EvdevPort:
    """An event node. With `grab` its keys reach nobody else; PortBusy where another program has grabbed it."""

    def __init__(self, device: Any, name: str, *, grab: bool) -> None:
        self._device = device
        self._name = name
        self._wants_grab = grab
        self._grabbed = False
        self._waiter = FdWaiter(device.fd, name)

    async def read_events(self, *, timeout_s: float) -> Sequence[InputEvent]:
        """Events in order; a look at the key bitmap is told as SYN_DROPPED.

        Asking for the bitmap takes key events out of the kernel's queue (evdev_handle_get_val in drivers/input/evdev.c), so it is asked only after
        reading, and whoever counts keys is told to look at the bitmap as well.
        """
        if not await self._waiter.readable(timeout_s):
            return ()
        self._waiter.require_open()
        with _evdev_errors(self._name):
            try:
                events = [InputEvent(e.sec, e.usec, e.type, e.code, e.value) for e in self._device.read()]
            except BlockingIOError:
                return ()
        if self._wants_grab and not self._grabbed and not any(e.type == EV_KEY and e.value >= DOWN for e in events):
            self._grab_when_idle()
            last = events[-1] if events else InputEvent(0, 0, EV_SYN, SYN_REPORT, 0)
            events += [InputEvent(last.sec, last.usec, EV_SYN, code, 0) for code in (SYN_DROPPED, SYN_REPORT)]
        return events

    async def pressed_keys(self) -> frozenset[int]:
        """Codes that are down now, after the kernel's key bitmap."""
        self._waiter.require_open()
        with _evdev_errors(self._name, self._device.fd):
            keys = frozenset(self._device.active_keys())
        if not keys:
            self._grab_when_idle()
        return keys

    async def close(self) -> None:
        if self._waiter.closed:
            return
        self._waiter.close()
        with suppressed():
            if self._grabbed:
                self._device.ungrab()
        with suppressed():
            self._device.close()

    def _grab_when_idle(self) -> None:
        if not self._wants_grab or self._grabbed:
            return
        with _evdev_errors(self._name, self._device.fd):
            if self._device.active_keys():
                return
            self._device.grab()
        self._grabbed = True


async def open_input(path: str, *, grab: bool, opener: Callable[[str], Any] = evdev.InputDevice) -> EvdevPort:
    """Open an event node. PortGone, PortRefused (rights), PortBusy (grabbed elsewhere), PortStalled (its abilities cannot be read)."""
    with _evdev_errors(path):
        device = opener(path)
    flags = fcntl.fcntl(device.fd, fcntl.F_GETFD)
    fcntl.fcntl(device.fd, fcntl.F_SETFD, flags | fcntl.FD_CLOEXEC)
    port = EvdevPort(device, path, grab=grab)
    try:
        port._grab_when_idle()
    except BaseException:
        await asyncio.shield(port.close())
        raise
    return port


@contextmanager
def suppressed() -> Iterator[None]:
    """Letting go of a device that may be gone."""
    try:
        yield
    except (OSError, SystemError):
        return


@contextmanager
def _evdev_errors(name: str, fd: int | None = None) -> Iterator[None]:
    """python-evdev 2.0.0 returns without an exception set when some ioctls fail, which Python turns into SystemError without a number.

    With `fd` the kernel is asked once more for what every input device answers, so that an unplugged one is told as gone.
    """
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as err:
        if err.errno == errno.EBUSY:
            raise PortBusy(f"{name}: grabbed by another program") from err
        raise port_error(err.errno, name) from err
    except SystemError as err:
        if fd is not None:
            try:
                fcntl.ioctl(fd, EVIOCGVERSION, bytes(4))
            except OSError as reason:
                raise port_error(reason.errno, name) from reason
        raise PortStalled(f"{name}: the device's abilities cannot be read") from err
