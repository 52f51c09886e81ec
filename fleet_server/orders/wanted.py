"""Owns the pieces of a terminal's desired state and its counter. In the caller's transaction.

Pieces change one by one (a configuration, a lock, a bundle); dispatch signs all of them together whenever `changed` is ahead of `sealed`.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from fleet_server.errors import FleetServerError
from protocols.contract.limits import COUNTER_STEP_MAX
from protocols.contract.orders import Bundle, Configuration, Desired, Lock

PIECE_OF: Final = {"configuration": "configuration", "lock": "lock", "unlock": "lock"}
"""Which piece a kind of request changes."""
COUNTER_END: Final = 2**53 - 1
ANEW_MAX: Final = COUNTER_STEP_MAX // 2
"""A machine that has seen nothing yet takes numbers up to COUNTER_STEP_MAX (O-216); what is below this leaves it room for its first desired state."""


class CounterSpent(FleetServerError):
    """A terminal claimed the highest counter there is: nothing can be ordered there until it is enrolled anew under another name."""


class ConfigurationChanged(FleetServerError):
    """What is stored under a version is not what was asked for and approved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """What is wanted of one terminal, with who wanted it."""

    terminal: str
    configuration: int | None = None
    configuration_sha256: bytes | None = None
    configuration_by: str | None = None
    configuration_approved_by: str | None = None
    configuration_ms: int | None = None
    lock: Lock | None = None
    lock_by: str | None = None
    bundle: Bundle | None = None
    bundle_by: str | None = None
    bundle_approved_by: str | None = None
    bundle_ms: int | None = None
    changed_by: str = ""
    changed: int = 0
    sealed: int = 0

    def signed_for(self) -> tuple[str, str | None]:
        """(by, approved by) that stand in the signed state: of the newest piece that needs two people; without one, of the last change."""
        pairs = [
            (at_ms or 0, by or "", approved_by)
            for piece, at_ms, by, approved_by in (
                (self.configuration, self.configuration_ms, self.configuration_by, self.configuration_approved_by),
                (self.bundle, self.bundle_ms, self.bundle_by, self.bundle_approved_by),
            )
            if piece is not None
        ]
        if not pairs:
            return self.changed_by, None
        _, by, approved_by = max(pairs, key=lambda pair: pair[0])
        return by, approved_by


_COLUMNS: Final = (
    "terminal, configuration, configuration_by, configuration_approved_by, configuration_ms, lock, lock_by, bundle, bundle_by,"
    " bundle_approved_by, bundle_ms, changed_by, changed, sealed, configuration_sha256"
)


def pieces(conn: sqlite3.Connection, terminal: str) -> Pieces:
    """What is wanted now; nothing at all if nobody ever asked."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM wanted WHERE terminal = ?", (terminal,)).fetchone()  # noqa: S608 - columns from above
    if row is None:
        return Pieces(terminal=terminal)
    return Pieces(
        terminal=row[0],
        configuration=row[1],
        configuration_by=row[2],
        configuration_approved_by=row[3],
        configuration_ms=row[4],
        lock=None if row[5] is None else msgspec.json.decode(row[5], type=Lock),
        lock_by=row[6],
        bundle=None if row[7] is None else msgspec.json.decode(row[7], type=Bundle),
        bundle_by=row[8],
        bundle_approved_by=row[9],
        bundle_ms=row[10],
        changed_by=row[11],
        changed=row[12],
        sealed=row[13],
        configuration_sha256=None if row[14] is None else bytes(row[14]),
    )


def set_configuration(
    conn: sqlite3.Connection, terminal: str, version: int, sha256: bytes, *, by: str, approved_by: str | None, now_ms: int
) -> None:
    """`sha256`: of the content that was approved; nothing else is ever signed under this version."""
    _set(
        conn,
        terminal,
        by,
        configuration=version,
        configuration_sha256=sha256,
        configuration_by=by,
        configuration_approved_by=approved_by,
        configuration_ms=now_ms,
    )


def set_lock(conn: sqlite3.Connection, terminal: str, lock: Lock | None, *, by: str, now_ms: int) -> None:
    _set(conn, terminal, by, lock=_json(lock), lock_by=by, lock_ms=now_ms)


def set_bundle(
    conn: sqlite3.Connection, terminal: str, bundle: Bundle | None, *, by: str, approved_by: str | None, now_ms: int
) -> None:
    """What a rollout wants here, or nothing any more. ValueError without a second person: terminals would refuse it."""
    if bundle is not None and (approved_by is None or approved_by == by):
        raise ValueError(f"a bundle for {terminal} that no second person approved")
    _set(conn, terminal, by, bundle=_json(bundle), bundle_by=by, bundle_approved_by=approved_by, bundle_ms=now_ms)


def touch(conn: sqlite3.Connection, terminal: str) -> None:
    """Have the same signed once more under a higher counter."""
    _set(conn, terminal, None)


def _set(conn: sqlite3.Connection, terminal: str, changed_by: str | None, **columns: Any) -> None:
    if changed_by is not None:
        columns["changed_by"] = changed_by
    conn.execute("INSERT OR IGNORE INTO wanted (terminal, changed_by) VALUES (?, 'server')", (terminal,))
    assignments = "".join(f"{name} = ?, " for name in columns)
    conn.execute(
        f"UPDATE wanted SET {assignments}changed = changed + 1 WHERE terminal = ?",  # noqa: S608 - names come from this module
        (*columns.values(), terminal),
    )


def _json(value: Lock | Bundle | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def desired_of(conn: sqlite3.Connection, wanted: Pieces, counter: int, now_ms: int) -> Desired:
    """The state to sign. ConfigurationChanged if its configuration is not the one that was approved."""
    by, approved_by = wanted.signed_for()
    return Desired(
        counter=counter,
        issued_ms=now_ms,
        by=by,
        approved_by=approved_by,
        configuration=_configuration(conn, wanted.configuration, wanted.configuration_sha256),
        lock=wanted.lock,
        bundle=wanted.bundle,
    )


def version_of(body: str) -> tuple[int, bytes]:
    """(version, hash of its content) that a request for a configuration names; (0, b"") if it names none."""
    try:
        named = msgspec.json.decode(body, type=_Version)
        return named.version, bytes.fromhex(named.sha256)
    except (msgspec.DecodeError, ValueError):
        return 0, b""


class _Version(msgspec.Struct, frozen=True):
    version: int
    sha256: str


def configuration_sha256(conn: sqlite3.Connection, version: int) -> bytes | None:
    """Of the stored bytes, as they are now; None if there is no such version."""
    content = _content(conn, version)
    return None if content is None else hashlib.sha256(content).digest()


def _content(conn: sqlite3.Connection, version: int) -> bytes | None:
    row = conn.execute("SELECT CAST(content AS BLOB) FROM configuration WHERE version = ?", (version,)).fetchone()
    return None if row is None else bytes(row[0])


def _configuration(conn: sqlite3.Connection, version: int | None, sha256: bytes | None) -> Configuration | None:
    if version is None:
        return None
    content = _content(conn, version)
    if content is None or hashlib.sha256(content).digest() != sha256:
        raise ConfigurationChanged(f"configuration {version} is not what was approved")
    return msgspec.convert({"version": version, **json.loads(content)}, Configuration)


# The counter ----------------------------------------------------------------------------------------------------------------------------


def next_counter(conn: sqlite3.Connection, terminal: str) -> int:
    """The next number of this terminal; used up exactly when the caller's transaction commits. CounterSpent at the end of all numbers."""
    row = conn.execute(
        "INSERT INTO terminal_counter (terminal, counter) VALUES (?, 1)"
        " ON CONFLICT (terminal) DO UPDATE SET counter = counter + 1 WHERE counter < ? RETURNING counter",
        (terminal, COUNTER_END),
    ).fetchone()
    if row is None:
        raise CounterSpent(f"{terminal}: the counter has come to its end")
    return int(row[0])


