"""What the writers of facts share: the batch they work on, its corrected items, and what their rows make necessary afterwards."""

from __future__ import annotations

import sqlite3
from functools import cached_property
from typing import Generic, NamedTuple, TypeVar

from fleet_server.facts import StoredBatch
from fleet_server.sites.calendar import DEFAULT_ZONE, local_day, local_days
from protocols.contract.records import Body

B = TypeVar("B", bound=Body)
LONGEST_SPAN_MS = 2 * 86_400_000
"""No summary covers more than a day; a longer span began before the clock was set."""


class Item(NamedTuple, Generic[B]):
    """A record with its corrected capture time; `moved_ms` is what the correction added."""

    idx: int
    at_ms: int
    moved_ms: int
    body: B

    def earlier_ms(self, told_ms: int) -> int:
        """A time told inside the body, corrected like the record, never after its capture."""
        return min(max(0, told_ms + self.moved_ms), self.at_ms)

    def span_ms(self, from_ms: int, to_ms: int) -> tuple[int, int]:
        """The span of a summary, corrected like the record and no longer than LONGEST_SPAN_MS."""
        end_ms = self.earlier_ms(to_ms)
        return min(max(from_ms + self.moved_ms, end_ms - LONGEST_SPAN_MS, 0), end_ms), end_ms


class Work:
    """One batch being projected. Nothing is written for `dirty` days and `hints` before `finish`."""

    def __init__(self, conn: sqlite3.Connection, batch: StoredBatch) -> None:
        self.conn = conn
        self.batch = batch
        self.disputed = int(batch.disputed)
        self.unsettled: set[str] = set()
        """Device slots whose current row must be taken from a batch other than this one."""
        self._dirty: set[str] = set()
        self._hints: dict[tuple[str, str | None], None] = {}

    @cached_property
    def zone(self) -> str:
        return zone_of_terminal(self.conn, self.batch.terminal)

    def day(self, at_ms: int) -> str:
        """The local day of `at_ms`, whose figures become dirty."""
        day = local_day(at_ms, self.zone)
        self._dirty.add(day)
        return day

    def span(self, from_ms: int, to_ms: int) -> None:
        self._dirty.update(local_days(from_ms, to_ms, self.zone))

    def hint(self, kind: str, ref: str | None = None) -> None:
        self._hints[kind, ref] = None

    def finish(self) -> None:
        if self.batch.disputed:
            return
        terminal = self.batch.terminal
        if self._dirty:
            mark_dirty(self.conn, terminal, self._dirty)
        if self._hints:
            self.conn.executemany(
                "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, ?, ?)",
                [(self.batch.committed_ms, terminal, kind, ref) for kind, ref in self._hints],
            )


def zone_of_terminal(conn: sqlite3.Connection, terminal: str) -> str:
    row = conn.execute(
        "SELECT site.timezone FROM terminal JOIN site ON site.code = terminal.site WHERE terminal.id = ?", (terminal,)
    ).fetchone()
    return row[0] if row and row[0] else DEFAULT_ZONE


def mark_dirty(conn: sqlite3.Connection, terminal: str, days: set[str]) -> None:
    conn.executemany("INSERT OR IGNORE INTO dirty_day (terminal, day) VALUES (?, ?)", [(terminal, day) for day in sorted(days)])
