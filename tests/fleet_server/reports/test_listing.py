"""A list as an Excel file: what was given, as what it was given, and nothing that runs."""

from __future__ import annotations

from datetime import datetime

import pytest

from fleet_server.reports.book import MAX_ROWS, MAX_TEXT, Book
from fleet_server.reports.listing import Column, write_list
from tests.fleet_server.figures.conftest import NOW, at
from tests.fleet_server.reports.conftest import opened

COLUMNS = (
    Column("终端"),
    Column("件", "count"),
    Column("率", "share"),
    Column("时长", "hours"),
    Column("时刻", "moment"),
    Column("日", "day"),
    Column("均", "number", width=30),
)


def test_values_come_back_as_their_kinds() -> None:
    rows = [("KF-0001", 12, 0.5, 5400, at("06-09 10:30"), "2026-06-09", 1.25), ("KF-0002", None, None, None, None, None, None)]
    sheet = opened(write_list("终端清单", COLUMNS, rows, lang="zh", now_ms=NOW))["终端清单"]
    assert [cell.value for cell in sheet[3]] == [column.title for column in COLUMNS]
    assert [cell.value for cell in sheet[4]] == [
        "KF-0001", 12, 0.5, 1.5, datetime.fromisoformat("2026-06-09 10:30"), datetime.fromisoformat("2026-06-09"), 1.25,
    ]  # fmt: skip
    assert [cell.value for cell in sheet[5]][1:] == ["—"] * 6
    assert sheet["A2"].value == "导出时间：2026-07-10 08:00；共 2 行"
    assert (sheet.freeze_panes, sheet.auto_filter.ref) == ("B4", "A3:G5")


def test_an_empty_list_is_a_file_too() -> None:
    sheet = opened(write_list("Terminals", COLUMNS[:2], [], lang="en", now_ms=NOW))["Terminals"]
    assert sheet["A2"].value == "Exported 2026-07-10 08:00; 0 rows"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "＝", "＋", "－", "＠"])
def test_text_that_looks_like_a_formula_stays_text(start: str) -> None:
    text = f"{start}cmd|' /C calc'!A0"
    book = opened(write_list("x", [Column(text)], [[text]], lang="zh", now_ms=NOW), values=False)
    for cell in (book["x"]["A3"], book["x"]["A4"]):
        assert (cell.value, cell.data_type, cell.quotePrefix) == (text, "s", True)


def test_ordinary_text_has_no_apostrophe_and_numbers_in_text_stay_text() -> None:
    book = opened(write_list("x", [Column("a")], [["KF-1"], ["0012"], ["http://x"]], lang="zh", now_ms=NOW), values=False)
    assert [(book["x"][f"A{n}"].value, book["x"][f"A{n}"].data_type) for n in (4, 5, 6)] == [
        ("KF-1", "s"),
        ("0012", "s"),
        ("http://x", "s"),
    ]
    assert not book["x"]["A4"].quotePrefix and book["x"]["A6"].hyperlink is None


def test_a_title_with_forbidden_characters_still_names_a_sheet() -> None:
    assert opened(write_list("'a/b:c*[d]?'", COLUMNS[:1], [], lang="zh", now_ms=NOW)).sheetnames == ["a b c  d"]
    assert opened(write_list("//", COLUMNS[:1], [], lang="zh", now_ms=NOW)).sheetnames == ["1"]


def test_too_long_text_is_cut_and_too_many_rows_are_refused() -> None:
    sheet = opened(write_list("x", [Column("a")], [["字" * (MAX_TEXT + 5)]], lang="zh", now_ms=NOW))["x"]
    assert sheet["A4"].value == "字" * MAX_TEXT
    book = Book("zh", title="x", made_ms=NOW)
    with pytest.raises(Exception, match="tooMany"):
        book.sheet("x").cell(MAX_ROWS, 0, "text", "x")


def test_rows_must_fit_the_columns() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        write_list("x", COLUMNS[:2], [["a"]], lang="zh", now_ms=NOW)
    with pytest.raises(TypeError):
        write_list("x", COLUMNS[1:2], [["many"]], lang="zh", now_ms=NOW)
