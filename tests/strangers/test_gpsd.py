"""gpsd, unmodified, takes the model of a position receiver for one: on a pseudo terminal, with a port and a socket of its own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scripts.system_packages import SEARCH_PATH, missing
from simulators.models.gps import GpsReceiver, Stop
from simulators.ports.pty import ThreadPty

WITHIN_S = 20.0
HERE = Stop(29.0790, 119.6474, 86_400)


@pytest.fixture(autouse=True)
def _tools() -> None:
    if needs := missing(["power"]):
        pytest.fail(f"needs {', '.join(need.package for need in needs)}: python -m scripts.system_packages power")


@contextmanager
def gpsd(device: Path, place: Path) -> Iterator[int]:
    """A daemon for one device; yields its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    program = shutil.which("gpsd", path=SEARCH_PATH)
    assert program is not None
    # -b: it must not try to configure what it finds; -n: it listens to the receiver without waiting for a client.
    command = [program, "-N", "-n", "-b", "-s", "9600", "-S", str(port), "-F", str(place / "control"), str(device)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def reports(port: int, kind: str) -> Iterator[dict[str, Any]]:
    """What `gpspipe -w` prints, of one class, for as long as it is read."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["gpspipe", "-w", "-n", "6", "-x", "4", f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        for line in done.stdout.splitlines():
            report = json.loads(line)
            if report.get("class") == kind:
                yield report
    raise AssertionError(f"no {kind} within {WITHIN_S} s")


def test_it_shows_the_fix(tmp_path: Path) -> None:
    model = GpsReceiver(route=(HERE,))
    with ThreadPty(model, tmp_path / "gps"), gpsd((tmp_path / "gps").resolve(), tmp_path) as port:
        fix = next(report for report in reports(port, "TPV") if report.get("mode") == 3)
        assert fix["lat"] == pytest.approx(HERE.latitude, abs=1e-4)
        assert fix["lon"] == pytest.approx(HERE.longitude, abs=1e-4)
        model.set("no-fix", time.monotonic())
        lost = next(report for report in reports(port, "TPV") if report.get("mode") in (0, 1))
        assert "lat" not in lost
