"""Owns how cells get into an Excel file: formats, text that cannot become a formula, ratios that stand beside their parts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, Literal

import xlsxwriter
from xlsxwriter.utility import xl_rowcol_to_cell

from fleet_server.errors import Refused
from fleet_server.reports.words import Lang, say
from fleet_server.sites.calendar import DEFAULT_ZONE, local_time

CellKind = Literal["text", "count", "number", "share", "hours", "moment", "day", "points", "growth"]
MAX_ROWS: Final = 1_048_576
"""Of a sheet (Excel specifications and limits)."""
MAX_TEXT: Final = 32_767
"""Characters of a cell (the same)."""
_STARTS_A_FORMULA: Final = tuple("=+-@\t\r\n＝＋－＠")
"""What spreadsheet programs take for a formula at the start of a text, full-width forms included (OWASP, CSV injection)."""
_NUMBER_FORMATS: Final[dict[CellKind, str]] = {
    "text": "@",
    "count": "#,##0",
    "number": "#,##0.00",
    "share": "0.00%",
    "hours": "#,##0.0",
    "moment": "yyyy-mm-dd hh:mm",
    "day": "yyyy-mm-dd",
    "growth": "+0.0%;-0.0%;0.0%",
}
_SHEET_NAME_MAX: Final = 31


class Book:
    """One workbook in memory. Rows and columns count from 0."""

    def __init__(self, lang: Lang, *, title: str, made_ms: int) -> None:
        self.lang = lang
        self._file = io.BytesIO()
        options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
        self._book: Any = xlsxwriter.Workbook(self._file, options)
        # Whoever runs the server is nobody's business; only title and date are set.
        self._book.set_properties({"title": title, "created": datetime.fromtimestamp(made_ms / 1000, UTC)})
        self._formats: dict[tuple[tuple[str, object], ...], Any] = {}

    def sheet(self, name: str) -> Sheet:
        return Sheet(self, self._book.add_worksheet(name[:_SHEET_NAME_MAX]))

    def finish(self) -> bytes:
        self._book.close()
        return self._file.getvalue()

    def format(self, **wanted: object) -> Any:
        """The format with these properties, made once."""
        key = tuple(sorted(wanted.items()))
        if key not in self._formats:
            self._formats[key] = self._book.add_format(
                {"font_name": say(self.lang, "font"), "font_size": 10, "valign": "vcenter", **wanted}
            )
        return self._formats[key]

    def cell_format(self, kind: CellKind, **more: object) -> Any:
        number = (
            f'+0.00" {say(self.lang, "points")}";-0.00" {say(self.lang, "points")}";0.00'
            if kind == "points"
            else _NUMBER_FORMATS[kind]
        )
        align = {} if kind == "text" else {"align": "right"}
        return self.format(**{"num_format": number, "border": 1, "border_color": "#A6A6A6", **align, **more})


class Sheet:
    """One sheet, printed on A4 across, as wide as the page."""

    def __init__(self, book: Book, sheet: Any) -> None:
        self.book, self._sheet = book, sheet
        sheet.set_landscape()
        sheet.set_paper(9)
        sheet.fit_to_pages(1, 0)
        sheet.set_margins(left=0.4, right=0.4, top=0.5, bottom=0.6)
        sheet.set_footer(f"&C{say(book.lang, 'page')}")
        sheet.hide_gridlines(2)

    # Layout -----------------------------------------------------------------------------------------------------------------------------

    def widths(self, widths: Sequence[float]) -> None:
        for column, width in enumerate(widths):
            self._sheet.set_column(column, column, width)

    def wide(self) -> None:
        """Printed on A3."""
        self._sheet.set_paper(8)

    def freeze(self, row: int, column: int) -> None:
        """What lies above `row` and left of `column` stays, on the screen and on every printed page."""
        self._sheet.freeze_panes(row, column)
        if row:
            self._sheet.repeat_rows(0, row - 1)

    def filter(self, first_row: int, last_row: int, last_column: int) -> None:
        self._sheet.autofilter(first_row, 0, max(first_row, last_row), last_column)

    def height(self, row: int, points: float) -> None:
        self._sheet.set_row(row, points)

    # Text -------------------------------------------------------------------------------------------------------------------------------

    def title(self, row: int, last_column: int, text: str, *, size: int = 16) -> None:
        self.merged(row, 0, row, last_column, text, self.book.format(bold=True, font_size=size, align="center"))
        self.height(row, size * 1.9)

    def line(self, row: int, last_column: int, text: str, *, wrap: bool = False, bold: bool = False) -> None:
        """A sentence over the whole width."""
        self.merged(row, 0, row, last_column, text, self.book.format(text_wrap=wrap, bold=bold, font_size=10 if bold else 9))

    def head(self, row: int, column: int, text: str, *, rows: int = 1, columns: int = 1) -> None:
        """A heading over `rows` and `columns`."""
        shape = self.book.format(bold=True, bg_color="#DDEBF7", border=1, border_color="#7F7F7F", align="center", text_wrap=True)
        self.merged(row, column, row + rows - 1, column + columns - 1, text, shape)

    def merged(self, row: int, column: int, last_row: int, last_column: int, text: str, shape: Any) -> None:
        if (row, column) != (last_row, last_column):
            self._sheet.merge_range(row, column, last_row, last_column, "", shape)
        self._string(row, column, text, shape)

    def cell_as(self, row: int, column: int, text: str, shape: Any) -> None:
        self._string(row, column, text, shape)

    # Cells ------------------------------------------------------------------------------------------------------------------------------

    def cell(self, row: int, column: int, kind: CellKind, value: object, *, bold: bool = False) -> None:
        """`value` as its kind: `hours` are given in seconds, `moment` in ms UTC, `day` as YYYY-MM-DD. None is a dash.

        Refused beyond a sheet's end.
        """
        if row >= MAX_ROWS:
            raise Refused("rows", "tooMany")
        if value is None:
            self._string(row, column, say(self.book.lang, "none"), self.book.cell_format("text", align="right", bold=bold))
        elif kind == "text":
            self._string(row, column, str(value), self.book.cell_format("text", bold=bold))
        elif kind == "moment" and isinstance(value, int):
            at = local_time(value, DEFAULT_ZONE).replace(tzinfo=None)
            self._sheet.write_datetime(row, column, at, self.book.cell_format(kind, bold=bold))
        elif kind == "day":
            self._sheet.write_datetime(row, column, date.fromisoformat(str(value)), self.book.cell_format(kind, bold=bold))
        elif isinstance(value, (int, float)):
            number = value / 3600 if kind == "hours" else value
            self._sheet.write_number(row, column, number, self.book.cell_format(kind, bold=bold))
        else:
            raise TypeError(f"{type(value).__name__} is no {kind}")

    def ratio(
        self,
        row: int,
        column: int,
        kind: CellKind,
        value: float | None,
        over: tuple[int, int],
        factor: float = 1.0,
        *,
        bold: bool = False,
    ) -> None:
        """A ratio as a formula over the two cells of its row that hold its parts, so that a reader can follow it; None is a dash."""
        if value is None:
            self.cell(row, column, kind, None, bold=bold)
            return
        numerator, denominator = (xl_rowcol_to_cell(row, part) for part in over)
        times = "" if factor == 1 else f"*{factor:.15g}"
        self._sheet.write_formula(
            row, column, f"={numerator}/{denominator}{times}", self.book.cell_format(kind, bold=bold), value
        )

    def _string(self, row: int, column: int, text: str, shape: Any) -> None:
        """Always a string cell. One that looks like a formula also gets the apostrophe that spreadsheet programs hide, for when it is edited."""
        if text.startswith(_STARTS_A_FORMULA):
            shape = self.book.format(**{**_properties(self.book, shape), "quote_prefix": True})
        self._sheet.write_string(row, column, text[:MAX_TEXT], shape)


def _properties(book: Book, shape: Any) -> dict[str, object]:
    return next(dict(key) for key, made in book._formats.items() if made is shape)
