"""`python -m tests.demo.cut_off`: kills the updater of one terminal in the middle of its download, as a power cut would, and shows how it goes on."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

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
    terminal = _until(lambda: _downloading(places, names), "No terminal downloads anything.")
    process = process_with(places.updater_config(terminal))
    if process is None:
        stop(f"The updater of {terminal} is not running.")
    os.kill(process, signal.SIGKILL)
    note(f"{terminal}: updater (process {process}) killed in the middle of the download")
    _until(lambda: _resumed(places, terminal), f"{terminal} does not go on.")
    note(f"{terminal}: a new updater goes on where the download stopped; its page says so too")
    return 0


def _downloading(places: Places, names: list[str]) -> str | None:
    """A terminal that has something to go on with."""
    return next((name for name in names if any(map(_kept_bytes, places.downloads(name).glob("*.ledger")))), None)


def _kept_bytes(ledger: Path) -> int:
    try:
        return int(json.loads(ledger.read_bytes())["synced"])
    except OSError:
        return 0  # it has just been finished


def _resumed(places: Places, terminal: str) -> bool:
    work = work_of(places, terminal)
    return work is not None and any(part.resumed for part in work.parts)


def _until(look: Callable[[], T | None], otherwise: str) -> T:
    until_s = time.monotonic() + WAIT_S
    while not (found := look()):
        if time.monotonic() > until_s:
            stop(f"{otherwise} Waited {WAIT_S:.0f} s.")
        time.sleep(LOOK_EVERY_S)
    return found


if __name__ == "__main__":
    sys.exit(main())
