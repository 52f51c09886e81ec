"""Reads for one terminal's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fleet_server.console.fleet import FAULT_COLUMNS, fault_of
from fleet_server.console.model import FaultNow
from fleet_server.engine import FleetEngine

EVENT_LIMIT: Final = 120


async def devices(db: FleetEngine, terminal: str) -> list[dict[str, Any]]:
    return await db.read("SELECT * FROM device WHERE terminal = ?", (terminal,))


async def sightings(db: FleetEngine, terminal: str) -> list[dict[str, Any]]:
    return await db.read(
        "SELECT port, bus, vid, pid, at_ms FROM sighting WHERE terminal = ? AND present = 1 ORDER BY port", (terminal,)
    )


async def consumables(db: FleetEngine, terminal: str) -> list[dict[str, Any]]:
    return await db.read("SELECT * FROM consumable WHERE terminal = ? ORDER BY slot, item", (terminal,))


async def counters(db: FleetEngine, terminal: str) -> list[dict[str, Any]]:
    """The newest summary of each slot."""
    return await db.read(
        "SELECT slot, max(to_ms) AS to_ms, total, ok, failed, lifetime, derived FROM counters WHERE terminal = ? AND disputed = 0 GROUP BY slot",
        (terminal,),
    )


async def readings(db: FleetEngine, terminal: str, slots: Sequence[str], since_ms: int) -> list[dict[str, Any]]:
    """The newest summary of each measured quantity of these slots, if one began since then."""
    marks = ",".join("?" * len(slots))
    return await db.read(
        "SELECT slot, quantity, unit, from_ms, max(to_ms) AS to_ms, min_tenths, mean_tenths, max_tenths FROM reading"  # noqa: S608 - marks only
        f" WHERE terminal = ? AND slot IN ({marks}) AND from_ms >= ? AND disputed = 0 GROUP BY slot, quantity ORDER BY slot, quantity",
        (terminal, *slots, since_ms),
    )


async def positions(db: FleetEngine, terminal: str, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    """Where a van was, in the order of time."""
    return await db.read(
        "SELECT slot, at_ms, lat_e4, lon_e4, fix, satellites FROM van_position"
        " WHERE terminal = ? AND disputed = 0 AND at_ms >= ? AND at_ms < ? ORDER BY at_ms",
        (terminal, start_ms, end_ms),
    )


async def planned_stops(db: FleetEngine, terminal: str, now_ms: int) -> list[dict[str, Any]]:
    """Where a van is to stand, and what became of the stops of the last two days, in the order of time."""
    return await db.read(
        "SELECT id, name, lat_e4, lon_e4, from_ms, to_ms, outcome FROM van_stop WHERE terminal = ? AND to_ms > ? ORDER BY from_ms, id",
        (terminal, now_ms - 2 * 86_400_000),
    )


async def last_position(db: FleetEngine, terminal: str) -> dict[str, Any] | None:
    rows = await db.read(
        "SELECT slot, at_ms, lat_e4, lon_e4, fix, satellites FROM van_position WHERE terminal = ? AND disputed = 0"
        " ORDER BY at_ms DESC LIMIT 1",
        (terminal,),
    )
    return rows[0] if rows else None


async def changes(db: FleetEngine, terminal: str, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    """Device changes within the span, and of each slot the last one before it."""
    return await db.read(
        "SELECT slot, at_ms, device, paper, toner, media, cover, late, batch, idx FROM device_change"
        " WHERE terminal = :t AND disputed = 0 AND at_ms >= :start AND at_ms < :end"
        " UNION ALL SELECT slot, max(at_ms), device, paper, toner, media, cover, late, batch, idx FROM device_change"
        " WHERE terminal = :t AND disputed = 0 AND at_ms < :start GROUP BY slot ORDER BY slot, at_ms",
        {"t": terminal, "start": start_ms, "end": end_ms},
    )


async def boots(db: FleetEngine, terminal: str, start_ms: int, end_ms: int) -> list[dict[str, Any]]:
    return await db.read(
        "SELECT at_ms, agent, os, previous, same_boot FROM boot WHERE terminal = ? AND disputed = 0 AND at_ms >= ? AND at_ms < ? ORDER BY at_ms",
        (terminal, start_ms, end_ms),
    )


EVENT_KINDS: Final = ("fault", "device", "presence", "boot", "person", "supply")
_FAULT_EVENTS: Final = """
SELECT opened_ms AS at_ms, 'opened' AS what, code, since_ms, cleared_ms, cleared_by, open_batch AS batch, open_idx AS idx, late, NULL AS "by",
  NULL AS text, NULL AS slot FROM fault WHERE terminal = :t AND disputed = 0 AND opened_ms >= :start
