"""What a figure is asked about: whose terminals, and which local days. Pure values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import msgspec

from fleet_server.errors import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """All given conditions hold. `area` means the area with everything below it; without conditions: the whole fleet."""

    area: str | None = None
    site: str | None = None
    type: str | None = None
    terminal: str | None = None

    def to_json(self) -> str:
        """The same text for the same scope."""
        given = {"area": self.area, "site": self.site, "terminal": self.terminal, "type": self.type}
        return msgspec.json.encode({key: value for key, value in given.items() if value is not None}).decode()

    @classmethod
    def from_json(cls, text: str) -> Scope:
        return cls(**msgspec.json.decode(text, type=dict[str, str]))


FLEET = Scope()


@dataclass(frozen=True, slots=True)
class Period:
    """Local days from `first` to `last`, both included, as YYYY-MM-DD. Refused if that is no span of days."""

    first: str
    last: str

    def __post_init__(self) -> None:
        if _day(self.first) > _day(self.last):
            raise Refused("period", "order")

    @classmethod
    def month(cls, text: str) -> Period:
        """The month `YYYY-MM`."""
        first = _day(f"{text}-01")
        return cls(first.isoformat(), (_next_month(first) - timedelta(days=1)).isoformat())

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

    def before(self) -> Period:
        """What it is compared with (环比): the month before a month, else as many days before."""
        end = _day(self.first) - timedelta(days=1)
        if self.is_month:
            return Period.month(end.isoformat()[:7])
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
        raise Refused("period", "day") from None
    if text != found.isoformat():
        raise Refused("period", "day")
    return found


def _next_month(first: date) -> date:
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def _year_before(text: str) -> str:
    day = _day(text)
    return day.replace(year=day.year - 1, day=28 if (day.month, day.day) == (2, 29) else day.day).isoformat()
