"""What the kernel says of processes, and how steady this machine is while it measures."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
RULER_S = 1.0
_RULER_ROUND = 2_000


@dataclass(frozen=True)
class Memory:
    """MiB. `resident` counts shared pages fully, `proportional` by their share: proc(5), smaps_rollup."""

    resident: float
    proportional: float


def memory_of(pid: int) -> Memory:
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, _, rest = line.partition(":")
        fields[name] = int(rest.split()[0]) / 1024
    return Memory(fields["Rss"], fields["Pss"])


def cpu_s(pid: int) -> float:
    """Processor seconds of a process since its start: proc(5), stat fields utime and stime."""
    after_name = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


@dataclass
class Ruler:
    """A fixed piece of work, done again and again: how much of a core it got, and how fast it was, says how quiet the machine is."""

    rates: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def look(self) -> None:
        rounds, started, spent_s = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < RULER_S:
            for _ in range(_RULER_ROUND):
                hashlib.sha256(b"as steady as this machine").digest()
            rounds += 1
        passed_s = time.perf_counter() - started
        self.rates.append(rounds / passed_s)
        self.shares.append((time.process_time() - spent_s) / passed_s)

    def sentence(self) -> str:
        return (
            f"A fixed loop, run between the groups, got {min(self.shares):.0%} to {max(self.shares):.0%} of a core and was at worst "
            f"{1 - min(self.rates) / max(self.rates):.0%} slower than at its best; load average now {os.getloadavg()[0]:.1f}."
        )


def describe() -> str:
    with Path("/proc/meminfo").open(encoding="ascii") as lines:
        kib = int(lines.readline().split()[1])
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {kib / 2**20:.0f} GiB of memory, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
