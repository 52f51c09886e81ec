"""What a figure is: a value that says what it was made of. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from fleet_server.figures.question import Question

RULE: Final = "inServiceOneDay"
"""Population of every figure: terminals in service on at least one day of the period, enrolled before its end and not revoked before its start."""
Unit = Literal["case", "terminal", "share", "perTerminal", "fault", "hour", "rating", "key"]
Part = Literal[
    "numerator", "denominator", "blind", "unknown", "unanswered", "outside", "offline", "unwatched", "silent", "partial", "unusable", "maintenance"
]  # fmt: skip
Kind = Literal["session", "terminal", "terminalDay", "rating", "queueEvent", "fault", "presence", "check"]
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """`value` is numerator ÷ denominator × factor, or the numerator alone where there is no denominator; None where nothing is known.

    `key` names the part of a breakdown (an item, an hour, a class). `shown` tells what is in neither of the two, such as blind seconds.
    """

    name: str
    question: Question
    unit: Unit
    numerator: int
    denominator: int | None = None
    factor: float = 1.0
    population: int
    key: str = ""
    rule: str = RULE
    shown: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    @property
    def value(self) -> float | None:
        if self.denominator is None:
            return self.numerator * self.factor
        return self.numerator / self.denominator * self.factor if self.denominator else None

    @property
    def is_ratio(self) -> bool:
        return self.denominator is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """One row of what makes a figure. The weights of all rows add up to the number; where cases or terminals are counted each weighs 1."""

    kind: Kind
    id: str
    """Of the record, the terminal, or the fault; `terminal/day` for a terminal's day, `terminal/ms` for a check at a fixed time."""
    terminal: str
    day: str | None = None
    at_ms: int | None = None
    weight: int = 1
    note: str = ""
