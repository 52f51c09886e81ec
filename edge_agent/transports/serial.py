"""Serial ports through pyserial, driven by the loop: pyserial sets the line, reading and writing go straight to the descriptor.

pyserial's own reads block, and an unplugged device shows there in four ways (SerialException with and without errno, plain OSError, empty read);
here all of them are PortGone. `exclusive` is an advisory lock: it keeps out those who ask for it as well.
"""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import serial

from edge_agent.transports.base import PortError, PortGone, PortRefused, PortStalled, os_errors, port_error
from edge_agent.transports.waiting import FdWaiter, in_thread

OPEN_TIMEOUT_S = 6.0
"""Opening asks a USB adapter by control transfers, which the kernel gives up after 5 s."""
CLOSE_TIMEOUT_S = 2.0
"""The kernel may wait for unsent bytes (closing_wait, 30 s by default); nobody here waits that long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSetting:
    """How a serial line is set. Linux drivers may ignore parity silently; CDC devices ignore all of it."""

    baud: int = 9600
    data_bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    flow_control: Literal["none", "rtscts", "dsrdtr", "xonxoff"] = "none"
    dtr: bool | None = None
    rts: bool | None = None
    """Lines that power the far side. None: as the driver leaves them, which is high."""


class SerialPort:
    """An open tty, held by an advisory lock until `close`."""

    def __init__(self, line: Any, name: str) -> None:
        self._line = line
        self._name = name
        self._fd: int = line.fileno()
        self._waiter = FdWaiter(self._fd, name)
        self._writing = asyncio.Lock()

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        """All of `data`, or PortStalled after `timeout_s` (flow control, blocked line)."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        async with self._writing:
            left = memoryview(data)
            while left:
                self._waiter.require_open()
                with os_errors(self._name):
                    try:
                        left = left[os.write(self._fd, left) :]
                        continue
                    except BlockingIOError:
                        pass  # the kernel's buffer is full
                rest_s = deadline - asyncio.get_running_loop().time()
                if rest_s <= 0 or not await self._waiter.writable(rest_s):
                    raise PortStalled(f"{self._name}: takes no bytes")

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            if not await self._waiter.readable(max(0.0, deadline - asyncio.get_running_loop().time())):
                return b""
            self._waiter.require_open()
            with os_errors(self._name):
                try:
                    data = os.read(self._fd, max_bytes)
                except BlockingIOError:
                    continue  # woken for nothing
            if not data:
                raise PortGone(f"{self._name}: hung up")
            return data

    async def set_baud(self, baud: int) -> None:
        """Another line speed; bytes that arrived at the old one are dropped."""
        self._waiter.require_open()
        with _line_errors(self._name):
            self._line.baudrate = baud
            termios.tcflush(self._fd, termios.TCIFLUSH)

    async def close(self) -> None:
        if self._waiter.closed:
            return
        self._waiter.close()
        with suppress(termios.error, OSError):  # the device may be gone already
            termios.tcflush(self._fd, termios.TCIOFLUSH)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await in_thread(lambda: _close_quietly(self._line), lambda _: None)
        except TimeoutError:
            pass  # the thread ends when the kernel lets go


async def open_serial(path: str, setting: LineSetting) -> SerialPort:
    """Open `path` exclusively. Raises PortBusy if it is locked by another program, PortGone if it is not there, PortRefused for rights or setting."""
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            line = await in_thread(lambda: _open(path, setting), _close_quietly)
    except TimeoutError as err:
        raise PortStalled(f"{path}: does not open") from err
    return SerialPort(line, path)


def holders(path: str, *, proc: Path = Path("/proc")) -> int:
    """How many other processes have `path` open, as far as this user may see. A look into /proc: not for every poll."""
    try:
        wanted = Path(path).stat().st_rdev
        entries = [entry for entry in proc.iterdir() if entry.name.isdigit() and entry.name != str(os.getpid())]
    except OSError:
        return 0
    return sum(_has_open(entry, wanted) for entry in entries)


def _has_open(process: Path, device: int) -> bool:
    try:
        return any(_device_of(link) == device for link in (process / "fd").iterdir())
    except OSError:
        return False  # another user's process, or gone


def _device_of(link: Path) -> int | None:
    try:
        if not os.readlink(link).startswith("/dev/"):  # noqa: PTH115 - a descriptor link is read thousands of times here
            return None
        return link.stat().st_rdev
    except OSError:
        return None


def _open(path: str, setting: LineSetting) -> Any:
    with _line_errors(path):
        line = serial.Serial(
            None,
            baudrate=setting.baud,
            bytesize=setting.data_bits,
            parity={"none": serial.PARITY_NONE, "even": serial.PARITY_EVEN, "odd": serial.PARITY_ODD}[setting.parity],
            stopbits=setting.stop_bits,
            timeout=0,
            write_timeout=0,
            rtscts=setting.flow_control == "rtscts",
            dsrdtr=setting.flow_control == "dsrdtr",
            xonxoff=setting.flow_control == "xonxoff",
            exclusive=True,
        )
        line.port = path
        # Set before it is opened: pyserial then bears with lines that have no such wires, and the far side never sees the wrong level for long.
        if setting.dtr is not None:
            line.dtr = setting.dtr
        if setting.rts is not None:
            line.rts = setting.rts
        line.open()
        return line


def _close_quietly(line: Any) -> None:
    with suppress(OSError, termios.error):  # closing a device that is gone
        line.close()


@contextmanager
def _line_errors(name: str) -> Iterator[None]:
    """SerialException is an OSError; termios.error is not, and a setting the driver cannot do may also be a ValueError."""
    try:
        yield
    except PortError:
        raise
    except OSError as err:
        # pyserial wraps a termios.error of the first look at the line without its number.
        hidden = err.__context__ if err.errno is None else None
        raise port_error(hidden.args[0] if isinstance(hidden, termios.error) else err.errno, name) from err
    except termios.error as err:
        raise port_error(err.args[0] if err.args else None, name) from err
    except ValueError as err:
        raise PortRefused(f"{name}: the line setting is not possible") from err
