"""Reads for the figures pages: names of places, and what the rows behind a figure are in words."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

import msgspec

from fleet_server.errors import NotFound, Refused
from fleet_server.figures.behind import behind, is_weighed, number_of
from fleet_server.figures.board import Board
from fleet_server.figures.figure import Behind, Figure, Part
from fleet_server.figures.question import Question
from fleet_server.figures.snapshots import compute
from fleet_server.sites.calendar import DEFAULT_ZONE, day_span_ms

EXPORT_ROWS: Final = 200_000
"""A file with more opens slowly and is read by nobody; the scope can be narrowed."""


# Places ---------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AreaName:
    code: str
    depth: int
    zh: str
    en: str


@dataclass(frozen=True, slots=True)
class Places:
    """What can be chosen, and the names of everything by `kind:code`."""

    areas: tuple[AreaName, ...]
    sites: tuple[tuple[str, str, str, str], ...]
    """(code, area, zh, en)."""
    types: tuple[str, ...]
    owners: tuple[str, ...]

    def within(self, area: str | None) -> list[tuple[str, str, str]]:
        """Sites of an area with everything below it, (code, zh, en); all of them without one."""
        codes = set(self._below(area)) if area else None
        return [(code, zh, en) for code, of, zh, en in self.sites if codes is None or of in codes]

    def _below(self, area: str) -> list[str]:
        found: list[str] = []
        depth = -1
        for one in self.areas:
            if found and one.depth <= depth:
                break
            if one.code == area or found:
                depth = one.depth if not found else depth
                found.append(one.code)
        return found or [area]

    def names(self, lang: str) -> dict[str, str]:
        named = {f"area:{one.code}": _either(one.zh, one.en, one.code, lang) for one in self.areas}
        return named | {f"site:{code}": _either(zh, en, code, lang) for code, _, zh, en in self.sites}


def _either(zh: str, en: str, code: str, lang: str) -> str:
    return (zh if lang == "zh" else en) or zh or en or code


def load_places(conn: sqlite3.Connection) -> Places:
    areas = conn.execute(_AREAS).fetchall()
    return Places(
        areas=tuple(AreaName(row[0], row[1], row[2], row[3]) for row in areas),
        sites=tuple(
            (row[0], row[1], row[2], row[3])
            for row in conn.execute("SELECT code, area, name_zh, name_en FROM site ORDER BY code")
        ),
        types=tuple(row[0] for row in conn.execute("SELECT DISTINCT type FROM terminal ORDER BY type")),
        owners=tuple(row[0] for row in conn.execute("SELECT DISTINCT class FROM terminal ORDER BY class")),
    )


_AREAS = """
WITH RECURSIVE tree (code, depth, path) AS (
  SELECT code, 0, printf('%08d', sort) || code FROM area WHERE parent IS NULL OR parent NOT IN (SELECT code FROM area)
  UNION ALL
  SELECT a.code, t.depth + 1, t.path || '/' || printf('%08d', a.sort) || a.code FROM area a JOIN tree t ON a.parent = t.code WHERE t.depth < 9
)
SELECT t.code, t.depth, a.name_zh, a.name_en FROM tree t JOIN area a ON a.code = t.code ORDER BY t.path
"""


# Behind a figure ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """One row of what makes a figure, with its details by name; `proof` is the address of its signed evidence, empty where there is none."""

    behind: Behind
    terminal: str
    name_zh: str
    name_en: str
    site_zh: str
    site_en: str
    zone: str
    proof: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A figure and one page of the rows of one part of it, all of one moment."""

    figure: Figure
    part: Part
    number: int
    """What the rows add up to."""
    count: int
    rows: tuple[Row, ...]
    is_weighed: bool


def list_behind(
    conn: sqlite3.Connection, question: Question, name: str, key: str, part: Part, *, skip: int, limit: int, now_ms: int
) -> Listed:
    """The figure and its rows from `skip` on. NotFound for a part that it does not have."""
    board = Board(conn, question, now_ms)
    figure = compute(board, name, key)
    number = number_of(figure, part)
    weighed = is_weighed(name, part)
    rows = behind(conn, board, figure, part)
    if weighed:
        # Terminals, days or spans: few enough to be counted.
        everything = list(rows)
        count, chosen = len(everything), everything[skip : skip + limit]
    else:
        count, chosen = number, list(islice(rows, skip, skip + limit))
    return Listed(figure=figure, part=part, number=number, count=count, rows=tuple(describe(conn, chosen)), is_weighed=weighed)


def export_behind(conn: sqlite3.Connection, question: Question, name: str, key: str, part: Part, *, now_ms: int) -> Listed:
    """All rows. Refused if they are too many for a file."""
    found = list_behind(conn, question, name, key, part, skip=0, limit=EXPORT_ROWS + 1, now_ms=now_ms)
    if len(found.rows) > EXPORT_ROWS:
        raise Refused("rows", "tooManyRows")
    return found


def describe(conn: sqlite3.Connection, rows: Sequence[Behind]) -> Iterable[Row]:
    """Rows with names and details: one statement for each kind of row."""
    terminals = _by_text(conn, _TERMINALS, {one.terminal for one in rows})
    told = {kind: load(conn, [one for one in rows if one.kind == kind]) for kind, load in _DETAILS.items()}
    for one in rows:
        names = terminals.get(one.terminal) or {}
        details = told.get(one.kind, {}).get(one.id, {})
        yield Row(
            one,
            names.get("code") or one.terminal,
            names.get("name_zh", ""),
            names.get("name_en", ""),
            names.get("site_zh") or "",
            names.get("site_en") or "",
            names.get("timezone") or DEFAULT_ZONE,
            _proof(one, details),
            details,
        )


