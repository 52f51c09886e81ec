"""A backlog that is being drained while something else is measured: signed batches through the real ledger and projection, without pause.

Run with a database and the time of its fleet; stores until it is told to end, then says how many records that were.
"""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from fleet_server.db import open_raw
from fleet_server.evidence.ledger import Ledger
from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import project
from protocols.contract import batch as batches
from protocols.contract import records, topics
from protocols.contract.records import ClockQuality
from tests.bench.traffic import day_of_a_kiosk
from tests.support.contract import MemoryKey
from tests.support.processes import ROOT
from tests.support.seed import DAY, FLEET

SENDERS = 50
PER_BATCH = 100
STEP_MS = 20_000
TURN_S = 0.05
"""How long ingest holds the database at most."""
BREATH_S = 0.002
"""It reads the network between two turns, and others come to write."""


class _Facts:
    """Facts without presence."""

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        raise AssertionError(f"nothing forks here: {len(batch_ids)} batches of {conn}")

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        """A new stream without a parent is a terminal that lost its spool; nobody needs telling."""


class _Sender:
    """One terminal with an outage of days behind it."""

    def __init__(self, terminal: str, now_ms: int) -> None:
        self._terminal, self._key = terminal, MemoryKey(hashlib.sha256(terminal.encode()).digest())
        self._stream = hashlib.sha256(f"{terminal}/arrears/{time.time_ns()}".encode()).digest()[:16]
        self._no, self._prev, self._at_ms = 0, batches.NO_PREV, now_ms - 14 * DAY
        self._first = int.from_bytes(self._stream[:5], "big") * 1_000_000

    def batch(self) -> bytes:
        self._no += 1
        header = batches.BatchHeader(
            stream=self._stream, no=self._no, prev=self._prev, parent=None, batch_class="event", boot_no=9, boot_id=self._stream,
            sealed_ms=self._at_ms + PER_BATCH * STEP_MS,
        )  # fmt: skip
        encoded = []
        for _ in range(PER_BATCH):
            self._at_ms += STEP_MS
            self._first += 1
            body = day_of_a_kiosk(self._first, self._at_ms)
            encoded.append(
                records.encode_record(body, wall_ms=self._at_ms, quality=ClockQuality.SYNCED, boot_ms=self._no * 1_000_000)
            )
        raw, self._prev = batches.seal_batch(header, encoded, self._key, FLEET, self._terminal)
        return raw


def store(path: Path, terminals: Sequence[str], now_ms: int) -> int:
    """Until SIGTERM; returns the records stored."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    senders = [(terminal, _Sender(terminal, now_ms)) for terminal in terminals]
    stored = turn = 0
    with closing(open_raw(path)) as connection:
        ledger = Ledger(connection, FLEET, _Facts())
        ledger.refresh()
        print("ready", flush=True)
        while not told:
            connection.execute("BEGIN IMMEDIATE")
            end_s = time.monotonic() + TURN_S
            while time.monotonic() < end_s:
                terminal, sender = senders[turn % len(senders)]
                outcome = ledger.receive(terminal, "batch", topics.up(terminal, "batch"), sender.batch(), None, now_ms)
                stored += outcome.stored
                turn += 1
            connection.execute("COMMIT")
            time.sleep(BREATH_S)
    return stored


@contextmanager
def draining(path: Path, terminals: Sequence[str], now_ms: int) -> Iterator[list[float]]:
    """While this is open a backlog drains; the list holds records per second afterwards."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.arrears", str(path), str(now_ms), *terminals[:SENDERS]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        encoding="ascii",
    )
    rate: list[float] = []
    try:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise RuntimeError(f"the backlog ended with {child.wait()}")
        began_s = time.monotonic()
        yield rate
        lasted_s = time.monotonic() - began_s
        child.send_signal(signal.SIGTERM)
        rate.append(int(child.stdout.readline()) / lasted_s)
    finally:
        child.terminate()
        child.wait(20)


if __name__ == "__main__":
    print(store(Path(sys.argv[1]), sys.argv[3:], int(sys.argv[2])), flush=True)
