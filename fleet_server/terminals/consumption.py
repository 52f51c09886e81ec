"""Owns how long a consumable will last: a straight line through the levels told since it was filled last. Pure; takes `now`.

Terminals tell a level when it passes another twentieth of the capacity, so a line needs several of them and some time between them. Where that is
missing there is no estimate: no average of other machines is put in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DAY_MS: Final = 86_400_000
WINDOW_MS: Final = 30 * DAY_MS
"""Older levels say little about today's use. Kiosks with half a case a day pass a step only every week or two."""
LEAST_LEVELS: Final = 3
LEAST_SPAN_MS: Final = DAY_MS
"""Less than a day holds no night; a busy morning is no rate."""
LONGEST_MS: Final = 365 * DAY_MS
"""What lasts longer than a year is not worth a figure."""


@dataclass(frozen=True, slots=True)
class Level:
    at_ms: int
    remaining: int
    is_refill: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """When it will be used up at the observed rate."""

    per_day: float
    empty_ms: int
    levels: int
    """From so many levels, the first of them told at `since_ms`."""
    since_ms: int

    def days_left(self, now_ms: int) -> float:
        return max(0.0, (self.empty_ms - now_ms) / DAY_MS)


def outlook(levels: Sequence[Level], now_ms: int) -> Outlook | None:
    """None where nothing honest can be said: too few levels, too short a time, or no use at all. `levels` are ordered by time."""
    told = _since_refill([level for level in levels if now_ms - WINDOW_MS <= level.at_ms <= now_ms])
    if len(told) < LEAST_LEVELS:
        return None
    first, last = told[0], told[-1]
    span_ms, used = last.at_ms - first.at_ms, first.remaining - last.remaining
    if span_ms < LEAST_SPAN_MS or used <= 0:
        return None
    # If the next level is overdue, the use has slowed down: the time without it counts too.
    usual_ms = span_ms / (len(told) - 1)
    overdue_ms = max(0.0, now_ms - last.at_ms - usual_ms)
    per_ms = used / (span_ms + overdue_ms)
    lasts_ms = last.remaining / per_ms
    if lasts_ms > LONGEST_MS:
        return None
    return Outlook(per_ms * DAY_MS, round(last.at_ms + overdue_ms + lasts_ms), len(told), first.at_ms)


def _since_refill(levels: Sequence[Level]) -> list[Level]:
    """From the last filling on: one that was told, or a level that is higher than the one before."""
    start = 0
    for n, level in enumerate(levels):
        if level.is_refill or (n > 0 and level.remaining > levels[n - 1].remaining):
            start = n
    return list(levels[start:])
