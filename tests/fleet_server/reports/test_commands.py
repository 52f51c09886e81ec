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
