"""Where something lies on a public map of China. For the eye and the hand only: what is stored, sent and drawn on our own map is WGS-84.

Public maps in mainland China use GCJ-02, which moves each point by some hundred metres. The conversion is the published one, from the library
coordTransform; outside the mainland's box it changes nothing.
"""

from __future__ import annotations

from coordTransform import gcj02_to_wgs84, wgs84_to_gcj02


def on_chinese_maps(latitude: float, longitude: float) -> tuple[float, float]:
    """WGS-84 degrees as GCJ-02 degrees, latitude first."""
    moved_longitude, moved_latitude = wgs84_to_gcj02(longitude, latitude)
    return float(moved_latitude), float(moved_longitude)


def from_chinese_maps(latitude: float, longitude: float) -> tuple[float, float]:
    """GCJ-02 degrees, as somebody read them off such a map, as WGS-84 degrees, to about a metre."""
    moved_longitude, moved_latitude = gcj02_to_wgs84(longitude, latitude)
    return float(moved_latitude), float(moved_longitude)
