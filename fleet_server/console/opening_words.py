"""Opening hours in words: a week in as few lines as say it, without looking at today. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from fleet_server.console.render import Voice
from fleet_server.sites.calendar import Hours, HoursError, Span, parse_hours
from fleet_server.sites.drafts import DAYS, clock


@dataclass(frozen=True, slots=True)
class Line:
    """`周一至周五` and `09:00–12:00、13:30–17:00`."""

    days: str
    spans: str
    is_closed: bool


def week_lines(voice: Voice, hours: Hours) -> list[Line]:
    """Neighbouring days with the same hours in one line, holidays in the last. One line for a site that never closes."""
    if hours.always:
        return [Line(voice.t("hours.everyDay"), voice.t("hours.always"), False)]
    lines = []
    for spans, days in groupby(enumerate(hours.week), key=lambda item: item[1]):
        numbers = [number for number, _ in days]
        lines.append(_line(voice, _days(voice, numbers), spans))
    lines.append(_line(voice, voice.t("hours.holiday"), hours.holiday))
    return lines


def week_sentence(voice: Voice, text: str) -> str:
    """All of it in one line: `周一至周五 09:00–12:00、13:30–17:00；周六至周日关闭；…`."""
    try:
        hours = parse_hours(text)
    except HoursError:
        return voice.t("hours.unreadable")
    if hours.always:
        return voice.t("hours.always")
    if not any(hours.week) and not hours.holiday and not hours.dates:
        return voice.t("hours.none")
    lines = [
        voice.t("hours.lineClosed" if line.is_closed else "hours.line", days=line.days, spans=line.spans)
        for line in week_lines(voice, hours)
    ]
    return voice.t("hours.semicolon").join(lines)


def spans_words(voice: Voice, spans: Sequence[Span]) -> str:
    """`09:00–12:00、13:30–17:00`, or that it is closed."""
    if not spans:
        return voice.t("hours.closed")
    if tuple(spans) == ((0, 24 * 60),):
        return voice.t("hours.always")
    return voice.t("hours.comma").join(f"{clock(start)}–{clock(end)}" for start, end in spans)


def _line(voice: Voice, days: str, spans: Sequence[Span]) -> Line:
    return Line(days, spans_words(voice, spans), not spans)


def _days(voice: Voice, numbers: Sequence[int]) -> str:
    if len(numbers) == len(DAYS):
        return voice.t("hours.everyDay")
    first, last = (voice.t(f"hours.day.{DAYS[number]}") for number in (numbers[0], numbers[-1]))
    if len(numbers) == 1:
        return first
    return voice.t("hours.twoDays" if len(numbers) == 2 else "hours.days", first=first, last=last)
