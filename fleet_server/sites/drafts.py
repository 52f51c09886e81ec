"""Reads what a person typed about areas, sites and opening hours. Pure; every field that is wrong is named, none is guessed.

Opening hours come as `<day>.<n>.from` and `<day>.<n>.to` (day `mon` to `sun` or `holiday`), other hours on single days as `date.<m>.day` and
`date.<m>.<n>.from`; `<n>` and `<m>` only keep fields together.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final
from zoneinfo import available_timezones

from fleet_server.forms import Problems
from fleet_server.sites.calendar import DEFAULT_ZONE, Hours, Span
from fleet_server.sites.changes import AreaValues, SiteValues

SITE_KINDS: Final = ("hall", "zone24", "mall", "hospital", "station", "bank", "park", "community", "van")
NETWORKS: Final = ("govExtranet", "internet")
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SPANS_MAX: Final = 6
DATES_MAX: Final = 100
NAME_MAX, NAME_EN_MAX, ADDRESS_MAX = 40, 60, 120
_CODE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?")
_TIME: Final = re.compile(r"([01]?\d|2[0-3]):?([0-5]\d)|24:?00")
_PHONE: Final = re.compile(r"\+?[0-9][0-9 ()-]{4,24}")
_SPAN_FIELD: Final = re.compile(r"(mon|tue|wed|thu|fri|sat|sun|holiday|date\.\d{1,3})\.(\d{1,3})\.(from|to)")
_DATE_FIELD: Final = re.compile(r"date\.(\d{1,3})\.day")


def read_code(form: Mapping[str, str], problems: Problems) -> str:
    """A new code: it stands in addresses and files, and is never changed."""
    code = form.get("code", "").strip()
    if not _CODE.fullmatch(code):
        problems.add("code", "code")
    return code


def read_area(form: Mapping[str, str], problems: Problems) -> AreaValues:
    sort = form.get("sort", "").strip() or "0"
    if not re.fullmatch(r"\d{1,6}", sort):
        problems.add("sort", "number")
        sort = "0"
    return AreaValues(
        parent=form.get("parent", "").strip() or None,
        name_zh=_text(form, "name_zh", NAME_MAX, problems),
        name_en=_text(form, "name_en", NAME_EN_MAX, problems, optional=True),
        sort=int(sort),
    )


def read_site(form: Mapping[str, str], problems: Problems) -> SiteValues:
    """A site without its hours. Coordinates are WGS 84, both or none."""
    lat, lon = _coordinates(form, problems)
    phone = " ".join(form.get("phone", "").split())
    if phone and not _PHONE.fullmatch(phone):
        problems.add("phone", "phone")
    values = SiteValues(
        area=form.get("area", "").strip(),
        name_zh=_text(form, "name_zh", NAME_MAX, problems),
        name_en=_text(form, "name_en", NAME_EN_MAX, problems, optional=True),
        kind=form.get("kind", ""),
        address_zh=_text(form, "address_zh", ADDRESS_MAX, problems, optional=True) or None,
        lat=lat,
        lon=lon,
        timezone=form.get("timezone", "").strip() or DEFAULT_ZONE,
        network=form.get("network", ""),
        phone=phone or None,
    )
    if not values.area:
        problems.add("area", "noArea")
    if values.kind not in SITE_KINDS:
        problems.add("kind", "choose")
    if values.network not in NETWORKS:
        problems.add("network", "choose")
    if values.timezone not in available_timezones():
        problems.add("timezone", "timezone")
    return values


def _text(form: Mapping[str, str], field: str, limit: int, problems: Problems, *, optional: bool = False) -> str:
    tidy = " ".join(form.get(field, "").split())
    if not tidy and not optional:
        problems.add(field, "empty")
    if len(tidy) > limit:
        problems.add(field, "tooLong")
    # Right-to-left marks and other invisible characters make one name look like another.
    if any(unicodedata.category(char) in {"Cc", "Cf", "Co", "Cs"} and char != "\u200d" for char in tidy):
        problems.add(field, "characters")
    return tidy


def _coordinates(form: Mapping[str, str], problems: Problems) -> tuple[float | None, float | None]:
    lat, lon = (_number(form.get(name, ""), name, problems) for name in ("lat", "lon"))
    if lat is None and lon is None:
        return None, None
    if lat is None or lon is None:
        problems.add("lat" if lat is None else "lon", "bothCoordinates")
        return None, None
    if abs(lat) > 90 and abs(lon) <= 90:
        problems.add("lat", "swapped")
    elif not -90 <= lat <= 90:
        problems.add("lat", "latitude")
    elif not -180 <= lon <= 180:
        problems.add("lon", "longitude")
    elif abs(lat) < 0.01 and abs(lon) < 0.01:
        problems.add("lat", "nullIsland")
    return round(lat, 6), round(lon, 6)


def _number(text: str, field: str, problems: Problems) -> float | None:
    tidy = unicodedata.normalize("NFKC", text).strip().rstrip("°")
    if not tidy:
        return None
    try:
        value = float(tidy)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        problems.add(field, "number")
        return None
    return value


# Opening hours --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Typed:
    """One pair of fields that is not empty."""

    name: str
    start: str
    end: str


def read_hours(form: Mapping[str, str], problems: Problems, *, from_day: str = "") -> str:
    """The hours as JSON for `site.hours`. Single days before `from_day` are left out: what held then is kept elsewhere."""
    typed = _typed_spans(form)
    tree: dict[str, object] = {}
    for day in (*DAYS, "holiday"):
        spans = _spans(typed.get(day, ()), problems)
        if spans:
            tree[day] = spans
    if form.get("always"):
        # What was typed for the week stays stored: closing at night again brings it back.
        tree["always"] = True
    dates: dict[str, list[list[str]]] = {}
    for number, text in _typed_dates(form):
        field = f"date.{number}.day"
        spans = _spans(typed.get(f"date.{number}", ()), problems)
        try:
            day = date.fromisoformat(text.strip()).isoformat()
        except ValueError:
            problems.add(field, "day")
            continue
        if day in dates:
            problems.add(field, "dayTwice")
        elif day >= from_day:
            dates[day] = spans
    if len(dates) > DATES_MAX:
        problems.add("dates", "tooManySpans")
    if dates:
        tree["dates"] = dict(sorted(dates.items()))
    return json.dumps(tree)


def _typed_spans(form: Mapping[str, str]) -> dict[str, list[_Typed]]:
    """By day, in the order of their numbers; pairs of which both fields are empty do not count."""
    pairs: dict[tuple[str, int], dict[str, str]] = {}
    for name, value in form.items():
        found = _SPAN_FIELD.fullmatch(name)
        if found:
            pairs.setdefault((found[1], int(found[2])), {})[found[3]] = unicodedata.normalize("NFKC", value).strip()
    result: dict[str, list[_Typed]] = {}
    for (day, number), pair in sorted(pairs.items()):
        start, end = pair.get("from", ""), pair.get("to", "")
        if start or end:
            result.setdefault(day, []).append(_Typed(f"{day}.{number}", start, end))
    return result


def _typed_dates(form: Mapping[str, str]) -> list[tuple[int, str]]:
    numbered = ((found, value) for name, value in form.items() if (found := _DATE_FIELD.fullmatch(name)) and value.strip())
    return sorted((int(found[1]), value) for found, value in numbered)


def _spans(typed: Iterable[_Typed], problems: Problems) -> list[list[str]]:
    """Ordered periods as JSON has them; each problem is told at the field where it is."""
    read: list[tuple[int, int, _Typed]] = []
    for one in typed:
        start, end = _minutes(one.start), _minutes(one.end)
        if start is None:
            problems.add(f"{one.name}.from", "time" if one.start else "empty")
        if end is None:
            problems.add(f"{one.name}.to", "time" if one.end else "empty")
        if start is None or end is None:
            continue
        if start >= end:
            problems.add(f"{one.name}.to", "backwards")
        read.append((start, end, one))
    read.sort(key=lambda item: item[:2])
    for (_, before_end, _), (start, _, one) in itertools.pairwise(read):
        if start < before_end:
            problems.add(f"{one.name}.from", "overlaps")
        elif start == before_end:
            problems.add(f"{one.name}.from", "touches")
    if len(read) > SPANS_MAX:
        problems.add(f"{read[-1][2].name}.from", "tooManySpans")
    return [[clock(start), clock(end)] for start, end, _ in read]


def _minutes(text: str) -> int | None:
    """`9:00`, `09:00`, `0900` and `24:00`."""
    found = _TIME.fullmatch(text)
    if not found:
        return None
    return 24 * 60 if found[1] is None else int(found[1]) * 60 + int(found[2])


def clock(minute: int) -> str:
    """`09:00`; the end of the day is `24:00`."""
    return f"{minute // 60:02}:{minute % 60:02}"


def fields_of(hours: Hours) -> dict[str, str]:
    """The form that `read_hours` would read as `hours`."""
    fields: dict[str, str] = {"always": "1"} if hours.always else {}
    for day, spans in zip((*DAYS, "holiday"), (*hours.week, hours.holiday), strict=True):
        fields |= _fields(day, spans)
    for number, (own, spans) in enumerate(hours.dates):
        fields[f"date.{number}.day"] = own.isoformat()
        fields |= _fields(f"date.{number}", spans)
    return fields


def _fields(day: str, spans: Iterable[Span]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for number, (start, end) in enumerate(spans):
        fields[f"{day}.{number}.from"], fields[f"{day}.{number}.to"] = clock(start), clock(end)
    return fields
