"""Rows of `wallboard`. The token never reaches the database, only its hash."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from fleet_server import audit
from fleet_server.accounts.passwords import new_token, token_hash
from fleet_server.engine import FleetEngine
from fleet_server.errors import Conflict, NotFound
from fleet_server.wallboards.rules import DAY_MS, MAX_BOARDS, SEEN_EVERY_MS, Board, Look, board_of

TOKEN_MAX: Final = 128


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh token, to be shown once."""

    id: int
    token: str

    def __repr__(self) -> str:
        return f"Issued({self.id})"


async def boards(db: FleetEngine) -> list[Board]:
    """Living ones first, the newest on top."""
    rows = await db.read("SELECT * FROM wallboard ORDER BY revoked_ms IS NOT NULL, created_ms DESC, id DESC")
    return [board_of(row) for row in rows]


async def find(db: FleetEngine, token: str, *, now_ms: int) -> Board | None:
    """The screen of a token that still holds. Notes that it was seen, at most once a minute."""
    if not token or len(token) > TOKEN_MAX:
        return None
    rows = await db.read("SELECT * FROM wallboard WHERE token_hash = ?", (token_hash(token),))
    if not rows:
        return None
    board = board_of(rows[0])
    if board.standing(now_ms) != "live":
        return None
    if board.seen_ms is None or now_ms - board.seen_ms >= SEEN_EVERY_MS:
        await db.write(lambda connection: connection.execute("UPDATE wallboard SET seen_ms = ? WHERE id = ?", (now_ms, board.id)))
    return board


def create(connection: sqlite3.Connection, look: Look, days: int, by: str, now_ms: int) -> Issued:
    """A screen with a new token. Conflict if there are as many living ones as anybody needs."""
    living = connection.execute(
        "SELECT count(*) AS n FROM wallboard WHERE revoked_ms IS NULL AND expires_ms > ?", (now_ms,)
    ).fetchone()
    if living["n"] >= MAX_BOARDS:
        raise Conflict("name", "wallTooMany")
    token = new_token()
    done = connection.execute(
        "INSERT INTO wallboard (name, token_hash, lang, views, interval_s, created_ms, created_by, expires_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (look.name, token_hash(token), look.lang, ",".join(look.views), look.interval_s, now_ms, by, now_ms + days * DAY_MS),
    )
    number = int(done.lastrowid or 0)
    audit.write(connection, by, None, "wallboard.add", f"wallboard:{number}", {"name": look.name}, now_ms=now_ms)
    return Issued(number, token)


def change(connection: sqlite3.Connection, board: int, look: Look, by: str, now_ms: int) -> None:
    done = connection.execute(
        "UPDATE wallboard SET name = ?, lang = ?, views = ?, interval_s = ?, changed_ms = ?, changed_by = ?"
        " WHERE id = ? AND revoked_ms IS NULL",
        (look.name, look.lang, ",".join(look.views), look.interval_s, now_ms, by, board),
    )
    if done.rowcount != 1:
        raise NotFound(f"living wallboard {board}")
    audit.write(connection, by, None, "wallboard.set", f"wallboard:{board}", {"name": look.name}, now_ms=now_ms)


def revoke(connection: sqlite3.Connection, board: int, by: str, now_ms: int) -> None:
    """Its token opens nothing from now on; open screens are told within seconds."""
    done = connection.execute(
        "UPDATE wallboard SET revoked_ms = ?, revoked_by = ? WHERE id = ? AND revoked_ms IS NULL", (now_ms, by, board)
    )
    if done.rowcount != 1:
        raise NotFound(f"living wallboard {board}")
    audit.write(connection, by, None, "wallboard.end", f"wallboard:{board}", now_ms=now_ms)
