"""What a demo does to its own past: enrolment set back for terminals that are watched, past months closed once they stand still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing as closing_file
from pathlib import Path

import pytest

from fleet_server import db
from fleet_server.figures.snapshots import publications
from tests.demo import months
from tests.fleet_server.figures.conftest import DAY, Town, at
from tests.support.facts import FactBench

UNTIL = at("07-10 08:00")
DAYS = 60
"""From the 11th of May on."""


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    path = tmp_path / "fleet.sqlite"
    db.migrate(path)
    bench = FactBench(path)
    town = Town(bench)
    for name in ("a", "b"):
        town.terminal(name, since="2026-07-10 07:00")
    town.presence("a", ("online", "07-10 07:01"))
    yield town
    bench.close()


def enrolled(town: Town) -> dict[str, int]:
    return dict(town.bench.rows("SELECT id, enrolled_ms FROM terminal"))  # type: ignore[arg-type]


def test_only_a_terminal_that_is_watched_is_set_back_and_only_once(town: Town) -> None:
    assert months.backdate(town.conn, UNTIL, DAYS) == 1
    assert enrolled(town) == {"a": at("05-11 00:00"), "b": at("07-10 07:00")}
    assert months.backdate(town.conn, UNTIL, DAYS) == 0
    town.presence("b", ("online", "07-10 07:02"))
    assert months.backdate(town.conn, UNTIL, DAYS) == 1
    assert set(enrolled(town).values()) == {at("05-11 00:00")}
    assert months.backdate(town.conn, UNTIL, 0) == 0


def test_months_that_are_over_and_were_told() -> None:
    assert months.past_months("2026-05-11", "2026-07-10") == ["2026-05", "2026-06"]
    assert months.past_months("2026-07-01", "2026-07-10") == []
    assert months.past_months("2025-12-31", "2026-02-01") == ["2025-12", "2026-01"]


def saved(town: Town, path: Path) -> Path:
    town.conn.execute("VACUUM INTO ?", (str(path),))
    return path


def test_a_month_is_closed_when_its_days_stand_still(town: Town, tmp_path: Path) -> None:
    months.backdate(town.conn, UNTIL, DAYS)
    for when in ("05-12 10:00", "06-09 10:00"):
        town.case("a", when)
    calls: list[int] = []
    waiting = months.Closing(saved(town, tmp_path / "waiting.sqlite"), UNTIL, DAYS)
    assert waiting.look(UNTIL + DAY, lambda: calls.append(1)) == []
    assert not waiting.finished

    town.settle(UNTIL)
    path = saved(town, tmp_path / "settled.sqlite")
    closing = months.Closing(path, UNTIL, DAYS)
    assert closing.look(UNTIL, lambda: calls.append(1)) == []  # computed just now
    assert closing.look(UNTIL + 1, lambda: calls.append(1)) == []  # too soon to look again
    assert closing.look(UNTIL + DAY, lambda: calls.append(1)) == ["2026-05", "2026-06"]
    assert closing.finished
    assert len(calls) == 3
    with closing_file(db.open_reader(path)) as conn:
        found = publications(conn)
    assert [(one.question.period.text, one.published_by) for one in found] == [("2026-06", "demo"), ("2026-05", "demo")]
    again = months.Closing(path, UNTIL, DAYS)
    assert again.look(UNTIL + DAY, lambda: None) == []
    assert again.finished
