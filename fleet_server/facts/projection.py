"""Joins what a stored batch means for facts, for waiting births and for presence. What ingest's ledger calls."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Sequence
from itertools import islice

from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.clock import is_late
from fleet_server.facts.project import project, reproject
from fleet_server.faults.platform import open_platform_fault
from fleet_server.presence.watch import PresenceWatch
from protocols.contract.records import Stop

DISPUTED_AT_ONCE = 200
DISPUTED_IN_A_STEP = 20
"""About a millisecond each, in a transaction that others wait for."""


class Projection:
    """Everything runs inside the caller's transaction."""

    def __init__(self, watch: PresenceWatch, births: PendingBirths) -> None:
        self._watch = watch
        self._births = births
        self._to_dispute: deque[int] = deque()

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)
        self._births.stored(conn, batch.terminal, batch.stream, batch.no)
        if (
            decoded
            and type(decoded[-1].body) is Stop
            and not batch.disputed
            and not is_late(decoded[-1].wall_ms, batch.received_ms)
        ):
            self._watch.stopping(batch.terminal, batch.stream, batch.received_ms)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        """The rows in `batch` say that these are disputed now: their facts no longer count, those of a long story by and by."""
        reproject(conn, batch_ids[:DISPUTED_AT_ONCE])
        self._to_dispute.extend(batch_ids[DISPUTED_AT_ONCE:])

    def resume(self, conn: sqlite3.Connection) -> None:
        """After a start: what the process before may have left undone. Doing it again changes nothing."""
        rows = conn.execute(
            "SELECT b.id FROM stream s JOIN batch b ON b.terminal = s.terminal AND b.stream = s.stream"
            " WHERE s.forked = 1 AND s.verdict IS NULL AND b.disputed = 1"
            " ORDER BY b.id"
        )
        self._to_dispute = deque(row[0] for row in rows)

    def settle(self, conn: sqlite3.Connection) -> bool:
        """Between messages, in a transaction: some of what `dispute` left. True if there is more."""
        some = list(islice(self._to_dispute, DISPUTED_IN_A_STEP))
        try:
            reproject(conn, some)
        except sqlite3.OperationalError:
            some = []  # a busy or full database: they are tried again
            raise
        finally:
            # What fails for a reason of ours must not come up for ever; `resume` remembers it.
            for _ in some:
                self._to_dispute.popleft()
        return bool(self._to_dispute)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        """Once per episode; for `SEC.CLONE` and `SEC.SIGNATURE`."""
        open_platform_fault(conn, terminal, code, now_ms)
