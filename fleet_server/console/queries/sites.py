"""Reads for areas, sites and their history."""

from __future__ import annotations

from typing import Any

from fleet_server.engine import FleetEngine


async def areas(db: FleetEngine) -> list[dict[str, Any]]:
    """In the order in which a tree shows the children of one node."""
    return await db.read("SELECT code, parent, name_zh, name_en, sort FROM area ORDER BY sort, code")


async def sites(db: FleetEngine) -> list[dict[str, Any]]:
    """Every site with how many terminals stand there and how many once did."""
    return await db.read(f"{_SITES} GROUP BY s.code ORDER BY s.area, s.code")


async def site(db: FleetEngine, code: str) -> dict[str, Any] | None:
    rows = await db.read(f"{_SITES} WHERE s.code = ? GROUP BY s.code", (code,))
    return rows[0] if rows else None


async def replaced_hours(db: FleetEngine, code: str) -> list[dict[str, Any]]:
    """(until_day, hours), newest first."""
    return await db.read("SELECT until_day, hours FROM site_hours WHERE site = ? ORDER BY until_day DESC LIMIT 20", (code,))


async def removed(db: FleetEngine) -> list[dict[str, Any]]:
    """Sites and areas that were removed and are not there again, newest first."""
    return await db.read(
        "SELECT e.at_ms, e.set_by, e.kind, e.subject, e.detail FROM setting_event e WHERE e.id IN"
        " (SELECT max(id) FROM setting_event WHERE kind IN ('site.add', 'site.remove', 'area.add', 'area.remove') GROUP BY subject)"
        " AND e.kind IN ('site.remove', 'area.remove')"
        " AND NOT EXISTS (SELECT 1 FROM site s WHERE 'site:' || s.code = e.subject)"
        " AND NOT EXISTS (SELECT 1 FROM area a WHERE 'area:' || a.code = e.subject) ORDER BY e.id DESC LIMIT 20"
    )


_SITES = (
    "SELECT s.code, s.area, s.name_zh, s.name_en, s.kind, s.address_zh, s.lat, s.lon, s.hours, s.timezone, s.network, s.phone,"
    " count(t.id) - count(t.revoked_ms) AS terminals, count(t.revoked_ms) AS retired"
    " FROM site s LEFT JOIN terminal t ON t.site = s.code"
)
