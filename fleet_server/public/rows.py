"""Reads what the public face is made of: a few columns of a few tables, on a connection that cannot write, within a time limit.

What citizens have no business with is not even read: no serial numbers, versions, reasons, names of people or counts of use leave the database.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

from fleet_server.sites.calendar import Calendar, builtin_calendar, load_calendar, local_day
from fleet_server.terminals.lock import IS_LOCKED

READ_WITHIN_S: Final = 2.0
"""A busy database is left alone after so long; what was read before is served on."""
ITEM_DAYS: Final = 90
LEAST_CASES: Final = 3
"""An item shows at a site once so many cases were finished: one person's case is nobody's business."""
NOT_FOR_CITIZENS: Final = ("callPadSet", "evaluator")
"""Terminals that stand before clerks."""
HIDDEN_TAG: Final = "internal"
"""A terminal with this tag is left out."""
MARK: Final = "watch"
_STEPS_PER_LOOK: Final = 20_000

T = TypeVar("T")


class TooSlow(Exception):
    """The database did not answer in time."""


@dataclass(frozen=True, slots=True)
class SlotRow:
    name: str
    family: str


@dataclass(frozen=True, slots=True)
class FaultRow:
    code: str
    severity: str
    slot: str | None


@dataclass(frozen=True, slots=True)
class DeviceRow:
    device: str
    paper: str
    toner: str
    cover: str
    limited: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalRow:
    site: str
    type: str
    slots: tuple[SlotRow, ...]
    created_ms: int
    enrolled_ms: int | None
    maintenance_until_ms: int | None
    locked: bool = False
    heard_ms: int | None
    presence: str | None
    presence_cause: str
    presence_ms: int
    faults: tuple[FaultRow, ...] = ()
    devices: Mapping[str, DeviceRow] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRow:
    code: str
    area: str
    name_zh: str
    name_en: str
    kind: str
    address_zh: str
    lat: float | None
    lon: float | None
    hours: str
    timezone: str
    phone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRow:
    code: str
    parent: str | None
    name_zh: str
    name_en: str
    sort: int

    def name(self, lang: str) -> str:
        return (self.name_zh if lang == "zh" else self.name_en) or self.name_zh or self.name_en or self.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What changes from second to second. `mark_ms`: when the ingest last said that it listens; None if none ever ran."""

    read_ms: int
    terminals: tuple[TerminalRow, ...]
    mark_ms: int | None
    gaps: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What people enter: sites, areas, holidays."""

    sites: tuple[SiteRow, ...]
    areas: Mapping[str, AreaRow]
    calendar: Calendar


NO_PLACES: Final = Places(sites=(), areas={}, calendar=builtin_calendar())
Items = Mapping[str, frozenset[str]]
"""Items finished lately, by site."""


@contextmanager
def within(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """All statements inside see one moment and together take at most `seconds`, else TooSlow."""
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), _STEPS_PER_LOOK)
    try:
        connection.execute("BEGIN")
        yield
    except sqlite3.OperationalError as err:
        if err.sqlite_errorname == "SQLITE_INTERRUPT":
            raise TooSlow(f"not read within {seconds:g} s") from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def read_live(connection: sqlite3.Connection, now_ms: int) -> Live:
    faults: defaultdict[str, list[FaultRow]] = defaultdict(list)
    for terminal, code, severity, slot in connection.execute(_FAULTS):
        faults[terminal].append(FaultRow(code, severity, slot))
    devices: defaultdict[str, dict[str, DeviceRow]] = defaultdict(dict)
    for terminal, slot, device, paper, toner, cover, limited in connection.execute(_DEVICES):
        devices[terminal][slot] = DeviceRow(device, paper, toner, cover, bool(limited))
    terminals = tuple(
        TerminalRow(
            site=row["site"],
            type=row["type"],
            slots=slots_of(row["inventory"]),
            created_ms=row["created_ms"],
            enrolled_ms=row["enrolled_ms"],
            maintenance_until_ms=row["maintenance_until_ms"],
            locked=bool(row["locked"]),
            heard_ms=max(row["last_seen_ms"] or 0, row["last_report_ms"] or 0) or None,
            presence=row["presence"],
            presence_cause=row["cause"] or "",
            presence_ms=row["presence_ms"] or 0,
            faults=tuple(faults.get(row["id"], ())),
            devices=devices.get(row["id"], {}),
        )
        for row in connection.execute(_TERMINALS)
        if row["type"] not in NOT_FOR_CITIZENS and not is_hidden(row["tags"])
    )
    mark = connection.execute("SELECT at_ms FROM watch_mark WHERE name = ?", (MARK,)).fetchone()
    gaps = connection.execute("SELECT from_ms, cause FROM platform_gap WHERE to_ms IS NULL").fetchall()
    return Live(
        read_ms=now_ms,
        terminals=terminals,
        mark_ms=None if mark is None else mark[0],
        gaps=tuple((row[0], row[1]) for row in gaps),
    )


def read_places(connection: sqlite3.Connection) -> Places:
    sites = tuple(
        SiteRow(**{name: row[name] for name in row.keys()})  # noqa: SIM118 - a sqlite3.Row iterates over its values
        for row in connection.execute(_SITES)
    )
    areas = {row["code"]: AreaRow(**{name: row[name] for name in row.keys()}) for row in connection.execute(_AREAS)}  # noqa: SIM118
    return Places(sites=sites, areas=areas, calendar=load_calendar(connection))


def read_items(connection: sqlite3.Connection, now_ms: int) -> Items:
    """Terminal by terminal over an index, so that no statement is long: years of cases lie beside the last 90 days."""
    since = local_day(now_ms - ITEM_DAYS * 86_400_000)
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    for terminal, site in connection.execute("SELECT id, site FROM terminal WHERE revoked_ms IS NULL AND site <> ''").fetchall():
        for item, cases in connection.execute(_ITEMS, (terminal, since)):
            counts[site, item] += cases
    found: defaultdict[str, set[str]] = defaultdict(set)
    for (site, item), cases in counts.items():
        if cases >= LEAST_CASES:
            found[site].add(item)
    return {site: frozenset(items) for site, items in found.items()}


@lru_cache(maxsize=8192)
def slots_of(inventory: str) -> tuple[SlotRow, ...]:
    """The places of an inventory; what is not understood is left out."""
    return tuple(
        SlotRow(str(item["slot"]), str(item.get("family") or item.get("kind") or ""))
        for item in _list(inventory)
        if isinstance(item, dict) and item.get("slot")
    )


@lru_cache(maxsize=8192)
def is_hidden(tags: str) -> bool:
    return HIDDEN_TAG in _list(tags)


def _list(text: str) -> list[object]:
    try:
        items = json.loads(text or "[]")
    except ValueError:
        return []
    return items if isinstance(items, list) else []


def look(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T], seconds: float = READ_WITHIN_S) -> T:
    """`work` at one moment, within the limit."""
    connection.row_factory = sqlite3.Row
    with within(connection, seconds):
        return work(connection)


_TERMINALS: Final = f"""
SELECT t.id, t.site, t.type, t.inventory, t.tags, t.created_ms, t.enrolled_ms, t.maintenance_until_ms, {IS_LOCKED} AS locked,
  l.last_seen_ms, l.last_report_ms,
  p.state AS presence, p.cause, p.from_ms AS presence_ms
FROM terminal t
LEFT JOIN terminal_live l ON l.terminal = t.id
LEFT JOIN presence p ON p.terminal = t.id AND p.to_ms IS NULL
WHERE t.revoked_ms IS NULL AND t.enrolled_ms IS NOT NULL AND t.site <> ''"""  # noqa: S608 - an expression of our own
_FAULTS: Final = "SELECT terminal, code, severity, slot FROM fault WHERE cleared_ms IS NULL AND disputed = 0"
_DEVICES: Final = "SELECT terminal, slot, device, paper, toner, cover, limited FROM device"
_SITES: Final = (
    "SELECT code, coalesce(area, '') AS area, name_zh, name_en, kind, coalesce(address_zh, '') AS address_zh, lat, lon, hours, timezone,"
    " coalesce(phone, '') AS phone FROM site"
)
_AREAS: Final = "SELECT code, parent, name_zh, name_en, coalesce(sort, 0) AS sort FROM area"
_ITEMS: Final = (
    "SELECT item, count(*) FROM session WHERE terminal = ? AND day >= ? AND outcome = 'success' AND disputed = 0 GROUP BY item"
)
