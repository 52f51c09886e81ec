"""Owns who changed areas, sites and the calendar, and when: `setting_event`. Rows are added and read, never changed. In the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fleet_server.audit import write

SHOWN: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """One change. `detail` depends on the kind; of an edit it maps each field to what it was and what it became."""

    at_ms: int
    set_by: str
    kind: str
    subject: str
    detail: Mapping[str, Any]


def remember(conn: sqlite3.Connection, subject: str, kind: str, detail: Mapping[str, Any], *, by: str, now_ms: int) -> None:
    """Write down a change and tell open pages, which read everything again."""
    conn.execute(
        "INSERT INTO setting_event (at_ms, set_by, kind, subject, detail) VALUES (?, ?, ?, ?, ?)",
        (now_ms, by, kind, subject, json.dumps(detail, ensure_ascii=False)),
    )
    write(conn, by, None, kind, subject, detail, now_ms=now_ms)
    conn.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, NULL, 'setting', ?)", (now_ms, subject))


def recent(conn: sqlite3.Connection, like: str, limit: int = SHOWN) -> list[Changed]:
    """Newest first. `like` is a subject, or a GLOB pattern such as `calendar:*`."""
    rows = conn.execute(
        "SELECT at_ms, set_by, kind, subject, detail FROM setting_event WHERE subject GLOB ? ORDER BY id DESC LIMIT ?",
        (like, limit),
    )
    return [Changed(at_ms=row[0], set_by=row[1], kind=row[2], subject=row[3], detail=json.loads(row[4])) for row in rows]


def literal(subject: str) -> str:
    """`subject` as a pattern that fits nothing else."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in subject)
