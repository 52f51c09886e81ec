"""A tap between an application and a serial device: the application opens a pseudo-terminal, everything is handed on both ways and written down.

Nothing is changed on the way and nothing waits for the disk: what passed is kept in memory, scrubbed and written when the session ends. The line
speed is the device's; settings that the application makes on its pseudo-terminal do not reach it.
"""

from __future__ import annotations

import asyncio
import os
import tty
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import serial

from protocols.profile.schema import Profile
from simulators.capture import MAX_BYTES, Capture, Transfer, Way, scrub, unit_behind
from simulators.errors import SimulatorError
from simulators.wire import wire_of

READ_BYTES = 4096
MAX_WAITING_BYTES = 1024 * 1024
"""What an application may send ahead of a slow line before it has to wait."""
_PARITY = {"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}


class SerialTap:
    """Hands bytes on between the device at `port` and whoever opens `link`, until closed. Needs a running event loop."""

    def __init__(self, port: str, link: Path, profile: Profile) -> None:
        """Opens both; SimulatorError if the device cannot be opened."""
        self._profile = profile
        self._loop = asyncio.get_running_loop()
        self._start_s = self._loop.time()
        self._bytes = 0
        self._link = link
        self.transfers: list[Transfer] = []
        self.ended = asyncio.Event()
        """Set when the device has gone."""
        self._unit = unit_behind(port)
        self._device = _open(port, profile)
        self._slave = -1
        self._master = self._make_pty()
        self._waiting: dict[int, deque[bytes]] = {self._device.fileno(): deque(), self._master: deque()}
        self._note("!", b"", "open")
        self._loop.add_reader(self._device.fileno(), self._hand_on, self._device.fileno(), self._master, "<")
        self._loop.add_reader(self._master, self._hand_on, self._master, self._device.fileno(), ">")

    def close(self) -> None:
        for fd in (self._device.fileno(), self._master):
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        self._link.unlink(missing_ok=True)
        os.close(self._slave)
        os.close(self._master)
        self._device.close()

    def capture(self, *, keep_everything: bool = False) -> Capture:
        """What passed. `keep_everything` leaves in what may be somebody's data, and says so in the head."""
        line = self._profile.transport.serial
        head = {
            "profile": self._profile.id,
            "bus": "serial",
            "line": f"{line.baud} {line.data_bits}{line.parity[0].upper()}{line.stop_bits}" if line else "",
            "unit": self._unit,
            "scrubbed": "no" if keep_everything else "yes",
        }
        return Capture(head, tuple(self.transfers if keep_everything else scrub(wire_of(self._profile), self.transfers)))

    def _make_pty(self) -> int:
        master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(master, False)
        # Our own slave stays open: without one, reading the master would fail whenever the application has the port closed.
        self._link.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._link.with_name(f".{self._link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.ttyname(self._slave))
        temporary.replace(self._link)
        return master

    def _hand_on(self, source: int, sink: int, way: Way) -> None:
        try:
            data = os.read(source, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if source != self._master:
                self._note("!", b"", "lost")
                self._loop.remove_reader(source)
                self.ended.set()
            return
        self._note(way, data)
        queue = self._waiting[sink]
        if sum(map(len, queue)) < MAX_WAITING_BYTES:
            queue.append(data)
        self._loop.add_writer(sink, self._write_on, sink)

    def _write_on(self, sink: int) -> None:
        queue = self._waiting[sink]
        while queue:
            try:
                sent = os.write(sink, queue[0])
            except BlockingIOError:
                return
            except OSError:
                queue.clear()
                break
            queue[0] = queue[0][sent:]
            if not queue[0]:
                queue.popleft()
        with suppress(ValueError):
            self._loop.remove_writer(sink)

    def _note(self, way: Way, data: bytes, note: str = "") -> None:
        self._bytes += len(data)
        if self._bytes <= MAX_BYTES:
            self.transfers.append(Transfer(self._loop.time() - self._start_s, way, data, note=note))


def _open(port: str, profile: Profile) -> Any:
    line = profile.transport.serial
    if line is None:
        raise SimulatorError(
            f"The profile {profile.id} has no serial line; a USB session is recorded by “kiosk-sim check --capture”."
        )
    try:
        device = serial.Serial(
            port,
            line.baud,
            bytesize=line.data_bits,
            parity=_PARITY[line.parity],
            stopbits=line.stop_bits,
            timeout=0,
            exclusive=True,
        )
    except (OSError, ValueError, serial.SerialException) as err:
        raise SimulatorError(f"Cannot open {port}: {err}.") from None
    os.set_blocking(device.fileno(), False)
    return device
