"""Kills a process at each system call by which it changes the disk: found with strace once, then one run per call. Enumerated, not sampled."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHANGING = (
    "openat", "creat", "write", "pwrite64", "writev", "ftruncate", "fallocate", "fsync", "fdatasync", "syncfs", "rename", "renameat", "renameat2",
    "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "symlink", "symlinkat", "link", "linkat", "fchmod", "fchmodat", "chmod", "utimensat",
)  # fmt: skip
KILLED = 137
_LINE = re.compile(r"^(?:\[pid\s+\d+\] |\d+\s+)?(?P<name>[a-z0-9_]+)\((?P<rest>.*)$")
_WRITING_OPEN = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC)")


@dataclass(frozen=True)
class Point:
    """The `when`-th call of this name in the process; `shown` for a person."""

    name: str
    when: int
    shown: str

    def __str__(self) -> str:
        return f"{self.name}#{self.when} {self.shown[:60]}"


def points(command: Sequence[str], folder: Path, ready: str, log: Path) -> list[Point]:
    """Run `command` to its end and list its calls that change something below `folder`, after it has written `ready`."""
    done = _strace(["-y", "-s", "200", "-e", f"trace={','.join(CHANGING)}", "-o", str(log)], command)
    assert done.returncode == 0, done.stderr
    seen: Counter[str] = Counter()
    found: list[Point] = []
    started = False
    for line in log.read_text("utf-8", "replace").splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        name, rest = match["name"], match["rest"]
        seen[name] += 1
        if name == "write" and ready in rest:
            started = True
        elif started and str(folder) in rest and (name != "openat" or _WRITING_OPEN.search(rest)):
            found.append(Point(name, seen[name], rest))
    assert started, "the step did not say that it begins"
    return found


def kill_at(point: Point, command: Sequence[str]) -> None:
    """Run `command` and let SIGKILL meet it as it enters that call: the call itself is not done any more."""
    done = _strace(
        ["-e", f"trace={point.name}", "-e", f"inject={point.name}:signal=SIGKILL:when={point.when}", "-o", os.devnull], command
    )
    assert done.returncode in (KILLED, -9), f"not killed at {point}: {done.returncode} {done.stderr[-2000:]}"


def _strace(options: list[str], command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    strace = shutil.which("strace")
    assert strace is not None, "strace is missing: python -m scripts.system_packages strace"
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    return subprocess.run([strace, "-f", *options, *command], cwd=ROOT, env=quiet, capture_output=True, text=True, check=False)


def python(module: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", module, *(str(word) for word in arguments)]
