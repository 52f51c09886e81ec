"""Owns when a site is open: weekly hours, holidays and moved working days, and what kind of time a case began in. Pure; reads no clock.

Days are local days of the site's time zone; `*_ms` are milliseconds UTC.
"""

from __future__ import annotations

import sqlite3
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from importlib import resources
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from fleet_server.errors import Refused

DEFAULT_ZONE = "Asia/Shanghai"
DAY_MS = 86_400_000
WARN_FROM = (12, 1)
"""Month and day from which the next year's holidays must be known: the notice appears early in November."""
_SHANGHAI_MS = 8 * 3_600_000  # UTC+8 without daylight saving since September 1991
_MINUTES_PER_DAY = 24 * 60
_MAKE_UP_PATTERN = 0
"""A make-up working day has Monday's hours: the notices name no weekday that it stands for."""

Span = tuple[int, int]
DayKind = Literal["work", "weekend", "holiday"]


class HoursError(Refused):
    """Opening hours that cannot be read."""

    def __init__(self, reason: str) -> None:
        super().__init__("hours", reason)


class TimeClass(StrEnum):
    """What kind of time a case began in; the first that fits, in this order."""

    HOLIDAY = "HOLIDAY"
    WEEKEND = "WEEKEND"
    NOON = "NOON"
    BEFORE_HOURS = "BEFORE_HOURS"
    AFTER_HOURS = "AFTER_HOURS"
    WORK = "WORK"


# Opening hours --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hours:
    """Opening periods in minutes after midnight, ordered and disjoint: Monday first, then those of a holiday."""

    week: tuple[tuple[Span, ...], ...]
    holiday: tuple[Span, ...] = ()
    always: bool = False
    dates: tuple[tuple[date, tuple[Span, ...]], ...] = ()
    """Days with hours of their own, ordered, whatever else would hold; without periods the site is closed on that day."""

    def on_date(self, day: date) -> tuple[Span, ...] | None:
        """The periods of a day that has hours of its own, else None."""
        return next((spans for own, spans in self.dates if own == day), None)


NEVER = Hours(week=((),) * 7)
ALWAYS = Hours(week=((),) * 7, always=True)
_Periods = tuple[tuple[str, str], ...]


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mon: _Periods = ()
    tue: _Periods = ()
    wed: _Periods = ()
    thu: _Periods = ()
    fri: _Periods = ()
    sat: _Periods = ()
    sun: _Periods = ()
    holiday: _Periods = ()
    always: bool = False
    dates: dict[str, _Periods] = msgspec.field(default_factory=dict)


@lru_cache(maxsize=4096)
def parse_hours(text: str) -> Hours:
    """Hours from a site's JSON. Raises HoursError.

    `{"mon": [["09:00", "12:00"], ["13:30", "17:00"]], …, "holiday": […], "always": false, "dates": {"2026-12-24": []}}`.
    """
    try:
        stored = msgspec.json.decode(text, type=_Stored)
    except (msgspec.ValidationError, msgspec.DecodeError):
        raise HoursError("format") from None
    days = (stored.mon, stored.tue, stored.wed, stored.thu, stored.fri, stored.sat, stored.sun)
    return Hours(
        week=tuple(_periods(day) for day in days),
        holiday=_periods(stored.holiday),
        always=stored.always,
        dates=tuple(sorted((_date(day), _periods(spans)) for day, spans in stored.dates.items())),
    )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise HoursError("day") from None


def _periods(pairs: Iterable[tuple[str, str]]) -> tuple[Span, ...]:
    spans = tuple((_minutes(start), _minutes(end)) for start, end in pairs)
    edges = [edge for span in spans for edge in span]
    if any(start >= end for start, end in spans) or edges != sorted(edges):
        raise HoursError("order")
    return spans


def _minutes(text: str) -> int:
    if text == "24:00":
        return _MINUTES_PER_DAY
    try:
        at = time.fromisoformat(text)
    except ValueError:
        raise HoursError("time") from None
    if len(text) != len("09:00"):
        raise HoursError("time")
    return at.hour * 60 + at.minute


# Working days ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, slots=True)
class Calendar:
    """Which days are off although they are weekdays, or worked although they are not."""

    off: frozenset[date]
    work: frozenset[date]
    years: frozenset[int]
    """Years whose holidays are known."""

    def kind(self, day: date) -> DayKind:
        if day in self.off:
            return "holiday"
        return "weekend" if day.weekday() >= 5 and day not in self.work else "work"

    def is_make_up(self, day: date) -> bool:
        """A weekend day that is worked."""
        return day in self.work

    def add_working_days(self, day: date, count: int) -> date:
        """The `count`-th working day after `day`."""
        while count > 0:
            day += timedelta(days=1)
            count -= self.kind(day) == "work"
        return day

    def missing_years(self, today: date) -> tuple[int, ...]:
        """Years whose holidays should be known by `today` and are not: this one, from 1 December the next."""
        due = (today.year, today.year + 1) if (today.month, today.day) >= WARN_FROM else (today.year,)
        return tuple(year for year in due if year not in self.years)


@lru_cache(maxsize=1)
def builtin_years() -> dict[str, Any]:
    """The file of the years that come with this version: by year `notice`, `off` (name_zh, name_en, from, to) and `work`."""
    return tomllib.loads(resources.files("fleet_server.sites").joinpath("holidays.toml").read_text("utf-8"))


