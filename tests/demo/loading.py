"""Brings the past of many terminals in, a few at a time, and never more at once than the server takes in a fraction of a second.

What lies unacknowledged on the road delays whatever comes after it; a fault of any terminal must still show within a second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

log = logging.getLogger(__name__)

AT_ONCE: Final = 6
"""Terminals whose past is on the road together."""
MOST_OPEN: Final = 24
"""With those that have begun and lost their network."""
ROAD_S: Final = 0.25
"""How long the batches on the road may keep the server busy (budget: a fault is seen within 1 s)."""
ROAD_LEAST, ROAD_MOST = 24, 256
RATE_OVER_S: Final = 2.0
SLICE_S: Final = 0.005
"""Work in one go before other tasks of the loop get their turn."""


class Source(Protocol):
    """A terminal's past on its way."""

    def next_day(self) -> int | None: ...
    def skip_known(self) -> int: ...


@dataclass
class Entry:
    """`open` makes the source when its turn comes; `depth` says how many of the terminal's batches are not acknowledged.

    While the terminal is not `connected` it is passed over, and what it holds is not on the road.
    """

    name: str
    open: Callable[[], Source]
    depth: Callable[[], int]
    connected: Callable[[], bool] = lambda: True
    source: Source | None = None


@dataclass
class Progress:
    """Days are what is planned, records what they became."""

    days_total: int
    days: int = 0
    records: int = 0
    terminals: int = 0
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float | None = None
    limit: int = ROAD_LEAST

    @property
    def done(self) -> bool:
        return self.ended_s is not None


class RateMeter:
    """Batches acknowledged per second, over the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now_s: float, acknowledged: int) -> None:
        self._samples.append((now_s, acknowledged))
        while len(self._samples) > 2 and now_s - self._samples[0][0] > RATE_OVER_S:
            self._samples.popleft()

    def per_s(self) -> float:
        if len(self._samples) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        return (last - first) / max(1e-3, last_s - first_s)


def road_limit(rate_per_s: float) -> int:
    """Batches that may lie on the road: as many as are taken in ROAD_S, so what comes behind waits no longer (Little's law)."""
    return max(ROAD_LEAST, min(ROAD_MOST, round(rate_per_s * ROAD_S)))


class Loader:
    """Runs once. `progress` may be read at any time."""

    def __init__(self, entries: Sequence[Entry], days_each: int) -> None:
        self._waiting = deque(entries)
        self._active: list[Entry] = []
        self._draining: list[Entry] = []
        self._meter = RateMeter()
        self._captured = 0
        self._days_each = days_each
        self.progress = Progress(days_total=len(entries) * days_each)

    async def run(self) -> None:
        noted_s = 0.0
        while self._waiting or self._active or self._draining:
            self._fill()
            on_road = self._on_road()
            now_s = time.monotonic()
            if now_s - noted_s >= 0.1:
                noted_s = now_s
                self._meter.note(now_s, self._captured - on_road)
                self.progress.limit = road_limit(self._meter.per_s())
            room = self.progress.limit - on_road
            if room > 0 and any(entry.connected() for entry in self._active):
                self._work(room, now_s + SLICE_S)
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(0.01)
        self.progress.ended_s = time.monotonic()

    def _fill(self) -> None:
        self._draining = [entry for entry in self._draining if not self._settled(entry)]
        while self._waiting and len(self._active) < MOST_OPEN and sum(entry.connected() for entry in self._active) < AT_ONCE:
            entry = self._waiting.popleft()
            entry.source = entry.open()
            self.progress.days += entry.source.skip_known()
            self._active.append(entry)

    def _settled(self, entry: Entry) -> bool:
        if entry.depth():
            return False
        self.progress.terminals += 1
        return True

    def _on_road(self) -> int:
        return sum(entry.depth() for entry in (*self._active, *self._draining) if entry.connected())

    def _work(self, room: int, until_s: float) -> None:
        """Capture days, terminal after terminal, until the road is full or the slice is over."""
        for entry in tuple(self._active):
            if not entry.connected():
                continue
            assert entry.source is not None
            before = entry.depth()
            records = entry.source.next_day()
            self._captured += entry.depth() - before
            room -= entry.depth() - before
            if records is None:
                self._active.remove(entry)
                self._draining.append(entry)
            else:
                self.progress.days += 1
                self.progress.records += records
            if room <= 0 or time.monotonic() >= until_s:
                break
        # Whose turn it was goes to the end, so that all move on alike.
        if self._active:
            self._active.append(self._active.pop(0))
