"""`python -m tests.demo.updaters ROOT`: the updaters of all terminals whose agents live in the fleet process.

Each is the updater of a kiosk (`edge_agent.updater`), with its own directories, its own trust and its own connection to the server; only the process
is shared, and how many work at once is bounded, because one machine does what in a city hundreds do. A process beside the agents' own, so that here
too no agent loads TUF.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Final

from edge_agent import launcher
from edge_agent.errors import AgentError
from edge_agent.updater import install
from edge_agent.updater import settings as configuration
from edge_agent.updater.cli import build_service
from edge_agent.updater.install import SelfTestLimits
from edge_agent.updater.layout import Layout
from edge_agent.updater.service import Service
from edge_agent.updater.workflow import ENDS, Work
from tests.demo.processes import end_with_parent
from tests.demo.setup import Places, load

log = logging.getLogger(__name__)

ROUND_EVERY_S: Final = 0.25
WORKING_EVERY_S: Final = 1.0
RESTING_EVERY_S: Final = 15.0
"""How often an updater looks around while it has something to do, and while it has not. What its agent hands over wakes it at once."""
TRANSFERS_AT_ONCE: Final = 48
"""Most of them wait: for the server, or for the limit of their rate."""
OTHERS_AT_ONCE: Final = 6
"""Verifying metadata is work for a core; unpacking mostly waits for the disk, which all terminals share here."""


class SelfTests:
    """A version's own test of itself, once for the same bytes on the same machine. Only what passed is remembered."""

    def __init__(self) -> None:
        self._passed: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, tree: Path, version: str, limits: SelfTestLimits) -> None:
        with self._lock:
            if tree.name not in self._passed:  # version and hash of the image
                install.self_test(tree, version, limits)
                self._passed.add(tree.name)


class SharedFiles:
    """Lets terminals share the disk of what is the same in all of them, as a file system that removes duplicates would."""

    def __init__(self) -> None:
        self._first: dict[Path, Path] = {}

    def share(self, layout: Layout) -> None:
        """The files of the version that is good, and its image. Each is replaced whole, by one with the same content."""
        about, name = layout.installed(), layout.state().seat("agent").good
        if about is None or name is None or layout.tree(name).is_symlink():
            return
        tree = layout.tree(name)
        files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
        for path in (*files, layout.image(about.sha256)):
            key = Path(name) / path.relative_to(layout.root)
            first = self._first.setdefault(key, path)
            if first is path:
                continue
            temporary = layout.root / ".shared.new"
            temporary.unlink(missing_ok=True)
            try:
                temporary.hardlink_to(first)
            except FileNotFoundError:  # that terminal has removed it meanwhile
                self._first[key] = path
            else:
                temporary.replace(path)


class Seat:
    """One terminal's updater, started again as its launcher would."""

    def __init__(self, config: Path, process_table: Path, self_tests: SelfTests, shared: SharedFiles) -> None:
        self._settings = configuration.load(config)
        self._process_table, self._self_tests, self._shared = process_table, self_tests, shared
        self._root = Path(self._settings.root)
        self._handed_over = Path(self._settings.requests_dir) / "desired.cose"
        self.service = self._start()
        self._next_s, self._seen, self._rested = 0.0, 0, True

    @property
    def begins(self) -> str:
        """The state whose long action the next look would begin; empty if it would not."""
        work = self.service.work
        long = work is not None and work.state in ("pending", "downloading", "verifying")
        return work.state if work is not None and long and not self.service.busy else ""

    @property
    def working(self) -> str:
        """The state whose action is being carried out."""
        work = self.service.work
        return work.state if work is not None and self.service.busy else ""

    def due(self, now_s: float) -> bool:
        if now_s >= self._next_s:
            return True
        seen = _changed_ns(self._handed_over)
        return seen != self._seen

    def look(self, now_s: float) -> None:
        self._seen = _changed_ns(self._handed_over)
        try:
            self.service.tick()
        except AgentError as err:  # as GiveUp: a step that cannot be ended otherwise
            log.warning("an updater starts again: %s", err)
            self._again()
        if self.service.restart_wanted:
            self._again()
        resting = not self.service.busy and _rests(self.service.work)
        if resting and not self._rested:
            self._shared.share(Layout(self._root))
        self._rested = resting
        self._next_s = now_s + (RESTING_EVERY_S if resting else WORKING_EVERY_S)

    def close(self) -> None:
        self.service.close()

    def _again(self) -> None:
        self.service.close()
        launcher.ended(self._root, "updater", "")
        self.service = self._start()

    def _start(self) -> Service:
        launcher.count(self._root, "updater")
        return build_service(self._settings, proc=self._process_table, self_test=self._self_tests)


class Updaters:
    def __init__(self, seats: Iterable[Seat]) -> None:
        self._seats = list(seats)

    def services(self) -> list[Service]:
        return [seat.service for seat in self._seats]

    def run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                self.round(time.monotonic())
                stop.wait(ROUND_EVERY_S)
        finally:
            for seat in self._seats:
                seat.close()

    def round(self, now_s: float) -> None:
        """Each that is due looks around; who would begin something long waits until there is room for it."""
        working = [seat.working for seat in self._seats]
        transfers = working.count("downloading")
        others = len(working) - working.count("") - transfers
        for seat in self._seats:
            if not seat.due(now_s):
                continue
            begins = seat.begins
            if begins == "downloading":
                if transfers >= TRANSFERS_AT_ONCE:
                    continue
                transfers += 1
            elif begins:
                if others >= OTHERS_AT_ONCE:
                    continue
                others += 1
            seat.look(now_s)


def _rests(work: Work | None) -> bool:
    return work is None or (work.state in ENDS and work.ended == "")


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def main(root: Path) -> None:
    places = Places(root)
    setup = load(places)
    if setup is None:
        raise SystemExit(f"{places.file} is missing; `python -m tests.demo` makes it")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    self_tests, shared = SelfTests(), SharedFiles()
    members = setup.city().pipes
    Updaters(
        Seat(places.updater_config(one.id), places.process_table(one.id), self_tests, shared)
        for one in takewhile(lambda _: not stop.is_set(), members)
    ).run(stop)


if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    main(Path(sys.argv[1]))
