"""Rows: committing what piled up during an outage, through the real broker with mutual TLS and the real ingest process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cbor2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols.contract import batch as batches
from protocols.contract import envelope as cose
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from tests.bench.backlog import Spool, fill
from tests.bench.machine import cpu_s
from tests.bench.stage import FLEET, Stage, Terminal, stage
from tests.bench.table import Budget, Row

VERIFY_FOR_S = 1.0
SAMPLE = 20_000
"""Envelopes that the bare loop and the raw verification work on."""
COMMIT_EVERY_S = 0.05
"""As the ingest: a transaction is at most so long."""


@dataclass(frozen=True)
class Rate:
    """How fast a loop on one core was: by the clock, and by its own processor time, which other programs disturb less."""

    per_s: float
    cpu_us: float


@dataclass(frozen=True)
class Drained:
    """One drain, and what its envelopes cost without MQTT, contract and facts."""

    batches: int
    records: int
    took_s: float
    ingest_cpu_s: float
    broker_cpu_s: float
    senders_cpu_s: float
    database_mib: float
    raw: Rate
    bare_records_per_s: float

    @property
    def batches_per_s(self) -> float:
        return self.batches / self.took_s

    @property
    def records_per_s(self) -> float:
        return self.records / self.took_s

    def where(self) -> str:
        """Where the processors' time went, per batch."""
        parts = (("ingest", self.ingest_cpu_s), ("broker", self.broker_cpu_s), ("senders", self.senders_cpu_s))
        spent = ", ".join(f"{name} {seconds / self.batches * 1e6:,.0f} µs" for name, seconds in parts)
        return (
            f"{self.records:,} records in {self.batches:,} batches took {self.took_s:.1f} s; database {self.database_mib:,.0f} MiB. "
            f"Processor time per batch: {spent}; a verification alone {self.raw.cpu_us:,.0f} µs. "
            f"The ingest had {self.ingest_cpu_s / self.took_s:.0%} of a core."
        )


def rows(*, full_records: int, natural_records: int, terminals: int) -> list[Row]:
    with stage(terminals=terminals) as server:
        full = drain(server, full_records, full=True)
    with stage(terminals=terminals) as server:
        natural = drain(server, natural_records, full=False)
    return [
        Row(
            what="Drain, batches of 100",
            ours=full.records_per_s,
            unit="records/s",
            beside="bare loop of decode, verify, insert on one core",
            peer=full.bare_records_per_s,
            budgets=(Budget(rule="at_least", limit=20_000, of="figure", unit="records/s"),),
            notes=(full.where(),),
        ),
        Row(
            what="Drain, batches of 1-3",
            ours=natural.batches_per_s,
            unit="batches/s",
            beside="raw Ed25519 verification on one core",
            peer=natural.raw.per_s,
            budgets=(Budget(rule="at_least", limit=0.5, of="ratio"),),
            notes=(
                natural.where(),
                f"The bare loop on one core does {natural.bare_records_per_s * natural.batches / natural.records:,.0f} of these batches/s.",
            ),
        ),
    ]


def drain(server: Stage, records: int, *, full: bool) -> Drained:
    spools = fill(server.terminals, server.folder / "spools", records=records, full=full, now_ms=server.now_ms)
    server.start_broker()
    server.start_ingest()
    verify_before = raw_verification(server.terminals, spools)
    poured = pour(server, spools)
    return Drained(
        batches=poured.batches,
        records=sum(spool.records for spool in spools),
        took_s=poured.took_s,
        ingest_cpu_s=poured.cpu_s["ingest"],
        broker_cpu_s=poured.cpu_s["broker"],
        senders_cpu_s=poured.cpu_s["senders"],
        database_mib=server.settings.layout.database.stat().st_size / 2**20,
        raw=_mean(verify_before, raw_verification(server.terminals, spools)),
        bare_records_per_s=bare_loop(server.terminals, spools, server.folder / "bare.sqlite"),
    )


@dataclass(frozen=True)
class Poured:
    """What it took until every batch of the spools was stored and acknowledged, each once."""

    batches: int
    took_s: float
    cpu_s: Mapping[str, float]


