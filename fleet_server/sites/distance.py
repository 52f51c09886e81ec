"""How far two places are from each other."""

from __future__ import annotations

import math
from typing import Final

EARTH_KM: Final = 6371.0088
"""Mean radius (IUGG)."""


def distance_km(from_lat: float, from_lon: float, to_lat: float, to_lon: float) -> float:
    """Great-circle distance by the haversine formula."""
    up, across = math.radians(to_lat - from_lat), math.radians(to_lon - from_lon)
    half = math.sin(up / 2) ** 2 + math.cos(math.radians(from_lat)) * math.cos(math.radians(to_lat)) * math.sin(across / 2) ** 2
    return 2 * EARTH_KM * math.asin(min(1.0, math.sqrt(half)))
