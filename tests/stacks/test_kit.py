"""`kiosk-sim terminal … --umockdev`, as somebody outside uses it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from simulators import control
from tests.support.processes import Processes
from tests.support.waiting import wait_until

LOOK = "import pyudev; print(sorted(d.device_node for d in pyudev.Context().list_devices(subsystem='tty') if d.device_node))"


def test_a_whole_terminal_for_any_program(tmp_path: Path, stack: ExitStack) -> None:
    processes = Processes(tmp_path)
    stack.callback(processes.end_all)
    folder = tmp_path / "d"
    kit = processes.start_python("-m", "simulators.cli", "terminal", "van", "--dir", folder, "--umockdev", "--seed", "1")
    kit.wait_for_output("PROGRAM")
    variables = dict(re.findall(r"([A-Z_]+)=(\S+)", kit.output()))

    def ttys() -> str:
        done = subprocess.run(
            [sys.executable, "-c", LOOK], env={**os.environ, **variables}, capture_output=True, text=True, check=True
        )
        return done.stdout

    before = ttys()
    assert "/dev/tty" in before
    control.request(folder, {"do": "fault", "words": ["gps", "unplug"]})
    wait_until(lambda: ttys() != before, "the receiver is away", timeout_s=20)
    kit.popen.send_signal(signal.SIGINT)
    assert kit.popen.wait(10) == 0, kit.output()
    assert not Path(variables["UMOCKDEV_DIR"]).exists()
