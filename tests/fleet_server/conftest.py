"""A database of the current schema in memory, with one terminal `kf-1` at site `S1`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.facts import FactBench, template


@pytest.fixture(scope="session")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return template(tmp_path_factory.mktemp("schema"))


@pytest.fixture
def bench(schema: Path) -> Iterator[FactBench]:
    made = FactBench(schema)
    made.add_terminal("kf-1")
    yield made
    made.close()
