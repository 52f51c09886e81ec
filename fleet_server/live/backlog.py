"""How far a backlog has been received: a bar with a percentage and a rate. Pure; the caller reads the counts and the clock."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

START_BATCHES: Final = 400
"""Waiting batches from which a bar is worth showing (chosen: a fleet of 400 has one or two each in ordinary life)."""
END_BATCHES: Final = 40
RATE_OVER_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Backlog:
    percent: int
    rate: int
    """Records a second."""


@dataclass(frozen=True, slots=True)
class Load:
    """An announced import: so many records of so many have been handed over."""

    done: int
    total: int


class BacklogMeter:
    """Watches what terminals say is waiting, and what was stored."""

    def __init__(self) -> None:
        self._samples: deque[tuple[int, int]] = deque()
        self._records = 0
        self._stored = 0
        self._stored_at_start: int | None = None

    def update(self, now_ms: int, *, waiting: int, batches: int, records: int, load: Load | None = None) -> Backlog | None:
        """`waiting` batches at the terminals now; `batches` and `records` stored since the last call. None: nothing to show."""
        self._records += records
        self._stored += batches
        self._samples.append((now_ms, self._records))
        while len(self._samples) > 2 and now_ms - self._samples[0][0] > RATE_OVER_MS:
            self._samples.popleft()
        if load is not None and load.done < load.total:
            return Backlog(_percent(load.done, load.total), self._rate())
        if self._stored_at_start is None and waiting >= START_BATCHES:
            self._stored_at_start = self._stored - batches
        if self._stored_at_start is None:
            return None
        if waiting <= END_BATCHES:
            self._stored_at_start = None
            return None
        done = self._stored - self._stored_at_start
        return Backlog(_percent(done, done + waiting), self._rate())

    def _rate(self) -> int:
        (first_ms, first), (last_ms, last) = self._samples[0], self._samples[-1]
        return 0 if last_ms <= first_ms else round((last - first) * 1000 / (last_ms - first_ms))


def _percent(done: int, total: int) -> int:
    """Never 100 before it is over."""
    return min(99, done * 100 // total) if total > 0 else 0
