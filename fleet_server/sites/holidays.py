"""Owns the import of a year's public holidays: reads CSV or JSON, refuses what is no complete year, writes `holiday`.

Also owns the sentence that warns of a missing year. Source of the rules: the State Council's Regulation on Public Holidays for National Annual
Festivals and Memorial Days as amended from 1 January 2025 (13 days: New Year 1, Spring Festival 4, Tomb-Sweeping 1, Labour Day 2, Dragon Boat 1,
Mid-Autumn 1, National Day 3); a yearly notice moves days.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

from fleet_server.errors import FleetServerError
from fleet_server.sites import audit
from fleet_server.sites.calendar import Calendar, builtin_calendar, builtin_years, with_imported

Kind = Literal["off", "work"]
FEWEST_WORKING_DAYS, MOST_WORKING_DAYS = 244, 252
"""365 days less 104 or 105 weekend days and 13 festival days are 247 to 249; a little more room for leap years and festivals that fall together."""
_FESTIVALS: Final = (
    ("元旦", "New Year", (1, 1), (1, 1), 1),
    ("春节", "Spring Festival", (1, 20), (2, 28), 4),
    ("清明节", "Tomb-Sweeping Day", (4, 3), (4, 7), 1),
    ("劳动节", "Labour Day", (5, 1), (5, 2), 2),
    ("端午节", "Dragon Boat Festival", (5, 25), (6, 29), 1),
    ("国庆节", "National Day", (10, 1), (10, 3), 3),
    ("中秋节、国庆节", "Mid-Autumn Festival with National Day", (9, 7), (10, 10), 8),
)
"""Name, first and last day on which its days off can lie, how many at least. Lunar festivals move inside a window of about a month.

The last two overlap: the week of National Day has seven days off in every notice, an eighth is the Mid-Autumn Festival, apart or joined to it.
"""
_KINDS: Final[Mapping[str, Kind]] = {
    "off": "off", "rest": "off", "休": "off", "休息": "off", "放假": "off", "节假日": "off",
    "work": "work", "班": "work", "上班": "work", "补班": "work", "调休上班": "work",
}  # fmt: skip
_COLUMNS: Final[Mapping[str, str]] = {
    "日期": "day",
    "date": "day",
    "类型": "kind",
    "type": "kind",
    "名称": "name_zh",
    "name": "name_zh",
}
_LONGEST_HOLIDAY = 12


_ENGLISH: Final = {
    "twice": "{day} is there more than once",
    "weekday": "{day} is a weekday: a working day anyway",
    "nothing": "no day in it",
    "header": "the header must name the columns day and kind",
    "notJson": "not JSON",
    "notLists": "JSON must be an object with the lists off and work",
    "span": "from and to are not the days of one holiday",
    "noDay": "no day like 2027-01-01",
    "noKind": "kind is neither off nor work",
    "festival": "{year}: {name} has {n} of at least {least} days between {first} and {last}",
    "workingDays": "{year}: {n} working days; a year has {least} to {most}",
    "encoding": "neither UTF-8 nor GB 18030",
}
"""For the terminal; pages have their own sentences (`calendar.problem.<word>`)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file. `part` is `line`, or the list of a JSON file, and `number` the place in it."""

    word: str
    values: Mapping[str, object] = field(default_factory=dict)
    part: str = ""
    number: int = 0

    def __str__(self) -> str:
        sentence = _ENGLISH[self.word].format_map(self.values)
        return f"{self.part} {self.number}: {sentence}" if self.part else sentence


class HolidaysRefused(FleetServerError):
    """A holiday file that cannot be taken; `problems` are for the person."""

    status = 400
    word = "refused"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class SpecialDay:
    """A day that is off, or a weekend day that is worked."""

    day: date
    kind: Kind
    name_zh: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import changed."""

    days: int
    years: tuple[int, ...]
    working_days: tuple[int, ...]
    """Of each year, for a check by eye."""


def read_holidays(text: str, *, is_json: bool) -> list[SpecialDay]:
    """Days of a file, ordered; HolidaysRefused with every line that cannot be read.

    CSV with a header `day,kind,name_zh` (or 日期,类型,名称; kind `off` or `work`, 休 or 班); JSON `{"off": [{"from", "to", "name_zh"} | day, …],
    "work": [day, …]}`.
    """
    problems: list[Problem] = []
    days = list(_json_days(text, problems) if is_json else _csv_days(text, problems))
    doubled = [day.isoformat() for day, count in Counter(one.day for one in days).items() if count > 1]
    problems += [Problem("twice", {"day": day}) for day in sorted(doubled)]
    problems += [Problem("weekday", {"day": one.day}) for one in days if one.kind == "work" and one.day.weekday() < 5]
    if not days and not problems:
        problems.append(Problem("nothing"))
    if problems:
        raise HolidaysRefused(problems)
    return sorted(days, key=lambda one: one.day)


