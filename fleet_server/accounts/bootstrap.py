"""The first account: without one nobody could sign in, and a fixed password would be everybody's."""

from __future__ import annotations

import sqlite3

from fleet_server.accounts.events import remember
from fleet_server.accounts.passwords import Passwords, new_password
from fleet_server.engine import FleetEngine

FIRST_OPERATOR = "operator"


async def ensure_first_operator(
    db: FleetEngine, passwords: Passwords, *, now_ms: int, password: str | None = None, must_change: bool = True, lang: str = "zh"
) -> tuple[str, str] | None:
    """(name, password) of a new operator account if there is no account at all, else None. Print it once; it is stored hashed only.

    `password` and `must_change` are for the demo, which prints a known account and asks for no change.
    """
    chosen = password or new_password()
    hashed = passwords.hash(chosen)

    def create(connection: sqlite3.Connection) -> bool:
        if connection.execute("SELECT 1 FROM staff LIMIT 1").fetchone():
            return False
        connection.execute(
            "INSERT INTO staff (name, display, password_hash, role, failed, locked_until_ms, must_change, created_ms, lang)"
            " VALUES (?, ?, ?, 'operator', 0, NULL, ?, ?, ?)",
            (FIRST_OPERATOR, "", hashed, int(must_change), now_ms, lang),
        )
        remember(connection, FIRST_OPERATOR, "add", by="", now_ms=now_ms, detail="operator")
        return True

    return (FIRST_OPERATOR, chosen) if await db.write(create) else None


async def add_account(
    db: FleetEngine,
    passwords: Passwords,
    *,
    name: str,
    role: str,
    password: str,
    now_ms: int,
    must_change: bool = True,
    lang: str = "zh",
) -> None:
    """Create an account; sqlite3.IntegrityError if the name is taken."""
    hashed = passwords.hash(password)
    await db.write(
        lambda connection: connection.execute(
            "INSERT INTO staff (name, display, password_hash, role, failed, locked_until_ms, must_change, created_ms, lang)"
            " VALUES (?, ?, ?, ?, 0, NULL, ?, ?, ?)",
            (name, "", hashed, role, int(must_change), now_ms, lang),
        )
    )
