"""Dispatch is killed before each statement that it runs, one after the other; whatever was committed by then, the next one ends at the same place."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server.channel import transact
from fleet_server.db import open_raw
from fleet_server.dispatch.signing import Signing
from fleet_server.orders import keys, requests, wanted
from tests.support.facts import FactBench
from tests.support.ordering import FLEET, NOW, REBOOT, OrderBench

SIGNED = (
    "SELECT terminal, counter, envelope FROM order_item WHERE envelope IS NOT NULL"
    " UNION ALL SELECT terminal, counter, envelope FROM desired_state"
)


@pytest.fixture
def prepared(bench: FactBench, tmp_path: Path) -> OrderBench:
    """Orders, an approval, a lock, a withdrawn key and something lapsed: work of every kind."""
    city = OrderBench.make(bench, tmp_path)
    city.add_terminals("kf-2")
    city.ask("kf-1", "kf-2")
    city.sign()
    lapsing = city.ask(body=REBOOT, lasts_ms=60_000)
    city.approve(city.ask("kf-1", body=REBOOT))
    requests.lock(city.conn, ["kf-1", "kf-2"], "停用", by="wang", now_ms=NOW)
    wanted.touch(city.conn, "kf-2")
    old = keys.current(city.conn)
    assert old is not None and lapsing
    transact(city.conn, lambda conn: keys.rotate(conn, city.authority, city.folder, by="cli:root", now_ms=NOW))
    transact(city.conn, lambda conn: keys.withdraw(conn, city.folder, old, by="cli:root", now_ms=NOW))
    city.now_ms = NOW + 90_000
    return city


def run(city: OrderBench, database: Path, kill_before: int) -> bool:
    """A dispatch in a process of its own that is killed before its n-th statement; False if it got to its end."""
    child = os.fork()
    if child == 0:
        seen = 0

        def count(_: str) -> None:
            nonlocal seen
            seen += 1
            if seen == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)

        connection = open_raw(database)
        connection.set_trace_callback(count)
        duty = Signing(FLEET, city.folder, city.authority)
        while duty.step(connection, city.now_ms):
            pass
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def signed(connection: sqlite3.Connection) -> dict[tuple[str, int], bytes]:
    rows = [(row[0], row[1], bytes(row[2])) for row in connection.execute(SIGNED)]
    found = {(terminal, counter): envelope for terminal, counter, envelope in rows}
    assert len(found) == len(rows), "a counter was given twice"
    return found


def test_a_kill_before_any_statement_changes_nothing_in_the_end(prepared: OrderBench, tmp_path: Path) -> None:
    number, kills = 0, 0
    while True:
        number += 1
        database = tmp_path / f"{number}.sqlite"
        with closing(sqlite3.connect(database)) as copy:
            prepared.conn.backup(copy)
        was_killed = run(prepared, database, number)
        kills += was_killed
        with closing(open_raw(database)) as connection:
            sent = signed(connection)  # what ingest may have published by now
            duty = Signing(FLEET, prepared.folder, prepared.authority)
            while duty.step(connection, prepared.now_ms):
                pass
            after = signed(connection)
            assert sent.items() <= after.items(), f"killed before statement {number}: what was sent is another thing now"
            states = connection.execute("SELECT kind, terminal, state FROM order_item ORDER BY id").fetchall()
            assert [(row[0], row[1], row[2]) for row in states] == [
                ("restart", "kf-1", "sent"),
                ("restart", "kf-2", "sent"),
                ("restart", "kf-1", "dropped"),
                ("restart", "kf-1", "sent"),
                ("lock", "kf-1", "sent"),
                ("lock", "kf-2", "sent"),
            ]
            lapses = connection.execute("SELECT count(*) FROM audit WHERE action = 'order.lapse'").fetchone()
            assert lapses[0] == 1
            for terminal in ("kf-1", "kf-2"):
                top = connection.execute("SELECT counter FROM terminal_counter WHERE terminal = ?", (terminal,)).fetchone()[0]
                assert top == max(counter for name, counter in after if name == terminal)
            assert not duty.step(connection, prepared.now_ms)
            assert signed(connection) == after
        database.unlink()
        if not was_killed:
            break
    assert kills > 60
