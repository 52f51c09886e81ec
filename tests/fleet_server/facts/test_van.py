"""Where vans were: only vans, once, for ninety days, as the terminal told it."""

from __future__ import annotations

import pytest

from fleet_server.facts.project import reproject, unproject
from fleet_server.facts.van import KEPT_MS
from protocols.contract.records import Position
from tests.support.facts import T0, FactBench, Run

MINUTE = 60_000


def place(lat_e4: int = 290_790, lon_e4: int = 1_196_470) -> Position:
    return Position(slot="gps", lat_e4=lat_e4, lon_e4=lon_e4, fix="gps", satellites=9)


def send(bench: FactBench, run: Run, *told: tuple[Position, int], disputed: bool = False) -> int:
    captured = [run.capture(body, at_ms) for body, at_ms in told]
    return bench.arrive(run.send(captured, max(at_ms for _, at_ms in told) + 500, disputed=disputed))[0]


@pytest.fixture
def van(bench: FactBench) -> Run:
    bench.conn.execute("UPDATE terminal SET type = 'van' WHERE id = 'kf-1'")
    return Run("kf-1", 1, up_ms=T0 - 10 * MINUTE)


@pytest.mark.spec("C-214")
def test_a_van_has_a_track_and_nothing_else_has(bench: FactBench, van: Run) -> None:
    send(bench, van, (place(), T0), (place(291_000), T0 + 5 * MINUTE))
    assert bench.rows("SELECT terminal, at_ms, lat_e4, lon_e4, fix, satellites FROM van_position ORDER BY at_ms") == [
        ("kf-1", T0, 290_790, 1_196_470, "gps", 9),
        ("kf-1", T0 + 5 * MINUTE, 291_000, 1_196_470, "gps", 9),
    ]
    bench.conn.execute("UPDATE terminal SET type = 'kiosk' WHERE id = 'kf-1'")
    send(bench, van, (place(), T0 + 10 * MINUTE))
    assert bench.one("SELECT count(*) FROM van_position") == (2,)
    assert bench.one("SELECT count(*) FROM parked") == (0,)


@pytest.mark.spec("C-214")
def test_it_is_forgotten_after_ninety_days(bench: FactBench, van: Run) -> None:
    send(bench, van, (place(), T0))
    late = Run("kf-1", 2, up_ms=T0 + KEPT_MS - MINUTE)
    send(bench, late, (place(291_000), T0 + KEPT_MS + 5 * MINUTE))
    assert bench.rows("SELECT lat_e4 FROM van_position") == [(291_000,)]


def test_told_again_taken_back_and_made_again(bench: FactBench, van: Run) -> None:
    batch = send(bench, van, (place(), T0))
    before = bench.rows("SELECT terminal, at_ms, lat_e4, batch, idx, disputed FROM van_position")
    reproject(bench.conn, [batch])
    assert bench.rows("SELECT terminal, at_ms, lat_e4, batch, idx, disputed FROM van_position") == before
    unproject(bench.conn, [batch])
    assert bench.rows("SELECT * FROM van_position") == []


def test_a_disputed_place_is_marked(bench: FactBench, van: Run) -> None:
    send(bench, van, (place(), T0), disputed=True)
    assert bench.rows("SELECT disputed FROM van_position") == [(1,)]
