"""What the address of a figures page asks for, and the addresses that such a page links to. Pure; the address is the view.

A period always stands in the address as days, a month, a quarter or a year, never as "this month": a copied address shows the same next year.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, get_args
from urllib.parse import urlencode

from fleet_server.errors import NotFound, Refused
from fleet_server.figures.figure import Figure, Part
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.figures.snapshots import NAMES

PER_PAGE: Final = 50
MAX_TEXT: Final = 80
LONGEST_DAYS: Final = 1100
"""Three years: what is kept of signed originals is not much longer."""
SCOPE_NAMES: Final = ("area", "site", "type", "owner", "terminal", "direct")


@dataclass(frozen=True, slots=True)
class View:
    """A question, and today in the fleet's time zone."""

    question: Question
    today: str
    page: int = 1

    @property
    def period(self) -> Period:
        return self.question.period

    @property
    def scope(self) -> Scope:
        return self.question.scope

    def query(self, **changes: str | None) -> str:
        """The query string of this view with `changes` of period or scope; None or an empty text takes a condition away."""
        return "?" + urlencode(self.pairs(**changes))

    def pairs(self, **changes: str | None) -> dict[str, str]:
        return {name: value for name, value in (pairs_of(self.question) | changes).items() if value}

    def paged(self, page: int, **more: str) -> str:
        pairs = {**pairs_of(self.question), **more}
        return "?" + urlencode(pairs | ({"page": str(page)} if page > 1 else {}))

    @property
    def is_running(self) -> bool:
        return self.period.first <= self.today <= self.period.last

    @property
    def compared(self) -> Question:
        """What the view is set beside."""
        return replace(self.question, period=self.period.as_long_before(self.today))

    def presets(self) -> list[tuple[str, str]]:
        """(word, period) of the usual choices."""
        month = Period.month(self.today[:7])
        quarter = Period.quarter(int(self.today[:4]), (int(self.today[5:7]) + 2) // 3)
        return [
            ("thisMonth", month.text),
            ("lastMonth", month.before().text),
            ("quarter", quarter.text),
            ("year", self.today[:4]),
        ]


def pairs_of(question: Question) -> dict[str, str]:
    return {"period": question.period.text, **question.scope.given}


def read_view(params: Mapping[str, str], today: str) -> View:
    """Read an address; without a period: the month of `today`. Refused for a period that is none."""
    text = params.get("period", "")[:MAX_TEXT]
    if params.get("from") and params.get("to"):
        text = f"{params['from'][:10]}..{params['to'][:10]}"
    period = Period.read(text) if text else Period.month(today[:7])
    if not "2000-01-01" <= period.first <= period.last <= "2199-12-31":
        raise Refused("period", "noPeriod")
    if period.days > LONGEST_DAYS:
        raise Refused("period", "periodLong")
    scope = Scope.of({name: params.get(name, "")[:MAX_TEXT] for name in SCOPE_NAMES})
    return View(Question(period, scope), today, read_page(params.get("page", "")))


def read_page(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0 else 1


def read_figure(params: Mapping[str, str]) -> tuple[str, str, Part]:
    """(name, key, part); NotFound for a figure or part that does not exist."""
    name, part = params.get("figure", ""), params.get("part", "") or "numerator"
    if name not in NAMES or part not in get_args(Part):
        raise NotFound("no such figure")
    return name, params.get("key", "")[:MAX_TEXT], part  # type: ignore[return-value]  # just compared with the words of Part


def behind_href(figure: Figure, part: str = "numerator", *, page: str = "/figures/behind", **more: str) -> str:
    """Where the rows behind one part of `figure` are listed."""
    pairs = (
        {"figure": figure.name, "key": figure.key, "part": "" if part == "numerator" else part} | pairs_of(figure.question) | more
    )
    return page + "?" + urlencode({name: value for name, value in pairs.items() if value})
