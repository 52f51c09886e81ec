"""Reads for the map: where sites are, and the codes of areas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fleet_server.engine import FleetEngine


@dataclass(frozen=True, slots=True)
class Ground:
    """What the map needs beside the fleet."""

    spots: dict[str, tuple[float, float]]
    """Site → (longitude, latitude), of sites that have both."""
    adcodes: dict[str, str]
    """Area → its code of GB/T 2260, where it has one."""
    sort: dict[str, int]


VAN_FRESH_MS: Final = 24 * 3_600_000
"""A van that told its place longer ago is drawn where its site is registered."""


async def ground(db: FleetEngine, now_ms: int) -> Ground:
    """A van's site is where the van was last."""
    sites = await db.read("SELECT code, lon, lat FROM site WHERE lon IS NOT NULL AND lat IS NOT NULL")
    vans = await db.read(
        "SELECT t.site AS code, p.lon_e4 / 10000.0 AS lon, p.lat_e4 / 10000.0 AS lat, max(p.at_ms) AS at_ms FROM van_position p"
        " JOIN terminal t ON t.id = p.terminal WHERE t.site IN (SELECT code FROM site WHERE kind = 'van')"
        " AND p.disputed = 0 AND p.at_ms > ? GROUP BY t.site",
        (now_ms - VAN_FRESH_MS,),
    )
    areas = await db.read("SELECT code, adcode, sort FROM area")
    return Ground(
        {row["code"]: (row["lon"], row["lat"]) for row in (*sites, *vans)},
        {row["code"]: row["adcode"] for row in areas if row["adcode"]},
        {row["code"]: row["sort"] for row in areas},
    )
