"""Row: records made durable and sealed by the agent's outbox, beside bare SQLite commits of the same bytes."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.clock import SystemClock
from edge_agent.outbox import Outbox
from fleet_server.authority.authority import Ed25519Signer
from protocols.contract.records import Body, ClockQuality, encode_record
from tests.bench.backlog import BOOT_ID
from tests.bench.stage import FLEET
from tests.bench.table import Row
from tests.bench.traffic import day_of_a_kiosk

RECORDS = 500
SEAL_EVERY = 20
ROUNDS = 3


def rows() -> list[Row]:
    now_ms = SystemClock().wall_ms()
    bodies = [day_of_a_kiosk(number, now_ms) for number in range(RECORDS)]
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="kiosk-fleet-bench-") as folder:
        for number in range(ROUNDS):
            ours.append(_captured_per_s(Path(folder) / f"outbox{number}.db", bodies))
            bare.append(_bare_per_s(Path(folder) / f"bare{number}.db", bodies, now_ms))
    return [
        Row(
            what="Capture: durable, then sealed",
            ours=sorted(ours)[ROUNDS // 2],
            unit="records/s",
            beside="bare SQLite, one commit with fsync each",
            peer=sorted(bare)[ROUNDS // 2],
            notes=(
                f"One transaction for each record, a signed batch for each {SEAL_EVERY}; median of {ROUNDS} alternating rounds.",
            ),
        )
    ]


def _captured_per_s(path: Path, bodies: list[Body]) -> float:
    outbox = Outbox(path, Ed25519Signer(Ed25519PrivateKey.generate()), FLEET, "bench-0", SystemClock())
    try:
        outbox.start_stream(BOOT_ID)
        started = time.perf_counter()
        for number, body in enumerate(bodies, 1):
            outbox.capture(body)
            if number % SEAL_EVERY == 0:
                outbox.seal()
        return len(bodies) / (time.perf_counter() - started)
    finally:
        outbox.close(clean=False)


def _bare_per_s(path: Path, bodies: list[Body], now_ms: int) -> float:
    encoded = [encode_record(body, wall_ms=now_ms, quality=ClockQuality.SYNCED, boot_ms=1) for body in bodies]
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("CREATE TABLE record (id INTEGER PRIMARY KEY, record BLOB NOT NULL)")
        started = time.perf_counter()
        for record in encoded:
            conn.execute("INSERT INTO record (record) VALUES (?)", (record,))
        return len(encoded) / (time.perf_counter() - started)