def missing_festivals(calendar: Calendar, year: int) -> list[Problem]:
    """Why `year` cannot be complete; empty if it can."""
    found = []
    for name_zh, name, first, last, least in _FESTIVALS:
        start, end = date(year, *first), date(year, *last)
        off = sum(start + timedelta(days=n) in calendar.off for n in range((end - start).days + 1))
        if off < least:
            values = {"year": year, "name": name, "name_zh": name_zh, "n": off, "least": least}
            found.append(Problem("festival", {**values, "first": f"{start:%m-%d}", "last": f"{end:%m-%d}"}))
    worked = working_days(calendar, year)
    if not FEWEST_WORKING_DAYS <= worked <= MOST_WORKING_DAYS:
        bounds = {"least": FEWEST_WORKING_DAYS, "most": MOST_WORKING_DAYS}
        found.append(Problem("workingDays", {"year": year, "n": worked, **bounds}))
    return found


def working_days(calendar: Calendar, year: int) -> int:
    first = date(year, 1, 1)
    return sum(calendar.kind(first + timedelta(days=n)) == "work" for n in range((date(year + 1, 1, 1) - first).days))


def import_holidays(conn: sqlite3.Connection, days: Sequence[SpecialDay], *, replace: bool = False) -> Imported:
    """Write `days`; each year they touch must be complete afterwards, else HolidaysRefused and nothing is written.

    Single days may correct a year that is known; with `replace` whatever was imported for these years before goes. Figures of the days concerned
    are computed again, for opening hours may change. In the caller's transaction.
    """
    years = sorted({one.day.year for one in days})
    merged = calendar_after(conn, days, replace=replace)
    if problems := [problem for year in years for problem in missing_festivals(merged, year)]:
        raise HolidaysRefused(problems)
    gone = [day for year in years for day in _imported_days(conn, year)] if replace else []
    conn.executemany("DELETE FROM holiday WHERE day = ?", [(day,) for day in gone])
    conn.executemany(
        "INSERT INTO holiday (day, kind, name_zh) VALUES (?, ?, ?)"
        " ON CONFLICT (day) DO UPDATE SET kind = excluded.kind, name_zh = excluded.name_zh",
        [(one.day.isoformat(), one.kind, one.name_zh) for one in days],
    )
    _compute_again(conn, {*gone, *(one.day.isoformat() for one in days)})
    return Imported(len(days), tuple(years), tuple(working_days(merged, year) for year in years))


def take_over(conn: sqlite3.Connection, days: Sequence[SpecialDay], *, by: str, now_ms: int, replace: bool = False) -> Imported:
    """`import_holidays`, and who did it."""
    done = import_holidays(conn, days, replace=replace)
    for year, worked in zip(done.years, done.working_days, strict=True):
        detail = {"days": sum(one.day.year == year for one in days), "working_days": worked, "replace": replace}
        audit.remember(conn, f"calendar:{year}", "calendar.import", detail, by=by, now_ms=now_ms)
    return done


def forget_imported(conn: sqlite3.Connection, year: int, *, by: str, now_ms: int) -> int:
    """Take back everything imported for `year`; what is built in holds again. Returns how many days."""
    gone = _imported_days(conn, year)
    if gone:
        conn.executemany("DELETE FROM holiday WHERE day = ?", [(day,) for day in gone])
        _compute_again(conn, gone)
        audit.remember(conn, f"calendar:{year}", "calendar.forget", {"days": len(gone)}, by=by, now_ms=now_ms)
    return len(gone)


def calendar_after(conn: sqlite3.Connection, days: Sequence[SpecialDay], *, replace: bool = False) -> Calendar:
    """The calendar as it would be with `days` imported."""
    rows = [(row[0], row[1]) for row in conn.execute("SELECT day, kind FROM holiday")]
    if replace:
        years = {one.day.year for one in days}
        rows = [row for row in rows if int(row[0][:4]) not in years]
    return with_imported(builtin_calendar(), [*rows, *((one.day.isoformat(), one.kind) for one in days)])


def _imported_days(conn: sqlite3.Connection, year: int) -> list[str]:
    return [row[0] for row in conn.execute("SELECT day FROM holiday WHERE day LIKE ?", (f"{year:04}-%",))]


def _compute_again(conn: sqlite3.Connection, days: Iterable[str]) -> None:
    conn.executemany(
        "INSERT OR IGNORE INTO dirty_day (terminal, day) SELECT terminal, day FROM terminal_day WHERE day = ?",
        [(day,) for day in days],
    )


