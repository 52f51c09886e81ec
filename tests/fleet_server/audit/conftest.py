from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.facts import FactBench
from tests.support.ordering import OrderBench


@pytest.fixture
def city(bench: FactBench, tmp_path: Path) -> OrderBench:
    """Terminals `kf-1` to `kf-3`, six accounts, an order key."""
    made = OrderBench.make(bench, tmp_path)
    made.add_terminals("kf-2", "kf-3")
    return made
