"""What a row of the benchmark is, and how the table is printed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a figure should keep: `at_most` or `at_least` `limit`, on the ratio or on the absolute number."""

    rule: Literal["at_most", "at_least"]
    limit: float
    of: Literal["ratio", "figure"]
    unit: str = ""

    def holds(self, value: float) -> bool:
        return value <= self.limit if self.rule == "at_most" else value >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.rule == "at_most" else "≥"
        return f"{sign} {number(self.limit)}{' ' + self.unit if self.unit else '×'}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of ours and what it stands beside. `peer` None: nothing comparable exists, then the budget is absolute."""

    what: str
    ours: float
    unit: str
    beside: str = ""
    peer: float | None = None
    budgets: tuple[Budget, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        return self.ours / self.peer if self.peer else None

    def verdict(self) -> str:
        """`kept` or `MISSED` for all budgets together; empty without any."""
        held = []
        for budget in self.budgets:
            value = self.ratio if budget.of == "ratio" else self.ours
            if value is not None:
                held.append(budget.holds(value))
        return ("kept" if all(held) else "MISSED") if held else ""


def number(value: float) -> str:
    """Three significant digits, thousands with commas."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def render(rows: Iterable[Row]) -> str:
    """A Markdown table that also reads well on a terminal, the rows' notes behind it."""
    rows = list(rows)
    head = ("what", "measured", "beside, in the same run", "ratio", "budget", "")
    lines: list[Sequence[str]] = [
        (
            row.what,
            f"{number(row.ours)} {row.unit}",
            f"{row.beside}: {number(row.peer)} {row.unit}" if row.peer is not None else row.beside or "-",
            f"{row.ratio:.2f}×" if row.ratio is not None else "-",
            ", ".join(map(str, row.budgets)) or "-",
            row.verdict(),
        )
        for row in rows
    ]
    widths = [max(_columns(line[place]) for line in [head, *lines]) for place in range(len(head))]
    out = [_line(head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    out += [_line(line, widths) for line in lines]
    for row in rows:
        if row.notes:
            out += ["", f"{row.what}:", *(f"- {note}" for note in row.notes)]
    return "\n".join(out)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell + " " * (width - _columns(cell)) for cell, width in zip(cells, widths, strict=True)) + " |"


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
