"""The real outbox and ledger through the contract's fault kinds, by seed. `make soak` runs thousands of seeds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet_server.evidence import ledger
from tests.together.stream_faults import run

SEEDS = 120
"""About 15 s of one core in blocks of ten."""
SOAK_SEEDS = int(os.environ.get("KF_SOAK_SEEDS", "8600"))
STEPS = 400


@pytest.mark.spec(
    "C-302", "C-303", "C-407", "C-408", "C-501", "C-506", "C-507", "C-508", "C-509", "C-510", "C-511", "C-512", "C-515"
)
@pytest.mark.parametrize("block", range(SEEDS // 10))
def test_nothing_is_lost_doubled_or_stuck(block: int, tmp_path: Path, database_template: Path) -> None:
    for seed in range(block * 10, block * 10 + 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        run(seed, folder, database_template, STEPS)


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_thousands_of_seeds(tmp_path: Path, database_template: Path) -> None:
    for seed in range(10_000, 10_000 + SOAK_SEEDS):
        folder = tmp_path / "one"
        folder.mkdir()
        run(seed, folder, database_template, STEPS)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


MUTATIONS = {
    "acknowledging what was not stored": ("_store", lambda *_: 0),
    "never setting a second story aside": ("_set_aside", lambda *_: None),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_faults_find_a_broken_server(
    name: str, tmp_path: Path, database_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test of the test: a ledger that breaks one rule does not survive these seeds."""
    method, broken = MUTATIONS[name]
    monkeypatch.setattr(ledger.Ledger, method, broken)
    found = 0
    for seed in range(3, 43, 4):
        folder = tmp_path / str(seed)
        folder.mkdir()
        try:
            run(seed, folder, database_template, STEPS)
        except AssertionError:
            found += 1
    assert found
