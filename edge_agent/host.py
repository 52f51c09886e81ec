"""Owns the health of the computer: what /proc and /sys say, the `host` summary, and the conditions that follow. Reads only, names nobody.

Parsing and judging are pure; `HostProbe` does the reading and can be replaced, so that 400 simulated terminals need not read one /proc.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent.clock import ClockReading
from protocols.contract.records import ClockQuality, Host

CPU_HIGH_PCT = 90
MEM_HIGH_PCT = 92
DISK_FULL_PCT = 90
DISK_FULL_MIB = 1024
"""Full: above 90 % and less than 1 GiB free; a spool and a day of logs fit into 1 GiB."""
TEMP_HIGH_C = 85
"""Common x86 boards throttle between 90 and 100 degrees; the catalogue's debounce keeps peaks out."""
CLOCK_SKEW_MS = 60_000
"""Chosen: case times are shown by the minute."""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """One look. `cpu_busy` and `cpu_total` are counters since boot, in ticks."""

    cpu_busy: int
    cpu_total: int
    mem_total_mib: int
    mem_free_mib: int
    disk_total_mib: int
    disk_free_mib: int
    temp_c: int | None
    uptime_s: int
    agent_rss_kib: int


class HostProbe(Protocol):
    def sample(self) -> HostSample: ...


class ProcProbe:
    """Reads Linux. What cannot be read counts as zero or None: health of the host is never a reason to stop."""

    def __init__(self, disk: Path, *, proc: Path = Path("/proc"), thermal: Path = Path("/sys/class/thermal")) -> None:
        self._disk, self._proc, self._thermal = disk, proc, thermal

    def sample(self) -> HostSample:
        busy, total = parse_stat(_read(self._proc / "stat"))
        mem_total_mib, mem_free_mib = parse_meminfo(_read(self._proc / "meminfo"))
        try:
            disk = shutil.disk_usage(self._disk)
            disk_total_mib, disk_free_mib = disk.total // MIB, disk.free // MIB
        except OSError:
            disk_total_mib = disk_free_mib = 0
        return HostSample(
            cpu_busy=busy,
            cpu_total=total,
            mem_total_mib=mem_total_mib,
            mem_free_mib=mem_free_mib,
            disk_total_mib=disk_total_mib,
            disk_free_mib=disk_free_mib,
            temp_c=hottest(_read(path) for path in sorted(self._thermal.glob("thermal_zone*/temp"))),
            uptime_s=parse_uptime(_read(self._proc / "uptime")),
            agent_rss_kib=parse_rss_kib(_read(self._proc / "self" / "status")),
        )


# ------------------------------------------------------------------------------------------------------------------------- parsing


def parse_stat(text: str) -> tuple[int, int]:
    """(busy, total) ticks of the first line of /proc/stat (proc(5)); idle and iowait are not busy."""
    fields = text.partition("\n")[0].split()
    if len(fields) < 6 or fields[0] != "cpu":
        return 0, 0
    # guest time is contained in user time already, so only the first eight fields add up
    ticks = [int(field) for field in fields[1:9] if field.isdigit()]
    total = sum(ticks)
    return total - sum(ticks[3:5]), total


