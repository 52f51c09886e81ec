"""A ledger on a migrated database with two enrolled terminals."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet_server.db import migrate, open_raw
from fleet_server.evidence.ledger import Greeting, Ledger, Outcome
from fleet_server.facts import DecodedRecord, StoredBatch
from protocols.contract.messages import Held
from tests.support.contract import FLEET, NOW_MS, RECORD, STRANGER, TERMINAL, MemoryKey, record_cert

OTHER = "kf-0002"


@dataclass
class SpyProjection:
    """Remembers what it was handed."""

    projected: list[tuple[StoredBatch, list[DecodedRecord]]] = field(default_factory=list)
    disputed: list[int] = field(default_factory=list)
    alarms: list[tuple[str, str]] = field(default_factory=list)

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        self.projected.append((batch, list(decoded)))

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        self.disputed.extend(batch_ids)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        self.alarms.append((terminal, code))


class Bench:
    """The ledger as ingest drives it: one transaction per message."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spy = SpyProjection()
        self.birth = b"the birth"
        self.open()

    def open(self) -> None:
        self.conn = open_raw(self.path)
        self.ledger = Ledger(self.conn, FLEET, self.spy)

    def enrol(self, terminal: str, key: MemoryKey, generation: int = 1) -> None:
        self.conn.execute(
            "INSERT OR IGNORE INTO terminal (id, code, type, name_zh, name_en, site, class, inventory, created_ms, tags) "
            "VALUES (?, ?, 'kiosk', '', '', '', 'government', '[]', 0, '[]')",
            (terminal, terminal.upper()),
        )
        self.conn.execute(
            "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, ?, ?, ?, 0)",
            (key.kid, terminal, generation, key.public, record_cert(key, terminal, generation)),
        )

    def send(self, raw: bytes, *spans: Held, kind: str = "batch", terminal: str = TERMINAL) -> Outcome:
        greeting = Greeting(b"n" * 16, {span.stream: span for span in spans}, birth=self.birth)
        self.conn.execute("BEGIN IMMEDIATE")
        self.ledger.refresh()
        outcome = self.ledger.receive(terminal, kind, "topic", raw, greeting, NOW_MS)
        self.conn.execute("COMMIT")
        return outcome

    def one(self, sql: str, *params: object) -> object:
        row = self.conn.execute(sql, params).fetchone()
        return None if row is None else row[0]

    def numbers(self, stream: bytes) -> list[int]:
        return [row[0] for row in self.conn.execute("SELECT no FROM batch WHERE stream = ? ORDER BY no", (stream,))]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    path = tmp_path / "fleet.sqlite"
    migrate(path)
    made = Bench(path)
    made.enrol(TERMINAL, RECORD)
    made.enrol(OTHER, STRANGER)
    yield made
    made.conn.close()
