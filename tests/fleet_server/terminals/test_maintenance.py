"""Maintenance is a span with a reason and an end; what is asked of the past is what was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleet_server.db import migrate
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.terminals import maintenance
from fleet_server.terminals.maintenance import LONGEST_MS

NOW, HOUR = 1_795_000_000_000, 3_600_000


@pytest.fixture
def conn(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "fleet.sqlite"
    migrate(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name in ("a", "b"):
            connection.execute(
                "INSERT INTO terminal (id, code, type, name_zh, name_en, site, created_ms) VALUES (?, ?, 'kiosk', '', '', '', 0)",
                (name, name.upper()),
            )
        yield connection


def start(conn: sqlite3.Connection, at_ms: int, until_ms: int, terminal: str = "a") -> None:
    maintenance.start(conn, terminal, by="op", reason="why", until_ms=until_ms, now_ms=at_ms)


def spans(conn: sqlite3.Connection, from_ms: int, to_ms: int) -> dict[str, list[tuple[int, int]]]:
    return maintenance.spans(conn, ["a", "b"], from_ms, to_ms)


def test_what_nobody_ends_lasts_until_its_end(conn: sqlite3.Connection) -> None:
    start(conn, NOW, NOW + 2 * HOUR)
    assert spans(conn, NOW - HOUR, NOW + 9 * HOUR) == {"a": [(NOW, NOW + 2 * HOUR)]}
    assert spans(conn, NOW + HOUR, NOW + 90 * 60_000) == {"a": [(NOW + HOUR, NOW + 90 * 60_000)]}
    assert spans(conn, NOW + 2 * HOUR, NOW + 9 * HOUR) == {}


def test_an_end_by_hand_is_kept_with_who(conn: sqlite3.Connection) -> None:
    start(conn, NOW, NOW + 2 * HOUR)
    maintenance.end(conn, "a", by="other", now_ms=NOW + HOUR)
    assert spans(conn, 0, NOW + 9 * HOUR) == {"a": [(NOW, NOW + HOUR)]}
    assert conn.execute('SELECT "by", ended_by, reason FROM maintenance').fetchall() == [("op", "other", "why")]
    with pytest.raises(Conflict):
        maintenance.end(conn, "a", by="other", now_ms=NOW + HOUR)


def test_a_longer_end_continues_the_span(conn: sqlite3.Connection) -> None:
    start(conn, NOW, NOW + 2 * HOUR)
    start(conn, NOW + HOUR, NOW + 5 * HOUR)
    start(conn, NOW + 6 * HOUR, NOW + 7 * HOUR)
    start(conn, NOW, NOW + HOUR, "b")
    assert spans(conn, 0, NOW + 9 * HOUR) == {
        "a": [(NOW, NOW + 5 * HOUR), (NOW + 6 * HOUR, NOW + 7 * HOUR)],
        "b": [(NOW, NOW + HOUR)],
    }


@pytest.mark.parametrize("until_ms", [NOW, NOW - 1, NOW + LONGEST_MS + 1])
def test_an_end_that_makes_no_sense_is_refused(conn: sqlite3.Connection, until_ms: int) -> None:
    with pytest.raises(Refused):
        start(conn, NOW, until_ms)
    assert spans(conn, 0, 2 * NOW) == {}


def test_only_terminals_of_the_fleet(conn: sqlite3.Connection) -> None:
    conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = 'a'")
    for terminal in ("a", "nobody"):
        with pytest.raises(NotFound):
            start(conn, NOW, NOW + HOUR, terminal)
        with pytest.raises(NotFound):
            maintenance.end(conn, terminal, by="op", now_ms=NOW)
    start(conn, NOW, NOW + HOUR, "b")
    with pytest.raises(Conflict):
        maintenance.end(conn, "b", by="op", now_ms=NOW + HOUR)
