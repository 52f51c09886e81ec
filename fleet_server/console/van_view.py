"""A van's day as stops: positions that stay near one another for a while. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.sites.distance import distance_km

NEAR_KM: Final = 0.3
"""Positions come on a grid of about 100 m, and a square is larger than that."""
LEAST_MS: Final = 15 * 60_000
"""Shorter than this is a traffic light or a filling station."""


@dataclass(frozen=True, slots=True)
class SeenStop:
    """From the first to the last position there; degrees of its first."""

    from_ms: int
    to_ms: int
    latitude: float
    longitude: float


def stops(rows: Sequence[Mapping[str, Any]]) -> list[SeenStop]:
    """Stops among positions in the order of time (`at_ms`, `lat_e4`, `lon_e4`)."""
    found: list[SeenStop] = []
    here: SeenStop | None = None
    for row in rows:
        latitude, longitude = row["lat_e4"] / 10_000, row["lon_e4"] / 10_000
        if here is not None and distance_km(here.latitude, here.longitude, latitude, longitude) <= NEAR_KM:
            here = SeenStop(here.from_ms, row["at_ms"], here.latitude, here.longitude)
        else:
            found += _long_enough(here)
            here = SeenStop(row["at_ms"], row["at_ms"], latitude, longitude)
    return found + _long_enough(here)


def _long_enough(stop: SeenStop | None) -> list[SeenStop]:
    return [stop] if stop is not None and stop.to_ms - stop.from_ms >= LEAST_MS else []
