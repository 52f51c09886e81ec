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
ROAD_S: Final = 0.2
"""What the past may add to the time from capture to acknowledgement (budget: a fault is seen within 1 s)."""
ROAD_LEAST, ROAD_MOST = 64, 256
"""The least is a tenth of a second of the server's work (measured: 1.5 ms a batch), whatever a busy machine makes of it."""
STEP_EVERY_S: Final = 0.2
BASE_OVER_S: Final = 20.0
"""The fastest acknowledgement of this time is what the road takes when it is free."""
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
    captured: int = 0
    """Batches so far; with `depth` this tells how many were acknowledged."""
    timed: tuple[int, float] | None = None
    """The batch whose acknowledgement is waited for, and since when."""


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


class Pace:
    """How many batches may lie on the road, by how long acknowledgements take: more while they are quick, fewer when they queue. Pure."""

    def __init__(self) -> None:
        self.limit = ROAD_LEAST
        self._times: deque[tuple[float, float]] = deque()
        self._stepped_s = 0.0

    def took(self, now_s: float, seconds: float) -> None:
        """A batch was acknowledged so long after its capture."""
        self._times.append((now_s, seconds))
        while self._times and now_s - self._times[0][0] > BASE_OVER_S:
            self._times.popleft()

    def step(self, now_s: float) -> None:
        """Call often; changes the limit a few times a second."""
        recent = [seconds for at_s, seconds in self._times if at_s > self._stepped_s]
        if not recent or now_s - self._stepped_s < STEP_EVERY_S:
            return
        self._stepped_s = now_s
        base_s = min(seconds for _, seconds in self._times)
        queued_s = sum(recent) / len(recent) - base_s
        wanted = self.limit * 1.15 + 2 if queued_s < ROAD_S else self.limit * 0.85
        self.limit = round(max(ROAD_LEAST, min(ROAD_MOST, wanted)))


class Loader:
    """Runs once. `progress` may be read at any time."""

    def __init__(self, entries: Sequence[Entry], days_each: int) -> None:
        self._waiting = deque(entries)
        self._active: list[Entry] = []
        self._draining: list[Entry] = []
        self._pace = Pace()
        self.progress = Progress(days_total=len(entries) * days_each)

    async def run(self) -> None:
        while self._waiting or self._active or self._draining:
            self._fill()
            now_s = time.monotonic()
            self._time(now_s)
            self._pace.step(now_s)
            self.progress.limit = self._pace.limit
            room = self._pace.limit - self._on_road()
            if room > 0 and any(entry.connected() for entry in self._active):
                self._work(room, now_s + SLICE_S)
                await asyncio.sleep(0)
            else:
                await asyncio.sleep(0.005)
        self.progress.ended_s = time.monotonic()

    def _fill(self) -> None:
        self._draining = [entry for entry in self._draining if not self._settled(entry)]
        while self._waiting and len(self._active) < MOST_OPEN and sum(entry.connected() for entry in self._active) < AT_ONCE:
            entry = self._waiting.popleft()
            entry.source = entry.open()
            entry.captured = entry.depth()
            self.progress.days += entry.source.skip_known()
            self._active.append(entry)

    def _settled(self, entry: Entry) -> bool:
        if entry.depth():
            return False
        self.progress.terminals += 1
        return True

    def _on_road(self) -> int:
        return sum(entry.depth() for entry in (*self._active, *self._draining) if entry.connected())

    def _time(self, now_s: float) -> None:
        """Note acknowledgements that were waited for; of a terminal without network none is."""
        for entry in (*self._active, *self._draining):
            if entry.timed is None:
                continue
            number, since_s = entry.timed
            if entry.captured - entry.depth() >= number:
                self._pace.took(now_s, now_s - since_s)
                entry.timed = None
            elif not entry.connected():
                entry.timed = None

    def _work(self, room: int, until_s: float) -> None:
        """Capture days, terminal after terminal, until the road is full or the slice is over."""
        for entry in tuple(self._active):
            if not entry.connected():
                continue
            assert entry.source is not None
            before = entry.depth()
            records = entry.source.next_day()
            sealed = entry.depth() - before
            entry.captured += sealed
            room -= sealed
            if sealed and entry.timed is None:
                entry.timed = entry.captured, time.monotonic()
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
