"""Owns the decision what wall time a record gets: the terminal's own, or boot time put right by the fixed points of that boot. Pure.

Time is never a reason to refuse a record, so a wrong clock (1970 without a battery, a day off either way) is put right here, and again whenever a
better fixed point arrives.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import msgspec

from protocols.contract.records import ClockQuality

CREDIBLE_MS = 600_000
"""Two clocks further apart than this cannot both be right. Chosen: a month without synchronisation drifts less (200 ppm in 30 days is 8.6 minutes),
and less than this moves no case to another quarter of an hour."""
FLOOR_MS = 1_767_225_600_000
"""2026-01-01 UTC: this software did not exist before, so an earlier clock that was never set is wrong."""
LATE_MS = 120_000
"""A fact received longer than this after its capture was delivered late."""


class Fix(msgspec.Struct, frozen=True, order=True):
    """A fixed point: the boot clock and a synchronised wall clock, read together."""

    boot_ms: int
    wall_ms: int

    @property
    def offset_ms(self) -> int:
        return self.wall_ms - self.boot_ms


class Timing:
    """Pure: wall times of one boot after its fixed points; independent of the order in which they came.

    The last fixed point is right; one before it is right if it agrees with the next right one within CREDIBLE_MS, which lets slow drift pass and not
    a clock that was synchronised to a wrong time.
    """

    def __init__(self, fixes: Iterable[Fix] = ()) -> None:
        right: list[Fix] = []
        for fix in sorted(fixes, reverse=True):
            if not right or abs(fix.offset_ms - right[-1].offset_ms) <= CREDIBLE_MS:
                right.append(fix)
        right.reverse()
        self._boots = [fix.boot_ms for fix in right]
        self._offsets = [fix.offset_ms for fix in right]

    def __bool__(self) -> bool:
        """Whether anything is known about this boot."""
        return bool(self._boots)

    def wall_ms(self, wall_ms: int, quality: ClockQuality, boot_ms: int) -> int:
        """The wall time of a record that said `wall_ms`: its own word where the fixed points do not contradict it."""
        if not self._boots:
            return wall_ms
        nearest = min(bisect_left(self._boots, boot_ms), len(self._boots) - 1)
        fixed_ms = boot_ms + self._offsets[nearest]
        if quality is ClockQuality.UNSET or abs(wall_ms - fixed_ms) > CREDIBLE_MS:
            return max(0, fixed_ms)
        return wall_ms

    def adds_nothing(self, fix: Fix) -> bool:
        """Whether `fix` leaves every time before it as it is: it comes last and agrees with what is known."""
        return bool(self._boots) and fix.boot_ms >= self._boots[-1] and abs(fix.offset_ms - self._offsets[-1]) <= CREDIBLE_MS


class BatchTimes:
    """Pure: wall times of one batch's records, bounded by its arrival.

    What lies behind the arrival, or was said before 2026 by a clock that nothing ever set, is dated back from the arrival by boot time, which is an
    upper bound.
    """

    def __init__(self, timing: Timing, received_ms: int, last_boot_ms: int) -> None:
        self._timing = timing
        self._received_ms = received_ms
        self._last_boot_ms = last_boot_ms
        self._latest_ms = received_ms + CREDIBLE_MS

    def at_ms(self, wall_ms: int, quality: ClockQuality, boot_ms: int) -> int:
        at_ms = self._timing.wall_ms(wall_ms, quality, boot_ms)
        impossible = at_ms > self._latest_ms or (at_ms < FLOOR_MS and quality is ClockQuality.UNSET and not self._timing)
        return max(0, self._received_ms - max(0, self._last_boot_ms - boot_ms)) if impossible else at_ms


def is_late(at_ms: int, received_ms: int) -> bool:
    return received_ms - at_ms > LATE_MS
