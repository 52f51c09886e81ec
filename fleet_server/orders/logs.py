"""Excerpts of agents' logs that were asked for: taken once for each order, kept as the terminal signed them, removed when their time is over."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fleet_server import audit
from fleet_server.authority import files
from fleet_server.channel import transact
from fleet_server.errors import FleetServerError, NotFound
from fleet_server.orders import requests
from fleet_server.thresholds.rules import effective
from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.limits import LOG_MAX_BYTES, LOG_TEXT_MAX_BYTES
from protocols.contract.orders import LOG_CONTEXT, LogExcerpt, PullLogs
from protocols.errors import ProtocolError

ENVELOPE_MAX_BYTES: Final = LOG_MAX_BYTES + 1024
GZIP: Final = 31
"""zlib's window bits for gzip alone."""
PART_BYTES: Final = 256 * 1024
DAY_MS: Final = 86_400_000
STATUS: Final = {
    "notAuthentic": 403,
    "revoked": 403,
    "unknownOrder": 404,
    "done": 409,
    "tooLarge": 413,
    "tooMany": 429,
    "slow": 503,
}


class NotTaken(FleetServerError):
    """`reason` is the word that the terminal gets (docs/spec/orders.md, section 4)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.http_status = STATUS[reason]


@dataclass(frozen=True, slots=True)
class Taken:
    """An excerpt that may be kept."""

    terminal: str
    excerpt: LogExcerpt
    size: int
    sha256: bytes
    raw: bytes


@dataclass(frozen=True, slots=True)
class _Key:
    terminal: str
    public_key: bytes
    revoked: bool


def key_of(conn: sqlite3.Connection, kid: bytes) -> _Key | None:
    row = conn.execute(
        "SELECT k.terminal, k.public_key, k.revoked_ms IS NOT NULL OR t.revoked_ms IS NOT NULL FROM record_key k"
        " JOIN terminal t ON t.id = k.terminal WHERE k.kid = ?",
        (kid,),
    ).fetchone()
    return None if row is None else _Key(row[0], bytes(row[1]), bool(row[2]))


def examine(raw: bytes, key: _Key | None, peer: str, fleet: str) -> Taken:
    """Whether the terminal at the other end signed this. `key`: that of the envelope's key id. Unpacks it once, without keeping the text."""
    if len(raw) > ENVELOPE_MAX_BYTES:
        raise NotTaken("tooLarge", f"{peer}: {len(raw)} bytes")
    if key is None or key.terminal != peer:
        raise NotTaken("notAuthentic", f"{peer}: not signed by a record key of it")
    if key.revoked:
        raise NotTaken("revoked", f"{peer}: the key was revoked")
    try:
        envelope = cose.parse(raw, ENVELOPE_MAX_BYTES)
        opened = cose.verify(envelope, Ed25519PublicKey.from_public_bytes(key.public_key), LOG_CONTEXT, fleet, peer)
        excerpt = wire.read(opened.payload, LogExcerpt)
    except ProtocolError as err:
        raise NotTaken("notAuthentic", f"{peer}: {err}") from None
    digest, size = hashlib.sha256(), 0
    for part in unpack(excerpt.text):
        digest.update(part)
        size += len(part)
    return Taken(peer, excerpt, size, digest.digest(), raw)


def kid_of(raw: bytes) -> bytes | None:
    """The key id that an envelope names; None if it is no envelope."""
    try:
        return cose.parse(raw, ENVELOPE_MAX_BYTES).kid
    except ProtocolError:
        return None


def unpack(text: bytes) -> Iterator[bytes]:
    """The lines, in parts; NotTaken before more than the limit came out, or if it is not one whole gzip member."""
    unpacker, left, size = zlib.decompressobj(GZIP), text, 0
    try:
        while left and not unpacker.eof:
            part = unpacker.decompress(left, PART_BYTES)
            left = unpacker.unconsumed_tail
            size += len(part)
            if size > LOG_TEXT_MAX_BYTES:
                raise NotTaken("tooLarge", f"more than {LOG_TEXT_MAX_BYTES} bytes of text")
            yield part
    except zlib.error as err:
        raise NotTaken("notAuthentic", "the text cannot be unpacked") from err
    if not unpacker.eof or unpacker.unused_data:
        raise NotTaken("notAuthentic", "the text is not one whole gzip member")


def check_expected(conn: sqlite3.Connection, peer: str) -> None:
    """Whether anything may come from this terminal now, before a byte of it is read; NotTaken if not."""
    row = conn.execute("SELECT revoked_ms IS NOT NULL FROM terminal WHERE id = ?", (peer,)).fetchone()
    if row is None or row[0]:
        raise NotTaken("revoked", f"{peer} is not in the fleet")
    asked, missing = conn.execute(
        "SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (SELECT 1 FROM pulled_log p WHERE p.order_id = i.order_id))"
        " FROM order_item i WHERE i.terminal = ? AND i.kind = 'pullLogs' AND i.counter IS NOT NULL",
        (peer,),
    ).fetchone()
    if not asked:
        raise NotTaken("unknownOrder", f"{peer}: no log was asked for")
    if not missing:
        raise NotTaken("done", f"{peer}: every log that was asked for has come")


