"""Rows: what an agent costs a kiosk while nothing happens, beside an idle gateway that watches nothing; and how fast it starts."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from fleet_server.ingest.compose import Ingest, build
from tests.bench import environments, peer
from tests.bench.machine import Memory, cpu_s, memory_of
from tests.bench.stage import Stage, stage
from tests.bench.table import Budget, Row
from tests.bench.terminal import TerminalProcesses
from tests.support.processes import Child
from tests.support.waiting import until

PERIPHERALS = 6
START_TRIES = 3
NOT_LOADED_HERE = "import usb.core, usb.backend.libusb1, evdev, libusb_package; libusb_package.get_libusb1_backend()"
"""What an agent with USB printers and keypads loads besides; the simulated devices of this row hang on serial lines."""


@dataclass(frozen=True)
class AtRest:
    memory: Memory
    cpu_share: float


def rows(*, settle_s: float, watch_s: float) -> list[Row]:
    kiosk, gateway_python = environments.kiosk(), environments.peer()
    with stage(terminals=1) as server:
        server.start_broker()
        return asyncio.run(_measure(server, kiosk, gateway_python, settle_s, watch_s))


async def _measure(server: Stage, kiosk: Path, gateway_python: Path, settle_s: float, watch_s: float) -> list[Row]:
    ingest = build(server.settings)
    serving = asyncio.create_task(ingest.worker.run())
    terminal = TerminalProcesses(server, server.terminals[0], kiosk)
    try:
        terminal.plug_in()
        terminal.enrol()
        starts = [await _start_to_birth(terminal, ingest, stop=number < START_TRIES - 1) for number in range(START_TRIES)]
        agent = starts[-1][1]
        gateway = await asyncio.to_thread(peer.start, gateway_python, server.folder / "peer", server.processes)
        await asyncio.sleep(settle_s)
        polled = await asyncio.to_thread(_polled, terminal)
        ours, theirs = await _watch([agent, gateway], watch_s)
        batches = ingest.desk.tally.batches
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        ingest.close()
        terminal.close()
    more_mib = _rss_of(kiosk, NOT_LOADED_HERE) - _rss_of(kiosk, "import ctypes")
    name = f"{environments.PEER} {environments.PEER_VERSION}, idle, no connector"
    start_s = statistics.median(took_s for took_s, _ in starts)
    return [
        Row(
            what=f"Agent memory, {PERIPHERALS} peripherals polled",
            ours=ours.memory.resident,
            unit="MiB",
            beside=name,
            peer=theirs.memory.resident,
            budgets=(Budget(rule="at_most", limit=0.6, of="ratio"),),
            notes=(
                f"Resident set; proportional set {ours.memory.proportional:.1f} MiB against {theirs.memory.proportional:.1f} MiB. Aim: 34 MiB.",
                f"{polled} of {PERIPHERALS} peripherals answered at that time; {batches} batches were stored since the start.",
                f"All hang on serial lines. With USB printers and keypads pyusb, libusb and evdev are loaded besides: {more_mib:.1f} MiB.",
            ),
        ),
        Row(
            what="Agent processor time at rest",
            ours=ours.cpu_share * 100,
            unit="% of a core",
            beside=name,
            peer=theirs.cpu_share * 100,
            budgets=(Budget(rule="at_most", limit=1.0, of="figure", unit="% of a core"),),
            notes=(f"User and system time over {watch_s:.0f} s. The gateway polls nothing, speaks no TLS and signs nothing.",),
        ),
        Row(
            what="Agent, start to first birth",
            ours=start_s,
            unit="s",
            beside="a bare interpreter's start",
            peer=_interpreter_start_s(kiosk),
            budgets=(Budget(rule="at_most", limit=2.0, of="figure", unit="s"),),
            notes=(
                "From starting the process until the server has verified its birth; tries: "
                + ", ".join(f"{took_s:.2f} s" for took_s, _ in starts),
            ),
        ),
    ]


async def _start_to_birth(terminal: TerminalProcesses, ingest: Ingest, *, stop: bool) -> tuple[float, Child]:
    births = ingest.desk.tally.births
    started = time.perf_counter()
    agent = terminal.start()

    def born() -> bool:
        if not agent.running:
            raise RuntimeError(f"the agent ended: {agent.output()}")
        return ingest.desk.tally.births > births

    await until(born, "the agent's birth")
    took_s = time.perf_counter() - started
    if stop:
        await asyncio.to_thread(agent.stop)
    return took_s, agent


async def _watch(children: list[Child], watch_s: float) -> list[AtRest]:
    before, started = [cpu_s(child.pid) for child in children], time.perf_counter()
    await asyncio.sleep(watch_s)
    passed_s = time.perf_counter() - started
    return [
        AtRest(memory_of(child.pid), (cpu_s(child.pid) - spent) / passed_s) for child, spent in zip(children, before, strict=True)
    ]


def _polled(terminal: TerminalProcesses) -> int:
    """Peripherals that answer."""
    slots = terminal.status().get("slots", [])
    assert isinstance(slots, list)
    return sum(slot.get("device") == "online" for slot in slots)


def _rss_of(python: Path, code: str) -> float:
    """MiB after running `code`."""
    look = f"{code}\nprint([line.split()[1] for line in open('/proc/self/smaps_rollup') if line.startswith('Rss')][0])"
    return int(subprocess.run([python, "-c", look], stdout=subprocess.PIPE, encoding="ascii", check=True).stdout) / 1024


def _interpreter_start_s(python: Path) -> float:
    tries = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([python, "-c", "import asyncio, ssl, sqlite3"], check=True)
        tries.append(time.perf_counter() - started)
    return statistics.median(tries)
