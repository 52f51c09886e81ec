"""Row: from the first byte on a serial line that carries a new state to an open page that shows it, with the fleet connected."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path

from simulators.models.escpos import EscposPrinter
from simulators.ports.pty import AsyncPty
from tests.bench import environments
from tests.bench.console import OpenPage, open_page
from tests.bench.fleet_process import running
from tests.bench.stage import Stage, Terminal, stage
from tests.bench.table import Budget, Row
from tests.bench.terminal import TerminalProcesses

PROBES = 10
"""Terminals with an agent process and a printer of their own."""
COURSE = (("paper-out", "PRN.PAPER_OUT"), ("cover-open", "PRN.COVER_OPEN")) * 2 + (("cover-open", "PRN.COVER_OPEN"),)
"""What happens to each printer. A fault that comes a third time within minutes is held as flapping, so the last one stays."""
WITHIN_S = 1.0
GIVE_UP_S = 30.0
POLL_S = 2.0
"""The profile's interval: faults are scripted at random moments inside it."""


class Printer(EscposPrinter):
    """Notes when the first byte leaves that a healthy printer has not said before."""

    def __init__(self, *, seed: int) -> None:
        super().__init__(seed=seed)
        self._healthy: set[int] = set()
        self._waiting = False
        self.told_s: float | None = None

    def expect_news(self) -> None:
        self._waiting, self.told_s = True, None

    def take(self, now: float, max_bytes: int, *, endpoint: int = 0, line_baud: int | None = None) -> bytes:
        out = super().take(now, max_bytes, endpoint=endpoint, line_baud=line_baud)
        if self._waiting and self.told_s is None and not self._healthy.issuperset(out):
            self.told_s = time.monotonic()
        elif not self._waiting:
            self._healthy.update(out)
        return out

    def stop_waiting(self) -> None:
        self._waiting = False


@dataclass(frozen=True)
class Sample:
    """Seconds: from the fault to the first byte that tells it, from there to the page."""

    detection_s: float
    visible_s: float


def rows(*, terminals: int) -> list[Row]:
    kiosk = environments.kiosk()
    with stage(terminals=terminals + PROBES) as server:
        server.start_broker()
        server.start_ingest()
        url = server.start_web()
        with running(server, server.terminals[PROBES:], "agents"):
            found = asyncio.run(_measure(server, kiosk, url))
    visible = sorted(sample.visible_s for sample in found)
    detection = sorted(sample.detection_s for sample in found)
    in_time = sum(value <= WITHIN_S for value in visible) / len(visible)
    return [
        Row(
            what=f"Fault to open page, {terminals} terminals connected",
            ours=_at(visible, 0.99),
            unit="s",
            beside="reading interval of the printer",
            peer=POLL_S,
            budgets=(Budget(rule="at_most", limit=WITHIN_S, of="figure", unit="s"),),
            notes=(
                f"99th percentile of {len(found)} faults, from the first byte on the line to the row fetched after its event.",
                f"Median {_at(visible, 0.5):.2f} s, slowest {visible[-1]:.2f} s, within {WITHIN_S:.0f} s: {in_time:.1%}.",
                f"Detection apart: median {_at(detection, 0.5):.2f} s, slowest {detection[-1]:.2f} s.",
                "This printer tells by itself; one that cannot is asked at its profile's interval.",
            ),
        )
    ]


async def _measure(server: Stage, kiosk: Path, url: str) -> list[Sample]:
    async with open_page(url) as page:
        found = await asyncio.gather(*(_probe(server, kiosk, page, terminal) for terminal in server.terminals[:PROBES]))
    return [sample for samples in found for sample in samples]


async def _probe(server: Stage, kiosk: Path, page: OpenPage, terminal: Terminal) -> list[Sample]:
    rng = random.Random(terminal.id)
    printer = Printer(seed=0)
    processes = TerminalProcesses(server, terminal, kiosk)
    tty = server.folder / f"{terminal.id}.tty"
    pty = AsyncPty(printer, tty)
    processes.devices = [
        {
            "slot": "receipt-printer",
            "family": "receipt-printer",
            "profile": "receipt-printer-serial",
            "port": str(tty),
            "mandatory": True,
        }
    ]
    try:
        processes.enrol()
        processes.start()
        await asyncio.sleep(3 * POLL_S)  # what a healthy printer says is learnt meanwhile
        return [
            await _once(printer, page, terminal.id, rng, fault, code, last=number == len(COURSE))
            for number, (fault, code) in enumerate(COURSE, 1)
        ]
    finally:
        pty.close()
        processes.close()


async def _once(
    printer: Printer, page: OpenPage, terminal: str, rng: random.Random, fault: str, code: str, *, last: bool
) -> Sample:
    await asyncio.sleep(rng.uniform(0, POLL_S))
    printer.expect_news()
    began_s = time.monotonic()
    printer.set(fault, began_s)
    seen_s = await page.wait(terminal, code, there=True, timeout_s=GIVE_UP_S)
    told_s = printer.told_s
    assert told_s is not None
    if not last:
        printer.clear(fault, time.monotonic())
        printer.stop_waiting()
        await page.wait(terminal, code, there=False, timeout_s=GIVE_UP_S)
    return Sample(told_s - began_s, seen_s - told_s)


def _at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]
