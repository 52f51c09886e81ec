"""A serial device model behind a pseudo-terminal with a stable name, for programs that open a tty.

The line speed is read from the terminal settings, so that a wrong speed garbles both ways as it would on copper. What a pty cannot do: parity and
7-bit lines (refused by the kernel), modem lines, line noise, and the time bytes need (models pace themselves).

Two drivers share one `PtyLine`: `AsyncPty` on an event loop and `ThreadPty` with a thread of its own.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import termios
import threading
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from simulators.errors import SimulatorError
from simulators.models.base import Model

Clock = Callable[[], float]
READ_BYTES = 4096

_SPEEDS = {
    getattr(termios, name): int(name[1:])
    for name in ("B50", "B1200", "B2400", "B4800", "B9600", "B19200", "B38400", "B57600", "B115200", "B230400")
}
_UNUSED_SPEED = termios.B50
_SPEED_IN, _SPEED_OUT = 4, 5


class PtyLine:
    """The master side, without waiting. `fileno` becomes readable when `service` has something to do."""

    def __init__(self, model: Model, link: Path, clock: Clock = time.monotonic) -> None:
        self.model = model
        self.link = link
        self._clock = clock
        self._master = -1
        self._holder = -1
        self._name = ""
        self._refuses = False
        self._events = select.epoll()
        self._closed = False

    def fileno(self) -> int:
        return self._events.fileno()

    @property
    def device(self) -> Path | None:
        """The tty behind the link, None while unplugged."""
        return Path(os.readlink(self.link)) if self._master >= 0 else None  # noqa: PTH115 - resolve() would follow further

    def service(self) -> float | None:
        """Move bytes both ways and follow plug and unplug; returns when to call again at the latest (monotonic), None for no time."""
        if self._closed:
            return None
        self._follow_plug()
        if self._master < 0:
            return self.model.next_due()
        hung_up = any(mask & select.EPOLLHUP for _, mask in self._events.poll(0))
        self._read_all()
        if hung_up and self._nobody_listens():
            self._forget_line_settings()
        self._hold_for_another_program()
        self._refuse_settings()
        if self._master >= 0:
            self._write_due()
        return self.model.next_due()

    def close(self) -> None:
        if not self._closed:
            self._unplug()
            self._events.close()
            self._closed = True

    # ------------------------------------------------------------------ private

    def _follow_plug(self) -> None:
        if self.model.plugged and self._master < 0:
            self._plug()
        elif not self.model.plugged and self._master >= 0:
            self._unplug()

    def _hold_for_another_program(self) -> None:
        """`in-use`: the advisory lock that programs asking for exclusive access run into. Taken as soon as whoever has it lets go."""
        wanted = self.model.has("in-use")
        if wanted and self._holder < 0 and self.device is not None:
            holder = os.open(self.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(holder)
            else:
                self._holder = holder
        elif not wanted:
            self._let_go()

    def _refuse_settings(self) -> None:
        """`refused`: what the link names takes no line setting (errno 25). Whoever has the line open keeps it."""
        wanted = self.model.has("refused")
        if wanted != self._refuses and self._master >= 0:
            self._refuses = wanted
            self._point_link("/dev/null" if wanted else self._name)

    def _let_go(self) -> None:
        if self._holder >= 0:
            os.close(self._holder)
            self._holder = -1

    def _plug(self) -> None:
        master, slave = os.openpty()
        try:
            tty.setraw(slave)
            self._name = os.ttyname(slave)
        finally:
            os.close(slave)
        os.set_blocking(master, False)
        self._master = master
        self._forget_line_settings()
        # Edge-triggered, because a master without an open slave is hung up all the time and would keep a level-triggered wait spinning.
        self._events.register(master, select.EPOLLIN | select.EPOLLET)
        self._refuses = False
        try:
            self._point_link(self._name)
        except OSError as err:
            self._unplug()
            raise SimulatorError(f"Cannot make the link {self.link}: {err.strerror}.") from err

    def _point_link(self, target: str) -> None:
        temporary = self.link.with_name(f".{self.link.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(self.link)

    def _unplug(self) -> None:
        self._let_go()
        if self._master >= 0:
            self.link.unlink(missing_ok=True)
            self._events.unregister(self._master)
            os.close(self._master)
            self._master = -1

    def _forget_line_settings(self) -> None:
        """After a client has gone, set a speed nobody uses.

        A pty drops parity silently on the first open, but from then on glibc's tcsetattr reports EINVAL because nothing changed. With another speed
        set in between, every open changes something and succeeds.
        """
        with suppress(termios.error, OSError):
            settings = termios.tcgetattr(self._master)
            settings[_SPEED_IN] = settings[_SPEED_OUT] = _UNUSED_SPEED
            termios.tcsetattr(self._master, termios.TCSANOW, settings)

    def _line_baud(self) -> int | None:
        """What the client set; None while it set nothing."""
        try:
            speed = termios.tcgetattr(self._master)[_SPEED_OUT]
        except (termios.error, OSError):
            return None
        return None if speed == _UNUSED_SPEED else _SPEEDS.get(speed)

    def _read_all(self) -> None:
        while self._master >= 0:
            try:
                data = os.read(self._master, READ_BYTES)
            except OSError:
                return  # nothing there, or nobody has the slave open (EIO)
            if not data:
                return
            self.model.feed(data, self._clock(), line_baud=self._line_baud())

    def _write_due(self) -> None:
        data = self.model.take(self._clock(), READ_BYTES, line_baud=self._line_baud())
        if not data or self._nobody_listens():
            return
        with suppress(BlockingIOError, OSError):
            os.write(self._master, data)  # what the client's full buffer does not take is lost, as on a UART

    def _nobody_listens(self) -> bool:
        poll = select.poll()
        poll.register(self._master, 0)
        return any(mask & select.POLLHUP for _, mask in poll.poll(0))


class AsyncPty:
    """Drives a PtyLine on the running event loop, without a task."""

    def __init__(self, model: Model, link: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self.line = PtyLine(model, link, self._loop.time)
        self._timer: asyncio.TimerHandle | None = None
        self._unsubscribe = model.subscribe(self._wake)
        self._service()
        self._loop.add_reader(self.line.fileno(), self._service)

    def _wake(self) -> None:
        """Models may be steered from another thread."""
        self._loop.call_soon_threadsafe(self._service)

    def _service(self) -> None:
        due = self.line.service()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self._loop.call_at(max(due, self._loop.time() + 0.0005), self._service)

    def close(self) -> None:
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self.line.fileno())
        self.line.close()


class ThreadPty:
    """Drives a PtyLine in a thread; a context manager, for programs and tests that block."""

    def __init__(self, model: Model, link: Path) -> None:
        self.line = PtyLine(model, link)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK)
        self._stop = threading.Event()
        self._unsubscribe = model.subscribe(self._wake)
        self.line.service()
        self._thread = threading.Thread(target=self._run, name=f"pty-{link.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> ThreadPty:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"w")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self.line.fileno(), select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while not self._stop.is_set():
            due = self.line.service()
            wait_ms = None if due is None else max(1.0, (due - time.monotonic()) * 1000)
            for fd, _ in poll.poll(wait_ms):
                if fd == self._wake_read:
                    os.read(self._wake_read, READ_BYTES)

    def close(self) -> None:
        """Returns when the thread has ended and the link is gone."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._unsubscribe()
        self._wake()
        self._thread.join()
        self.line.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
