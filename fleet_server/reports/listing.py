"""Writes a list as it stands on a page: given columns and rows, nothing looked up. Safe to open: no cell can become a formula."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fleet_server.reports.book import Book, CellKind
from fleet_server.reports.words import Lang, say
from fleet_server.sites.calendar import DEFAULT_ZONE, local_time

_WIDTHS: dict[CellKind, float] = {"text": 18, "moment": 17, "day": 12}
_HEAD_ROW = 2


@dataclass(frozen=True, slots=True)
class Column:
    """`kind` says how its values are given and shown (`Sheet.cell`); `width` in characters, by default by kind."""

    title: str
    kind: CellKind = "text"
    width: float | None = None


def write_list(title: str, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, lang: Lang, now_ms: int) -> bytes:
    """An xlsx file: title, time and number of rows, headings that stay and filter, then the rows. Refused beyond a million rows."""
    book = Book(lang, title=title, made_ms=now_ms)
    sheet = book.sheet(_sheet_name(title))
    last = max(0, len(columns) - 1)
    sheet.widths([one.width or _WIDTHS.get(one.kind, 12) for one in columns])
    sheet.title(0, last, title, size=14)
    for n, column in enumerate(columns):
        sheet.head(_HEAD_ROW, n, column.title)
    count = 0
    for count, values in enumerate(rows, 1):
        for n, (column, value) in enumerate(zip(columns, values, strict=True)):
            sheet.cell(_HEAD_ROW + count, n, column.kind, value)
    at = f"{local_time(now_ms, DEFAULT_ZONE):%Y-%m-%d %H:%M}"
    sheet.line(1, last, say(lang, "list.made", at=at, count=count))
    sheet.freeze(_HEAD_ROW + 1, 1)
    sheet.filter(_HEAD_ROW, _HEAD_ROW + count, last)
    return book.finish()


def _sheet_name(title: str) -> str:
    """Excel forbids a few characters, and an apostrophe at either end."""
    return "".join(" " if char in "[]:*?/\\" else char for char in title)[:31].strip(" '") or "1"
