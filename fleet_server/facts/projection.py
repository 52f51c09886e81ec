"""Joins what a stored batch means for facts, for waiting births and for presence. What ingest's ledger calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.births import PendingBirths
from fleet_server.facts.clock import is_late
from fleet_server.facts.project import project, reproject
from fleet_server.faults.platform import open_platform_fault
from fleet_server.presence.watch import PresenceWatch
from protocols.contract.records import Stop


class Projection:
    """Everything runs inside the caller's transaction."""

    def __init__(self, watch: PresenceWatch, births: PendingBirths) -> None:
        self._watch = watch
        self._births = births

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
        """The rows in `batch` say that these are disputed now: their facts no longer count."""
        reproject(conn, batch_ids)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        """Once per episode; for `SEC.CLONE` and `SEC.SIGNATURE`."""
        open_platform_fault(conn, terminal, code, now_ms)
