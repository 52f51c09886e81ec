"""What a figure is asked about: whose terminals, and which local days. Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import msgspec

from fleet_server.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All given conditions hold. `area` means the area with everything below it; without conditions: the whole fleet.

    `direct` leaves out what lies below `area`; without an area it means sites that are in no known area. `owner` is the terminal class.
    """

    area: str | None = None
    site: str | None = None
    type: str | None = None
    terminal: str | None = None
    owner: str | None = None
    direct: bool = False

    def to_json(self) -> str:
        """The same text for the same scope."""
        return msgspec.json.encode(self.given).decode()

    @property
    def given(self) -> dict[str, str]:
        """The conditions, in one order, as words."""
        parts = {"area": self.area, "direct": "1" if self.direct else None, "owner": self.owner, "site": self.site}
        parts |= {"terminal": self.terminal, "type": self.type}
        return {key: value for key, value in parts.items() if value is not None}

    @classmethod
    def from_json(cls, text: str) -> Scope:
        return cls.of(msgspec.json.decode(text, type=dict[str, str]))

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Scope:
        """From such words; unknown and empty ones are left out."""
        found = {key: given[key] for key in ("area", "owner", "site", "terminal", "type") if given.get(key)}
        return cls(**found, direct=given.get("direct") == "1")


FLEET = Scope()
_QUARTER: Final = re.compile(r"(\d{4})-Q([1-4])")


@dataclass(frozen=True, slots=True)
class Period:
    """Local days from `first` to `last`, both included, as YYYY-MM-DD. Refused if that is no span of days."""

    first: str
    last: str

    def __post_init__(self) -> None:
        if _day(self.first) > _day(self.last):
            raise Refused("period", "periodOrder")

    @classmethod
    def month(cls, text: str) -> Period:
        """The month `YYYY-MM`."""
        first = _day(f"{text}-01")
        return cls(first.isoformat(), (_next_month(first) - timedelta(days=1)).isoformat())

    @classmethod
    def quarter(cls, year: int, number: int) -> Period:
        first = _day(f"{year:04}-{3 * number - 2:02}-01")
        return cls(first.isoformat(), cls.month(f"{year:04}-{3 * number:02}").last)

    @classmethod
    def read(cls, text: str) -> Period:
        """`2026-11`, `2026-Q4`, `2026` or `2026-11-01..2026-11-15`. Refused for anything else."""
        first, dots, last = text.partition("..")
        if dots:
            return cls(first, last)
        if found := _QUARTER.fullmatch(text):
            return cls.quarter(int(found[1]), int(found[2]))
        if re.fullmatch(r"\d{4}", text):
            return cls(f"{text}-01-01", f"{text}-12-31")
        return cls.month(text)

    @property
    def text(self) -> str:
        """The shortest text that `read` understands."""
        if self.is_month:
            return self.first[:7]
        if self.is_quarter:
            return f"{self.first[:4]}-Q{(int(self.first[5:7]) + 2) // 3}"
        return self.first[:4] if self.is_year else f"{self.first}..{self.last}"

    @property
    def days(self) -> int:
        return (_day(self.last) - _day(self.first)).days + 1

    def elapsed_days(self, today: str) -> int:
        """Days that have begun."""
        return max(0, (min(_day(self.last), _day(today)) - _day(self.first)).days + 1)

    def each_day(self) -> list[str]:
        first = _day(self.first)
        return [(first + timedelta(days=n)).isoformat() for n in range(self.days)]

    @property
    def is_month(self) -> bool:
        return self == Period.month(self.first[:7])

    @property
    def is_quarter(self) -> bool:
        return self == Period.quarter(int(self.first[:4]), (int(self.first[5:7]) + 2) // 3)

    @property
    def is_year(self) -> bool:
        return self.first[4:] == "-01-01" and self.last == f"{self.first[:4]}-12-31"

    def so_far(self, today: str) -> Period:
        """The days that have begun; the whole period once it is over, its first day before it begins."""
        return Period(self.first, min(self.last, max(self.first, today)))

    def as_long_before(self, today: str) -> Period:
        """The period before; of one that still runs, as many of its first days as have begun, so that like is set beside like."""
        before = self.before()
        if today >= self.last:
            return before
        end = _day(before.first) + timedelta(days=self.so_far(today).days - 1)
        return Period(before.first, min(before.last, end.isoformat()))

    def after(self) -> Period:
        """The one that follows, of the same kind."""
        begin = _day(self.last) + timedelta(days=1)
        if self.is_month:
            return Period.month(begin.isoformat()[:7])
        if self.is_quarter:
            return Period.quarter(begin.year, (begin.month + 2) // 3)
        if self.is_year:
            return Period.read(f"{begin.year:04}")
        return Period(begin.isoformat(), (begin + timedelta(days=self.days - 1)).isoformat())

    def before(self) -> Period:
        """What it is compared with (环比): the month before a month, a quarter before a quarter, a year before a year, else as many days."""
        end = _day(self.first) - timedelta(days=1)
        if self.is_month:
            return Period.month(end.isoformat()[:7])
        if self.is_quarter:
            return Period.quarter(end.year, (end.month + 2) // 3)
        if self.is_year:
            return Period.read(f"{end.year:04}")
        return Period((end - timedelta(days=self.days - 1)).isoformat(), end.isoformat())

    def year_before(self) -> Period:
        """The same days of the year before (同比); the 29th of February becomes the 28th."""
        if self.is_month:
            return Period.month(f"{int(self.first[:4]) - 1:04}{self.first[4:7]}")
        return Period(_year_before(self.first), _year_before(self.last))


@dataclass(frozen=True, slots=True)
class Question:
    period: Period
    scope: Scope = FLEET


def _day(text: str) -> date:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise Refused("period", "noPeriod") from None
    if text != found.isoformat():
        raise Refused("period", "noPeriod")
    return found


def _next_month(first: date) -> date:
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def _year_before(text: str) -> str:
    day = _day(text)
    return day.replace(year=day.year - 1, day=28 if (day.month, day.day) == (2, 29) else day.day).isoformat()
