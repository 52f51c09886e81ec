"""The month report, read back: every number is the figure it says, beside its parts, and what a reader needs stands there."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import pytest
from openpyxl.cell.cell import Cell, MergedCell
from openpyxl.workbook import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from fleet_server.errors import NotFound
from fleet_server.figures.board import OFF_HOURS, Board
from fleet_server.figures.catalogue import CATALOGUE
from fleet_server.figures.figure import Figure
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.figures.snapshots import publish, trace
from fleet_server.reports.month import COMPARED, MonthReport, month_report
from fleet_server.reports.month_book import write_month
from fleet_server.reports.words import WORDS, Lang, say
from tests.fleet_server.figures.conftest import JUNE, NOW, Town, at
from tests.fleet_server.reports.conftest import opened

HOURS = {"online_rate", "availability"}
"""Figures of seconds, shown in hours."""
Row = list[object]


def made(
    town: Town, lang: Lang = "zh", month: str = "2026-06", now_ms: int = NOW, area: str | None = None
) -> tuple[MonthReport, Workbook]:
    report = month_report(town.conn, month, area=area, now_ms=now_ms)
    return report, opened(write_month(report, lang=lang, stored=(7, 99)))


def rows(sheet: Worksheet) -> list[Row]:
    return [[cell.value for cell in row] for row in sheet.iter_rows()]


def find(sheet: Worksheet, text: str, after: int = 0) -> int:
    """The row (from 0) whose first cell is `text`."""
    return next(n for n, row in enumerate(rows(sheet)) if n >= after and row[0] == text)


def same(cells: Sequence[object], figure: Figure) -> None:
    """Numerator, denominator and value of a ratio in three cells."""
    scale = 3600 if figure.name in HOURS else 1
    assert figure.denominator is not None
    for cell, number in zip(cells[:2], (figure.numerator, figure.denominator), strict=True):
        assert isinstance(cell, (int, float)) and cell * scale == pytest.approx(number), figure
    if figure.value is None:
        assert cells[2] == "—"
    else:
        assert cells[2] == pytest.approx(figure.value), figure


class TestSheets:
    @pytest.mark.parametrize(
        ("lang", "names"),
        [
            ("zh", ["汇总", "终端明细", "零办件", "错时延时", "故障与可用率"]),
            ("en", ["Summary", "Terminals", "No cases", "Off-hours", "Faults and availability"]),
        ],
    )
    def test_five_sheets_with_panes_that_stay_and_merged_headings(self, busy_town: Town, lang: Lang, names: list[str]) -> None:
        _, book = made(busy_town, lang)
        assert book.sheetnames == names
        assert [book[name].freeze_panes for name in names] == ["B5", "C5", "D5", "B5", "C5"]
        assert all(len(book[name].merged_cells.ranges) >= 6 for name in names)
        assert all(book[name].print_title_rows == "$1:$4" for name in names)
        assert all(book[name].page_setup.orientation == "landscape" and book[name].page_setup.fitToHeight == 0 for name in names)

    def test_headings_are_chinese_or_english(self, busy_town: Town) -> None:
        _, zh = made(busy_town)
        _, en = made(busy_town, "en")
        assert zh["汇总"]["A1"].value == "政务自助终端运行月报 2026 年 6 月"
        assert en["Summary"]["A1"].value == "Self-service terminals: month report 2026-06"
        assert rows(zh["汇总"])[2][:6] == ["区域", "在用终端（台）", "台日", "办件量（件）", "成功（件）", "零办件（台）"]
        text = " ".join(str(value) for sheet in en for row in rows(sheet) for value in row if value is not None)
        leftover = {char for char in text if "\u4e00" <= char <= "\u9fff"}
        assert not leftover, leftover

    def test_nobody_is_named_in_the_files_properties(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        assert not book.properties.creator and not book.properties.lastModifiedBy


class TestNumbers:
    def test_summary_by_area(self, busy_town: Town) -> None:
        report, book = made(busy_town)
        table = rows(book["汇总"])
        assert [row[0] for row in table[4:8]] == ["east区", "west区", "未分区", "合计"]
        board = busy_town.board()
        lines = [*((group.members) for group in board.groups()), None]
        for row, members in zip(table[4:8], lines, strict=True):
            figures = board.headline(members)
            assert row[1:6] == [
                figures["cases"].population,
                figures["cases_per_terminal"].denominator,
                figures["cases"].numerator,
                figures["cases_success"].numerator,
                figures["zero_terminals"].numerator,
            ]
            for cell, name in zip(
                row[6:9], ("cases_per_terminal", "cases_per_terminal_day", "cases_per_terminal_year"), strict=True
            ):
                assert cell == pytest.approx(figures[name].value)
            same(row[9:12], figures["active_share"])
            same(row[12:15], figures["offhours_share"])
        second = find(book["汇总"], "区域", after=8)
        for row, members in zip(table[second + 2 : second + 6], lines, strict=True):
            figures = board.headline(members)
            assert row[1] == figures["faults"].numerator
            assert row[2] == pytest.approx(figures["mttr"].value)
            for n, name in enumerate(("online_rate", "availability", "intact_rate", "good_rate")):
                same(row[3 + 3 * n : 6 + 3 * n], figures[name])
        assert report.total.figures == board.headline()

    def test_comparison_with_last_month_and_last_year(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        table, start = rows(book["汇总"]), find(book["汇总"], "与上月、去年同月比较") + 3
        june, may = busy_town.board().headline(), busy_town.board(Period.month("2026-05")).headline()
        assert june["cases"].numerator != may["cases"].numerator > 0
        for row, name in zip(table[start : start + len(COMPARED)], COMPARED, strict=True):
            assert row[0] == CATALOGUE[name].zh
            now, before = june[name], may[name]
            for cells, figure in ((row[3:6], now), (row[6:9], before)):
                scale = 3600 if name in HOURS or name == "mttr" else 1
                assert isinstance(cells[0], (int, float)) and cells[0] * scale == pytest.approx(figure.numerator)
                if figure.denominator is None:
                    assert cells[1] == "—"
                else:
                    assert isinstance(cells[1], (int, float))
                    assert cells[1] * (3600 if name in HOURS else 1) == pytest.approx(figure.denominator)
                assert cells[2] == ("—" if figure.value is None else pytest.approx(figure.value))
            if now.value is None or before.value is None or (now.unit != "share" and not before.value):
                assert row[9] == "—"
            elif now.unit == "share":
                assert row[9] == pytest.approx((now.value - before.value) * 100)
            else:
                assert row[9] == pytest.approx(now.value / before.value - 1)
            # Nothing was in service a year ago: no number, and no growth from nothing.
            assert row[10:14] == ["—"] * 4
        assert table[start][9] == pytest.approx(june["cases"].numerator / may["cases"].numerator - 1)

    def test_a_year_later_there_is_something_to_compare_with(self, busy_town: Town) -> None:
        busy_town.case("kf-00", "2027-06-09 10:00")
        _, book = made(busy_town, month="2027-06", now_ms=at("2027-07-10 08:00"))
        row = rows(book["汇总"])[find(book["汇总"], "与上月、去年同月比较") + 3]
        june = busy_town.board().headline()["cases"].numerator
        assert row[10] == june and row[13] == pytest.approx(1 / june - 1)

    def test_ratios_are_formulas_over_the_cells_beside_them(self, busy_town: Town) -> None:
        report = month_report(busy_town.conn, "2026-06", now_ms=NOW)
        book = opened(write_month(report, lang="zh"), values=False)
        summary = book["汇总"]
        assert (summary["L5"].value, summary["G5"].value, summary["I5"].value) == ("=J5/K5", "=D5/C5*30", "=D5/C5*365")
        formulas = [cell for sheet in book for row in sheet.iter_rows() for cell in row if cell.data_type == "f"]
        assert len(formulas) > 100
        saved = opened(write_month(report, lang="zh"))
        for cell in formulas:
            evaluate(cell, saved[cell.parent.title])

    def test_terminals_one_row_each(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        board, table = busy_town.board(), rows(book["终端明细"])
        by_code = {str(row[0]): row for row in table[4:]}
        assert len(by_code) == len(table) - 4 == board.population.size
        for member in board.members:
            row, figures = by_code[member.code], board.headline([member])
            outcomes = {figure.key: figure.numerator for figure in board.by_outcome([member])}
            assert row[5:10] == [
                member.machine_days,
                figures["cases"].numerator,
                outcomes["failed"],
                outcomes["abandoned"],
                figures["faults"].numerator,
            ]
            names = ("success_rate", "offhours_share", "online_rate", "availability", "intact_rate", "good_rate")
            for n, name in enumerate(names):
                same(row[10 + 3 * n : 13 + 3 * n], figures[name])
        assert sum(int(str(row[6])) for row in table[4:]) == board.cases().numerator

    def test_zero_list_in_its_order_with_marks(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        board, sheet = busy_town.board(), book["零办件"]
        listed = board.zero_list()
        assert len(listed) == board.zero_terminals().numerator > 1
        table = rows(sheet)
        assert table[0][0] == f"零办件终端清单（{len(listed)} 台，在用 {board.population.size} 台）"
        assert [row[1] for row in table[4:]] == [row.member.code for row in listed]
        assert [row[7] for row in table[4:]] == ["—" if row.days_since is None else row.days_since for row in listed]
        assert [row[8] or "" for row in table[4:]] == [say("zh", f"mark.{row.mark}") for row in listed]
        assert {"从未", "2026-05-12"} <= {row[6] for row in table[4:]}

    def test_offhours_by_class_and_hour(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        board, table = busy_town.board(), rows(book["错时延时"])
        assert table[3][1:7] == ["节假日", "周末", "午间", "班前", "班后", "工作时间"]
        for row, members in zip(table[4:8], [*(group.members for group in board.groups()), None], strict=True):
            counts = {figure.key: figure.numerator for figure in board.by_class(members)}
            assert row[1:7] == [*(counts[one.value] for one in OFF_HOURS), counts["WORK"]]
            same(row[7:10], board.offhours_share(members))
        start = find(book["错时延时"], "时段") + 1
        assert [row[1] for row in table[start : start + 24]] == [figure.numerator for figure in board.by_hour()]

    def test_faults_and_availability(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        board, table = busy_town.board(), rows(book["故障与可用率"])
        end = find(book["故障与可用率"], "合计")
        by_code = {str(row[0]): row for row in table[4 : end + 1]}
        for code, members in [*((one.code, [one]) for one in board.members), ("合计", None)]:
            row, figures = by_code[code], board.headline(members)
            mttr, shown = figures["mttr"], figures["availability"].shown
            assert row[3:5] == [figures["faults"].numerator, mttr.denominator]
            assert row[5] == pytest.approx(mttr.numerator / 3600)
            assert row[6] == ("—" if mttr.value is None else pytest.approx(mttr.value))
            assert row[7:9] == [pytest.approx(shown.get(name, 0) / 3600) for name in ("silent_s", "blind_s")]
            for n, name in enumerate(("availability", "online_rate", "intact_rate")):
                same(row[9 + 3 * n : 12 + 3 * n], figures[name])
        start = find(book["故障与可用率"], "故障码") + 1
        assert [(row[0], row[3]) for row in table[start:]] == [(one.key, one.numerator) for one in board.faults_by_code()]
        assert table[start][1] == "凭条打印机缺纸"


def evaluate(cell: Cell | MergedCell, saved: Worksheet) -> None:
    """The formula gives the value it was saved with, over the values in the cells that it names."""
    ratio, _, factor = str(cell.value).removeprefix("=").partition("*")
    numerator, denominator = (saved[name].value for name in ratio.split("/"))
    assert numerator / denominator * float(factor or 1) == pytest.approx(saved[cell.coordinate].value), cell.coordinate


class TestReader:
    def test_population_formulas_and_signatures_stand_there(self, busy_town: Town) -> None:
        _, book = made(busy_town)
        text = "\n".join(str(value) for row in rows(book["汇总"]) for value in row if value is not None)
        for part in (
            "统计口径：",
            "办件量 ÷ 台日数 × 365",
            "另有 1 件来自统计期内未在用的终端",
            "平台盲区共",
            "编号 7–99",
            "制表人：",
            "审核人：",
            "负责人：",
            "日期：",
        ):
            assert part in text, part
        assert "统计期尚未结束" not in text and "缺少" not in text

    def test_a_running_month_says_so_and_compares_nothing(self, busy_town: Town) -> None:
        report, book = made(busy_town, now_ms=at("06-20 12:00"))
        text = "\n".join(str(row[0]) for row in rows(book["汇总"]))
        assert report.is_running and "统计期尚未结束" in text
        start = find(book["汇总"], "与上月、去年同月比较") + 3
        assert {row[9] for row in rows(book["汇总"])[start : start + len(COMPARED)]} == {"—"}

    def test_a_year_without_holidays_is_told(self, busy_town: Town) -> None:
        _, book = made(busy_town, month="2028-06", now_ms=at("2028-07-01 08:00"))
        assert any("缺少 2028 年节假日安排" in str(row[0]) for row in rows(book["汇总"]))

    def test_an_area_alone_is_reported_by_what_lies_below(self, busy_town: Town) -> None:
        _, book = made(busy_town, area="west")
        table = rows(book["汇总"])
        assert "范围：west区" in str(table[1][0])
        assert [row[0] for row in table[4:7]] == ["hall-w厅", "zone24厅", "合计"]
        assert table[6][3] == Board(busy_town.conn, Question(JUNE, Scope(area="west")), NOW).cases().numerator
        _, east = made(busy_town, area="east")
        assert [row[0] for row in rows(east["汇总"])[4:7]] == ["east区（本级）", "far-east区", "合计"]

    def test_an_area_that_does_not_exist_is_not_found(self, busy_town: Town) -> None:
        with pytest.raises(NotFound):
            month_report(busy_town.conn, "2026-06", area="north", now_ms=NOW)

    def test_an_empty_fleet_gives_a_report_of_dashes(self, town_without_terminals: Town) -> None:
        _, book = made(town_without_terminals)
        assert rows(book["汇总"])[4][1:6] == [0, 0, 0, 0, 0]
        assert rows(book["汇总"])[4][6:9] == ["—"] * 3

    def test_every_published_number_can_be_traced(self, busy_town: Town) -> None:
        report = month_report(busy_town.conn, "2026-06", now_ms=NOW)
        figures = list(report.figures())
        ids = publish(busy_town.conn, figures, published_in="month-report", now_ms=NOW)
        assert len(ids) == 4 * (18 + 6)  # the fleet, two districts, and terminals that are in none
        assert all(trace(busy_town.conn, one, NOW).is_same for one in ids)


@pytest.fixture
def town_without_terminals(busy_town: Town) -> Town:
    busy_town.conn.execute("DELETE FROM terminal")
    return busy_town


def test_text_from_outside_never_becomes_a_formula(busy_town: Town) -> None:
    evil = '=HYPERLINK("http://x","y")'
    busy_town.conn.execute("UPDATE terminal SET name_zh = ?, code = '+' || id", (evil,))
    busy_town.conn.execute("UPDATE site SET name_zh = '@SUM(1)'")
    busy_town.conn.execute("UPDATE area SET name_zh = '-1+1'")
    report = month_report(busy_town.conn, "2026-06", now_ms=NOW)
    data = write_month(report, lang="zh")
    book = opened(data, values=False)
    seen = 0
    for sheet in book:
        for row in sheet.iter_rows():
            for cell in row:
                if isinstance(cell.value, str) and cell.value.startswith(("=", "+", "-", "@")) and cell.data_type != "f":
                    assert cell.quotePrefix, (sheet.title, cell.coordinate)
                    seen += 1
                if cell.data_type == "f":
                    assert "HYPERLINK" not in str(cell.value)
    assert seen > 40
    names = {cell.value for row in book["终端明细"].iter_rows(min_row=5) for cell in row[1:2]}
    assert names == {evil}
    with zipfile.ZipFile(io.BytesIO(data)) as parts:
        assert not [name for name in parts.namelist() if "externalLink" in name or "hyperlink" in name.lower()]


def test_every_word_is_there_in_both_languages() -> None:
    for key, (zh, en) in WORDS.items():
        assert bool(zh) == bool(en), key
        assert zh.count("{") == en.count("{"), key