def born(conn: sqlite3.Connection, terminal: str, counter: int, held: int) -> bool:
    """What a birth says of counters: ours goes above (a restored server), and a held state that is unknown here is replaced by what is wanted.

    True if the birth is further above our number than a terminal can have come by signed orders since (O-216): a server restored from very far
    back, or a lie. It is followed all the same, since lower numbers would be refused there as stale; numbers are each terminal's own, so a liar
    harms itself alone, until it is enrolled anew.
    """
    known = conn.execute("SELECT counter, desired_held FROM terminal_counter WHERE terminal = ?", (terminal,)).fetchone()
    if known is None and not counter and not held:
        return False
    ours, told = 0 if known is None else known[0], min(max(counter, held), COUNTER_END)
    if known is None or ours < told or known[1] != held:
        conn.execute(
            "INSERT INTO terminal_counter (terminal, counter, desired_held) VALUES (?1, ?2, ?3)"
            " ON CONFLICT (terminal) DO UPDATE SET counter = max(counter, ?2), desired_held = ?3",
            (terminal, told, held),
        )
    newest = conn.execute("SELECT max(counter) FROM desired_state WHERE terminal = ?", (terminal,)).fetchone()[0] or 0
    if held > newest:
        wanted = pieces(conn, terminal)
        if wanted.changed == wanted.sealed:
            touch(conn, terminal)
    return told > ours + COUNTER_STEP_MAX


def enrolled_anew(conn: sqlite3.Connection, terminal: str) -> None:
    """Another machine, or a wiped one, has this name now. If it would refuse our numbers as too high (O-216), they begin again where it follows.

    They go back to the highest of ours that it would take, so none is used twice below that. What it was not told yet is signed again. A machine that
    did keep its counters raises ours with its next birth.
    """
    known = conn.execute("SELECT counter FROM terminal_counter WHERE terminal = ?", (terminal,)).fetchone()
    if known is None or known[0] <= ANEW_MAX:
        return
    back_to = conn.execute(
        "SELECT max(counter) FROM (SELECT counter FROM desired_state WHERE terminal = ?1 AND counter <= ?2"
        " UNION ALL SELECT counter FROM order_item WHERE terminal = ?1 AND counter <= ?2)",
        (terminal, ANEW_MAX),
    ).fetchone()[0]
    conn.execute("UPDATE terminal_counter SET counter = ?, desired_held = 0 WHERE terminal = ?", (back_to or 0, terminal))
    conn.execute("DELETE FROM desired_state WHERE terminal = ? AND counter > ?", (terminal, ANEW_MAX))
    conn.execute(
        "UPDATE order_item SET state = 'ready' WHERE terminal = ? AND counter > ? AND order_id IS NOT NULL AND state = 'sent' AND heard_ms IS NULL",
        (terminal, ANEW_MAX),
    )
    conn.execute(
        "UPDATE order_item SET counter = NULL, first_counter = NULL WHERE terminal = ? AND counter > ? AND order_id IS NULL AND state = 'sent'",
        (terminal, ANEW_MAX),
    )
    if conn.execute("SELECT 1 FROM wanted WHERE terminal = ?", (terminal,)).fetchone() is not None:
        touch(conn, terminal)
