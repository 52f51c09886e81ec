"""A storm over a seeded fleet: faults come and go, terminals and whole sites fall silent, people do things, the platform goes blind. Seeded."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from fleet_server.db import open_raw
from protocols.canon.faults import FAULTS
from tests.support.seed import HOUR, MINUTE, Machine

CODES = {
    "laser_printer": ("LSR.PAPER_OUT", "LSR.TONER_LOW", "LSR.JAM"),
    "receipt_printer": ("PRN.PAPER_OUT", "PRN.PAPER_NEAR_END", "PRN.COVER_OPEN", "PRN.CUTTER"),
    "id_reader": ("IDR.OPEN_FAIL", "IDR.READ_FAIL_RATE"),
    "scanner": ("SCN.UNPLUGGED",),
    "call_pad": ("CAL.NO_REPLY",),
    "door": ("ENV.DOOR_OPEN",),
    "evaluator": ("EVA.UNPLUGGED",),
}


class Storm:
    """Everything it does lies in the database as ingest and web would leave it, hints included."""

    def __init__(self, path: Path, machines: Sequence[Machine], seed: int) -> None:
        self._path, self._machines, self._rng = path, machines, random.Random(seed)
        self._number = 1 << 32  # not an id of the seed

    def gust(self, now_ms: int, strength: int = 40) -> None:
        """So many things happen at once."""
        doings: list[tuple[int, Callable[[sqlite3.Connection, int], None]]] = [
            (10, self._fault),
            (6, self._recovery),
            (8, self._contact),
            (2, self._silent_site),
            (3, self._maintenance),
            (1, self._retired),
            (1, self._platform),
            (3, self._person),
        ]
        weights, actions = zip(*doings, strict=True)
        with closing(open_raw(self._path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for action in self._rng.choices(actions, weights, k=strength):
                action(connection, now_ms)
            connection.execute("COMMIT")

    def _one(self) -> Machine:
        return self._rng.choice(self._machines)

    @staticmethod
    def _tell(connection: sqlite3.Connection, terminal: str | None, kind: str, now_ms: int) -> None:
        connection.execute("INSERT INTO change (at_ms, terminal, kind) VALUES (?, ?, ?)", (now_ms, terminal, kind))

    def _fault(self, connection: sqlite3.Connection, now_ms: int) -> None:
        machine = self._one()
        slot, family, mandatory = self._rng.choice(machine.inventory)
        if family not in CODES:
            return
        self._number += 1
        code, since_ms = self._rng.choice(CODES[family]), now_ms - self._rng.randrange(2 * HOUR)
        connection.execute(
            "INSERT INTO fault (id, terminal, slot, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 'terminal', 0)",
            (
                f"{machine.id}:{self._number:016x}",
                machine.id,
                slot,
                code,
                FAULTS[code].severity.value,
                int(mandatory),
                now_ms,
                since_ms,
            ),
        )
        self._tell(connection, machine.id, "fault", now_ms)

    def _recovery(self, connection: sqlite3.Connection, now_ms: int) -> None:
        rows = connection.execute("SELECT id, terminal FROM fault WHERE cleared_ms IS NULL ORDER BY id").fetchall()
        if rows:
            fault, terminal = self._rng.choice(rows)
            connection.execute("UPDATE fault SET cleared_ms = ?, cleared_by = 'terminal' WHERE id = ?", (now_ms, fault))
            self._tell(connection, terminal, "fault", now_ms)

    def _contact(self, connection: sqlite3.Connection, now_ms: int) -> None:
        state = self._rng.choice(("online", "online", "suspect", "offline", "stopped", "unknown"))
        self._move(connection, self._one(), state, now_ms)

    def _silent_site(self, connection: sqlite3.Connection, now_ms: int) -> None:
        site = self._one().site
        for machine in self._machines:
            if machine.site == site:
                self._move(connection, machine, "offline", now_ms)

    def _move(self, connection: sqlite3.Connection, machine: Machine, state: str, now_ms: int) -> None:
        connection.execute("UPDATE presence SET to_ms = ? WHERE terminal = ? AND to_ms IS NULL", (now_ms, machine.id))
        cause = {"online": "heard", "stopped": "announced"}.get(state, "silence")
        connection.execute(
            "INSERT INTO presence (terminal, from_ms, to_ms, state, cause) VALUES (?, ?, NULL, ?, ?)",
            (machine.id, now_ms - MINUTE, state, cause),
        )
        self._tell(connection, machine.id, "presence", now_ms)

    def _maintenance(self, connection: sqlite3.Connection, now_ms: int) -> None:
        machine = self._one()
        until_ms = now_ms + self._rng.choice((20 * MINUTE, 2 * HOUR)) if self._rng.random() < 0.6 else None
        connection.execute(
            "UPDATE terminal SET maintenance_until_ms = ?, maintenance_reason = ?, maintenance_by = ? WHERE id = ?",
            (until_ms, until_ms and "巡检", until_ms and "operator", machine.id),
        )
        self._tell(connection, machine.id, "enrolment", now_ms)

    def _retired(self, connection: sqlite3.Connection, now_ms: int) -> None:
        machine = self._one()
        connection.execute("UPDATE terminal SET revoked_ms = ? WHERE id = ?", (now_ms, machine.id))
        self._tell(connection, machine.id, "enrolment", now_ms)

    def _platform(self, connection: sqlite3.Connection, now_ms: int) -> None:
        ended = connection.execute("UPDATE platform_gap SET to_ms = ? WHERE to_ms IS NULL", (now_ms,)).rowcount
        if not ended:
            connection.execute(
                "INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (?, NULL, 'broker')", (now_ms - 2 * MINUTE,)
            )
        self._tell(connection, None, "platform", now_ms)

    def _person(self, connection: sqlite3.Connection, now_ms: int) -> None:
        rows = connection.execute("SELECT id, terminal FROM fault WHERE cleared_ms IS NULL ORDER BY id").fetchall()
        if not rows:
            return
        fault, terminal = self._rng.choice(rows)
        changes = ("claimed_by = 'operator', claimed_ms = :now", "muted_until_ms = :now + 3600000, muted_reason = '已报修'")
        connection.execute(f"UPDATE fault SET {self._rng.choice(changes)} WHERE id = :fault", {"now": now_ms, "fault": fault})
        self._tell(connection, terminal, "fault", now_ms)
