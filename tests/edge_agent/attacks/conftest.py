from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.mirror import Mirror
from tests.edge_agent.attacks.world import World


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with mirrors.running() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, mirror: Mirror) -> World:
    """A terminal that runs release 1, and the same fleet around it."""
    made = World(tmp_path, mirror)
    made.order(made.release(1))
    assert made.update() == "installed", made.last
    return made
