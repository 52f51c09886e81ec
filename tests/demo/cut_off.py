"""`python -m tests.demo.cut_off`: kills the updater of one terminal in the middle of its download, as a power cut would, and shows how it goes on."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeGuard, TypeVar

from edge_agent.updater.store import Store
from edge_agent.updater.workflow import Work
from scripts.say import note, step, stop
from tests.demo import setup
from tests.demo.setup import Places

WAIT_S: Final = 300.0
LOOK_EVERY_S: Final = 0.05

T = TypeVar("T")


def work_of(places: Places, terminal: str) -> Work | None:
    """What the terminal's updater has on its disk."""
    return Store(places.updater_state(terminal)).load().work


def process_with(config_file: Path) -> int | None:
    """The process that runs with this file: a terminal's agent or updater, not its launcher."""
    config = str(config_file).encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if config in words and not any(word.endswith(b"launcher.py") for word in words):
            return int(folder.name)
    return None


@dataclass(frozen=True)
class Cut:
    """A download that was cut off: whose, and of which file."""

    terminal: str
    process: int
    ledger: Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo.cut_off", description=__doc__)
    parser.add_argument("terminal", nargs="?", help="default: the first that downloads")
    parser.add_argument("--dir", type=Path, default=Path("var/demo"), help="of the demo (default: %(default)s)")
    asked = parser.parse_args()
    places = Places(asked.dir.absolute())
    known = setup.load(places)
    if known is None:
        stop(f"There is no demo in {asked.dir}: start it with `make demo`.")
    names = [asked.terminal] if asked.terminal else [member.id for member in known.city().processes]
    step("waiting for a download: start a rollout with a limit of 64 KiB/s, so that there is time to cut it off")
    while True:
        cut = _until(partial(_cut_off_one, places, names), "No terminal downloads anything.")
        note(f"{cut.terminal}: updater (process {cut.process}) killed in the middle of the download")
        if _until(partial(_how_it_goes_on, places, cut), f"{cut.terminal} does not go on.") == "resumed":
            note(f"{cut.terminal}: a new updater goes on where the download stopped; its page says so too")
            return 0
        note(f"{cut.terminal}: the server has made a smaller form of the release meanwhile, which it fetches instead; once more")


def _cut_off_one(places: Places, names: Sequence[str]) -> Cut | None:
    return next(filter(None, (_cut_off(places, name) for name in names)), None)


def _cut_off(places: Places, terminal: str) -> Cut | None:
    """Kill the updater if it downloads and has something to go on with: looked at while it stands still, so that it is not done meanwhile."""
    ledger = _newest_ledger(places, terminal)
    if not _in_the_middle(ledger) or (process := process_with(places.updater_config(terminal))) is None:
        return None
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)
        work, same = work_of(places, terminal), _newest_ledger(places, terminal) == ledger
        if work is not None and work.state == "downloading" and same and _in_the_middle(ledger):
            os.kill(process, signal.SIGKILL)
            return Cut(terminal, process, ledger)
        os.kill(process, signal.SIGCONT)
    return None


def _newest_ledger(places: Places, terminal: str) -> Path | None:
    """Of what is fetched now, or was last."""
    found: list[tuple[int, Path]] = []
    for path in places.downloads(terminal).glob("*.ledger"):
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime_ns, path))
    return max(found)[1] if found else None


def _in_the_middle(ledger: Path | None) -> TypeGuard[Path]:
    try:
        seen = json.loads(ledger.read_bytes()) if ledger is not None else {}
    except FileNotFoundError:
        return False  # it has just been finished
    return bool(0 < seen.get("synced", 0) < seen.get("length", 0))


def _how_it_goes_on(places: Places, cut: Cut) -> Literal["resumed", "otherwise"] | None:
    """None while that cannot be seen yet."""
    work = work_of(places, cut.terminal)
    if work is not None and any(part.resumed for part in work.parts):
        return "resumed"
    another = _newest_ledger(places, cut.terminal) not in (None, cut.ledger)
    return "otherwise" if another or work is None or work.state != "downloading" else None


def _until(look: Callable[[], T | None], otherwise: str) -> T:
    until_s = time.monotonic() + WAIT_S
    while not (found := look()):
        if time.monotonic() > until_s:
            stop(f"{otherwise} Waited {WAIT_S:.0f} s.")
        time.sleep(LOOK_EVERY_S)
    return found


if __name__ == "__main__":
    sys.exit(main())
