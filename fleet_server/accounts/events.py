"""Owns who changed an account and when: `account_event`. Rows are added and read, never changed. In the caller's transaction."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from fleet_server import audit

SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountEvent:
    """One event; without `set_by` the server itself did it."""

    at_ms: int
    set_by: str
    staff: str
    kind: str
    detail: str


def remember(conn: sqlite3.Connection, staff: str, kind: str, *, by: str, now_ms: int, detail: str = "") -> None:
    conn.execute(
        "INSERT INTO account_event (at_ms, set_by, staff, kind, detail) VALUES (?, ?, ?, ?, ?)", (now_ms, by, staff, kind, detail)
    )
    told = {"detail": detail} if detail else None
    audit.write(conn, by or audit.SERVER, None, f"account.{kind}", f"account:{staff}", told, now_ms=now_ms)


def recent(conn: sqlite3.Connection, staff: str | None = None, limit: int = SHOWN) -> list[AccountEvent]:
    """Newest first; of one account, or of all."""
    rows = conn.execute(
        "SELECT at_ms, set_by, staff, kind, detail FROM account_event WHERE ?1 IS NULL OR staff = ?1 ORDER BY id DESC LIMIT ?2",
        (staff, limit),
    )
    return [AccountEvent(at_ms=row[0], set_by=row[1], staff=row[2], kind=row[3], detail=row[4]) for row in rows]
