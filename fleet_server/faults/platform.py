"""Owns the alarms that the server itself concludes: silence, a copied identity, a signature that does not hold. Stored and labelled as such."""

from __future__ import annotations

import secrets
import sqlite3

from protocols.canon.faults import fault


def open_platform_fault(
    conn: sqlite3.Connection, terminal: str, code: str, now_ms: int, *, since_ms: int | None = None
) -> str | None:
    """Open the alarm unless it is open already; returns the new fault's id, None if there was one. Runs in the caller's transaction."""
    kind = fault(code)
    if _open_id(conn, terminal, code) is not None:
        return None
    key = f"{terminal}:{secrets.token_hex(8)}"
    conn.execute(
        "INSERT INTO fault (id, terminal, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 'platform', 0)",
        (key, terminal, code, kind.severity.value, int(kind.family == "NET"), now_ms, now_ms if since_ms is None else since_ms),
    )
    _tell(conn, terminal, key, "open", now_ms, kind.severity.value)
    return key


def clear_platform_fault(conn: sqlite3.Connection, terminal: str, code: str, now_ms: int) -> bool:
    """Clear the alarm; False if it was not open. Runs in the caller's transaction."""
    key = _open_id(conn, terminal, code)
    if key is None:
        return False
    conn.execute("UPDATE fault SET cleared_ms = ?, cleared_by = 'platform' WHERE id = ?", (now_ms, key))
    _tell(conn, terminal, key, "clear", now_ms, None)
    return True


def retire_faults(conn: sqlite3.Connection, terminal: str, now_ms: int) -> int:
    """Close everything that is open when a terminal leaves service; returns how many."""
    keys = [row[0] for row in conn.execute("SELECT id FROM fault WHERE terminal = ? AND cleared_ms IS NULL", (terminal,))]
    for key in keys:
        conn.execute("UPDATE fault SET cleared_ms = ?, cleared_by = 'retired' WHERE id = ?", (now_ms, key))
        _tell(conn, terminal, key, "clear", now_ms, None)
    return len(keys)


def _open_id(conn: sqlite3.Connection, terminal: str, code: str) -> str | None:
    row = conn.execute(
        "SELECT id FROM fault WHERE terminal = ? AND code = ? AND source = 'platform' AND cleared_ms IS NULL", (terminal, code)
    ).fetchone()
    return None if row is None else str(row[0])


def _tell(conn: sqlite3.Connection, terminal: str, key: str, kind: str, at_ms: int, text: str | None) -> None:
    conn.execute("INSERT INTO fault_event (fault, at_ms, kind, text) VALUES (?, ?, ?, ?)", (key, at_ms, kind, text))
    conn.execute("INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'fault', ?)", (at_ms, terminal, key))
