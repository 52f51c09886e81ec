"""The installer on ext4 and xfs that lose power at any moment: a complete version starts, and nothing that was confirmed is forgotten."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import launcher
from edge_agent.updater.layout import Layout, name_of
from tests.edge_agent.updater.installing import package
from tests.edge_agent.updater.places import OLD_NAME, factory
from tests.together.power_cut import NoPowerSwitch, powered_disk

pytestmark = pytest.mark.spec("U-302")

ROOT = Path(__file__).resolve().parents[3]
SOAK_CUTS = max(2, int(500 * float(os.environ.get("KF_SOAK", "1"))))


def install_until(root: Path, start: int, rng: random.Random, lines: int) -> tuple[subprocess.Popen[str], str, int]:
    """Let an installer work; (still running, last word it said, its number)."""
    command = [sys.executable, "-m", "tests.edge_agent.updater.installing", str(root), str(start)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    word, number = "none", start - 1
    for _ in range(lines):
        word, text = child.stdout.readline().split()
        number = int(text)
    try:
        child.wait(rng.uniform(0, 0.03))  # into the middle of the next step
    except subprocess.TimeoutExpired:
        return child, word, number
    raise AssertionError(f"the installer ended with {child.returncode}")


def end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait(10)
    assert child.stdout is not None
    child.stdout.close()


def check(layout: Layout, word: str, number: int) -> None:
    """After the cut: `word number` was promised, and maybe more was done that nobody heard of."""
    name = launcher.count(layout.root)
    assert name is not None, "no complete version"
    for path, size in _files(layout, name):
        assert path.stat().st_size == size and (size < 1000 or b"\0" * 64 not in path.read_bytes()), f"torn: {path.name}"
    own = layout.state().seat("agent")
    good = _number(own.good)
    if word == "good":
        assert good >= number, f"{number} was confirmed, {own.good} is good"
    elif word == "trial":
        assert own.trial is not None or good >= number or own.verdict is not None, f"the trial of {number} is forgotten"
    elif word in ("back", "lost"):
        assert good != number and (own.trial is None or _number(own.trial.name) > number), f"{number} was taken back"
    layout.clean()
    assert all(layout.complete(path.name) for path in layout.versions.iterdir())


def _files(layout: Layout, name: str) -> list[tuple[Path, int]]:
    number = _number(name)
    if number == 0:
        return [(layout.tree(name) / "bin/edge-agent", (layout.tree(name) / "bin/edge-agent").stat().st_size)]
    return [(layout.tree(name) / f"lib/part{at}.txt", len(f"2.{number} {at} ".encode()) * (20_000 // 8)) for at in range(12)]


def _number(name: str | None) -> int:
    assert name is not None
    return 0 if name == OLD_NAME else int(name.split("-")[0].split(".")[1])


def cut_repeatedly(folder: Path, kind: str, cuts: int, seed: int) -> None:
    rng = random.Random(seed)
    try:
        with powered_disk(folder, kind) as disk:
            layout, number = factory(disk.mount / "root"), 0
            for _ in range(cuts):
                child, word, number = install_until(layout.root, number + 1, rng, rng.randrange(0, 5))
                disk.cut()
                end(child)
                disk.come_back()
                check(layout, word, number)
    except NoPowerSwitch as err:
        pytest.skip(str(err))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_ten_power_cuts(tmp_path: Path, kind: str) -> None:
    cut_repeatedly(tmp_path, kind, 10, seed=4)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_five_hundred_power_cuts(tmp_path: Path, kind: str) -> None:
    cut_repeatedly(tmp_path, kind, SOAK_CUTS, seed=random.SystemRandom().randrange(1 << 30))


def test_the_harness_sees_what_is_not_synchronised(tmp_path: Path) -> None:
    """The same installer without fsync leaves torn or lost files: a test that could not fail would prove nothing."""
    lost = 0
    try:
        with powered_disk(tmp_path, "ext4") as disk:
            for at in range(3):
                path = disk.mount / f"file{at}"
                path.write_bytes(os.urandom(100_000))
                disk.cut()
                disk.come_back()
                lost += not path.exists() or path.stat().st_size != 100_000
    except NoPowerSwitch as err:
        pytest.skip(str(err))
    assert lost == 3


def test_names_in_this_test_are_those_of_the_installer() -> None:
    assert _number(name_of(package(7).version, package(7).sha256)) == 7
