"""A server database in memory and a terminal that captures records on its own, possibly wrong, clock."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet_server.db import migrate
from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import load, project
from protocols.contract.batch import NO_PREV, BatchHeader, seal_batch
from protocols.contract.records import Body, ClockQuality, encode_record

T0 = 1_780_000_000_000
"""2026-05-29 04:26:40 in Shanghai, a Friday."""
FLEET = "test"
WORK_HOURS = (
    '{"mon":[["09:00","12:00"],["13:30","17:00"]],"tue":[["09:00","12:00"],["13:30","17:00"]],"wed":[["09:00","12:00"],["13:30","17:00"]],'
    '"thu":[["09:00","12:00"],["13:30","17:00"]],"fri":[["09:00","12:00"],["13:30","17:00"]]}'
)


class _Key:
    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(32))

    @property
    def kid(self) -> bytes:
        return bytes(16)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


KEY = _Key()


@dataclass(frozen=True)
class Captured:
    """A record as an agent's outbox holds it."""

    body: Body
    wall_ms: int
    quality: ClockQuality
    boot_ms: int


@dataclass(frozen=True)
class Sent:
    """A sealed batch on its way."""

    terminal: str
    stream: bytes
    no: int
    boot_id: bytes
    boot_no: int
    records: tuple[Captured, ...]
    received_ms: int
    disputed: bool = False

    def envelope(self) -> bytes:
        header = BatchHeader(
            stream=self.stream,
            no=self.no,
            prev=NO_PREV if self.no == 1 else bytes(32),
            batch_class="event",
            boot_no=self.boot_no,
            boot_id=self.boot_id,
            sealed_ms=self.records[-1].wall_ms,
        )
        records = [encode_record(r.body, wall_ms=r.wall_ms, quality=r.quality, boot_ms=r.boot_ms) for r in self.records]
        return seal_batch(header, records, KEY, FLEET, self.terminal)[0]

    def decoded(self) -> list[DecodedRecord]:
        return [DecodedRecord(n, r.wall_ms, r.quality, r.boot_ms, r.body) for n, r in enumerate(self.records)]


@dataclass
class Run:
    """One start of the agent on a host that came up at true time `up_ms`; `error_ms` is what its wall clock adds to the truth."""

    terminal: str
    number: int
    up_ms: int
    boot: int | None = None
    error_ms: int = 0
    quality: ClockQuality = ClockQuality.SYNCED
    sent: list[Sent] = field(default_factory=list)

    @property
    def stream(self) -> bytes:
        return hashlib.sha256(f"{self.terminal}/{self.number}".encode()).digest()[:16]

    @property
    def boot_id(self) -> bytes:
        return hashlib.sha256(f"{self.terminal}/boot/{self.boot or self.number}".encode()).digest()[:16]

    def capture(self, body: Body, true_ms: int) -> Captured:
        return Captured(body, max(0, true_ms + self.error_ms), self.quality, true_ms - self.up_ms)

    def send(self, records: Iterable[Captured], received_ms: int, *, disputed: bool = False) -> Sent:
        sent = Sent(
            self.terminal, self.stream, len(self.sent) + 1, self.boot_id, self.number, tuple(records), received_ms, disputed
        )
        self.sent.append(sent)
        return sent