def check_asked(conn: sqlite3.Connection, taken: Taken) -> bytes:
    """The request that asked for it; NotTaken if nobody did, or if it came before."""
    excerpt = taken.excerpt
    row = conn.execute(
        "SELECT r.id, r.body FROM order_item i JOIN order_request r ON r.id = i.request"
        " WHERE i.order_id = ? AND i.terminal = ? AND i.kind = 'pullLogs' AND i.counter IS NOT NULL",
        (excerpt.order, taken.terminal),
    ).fetchone()
    if row is None:
        raise NotTaken("unknownOrder", f"{taken.terminal}: no log was asked for under this id")
    asked = requests.body_of("pullLogs", row[1])
    if not isinstance(asked, PullLogs) or excerpt.from_ms < asked.from_ms or excerpt.to_ms > asked.to_ms:
        raise NotTaken("unknownOrder", f"{taken.terminal}: another span was asked for")
    if conn.execute("SELECT 1 FROM pulled_log WHERE order_id = ?", (excerpt.order,)).fetchone() is not None:
        raise NotTaken("done", f"{taken.terminal}: it came before")
    return bytes(row[0])


def keep(conn: sqlite3.Connection, folder: Path, taken: Taken, now_ms: int) -> None:
    """Store it: first the file, then the row. A file without a row is removed by `tidy`."""
    request = check_asked(conn, taken)
    excerpt = taken.excerpt
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_private(file_of(folder, excerpt.order), taken.raw)
    conn.execute(
        "INSERT INTO pulled_log (terminal, order_id, from_ms, to_ms, lines, cut, size, sha256, received_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            taken.terminal,
            excerpt.order,
            excerpt.from_ms,
            excerpt.to_ms,
            excerpt.lines,
            int(excerpt.cut),
            taken.size,
            taken.sha256,
            now_ms,
        ),
    )
    requests.hint(conn, [taken.terminal], request, now_ms)


def text_of(folder: Path, order_id: bytes) -> Iterator[bytes]:
    """The lines of a kept excerpt, in parts. NotFound once it was removed."""
    try:
        raw = file_of(folder, order_id).read_bytes()
    except FileNotFoundError:
        raise NotFound("this log is not kept any more") from None
    return unpack(wire.read(cose.parse(raw, ENVELOPE_MAX_BYTES).payload, LogExcerpt).text)


def read(conn: sqlite3.Connection, order_id: bytes, *, by: str, now_ms: int) -> str:
    """Note that somebody reads it; returns the terminal. NotFound if it never came or was removed."""
    row = conn.execute("SELECT terminal FROM pulled_log WHERE order_id = ? AND removed_ms IS NULL", (order_id,)).fetchone()
    if row is None:
        raise NotFound("there is no such log")
    audit.write(conn, by, None, "log.read", f"terminal:{row[0]}", {"order": order_id.hex()}, now_ms=now_ms)
    return str(row[0])


def file_of(folder: Path, order_id: bytes) -> Path:
    return folder / f"{order_id.hex()}.cose"


@dataclass(frozen=True, slots=True)
class Tidy:
    """The duty that removes what is older than it may be kept, and what a kill left behind."""

    folder: Path

    def step(self, conn: sqlite3.Connection, now_ms: int) -> bool:
        kept_ms = int(effective(conn, "order.logs_keep_days").value) * DAY_MS
        old = conn.execute(
            "SELECT order_id FROM pulled_log WHERE removed_ms IS NULL AND received_ms <= ? LIMIT 100", (now_ms - kept_ms,)
        ).fetchall()
        for (order_id,) in old:
            file_of(self.folder, bytes(order_id)).unlink(missing_ok=True)
            transact(
                conn,
                lambda inside, order_id=order_id: inside.execute(  # type: ignore[misc]
                    "UPDATE pulled_log SET removed_ms = ? WHERE order_id = ?", (now_ms, order_id)
                ),
            )
        for file in self.folder.glob("*.cose"):
            with suppress(OSError, ValueError):
                is_old = now_ms - file.stat().st_mtime_ns // 1_000_000 > DAY_MS
                if is_old and not self._is_kept(conn, bytes.fromhex(file.stem)):
                    file.unlink()
        return len(old) == 100

    def _is_kept(self, conn: sqlite3.Connection, order_id: bytes) -> bool:
        row = conn.execute("SELECT 1 FROM pulled_log WHERE order_id = ? AND removed_ms IS NULL", (order_id,)).fetchone()
        return row is not None