def pour(
    server: Stage, spools: Sequence[Spool], *, meanwhile: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Poured:
    """Send the spools to the running broker and ingest. `meanwhile` is entered when the senders are ready, and left when they are done."""
    assert server.broker is not None
    assert server.ingest is not None
    sender = _start_senders(server, spools)
    pids = {"ingest": server.ingest.pid, "broker": server.broker.pid, "senders": sender.pid}
    try:
        with meanwhile():
            cpu = {name: cpu_s(pid) for name, pid in pids.items()}
            started = time.perf_counter()
            _say(sender, "go")
            _expect(sender, "done")
            took_s = time.perf_counter() - started
            spent = {name: cpu_s(pid) - cpu[name] for name, pid in pids.items()}
    finally:
        sender.kill()
        sender.wait()
    return Poured(_check_stored(server, spools), took_s, spent)


def _mean(one: Rate, other: Rate) -> Rate:
    return Rate((one.per_s + other.per_s) / 2, (one.cpu_us + other.cpu_us) / 2)


def _start_senders(server: Stage, spools: Sequence[Spool]) -> subprocess.Popen[str]:
    order = server.folder / "replay.json"
    items = [
        {
            "id": terminal.id,
            "key": terminal.record_key.private_bytes_raw().hex(),
            "tls": str(terminal.tls_file),
            "spool": str(spool.path),
        }
        for terminal, spool in zip(server.terminals, spools, strict=True)
    ]
    order.write_text(
        json.dumps({"port": server.settings.broker.port, "ca": str(server.authority.ca_file), "terminals": items}), "utf-8"
    )
    sender = server.start_python("tests.bench.replay", str(order))
    _expect(sender, "ready")
    return sender


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _expect(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if said != line:
        raise RuntimeError(f"the senders ended with {process.wait()} instead of saying {line!r}")


def _check_stored(server: Stage, spools: Sequence[Spool]) -> int:
    """Every batch once, none refused; the number of batches."""
    with closing(server.database()) as conn:
        stored, records, disputed = conn.execute("SELECT count(*), sum(records), sum(disputed) FROM batch").fetchone()
        refused = conn.execute("SELECT coalesce(sum(count), 0) FROM quarantine_count").fetchone()[0]
    wanted = (sum(spool.batches for spool in spools), sum(spool.records for spool in spools))
    if (stored, records) != wanted or disputed or refused:
        raise RuntimeError(
            f"stored {stored} batches with {records} records, expected {wanted}; disputed {disputed}, refused {refused}"
        )
    return int(stored)


# -- what it stands beside ---------------------------------------------------------------------------------------------------------------


def _envelopes(terminals: Sequence[Terminal], spools: Sequence[Spool]) -> Iterable[tuple[Terminal, bytes]]:
    """Envelopes of all terminals in turn."""
    connections = [sqlite3.connect(spool.path) for spool in spools]
    cursors = [conn.execute("SELECT envelope FROM batch ORDER BY no") for conn in connections]
    try:
        while True:
            found = False
            for terminal, cursor in zip(terminals, cursors, strict=True):
                row = cursor.fetchone()
                if row is not None:
                    found = True
                    yield terminal, bytes(row[0])
            if not found:
                return
    finally:
        for conn in connections:
            conn.close()


def raw_verification(terminals: Sequence[Terminal], spools: Sequence[Spool]) -> Rate:
    """Signatures of these very envelopes per second, and nothing else."""
    work: list[tuple[Ed25519PublicKey, bytes, bytes]] = []
    for terminal, raw in islice(_envelopes(terminals, spools), 5_000):
        envelope = cose.parse(raw, ENVELOPE_MAX_BYTES)
        aad = cose.external_data(batches.BATCH_CONTEXT, FLEET, terminal.id)
        signed = cose.sig_structure(envelope.protected, aad, envelope.payload)
        work.append((terminal.record_key.public_key(), envelope.signature, signed))
    done, started, spent_s = 0, time.perf_counter(), time.process_time()
    while (took_s := time.perf_counter() - started) < VERIFY_FOR_S:
        for key, signature, signed in work[:500]:
            key.verify(signature, signed)
        work = work[500:] + work[:500]
        done += min(500, len(work))
    return Rate(done / took_s, (time.process_time() - spent_s) / done * 1e6)


def bare_loop(terminals: Sequence[Terminal], spools: Sequence[Spool], path: Path) -> float:
    """Records per second of the least that could be done: split, verify, decode, insert envelope and records, commit."""
    keys = {terminal.id: terminal.record_key.public_key() for terminal in terminals}
    sample = list(islice(_envelopes(terminals, spools), SAMPLE))
    records = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute("CREATE TABLE batch (id INTEGER PRIMARY KEY, terminal TEXT, envelope BLOB)")
        conn.execute(
            "CREATE TABLE record (batch INTEGER, idx INTEGER, at_ms INTEGER, kind TEXT, PRIMARY KEY (batch, idx)) WITHOUT ROWID"
        )
        started = began = time.perf_counter()
        conn.execute("BEGIN")
        for terminal, raw in sample:
            envelope = cose.parse(raw, ENVELOPE_MAX_BYTES)
            opened = cose.verify(envelope, keys[terminal.id], batches.BATCH_CONTEXT, FLEET, terminal.id)
            items = cbor2.loads(opened.payload)[1]
            batch = conn.execute("INSERT INTO batch (terminal, envelope) VALUES (?, ?)", (terminal.id, raw)).lastrowid
            conn.executemany(
                "INSERT INTO record VALUES (?, ?, ?, ?)",
                [(batch, place, item["t"], item["k"]) for place, item in enumerate(items)],
            )
            records += len(items)
            if time.perf_counter() - began > COMMIT_EVERY_S:
                conn.execute("COMMIT")
                conn.execute("BEGIN")
                began = time.perf_counter()
        conn.execute("COMMIT")
        return records / (time.perf_counter() - started)
