"""Starts a umockdev bench (`simulators.ports.umockdev_bench`) beside this process and says how other programs see its devices.

    with start_bench({"terminal": "kiosk"}, directory) as bench:
        subprocess.run(["my-program"], env={**os.environ, **bench.environment})

The bench runs on the system's Python, because umockdev's bindings (Debian: umockdev, gir1.2-umockdev-1.0, python3-gi) are installed there. Only
dynamically linked programs see the devices. Steer them with `bench.do("fault", "receipt-printer", "paper-out")` or with `kiosk-sim fault DIR …`.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simulators
from simulators import control
from simulators.errors import SimulatorError

SYSTEM_PYTHON = "/usr/bin/python3"
PRELOAD = "libumockdev-preload.so.0"
LOG_FILE = "bench.log"
READY_FILE = "bench.json"
START_WITHIN_S = 20.0
STOP_WITHIN_S = 5.0
PACKAGES = "umockdev gir1.2-umockdev-1.0 python3-gi"


class NoUmockdev(SimulatorError):
    """The bench does not start on this machine; the message says what is missing."""


@dataclass
class RunningBench(AbstractContextManager["RunningBench"]):
    """A bench process. It ends with `close`, or with the `with` block."""

    process: subprocess.Popen[bytes]
    directory: Path
    environment: dict[str, str]
    ports: list[dict[str, Any]]

    def do(self, *words: str, for_s: float | None = None) -> None:
        """`fault DEVICE NAME`, `clear DEVICE NAME`, `press DEVICE ACTION [ARGUMENT]`."""
        message: dict[str, Any] = {"do": words[0], "words": list(words[1:])}
        if for_s is not None:
            message["for_s"] = for_s
        control.request(self.directory, message)

    def play(self, script: str) -> None:
        control.request(self.directory, {"do": "script", "text": script})

    @property
    def log(self) -> str:
        """What the bench said: nothing, unless it ended by itself."""
        return (self.directory / LOG_FILE).read_text("utf-8", "replace")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.close()


def command(wanted: Mapping[str, Any], directory: Path) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a bench process."""
    package = str(Path(simulators.__file__).parent.parent)
    words = [SYSTEM_PYTHON, "-B", "-m", "simulators.ports.umockdev_bench", str(directory), json.dumps(dict(wanted))]
    left_out = ("UMOCKDEV_DIR", "PYTHONHOME", "VIRTUAL_ENV")
    return words, {**{k: v for k, v in os.environ.items() if k not in left_out}, "LD_PRELOAD": PRELOAD, "PYTHONPATH": package}


def start_bench(wanted: Mapping[str, Any], directory: Path) -> RunningBench:
    """Start one with what `wanted` says (`umockdev_bench.Wanted`); returns when all is plugged in. Raises NoUmockdev."""
    directory.mkdir(parents=True, exist_ok=True)
    words, environment = command(wanted, directory)
    log = directory / LOG_FILE
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
    except OSError as err:
        raise NoUmockdev(f"There is no {SYSTEM_PYTHON} here; the bench needs it with {PACKAGES}.") from err
    deadline = time.monotonic() + START_WITHIN_S
    ready = directory / READY_FILE
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            said = log.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise NoUmockdev(f"The umockdev bench did not start ({said[0]}). On Debian: apt-get install {PACKAGES}")
        time.sleep(0.02)
    tree = json.loads(ready.read_text("utf-8"))
    return RunningBench(process, directory, tree["environment"], tree["ports"])
