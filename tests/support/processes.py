"""Child processes of a test: started in sessions of their own, output kept, and ended, each by its own id, whatever the test did."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
STOP_WITHIN_S = 10.0


@dataclass
class Child:
    """One process that a test started; `log` is where its output goes."""

    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, text: str, *, timeout_s: float = 20.0) -> None:
        """Wait until the process has said `text`; fails early when it ends without having said it."""
        wait_until(
            lambda: text in self.output() or not self.running,
            f"{text!r} in the output of {self.popen.args!r}",
            timeout_s=timeout_s,
        )
        assert text in self.output(), f"ended with {self.popen.returncode} before saying {text!r}:\n{self.output()}"

    def kill(self) -> None:
        """kill -9 of this one process, as a crash or the kernel would; its children stay."""
        with suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait()

    def stop(self, *, timeout_s: float = STOP_WITHIN_S) -> int:
        """Ask it to end, and insist after `timeout_s`. Returns its exit code."""
        if self.running:
            self.popen.terminate()
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill_group()
            return self.popen.wait()

    def kill_group(self) -> None:
        """End what is left of the session that was opened for this process, its children included."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, signal.SIGKILL)


@dataclass
class Processes:
    """Starts processes and remembers them; `end_all` ends those and no others."""

    folder: Path
    children: list[Child] = field(default_factory=list)

    def start(self, command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Child:
        """Start `command`; `env` is added to this process's environment."""
        words = [str(word) for word in command]
        log = self.folder / f"{len(self.children):02d}-{Path(words[0]).name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )
        child = Child(popen, log)
        self.children.append(child)
        return child

    def start_python(self, *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Child:
        """Start this Python, e.g. `start_python("-m", "edge_agent.cli", "run")`."""
        return self.start([sys.executable, *arguments], env=env, cwd=cwd)

    def end_all(self) -> None:
        """End every process that was started here, last first."""
        for child in reversed(self.children):
            child.stop()
            child.kill_group()


def programs_with(folder: Path) -> list[int]:
    """Processes that carry a path in this folder among their arguments."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


FIRST_PORT, LAST_PORT = 20_000, 32_000
"""Below the range from which Linux takes the ports of outgoing connections: none of those can sit on one that a server is about to use."""
_next_ports = itertools.cycle(random.SystemRandom().sample(range(FIRST_PORT, LAST_PORT), LAST_PORT - FIRST_PORT))


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses now, and that this process was not given before."""
    for port in itertools.islice(_next_ports, LAST_PORT - FIRST_PORT):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError(f"every port from {FIRST_PORT} to {LAST_PORT} is in use")