def parse_meminfo(text: str) -> tuple[int, int]:
    """(total, available) in MiB."""
    kib = {match[1]: int(match[2]) for match in re.finditer(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return kib.get("MemTotal", 0) // 1024, kib.get("MemAvailable", 0) // 1024


def parse_uptime(text: str) -> int:
    match = re.match(r"(\d+)", text)
    return int(match[1]) if match else 0


def parse_rss_kib(text: str) -> int:
    match = re.search(r"^VmRSS:\s+(\d+) kB$", text, re.MULTILINE)
    return int(match[1]) if match else 0


def hottest(texts: Iterable[str]) -> int | None:
    """The highest believable zone in whole degrees; the kernel gives millidegrees, broken zones give nonsense."""
    degrees = [int(text) // 1000 for text in texts if re.fullmatch(r"-?\d+\s*", text)]
    return max((one for one in degrees if -60 <= one <= 150), default=None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# ------------------------------------------------------------------------------------------------------------------------- judging


def cpu_pct(before: HostSample, after: HostSample) -> int:
    total = after.cpu_total - before.cpu_total
    return 0 if total <= 0 else min(100, max(0, round(100 * (after.cpu_busy - before.cpu_busy) / total)))


class HostMeter:
    """Pure: keeps the first and the last sample of a span and makes its summary."""

    def __init__(self, now: ClockReading, sample: HostSample) -> None:
        self._first = self._previous = self._last = sample
        self._begin = now
        self._hottest = sample.temp_c

    def observe(self, sample: HostSample) -> None:
        self._previous, self._last = self._last, sample
        if sample.temp_c is not None:
            self._hottest = sample.temp_c if self._hottest is None else max(self._hottest, sample.temp_c)

    def close_span(self, now: ClockReading, *, outbox_batches: int) -> Host:
        """The span's summary; a new span begins. Load is the mean, temperature the highest, the rest as of now."""
        last = self._last
        body = Host(
            from_ms=max(0, now.wall_ms - (now.boot_ms - self._begin.boot_ms)),
            to_ms=max(0, now.wall_ms),
            cpu_pct=cpu_pct(self._first, last),
            mem_free_mib=last.mem_free_mib,
            disk_free_mib=last.disk_free_mib,
            temp_c=self._hottest,
            uptime_s=last.uptime_s,
            agent_rss_kib=last.agent_rss_kib,
            outbox_batches=outbox_batches,
        )
        self._first, self._begin, self._hottest = last, now, last.temp_c
        return body

    def conditions(self) -> frozenset[str]:
        """Codes that hold at the last sample; the catalogue's debounce decides when they are faults."""
        last, codes = self._last, set[str]()
        if cpu_pct(self._previous, last) >= CPU_HIGH_PCT:
            codes.add("HOST.CPU_HIGH")
        if last.mem_total_mib and 100 * (last.mem_total_mib - last.mem_free_mib) >= MEM_HIGH_PCT * last.mem_total_mib:
            codes.add("HOST.MEM_HIGH")
        used_mib = last.disk_total_mib - last.disk_free_mib
        if last.disk_total_mib and 100 * used_mib >= DISK_FULL_PCT * last.disk_total_mib and last.disk_free_mib < DISK_FULL_MIB:
            codes.add("HOST.DISK_FULL")
        if last.temp_c is not None and last.temp_c >= TEMP_HIGH_C:
            codes.add("HOST.TEMP_HIGH")
        return frozenset(codes)


HOST_CODES = frozenset({"HOST.CPU_HIGH", "HOST.MEM_HIGH", "HOST.DISK_FULL", "HOST.TEMP_HIGH"})
"""What `HostMeter.conditions` can speak about."""


def clock_is_off(now: ClockReading, behind_floor_ms: int, server_offset_ms: int | None) -> bool:
    """HOST.CLOCK_SKEW: wall time lies before what is surely past, or away from the time the server signed last.

    `server_offset_ms`: signed server time minus wall time when it arrived; None if it never did in this run. A synchronised clock is believed.
    """
    if now.quality is ClockQuality.SYNCED:
        return False
    return behind_floor_ms > 0 or (server_offset_ms is not None and abs(server_offset_ms) >= CLOCK_SKEW_MS)


# --------------------------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What is told of the machine at enrolment and at each start."""

    os: str
    arch: str
    python: str
    machine: bytes | None
    cpus: int
    mem_mib: int

    def for_enrolment(self, agent: str) -> dict[str, str | int]:
        """JSON members of docs/spec/enrolment.md, E-4."""
        facts: dict[str, str | int] = {
            "agent": agent,
            "arch": self.arch,
            "os": self.os,
            "cpus": self.cpus,
            "mem_mib": self.mem_mib,
        }
        if self.machine is not None:
            facts["machine"] = self.machine.hex()
        return facts


def facts(
    *, os_release: Path = Path("/etc/os-release"), machine_id: Path = Path("/etc/machine-id"), proc: Path = Path("/proc")
) -> HostFacts:
    """Read once at start."""
    machine = _read(machine_id).strip()
    return HostFacts(
        os=parse_os_release(_read(os_release), platform.release()),
        arch=re.sub(r"[^a-z0-9_]", "_", platform.machine().lower())[:16].rjust(2, "_"),
        python=platform.python_version(),
        machine=hashlib.sha256(b"kf-machine/1" + machine.encode("utf-8")).digest()[:16] if machine else None,
        cpus=os.cpu_count() or 1,
        mem_mib=parse_meminfo(_read(proc / "meminfo"))[0],
    )


def parse_os_release(text: str, kernel: str = "0") -> str:
    """`Debian GNU/Linux 12`, in the characters that a record's version field takes; the kernel's release where the system has no number."""
    values = {match[1]: match[2].strip().strip("\"'") for match in re.finditer(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)}
    for name in (f"{values.get('NAME', '')} {values.get('VERSION_ID', '')}", f"Linux {kernel}"):
        plain = re.sub(r"[0-9]{9,}", "", re.sub(r"[^A-Za-z0-9 ._+()/:~-]", "", name)).strip()[:64].strip()
        if re.match(r"[A-Za-z0-9]", plain) and re.search(r"[0-9]", plain):
            return plain
    return "Linux 0"
