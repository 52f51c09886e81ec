"""The outbox on a disk that loses power, and under kill -9: what was confirmed is there, the chain goes on."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.outbox import Outbox
from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from tests.support.contract import BOOT_ID, FLEET, RECORD, TERMINAL, StepClock
from tests.together.power_cut import NoPowerSwitch, powered_disk

ROOT = Path(__file__).resolve().parents[2]
CUTS = int(os.environ.get("KF_SOAK_CUTS", "250"))


def write_until(path: Path, start: int, rng: random.Random) -> tuple[subprocess.Popen[str], int]:
    """Start a writer and let it confirm some records; returns (still running process, last number confirmed)."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.together.spool_writer", str(path), str(start)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    last = start
    for _ in range(rng.randrange(1, 60)):
        last = int(writer.stdout.readline())
    return writer, last


def check(path: Path, confirmed: int) -> int:
    """Open what is there: every confirmed number once, in order, chained and signed; returns the newest number."""
    outbox = Outbox(path, RECORD, FLEET, TERMINAL, StepClock())
    outbox.start_stream(BOOT_ID)
    numbers: list[int] = []
    heads: dict[bytes, tuple[int, bytes]] = {}
    for item in outbox.unacknowledged(0, max_count=100_000, max_bytes=1 << 30):
        opened = cose.verify(
            cose.parse(item.envelope, ENVELOPE_MAX_BYTES), RECORD.verifier, batches.BATCH_CONTEXT, FLEET, TERMINAL
        )
        batch = batches.read_batch(opened)
        no, digest = heads.get(batch.header.stream, (0, b""))
        assert (batch.header.no, batch.header.prev) == (no + 1, digest)
        if no == 0 and heads:
            assert batch.header.parent is not None
            assert heads[batch.header.parent.stream] == (batch.header.parent.no, batch.header.parent.digest)
        heads[batch.header.stream] = (batch.header.no, opened.digest)
        numbers += [record["v"].get("count", 1) for record in batch.records]
    outbox.close(clean=False)
    newest = numbers[-1] if numbers else 0
    assert numbers == list(range(1, newest + 1)), "lost, doubled or out of order"
    assert newest >= confirmed, f"{confirmed} was confirmed, {newest} is the last one there"
    return newest


def cut_repeatedly(folder: Path, kind: str, cuts: int, seed: int) -> None:
    rng = random.Random(seed)
    try:
        with powered_disk(folder, kind) as disk:
            path, newest = disk.mount / "outbox.db", 0
            for _ in range(cuts):
                writer, confirmed = write_until(path, newest, rng)
                disk.cut()
                end(writer)
                disk.come_back()
                newest = check(path, confirmed)
    except NoPowerSwitch as err:
        pytest.skip(str(err))


def end(writer: subprocess.Popen[str]) -> None:
    writer.kill()
    writer.wait(10)
    assert writer.stdout is not None
    writer.stdout.close()


@pytest.mark.spec("C-205", "C-306", "C-307")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_power_cut_loses_nothing_that_was_confirmed(kind: str, tmp_path: Path) -> None:
    cut_repeatedly(tmp_path, kind, cuts=10, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_many_power_cuts(kind: str, tmp_path: Path) -> None:
    cut_repeatedly(tmp_path, kind, cuts=CUTS, seed=2)


@pytest.mark.spec("C-205", "C-306", "C-307")
def test_kill_9_loses_nothing_that_was_confirmed(tmp_path: Path) -> None:
    rng, path, newest = random.Random(3), tmp_path / "outbox.db", 0
    for _ in range(10):
        writer, confirmed = write_until(path, newest, rng)
        end(writer)
        newest = check(path, confirmed)
