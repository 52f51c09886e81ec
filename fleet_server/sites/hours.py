"""Owns which opening hours a site had on a day: hours that were replaced still hold for the days before. `site.hours` are those of today."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import msgspec

from fleet_server.errors import Refused
from fleet_server.sites.calendar import NEVER, Hours, HoursError, parse_hours


@dataclass(frozen=True, slots=True)
class DatedHours:
    """Hours by day. `replaced` are (until day, hours), ordered: each held up to the day before."""

    now: Hours
    replaced: tuple[tuple[str, Hours], ...] = ()

    def on(self, day: str) -> Hours:
        place = bisect_right(self.replaced, day, key=lambda row: row[0])
        return self.replaced[place][1] if place < len(self.replaced) else self.now


def load_hours(conn: sqlite3.Connection, sites: Iterable[str] | None = None) -> dict[str, DatedHours]:
    """By site code; all sites without `sites`. Hours that cannot be read count as never open."""
    wanted = None if sites is None else msgspec.json.encode(sorted(set(sites))).decode()
    replaced: defaultdict[str, list[tuple[str, Hours]]] = defaultdict(list)
    for site, until_day, text in conn.execute(
        "SELECT site, until_day, hours FROM site_hours WHERE ?1 IS NULL OR site IN (SELECT value FROM json_each(?1)) ORDER BY until_day",
        (wanted,),
    ):
        replaced[site].append((until_day, readable_hours(text)))
    rows = conn.execute(
        "SELECT code, hours FROM site WHERE ?1 IS NULL OR code IN (SELECT value FROM json_each(?1))", (wanted,)
    ).fetchall()
    return {code: DatedHours(readable_hours(text), tuple(replaced[code])) for code, text in rows}


def hours_of_terminal(conn: sqlite3.Connection, terminal: str, day: str) -> Hours:
    """What held at the terminal's site on `day`."""
    row = conn.execute(
        "SELECT coalesce((SELECT h.hours FROM site_hours h WHERE h.site = s.code AND h.until_day > ? ORDER BY h.until_day LIMIT 1), s.hours)"
        " FROM terminal t JOIN site s ON s.code = t.site WHERE t.id = ?",
        (day, terminal),
    ).fetchone()
    return NEVER if row is None else readable_hours(row[0])


def keep_replaced_hours(conn: sqlite3.Connection, sites: Iterable[Mapping[str, Any]], today: str) -> int:
    """Before sites are imported: keep what the rows are about to replace, valid up to the day before; returns for how many sites.

    A row may say `hours_from`, the day from which its hours hold, at the latest `today`, which is the default. Days from then on are computed
    again. Raises Refused for a day that cannot be read or is still to come.
    """
    kept = 0
    for row in sites:
        new = row.get("hours")
        if not new or not row.get("code"):
            continue
        from_day = _day(row.get("hours_from"), today)
        text = new if isinstance(new, str) else msgspec.json.encode(new).decode()
        parse_hours(text)
        known = conn.execute("SELECT hours FROM site WHERE code = ?", (row["code"],)).fetchone()
        if known is None or readable_hours(known[0]) in (NEVER, readable_hours(text)):
            continue
        # What held on the day before; of several changes on one day only the hours before the first held on any whole day.
        before = conn.execute(
            "SELECT hours FROM site_hours WHERE site = ? AND until_day >= ? ORDER BY until_day LIMIT 1", (row["code"], from_day)
        ).fetchone()
        conn.execute("DELETE FROM site_hours WHERE site = ? AND until_day >= ?", (row["code"], from_day))
        conn.execute(
            "INSERT INTO site_hours (site, until_day, hours) VALUES (?, ?, ?)", (row["code"], from_day, (before or known)[0])
        )
        kept += 1
        conn.execute(
            "INSERT OR IGNORE INTO dirty_day (terminal, day) SELECT d.terminal, d.day FROM terminal_day d JOIN terminal t ON t.id = d.terminal"
            " WHERE t.site = ? AND d.day >= ?",
            (row["code"], from_day),
        )
    return kept


def readable_hours(text: str) -> Hours:
    """NEVER for what cannot be read: figures go on, and a site without hours shows."""
    try:
        return parse_hours(text)
    except HoursError:
        return NEVER


def _day(given: object, today: str) -> str:
    if given is None:
        return today
    try:
        day = date.fromisoformat(str(given)).isoformat()
    except ValueError:
        raise Refused("hours_from", "day") from None
    if day > today:
        raise Refused("hours_from", "future")
    return day
