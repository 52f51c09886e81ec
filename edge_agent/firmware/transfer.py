"""XMODEM and YMODEM over one of the agent's ports, by the libraries xmodem and ymodem in a thread of their own.

Both libraries are blocking and read byte by byte; a bridge lends them the port. Before each packet the bridge drops what is still unread: a second
`C` of an impatient receiver would otherwise be taken for the answer to a packet and shift every acknowledgement after it (XMODEM/YMODEM protocol
reference, Forsberg 1988, section 7). Two CAN in a row end the transfer (same, 4.1). Nothing that is read is logged.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import tempfile
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge_agent.firmware.errors import FlashFailed
from edge_agent.transports.base import BytePort, PortError
from protocols.profile.firmware import FlashMethod

ACK_WITHIN_S = 10.0
"""The receiver may erase a flash page before it answers; ten seconds are the protocol's own receiver time-out."""
WRITE_WITHIN_S = 30.0
"""1 KiB at 300 baud takes 35 s on the wire, but the kernel takes it at once."""
XMODEM_RETRIES = 10
CAN = 0x18
THREAD_ENDS_WITHIN_S = 5.0
BATCH_END_AT, BATCH_END_TRIES = 3, 3
"""First byte of the file's name in YMODEM's block 0: zero there ends the session. The file is stored by then, so nothing depends on it."""

Progress = Callable[[int], None]
"""Bytes that the receiver has acknowledged."""

_SILENT = logging.getLogger("edge_agent.firmware.silent")
_SILENT.propagate = False
_SILENT.addHandler(logging.NullHandler())
_SILENT.setLevel(logging.CRITICAL + 1)


class _Stopped(BaseException):
    """Leaves the libraries, which catch every Exception of their callbacks."""

    def __init__(self, why: str) -> None:
        self.why = why


async def send_file(
    port: BytePort, method: FlashMethod, image: bytes, *, pad: int, timeout_s: float, progress: Progress = lambda _: None
) -> None:
    """Send the whole of `image`. Raises FlashFailed (`transfer`) if the receiver does not take all of it in time, PortError as the port does.

    Returns or raises only after the thread has let go of the port.
    """
    loop = asyncio.get_running_loop()
    bridge = _Bridge(port, loop)
    work: Callable[[], bool] = (
        _ymodem(bridge, image, progress) if method == "ymodem" else _xmodem(bridge, method, image, pad, progress)
    )
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="flash") as pool:
        future = loop.run_in_executor(pool, _run, work)
        try:
            async with asyncio.timeout(timeout_s):
                said = await asyncio.shield(future)
        except TimeoutError:
            raise FlashFailed("transfer", f"the transfer took longer than {timeout_s:g} s") from None
        finally:
            bridge.stop()
            await asyncio.wait({future}, timeout=THREAD_ENDS_WITHIN_S)
            if not future.done() or future.cancelled() or future.exception() is not None or future.result() is not None:
                await _cancel_receiver(port)
    if isinstance(bridge.error, PortError):
        raise bridge.error
    if said is not None:
        raise FlashFailed("transfer", said)


async def _cancel_receiver(port: BytePort) -> None:
    """So that a boot loader does not wait for the rest (two CAN end a transfer; more do no harm)."""
    with suppress(PortError):
        await port.write(bytes([CAN]) * 5, timeout_s=1.0)


def _run(work: Callable[[], bool]) -> str | None:
    """A sentence why not, None if all went well."""
    try:
        return None if work() else "the receiver did not acknowledge the whole file"
    except _Stopped as stopped:
        return stopped.why


def _xmodem(bridge: _Bridge, method: str, image: bytes, pad: int, progress: Progress) -> Callable[[], bool]:
    from xmodem import XMODEM  # needed once in a year, so it costs no memory until then

    size = 1024 if method == "xmodem-1k" else 128
    modem: Any = XMODEM(bridge.read, bridge.write, mode="xmodem1k" if method == "xmodem-1k" else "xmodem", pad=bytes([pad]))
    modem.log = _SILENT

    def told(_total: int, done: int, _errors: int) -> None:
        bridge.tell(progress, min(done * size, len(image)))

    return lambda: bool(modem.send(io.BytesIO(image), retry=XMODEM_RETRIES, timeout=ACK_WITHIN_S, quiet=True, callback=told))


