"""A machine may be called anything: its name is harmless in pages, in CSV and in Excel, and a terminal without an area is still listed."""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from openpyxl import load_workbook

from fleet_server.db import open_raw
from tests.support.person import Person, operator_of
from tests.support.seed import NOW_MS, Seeded, seed

SCRIPT = "<script>alert(1)</script>"
FORMULA = '=1+1+cmd|" /C calc"!A0'
EMOJI = "大厅🖨️👩🏽‍🔧一号"
LONG = "金东区行政服务中心一楼东侧自助服务区靠近三号门的第十七号综合自助服务终端备用机甲乙"
NAMES = {
    "kf-0003": SCRIPT,
    "kf-0004": FORMULA,
    "kf-0006": EMOJI,
    "kf-0007": LONG[:40],
    "kf-0008": "\t@SUM(A1)",
    "kf-0009": "+86-1\r\n-2",
}
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def rename(connection: sqlite3.Connection) -> None:
    for terminal, name in NAMES.items():
        connection.execute("UPDATE terminal SET name_zh = ?, name_en = ?, tags = '[]' WHERE id = ?", (name, name, terminal))
    connection.execute(
        "INSERT INTO site (code, area, name_zh, name_en, kind, hours, timezone, network)"
        " VALUES ('lost', 'no-such-area', ?, '', 'hall', 'no hours', 'Asia/Shanghai', 'internet')",
        (SCRIPT,),
    )
    connection.execute(
        "INSERT INTO area (code, parent, name_zh, name_en, sort) VALUES ('empty', 'jinhua', ?, '', 99)", (FORMULA,)
    )
    connection.execute("UPDATE terminal SET site = 'lost' WHERE id = 'kf-0010'")
    connection.execute("UPDATE terminal SET site = 'gone altogether' WHERE id = 'kf-0011'")
    for number, terminal in enumerate(NAMES):
        connection.execute(
            "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
            " VALUES (?, ?, 'receipt-printer', 'PRN.JAM', 'P2', 1, ?, ?, 0, 0, 'terminal', 0)",
            (f"{terminal}:{number + (1 << 40):016x}", terminal, NOW_MS - 60_000, NOW_MS - 60_000),
        )


@pytest.fixture
def seeded(tmp_path: Path) -> Seeded:
    made = seed(tmp_path / "fleet.sqlite", count=60, days=3)
    with closing(open_raw(made.path)) as connection:
        rename(connection)
    return made


async def files(person: Person, path: str) -> tuple[str, bytes]:
    """The CSV and the Excel file of a list."""
    answers = [await person.client.get(path.replace("*", ending)) for ending in ("csv", "xlsx")]
    assert [answer.status_code for answer in answers] == [200, 200]
    return answers[0].content.decode("utf-8-sig"), answers[1].content


@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_pages_show_names_as_text(seeded: Seeded, tmp_path: Path, lang: str) -> None:
    async with operator_of(seeded.path, tmp_path, lambda: NOW_MS, lang) as person:
        for path in ("/", "/needs", "/terminals?sort=code", "/faults", "/map", "/sites", *(f"/terminals/{one}" for one in NAMES)):
            page = await person.get(path)
            assert "<script>alert" not in page, path
            assert not re.search(r"<[^>]*\s(?:on\w+|style)=", page), path
        seen = await person.seen("/terminals?sort=code")
        for name in NAMES.values():
            assert " ".join(name.split()) in seen
        for terminal in ("KF-0010", "KF-0011"):
            assert terminal in seen, "a terminal without an area is still listed"


@pytest.mark.parametrize("path", ["/terminals.*?sort=code", "/faults.*", "/figures/terminals.*?period=2026-11"])
async def test_files_hold_no_formula(seeded: Seeded, tmp_path: Path, path: str) -> None:
    async with operator_of(seeded.path, tmp_path, lambda: NOW_MS) as person:
        text, book = await files(person, path)
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
        assert [cell for cell in cells if cell.startswith(FORMULA_STARTS) and not re.fullmatch(r"[-+]?[\d.,]+ ?%?", cell)] == []
        assert any(SCRIPT in cell for cell in cells)
        assert any("1+1+cmd" in cell for cell in cells)
        assert any(EMOJI in cell for cell in cells)
        sheets = load_workbook(io.BytesIO(book)).worksheets
        found = [cell for sheet in sheets for row in sheet.iter_rows() for cell in row if cell.value is not None]
        assert [cell.coordinate for cell in found if cell.data_type == "f"] == []
        assert any(FORMULA in str(cell.value) for cell in found), "a spreadsheet has types: the name needs no change"
        assert any(EMOJI in str(cell.value) for cell in found)
