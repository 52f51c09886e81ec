"""How the demo starts its processes."""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import Processes

_INTERRUPTED_IN_A_FORK = """
import os, pathlib, signal, sys
from tests.demo.processes import Children

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
children = Children(pathlib.Path(sys.argv[1]))
try:
    children.start("one", ["-c", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"])
except KeyboardInterrupt:
    children.forget(lambda child: True)
    print("interrupted")
"""


def test_an_interrupt_while_a_process_is_started_is_not_lost(tmp_path: Path, processes: Processes) -> None:
    child = processes.start_python("-c", _INTERRUPTED_IN_A_FORK, tmp_path)
    assert child.popen.wait(20) == 0
    assert child.output() == "interrupted\n"
    assert (tmp_path / "one.log").read_text() == "set()\n", "who is started hears interrupts"
