"""Reads for the map: where sites are, and the codes of areas."""

from __future__ import annotations

from dataclasses import dataclass

from fleet_server.engine import FleetEngine


@dataclass(frozen=True, slots=True)
class Ground:
    """What the map needs beside the fleet."""

    spots: dict[str, tuple[float, float]]
    """Site → (longitude, latitude), of sites that have both."""
    adcodes: dict[str, str]
    """Area → its code of GB/T 2260, where it has one."""
    sort: dict[str, int]


async def ground(db: FleetEngine) -> Ground:
    sites = await db.read("SELECT code, lon, lat FROM site WHERE lon IS NOT NULL AND lat IS NOT NULL")
    areas = await db.read("SELECT code, adcode, sort FROM area")
    return Ground(
        {row["code"]: (row["lon"], row["lat"]) for row in sites},
        {row["code"]: row["adcode"] for row in areas if row["adcode"]},
        {row["code"]: row["sort"] for row in areas},
    )
