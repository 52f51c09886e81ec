"""Brings signed orders and desired states to terminals. Reads what dispatch committed, holds no key, and decides nothing but when to send again.

Who is owed something: a terminal that has just greeted, one for which something was signed since the last look, and one that has not answered for a
while. Each gets what it has not been sent on this connection, in the order of the counters.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from fleet_server import audit
from fleet_server.orders import keys, wanted

log = logging.getLogger(__name__)

AT_ONCE: Final = 50
"""Messages of one look; the loop turns to other messages in between."""
PER_TERMINAL: Final = 10
"""Of one look, so that a hundred orders for one do not hold up one for a hundred."""
HINTS_AT_ONCE: Final = 2_000
REKEYED_AT_ONCE: Final = 20
AGAIN_MS: Final = 60_000
"""Publishing is without an acknowledgement: what was not answered for so long may have been lost on the way. A repeat does no harm (O-203)."""
SWEEP_EVERY_MS: Final = 10_000
TRIES_MAX: Final = 5
"""On one connection; the next one starts anew."""


@dataclass(frozen=True, slots=True)
class Message:
    """What goes down to one terminal; `kind` is its topic's last part."""

    terminal: str
    kind: str
    envelope: bytes


@dataclass(slots=True)
class _Told:
    """What one terminal was sent on its connection: counter → (when, how often)."""

    desired_held: int
    orders: dict[int, tuple[int, int]] = field(default_factory=dict)
    desired: dict[int, tuple[int, int]] = field(default_factory=dict)


class Delivery:
    """`born` in the transaction of a birth, `look` between messages. Everything else is in the database."""

    def __init__(self, conn: sqlite3.Connection, wall_ms: Callable[[], int]) -> None:
        self._conn, self._wall_ms = conn, wall_ms
        self._told: dict[str, _Told] = {}
        self._implausible: set[str] = set()
        self._due: dict[str, None] = {}
        self._seen = self._newest_hint()
        self._next_sweep_ms = 0
        self._certificates: tuple[bytes, ...] | None = None
        self._rekey: dict[str, None] = {}
        self._data_version = -1
        self._news = True

    def certificates(self) -> tuple[bytes, ...]:
        """Of the order keys that are valid now, for a challenge."""
        return keys.valid_certificates(self._conn)

    def born(self, terminal: str, command_counter: int, desired_held: int) -> None:
        """The terminal has greeted: whatever it was sent before went over another connection."""
        if wanted.born(self._conn, terminal, command_counter, desired_held):
            self._note_implausible(terminal, max(command_counter, desired_held))
        self._told[terminal] = _Told(desired_held)
        self._due[terminal] = None

    def _note_implausible(self, terminal: str, counter: int) -> None:
        """Once for each terminal and start of this process: a liar must not fill the audit log."""
        if terminal in self._implausible:
            return
        self._implausible.add(terminal)
        log.warning("%s says it has seen counter %d, implausibly far above ours", terminal, counter)
        audit.write(
            self._conn,
            audit.SERVER,
            None,
            "terminal.counter",
            f"terminal:{terminal}",
            {"counter": counter, "why": "implausible"},
            now_ms=self._wall_ms(),
        )

    def left(self, terminal: str) -> None:
        """It was challenged: nothing is sent before its next birth."""
        self._told.pop(terminal, None)
        self._due.pop(terminal, None)

    def rekeyed(self) -> list[str]:
        """Terminals that greeted under another list of order keys: they have to be challenged again. A few at a time. Called before `look`."""
        version = self._conn.execute("PRAGMA data_version").fetchone()[0]
        self._news |= version != self._data_version
        self._data_version = version
        if self._news:
            now = keys.valid_certificates(self._conn)
            if self._certificates is not None and now != self._certificates:
                self._rekey = dict.fromkeys(self._told)
            self._certificates = now
        chosen = list(islice(self._rekey, REKEYED_AT_ONCE))
        for terminal in chosen:
            del self._rekey[terminal]
        return [terminal for terminal in chosen if terminal in self._told]

    def look(self) -> tuple[list[Message], bool]:
        """(messages to publish now, whether there is more)."""
        now_ms = self._wall_ms()
        more = self._read_hints()
        if not 0 < self._next_sweep_ms - now_ms <= SWEEP_EVERY_MS:
            self._next_sweep_ms = now_ms + SWEEP_EVERY_MS
            self._sweep(now_ms)
        messages: list[Message] = []
        while self._due and len(messages) < AT_ONCE:
            terminal = next(iter(self._due))
            del self._due[terminal]
            told = self._told.get(terminal)
            if told is None:
                continue
            owed = self._owed(terminal, told, now_ms)
            messages += owed
            if len(owed) >= PER_TERMINAL:
                self._due[terminal] = None  # at the end of the line
                more = True
        return messages, more or bool(self._due) or bool(self._rekey)

    def _owed(self, terminal: str, told: _Told, now_ms: int) -> list[Message]:
        found: list[Message] = []
        newest = self._conn.execute(
            "SELECT counter, envelope, state FROM desired_state WHERE terminal = ? ORDER BY counter DESC LIMIT 1", (terminal,)
        ).fetchone()
        if newest is not None and newest[2] == "sent" and newest[0] > told.desired_held and _may(told.desired, newest[0], now_ms):
            found.append(Message(terminal, "desired", bytes(newest[1])))
        rows = self._conn.execute(
            "SELECT counter, envelope FROM order_item WHERE terminal = ? AND state = 'sent' AND order_id IS NOT NULL AND heard_ms IS NULL"
            " AND expires_ms > ? ORDER BY counter",
            (terminal, now_ms),
        )
        for counter, envelope in rows:
            if len(found) >= PER_TERMINAL:
                break
            if _may(told.orders, counter, now_ms):
                found.append(Message(terminal, "order", bytes(envelope)))
        return found

    def _read_hints(self) -> bool:
        """Only another process signs: unless one has written there is nothing to look for."""
        if not self._news:
            return False
        newest = self._newest_hint()
        rows = self._conn.execute(
            "SELECT id, terminal FROM change WHERE id > ? AND id <= ? AND kind = 'send' ORDER BY id LIMIT ?",
            (self._seen, newest, HINTS_AT_ONCE),
        ).fetchall()
        for _, terminal in rows:
            if terminal in self._told:
                self._due[terminal] = None
        self._news = len(rows) == HINTS_AT_ONCE
        self._seen = rows[-1][0] if self._news else newest
        return self._news

    def _sweep(self, now_ms: int) -> None:
        for (terminal,) in self._conn.execute(
            "SELECT DISTINCT terminal FROM order_item WHERE state = 'sent' AND heard_ms IS NULL AND expires_ms > ?1 AND sealed_ms < ?2"
            " UNION SELECT terminal FROM order_item WHERE state = 'sent' AND order_id IS NULL AND sealed_ms < ?2",
            (now_ms, now_ms - AGAIN_MS),
        ):
            if terminal in self._told:
                self._due[terminal] = None

    def _newest_hint(self) -> int:
        return int(self._conn.execute("SELECT coalesce(max(id), 0) FROM change").fetchone()[0])


def _may(sent: dict[int, tuple[int, int]], counter: int, now_ms: int) -> bool:
    """Whether to send it (again), and note that it was."""
    at_ms, times = sent.get(counter, (0, 0))
    if times and (times >= TRIES_MAX or 0 <= now_ms - at_ms < AGAIN_MS):
        return False
    sent[counter] = (now_ms, times + 1)
    return True
