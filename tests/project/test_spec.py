"""Every numbered requirement of the specifications is named by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"C": "contract.md", "O": "orders.md", "U": "updates.md", "D": "owner-api.md"}


@pytest.mark.parametrize("letter", PAGES)
def test_each_requirement_has_a_number_of_its_own_and_a_test(letter: str) -> None:
    page = (ROOT / "docs/spec" / PAGES[letter]).read_text("utf-8")
    numbers = re.findall(rf"^\| ({letter}-\d+) \|", page, re.MULTILINE)
    assert len(numbers) == len(set(numbers)) > 20
    named: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for mark in re.findall(r"mark\.spec\(([^)]*)\)", file.read_text("utf-8")):
            named |= set(re.findall(rf"{letter}-\d+", mark))
    assert set(numbers) - named == set(), "requirements without a test"
    assert named - set(numbers) == set(), "tests that name no requirement"
