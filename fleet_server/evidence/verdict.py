"""What an operator says about a disputed stream, and what follows for the facts. The evidence itself stays as it is."""

from __future__ import annotations

import sqlite3
from typing import Literal

from fleet_server.errors import FleetServerError
from fleet_server.facts.project import reproject, unproject
from fleet_server.faults.platform import clear_platform_fault

Verdict = Literal["restored", "copied"]


class NotDisputed(FleetServerError):
    """There is nothing to decide about this stream."""


def settle(conn: sqlite3.Connection, stream: bytes, verdict: Verdict, now_ms: int) -> int:
    """Decide a disputed stream: `restored` lets its facts count, `copied` takes them away. Returns how many batches that concerned.

    Batches set aside inside a forked stream stay evidence in either case: of two stories under one number only one can count. The alarm
    SEC.CLONE ends with the terminal's last open question. Runs in the caller's transaction.
    """
    row = conn.execute("SELECT disputed, terminal FROM stream WHERE stream = ?", (stream,)).fetchone()
    if row is None or not row[0]:
        raise NotDisputed(f"stream {stream.hex()} is not disputed")
    ids = [found[0] for found in conn.execute("SELECT id FROM batch WHERE stream = ? AND disputed = 1 ORDER BY no", (stream,))]
    restored = verdict == "restored"
    conn.execute("UPDATE stream SET verdict = ?, disputed = ? WHERE stream = ?", (verdict, int(not restored), stream))
    if restored:
        conn.executemany("UPDATE batch SET disputed = 0 WHERE id = ?", [(batch,) for batch in ids])
        reproject(conn, ids)
    else:
        unproject(conn, ids)
    open_question = "SELECT 1 FROM stream WHERE terminal = ? AND disputed = 1 AND verdict IS NULL"
    if conn.execute(open_question, (row[1],)).fetchone() is None:
        clear_platform_fault(conn, row[1], "SEC.CLONE", now_ms)
    return len(ids)
