"""The duty that signs heads of the audit log and removes what is older than it must be kept.

A head goes into the database and, as a line of JSON, into a file beside it: whoever cuts the log off has to reach both, and copies of that file or of
an export elsewhere are out of reach.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleet_server.audit import log
from fleet_server.audit.chain import Head, seal_head
from fleet_server.channel import transact
from fleet_server.thresholds.rules import effective
from protocols.contract import envelope as cose

HEAD_EVERY_MS: Final = 10_000
"""So long a tail may be cut off without a trace, at most."""
CUT_EVERY_MS: Final = 3_600_000
CUT_AT_ONCE: Final = 500
DAY_MS: Final = 86_400_000
HEADS_WHOLE_MS: Final = DAY_MS
"""Older heads are thinned to one an hour: a later one covers the same rows."""


@dataclass
class Keeper:
    """`signer` is asked for at each head: the server's key may be rotated meanwhile."""

    fleet: str
    signer: Callable[[], cose.Signer]
    heads_file: Path
    _next_cut_ms: int = 0

    def step(self, conn: sqlite3.Connection, now_ms: int) -> bool:
        self._sign(conn, now_ms)
        if not 0 < self._next_cut_ms - now_ms <= CUT_EVERY_MS:
            more = transact(conn, lambda inside: self._cut(inside, now_ms))
            if not more:
                self._next_cut_ms = now_ms + CUT_EVERY_MS
            return more
        return False

    def _sign(self, conn: sqlite3.Connection, now_ms: int) -> None:
        newest, _ = log.last(conn)
        row = conn.execute("SELECT audit, made_ms FROM audit_head ORDER BY id DESC LIMIT 1").fetchone()
        signed, made_ms = (row[0], row[1]) if row is not None else (0, None)
        if newest <= signed or (made_ms is not None and 0 <= now_ms - made_ms < HEAD_EVERY_MS):
            return
        raw = transact(conn, lambda inside: self._head(inside, now_ms))
        self._keep(newest, now_ms, raw)

    def _head(self, conn: sqlite3.Connection, now_ms: int) -> bytes:
        newest, digest = log.last(conn)
        raw = seal_head(Head(audit=newest, hash=digest, made_ms=now_ms), self.signer(), self.fleet)
        conn.execute("INSERT INTO audit_head (audit, made_ms, envelope) VALUES (?, ?, ?)", (newest, now_ms, raw))
        return raw

    def _keep(self, newest: int, now_ms: int, raw: bytes) -> None:
        line = json.dumps({"audit": newest, "made_ms": now_ms, "head": base64.b64encode(raw).decode()}) + "\n"
        descriptor = os.open(self.heads_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a", encoding="ascii") as file:
            file.write(line)

    def _cut(self, conn: sqlite3.Connection, now_ms: int) -> bool:
        """Rows whose keeping time is over, up to the first that is younger; never the newest. True if there are more."""
        keep_ms = int(effective(conn, "audit.keep_days").value) * DAY_MS
        newest, _ = log.last(conn)
        young = conn.execute("SELECT coalesce(min(id), ?) FROM audit WHERE at_ms > ?", (newest, now_ms - keep_ms)).fetchone()[0]
        last = min(young, newest) - 1
        cut = conn.execute("SELECT coalesce(max(audit), 0) FROM audit_cut").fetchone()[0]
        if last > cut:
            digest = bytes(conn.execute("SELECT hash FROM audit WHERE id = ?", (last,)).fetchone()[0])
            raw = seal_head(Head(audit=last, hash=digest, made_ms=now_ms), self.signer(), self.fleet)
            conn.execute("INSERT INTO audit_cut (audit, made_ms, envelope) VALUES (?, ?, ?)", (last, now_ms, raw))
            log.write(conn, log.SERVER, None, "audit.cut", f"audit:{last}", {"days": keep_ms // DAY_MS}, now_ms=now_ms)
            cut = last
        done = conn.execute(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE id <= ? ORDER BY id LIMIT ?)", (cut, CUT_AT_ONCE)
        )
        conn.execute("DELETE FROM audit_head WHERE audit < ?", (cut,))
        conn.execute(
            "DELETE FROM audit_head WHERE made_ms < ?1 AND id NOT IN"
            " (SELECT max(id) FROM audit_head WHERE made_ms < ?1 GROUP BY made_ms / 3600000)",
            (now_ms - HEADS_WHOLE_MS,),
        )
        return done.rowcount == CUT_AT_ONCE
