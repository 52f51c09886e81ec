from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fleet_server.notifications.city import City


@pytest.fixture
def city(schema: Path, tmp_path: Path) -> Iterator[City]:
    made = City.build(schema, tmp_path)
    yield made
    made.conn.close()
