"""Owns how a run of the agent takes over its state directory: one agent at a time, the right record key, and a spool that can be read.

A spool that SQLite calls damaged is set aside, never deleted, and the loss is told in a record of its own.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_agent import files, identity
from edge_agent.clock import Clock
from edge_agent.errors import AgentError, KeyRefused
from edge_agent.identity import Identity
from edge_agent.outbox import Outbox, OutboxError, OutboxLimits
from edge_agent.signing import KeyStore
from protocols.contract.certs import open_record_key_cert
from protocols.errors import ProtocolError

log = logging.getLogger(__name__)

SPOOL_FILE = "outbox.db"
LOCK_FILE = "agent.lock"


class AlreadyRunning(AgentError):
    """Another agent works in this state directory."""


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the state directory. AlreadyRunning if somebody else does; the lock ends with the process, however it ends."""
    files.make_private_directory(state_dir)
    handle = os.open(state_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another agent is running in {state_dir}") from None
        yield
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class Spool:
    outbox: Outbox
    lost: bool
    """An earlier spool could not be read and was set aside."""


def open_spool(
    state_dir: Path, keys: KeyStore, who: Identity, clock: Clock, *, limits: OutboxLimits | None = None, durable: bool = True
) -> Spool:
    """Raises KeyRefused if the spool continues under a key that is not here, OutboxError if it cannot be opened now."""
    path = state_dir / SPOOL_FILE
    _settle_key(keys, Outbox.key_in_use(path))
    try:
        return Spool(_open(path, keys, who, clock, limits, durable), lost=False)
    except OutboxError as err:
        if not _is_damage(err):
            raise
    log.error("the spool is damaged and is set aside", extra={"path": str(path)})
    _set_aside(path, clock.wall_ms())
    return Spool(_open(path, keys, who, clock, limits, durable), lost=True)


def _open(path: Path, keys: KeyStore, who: Identity, clock: Clock, limits: OutboxLimits | None, durable: bool) -> Outbox:
    return Outbox(path, keys.record_key(), who.fleet, who.terminal, clock, limits=limits, durable=durable)


def _settle_key(keys: KeyStore, used: bytes | None) -> None:
    """A rotation that was cut off between the spool's last word under the old key and the exchange of the files is finished here."""
    if used is None or used == keys.record_key().kid:
        return
    if keys.has_next_record_key() and keys.next_record_key().kid == used:
        keys.promote_next_record_key()
        return
    raise KeyRefused("the spool continues under another record key; restore that key, or move the spool away and enrol again")


def _is_damage(err: OutboxError) -> bool:
    cause = err.__cause__
    code = getattr(cause, "sqlite_errorcode", None)
    return isinstance(cause, sqlite3.DatabaseError) and code is not None and code & 0xFF in _DAMAGE


_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
"""What SQLite says of a file that is no (more a) database. A full or failing disk says something else and is waited out."""


def _set_aside(path: Path, wall_ms: int) -> None:
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(part.with_name(f"{part.name}.damaged-{wall_ms}"))
    files.sync_directory(path.parent)


def finish_rotation(outbox: Outbox, keys: KeyStore, who: Identity, identity_dir: Path) -> bool:
    """Go over to a next record key that the fleet root has certified; True if there was one. Every step can be repeated after a crash."""
    waiting = identity_dir / identity.NEXT_RECORD_KEY_CERTIFICATE_FILE
    if not waiting.exists():
        return False
    raw = waiting.read_bytes()
    try:
        certified = open_record_key_cert(raw, who.root(), who.fleet, who.terminal)
    except ProtocolError:
        log.error("the certificate of the next record key does not hold and is removed")
        waiting.unlink()
        return False
    if outbox.kid != certified.kid:
        if not keys.has_next_record_key() or keys.next_record_key().kid != certified.kid:
            log.error("the next record key is not the certified one; the certificate is removed")
            waiting.unlink()
            return False
        outbox.rotate(keys.next_record_key(), certified.generation)
    if keys.record_key().kid != certified.kid:
        keys.promote_next_record_key()
    waiting.replace(identity_dir / identity.RECORD_KEY_CERTIFICATE_FILE)
    files.sync_directory(identity_dir)
    return True
