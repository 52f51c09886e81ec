"""Owns when a site opens and closes next, and its week in lines that can be read out. Pure; takes `now`. Days are local days of the site."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from fleet_server.sites.calendar import Calendar, Hours, HoursError, Span, local_day, open_spans_ms, parse_hours

LOOK_AHEAD_DAYS: Final = 14
"""Longer than any holiday, so the next opening is found."""
WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class WeekLine:
    """Days in a row with the same hours; `days` are 0 (Monday) to 6, or empty for public holidays. Spans in minutes after midnight."""

    days: tuple[int, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """`known` False: nobody entered hours that can be read; then nothing else is said."""

    known: bool
    always: bool = False
    is_open: bool = False
    until_ms: int | None = None
    """End of the opening time it is in; None while closed or always open."""
    next_ms: int | None = None
    """Start of the next opening time, while closed."""
    again_ms: int | None = None
    """While open: when it opens again on the same day, after a break."""
    today: tuple[Span, ...] = ()
    """Minutes after midnight."""
    week: tuple[WeekLine, ...] = ()


UNKNOWN_HOURS: Final = Opening(known=False)


@lru_cache(maxsize=4096)
def readable(text: str) -> Hours | None:
    """Hours that say anything; None for empty ones and such as cannot be read."""
    try:
        hours = parse_hours(text)
    except HoursError:
        return None
    return hours if hours.always or any(hours.week) or hours.holiday or hours.dates else None


def opening(hours: Hours | None, calendar: Calendar, zone: str, now_ms: int) -> Opening:
    """How a site with these hours stands at `now_ms`."""
    if hours is None:
        return UNKNOWN_HOURS
    if hours.always and not _has_dates(hours, local_day(now_ms, zone)):
        return Opening(known=True, always=True, is_open=True, today=((0, 1440),), week=week_lines(hours))
    today = local_day(now_ms, zone)
    spans = _spans(hours, calendar, zone, today)
    current = next((span for span in spans if span[0] <= now_ms < span[1]), None)
    following = next((span for span in spans if span[0] > now_ms), None)
    start_ms = _midnight_ms(calendar, zone, today)
    again = current is not None and following is not None and local_day(following[0], zone) == today
    return Opening(
        known=True,
        is_open=current is not None,
        until_ms=current[1] if current else None,
        next_ms=following[0] if current is None and following else None,
        again_ms=following[0] if again and following else None,
        today=tuple(
            ((start - start_ms) // 60_000, (end - start_ms) // 60_000)
            for start, end in open_spans_ms(hours, calendar, zone, today)
        ),
        week=week_lines(hours),
    )


def _has_dates(hours: Hours, today: str) -> bool:
    """Whether a day that is looked at has hours of its own: then even a site that never closes may."""
    first = date.fromisoformat(today)
    return any(0 <= (day - first).days <= LOOK_AHEAD_DAYS for day, _ in hours.dates)


@lru_cache(maxsize=4096)
def _spans(hours: Hours, calendar: Calendar, zone: str, today: str) -> tuple[Span, ...]:
    """Opening times from today on; what touches (up to midnight, and on from midnight) is one."""
    first = date.fromisoformat(today)
    joined: list[Span] = []
    for n in range(LOOK_AHEAD_DAYS + 1):
        for start, end in open_spans_ms(hours, calendar, zone, (first + timedelta(days=n)).isoformat()):
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
    return tuple(joined)


@lru_cache(maxsize=256)
def _midnight_ms(calendar: Calendar, zone: str, day: str) -> int:
    return open_spans_ms(Hours(week=((),) * 7, always=True), calendar, zone, day)[0][0]


@lru_cache(maxsize=4096)
def week_lines(hours: Hours) -> tuple[WeekLine, ...]:
    """The week, equal neighbours together, and holidays last."""
    if hours.always:
        return (WeekLine(tuple(range(7)), ((0, 1440),)),)
    lines: list[WeekLine] = []
    for day, spans in enumerate(hours.week):
        if lines and lines[-1].spans == spans:
            lines[-1] = WeekLine((*lines[-1].days, day), spans)
        else:
            lines.append(WeekLine((day,), spans))
    return (*lines, WeekLine((), hours.holiday))
