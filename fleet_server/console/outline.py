"""The outline of a city and its counties: read from GeoJSON, checked, and small enough for a page.

The package carries the outline of one city; `[map] outline` in the settings names another. What is wrong with a file is said with the place in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from fleet_server.errors import SettingsError

BUILT_IN: Final = Path(__file__).resolve().parent / "outlines" / "330700.json"
MAX_BYTES: Final = 4 * 2**20
ROOM_GRID: Final = 10
ROOMS: Final = 24
BORDER_POINTS: Final = 120
"""Where a name may stand is looked for on a grid, and measured to so many points of the border."""
MAX_POINTS: Final = 60_000
"""A browser draws so many without being slow; `scripts/outline.py` makes a few thousand."""

Position = Annotated[list[float], Meta(min_length=2, max_length=3)]
Ring = Annotated[list[Position], Meta(min_length=4)]
Polygon = Annotated[list[Ring], Meta(min_length=1)]


class _Polygon(msgspec.Struct, tag="Polygon", tag_field="type"):
    coordinates: Polygon


class _MultiPolygon(msgspec.Struct, tag="MultiPolygon", tag_field="type"):
    coordinates: Annotated[list[Polygon], Meta(min_length=1)]


class _Properties(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=60)]
    adcode: str | int = ""


class _Feature(msgspec.Struct):
    type: Literal["Feature"]
    properties: _Properties
    geometry: _Polygon | _MultiPolygon
    id: str | int | None = None


class _Collection(msgspec.Struct):
    type: Literal["FeatureCollection"]
    features: Annotated[list[_Feature], Meta(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class County:
    """One feature: a name, a code if the file gives one, and its polygons (outer ring first, holes after it)."""

    name: str
    adcode: str
    polygons: tuple[tuple[tuple[tuple[float, float], ...], ...], ...]

    @property
    def key(self) -> str:
        """Under which pages know it."""
        return self.adcode or self.name

    def roomy(self, squeeze: float) -> tuple[tuple[float, float, float], ...]:
        """(longitude, latitude, degrees of latitude to the border) of points with room for a name around them, the roomiest first."""
        outer = max((polygon[0] for polygon in self.polygons), key=len)
        border = outer[:: max(1, len(outer) // BORDER_POINTS)]
        lons, lats = [lon for lon, _ in outer], [lat for _, lat in outer]
        found = []
        for column, row in product(range(1, ROOM_GRID), repeat=2):
            lon = min(lons) + (max(lons) - min(lons)) * column / ROOM_GRID
            lat = min(lats) + (max(lats) - min(lats)) * row / ROOM_GRID
            if _in_ring(lon, lat, outer):
                room = min(math.hypot((lon - x) * squeeze, lat - y) for x, y in border)
                found.append((round(lon, 4), round(lat, 4), round(room, 4)))
        return tuple(sorted(found, key=lambda point: -point[2])[:ROOMS])

    def holds(self, lon: float, lat: float) -> bool:
        return any(
            _in_ring(lon, lat, outer) and not any(_in_ring(lon, lat, hole) for hole in holes) for outer, *holes in self.polygons
        )


@dataclass(frozen=True)
class Outline:
    """All counties of a city, in the file's order."""

    counties: tuple[County, ...]

    @cached_property
    def by_adcode(self) -> Mapping[str, County]:
        return {county.adcode: county for county in self.counties if county.adcode}

    @cached_property
    def by_name(self) -> Mapping[str, County]:
        return {county.name: county for county in self.counties}

    def county_of(self, adcode: str | None, name: str) -> County | None:
        """The county of an area: by its code, else by its name."""
        return (self.by_adcode.get(adcode) if adcode else None) or self.by_name.get(name)

    def adcode_at(self, lon: float, lat: float) -> str | None:
        """Key of the county around a point."""
        return next((county.key for county in self.counties if county.holds(lon, lat)), None)

    @cached_property
    def page(self) -> bytes:
        """What the map registers: GeoJSON whose names are the counties' keys, so that two of one name cannot meet."""
        features = [
            {
                "type": "Feature",
                "properties": {"name": county.key, "label": county.name, "rooms": county.roomy(self.squeeze)},
                "geometry": {"type": "MultiPolygon", "coordinates": county.polygons},
            }
            for county in self.counties
        ]
        return msgspec.json.encode({"type": "FeatureCollection", "features": features})

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.page).hexdigest()[:12]

    @cached_property
    def squeeze(self) -> float:
        """How much narrower a degree of longitude is than one of latitude here."""
        _, south, _, north = self.bounds
        return math.cos(math.radians((south + north) / 2))

    @cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north."""
        points = [point for county in self.counties for polygon in county.polygons for point in polygon[0]]
        lons, lats = [lon for lon, _ in points], [lat for _, lat in points]
        return min(lons), min(lats), max(lons), max(lats)


def load_outline(file: Path | None) -> Outline:
    """The outline of `file`, or the one that comes with the console. SettingsError names the file, the place in it and the rule."""
    path = file or BUILT_IN
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SettingsError(f"map.outline: {path}: larger than {MAX_BYTES // 2**20} MiB; thin it out first")
        data = path.read_bytes()
    except OSError as err:
        raise SettingsError(f"map.outline: {path}: {err.strerror}") from err
    try:
        return read_outline(data)
    except OutlineError as err:
        raise SettingsError(f"map.outline: {path}: {err}") from err


class OutlineError(ValueError):
    """Not GeoJSON that a map can be drawn from."""


def read_outline(data: bytes) -> Outline:
    """Check and convert. Raises OutlineError."""
    try:
        found = msgspec.json.decode(data, type=_Collection)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise OutlineError(str(err)) from None
    counties = tuple(_county(feature, f"features[{at}]") for at, feature in enumerate(found.features))
    for what, keys in (("name", [one.name for one in counties]), ("adcode", [one.adcode for one in counties if one.adcode])):
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise OutlineError(f"two features have the {what} {twice!r}")
    points = sum(len(ring) for county in counties for polygon in county.polygons for ring in polygon)
    if points > MAX_POINTS:
        raise OutlineError(f"{points:,} points are too many for a page, at most {MAX_POINTS:,}; thin it out first")
    return Outline(counties)


def _county(feature: _Feature, where: str) -> County:
    shape = feature.geometry
    polygons = shape.coordinates if isinstance(shape, _MultiPolygon) else [shape.coordinates]
    return County(
        name=feature.properties.name.strip(),
        adcode=str(feature.properties.adcode or feature.id or "").strip(),
        polygons=tuple(tuple(_ring(ring, where) for ring in polygon) for polygon in polygons),
    )


def _ring(ring: Sequence[Sequence[float]], where: str) -> tuple[tuple[float, float], ...]:
    points = tuple((position[0], position[1]) for position in ring)
    if points[0] != points[-1]:
        raise OutlineError(f"{where}: a ring does not end where it begins")
    for lon, lat in points:
        if not (-180 <= lon <= 180 and -90 <= lat <= 90):
            raise OutlineError(f"{where}: ({lon}, {lat}) is no longitude and latitude in degrees (WGS 84)")
    return points


def _in_ring(lon: float, lat: float, ring: Sequence[tuple[float, float]]) -> bool:
    """A ray to the east crosses the ring an odd number of times."""
    inside = False
    for (lon1, lat1), (lon2, lat2) in pairwise(ring):
        if (lat1 > lat) != (lat2 > lat) and lon < (lon2 - lon1) * (lat - lat1) / (lat2 - lat1) + lon1:
            inside = not inside
    return inside
