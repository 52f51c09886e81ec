"""Reads for the evidence drawer and the original envelopes."""

from __future__ import annotations

from typing import Any

from fleet_server.engine import FleetEngine


async def batch(db: FleetEngine, batch_id: int) -> dict[str, Any] | None:
    """The stored batch with its stream and the key that signed it."""
    rows = await db.read(
        "SELECT b.*, s.parent_stream, s.parent_no, s.parent_digest, s.disputed AS stream_disputed,"
        " k.public_key, k.certificate, k.generation FROM batch b"
        " LEFT JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream"
        " LEFT JOIN record_key k ON k.kid = b.kid AND k.terminal = b.terminal WHERE b.id = ?",
        (batch_id,),
    )
    return rows[0] if rows else None


async def before(db: FleetEngine, terminal: str, stream: bytes, no: int) -> dict[str, Any] | None:
    """The batch before number `no`, if it is stored."""
    rows = await db.read(
        "SELECT no, digest, envelope IS NULL AS erased FROM batch WHERE terminal = ? AND stream = ? AND no = ?",
        (terminal, stream, no - 1),
    )
    return rows[0] if rows else None


async def hole_before(db: FleetEngine, terminal: str, stream: bytes, no: int) -> dict[str, Any] | None:
    rows = await db.read(
        "SELECT first_no, last_no FROM hole WHERE terminal = ? AND stream = ? AND first_no <= ? AND last_no >= ?",
        (terminal, stream, no - 1, no - 1),
    )
    return rows[0] if rows else None


async def digest_of(db: FleetEngine, terminal: str, stream: bytes, no: int) -> bytes | None:
    rows = await db.read("SELECT digest FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (terminal, stream, no))
    return rows[0]["digest"] if rows else None


async def fault_of_record(db: FleetEngine, batch_id: int, idx: int) -> dict[str, Any] | None:
    """The episode that this record opened or cleared."""
    rows = await db.read(
        "SELECT * FROM fault WHERE (open_batch = :b AND open_idx = :i) OR (clear_batch = :b AND clear_idx = :i) LIMIT 1",
        {"b": batch_id, "i": idx},
    )
    return rows[0] if rows else None


async def fault(db: FleetEngine, fault_id: str) -> dict[str, Any] | None:
    rows = await db.read("SELECT * FROM fault WHERE id = ?", (fault_id,))
    return rows[0] if rows else None
