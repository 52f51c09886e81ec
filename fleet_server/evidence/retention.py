"""Erases old originals and leaves what keeps the chain checkable: number, hashes, reason, and a signed checkpoint."""

from __future__ import annotations

import sqlite3

from protocols.contract import certs
from protocols.contract.envelope import Signer


def erase_before(
    conn: sqlite3.Connection, signer: Signer, *, fleet: str, terminal: str, before_ms: int, reason: str, now_ms: int
) -> int:
    """Erase the envelopes of `terminal` received before `before_ms`, stream by stream from number 1 on; returns how many.

    Only a run from the start of a stream is erased, because one checkpoint then says all of it. Runs in the caller's transaction.
    """
    erased = 0
    for (stream,) in conn.execute("SELECT stream FROM stream WHERE terminal = ? ORDER BY id", (terminal,)).fetchall():
        last = conn.execute(
            "SELECT max(no) FROM batch WHERE terminal = :terminal AND stream = :stream AND no < coalesce("
            "(SELECT min(no) FROM batch WHERE terminal = :terminal AND stream = :stream AND received_ms >= :before), 9223372036854775807)",
            {"terminal": terminal, "stream": stream, "before": before_ms},
        ).fetchone()[0]
        if last is None:
            continue
        gone = conn.execute(
            "UPDATE batch SET envelope = NULL, erased_reason = ? WHERE terminal = ? AND stream = ? AND no <= ? AND envelope IS NOT NULL",
            (reason, terminal, stream, last),
        ).rowcount
        if not gone:
            continue
        erased += gone
        digest = conn.execute(
            "SELECT digest FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (terminal, stream, last)
        ).fetchone()[0]
        checkpoint = certs.Checkpoint(
            terminal=terminal, stream=bytes(stream), no=last, digest=bytes(digest), erased_up_to=last, made_ms=now_ms
        )
        conn.execute(
            "INSERT INTO checkpoint (terminal, made_ms, envelope) VALUES (?, ?, ?)",
            (terminal, now_ms, certs.seal_checkpoint(checkpoint, signer, fleet)),
        )
    return erased
