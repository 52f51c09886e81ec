"""`fleet-server month-report` writes a file and stores what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from openpyxl import load_workbook

from tests.fleet_server.figures.test_commands import data as data
from tests.fleet_server.supervisor.test_cli import Data


@pytest.mark.parametrize(("lang", "sheet"), [("zh", "汇总"), ("en", "Summary")])
def test_the_report_is_written_and_its_figures_are_stored(data: Data, tmp_path: Path, lang: str, sheet: str) -> None:
    file = tmp_path / "report.xlsx"
    said = data("month-report", "2026-06", "--out", file, "--lang", lang)
    assert "1 cases, 1 terminals in service; figures stored as 1 to 48" in said
    assert load_workbook(file)[sheet]["D6"].value == 1
    assert list(tmp_path.glob("*.part")) == []
    assert data.rows("SELECT DISTINCT published_in FROM figure_snapshot") == [("month-report",)]
    assert "from the facts now: 1, 1 terminals" in data("trace-figure", "1")


def test_what_cannot_be_is_said(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "report.xlsx"
    data("month-report", "June", "--out", file, status=1)
    assert "north" in data("month-report", "2026-06", "--out", file, "--area", "north", status=1)
    assert "cannot be written" in data("month-report", "2026-06", "--out", tmp_path / "no" / "such.xlsx", status=1)
    assert not file.exists()


def test_a_month_is_closed_and_can_be_closed_again(data: Data) -> None:
    said = data("close-month", "2026-06")
    assert "2026-06 is closed: 48 figures published as 1 to 48" in said
    rows = data.rows("SELECT DISTINCT published_in, publication, substr(published_by, 1, 4) FROM figure_snapshot")
    assert rows == [("month-close", 1, "cli:")]
    assert "published as 49 to 96" in data("close-month", "2026-06")
    assert data.rows("SELECT count(*), count(DISTINCT publication) FROM figure_snapshot") == [(96, 2)]


def test_a_month_that_runs_or_has_nobody_is_not_closed(data: Data) -> None:
    assert "monthRuns" in data("close-month", "2150-01", status=1)
    assert "monthEmpty" in data("close-month", "2001-01", status=1)
    assert data.rows("SELECT count(*) FROM figure_snapshot") == [(0,)]
