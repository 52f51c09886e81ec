"""Owns what the agent knows about time: two clocks, how far to trust the wall clock, and when to write that down.

Time is never a reason to refuse anything here. The wall clock of a kiosk without a battery starts in 1970; every record therefore also carries the
boot clock, and a `clock` record later ties the two together.
"""

from __future__ import annotations

import ctypes
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from protocols.contract.limits import CLOCK_STEP_MS
from protocols.contract.records import Clock as ClockBody
from protocols.contract.records import ClockQuality

log = logging.getLogger(__name__)

BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
TIMESYNC_MARK = Path("/run/systemd/timesync/synchronized")
"""Touched by systemd-timesyncd at the first synchronisation of a boot and kept until reboot (systemd-timesyncd.service(8))."""
BUILD_FLOOR_MS = 1_767_225_600_000
"""2026-01-01 UTC: this software did not exist before, so an earlier wall clock is wrong."""
STA_UNSYNC = 0x0040
"""Status bit of adjtimex(2): no daemon disciplines the clock."""


class Clock(Protocol):
    """Where every part of the agent reads time; passed in, so that simulated terminals can live in another year."""

    def wall_ms(self) -> int: ...
    def boot_ms(self) -> int: ...
    def quality(self) -> ClockQuality: ...


class _Timex(ctypes.Structure):
    """`struct timex` of <sys/timex.h>, as long as the kernel writes it (208 bytes on 64-bit Linux)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time_sec", ctypes.c_long),
        ("time_usec", ctypes.c_long),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def kernel_says_synchronised() -> bool | None:
    """Whether a daemon disciplines the kernel clock (adjtimex(2), read only); None where the call is not to be had."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    timex = _Timex()  # modes = 0: nothing is set, so no privilege is needed
    if adjtimex(ctypes.byref(timex)) < 0:
        return None
    return not timex.status & STA_UNSYNC


class SystemClock:
    """The host's clocks. `synced_before`: an earlier run of the agent saw a synchronised clock in this same boot."""

    def __init__(
        self,
        *,
        synced_before: bool = False,
        synchronised: Callable[[], bool | None] = kernel_says_synchronised,
        timesync_mark: Path = TIMESYNC_MARK,
    ) -> None:
        self._synchronised = synchronised
        self._mark = timesync_mark
        self._was_synced = synced_before
        self._checked_ms = -_QUALITY_AGE_MS
        self._quality = ClockQuality.UNSET

    def wall_ms(self) -> int:
        return max(0, time.time_ns() // 1_000_000)

    def boot_ms(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def quality(self) -> ClockQuality:
        """Asked at most once a second, whatever the rate of records."""
        now = self.boot_ms()
        if now - self._checked_ms >= _QUALITY_AGE_MS:
            self._checked_ms = now
            self._quality = self._read()
        return self._quality

    def _read(self) -> ClockQuality:
        if self._synchronised():
            self._was_synced = True
            return ClockQuality.SYNCED
        if self._was_synced or self._mark.exists():
            self._was_synced = True
            return ClockQuality.HOLDOVER
        return ClockQuality.UNSET


_QUALITY_AGE_MS = 1000


def read_boot_id(path: Path = BOOT_ID_PATH) -> bytes:
    """The kernel's boot id, 16 bytes; all zero where the kernel does not tell (the streams stay distinct without it)."""
    try:
        return uuid.UUID(path.read_text(encoding="ascii").strip()).bytes
    except (OSError, ValueError):
        log.warning("the kernel's boot id cannot be read", extra={"path": str(path)})
        return bytes(16)


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Both clocks and the quality, read together."""

    wall_ms: int
    boot_ms: int
    quality: ClockQuality

    @property
    def offset_ms(self) -> int:
        """Wall time at boot, as this reading has it."""
        return self.wall_ms - self.boot_ms


def read(clock: Clock) -> ClockReading:
    return ClockReading(wall_ms=clock.wall_ms(), boot_ms=clock.boot_ms(), quality=clock.quality())


class ClockWatch:
    """Pure: from successive readings of one boot to the `clock` records that must be written.

    One is due when the clock becomes synchronised (or is, at the first reading), and when wall time has moved against boot time by more than
    `step_ms` since the last fixed point, at once or little by little.
    """

    def __init__(self, step_ms: int = CLOCK_STEP_MS) -> None:
        self._limit_ms = step_ms
        self._fixed: ClockReading | None = None
        self._quality: ClockQuality | None = None

    def observe(self, reading: ClockReading) -> ClockBody | None:
        """The record due at this reading, or None."""
        became_synced = reading.quality is ClockQuality.SYNCED and self._quality is not ClockQuality.SYNCED
        step_ms = 0 if self._fixed is None else reading.offset_ms - self._fixed.offset_ms
        if self._fixed is None:
            self._fixed = reading
        self._quality = reading.quality
        if not became_synced and abs(step_ms) <= self._limit_ms:
            return None
        self._fixed = reading
        return ClockBody(boot_ms=reading.boot_ms, wall_ms=reading.wall_ms, quality=reading.quality, step_ms=step_ms)


class TimeFloor:
    """Pure: the latest moment that is surely past. Advice only: it raises a condition and never stops a record."""

    def __init__(self, known_ms: int = 0, build_ms: int = BUILD_FLOOR_MS) -> None:
        self._floor_ms = max(known_ms, build_ms)
        self._build_ms = build_ms

    @property
    def floor_ms(self) -> int:
        return self._floor_ms

    def learn(self, wall_ms: int) -> bool:
        """A time of a synchronised clock; True if the floor rose and is worth keeping."""
        if wall_ms <= self._floor_ms:
            return False
        self._floor_ms = wall_ms
        return True

    def hear(self, server_ms: int) -> None:
        """A time that the server has signed just now. It also lowers the floor: the server's clock was put right, or somebody's lie is over."""
        self._floor_ms = max(server_ms, self._build_ms)

    def behind_ms(self, wall_ms: int) -> int:
        """How far `wall_ms` lies before what is surely past; 0 if it does not."""
        return max(0, self._floor_ms - wall_ms)
