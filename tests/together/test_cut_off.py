"""The demo's cut-off strikes in the middle of a download only, and tells a download that goes on from one that begins otherwise."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import msgspec
import pytest

from edge_agent.updater.store import Memory, Store
from edge_agent.updater.workflow import Part, Work
from tests.demo import cut_off
from tests.demo.setup import Places
from tests.protocols.contract import make_order_vectors as order_vectors
from tests.support.processes import Child, Processes
from tests.support.waiting import wait_until

NAME = "kf-0001"
BUNDLE = order_vectors.desired().bundle


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path)
    for folder in (made.downloads(NAME), made.updater_state(NAME)):
        folder.mkdir(parents=True)
    return made


@pytest.fixture
def updater(places: Places, processes: Processes) -> Child:
    """A process with the updater's arguments."""
    child = processes.start_python("-c", "import time; time.sleep(600)", places.updater_config(NAME))
    wait_until(lambda: cut_off.process_with(places.updater_config(NAME)) == child.pid, "it runs")
    return child


def work(places: Places, **changes: object) -> None:
    assert BUNDLE is not None
    one = Work(bundle=BUNDLE, parts=(Part(wanted=BUNDLE.wanted[0]),), state="downloading")
    Store(places.updater_state(NAME)).save(Memory(work=msgspec.structs.replace(one, **changes)))


def ledger(places: Places, name: str, synced: int) -> Path:
    path = places.downloads(NAME) / f"{name}.ledger"
    path.write_text(json.dumps({"length": 100, "synced": synced}), "ascii")
    return path


def test_only_in_the_middle(places: Places, updater: Child) -> None:
    for state, synced in (("downloading", 0), ("downloading", 100), ("verifying", 50)):
        work(places, state=state)
        ledger(places, "whole", synced)
        assert cut_off._cut_off(places, NAME) is None
    wait_until(lambda: Path(f"/proc/{updater.pid}/stat").read_text().split()[2] == "S", "it goes on")
    work(places)
    kept = ledger(places, "whole", 50)
    assert cut_off._cut_off(places, NAME) == cut_off.Cut(NAME, updater.pid, kept)
    assert updater.popen.wait(10) == -signal.SIGKILL
    assert cut_off._cut_off(places, NAME) is None, "the next one does not run yet"


def test_how_it_goes_on(places: Places) -> None:
    work(places)
    cut = cut_off.Cut(NAME, os.getpid(), ledger(places, "whole", 50))
    assert cut_off._how_it_goes_on(places, cut) is None
    ledger(places, "packed", 0)
    assert cut_off._how_it_goes_on(places, cut) == "otherwise"
    (places.downloads(NAME) / "packed.ledger").unlink()
    cut.ledger.unlink()
    assert cut_off._how_it_goes_on(places, cut) is None, "finished, and not yet told"
    assert BUNDLE is not None
    work(places, parts=(Part(wanted=BUNDLE.wanted[0], resumed=1),), state="verifying")
    assert cut_off._how_it_goes_on(places, cut) == "resumed"
    work(places, state="verifying")
    assert cut_off._how_it_goes_on(places, cut) == "otherwise"
