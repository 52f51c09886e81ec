"""Writes and reads the audit log. In the caller's transaction, which must be IMMEDIATE: the row and what it tells of are committed together."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from fleet_server.audit.chain import FIRST_PREV, Row, row_hash

Result = Literal["done", "refused", "failed"]
COLUMNS: Final = "id, at_ms, actor, role, action, object, detail, result, prev, hash"
SERVER: Final = "server"


def write(
    conn: sqlite3.Connection,
    actor: str,
    role: str | None,
    action: str,
    object: str,  # noqa: A002 -- the column's name
    detail: Mapping[str, Any] | None = None,
    result: Result = "done",
    now_ms: int = 0,
) -> int:
    """Append one row; returns its number.

    `actor`: an account's name, `cli:<user>`, `server`, or empty for a stranger. `role` None: the account's role now. `object`: `kind:name`.
    """
    last_id, prev = last(conn)
    row_id = last_id + 1
    text = json.dumps(detail or {}, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    told_role = role_of(conn, actor) if role is None else role
    digest = row_hash(row_id, now_ms, (actor, told_role, action, object, text, result), prev)
    conn.execute(
        f"INSERT INTO audit ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - columns from above
        (row_id, now_ms, actor, told_role, action, object, text, result, prev, digest),
    )
    return row_id


def last(conn: sqlite3.Connection) -> tuple[int, bytes]:
    """(number, hash) of the newest row; of an empty log, (0, zeros)."""
    row = conn.execute("SELECT id, hash FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    # Something is always kept: a cut leaves the newest row.
    return (row[0], bytes(row[1])) if row is not None else (0, FIRST_PREV)


def role_of(conn: sqlite3.Connection, actor: str) -> str:
    """The role of an account; the word before the colon for others, such as `cli`."""
    row = conn.execute("SELECT role FROM staff WHERE name = ?", (actor,)).fetchone()
    return str(row[0]) if row is not None else actor.partition(":")[0]


def rows(conn: sqlite3.Connection, after: int = 0) -> Iterator[Row]:
    """All rows behind number `after`, oldest first."""
    for row in conn.execute(f"SELECT {COLUMNS} FROM audit WHERE id > ? ORDER BY id", (after,)):  # noqa: S608 - columns from above
        yield as_row(row)


def as_row(row: Any) -> Row:
    """Of COLUMNS, by position."""
    return Row(
        id=row[0],
        at_ms=row[1],
        actor=row[2],
        role=row[3],
        action=row[4],
        object=row[5],
        detail=row[6],
        result=row[7],
        prev=bytes(row[8]),
        hash=bytes(row[9]),
    )
