"""A process whose wall clock is wrong: unmodified programs, TLS library included, with a clock that the test sets while they run."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

SOURCE = Path(__file__).with_name("wrong_clock.c")
_LAYOUT = struct.Struct("=qq")


class NoWrongClock(Exception):
    """This machine cannot build or load the replacement; the message says what is missing."""


def build(folder: Path) -> Path:
    """The library, compiled once per test run."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoWrongClock("a C compiler is needed to give a process a wrong clock")
    library = folder / "wrong_clock.so"
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NoWrongClock(f"the wrong clock cannot be compiled: {done.stderr[:300]}")
    return library


class WrongClock:
    """`env` is for the process; `set` moves its clock at once."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "clock"
        self._file.write_bytes(bytes(_LAYOUT.size))
        with self._file.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _LAYOUT.size)
        self.env = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}

    def set(self, *, off_by_s: float, synchronised: bool) -> None:
        self._shared[:] = _LAYOUT.pack(int(off_by_s * 1e9), int(synchronised))

    def works(self) -> bool:
        """Whether this Python believes it: not one that was linked without the system's C library."""
        self.set(off_by_s=-86_400 * 365, synchronised=False)
        ask = "import time; print(int(time.time()))"
        said = subprocess.run([sys.executable, "-c", ask], env=self.env, capture_output=True, text=True, check=False).stdout
        return said.strip().isdecimal() and abs(time.time() - 86_400 * 365 - int(said)) < 60


def seconds_to_1970() -> float:
    """Ten minutes after the beginning: where a clock without a battery stands."""
    return 600 - time.time()
