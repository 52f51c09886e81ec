"""A database from before streams were known by terminal and id: everything in it stays, in its order, and goes on."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import fleet_server
from fleet_server import db
from fleet_server.evidence.ledger import Ledger
from protocols.contract.messages import AckMode
from tests.fleet_server.evidence.conftest import OTHER, Bench
from tests.support.contract import FLEET, RECORD, STRANGER, TERMINAL, Chain

BEFORE = "2026-11-22T00:57:00"
A, B = b"\xaa" * 16, b"\xbb" * 16


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A database as the version before made it."""
    package = Path(fleet_server.__file__).parent
    copy = tmp_path / "older" / package.name
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "console"))
    for file in copy.glob("*/piccolo_migrations/*.py"):
        found = re.search(r'^ID = "([^"]+)"', file.read_text("utf-8"), flags=re.MULTILINE)
        if found and found.group(1) >= BEFORE:
            file.unlink()
    path = tmp_path / "fleet.sqlite"
    code = "import sys; from pathlib import Path; from fleet_server import db; db.migrate(Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=copy.parent, env={"PATH": "", "PYTHONPATH": f"{copy.parent}:{package.parent}"}, check=True
    )  # fmt: skip
    return path


@pytest.fixture
def stored(older: Path) -> tuple[Path, Chain, Chain]:
    """Two streams of which the second was opened first by its bytes, an aside and a hole."""
    chain, child = Chain(B), Chain(A)
    with closing(db.open_raw(older)) as conn:
        assert not conn.execute("SELECT 1 FROM pragma_table_info('stream') WHERE name = 'settle_from'").fetchone()
        for one in (chain, child):
            one.seal()
            conn.execute(
                "INSERT INTO stream (stream, terminal, boot_no, boot_id, head_no, head_digest, disputed, forked, first_ms, notice)"
                " VALUES (?, ?, 7, ?, ?, ?, 1, 1, 5, 'fork')",
                (one.stream, TERMINAL, bytes(16), one.no, one.digest),
            )
            conn.execute(
                "INSERT INTO batch (terminal, stream, no, digest, prev, kid, context) VALUES (?, ?, ?, ?, x'', x'', '')",
                (TERMINAL, one.stream, one.no, one.digest),
            )
        conn.execute("INSERT INTO aside (stream, no, digest, terminal, envelope) VALUES (?, 1, x'01', ?, x'02')", (A, TERMINAL))
        conn.execute("INSERT INTO hole (stream, first_no, last_no, terminal) VALUES (?, 3, 4, ?)", (A, TERMINAL))
        conn.execute("INSERT INTO boot (terminal, stream) VALUES (?, ?)", (TERMINAL, A))
        conn.execute("INSERT INTO terminal_live (terminal, boot_no, nonce) VALUES (?, 7, x'03')", (TERMINAL,))
        conn.execute(
            "INSERT INTO clock_fix (terminal, boot_id, boot_ms, wall_ms, quality) VALUES (?, ?, 1, 2, 'unused')",
            (TERMINAL, bytes(16)),
        )
    return older, chain, child


def test_everything_stays_in_its_order_and_the_chains_go_on(stored: tuple[Path, Chain, Chain]) -> None:
    path, chain, _ = stored
    db.migrate(path)
    bench = Bench(path)
    with closing(bench.conn) as conn:
        rows = conn.execute(
            "SELECT id, terminal, stream, boot_no, head_no, disputed, forked, first_ms, notice, settle_from FROM stream ORDER BY id"
        )
        assert rows.fetchall() == [
            (1, TERMINAL, B, 7, 1, 1, 1, 5, "fork", None),
            (2, TERMINAL, A, 7, 1, 1, 1, 5, "fork", None),
        ]
        assert [conn.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("batch", "aside", "hole", "boot")] == [
            (2,), (1,), (1,), (1,),
        ]  # fmt: skip
        assert conn.execute("SELECT boot_no FROM terminal_live").fetchone() == (7,)
        assert "nonce" not in {row[1] for row in conn.execute("PRAGMA table_info(terminal_live)")}
        assert conn.execute("SELECT quality FROM clock_fix").fetchone() == ("waiting",)
        assert not conn.execute("SELECT 1 FROM sqlite_master WHERE name = 'stream_before'").fetchone()
        bench.ledger = Ledger(conn, FLEET, bench.spy)
        bench.enrol(TERMINAL, RECORD)
        bench.enrol(OTHER, STRANGER)
        outcome = bench.send(chain.seal())
        assert outcome.ack is not None
        assert (outcome.ack.no, outcome.ack.mode) == (2, AckMode.UP_TO)
        assert bench.send(Chain(A, key=STRANGER, terminal=OTHER).seal(), terminal=OTHER).ack is not None
        with pytest.raises(sqlite3.IntegrityError):
            conn.execute("INSERT INTO stream (terminal, stream) VALUES (?, ?)", (TERMINAL, A))