UNION ALL SELECT cleared_ms, 'cleared', code, since_ms, cleared_ms, cleared_by, clear_batch, clear_idx, late, NULL, NULL, NULL
  FROM fault WHERE terminal = :t AND disputed = 0 AND cleared_ms >= :start
UNION ALL SELECT e.at_ms, e.kind, f.code, f.since_ms, f.cleared_ms, NULL, NULL, NULL, 0, e."by", e.text, NULL FROM fault_event e
  JOIN fault f ON f.id = e.fault WHERE f.terminal = :t AND f.disputed = 0 AND e.at_ms >= :start AND e."by" IS NULL
  AND e.kind NOT IN ('open', 'clear')"""
_EVENTS: Final = {
    "fault": _FAULT_EVENTS,
    "device": """
SELECT at_ms, 'device' AS what, device AS code, NULL AS since_ms, NULL AS cleared_ms, NULL AS cleared_by, batch, idx, late, paper AS "by",
  toner || ' ' || media || ' ' || cover AS text, slot FROM device_change WHERE terminal = :t AND disputed = 0 AND at_ms >= :start""",
    "presence": """
SELECT from_ms AS at_ms, 'presence' AS what, state AS code, NULL AS since_ms, NULL AS cleared_ms, NULL AS cleared_by, NULL AS batch,
  NULL AS idx, 0 AS late, NULL AS "by", cause AS text, NULL AS slot FROM presence WHERE terminal = :t AND from_ms >= :start""",
    "boot": """
SELECT at_ms, 'boot' AS what, previous AS code, same_boot AS since_ms, NULL AS cleared_ms, NULL AS cleared_by, NULL AS batch, NULL AS idx,
  0 AS late, agent AS "by", os AS text, NULL AS slot FROM boot WHERE terminal = :t AND disputed = 0 AND at_ms >= :start""",
    "person": """
SELECT e.at_ms, e.kind AS what, f.code, f.since_ms, f.cleared_ms, NULL AS cleared_by, NULL AS batch, NULL AS idx, 0 AS late, e."by", e.text,
  NULL AS slot FROM fault_event e JOIN fault f ON f.id = e.fault
  WHERE f.terminal = :t AND f.disputed = 0 AND e.at_ms >= :start AND e."by" IS NOT NULL
UNION ALL SELECT from_ms, 'maintenanceStart', '', NULL, NULL, NULL, NULL, NULL, 0, "by", reason, NULL FROM maintenance
  WHERE terminal = :t AND from_ms >= :start
UNION ALL SELECT to_ms, 'maintenanceEnd', '', NULL, NULL, NULL, NULL, NULL, 0, ended_by, '', NULL FROM maintenance
  WHERE terminal = :t AND to_ms >= :start AND ended_by IS NOT NULL""",
    "supply": """
