"""Owns opening time of sites over a period: seconds inside it, and the class of time a case began in. Hours are those of the day, not of today."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from fleet_server.sites.calendar import (
    DEFAULT_ZONE,
    NEVER,
    Calendar,
    DayKind,
    Span,
    TimeClass,
    day_span_ms,
    local_time,
    open_spans_ms,
    periods,
    time_class,
)
from fleet_server.sites.hours import DatedHours
from fleet_server.usage.days import without

_SHANGHAI_MINUTES = 8 * 60  # UTC+8 without daylight saving since September 1991
_MINUTE_MS = 60_000


class OpenTime:
    """Ordered disjoint spans in ms UTC, with sums: how much of any interval lies inside."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]
        self._sums = [0]
        for start, end in spans:
            self._sums.append(self._sums[-1] + end - start)

    def without(self, cut: Sequence[Span]) -> OpenTime:
        """What is left when `cut` (ordered, disjoint) is taken out."""
        return OpenTime(without(list(zip(self._starts, self._ends, strict=True)), cut)) if cut else self

    def within_ms(self, from_ms: int, to_ms: int) -> int:
        """Milliseconds of [from_ms, to_ms) inside the spans; 0 if it is empty."""
        return max(0, self._up_to(to_ms) - self._up_to(from_ms)) if from_ms < to_ms else 0

    def holds(self, at_ms: int) -> bool:
        place = bisect_right(self._starts, at_ms) - 1
        return place >= 0 and at_ms < self._ends[place]

    def _up_to(self, at_ms: int) -> int:
        place = bisect_right(self._starts, at_ms)
        if place == 0:
            return 0
        return self._sums[place] - max(0, self._ends[place - 1] - at_ms)


@dataclass(frozen=True, slots=True)
class _Day:
    kind: DayKind
    periods: tuple[Span, ...]


class Openings:
    """Opening time of every site over `days`; remembers what it has worked out."""

    def __init__(self, calendar: Calendar, hours: dict[str, DatedHours], days: Sequence[str]) -> None:
        self._calendar, self._hours, self._days = calendar, hours, days
        self._open: dict[tuple[str, str], OpenTime] = {}
        self._moments: dict[tuple[str, str, tuple[int, ...]], list[tuple[str, int]]] = {}
        self._known: dict[tuple[str, str], _Day] = {}
        self._rest: dict[str, bool] = {}

    def of_site(self, site: str, zone: str) -> OpenTime:
        """Opening time over all days; a site that nobody knows is never open."""
        found = self._open.get((site, zone))
        if found is None:
            dated = self._dated(site)
            spans = [span for day in self._days for span in open_spans_ms(dated.on(day), self._calendar, zone, day)]
            found = self._open[site, zone] = OpenTime(spans)
        return found

    def open_moments(self, site: str, zone: str, minutes: tuple[int, ...]) -> list[tuple[str, int]]:
        """(day, moment in ms) of each of `minutes` after midnight of each day, where the site is open then."""
        found = self._moments.get((site, zone, minutes))
        if found is None:
            open_time = self.of_site(site, zone)
            moments = ((day, day_span_ms(day, zone)[0] + minute * _MINUTE_MS) for day in self._days for minute in minutes)
            found = self._moments[site, zone, minutes] = [(day, at_ms) for day, at_ms in moments if open_time.holds(at_ms)]
        return found

    def class_of(self, site: str, zone: str, day: str, began_ms: int) -> TimeClass:
        """The class of a case that began at `began_ms` on the local day `day`."""
        known = self._known.get((site, day))
        if known is None:
            local = date.fromisoformat(day)
            known = _Day(self._calendar.kind(local), periods(self._dated(site).on(day), self._calendar, local))
            self._known[site, day] = known
        return time_class(known.kind, known.periods, minute_of_day(began_ms, zone))

    def is_rest_day(self, day: str) -> bool:
        """Weekend or holiday by the calendar; a make-up working day is none."""
        if day not in self._rest:
            self._rest[day] = self._calendar.kind(date.fromisoformat(day)) != "work"
        return self._rest[day]

    def _dated(self, site: str) -> DatedHours:
        return self._hours.get(site) or DatedHours(NEVER)


def minute_of_day(at_ms: int, zone: str) -> int:
    """Minutes after local midnight."""
    if zone == DEFAULT_ZONE:
        return (at_ms // _MINUTE_MS + _SHANGHAI_MINUTES) % 1440
    at = local_time(at_ms, zone)
    return at.hour * 60 + at.minute
