"""Child processes of the demo: each in a session of its own with its log in a file, ended by its own id, and by the kernel if the demo is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
STOP_WITHIN_S: Final = 15.0
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""By which the demo is ended."""
_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """From now on the kernel ends this process when its parent dies. Call it first."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Python drops what a signal's handler raises inside the callbacks of a fork, and a Ctrl-C with it; so the signal comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class Child:
    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        return self.popen.poll() is None

    def last_words(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


@dataclass
class Children:
    """Starts processes and ends them, in groups, last group first."""

    logs: Path
    children: list[Child] = field(default_factory=list)

    def start(self, name: str, arguments: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Child:
        """This Python with `arguments`; output goes to `name`.log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as output, _interrupts_held():
            popen = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread whenever it starts another
            )
            child = Child(name, popen, log)
            self.children.append(child)
        return child

    def ended(self) -> Child | None:
        """One that should be running and is not."""
        return next((child for child in self.children if not child.running), None)

    def forget(self, belongs: Callable[[Child], bool]) -> None:
        """Wait for those of a group that end by themselves."""
        for child in [child for child in self.children if belongs(child)]:
            child.popen.wait(STOP_WITHIN_S)
            self.children.remove(child)

    def end(self, belongs: Callable[[Child], bool]) -> None:
        """Ask all of a group, wait, and insist."""
        group = [child for child in self.children if belongs(child)]
        for child in group:
            if child.running:
                with suppress(ProcessLookupError):
                    child.popen.terminate()
        until_s = time.monotonic() + STOP_WITHIN_S
        for child in group:
            with suppress(subprocess.TimeoutExpired):
                child.popen.wait(max(0.1, until_s - time.monotonic()))
        for child in group:
            if child.running:
                with suppress(ProcessLookupError):
                    os.killpg(child.popen.pid, signal.SIGKILL)
            child.popen.wait()
        self.children = [child for child in self.children if child not in group]
