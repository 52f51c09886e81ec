"""Which days are worked in China, and when a place is open. Statutory days after the State Council's yearly notices for 2025 and 2026.

Pure functions of a date. China has one time zone without daylight saving, so a day is a fixed span of epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from enum import StrEnum

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")
DAY_MS = 86_400_000
MINUTE_MS = 60_000


class DayKind(StrEnum):
    WORKDAY = "workday"
    """Includes weekend days worked in exchange for a holiday."""
    WEEKEND = "weekend"
    HOLIDAY = "holiday"
    """A statutory day or a working day moved to rest."""


def _days(year: int, *spans: str) -> frozenset[date]:
    """`1.1` is 1 January, `1.28-31` four days of it."""
    days = set()
    for span in spans:
        month, _, numbers = span.partition(".")
        first, _, last = numbers.partition("-")
        days |= {date(year, int(month), number) for number in range(int(first), int(last or first) + 1)}
    return frozenset(days)


MADE_UP = _days(2025, "1.26", "2.8", "4.27", "9.28", "10.11") | _days(2026, "1.4", "2.14", "2.28", "5.9", "9.20", "10.10")
"""Saturdays and Sundays that are worked."""
OFF = (
    _days(2025, "1.1", "1.28-31", "2.1-4", "4.4-6", "5.1-5", "5.31", "6.1-2", "10.1-8")
    | _days(2026, "1.1-3", "2.15-23", "4.4-6", "5.1-5", "6.19-21", "9.25-27", "10.1-7")
)  # fmt: skip
"""Holidays including the weekend days inside them."""
KNOWN_YEARS = frozenset({2025, 2026})


def day_kind(day: date) -> DayKind:
    """How a day counts. Years without a notice have plain weeks."""
    if day in MADE_UP:
        return DayKind.WORKDAY
    if day in OFF:
        return DayKind.HOLIDAY
    return DayKind.WEEKEND if day.weekday() >= 5 else DayKind.WORKDAY


def midnight_ms(day: date) -> int:
    """Start of the day in China, milliseconds since 1970 UTC."""
    return int(datetime(day.year, day.month, day.day, tzinfo=SHANGHAI).timestamp()) * 1000


def day_of(moment_ms: int) -> date:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).astimezone(SHANGHAI).date()


Span = tuple[int, int]
"""Minutes since midnight, end exclusive."""


@dataclass(frozen=True)
class Hours:
    """When a place is open, by kind of day."""

    workday: tuple[Span, ...]
    weekend: tuple[Span, ...] = ()
    holiday: tuple[Span, ...] = ()

    def spans(self, day: date) -> tuple[Span, ...]:
        kind = day_kind(day)
        if kind is DayKind.WORKDAY:
            return self.workday
        return self.weekend if kind is DayKind.WEEKEND else self.holiday

    @property
    def always(self) -> bool:
        whole: tuple[Span, ...] = ((0, 1440),)
        return self.workday == self.weekend == self.holiday == whole

    def week(self) -> dict[str, list[list[str]]]:
        """As a table of texts: `{"mon": [["09:00", "12:00"], …], …, "holiday": []}`."""
        by_day = [self.workday] * 5 + [self.weekend] * 2
        names = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
        table = {name: _clock_times(spans) for name, spans in zip(names, by_day, strict=True)}
        return table | {"holiday": _clock_times(self.holiday)}


def _clock_times(spans: Iterable[Span]) -> list[list[str]]:
    return [[f"{start // 60:02d}:{start % 60:02d}", f"{end // 60:02d}:{end % 60:02d}"] for start, end in spans]


STAFF_HOURS = Hours(workday=((510, 720), (810, 1050)))
"""When engineers and site managers work: 8:30-12:00 and 13:30-17:30."""


def after_staff_minutes(start_ms: int, minutes: float) -> int:
    """The moment at which `minutes` of staff time have passed since `start_ms`."""
    day = day_of(start_ms)
    left_ms = minutes * MINUTE_MS
    while True:
        base = midnight_ms(day)
        for begin, end in STAFF_HOURS.spans(day):
            from_ms, to_ms = max(start_ms, base + begin * MINUTE_MS), base + end * MINUTE_MS
            if to_ms <= from_ms:
                continue
            if left_ms <= to_ms - from_ms:
                return int(from_ms + left_ms)
            left_ms -= to_ms - from_ms
        day += timedelta(days=1)
