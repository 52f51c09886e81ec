"""Owns what operators may do with accounts. There is always an operator who can sign in, nobody shuts themself out, nothing happens without a name.

Passwords arrive as hashes. Works in the caller's transaction; every change ends the sessions that it makes wrong.
"""

from __future__ import annotations

import re
import sqlite3
from typing import Any, Final

from fleet_server.accounts.events import remember
from fleet_server.accounts.rules import ROLES
from fleet_server.errors import Conflict, NotFound, Refused

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])")
DISPLAY_MAX: Final = 40


def check_name(name: str) -> str:
    """A new account's name: short, lower case, the same in every script. Refused otherwise."""
    tidy = name.strip().casefold()
    if not _NAME.fullmatch(tidy):
        raise Refused("name", "accountName")
    return tidy


def add(
    conn: sqlite3.Connection, name: str, *, display: str, role: str, lang: str, password_hash: str, by: str, now_ms: int
) -> None:
    """A new account, whose first password must be changed. Conflict if the name is taken."""
    _check_role(role)
    if conn.execute("SELECT 1 FROM staff WHERE name = ? COLLATE NOCASE", (name,)).fetchone():
        raise Conflict("name", "accountTaken")
    conn.execute(
        "INSERT INTO staff (name, display, password_hash, role, failed, must_change, created_ms, lang) VALUES (?, ?, ?, ?, 0, 1, ?, ?)",
        (name, display, password_hash, role, now_ms, lang),
    )
    remember(conn, name, "add", by=by, now_ms=now_ms, detail=role)


def set_role(conn: sqlite3.Connection, name: str, role: str, *, by: str, now_ms: int) -> None:
    """Refused for the last operator. The person signs in again with the new rights."""
    _check_role(role)
    row = _row(conn, name)
    if row["role"] == role:
        return
    if role != "operator":
        _check_not_last(conn, name)
    conn.execute("UPDATE staff SET role = ? WHERE name = ?", (role, name))
    _sign_out(conn, name)
    remember(conn, name, "role", by=by, now_ms=now_ms, detail=role)


def disable(conn: sqlite3.Connection, name: str, *, by: str, now_ms: int) -> None:
    """Refused for oneself and for the last operator. Its name stays in every history."""
    if name == by:
        raise Refused("name", "accountSelf")
    if _row(conn, name)["disabled_ms"] is not None:
        return
    _check_not_last(conn, name)
    conn.execute("UPDATE staff SET disabled_ms = ? WHERE name = ?", (now_ms, name))
    _sign_out(conn, name)
    remember(conn, name, "disable", by=by, now_ms=now_ms)


def enable(conn: sqlite3.Connection, name: str, *, by: str, now_ms: int) -> None:
    if _row(conn, name)["disabled_ms"] is None:
        return
    conn.execute("UPDATE staff SET disabled_ms = NULL, failed = 0, locked_until_ms = NULL WHERE name = ?", (name,))
    remember(conn, name, "enable", by=by, now_ms=now_ms)


def unlock(conn: sqlite3.Connection, name: str, *, by: str, now_ms: int) -> None:
    """End a lock before its time."""
    if _row(conn, name)["locked_until_ms"] is None:
        return
    conn.execute("UPDATE staff SET failed = 0, locked_until_ms = NULL WHERE name = ?", (name,))
    remember(conn, name, "unlock", by=by, now_ms=now_ms)


def reset_password(conn: sqlite3.Connection, name: str, password_hash: str, *, by: str, now_ms: int) -> None:
    """Another first password. Refused for oneself: one's own is changed with the old one at hand."""
    if name == by:
        raise Refused("name", "accountSelfReset")
    _row(conn, name)
    conn.execute(
        "UPDATE staff SET password_hash = ?, must_change = 1, failed = 0, locked_until_ms = NULL WHERE name = ?",
        (password_hash, name),
    )
    _sign_out(conn, name)
    remember(conn, name, "reset", by=by, now_ms=now_ms)


def end_sessions(conn: sqlite3.Connection, name: str, *, by: str, now_ms: int) -> int:
    """Sign the account out everywhere; returns from how many browsers."""
    _row(conn, name)
    ended = _sign_out(conn, name)
    if ended:
        remember(conn, name, "signOut", by=by, now_ms=now_ms, detail=str(ended))
    return ended


def set_own(conn: sqlite3.Connection, name: str, *, display: str, lang: str, letters: bool, now_ms: int) -> None:
    """What a person sets for themself."""
    before = _row(conn, name)
    conn.execute("UPDATE staff SET display = ?, lang = ?, letters = ? WHERE name = ?", (display, lang, int(letters), name))
    if before["display"] != display:
        remember(conn, name, "display", by=name, now_ms=now_ms, detail=display)


def end_session(conn: sqlite3.Connection, name: str, token_hash: bytes) -> bool:
    """One of a person's own sessions."""
    return conn.execute("DELETE FROM login WHERE staff = ? AND token_hash = ?", (name, token_hash)).rowcount == 1


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise Refused("role", "accountRole")


def _check_not_last(conn: sqlite3.Connection, name: str) -> None:
    """An operator stays who can sign in; one that is locked for minutes can."""
    row = _row(conn, name)
    if row["role"] != "operator" or row["disabled_ms"] is not None:
        return
    others = conn.execute("SELECT 1 FROM staff WHERE role = 'operator' AND disabled_ms IS NULL AND name <> ? LIMIT 1", (name,))
    if others.fetchone() is None:
        raise Refused("role", "accountLast")


def _sign_out(conn: sqlite3.Connection, name: str) -> int:
    return conn.execute("DELETE FROM login WHERE staff = ?", (name,)).rowcount


def _row(conn: sqlite3.Connection, name: str) -> dict[str, Any]:
    columns = ("role", "disabled_ms", "locked_until_ms", "display")
    row = conn.execute(f"SELECT {', '.join(columns)} FROM staff WHERE name = ?", (name,)).fetchone()  # noqa: S608 - names from above
    if row is None:
        raise NotFound(f"account {name[:40]!r}")
    return dict(zip(columns, row, strict=True))
