"""When a terminal may install: outside its site's opening hours, never over frozen days, as spans UTC for the coming days. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Final

from fleet_server.rollouts.rules import Span
from fleet_server.sites.calendar import DAY_MS, Calendar, day_span_ms, local_day, open_spans_ms
from fleet_server.sites.hours import DatedHours

HORIZON_DAYS: Final = 14
BEHIND_DAYS: Final = 60
RENEW_BEFORE_MS: Final = 7 * DAY_MS
"""A terminal that is off for a week comes back to windows that still hold."""
SPANS_MAX: Final = 64
"""What a desired state may carry."""
BEFORE_OPENING_MS: Final = 30 * 60_000
"""An update must be over, its way back included, before citizens come."""
SHORTEST_MS: Final = 2 * 3_600_000
"""A shorter gap is a lunch break: no time to begin something that may have to be undone."""
NIGHT: Final = (60, 5 * 60)
"""Minutes after local midnight: the window of a site that never closes, or of which no hours are known."""


def closed_spans(hours: DatedHours, calendar: Calendar, zone: str, now_ms: int, *, probation_ms: int = 0) -> tuple[Span, ...]:
    """Spans of the coming days in which the site is closed, each shortened so that an update begun in it ends before people come."""
    first = date.fromisoformat(local_day(now_ms, zone)) - timedelta(days=1)
    days = [(first + timedelta(days=n)).isoformat() for n in range(HORIZON_DAYS + 4)]
    whole = (day_span_ms(days[0], zone)[0], day_span_ms(days[-1], zone)[1])
    opened = [span for day in days for span in _opened(hours, calendar, zone, day)]
    margin_ms = BEFORE_OPENING_MS + probation_ms
    shortened = ((begin, until - margin_ms) for begin, until in without(whole, opened) if until - begin >= SHORTEST_MS)
    return clipped(shortened, now_ms, now_ms + HORIZON_DAYS * DAY_MS)[:SPANS_MAX]


def _opened(hours: DatedHours, calendar: Calendar, zone: str, day: str) -> tuple[Span, ...]:
    own = hours.on(day)
    spans = open_spans_ms(own, calendar, zone, day)
    whole = day_span_ms(day, zone)
    never_open = not any(own.week) and not own.holiday and not own.always
    if never_open or (len(spans) == 1 and spans[0][1] - spans[0][0] >= whole[1] - whole[0]):
        return (whole[0], whole[0] + NIGHT[0] * 60_000), (whole[0] + NIGHT[1] * 60_000, whole[1])
    return spans


def without(whole: Span, taken: Iterable[Span]) -> list[Span]:
    """`whole` less `taken`; ordered, without empty spans."""
    left: list[Span] = []
    at = whole[0]
    for begin, until in sorted(taken):
        if until <= at or begin >= whole[1]:
            continue
        if begin > at:
            left.append((at, begin))
        at = max(at, until)
    if at < whole[1]:
        left.append((at, whole[1]))
    return left


def allowed(spans: Sequence[Span], frozen: Sequence[Span]) -> tuple[Span, ...]:
    """`spans` less frozen time."""
    return tuple(piece for span in spans for piece in without(span, frozen))[:SPANS_MAX]


def frozen_spans(calendar: Calendar, zone: str, now_ms: int, *, days_before: int, own: Iterable[Span] = ()) -> tuple[Span, ...]:
    """Frozen time around now: statutory holidays with the days before them, and one's own periods; merged, ordered.

    It reaches back, because time that was frozen counts neither for a timeout nor for giving up.
    """
    first = date.fromisoformat(local_day(now_ms, zone)) - timedelta(days=BEHIND_DAYS)
    spans: list[Span] = [span for span in own if span[1] > now_ms - BEHIND_DAYS * DAY_MS]
    for n in range(BEHIND_DAYS + HORIZON_DAYS + 2 + days_before):
        day = first + timedelta(days=n)
        if calendar.kind(day) == "holiday":
            from_day = day - timedelta(days=days_before)
            spans.append((day_span_ms(from_day.isoformat(), zone)[0], day_span_ms(day.isoformat(), zone)[1]))
    return merged(spans)


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    found: list[Span] = []
    for begin, until in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], until))
        elif until > begin:
            found.append((begin, until))
    return tuple(found)


def overlap_ms(whole: Span, spans: Iterable[Span]) -> int:
    """How much of `whole` lies in `spans`, which do not overlap one another."""
    return sum(max(0, min(whole[1], until) - max(whole[0], begin)) for begin, until in spans)


def until_ms(at_ms: int, spans: Iterable[Span]) -> int | None:
    """End of the span that `at_ms` lies in."""
    return next((until for begin, until in spans if begin <= at_ms < until), None)


def same_future(one: Sequence[Span] | None, one_to_ms: int, other: Sequence[Span] | None, now_ms: int) -> bool:
    """Whether both say the same for the time from `now_ms` to the end of what the first one was made for."""
    if one is None or other is None:
        return one is None and other is None
    return clipped(one, now_ms, one_to_ms) == clipped(other, now_ms, one_to_ms)


def clipped(spans: Iterable[Span], from_ms: int, to_ms: int) -> tuple[Span, ...]:
    return tuple(
        (max(begin, from_ms), min(until, to_ms)) for begin, until in spans if until > from_ms and begin < to_ms and until > begin
    )