class FactBench:
    """Stores and projects batches the way ingest does."""

    def __init__(self, template: Path) -> None:
        self.conn = sqlite3.connect(":memory:", isolation_level=None)
        with closing(sqlite3.connect(template)) as source:
            source.backup(self.conn)
        self.add_site("S1")

    def close(self) -> None:
        self.conn.close()

    def add_site(self, code: str, hours: str = WORK_HOURS, zone: str = "Asia/Shanghai") -> None:
        self.conn.execute(
            "INSERT OR REPLACE INTO site (code, area, name_zh, name_en, kind, hours, timezone) VALUES (?, 'A', ?, ?, 'hall', ?, ?)",
            (code, code, code, hours, zone),
        )

    def add_terminal(self, terminal: str, site: str = "S1", *, klass: str = "government", enrolled_ms: int | None = T0) -> None:
        self.conn.execute(
            "INSERT INTO terminal (id, code, type, name_zh, name_en, site, class, created_ms, enrolled_ms)"
            " VALUES (?, ?, 'kiosk', ?, ?, ?, ?, ?, ?)",
            (terminal, terminal.upper(), terminal, terminal, site, klass, T0, enrolled_ms),
        )

    def store(self, sent: Sent) -> StoredBatch | None:
        """The envelope's rows; None if this batch is stored already."""
        self.conn.execute(
            "INSERT OR IGNORE INTO stream (stream, terminal, boot_no, boot_id, head_no, disputed, first_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (sent.stream, sent.terminal, sent.boot_no, sent.boot_id, sent.no, int(sent.disputed), sent.received_ms),
        )
        done = self.conn.execute(
            "INSERT OR IGNORE INTO batch (terminal, stream, no, kind, envelope, received_ms, committed_ms, records, class, disputed)"
            " VALUES (?, ?, ?, 'data', ?, ?, ?, ?, 'event', ?)",
            (
                sent.terminal,
                sent.stream,
                sent.no,
                sent.envelope(),
                sent.received_ms,
                sent.received_ms,
                len(sent.records),
                int(sent.disputed),
            ),
        )
        if done.rowcount == 0:
            return None
        assert done.lastrowid is not None
        return StoredBatch(
            done.lastrowid,
            sent.terminal,
            sent.stream,
            sent.no,
            sent.boot_id,
            sent.received_ms,
            sent.received_ms,
            sent.disputed,
        )

    def arrive(self, *batches: Sent) -> list[int]:
        """Store and project; a batch that is stored already is projected once more, which must change nothing."""
        ids = []
        for sent in batches:
            self.conn.execute("BEGIN IMMEDIATE")
            stored = self.store(sent)
            if stored is None:
                (batch_id,) = self.conn.execute(
                    "SELECT id FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (sent.terminal, sent.stream, sent.no)
                ).fetchone()
                loaded = load(self.conn, batch_id)
                assert loaded is not None
                stored = loaded[0]
            project(self.conn, stored, sent.decoded())
            self.conn.execute("COMMIT")
            ids.append(stored.id)
        return ids

    def rows(self, sql: str, *params: object) -> list[tuple[object, ...]]:
        return self.conn.execute(sql, params).fetchall()

    def one(self, sql: str, *params: object) -> tuple[object, ...]:
        rows = self.rows(sql, *params)
        assert len(rows) == 1, f"{len(rows)} rows: {rows}"
        return rows[0]

    def facts(self) -> dict[str, list[tuple[object, ...]]]:
        """All facts, comparable between databases: numbered rows and batches become their place in the stream."""
        place = {row[0]: f"{row[1].hex()[:6]}/{row[2]}" for row in self.conn.execute("SELECT id, stream, no FROM batch")}
        return {table: self._table(table, place) for table in FACT_TABLES}

    def _table(self, table: str, place: dict[int, str]) -> list[tuple[object, ...]]:
        cursor = self.conn.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        keep = [n for n, name in enumerate(names) if name != "id" or table == "fault"]
        linked = {n for n, name in enumerate(names) if name in {"batch", "open_batch", "clear_batch"}}
        rows = [tuple(place.get(row[n]) if n in linked and row[n] is not None else row[n] for n in keep) for row in cursor]
        return sorted(rows, key=repr)


FACT_TABLES: Sequence[str] = (
    "device",
    "device_change",
    "sighting",
    "consumable",
    "consumable_level",
    "fault",
    "fault_event",
    "boot",
    "session",
    "rating",
    "queue_event",
    "counters",
    "serviceability",
    "host_health",
    "reading",
    "link_event",
    "clock_fix",
    "dirty_day",
    "terminal_live",
)


def template(folder: Path) -> Path:
    """A database of the current schema to copy from."""
    path = folder / "template.sqlite"
    migrate(path)
    return path
