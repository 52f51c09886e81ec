"""The town of the figures' tests, with a May to compare June with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from openpyxl import load_workbook
from openpyxl.workbook import Workbook

from tests.fleet_server.figures.conftest import Town, fill
from tests.support.facts import FactBench


@pytest.fixture
def busy_town(schema: Path) -> Iterator[Town]:
    bench = FactBench(schema)
    town = fill(Town(bench), random.Random(20260601))
    for n in range(60):
        town.case(f"kf-{n % 12:02}", f"05-{1 + n % 28:02} 10:00", "success" if n % 3 else "failed")
    yield town
    bench.close()


def opened(data: bytes, *, values: bool = True) -> Workbook:
    """The file as another program reads it: the values it was saved with, or the formulas."""
    return load_workbook(BytesIO(data), data_only=values)
