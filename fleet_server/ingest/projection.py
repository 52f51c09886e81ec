"""Joins evidence and facts: what the ledger hands over goes to the projection, its alarms to the platform's faults."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from fleet_server.facts import DecodedRecord, StoredBatch
from fleet_server.facts.project import project, reproject
from fleet_server.faults.platform import open_platform_fault


class FactsProjection:
    """`fleet_server.evidence.ledger.Projection` of the running server."""

    def project(self, conn: sqlite3.Connection, batch: StoredBatch, decoded: Sequence[DecodedRecord]) -> None:
        project(conn, batch, decoded)

    def dispute(self, conn: sqlite3.Connection, batch_ids: Sequence[int]) -> None:
        reproject(conn, batch_ids)

    def alarm(self, conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> None:
        open_platform_fault(conn, terminal, code, now_ms)
