"""Reads for accounts and their sessions."""

from __future__ import annotations

from typing import Any

from fleet_server.engine import FleetEngine

_ACCOUNTS = (
    "SELECT s.name, s.display, s.role, s.failed, s.locked_until_ms, s.must_change, s.created_ms, s.lang, s.disabled_ms, s.password_ms,"
    " count(l.token_hash) AS sessions, max(l.seen_ms) AS seen_ms FROM staff s"
    " LEFT JOIN login l ON l.staff = s.name AND l.expires_ms > :now AND l.seen_ms > :idle"
)


async def accounts(db: FleetEngine, now_ms: int, idle_ms: int) -> list[dict[str, Any]]:
    """Everybody with living sessions: those who can sign in first, then by name."""
    return await db.read(
        f"{_ACCOUNTS} GROUP BY s.name ORDER BY s.disabled_ms IS NOT NULL, s.name", {"now": now_ms, "idle": now_ms - idle_ms}
    )


async def account(db: FleetEngine, name: str, now_ms: int, idle_ms: int) -> dict[str, Any] | None:
    params = {"now": now_ms, "idle": now_ms - idle_ms, "name": name}
    rows = await db.read(f"{_ACCOUNTS} WHERE s.name = :name GROUP BY s.name", params)
    return rows[0] if rows else None


async def sessions(db: FleetEngine, name: str, now_ms: int, idle_ms: int) -> list[dict[str, Any]]:
    """Living ones, the one used last first."""
    return await db.read(
        "SELECT token_hash, created_ms, seen_ms, expires_ms FROM login WHERE staff = ? AND expires_ms > ? AND seen_ms > ?"
        " ORDER BY seen_ms DESC",
        (name, now_ms, now_ms - idle_ms),
    )
