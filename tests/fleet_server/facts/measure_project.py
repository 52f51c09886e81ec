"""Records per second of `project`, alone on one core. By hand: `python -m tests.fleet_server.facts.measure_project [batches]`."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from fleet_server.db import migrate, open_raw
from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import project
from protocols.canon.words import DeviceState, PaperState, Severity
from protocols.contract.records import (
    Body,
    ClockQuality,
    Counters,
    Device,
    Fault,
    Host,
    Link,
    Rating,
    Serviceability,
    Session,
    SlotCount,
)

T0 = 1_780_000_000_000
TERMINALS = 400
TRANSACTION_BATCHES = 20
"""As ingest does: commits are shared by batches that arrive together."""


def cases(n: int, at_ms: int) -> Body:
    return Session(id=n.to_bytes(16, "big"), item="tax.print", outcome="success", began_ms=at_ms, duration_ms=90_000)


def day_of_a_kiosk(n: int, at_ms: int) -> Body:
    """The mix that agents write: mostly summaries, some state changes, few cases and faults."""
    span = {"from_ms": at_ms - 900_000, "to_ms": at_ms}
    pick = n % 100
    if pick < 30:
        return Serviceability(**span, observed_s=900, usable_s=900, partial_s=0, unusable_s=0)
    if pick < 50:
        return Host(**span, cpu_pct=3, mem_free_mib=900, disk_free_mib=9000, uptime_s=77, agent_rss_kib=35_000, outbox_batches=1)
    if pick < 60:
        return Counters(**span, slots=tuple(SlotCount(slot=f"slot-{k}", total=3, ok=2, failed=1) for k in range(4)))
    if pick < 75:
        paper = PaperState.OUT if n % 2 else PaperState.FULL
        return Device(slot=f"printer-{n % 6}", family="escpos", device=DeviceState.ONLINE, paper=paper)
    if pick < 82:
        change = "open" if n % 2 == 0 else "clear"
        return Fault(
            id=(n // 2).to_bytes(8, "big"),
            code="PRN.PAPER_OUT",
            change=change,  # type: ignore[arg-type]
            severity=Severity.P2,
            slot="printer-1",
            since_ms=at_ms,
        )
    if pick < 90:
        return cases(n, at_ms)
    return Rating(level=5) if pick < 95 else Link(state="up", reason="connected")


def measure(make: Callable[[int, int], Body], batches: int, size: int) -> float:
    """Records per second over `batches` batches of `size`, envelopes not counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.sqlite"
        migrate(path)
        with closing(open_raw(path)) as conn:
            work = [_batch(make, number, size) for number in range(batches)]
            for batch, _ in work:
                conn.execute(
                    "INSERT OR IGNORE INTO stream (stream, terminal, boot_id) VALUES (?, ?, ?)",
                    (batch.stream, batch.terminal, batch.boot_id),
                )
                conn.execute(
                    "INSERT INTO batch (id, terminal, stream, no) VALUES (?, ?, ?, ?)",
                    (batch.id, batch.terminal, batch.stream, batch.no),
                )
            started = time.perf_counter()
            for first in range(0, batches, TRANSACTION_BATCHES):
                conn.execute("BEGIN IMMEDIATE")
                for batch, records in work[first : first + TRANSACTION_BATCHES]:
                    project(conn, batch, records)
                conn.execute("COMMIT")
            return batches * size / (time.perf_counter() - started)


def _batch(make: Callable[[int, int], Body], number: int, size: int) -> tuple[StoredBatch, list[DecodedRecord]]:
    terminal, no = number % TERMINALS, number // TERMINALS + 1
    stream = terminal.to_bytes(16, "big")
    at_ms = T0 + no * size * 1000
    records = [
        DecodedRecord(k, at_ms + k * 1000, ClockQuality.SYNCED, at_ms - T0 + k * 1000, make(number * size + k, at_ms + k * 1000))
        for k in range(size)
    ]
    received_ms = at_ms + size * 1000
    return StoredBatch(number + 1, f"kf-{terminal}", stream, no, stream, received_ms, received_ms, False), records


def main() -> None:
    batches = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    for name, make in (("cases only", cases), ("as kiosks write", day_of_a_kiosk)):
        for size in (100, 3, 1):
            count = batches if size == 100 else batches * 5
            rate = measure(make, count, size)
            print(f"{name:16} batches of {size:3}: {rate:8,.0f} records/s, {rate / size:7,.0f} batches/s")


if __name__ == "__main__":
    main()
