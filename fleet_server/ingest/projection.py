"""Joins evidence and facts: what the ledger hands over goes to the projection, its alarms to the platform's faults."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.clock import is_late
from fleet_server.facts.project import project, reproject
from fleet_server.faults.platform import open_platform_fault
from protocols.contract.records import Stop


class FactsProjection:
    """`fleet_server.evidence.ledger.Projection` of the running server. `on_stop` hears of planned ends that were announced just now."""

    def __init__(self, on_stop: Callable[[str, int], None] = lambda terminal, now_ms: None) -> None:
        self._on_stop = on_stop

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)
        if batch.disputed:
            return
        for record in decoded:
            if isinstance(record.body, Stop) and not is_late(record.wall_ms, batch.received_ms):
                self._on_stop(batch.terminal, batch.received_ms)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        reproject(conn, batch_ids)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        open_platform_fault(conn, terminal, code, now_ms)