def decode(raw: bytes) -> str:
    """A file's text: UTF-8, or what spreadsheet programs here write otherwise. HolidaysRefused if it is neither."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise HolidaysRefused([Problem("encoding")])


def special_days(conn: sqlite3.Connection, year: int) -> list[SpecialDay]:
    """Days off and make-up working days that hold in `year`, ordered, imported ones over built-in ones."""
    days = {one.day: one for one in builtin_days() if one.day.year == year}
    for row in conn.execute("SELECT day, kind, name_zh FROM holiday WHERE day LIKE ?", (f"{year:04}-%",)):
        day = date.fromisoformat(row[0])
        days[day] = SpecialDay(day, "off" if row[1] == "off" else "work", row[2] or "")
    return [days[day] for day in sorted(days)]


@lru_cache(maxsize=1)
def builtin_days() -> tuple[SpecialDay, ...]:
    """The days of the notices that come with this version."""
    days: list[SpecialDay] = []
    for year in builtin_years().values():
        for rest in year["off"]:
            count = (rest["to"] - rest["from"]).days + 1
            days += [SpecialDay(rest["from"] + timedelta(days=n), "off", rest["name_zh"]) for n in range(count)]
        days += [SpecialDay(day, "work") for day in year["work"]]
    return tuple(days)


@lru_cache(maxsize=1)
def builtin_notices() -> Mapping[int, date]:
    """Of each built-in year, the day of the notice it is taken from."""
    return {int(year): tree["notice"] for year, tree in builtin_years().items()}


@lru_cache(maxsize=1)
def english_names() -> Mapping[str, str]:
    """English names of festivals by their Chinese ones."""
    built_in = {rest["name_zh"]: rest["name_en"] for year in builtin_years().values() for rest in year["off"]}
    return {**{zh: en for zh, en, *_ in _FESTIVALS}, **built_in}


def calendar_warning(calendar: Calendar, today: date, lang: str = "zh") -> str | None:
    """The sentence to show while a year is missing that should be known by `today`: this one, from 1 December the next."""
    missing = calendar.missing_years(today)
    if not missing:
        return None
    years = "、".join(map(str, missing)) if lang == "zh" else " and ".join(map(str, missing))
    if lang == "zh":
        return f"缺少 {years} 年节假日安排：错时延时办件与服务时段统计将只按周末计算。请导入国务院办公厅放假通知（fleet-server import-holidays）。"
    return (
        f"The holidays of {years} are missing: off-hours and opening time are counted by weekends alone. "
        "Import the State Council's notice (fleet-server import-holidays)."
    )


# Files ----------------------------------------------------------------------------------------------------------------------------------


def _csv_days(text: str, problems: list[Problem]) -> Iterable[SpecialDay]:
    # A byte order mark is what spreadsheet programs put in front.
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    names = {name: _COLUMNS.get(name.strip().lower(), name.strip().lower()) for name in reader.fieldnames or ()}
    if not {"day", "kind"} <= set(names.values()):
        problems.append(Problem("header"))
        return
    for line, row in enumerate(reader, 2):
        values = {names[key]: (value or "").strip() for key, value in row.items() if key in names}
        if any(values.values()):
            yield from _day(values.get("day"), values.get("kind"), values.get("name_zh", ""), ("line", line), problems)


def _json_days(text: str, problems: list[Problem]) -> Iterable[SpecialDay]:
    try:
        tree = json.loads(text)
    except ValueError:
        problems.append(Problem("notJson"))
        return
    if not isinstance(tree, dict) or not tree.keys() & {"off", "work"}:
        problems.append(Problem("notLists"))
        return
    for kind in ("off", "work"):
        entries: Any = tree.get(kind, [])
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries], 1):
            place = (kind, number)
            if isinstance(entry, dict):
                yield from _span(entry, kind, place, problems)
            else:
                yield from _day(entry, kind, "", place, problems)


def _span(entry: dict[str, Any], kind: str, place: tuple[str, int], problems: list[Problem]) -> Iterable[SpecialDay]:
    name = str(entry.get("name_zh", ""))
    first = _date(entry.get("from", entry.get("day")))
    last = _date(entry.get("to", entry.get("from", entry.get("day"))))
    if first is None or last is None or not 0 <= (last - first).days < _LONGEST_HOLIDAY:
        problems.append(Problem("span", {}, *place))
        return
    for n in range((last - first).days + 1):
        yield from _day((first + timedelta(days=n)).isoformat(), kind, name, place, problems)


def _day(day: object, kind: object, name: str, place: tuple[str, int], problems: list[Problem]) -> Iterable[SpecialDay]:
    read, known = _date(day), _KINDS.get(str(kind).strip().lower())
    if read is None:
        problems.append(Problem("noDay", {}, *place))
    elif known is None:
        problems.append(Problem("noKind", {}, *place))
    else:
        yield SpecialDay(read, known, name)


def _date(value: object) -> date | None:
    """2027-01-01, and 2027/1/1 as spreadsheet programs write it."""
    try:
        year, month, day = str(value).strip().replace("/", "-").split("-")
        return date(int(year), int(month), int(day))
    except ValueError:
        return None
