"""Reads for the system page."""

from __future__ import annotations

from typing import Any

from fleet_server.engine import FleetEngine


async def figures(db: FleetEngine, since_ms: int) -> dict[str, Any]:
    rows = await db.read(
        "SELECT (SELECT committed_ms FROM batch ORDER BY id DESC LIMIT 1) AS last_commit_ms,"
        " (SELECT max(id) FROM batch) AS batches,"
        " (SELECT count(*) FROM parked) AS parked,"
        " count(*) AS batches_hour, sum(records) AS records_hour FROM batch WHERE received_ms >= ?",
        (since_ms,),
    )
    return rows[0]


async def waiting(db: FleetEngine) -> list[dict[str, Any]]:
    return await db.read(
        "SELECT terminal, outbox_depth, outbox_oldest_ms FROM terminal_live WHERE outbox_depth > 1 ORDER BY outbox_depth DESC LIMIT 15"
    )


async def quarantine(db: FleetEngine) -> list[dict[str, Any]]:
    return await db.read("SELECT terminal, reason, count, last_ms FROM quarantine_count ORDER BY last_ms DESC LIMIT 30")


async def notable_streams(db: FleetEngine) -> list[dict[str, Any]]:
    return await db.read(
        "SELECT terminal, stream, disputed, forked, verdict, notice FROM stream"
        " WHERE disputed = 1 OR forked = 1 OR notice IS NOT NULL OR verdict IS NOT NULL ORDER BY first_ms DESC LIMIT 30"
    )


async def gaps(db: FleetEngine) -> list[dict[str, Any]]:
    return await db.read("SELECT from_ms, to_ms, cause FROM platform_gap ORDER BY from_ms DESC LIMIT 20")
