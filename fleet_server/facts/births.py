"""Owns what the open faults in a signed birth mean: the terminal's complete list at that moment.

A fault that the server holds open and the birth does not name was cleared by a record that is gone (lost disk, evicted batch): it is closed by the
birth. One that the birth names and the server does not know is opened on its word. Both only once the backlog named in the birth is stored, because
until then the records themselves may say it better; a record that comes later still replaces what was concluded here.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet_server.errors import place_of
from fleet_server.facts.clock import CREDIBLE_MS
from fleet_server.facts.episodes import fault_key, has_too_many
from protocols.contract.messages import Birth, OpenFault
from protocols.contract.records import ClockQuality

log = logging.getLogger(__name__)

SNAPSHOT_FULL = 128
"""A birth names at most so many faults (contract); a full list may be cut, so nothing is concluded from what is missing."""


@dataclass(frozen=True, slots=True)
class Known:
    """A fault of the terminal that the server has, and where its opening stands (none: opened on a birth's word)."""

    key: str
    is_open: bool
    closed_by_birth: bool
    stream: bytes | None
    no: int
    boot_no: int


@dataclass(frozen=True, slots=True)
class Conclusions:
    close: tuple[str, ...]
    reopen: tuple[str, ...]
    open: tuple[OpenFault, ...]


def conclude(terminal: str, birth: Birth, known: Iterable[Known]) -> Conclusions:
    """Pure: what follows from the birth's list, given what the server has after the backlog."""
    by_key = {fault.key: fault for fault in known}
    named = {fault_key(terminal, fault.id): fault for fault in birth.faults}
    last = {held.stream: held.last for held in birth.held}
    missing = () if len(birth.faults) >= SNAPSHOT_FULL else tuple(key for key in by_key if key not in named)
    return Conclusions(
        close=tuple(key for key in missing if by_key[key].is_open and _was_captured_before(by_key[key], birth, last)),
        reopen=tuple(key for key in named if key in by_key and by_key[key].closed_by_birth),
        open=tuple(fault for key, fault in named.items() if key not in by_key),
    )


def _was_captured_before(fault: Known, birth: Birth, last: Mapping[bytes, int]) -> bool:
    """Whether the opening was captured before the birth was made, so that its silence about the fault means something."""
    if fault.stream is None:
        return True
    if fault.stream in last:
        return fault.no <= last[fault.stream]
    return fault.stream != birth.stream and fault.boot_no <= birth.boot_no


def backlog_is_in(conn: sqlite3.Connection, terminal: str, birth: Birth) -> bool:
    """Whether everything that this birth lists is stored; never for a birth that announces more to come, or of a disputed stream."""
    if birth.more:
        return False
    streams = {held.stream for held in birth.held} | {birth.stream}
    if any(
        row is not None and row[0]
        for row in (
            conn.execute("SELECT disputed FROM stream WHERE terminal = ? AND stream = ?", (terminal, stream)).fetchone()
            for stream in streams
        )
    ):
        return False
    return all(
        conn.execute(
            "SELECT 1 FROM batch WHERE terminal = ? AND stream = ? AND no = ?", (terminal, held.stream, held.last)
        ).fetchone()
        is not None
        for held in birth.held
        if held.last >= held.first
    )


def apply_birth(conn: sqlite3.Connection, terminal: str, birth: Birth, received_ms: int) -> bool:
    """Close and open faults after the birth's list; False if its backlog is not in yet and it must be tried again after the next batch."""
    if not backlog_is_in(conn, terminal, birth):
        return False
    found = conclude(terminal, birth, _known(conn, terminal, birth))
    for key in found.close:
        conn.execute("UPDATE fault SET cleared_ms = ?, cleared_by = 'birth' WHERE id = ?", (received_ms, key))
        conn.execute("INSERT INTO fault_event (fault, at_ms, kind) VALUES (?, ?, 'clear')", (key, received_ms))
    for key in found.reopen:
        conn.execute("UPDATE fault SET cleared_ms = NULL, cleared_by = NULL WHERE id = ?", (key,))
        conn.execute("DELETE FROM fault_event WHERE fault = ? AND kind = 'clear' AND by IS NULL", (key,))
    for fault in found.open:
        _open(conn, terminal, fault, birth, received_ms)
    changed = [*found.close, *found.reopen, *(fault_key(terminal, fault.id) for fault in found.open)]
    conn.executemany(
        "INSERT INTO change (at_ms, terminal, kind, ref) VALUES (?, ?, 'fault', ?)",
        [(received_ms, terminal, key) for key in changed],
    )
    return True


def _known(conn: sqlite3.Connection, terminal: str, birth: Birth) -> list[Known]:
    named = [fault_key(terminal, fault.id) for fault in birth.faults]
    marks = ",".join("?" * len(named))
    rows = conn.execute(
        "SELECT f.id, f.cleared_ms IS NULL, coalesce(f.cleared_by = 'birth', 0), b.stream, coalesce(b.no, 0), coalesce(s.boot_no, 0)"  # noqa: S608
        " FROM fault f LEFT JOIN batch b ON b.id = f.open_batch LEFT JOIN stream s ON s.terminal = b.terminal AND s.stream = b.stream"
        f" WHERE f.id IN ({marks}) OR (f.terminal = ? AND f.cleared_ms IS NULL AND f.source = 'terminal' AND f.disputed = 0)",
        (*named, terminal),
    )
    return [
        Known(key, bool(is_open), bool(by_birth), stream, no, boot_no) for key, is_open, by_birth, stream, no, boot_no in rows
    ]


def _open(conn: sqlite3.Connection, terminal: str, fault: OpenFault, birth: Birth, received_ms: int) -> None:
    key = fault_key(terminal, fault.id)
    if has_too_many(conn, terminal, but=key):
        return
    # The birth is fresh (it carries this connection's nonce), so its own clock can be held against the server's.
    error_ms = birth.wall_ms - received_ms
    is_off = birth.quality is ClockQuality.UNSET or abs(error_ms) > CREDIBLE_MS
    since_ms = min(max(0, fault.since_ms - error_ms if is_off else fault.since_ms), received_ms)
    conn.execute(
        "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 'terminal', 0)",
        (key, terminal, fault.slot, fault.code, fault.severity.value, int(fault.mandatory), received_ms, since_ms),
    )
    conn.execute(
        "INSERT INTO fault_event (fault, at_ms, kind, text) VALUES (?, ?, 'open', ?)", (key, received_ms, fault.severity.value)
    )


@dataclass(slots=True)
class _Waiting:
    birth: Birth
    received_ms: int
    still_out: set[tuple[bytes, int]]
    """Last (stream, number) of each listed stream, until they come."""
    applied: bool = False


class PendingBirths:
    """Births that wait for the backlog they list, in memory: a terminal greets again after a restart of ingest.

    One that has spoken is told once more at the next `retry`, which changes nothing unless the transaction of the first time was rolled back.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}

    def born(self, conn: sqlite3.Connection, terminal: str, birth: Birth, now_ms: int) -> None:
        """A fresh verified birth; the one before it has nothing more to say."""
        self._waiting.pop(terminal, None)
        if not birth.more:
            one = self._waiting[terminal] = _Waiting(birth, now_ms, {(held.stream, held.last) for held in birth.held})
            one.applied = apply_birth(conn, terminal, birth, now_ms)

    def stored(self, conn: sqlite3.Connection, terminal: str, stream: bytes, no: int) -> None:
        """A batch was stored; tries again once the last batch of each listed stream has come."""
        one = self._waiting.get(terminal)
        if one is not None and not one.applied:
            one.still_out.discard((stream, no))
            if not one.still_out:
                one.applied = apply_birth(conn, terminal, one.birth, one.received_ms)

    def retry(self, conn: sqlite3.Connection) -> None:
        """Every few seconds: what came in another shape (a loss notice, a batch set aside) does not call `stored`."""
        for terminal, one in list(self._waiting.items()):
            conn.execute("SAVEPOINT birth")
            try:
                was_applied, one.applied = one.applied, apply_birth(conn, terminal, one.birth, one.received_ms)
            except sqlite3.OperationalError:
                raise
            except Exception as err:  # noqa: BLE001 - one birth that cannot be applied must not stop the watch over all terminals
                log.error("a birth could not be applied", extra={"terminal": terminal, "reason": place_of(err)})
                conn.execute("ROLLBACK TO birth")
                was_applied = True
            conn.execute("RELEASE birth")
            if was_applied:
                del self._waiting[terminal]