def _proof(one: Behind, details: dict[str, Any]) -> str:
    if one.kind == "fault" and details:
        return f"/evidence/{details['batch']}/{details['idx']}" if details.get("batch") else f"/evidence/fault/{one.id}"
    return f"/evidence/{details['batch']}/{details['idx']}" if details.get("batch") else ""


def _by_id(statement: str) -> Callable[[sqlite3.Connection, Sequence[Behind]], dict[str, dict[str, Any]]]:
    def load(conn: sqlite3.Connection, rows: Sequence[Behind]) -> dict[str, dict[str, Any]]:
        if not rows:
            return {}
        cursor = conn.execute(statement, (msgspec.json.encode([int(one.id) for one in rows]).decode(),))
        names = [column[0] for column in cursor.description]
        return {str(row[0]): dict(zip(names, row, strict=True)) for row in cursor}

    return load


def _faults(conn: sqlite3.Connection, rows: Sequence[Behind]) -> dict[str, dict[str, Any]]:
    return _by_text(conn, _FAULTS, {one.id for one in rows})


def _by_text(conn: sqlite3.Connection, statement: str, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    cursor = conn.execute(statement, (msgspec.json.encode(sorted(ids)).decode(),))
    names = [column[0] for column in cursor.description]
    return {str(row[0]): dict(zip(names, row, strict=True)) for row in cursor}


_SESSIONS = """
SELECT s.id, s.item, s.outcome, s.cause, s.channel, s.duration_ms, s.batch, s.idx FROM json_each(?) t CROSS JOIN session s WHERE s.id = t.value
"""
_RATINGS = "SELECT r.id, r.slot, r.level, r.channel, r.batch, r.idx FROM json_each(?) t CROSS JOIN rating r WHERE r.id = t.value"
_QUEUE = "SELECT q.id, q.slot, q.action, q.batch, q.idx FROM json_each(?) t CROSS JOIN queue_event q WHERE q.id = t.value"
_PRESENCE = "SELECT p.id, p.from_ms, p.to_ms, p.state, p.cause FROM json_each(?) t CROSS JOIN presence p WHERE p.id = t.value"
_FAULTS = """
SELECT f.id, f.slot, f.code, f.severity, f.since_ms, f.cleared_ms, f.open_batch AS batch, f.open_idx AS idx, f.clear_batch, f.clear_idx
FROM json_each(?) t CROSS JOIN fault f WHERE f.id = t.value
"""
_TERMINALS = """
SELECT m.id, m.code, m.name_zh, m.name_en, s.name_zh AS site_zh, s.name_en AS site_en, s.timezone
FROM json_each(?) t CROSS JOIN terminal m LEFT JOIN site s ON s.code = m.site WHERE m.id = t.value
"""
_DETAILS: Final[dict[str, Callable[[sqlite3.Connection, Sequence[Behind]], dict[str, dict[str, Any]]]]] = {
    "session": _by_id(_SESSIONS),
    "rating": _by_id(_RATINGS),
    "queueEvent": _by_id(_QUEUE),
    "presence": _by_id(_PRESENCE),
    "fault": _faults,
}


# One terminal's day ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DayTold:
    """What one terminal's day is made of: its own signed summaries, and how the server saw it."""

    terminal: dict[str, Any]
    sums: dict[str, Any]
    summaries: tuple[dict[str, Any], ...]
    presence: tuple[dict[str, Any], ...]


def terminal_day(conn: sqlite3.Connection, terminal: str, day: str) -> DayTold:
    """NotFound for a terminal or a day that is none."""
    found = _by_text(conn, _TERMINALS, [terminal]).get(terminal)
    if found is None:
        raise NotFound(f"terminal {terminal[:40]!r}")
    start_ms, end_ms = day_span_ms(day, found["timezone"] or DEFAULT_ZONE)
    parameters = {"terminal": terminal, "day": day, "start": start_ms, "end": end_ms}
    sums = _dicts(conn, "SELECT * FROM terminal_day WHERE terminal = :terminal AND day = :day", parameters)
    return DayTold(
        terminal=found,
        sums=sums[0] if sums else {},
        summaries=tuple(_dicts(conn, _SUMMARIES, parameters)),
        presence=tuple(_dicts(conn, _PRESENCE_OF_DAY, parameters)),
    )


def _dicts(conn: sqlite3.Connection, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    cursor = conn.execute(statement, parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


_SUMMARIES = """
SELECT from_ms, to_ms, observed_s, usable_s, partial_s, unusable_s, batch, idx FROM serviceability
WHERE terminal = :terminal AND from_ms < :end AND from_ms >= :start - 172800000 AND to_ms > :start AND disputed = 0 ORDER BY from_ms, batch, idx
"""
_PRESENCE_OF_DAY = """
SELECT from_ms, to_ms, state, cause FROM presence WHERE terminal = :terminal AND from_ms < :end
  AND from_ms >= coalesce((SELECT max(from_ms) FROM presence WHERE terminal = :terminal AND from_ms < :start), :start)
ORDER BY from_ms, id
"""
