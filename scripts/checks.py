"""`make check` and `make test`: format, lint, strict types, import contracts, then the tests, with a table of where the time went.

Tests marked `serial` follow real clocks or load the machine: they run after the others, on a machine that is calm. The last line sums both runs up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from scripts import say

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

STATIC: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Format (ruff format)", ("ruff", "format", "--check", "--quiet", "--output-format", "concise", ".")),
    ("Lint (ruff check)", ("ruff", "check", "--quiet", "--output-format", "concise", ".")),
    ("Import contracts (lint-imports)", ("lint-imports", "--no-logo")),
    ("Types (mypy --strict)", ("mypy",)),
)

# pytest's own exit code for "nothing collected": no test of that kind, which is not a failure of the others.
NOTHING_COLLECTED = 5
# Many tests wait for processes and protocols: a third worker fills that time on two cores.
LEAST_WORKERS, MOST_WORKERS = 3, 8
# The serial tests mostly wait for real time (together they use a quarter of one core): two files side by side leave each other what they need.
CALM_WORKERS = 2

# Seconds of test time (all workers added up, each waiting for the others at times) that a folder under tests/ may take. A third of the sum is what
# `make test` takes beside its serial part; a folder that is not named gets the last value. Over budget is said, not failed: machines differ.
BUDGET_S: dict[str, int] = {
    "edge_agent": 660,
    "fleet_server": 1350,
    "protocols": 60,
    "together": 1300,
    "browser": 1000,
    "simulators": 240,
    "stacks": 150,
    "": 180,
}


@dataclass
class Tally:
    """What the runs of one command came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    broken: bool = False

    def add(self, report: Path) -> None:
        """Count the test cases of a JUnit report."""
        if not report.is_file():
            return
        for case in ElementTree.parse(report).iter("testcase"):
            parts = case.get("classname", "").split(".")
            suite = parts[1] if len(parts) > 2 and parts[0] == "tests" else "(top)"
            self.seconds[suite] = self.seconds.get(suite, 0.0) + float(case.get("time", "0"))
            if case.find("failure") is not None or case.find("error") is not None:
                self.failed += 1
            elif case.find("skipped") is not None:
                self.skipped += 1
            else:
                self.passed += 1


def run_static() -> bool:
    """Run the checkers that read the code; all of them, so one round shows everything."""
    good = True
    for title, (tool, *arguments) in STATIC:
        say.step(title)
        good &= subprocess.run([str(BIN / tool), *arguments], cwd=ROOT, check=False).returncode == 0
    return good


def keeping_byte_code(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for tests. They start hundreds of programs, and each would compile the whole project for itself where byte code is not kept."""
    return {name: value for name, value in environment.items() if name != "PYTHONDONTWRITEBYTECODE"}


def run_tests(tally: Tally, title: str, marks: str, workers: int, more: Sequence[str]) -> None:
    """Run one pytest over the tests that `marks` selects, and add it to the tally."""
    say.step(title)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", marks, "-n", str(workers), f"--junit-xml={report}", *more]
        code = subprocess.run(command, cwd=ROOT, env=keeping_byte_code(os.environ), check=False).returncode
        tally.add(report)
    tally.broken |= code not in (0, NOTHING_COLLECTED)


def show(tally: Tally, started_s: float) -> None:
    """Print where the time went, and one closing line for all runs."""
    print(f"\n{'suite':<20}{'seconds':>9}{'budget':>9}")
    for suite, seconds in sorted(tally.seconds.items(), key=lambda item: -item[1]):
        budget_s = BUDGET_S.get(suite, BUDGET_S[""])
        print(f"{suite:<20}{seconds:>9.1f}{budget_s:>9}{'   over budget' if seconds > budget_s else ''}")
    print(f"whole run: {(time.monotonic() - started_s) / 60:.1f} minutes\n")
    print(f"{tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped", flush=True)


def main(which: str, more: Sequence[str]) -> int:
    """`quick` is for every commit, `all` before anything is handed on; further words go to pytest."""
    started_s = time.monotonic()
    workers = max(LEAST_WORKERS, min(os.cpu_count() or LEAST_WORKERS, MOST_WORKERS))
    if not run_static():
        say.stop("The checks above must hold before the tests run.")
    tally = Tally()
    # Each worker begins in another part of the tree, so that tests that wait run beside tests that compute, and whoever is done early takes over.
    even = ("--dist", "worksteal", *more)
    if which == "quick":
        run_tests(tally, "Unit tests", "not (soak or serial or slow or browser or broker)", workers, even)
    else:
        run_tests(tally, f"Tests, {workers} at a time", "not (soak or serial)", workers, even)
        calm = ("--dist", "loadfile", *more)
        run_tests(tally, f"Tests that need a calm machine, {CALM_WORKERS} at a time", "serial and not soak", CALM_WORKERS, calm)
    show(tally, started_s)
    return 1 if tally.broken or tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
