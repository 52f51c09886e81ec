"""Owns the statements that bring presence to the database and back; each runs in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fleet_server.facts.work import mark_dirty
from fleet_server.presence.rules import GapCause, Verdict
from fleet_server.sites.calendar import local_day
from protocols.contract.messages import Birth

MARK = "watch"


@dataclass(slots=True)
class Gap:
    """A span in which the platform cannot hear: everybody, or the terminals that fell silent together."""

    from_ms: int
    cause: GapCause
    row: int | None = None
    affected: set[str] = field(default_factory=set)
    most: int = 0

    @property
    def is_whole(self) -> bool:
        return self.cause != "silence"


@dataclass(slots=True)
class Live:
    """What `terminal_live` will be told of one terminal."""

    connected: bool = False
    seen_ms: int | None = None
    seen_by: str | None = None
    report_ms: int | None = None
    beat: tuple[int | None, int | None] | None = None
    """Outbox depth and oldest record of the last heartbeat."""
    will_ms: int | None = None
    born_ms: int | None = None
    birth: Birth | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A terminal in service as the database has it."""

    terminal: str
    site: str
    owner_class: str
    enrolled_ms: int
    maintenance_until_ms: int
    hours: str
    zone: str
    seen_ms: int | None
    verdict: Verdict | None
    alarmed: bool


@dataclass(frozen=True, slots=True)
class Left:
    """What a predecessor left: until when it watched (None: there was none), and its gaps without an end."""

    mark_ms: int | None
    gaps: tuple[Gap, ...]


def read_terminals(conn: sqlite3.Connection) -> list[Stored]:
    return [
        Stored(
            terminal=row[0],
            site=row[1] or "",
            owner_class=row[2],
            enrolled_ms=row[3],
            maintenance_until_ms=row[4] or 0,
            hours=row[5] or "{}",
            zone=row[6] or "",
            seen_ms=row[7],
            verdict=None if row[8] is None else Verdict(row[8], row[9], row[10]),
            alarmed=bool(row[11]),
        )
        for row in conn.execute(_TERMINALS)
    ]


def read_left(conn: sqlite3.Connection) -> Left:
    mark = conn.execute("SELECT at_ms FROM watch_mark WHERE name = ?", (MARK,)).fetchone()
    gaps = conn.execute("SELECT from_ms, cause, id FROM platform_gap WHERE to_ms IS NULL ORDER BY from_ms").fetchall()
    return Left(None if mark is None else mark[0], tuple(Gap(*row) for row in gaps))


def write_mark(conn: sqlite3.Connection, now_ms: int) -> None:
    conn.execute(
        "INSERT INTO watch_mark (name, at_ms) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET at_ms = excluded.at_ms",
        (MARK, now_ms),
    )


def write_live(conn: sqlite3.Connection, news: Iterable[tuple[str, Live]]) -> None:
    conn.executemany(_UPSERT_LIVE, [_live_row(terminal, live) for terminal, live in news])


def _live_row(terminal: str, live: Live) -> dict[str, object]:
    birth, born_ms = live.birth, live.born_ms
    depth, oldest_ms = live.beat or (None, None)
    return {
        "terminal": terminal,
        "seen_ms": live.seen_ms,
        "seen_by": live.seen_by,
        "connected": int(live.connected),
        "report_ms": live.report_ms,
        "beat": int(live.beat is not None),
        "depth": depth,
        "oldest_ms": oldest_ms,
        "will_ms": live.will_ms,
        "birth_ms": born_ms,
        "agent": None if birth is None else birth.agent,
        "boot_no": None if birth is None else birth.boot_no,
        "boot_id": None if birth is None else birth.boot_id,
        "offset_ms": None if birth is None or born_ms is None else birth.wall_ms - born_ms,
        "quality": None if birth is None else birth.quality.value,
    }


def write_moves(conn: sqlite3.Connection, terminal: str, zone: str, moves: Sequence[Verdict], now_ms: int) -> None:
    """Close the open interval and open the next, for each move."""
    for verdict in moves:
        conn.execute(
            "UPDATE presence SET to_ms = max(from_ms, ?) WHERE terminal = ? AND to_ms IS NULL", (verdict.from_ms, terminal)
        )
        conn.execute(
            "INSERT INTO presence (terminal, from_ms, state, cause) VALUES (?, ?, ?, ?)",
            (terminal, verdict.from_ms, verdict.state, verdict.cause),
        )
    mark_dirty(conn, terminal, {local_day(verdict.from_ms, zone) for verdict in moves})
    conn.execute(
        "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'presence', ?)", (now_ms, terminal, moves[-1].state)
    )


