"""Kills a process at each system call by which it changes the disk, or lets that call fail. Found with strace once, then one run per call:
enumerated, not sampled.

A zygote imports everything once; each run is a fork of it that strace attaches to before the step begins. So a run costs a few hundredths of a
second, and the calls that are counted are the step's own.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
CHANGING = (
    "openat", "creat", "write", "pwrite64", "writev", "ftruncate", "fallocate", "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2",
    "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "symlink", "symlinkat", "link", "linkat", "fchmod", "fchmodat", "chmod", "utimensat",
)  # fmt: skip
_LINE = re.compile(r"^(?P<pid>\d+)\s+(?P<name>[a-z0-9_]+)\((?P<rest>.*)$")
_WRITING_OPEN = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC)")
PR_SET_PTRACER, ANY = 0x59616D61, -1


@dataclass(frozen=True)
class Point:
    """The `when`-th call of this name since the step began; `shown` for a person."""

    name: str
    when: int
    shown: str

    def __str__(self) -> str:
        return f"{self.name}#{self.when} {self.shown[:160]}"


class Zygote:
    """Forks processes that do one step of `module`: a function in its STEPS, called with a folder."""

    def __init__(self, module: str) -> None:
        quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.cut_off", module],
            cwd=ROOT,
            env=quiet,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def points(self, step: str, folder: Path, log: Path) -> list[Point]:
        """Do the step wholly, and list its calls that change something below `folder`."""
        code = self._run(step, folder, ["-y", "-s", "200", "-e", f"trace={','.join(CHANGING)}", "-o", str(log)])
        assert code == 0, f"{step} ended with {code}"
        seen: Counter[str] = Counter()
        found = []
        own = None
        for line in log.read_text("utf-8", "replace").splitlines():
            match = _LINE.match(line)
            if match is None:
                continue
            own = own or match["pid"]
            if match["pid"] != own:
                continue  # a program that the step started; strace counts each process by itself
            name, rest = match["name"], match["rest"]
            seen[name] += 1
            if str(folder) in rest and (name != "openat" or _WRITING_OPEN.search(rest)):
                found.append(Point(name, seen[name], rest))
        return found

    def kill_at(self, point: Point, step: str, folder: Path) -> None:
        """Let SIGKILL meet the step as it enters that call: the call itself is not done any more."""
        inject = f"inject={point.name}:signal=SIGKILL:when={point.when}"
        code = self._run(step, folder, ["-e", f"trace={point.name}", "-e", inject, "-o", os.devnull])
        assert code == -signal.SIGKILL, f"not killed at {point}: {code}"

    def fail_at(self, point: Point, step: str, folder: Path, error: str = "ENOSPC") -> int:
        """Let that one call fail as on a full disk, and the step go on as it may. Its exit code. Programs that the step starts are left alone."""
        inject = f"inject={point.name}:error={error}:when={point.when}"
        return self._run(step, folder, ["-e", f"trace={point.name}", "-e", inject, "-o", os.devnull], follow=False)

    def _run(self, step: str, folder: Path, options: list[str], *, follow: bool = True) -> int:
        """One fork, under strace from its first call on. Its exit code, negative for a signal."""
        strace = shutil.which("strace")
        assert strace is not None, "strace is missing: python -m scripts.system_packages updates"
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{step} {folder}\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        tracer = subprocess.Popen(
            [strace, *(["-f"] if follow else []), *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True
        )
        try:
            assert tracer.stderr is not None
            attached = tracer.stderr.readline()
            assert "attached" in attached, attached
        finally:
            os.kill(pid, signal.SIGCONT)
        code = int(self._process.stdout.readline())
        _drain(tracer.stderr)
        tracer.wait(20)
        return code


@contextmanager
def zygote(module: str) -> Iterator[Zygote]:
    one = Zygote(module)
    try:
        yield one
    finally:
        one.close()


def _drain(stream: IO[str]) -> None:
    stream.read()
    stream.close()


def _serve(steps: dict[str, Callable[[Path], None]]) -> None:
    """The zygote's loop: a line `step folder` in, the fork's pid out, and its exit code when it has ended."""
    for line in sys.stdin:
        step, _, folder = line.rstrip("\n").partition(" ")
        pid = os.fork()
        if pid == 0:
            code = 1
            with suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_long(ANY), 0, 0, 0)  # the tracer is no ancestor of ours
            os.kill(os.getpid(), signal.SIGSTOP)
            try:
                steps[step](Path(folder))
                code = 0
            finally:
                os._exit(code)
        os.waitpid(pid, os.WUNTRACED)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    _serve(importlib.import_module(sys.argv[1]).STEPS)
