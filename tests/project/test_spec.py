"""Every numbered requirement of the record contract is named by a test."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_each_requirement_has_a_number_of_its_own_and_a_test() -> None:
    numbers = re.findall(r"^\| (C-\d+) \|", (ROOT / "docs/spec/contract.md").read_text("utf-8"), re.MULTILINE)
    assert len(numbers) == len(set(numbers)) > 60
    named: set[str] = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for mark in re.findall(r"mark\.spec\(([^)]*)\)", file.read_text("utf-8")):
            named |= set(re.findall(r"C-\d+", mark))
    assert set(numbers) - named == set(), "requirements without a test"
    assert named - set(numbers) == set(), "tests that name no requirement"
