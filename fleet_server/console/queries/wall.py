"""Reads for the wallboard's view of usage."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from fleet_server.engine import FleetEngine
from fleet_server.sites.calendar import day_span_ms

WEEKS: Final = 4
"""The mean of an hour is over so many earlier days of the same weekday (chosen: a month)."""
KEEP_MS: Final = 20_000
HOURS: Final = range(24)


@dataclass(frozen=True, slots=True)
class Usage:
    """Cases of today, hour by hour, beside what the same weekday usually has."""

    today: tuple[int, ...]
    usual: tuple[float, ...]
    """Mean of the earlier days that had any case; zeros if none had."""
    yesterday: int
    """Until the same time of day."""
    success: int
    with_cases: int
    """Terminals."""

    @property
    def cases(self) -> int:
        return sum(self.today)


class UsageReader:
    """Keeps its answer a while: screens ask often, and cases come slowly."""

    def __init__(self, db: FleetEngine, zone: str, now_ms: Callable[[], int]) -> None:
        self._db, self._zone, self._now_ms = db, zone, now_ms
        self._lock = asyncio.Lock()
        self._kept: Usage | None = None
        self._kept_ms = 0
        self._usual: tuple[str, tuple[float, ...]] = ("", ())

    async def read(self, today: str) -> Usage:
        async with self._lock:
            now_ms = self._now_ms()
            if self._kept is None or not 0 <= now_ms - self._kept_ms < KEEP_MS:
                self._kept, self._kept_ms = await self._read(today, now_ms), now_ms
            return self._kept

    async def _read(self, today: str, now_ms: int) -> Usage:
        start_ms, _ = day_span_ms(today, self._zone)
        day = date.fromisoformat(today)
        before_ms, _ = day_span_ms((day - timedelta(days=1)).isoformat(), self._zone)
        if self._usual[0] != today:
            self._usual = (today, await self._mean(day))
        rows = await self._db.read(_TODAY, {"start": start_ms, "end": now_ms + 1})
        hours: Counter[int] = Counter()
        for row in rows:
            hours[min(23, row["hour"])] += row["cases"]
        until = {"start": before_ms, "end": before_ms + now_ms - start_ms}
        yesterday = (await self._db.read(_COUNT, until))[0]["cases"]
        return Usage(
            today=tuple(hours[hour] for hour in HOURS),
            usual=self._usual[1],
            yesterday=yesterday,
            success=sum(row["success"] for row in rows),
            with_cases=len({row["terminal"] for row in rows}),
        )

    async def _mean(self, day: date) -> tuple[float, ...]:
        hours: Counter[int] = Counter()
        days = 0
        for week in range(1, WEEKS + 1):
            start_ms, end_ms = day_span_ms((day - timedelta(weeks=week)).isoformat(), self._zone)
            rows = await self._db.read(_TODAY, {"start": start_ms, "end": end_ms})
            days += bool(rows)
            for row in rows:
                hours[min(23, row["hour"])] += row["cases"]
        return tuple(hours[hour] / days if days else 0.0 for hour in HOURS)


_TODAY: Final = (
    "SELECT s.terminal, (s.began_ms - :start) / 3600000 AS hour, count(*) AS cases, sum(s.outcome = 'success') AS success"
    " FROM session s JOIN terminal t ON t.id = s.terminal WHERE s.began_ms >= :start AND s.began_ms < :end AND s.disputed = 0"
    " AND t.revoked_ms IS NULL GROUP BY s.terminal, hour"
)
_COUNT: Final = (
    "SELECT count(*) AS cases FROM session s JOIN terminal t ON t.id = s.terminal"
    " WHERE s.began_ms >= :start AND s.began_ms < :end AND s.disputed = 0 AND t.revoked_ms IS NULL"
)