def _ymodem(bridge: _Bridge, image: bytes, progress: Progress) -> Callable[[], bool]:
    from ymodem.Protocol import ProtocolType
    from ymodem.Socket import ModemSocket

    modem: Any = ModemSocket(bridge.read_patiently, bridge.write, ProtocolType.YMODEM)
    modem.logger = _SILENT
    sent = 0

    def told(_index: int, _name: str, _total: int, done: int) -> None:
        nonlocal sent
        sent = done
        bridge.tell(progress, min(done, len(image)))

    def work() -> bool:
        # The library reads a file by its path and tells its name: a sealed copy in memory has both and cannot be exchanged.
        with sealed_copy(image) as path:
            try:
                # It also says "done" when the receiver cancels or never starts, so what was acknowledged decides.
                return bool(modem.send([str(path)], told)) and sent == len(image)
            except _Stopped as stopped:
                _close_file_of(stopped)
                raise

    return work


def _close_file_of(stopped: _Stopped) -> None:
    """The YMODEM library closes the file it reads only where it ends by itself."""
    for frame, _ in traceback.walk_tb(stopped.__traceback__):
        stream = frame.f_locals.get("stream")
        if isinstance(stream, io.BufferedReader):
            stream.close()


class sealed_copy:  # noqa: N801 -- used like a function
    """The image as a path: a file in memory that nobody can change any more, behind a link called firmware.bin."""

    def __init__(self, image: bytes) -> None:
        self._image = image

    def __enter__(self) -> Path:
        import fcntl

        self._fd = os.memfd_create("firmware", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        left = memoryview(self._image)
        while left:
            left = left[os.write(self._fd, left) :]
        fcntl.fcntl(self._fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._folder = tempfile.TemporaryDirectory(prefix="kiosk-fleet-firmware-")
        path = Path(self._folder.name) / "firmware.bin"
        path.symlink_to(f"/proc/{os.getpid()}/fd/{self._fd}")
        return path

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()
        os.close(self._fd)


class _Bridge:
    """The port for a thread: every call waits on the loop. After `stop` each call leaves the library."""

    def __init__(self, port: BytePort, loop: asyncio.AbstractEventLoop) -> None:
        self._port, self._loop = port, loop
        self._stopped = threading.Event()
        self._cancels = 0
        self._answered = False
        self.error: BaseException | None = None

    def stop(self) -> None:
        self._stopped.set()

    def tell(self, progress: Progress, done: int) -> None:
        with suppress(RuntimeError):  # the loop may be gone at the agent's end
            self._loop.call_soon_threadsafe(progress, done)

    def read(self, size: int, timeout: float = 1) -> bytes | None:
        """Exactly `size` bytes, or None."""
        got = bytearray()
        while len(got) < size:
            data = self._wait(self._port.read(max_bytes=size - len(got), timeout_s=timeout), timeout + 1)
            if not data:
                return None
            self._watch(data)
            got += data
        return bytes(got)

    def read_patiently(self, size: int, timeout: float | None = None) -> bytes | None:
        """For a library whose own limit of a second is too short for an erasing flash. Only the first answer to a packet may take that long."""
        got = self.read(size, timeout or 1.0 if self._answered else ACK_WITHIN_S)
        self._answered = got is not None
        return got

    def write(self, data: bytes, _timeout: float | None = None) -> int:
        if len(data) > BATCH_END_AT and data[1] == 0 and data[BATCH_END_AT] == 0:
            return self._end_batch(bytes(data))
        if len(data) > 1:
            while stale := self._wait(self._port.read(max_bytes=4096, timeout_s=0), 1):
                self._watch(stale)
        self._answered = False
        self._wait(self._port.write(bytes(data), timeout_s=WRITE_WITHIN_S), WRITE_WITHIN_S + 1)
        return len(data)

    def _end_batch(self, data: bytes) -> int:
        """The empty name that ends a YMODEM session. The library does not wait until the receiver asks for it, nor for its answer."""
        for _ in range(BATCH_END_TRIES):
            while (asked := self.read(1, ACK_WITHIN_S)) is not None and asked not in (b"C", b"\x15"):
                pass
            self._wait(self._port.write(data, timeout_s=WRITE_WITHIN_S), WRITE_WITHIN_S + 1)
            if self.read(1, 1.0) == b"\x06":
                break
        return len(data)

    def _watch(self, data: bytes) -> None:
        for byte in data:
            self._cancels = self._cancels + 1 if byte == CAN else 0
            if self._cancels == 2:
                raise _Stopped("the receiver cancelled the transfer")

    def _wait(self, call: Any, timeout_s: float) -> Any:
        if self._stopped.is_set():
            call.close()
            raise _Stopped("the transfer was stopped")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            until = timeout_s
            while True:
                try:
                    return future.result(min(0.2, until))
                except FutureTimeout:
                    until -= 0.2
                    if self._stopped.is_set() or until <= 0:
                        future.cancel()
                        raise _Stopped("the transfer was stopped") from None
        except (PortError, FutureCancelled) as err:
            self.error = err
            raise _Stopped("the port is gone") from None
