"""What an operator says about a disputed stream, and what follows for the facts. The evidence itself stays as it is."""

from __future__ import annotations

import logging
import sqlite3
from typing import Literal

from fleet_server.errors import FleetServerError, place_of
from fleet_server.facts.project import reproject, unproject
from fleet_server.faults.platform import clear_platform_fault

Verdict = Literal["restored", "copied"]


SETTLED_AT_ONCE = 20
"""About a millisecond each, in a transaction that ingest waits for."""

log = logging.getLogger(__name__)


class NotDisputed(FleetServerError):
    """There is nothing to decide about this stream."""


def settle(conn: sqlite3.Connection, terminal: str, stream: bytes, verdict: Verdict, now_ms: int) -> int:
    """Decide a disputed stream: `restored` lets its facts count, `copied` takes them away. Returns how many batches that concerns.

    Their facts follow slice by slice (`settle_some`), by whoever has time: a stream can have tens of thousands. Batches set aside inside a forked
    stream stay evidence in either case: of two stories under one number only one can count. The alarm SEC.CLONE ends with the terminal's last open
    question. Runs in the caller's transaction.
    """
    restored = verdict == "restored"
    done = conn.execute(
        "UPDATE stream SET verdict = ?, disputed = ?, settle_from = 1 WHERE terminal = ? AND stream = ? AND disputed = 1",
        (verdict, int(not restored), terminal, stream),
    )
    if done.rowcount != 1:
        raise NotDisputed(f"stream {stream.hex()} of {terminal} is not disputed")
    open_question = "SELECT 1 FROM stream WHERE terminal = ? AND disputed = 1 AND verdict IS NULL"
    if conn.execute(open_question, (terminal,)).fetchone() is None:
        clear_platform_fault(conn, terminal, "SEC.CLONE", now_ms)
    count: int = conn.execute(
        "SELECT count(*) FROM batch WHERE terminal = ? AND stream = ? AND disputed = 1", (terminal, stream)
    ).fetchone()[0]
    return count


def settle_some(conn: sqlite3.Connection, batches: int = SETTLED_AT_ONCE) -> bool:
    """The next slice of a verdict; True if there is more. Its place is stored with what it did: a process that dies in between goes on there, and
    two at once take turns. In a transaction of its own."""
    row = conn.execute(
        "SELECT id, terminal, stream, verdict, settle_from FROM stream WHERE settle_from IS NOT NULL ORDER BY id LIMIT 1"
    ).fetchone()
    if row is None:
        return False
    number, terminal, stream, verdict, first = row
    found = conn.execute(
        "SELECT id, no FROM batch WHERE terminal = ? AND stream = ? AND no >= ? AND disputed = 1 ORDER BY no LIMIT ?",
        (terminal, stream, first, batches),
    ).fetchall()
    for batch_id, _ in found:
        _follow(conn, batch_id, restored=verdict == "restored")
    conn.execute("UPDATE stream SET settle_from = ? WHERE id = ?", (found[-1][1] + 1 if found else None, number))
    return True


def _follow(conn: sqlite3.Connection, batch_id: int, *, restored: bool) -> None:
    """Make one batch's facts follow the verdict. One that fails for a reason of ours is logged, and holds up no other."""
    if restored:
        conn.execute("UPDATE batch SET disputed = 0 WHERE id = ?", (batch_id,))
    conn.execute("SAVEPOINT one")
    try:
        (reproject if restored else unproject)(conn, [batch_id])
    except sqlite3.OperationalError:
        raise
    except Exception as err:  # noqa: BLE001 - one batch must not keep a whole stream from its verdict
        conn.execute("ROLLBACK TO one")
        log.error("the facts of a batch could not follow a verdict", extra={"batch": batch_id, "reason": place_of(err)})
    conn.execute("RELEASE one")


def terminals_of(conn: sqlite3.Connection, stream: bytes) -> list[str]:
    """Whose streams of this id are disputed: ids are random, so usually one."""
    return [
        row[0]
        for row in conn.execute("SELECT terminal FROM stream WHERE stream = ? AND disputed = 1 ORDER BY terminal", (stream,))
    ]
