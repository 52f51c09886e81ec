"""What the calendar page shows: a year as months and weeks, what an import would change, why a moment is what it is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any, Literal

from fleet_server.console.opening_words import spans_words
from fleet_server.console.render import Voice
from fleet_server.sites.calendar import Calendar, Hours, TimeClass, classify, periods
from fleet_server.sites.drafts import DAYS, clock
from fleet_server.sites.holidays import Problem, SpecialDay, english_names, working_days

Look = Literal["work", "weekend", "holiday", "makeUp"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A day of a month's table."""

    day: date
    look: Look
    name: str
    today: bool


@dataclass(frozen=True, slots=True)
class Month:
    number: int
    working_days: int
    weeks: tuple[tuple[Cell | None, ...], ...]
    """Monday first; None outside the month."""


@dataclass(frozen=True, slots=True)
class Rest:
    """A run of days of one kind and name: a holiday, or one make-up day."""

    first: date
    last: date
    look: Look
    name: str

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1


@dataclass(frozen=True, slots=True)
class Change:
    """A day that would be something else after an import."""

    day: date
    before: Look
    after: Look
    name: str


def look_of(calendar: Calendar, day: date) -> Look:
    return "makeUp" if calendar.is_make_up(day) else calendar.kind(day)


def name_of(name_zh: str, lang: str) -> str:
    return name_zh if lang == "zh" else english_names().get(name_zh, name_zh)


def months_of(calendar: Calendar, year: int, days: Sequence[SpecialDay], today: date, lang: str) -> list[Month]:
    names = {one.day: name_of(one.name_zh, lang) for one in days}
    months = []
    for number in range(1, 13):
        first = date(year, number, 1)
        count = (date(year + number // 12, number % 12 + 1, 1) - first).days
        cells: list[Cell | None] = [None] * first.weekday()
        for n in range(count):
            day = first + timedelta(days=n)
            cells.append(Cell(day, look_of(calendar, day), names.get(day, ""), day == today))
        cells += [None] * (-len(cells) % 7)
        weeks = tuple(tuple(cells[at : at + 7]) for at in range(0, len(cells), 7))
        worked = sum(cell is not None and cell.look in {"work", "makeUp"} for cell in cells)
        months.append(Month(number, worked, weeks))
    return months


def rests_of(calendar: Calendar, days: Sequence[SpecialDay], lang: str) -> list[Rest]:
    """Holidays as they are spoken of, make-up days between them, in the order of the year."""
    rests: list[Rest] = []
    for one in days:
        look, name = look_of(calendar, one.day), name_of(one.name_zh, lang)
        last = rests[-1] if rests else None
        if (
            last is not None
            and look == "holiday"
            and (last.look, last.name) == (look, name)
            and one.day - last.last == timedelta(days=1)
        ):
            rests[-1] = Rest(last.first, one.day, look, name)
        else:
            rests.append(Rest(one.day, one.day, look, name))
    return rests


# An import ------------------------------------------------------------------------------------------------------------------------------


def changes_between(
    before: Calendar, after: Calendar, years: Iterable[int], days: Sequence[SpecialDay], lang: str
) -> list[Change]:
    """The days of `years` that are something else afterwards."""
    names = {one.day: name_of(one.name_zh, lang) for one in days}
    found = []
    for year in years:
        day = date(year, 1, 1)
        while day.year == year:
            was, becomes = look_of(before, day), look_of(after, day)
            if was != becomes:
                found.append(Change(day, was, becomes, names.get(day, "")))
            day += timedelta(days=1)
    return found


def by_month(changes: Sequence[Change]) -> list[tuple[str, list[Change]]]:
    """(`2027-02`, changes), in order."""
    return [(month, list(group)) for month, group in groupby(changes, key=lambda change: change.day.isoformat()[:7])]


def problem_words(voice: Voice, problem: Problem) -> str:
    values = dict(problem.values)
    if voice.lang == "zh" and "name_zh" in values:
        values["name"] = values["name_zh"]
    values.pop("name_zh", None)
    text = voice.t(f"calendar.problem.{problem.word}", **values)
    if not problem.part:
        return text
    return voice.t(f"calendar.place.{problem.part}", n=problem.number, problem=text)


def counts_of(before: Calendar, after: Calendar, years: Iterable[int]) -> list[tuple[int, int | None, int]]:
    """(year, working days before, after); None before a year was known."""
    return [(year, working_days(before, year) if year in before.years else None, working_days(after, year)) for year in years]


# A moment -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which class of time a case has that begins at a moment, and why."""

    code: TimeClass
    reason: str
    today: str
    """The site's opening hours on that day."""


def judge(voice: Voice, calendar: Calendar, hours: Hours, at: datetime, names: Mapping[date, str]) -> Verdict:
    """`at` is local time of the site."""
    code = classify(hours, calendar, at)
    spans = periods(hours, calendar, at.date())
    return Verdict(code, _reason(voice, calendar, code, spans, at, names), spans_words(voice, spans))


def _reason(
    voice: Voice, calendar: Calendar, code: TimeClass, spans: Sequence[tuple[int, int]], at: datetime, names: Mapping[date, str]
) -> str:
    day = at.date()
    about: dict[str, Any] = {
        "day": day.isoformat(),
        "weekday": voice.t(f"hours.day.{DAYS[day.weekday()]}"),
        "time": f"{at:%H:%M}",
    }
    if code is TimeClass.HOLIDAY:
        name = names.get(day) or voice.t("calendar.holiday")
        return voice.t("calendar.why.holiday", **about, name=name)
    if code is TimeClass.WEEKEND:
        return voice.t("calendar.why.weekend", **about)
    kind = voice.t("calendar.makeUp" if calendar.is_make_up(day) else "calendar.work")
    about["kind"] = kind
    if not spans:
        return voice.t("calendar.why.closed", **about)
    minute = at.hour * 60 + at.minute
    if code is TimeClass.WORK:
        start, end = next(span for span in spans if span[0] <= minute < span[1])
        return voice.t("calendar.why.work", **about, start=clock(start), end=clock(end))
    if code is TimeClass.BEFORE_HOURS:
        return voice.t("calendar.why.before", **about, start=clock(spans[0][0]))
    if code is TimeClass.AFTER_HOURS:
        return voice.t("calendar.why.after", **about, end=clock(spans[-1][1]))
    end = max(end for _, end in spans if end <= minute)
    start = min(start for start, _ in spans if start > minute)
    return voice.t("calendar.why.noon", **about, end=clock(end), start=clock(start))
