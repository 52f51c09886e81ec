"""Owns the order keys: private halves as files in the dispatch folder, certificates in the database, from where challenges take them.

A key signs from the moment its row is committed; the file is written before. Whoever has one can order anything, so there is no copy in any backup.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fleet_server import audit
from fleet_server.authority import files
from fleet_server.authority.authority import Authority, Ed25519Signer
from fleet_server.authority.files import AuthorityError
from fleet_server.errors import NotFound
from fleet_server.orders import wanted
from protocols.contract.limits import ORDER_KEYS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderKey:
    """A row of `order_key`."""

    kid: bytes
    certificate: bytes
    created_ms: int
    retired_ms: int | None
    withdrawn_ms: int | None

    @property
    def state(self) -> str:
        if self.withdrawn_ms is not None:
            return "withdrawn"
        return "valid" if self.retired_ms is not None else "in use"


def all_keys(conn: sqlite3.Connection) -> list[OrderKey]:
    """Newest first."""
    rows = conn.execute(
        "SELECT kid, certificate, created_ms, retired_ms, withdrawn_ms FROM order_key ORDER BY created_ms DESC, kid"
    )
    return [
        OrderKey(kid=bytes(row[0]), certificate=bytes(row[1]), created_ms=row[2], retired_ms=row[3], withdrawn_ms=row[4])
        for row in rows
    ]


def valid_certificates(conn: sqlite3.Connection) -> tuple[bytes, ...]:
    """What a challenge lists."""
    return tuple(key.certificate for key in all_keys(conn) if key.withdrawn_ms is None)[:ORDER_KEYS_MAX]


def current(conn: sqlite3.Connection) -> bytes | None:
    """Id of the key that signs now."""
    row = conn.execute(
        "SELECT kid FROM order_key WHERE retired_ms IS NULL AND withdrawn_ms IS NULL ORDER BY created_ms DESC LIMIT 1"
    ).fetchone()
    return None if row is None else bytes(row[0])


def signer(folder: Path, kid: bytes) -> Ed25519Signer:
    """AuthorityError if the file is not there, others may read it, or it is another key."""
    found = Ed25519Signer(files.read_ed25519(_file(folder, kid)))
    if found.kid != kid:
        raise AuthorityError(f"{_file(folder, kid)} is not the key of its name")
    return found


def has_signer(folder: Path, kid: bytes | None) -> bool:
    return kid is not None and _file(folder, kid).exists()


def ensure(conn: sqlite3.Connection, authority: Authority, folder: Path, *, now_ms: int) -> bytes | None:
    """Make the first key, or another one where the file of the current one is missing (a restore on a new machine); returns the id of a new one.

    A key whose file is gone may be in anybody's hands: it is withdrawn. RootOffline if a key is needed and the root's is not there.
    """
    kid = current(conn)
    if has_signer(folder, kid):
        return None
    made = rotate(conn, authority, folder, by=audit.SERVER, now_ms=now_ms)
    for key in all_keys(conn):
        if key.kid != made and key.withdrawn_ms is None and not has_signer(folder, key.kid):
            withdraw(conn, folder, key.kid, by=audit.SERVER, now_ms=now_ms)
    return made


def rotate(conn: sqlite3.Connection, authority: Authority, folder: Path, *, by: str, now_ms: int) -> bytes:
    """Make a key, have the root certify it, use it from the commit on; returns its id. What earlier keys signed goes on to count.

    Of the earlier ones as many stay valid as a challenge can list; the oldest beyond that are withdrawn.
    """
    key = Ed25519PrivateKey.generate()
    made = Ed25519Signer(key)
    certificate = authority.certify_order_key(made.public_key, now_ms=now_ms)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_private(_file(folder, made.kid), files.private_pem(key))
    # Two made within a millisecond still have an order.
    newest = conn.execute("SELECT coalesce(max(created_ms), 0) FROM order_key").fetchone()[0]
    conn.execute("UPDATE order_key SET retired_ms = ? WHERE retired_ms IS NULL", (now_ms,))
    conn.execute(
        "INSERT INTO order_key (kid, certificate, created_ms) VALUES (?, ?, ?)", (made.kid, certificate, max(now_ms, newest + 1))
    )
    audit.write(conn, by, None, "orderKey.rotate", f"orderKey:{made.kid.hex()}", now_ms=now_ms)
    for old in [old for old in all_keys(conn) if old.withdrawn_ms is None][ORDER_KEYS_MAX:]:
        withdraw(conn, folder, old.kid, by=by, now_ms=now_ms)
    return made.kid


def withdraw(conn: sqlite3.Connection, folder: Path, kid: bytes, *, by: str, now_ms: int) -> None:
    """Have no terminal believe this key any more. What it signed and no terminal has told of yet is signed again by the key in use. NotFound."""
    done = conn.execute(
        "UPDATE order_key SET withdrawn_ms = ?, withdrawn_by = ?, retired_ms = coalesce(retired_ms, ?) WHERE kid = ? AND withdrawn_ms IS NULL",
        (now_ms, by, now_ms, kid),
    )
    if done.rowcount != 1:
        raise NotFound(f"order key {kid.hex()}, or it was withdrawn before")
    conn.execute(
        "UPDATE order_item SET state = 'ready', reason = '', envelope = NULL WHERE kid = ? AND state = 'sent' AND order_id IS NOT NULL",
        (kid,),
    )
    rows = conn.execute(
        "SELECT d.terminal FROM desired_state d WHERE d.kid = ? AND d.counter ="
        " (SELECT max(n.counter) FROM desired_state n WHERE n.terminal = d.terminal)",
        (kid,),
    ).fetchall()
    for (terminal,) in rows:
        wanted.touch(conn, terminal)
    audit.write(conn, by, None, "orderKey.withdraw", f"orderKey:{kid.hex()}", now_ms=now_ms)
    _file(folder, kid).unlink(missing_ok=True)


def _file(folder: Path, kid: bytes) -> Path:
    return folder / f"{kid.hex()}.key"