@lru_cache(maxsize=1)
def builtin_calendar() -> Calendar:
    """The years that come with this version."""
    data = builtin_years()
    off = frozenset(day for year in data.values() for rest in year["off"] for day in _days(rest["from"], rest["to"]))
    return Calendar(off, frozenset(day for year in data.values() for day in year["work"]), frozenset(int(year) for year in data))


def _days(first: date, last: date) -> Iterable[date]:
    return (first + timedelta(days=n) for n in range((last - first).days + 1))


def with_imported(calendar: Calendar, rows: Iterable[tuple[str, str]]) -> Calendar:
    """`calendar` with imported (day, `off` | `work`) rows. An imported day replaces a built-in one; a year with a rest day counts as known."""
    off, work, years = set(calendar.off), set(calendar.work), set(calendar.years)
    for text, kind in rows:
        day = date.fromisoformat(text)
        off.discard(day)
        work.discard(day)
        (off if kind == "off" else work).add(day)
        if kind == "off":
            years.add(day.year)
    return Calendar(frozenset(off), frozenset(work), frozenset(years))


def load_calendar(conn: sqlite3.Connection) -> Calendar:
    """The built-in years and what was imported into `holiday`."""
    rows = conn.execute("SELECT day, kind FROM holiday").fetchall()
    return with_imported(builtin_calendar(), rows) if rows else builtin_calendar()


# Both together --------------------------------------------------------------------------------------------------------------------------


def periods(hours: Hours, calendar: Calendar, day: date) -> tuple[Span, ...]:
    """Opening periods of `day`, in minutes after local midnight."""
    own = hours.on_date(day) if hours.dates else None
    if own is not None:
        return own
    if hours.always:
        return ((0, _MINUTES_PER_DAY),)
    if calendar.kind(day) == "holiday":
        return hours.holiday
    return hours.week[_MAKE_UP_PATTERN if calendar.is_make_up(day) else day.weekday()]


def classify(hours: Hours, calendar: Calendar, began: datetime) -> TimeClass:
    """The class of a case that began at local time `began`, after the site's own hours; a gap between two periods is the lunch break.

    A site that never closes still has holidays and weekends, and otherwise only working time.
    """
    day = began.date()
    return time_class(calendar.kind(day), periods(hours, calendar, day), began.hour * 60 + began.minute)


def time_class(kind: DayKind, open_spans: tuple[Span, ...], minute: int) -> TimeClass:
    """`classify` for a day of this kind with these opening periods, `minute` after local midnight."""
    if kind != "work":
        return TimeClass.HOLIDAY if kind == "holiday" else TimeClass.WEEKEND
    if any(start <= minute < end for start, end in open_spans):
        return TimeClass.WORK
    if not open_spans or minute >= open_spans[-1][1]:
        return TimeClass.AFTER_HOURS
    return TimeClass.BEFORE_HOURS if minute < open_spans[0][0] else TimeClass.NOON


@lru_cache(maxsize=65536)
def open_spans_ms(hours: Hours, calendar: Calendar, zone: str, day: str) -> tuple[Span, ...]:
    """Opening periods of a local day as [from, to) in ms UTC."""
    local = date.fromisoformat(day)
    info = zone_of(zone)
    return tuple((_at_ms(local, start, info), _at_ms(local, end, info)) for start, end in periods(hours, calendar, local))


def open_since_ms(hours: Hours, calendar: Calendar, zone: str, at_ms: int) -> int | None:
    """Start of the opening period that `at_ms` lies in, 0 for a site that never closes; None if it is closed."""
    day = local_day(at_ms, zone)
    if hours.always and hours.on_date(date.fromisoformat(day)) is None:
        # Open without a break since the last day that had hours of its own.
        before = [own.isoformat() for own, _ in hours.dates if own.isoformat() < day]
        return day_span_ms(before[-1], zone)[1] if before else 0
    spans = open_spans_ms(hours, calendar, zone, day)
    return next((start for start, end in spans if start <= at_ms < end), None)


def _at_ms(day: date, minute: int, info: ZoneInfo) -> int:
    midnight = datetime.combine(day + timedelta(days=minute // _MINUTES_PER_DAY), time(), info)
    return int((midnight + timedelta(minutes=minute % _MINUTES_PER_DAY)).timestamp()) * 1000


# Local days -----------------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def zone_of(name: str) -> ZoneInfo:
    """The time zone called `name`; the default zone if the name is unknown, because a typing error must not stop the figures."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo(DEFAULT_ZONE)


def local_day(at_ms: int, zone: str = DEFAULT_ZONE) -> str:
    """The local day `YYYY-MM-DD` that `at_ms` lies in."""
    if zone == DEFAULT_ZONE:
        return _numbered_day((at_ms + _SHANGHAI_MS) // DAY_MS)
    return datetime.fromtimestamp(at_ms / 1000, zone_of(zone)).date().isoformat()


@lru_cache(maxsize=8192)
def _numbered_day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def local_days(from_ms: int, to_ms: int, zone: str = DEFAULT_ZONE) -> list[str]:
    """The local days that [from, to) touches, at least the first."""
    first = date.fromisoformat(local_day(from_ms, zone))
    last = date.fromisoformat(local_day(max(from_ms, to_ms - 1), zone))
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


@lru_cache(maxsize=8192)
def day_span_ms(day: str, zone: str = DEFAULT_ZONE) -> Span:
    """[from, to) of a local day in ms UTC."""
    start = date.fromisoformat(day)
    info = zone_of(zone)
    return _at_ms(start, 0, info), _at_ms(start + timedelta(days=1), 0, info)


def local_time(at_ms: int, zone: str = DEFAULT_ZONE) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone_of(zone))