def write_ended(conn: sqlite3.Connection, gap: Gap, to_ms: int, now_ms: int, *, blind_ms: int) -> None:
    """The end of a gap. One of the broker that was too short to blind anybody leaves no row."""
    until_ms = max(to_ms, gap.from_ms)
    if gap.row is not None:
        conn.execute("UPDATE platform_gap SET from_ms = ?, to_ms = ? WHERE id = ?", (gap.from_ms, until_ms, gap.row))
    elif gap.cause == "broker" and until_ms - gap.from_ms < blind_ms:
        return
    else:
        conn.execute("INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (?, ?, ?)", (gap.from_ms, until_ms, gap.cause))
    _hint_platform(conn, now_ms, gap.cause)


def write_lasting(conn: sqlite3.Connection, gap: Gap, now_ms: int, *, blind_ms: int) -> bool:
    """The beginning of a gap that lasts: at once if it concerns some, after `blind_ms` if everybody. True if its row is new."""
    if gap.row is not None or (gap.is_whole and now_ms - gap.from_ms < blind_ms):
        return False
    gap.row = conn.execute("INSERT INTO platform_gap (from_ms, cause) VALUES (?, ?)", (gap.from_ms, gap.cause)).lastrowid
    _hint_platform(conn, now_ms, gap.cause)
    return True


def mark_day(conn: sqlite3.Connection, day: str, terminals: Iterable[str]) -> None:
    conn.executemany("INSERT OR IGNORE INTO dirty_day (terminal, day) VALUES (?, ?)", [(terminal, day) for terminal in terminals])


def _hint_platform(conn: sqlite3.Connection, now_ms: int, cause: str) -> None:
    conn.execute("INSERT INTO change (at_ms, kind, ref) VALUES (?, 'platform', ?)", (now_ms, cause))


_TERMINALS = """
SELECT t.id, t.site, t.class, t.enrolled_ms, t.maintenance_until_ms, s.hours, s.timezone, l.last_seen_ms, p.state, p.cause, p.from_ms,
  EXISTS (SELECT 1 FROM fault f WHERE f.terminal = t.id AND f.cleared_ms IS NULL AND f.source = 'platform' AND f.code = 'NET.OFFLINE')
FROM terminal t
LEFT JOIN site s ON s.code = t.site
LEFT JOIN terminal_live l ON l.terminal = t.id
LEFT JOIN presence p ON p.terminal = t.id AND p.to_ms IS NULL
WHERE t.enrolled_ms IS NOT NULL AND t.revoked_ms IS NULL
"""

_UPSERT_LIVE = """
INSERT INTO terminal_live (terminal, last_seen_ms, seen_by, connected, last_report_ms, agent_version, boot_no, boot_id, outbox_depth,
  outbox_oldest_ms, clock_offset_ms, clock_quality, birth_ms, will_ms)
VALUES (:terminal, :seen_ms, :seen_by, :connected, :report_ms, :agent, :boot_no, :boot_id, :depth, :oldest_ms, :offset_ms, :quality,
  :birth_ms, :will_ms)
ON CONFLICT (terminal) DO UPDATE SET
  last_seen_ms = coalesce(excluded.last_seen_ms, last_seen_ms),
  seen_by = coalesce(excluded.seen_by, seen_by),
  connected = excluded.connected,
  last_report_ms = coalesce(excluded.last_report_ms, last_report_ms),
  agent_version = coalesce(excluded.agent_version, agent_version),
  boot_no = coalesce(excluded.boot_no, boot_no),
  boot_id = coalesce(excluded.boot_id, boot_id),
  outbox_depth = CASE WHEN :beat THEN excluded.outbox_depth ELSE outbox_depth END,
  outbox_oldest_ms = CASE WHEN :beat THEN excluded.outbox_oldest_ms ELSE outbox_oldest_ms END,
  clock_offset_ms = coalesce(excluded.clock_offset_ms, clock_offset_ms),
  clock_quality = coalesce(excluded.clock_quality, clock_quality),
  birth_ms = coalesce(excluded.birth_ms, birth_ms),
  will_ms = coalesce(excluded.will_ms, will_ms)
"""
