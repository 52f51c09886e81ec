"""`fleet-server figures`, `trace-figure`, `export-evidence` and `recompute` on one data directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server.authority.authority import Authority
from fleet_server.db import open_raw
from fleet_server.evidence.ledger import Greeting, Ledger
from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import project
from fleet_server.usage.days import recompute_some
from protocols.contract import batch as batches
from protocols.contract.records import ClockQuality, Rating, Session, encode_record
from tests.fleet_server.figures.conftest import DAY, HOUR, at
from tests.fleet_server.supervisor.test_cli import Data
from tests.support.contract import RECORD, TERMINAL

MORNING = at("06-09 09:30")


class Facts:
    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        raise AssertionError(batch_ids)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        raise AssertionError(code)


@pytest.fixture
def data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Data:
    """A server that has received one batch of a terminal."""
    made = Data(tmp_path / "data", capsys)
    made("init")
    made("add-terminal", TERMINAL)
    authority = Authority(made.layout.authority)
    cert = authority.certify_record_key(TERMINAL, RECORD.public, generation=1, now_ms=0)
    with closing(open_raw(made.layout.database)) as conn:
        conn.execute("UPDATE terminal SET enrolled_ms = ?", (MORNING - 99 * DAY,))
        conn.execute(
            "INSERT INTO record_key (kid, terminal, generation, public_key, certificate, issued_ms) VALUES (?, ?, 1, ?, ?, 0)",
            (RECORD.kid, TERMINAL, RECORD.public, cert),
        )
        ledger = Ledger(conn, authority.fleet, Facts())
        ledger.refresh()
        bodies = (
            Session(id=bytes(16), item="tax.print", outcome="success", began_ms=MORNING, duration_ms=60_000),
            Rating(level=5),
        )
        records = [encode_record(one, wall_ms=MORNING + HOUR, quality=ClockQuality.SYNCED, boot_ms=HOUR) for one in bodies]
        header = batches.BatchHeader(
            stream=bytes(16), no=1, prev=b"", batch_class="event", boot_no=1, boot_id=b"b" * 16, sealed_ms=MORNING
        )
        raw, _ = batches.seal_batch(header, records, RECORD, authority.fleet, TERMINAL)
        outcome = ledger.receive(TERMINAL, "batch", "t", raw, Greeting(b"n" * 16, {}), MORNING + 2 * HOUR)
        assert outcome.stored == 2
        while recompute_some(conn, 9):
            pass
    return made


def test_figures_are_printed_published_and_traced(data: Data) -> None:
    said = data("figures", "2026-06", "--publish")
    assert "2026-06-01 to 2026-06-30, 1 terminals in service" in said
    assert "Share of terminals with cases                 100.00%  1 / 1" in said
    assert "published as 1 to 18" in said
    assert "from the facts now: 1, 1 terminals in service" in data("trace-figure", "1")
    with closing(open_raw(data.layout.database)) as conn:
        conn.execute("UPDATE session SET disputed = 1")
    assert "from the facts now: 0, 1 terminals in service" in data("trace-figure", "1", status=1)
    data("trace-figure", "999", status=1)
    data("figures", "June", status=1)
    assert "0 terminals in service" in data("figures", "2026-06-08..2026-06-10", "--area", "none")


def test_evidence_gives_the_same_figures_until_the_database_is_changed(data: Data, tmp_path: Path) -> None:
    file = tmp_path / "kf.evidence"
    data("export-evidence", TERMINAL, "--out", file)
    said = data("recompute", file, "--period", "2026-06")
    assert "the same" in said and "1 terminals, 2026-06-01 to 2026-06-30, 1 signed batches" in said
    with closing(open_raw(data.layout.database)) as conn:
        conn.execute("UPDATE rating SET level = 1")
    said = data("recompute", file, status=1)
    assert "good_reviews" in said and "NOT THE SAME" in said
    file.write_bytes(file.read_bytes()[:-1])
    assert "does not hold from byte" in data("recompute", file, status=1)
    data("recompute", tmp_path / "absent", status=1)