SELECT at_ms, 'refill' AS what, item AS code, remaining AS since_ms, NULL AS cleared_ms, unit AS cleared_by, batch, idx, 0 AS late, NULL AS "by",
  NULL AS text, slot FROM consumable_level WHERE terminal = :t AND event = 'refill' AND at_ms >= :start""",
}
"""One shape for all, so that they can be listed together; what a column holds depends on the kind."""


async def events(db: FleetEngine, terminal: str, start_ms: int, kind: str = "") -> list[dict[str, Any]]:
    """What happened, newest first: of one kind, or of all."""
    parts = [_EVENTS[kind]] if kind else list(_EVENTS.values())
    each = " UNION ALL ".join(f"SELECT * FROM ({part} ORDER BY 1 DESC LIMIT :limit)" for part in parts)  # noqa: S608 - constants
    return await db.read(
        f"SELECT * FROM ({each}) ORDER BY at_ms DESC LIMIT :limit",  # noqa: S608 - constants
        {"t": terminal, "start": start_ms, "limit": EVENT_LIMIT},
    )


async def faults(db: FleetEngine, terminal: str, start_ms: int) -> list[FaultNow]:
    rows = await db.read(
        f"SELECT {FAULT_COLUMNS} FROM fault WHERE terminal = ? AND disputed = 0 AND (opened_ms >= ? OR cleared_ms IS NULL)"  # noqa: S608 - constant
        " ORDER BY opened_ms DESC LIMIT 200",
        (terminal, start_ms),
    )
    return [fault_of(row) for row in rows]


async def days(db: FleetEngine, terminal: str, first: str, last: str) -> list[dict[str, Any]]:
    return await db.read(
        "SELECT * FROM terminal_day WHERE terminal = ? AND day >= ? AND day <= ? ORDER BY day", (terminal, first, last)
    )


async def items(db: FleetEngine, terminal: str, start_ms: int, start_day: str) -> list[dict[str, Any]]:
    return await db.read(
        "SELECT item, count(*) AS n, sum(outcome = 'success') AS success FROM session"
        " WHERE terminal = ? AND day >= ? AND began_ms >= ? AND disputed = 0 GROUP BY item ORDER BY n DESC, item LIMIT 5",
        (terminal, start_day, start_ms),
    )


async def outcomes(db: FleetEngine, terminal: str, start_day: str) -> dict[str, int]:
    rows = await db.read(
        "SELECT outcome, count(*) AS n FROM session WHERE terminal = ? AND day >= ? AND disputed = 0 GROUP BY outcome",
        (terminal, start_day),
    )
    return {row["outcome"]: row["n"] for row in rows}


async def durations(db: FleetEngine, terminal: str, start_day: str) -> list[int]:
    """Sorted lengths of the cases, for their median."""
    rows = await db.read(
        "SELECT duration_ms FROM session WHERE terminal = ? AND day >= ? AND disputed = 0 ORDER BY duration_ms",
        (terminal, start_day),
    )
    return [row["duration_ms"] for row in rows]


async def last_success_ms(db: FleetEngine, terminal: str) -> int | None:
    rows = await db.read(
        "SELECT max(began_ms + duration_ms) AS at FROM session WHERE terminal = ? AND outcome = 'success' AND disputed = 0",
        (terminal,),
    )
    at_ms: int | None = rows[0]["at"]
    return at_ms


async def diagnostics(db: FleetEngine, terminal: str) -> dict[str, Any]:
    """What the agent and the ledger know of this terminal, in one row."""
    rows = await db.read(
        "SELECT l.*, h.cpu_pct, h.mem_free_mib, h.disk_free_mib, h.temp_c, h.uptime_s, h.agent_rss_kib, h.to_ms AS host_ms,"
        " (SELECT max(at_ms) FROM boot WHERE terminal = :t AND disputed = 0) AS last_boot_ms,"
        " (SELECT count(*) FROM batch WHERE terminal = :t) AS batches,"
        " (SELECT coalesce(sum(last_no - first_no + 1), 0) FROM hole WHERE terminal = :t) AS holes,"
        " (SELECT coalesce(sum(count), 0) FROM quarantine_count WHERE terminal = :t) AS quarantined,"
        " s.stream, s.head_no, s.disputed"
        " FROM terminal_live l"
        " LEFT JOIN host_health h ON h.id = (SELECT id FROM host_health WHERE terminal = :t AND disputed = 0 ORDER BY to_ms DESC LIMIT 1)"
        " LEFT JOIN stream s ON s.id = (SELECT id FROM stream WHERE terminal = :t ORDER BY first_ms DESC LIMIT 1)"
        " WHERE l.terminal = :t",
        {"t": terminal},
    )
    return rows[0] if rows else {}
