"""Owns what people may change about areas and sites: the tree stays a tree, nothing that is in use goes away, opening hours are replaced by day.

Every change says who and when (`audit`). Works in the caller's transaction; values come checked from `drafts`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.sites import audit
from fleet_server.sites.calendar import parse_hours
from fleet_server.sites.hours import keep_replaced_hours

DEPTH_MAX: Final = 6
"""Levels of the tree: province, city, county, township, village and one more."""
AREA_FIELDS: Final = ("parent", "name_zh", "name_en", "sort")
SITE_FIELDS: Final = ("area", "name_zh", "name_en", "kind", "address_zh", "lat", "lon", "timezone", "network", "phone")


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaValues:
    """What a person says about an area."""

    parent: str | None
    name_zh: str
    name_en: str
    sort: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteValues:
    """What a person says about a site, its hours apart."""

    area: str
    name_zh: str
    name_en: str
    kind: str
    address_zh: str | None
    lat: float | None
    lon: float | None
    timezone: str
    network: str
    phone: str | None


# Areas ----------------------------------------------------------------------------------------------------------------------------------


def add_area(conn: sqlite3.Connection, code: str, values: AreaValues, *, by: str, now_ms: int) -> None:
    """Conflict if the code is taken; Refused where the tree would grow too deep."""
    _check_code(conn, "area", code)
    _check_parent(_parents(conn), code, values.parent)
    _insert(conn, "area", {"code": code, **asdict(values)})
    audit.remember(conn, f"area:{code}", "area.add", asdict(values), by=by, now_ms=now_ms)


def edit_area(conn: sqlite3.Connection, code: str, values: AreaValues, *, by: str, now_ms: int) -> bool:
    """Rename or move with everything below it; False if nothing changed. Refused below itself."""
    known = _row(conn, "area", code, AREA_FIELDS)
    _check_parent(_parents(conn), code, values.parent)
    return _update(conn, "area", code, known, asdict(values), by=by, now_ms=now_ms)


def remove_area(conn: sqlite3.Connection, code: str, *, by: str, now_ms: int) -> None:
    """Refused while a site, an area or a notification channel is in it."""
    known = _row(conn, "area", code, AREA_FIELDS)
    if _exists(conn, "SELECT 1 FROM area WHERE parent = ?", code) or _exists(conn, "SELECT 1 FROM site WHERE area = ?", code):
        raise Refused("area", "areaNotEmpty")
    if _exists(
        conn, "SELECT 1 FROM channel c, json_each(c.filters, '$.areas') a WHERE json_valid(c.filters) AND a.value = ?", code
    ):
        raise Refused("area", "areaHasChannel")
    conn.execute("DELETE FROM area WHERE code = ?", (code,))
    audit.remember(conn, f"area:{code}", "area.remove", known, by=by, now_ms=now_ms)


def _parents(conn: sqlite3.Connection) -> dict[str, str | None]:
    return {row[0]: row[1] or None for row in conn.execute("SELECT code, parent FROM area")}


def _check_parent(parents: Mapping[str, str | None], code: str, parent: str | None) -> None:
    above = list(_upwards(parents, parent))
    if parent is not None and parent not in parents:
        raise Refused("parent", "noArea")
    if code in above:
        raise Refused("parent", "areaBelowItself")
    if len(above) + _height(parents, code) > DEPTH_MAX:
        raise Refused("parent", "areaTooDeep")


def _upwards(parents: Mapping[str, str | None], code: str | None) -> Iterable[str]:
    """`code` and everything above it; ends also where an import made a circle."""
    seen: set[str] = set()
    while code is not None and code not in seen:
        seen.add(code)
        yield code
        code = parents.get(code)


def _height(parents: Mapping[str, str | None], code: str) -> int:
    """Levels from `code` down, itself included."""
    level, height = {code}, 0
    while level and height <= DEPTH_MAX:
        height += 1
        level = {child for child, parent in parents.items() if parent in level and child not in level}
    return height


# Sites ----------------------------------------------------------------------------------------------------------------------------------


def fingerprint(row: Mapping[str, Any]) -> str:
    """Of what a form showed, so that it cannot undo what somebody else saved meanwhile."""
    shown = {name: row[name] for name in (*SITE_FIELDS, "hours")}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def add_site(conn: sqlite3.Connection, code: str, values: SiteValues, hours: str, *, by: str, now_ms: int) -> None:
    """Conflict if the code is taken; HoursError for hours that cannot be read."""
    _check_code(conn, "site", code)
    _check_area(conn, values.area)
    parse_hours(hours)
    _insert(conn, "site", {"code": code, **asdict(values), "hours": hours})
    audit.remember(conn, f"site:{code}", "site.add", {**asdict(values), "hours": hours}, by=by, now_ms=now_ms)


def edit_site(conn: sqlite3.Connection, code: str, values: SiteValues, *, seen: str, by: str, now_ms: int) -> bool:
    """False if nothing changed; Conflict if the site is not as it was when the form was opened (`seen`, a fingerprint)."""
    known = _row(conn, "site", code, (*SITE_FIELDS, "hours"))
    _check_seen(known, seen)
    _check_area(conn, values.area)
    return _update(conn, "site", code, known, asdict(values), by=by, now_ms=now_ms)


def set_hours(
    conn: sqlite3.Connection, code: str, hours: str, *, from_day: str, today: str, seen: str, by: str, now_ms: int
) -> bool:
    """Replace the opening hours from `from_day` on; figures of earlier days keep the hours that held. False if nothing changed.

    Refused for a day to come; Conflict as in `edit_site`; HoursError for hours that cannot be read.
    """
    known = _row(conn, "site", code, (*SITE_FIELDS, "hours"))
    _check_seen(known, seen)
    if parse_hours(hours) == _readable(known["hours"]):
        return False
    keep_replaced_hours(conn, [{"code": code, "hours": hours, "hours_from": from_day}], today)
    conn.execute("UPDATE site SET hours = ? WHERE code = ?", (hours, code))
    detail = {"hours": [known["hours"], hours], "from": from_day}
    audit.remember(conn, f"site:{code}", "site.hours", detail, by=by, now_ms=now_ms)
    return True


def remove_site(conn: sqlite3.Connection, code: str, *, today: str, by: str, now_ms: int) -> None:
    """Refused while a terminal stands there, retired ones included: their past happened at this site. What was known is kept in the history."""
    known = _row(conn, "site", code, (*SITE_FIELDS, "hours"))
    if _exists(conn, "SELECT 1 FROM terminal WHERE site = ?", code):
        raise Refused("site", "siteHasTerminals")
    conn.execute("DELETE FROM site WHERE code = ?", (code,))
    conn.execute("INSERT OR IGNORE INTO site_hours (site, until_day, hours) VALUES (?, ?, ?)", (code, today, known["hours"]))
    audit.remember(conn, f"site:{code}", "site.remove", known, by=by, now_ms=now_ms)


def _readable(text: str) -> object:
    try:
        return parse_hours(text)
    except Refused:
        return None


def _check_seen(known: Mapping[str, Any], seen: str) -> None:
    if fingerprint(known) != seen:
        raise Conflict("site", "changedMeanwhile")


def _check_area(conn: sqlite3.Connection, area: str) -> None:
    if not _exists(conn, "SELECT 1 FROM area WHERE code = ?", area):
        raise Refused("area", "noArea")


# Both -----------------------------------------------------------------------------------------------------------------------------------


def _check_code(conn: sqlite3.Connection, table: str, code: str) -> None:
    if _exists(conn, f"SELECT 1 FROM {table} WHERE code = ? COLLATE NOCASE", code):  # noqa: S608 - one of two names
        raise Conflict("code", "taken")


def _exists(conn: sqlite3.Connection, sql: str, *params: object) -> bool:
    return conn.execute(f"{sql} LIMIT 1", params).fetchone() is not None


def _row(conn: sqlite3.Connection, table: str, code: str, fields: Iterable[str]) -> dict[str, Any]:
    names = tuple(fields)
    row = conn.execute(f"SELECT {', '.join(names)} FROM {table} WHERE code = ?", (code,)).fetchone()  # noqa: S608 - names from above
    if row is None:
        raise NotFound(f"{table} {code[:40]!r}")
    return dict(zip(names, row, strict=True))


def _insert(conn: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> None:
    marks = ", ".join("?" * len(values))
    conn.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))  # noqa: S608 - field names


def _update(
    conn: sqlite3.Connection, table: str, code: str, known: Mapping[str, Any], values: Mapping[str, Any], *, by: str, now_ms: int
) -> bool:
    changed = {name: [known[name], value] for name, value in values.items() if (known[name] or None) != (value or None)}
    if not changed:
        return False
    sets = ", ".join(f"{name} = ?" for name in changed)
    conn.execute(f"UPDATE {table} SET {sets} WHERE code = ?", (*(new for _, new in changed.values()), code))  # noqa: S608 - field names
    audit.remember(conn, f"{table}:{code}", f"{table}.edit", changed, by=by, now_ms=now_ms)
    return True
