"""A van's plan against what it told: reached, missed, not known, far away; alarms once each, and taken back by themselves."""

from __future__ import annotations

import math

import pytest

from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.faults.van import (
    BELIEVED_MS,
    FAR_KM,
    LATE_MS,
    MISSED,
    OFF_ROUTE,
    SHOWN_MS,
    WAITED_MS,
    Place,
    Stop,
    follow_vans,
    is_off_route,
    outcome_of,
)
from fleet_server.sites.distance import EARTH_KM
from fleet_server.terminals import van_stops
from tests.support.facts import T0, FactBench

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
LAT, LON = 29.079, 119.647
"""A square; a hundredth of a degree north of it is 1.1 km away."""
STOP = Stop(1, LAT, LON, 9 * HOUR, 11 * HOUR)


def at(minute: int, north: float = 0.0) -> Place:
    """Minutes after nine; degrees north of the square."""
    return Place(9 * HOUR + minute * MINUTE, LAT + north, LON)


@pytest.mark.parametrize(
    ("places", "outcome"),
    [
        ([], None),
        ([at(-60, 0.1), at(30), at(125)], "reached"),
        ([at(30, 0.004)], "reached"),  # 450 m: the other end of the square
        ([at(30, 0.006), at(121, 0.006)], "missed"),
        ([at(30, 0.1), at(60, 0.1)], None),  # the window runs, or the rest is still in the van
        ([at(30, 0.1), at(125)], "missed"),  # too late
        ([at(-10), at(150, 0.1)], "reached"),  # it came early, and was silent while it served
        ([at(-10), at(5, 0.1), at(121, 0.1)], "missed"),  # it only passed
        ([at(-10)], None),  # nothing is known of the window
        ([at(-BELIEVED_MS // MINUTE - 1), at(150, 0.1)], "missed"),
        ([at(-10), at(20)], "reached"),
    ],
)
def test_what_became_of_a_stop(places: list[Place], outcome: str | None) -> None:
    assert outcome_of(STOP, places) == outcome


def test_far_away_is_an_alarm_only_in_the_window_and_after_a_while() -> None:
    far = math.degrees((FAR_KM + 0.2) / EARTH_KM)
    driven = [at(minute, far) for minute in range(0, 121, 5)]
    assert not is_off_route([STOP], driven, STOP.from_ms + LATE_MS - 1)
    assert is_off_route([STOP], driven, STOP.from_ms + LATE_MS)
    assert not is_off_route([STOP], driven, STOP.to_ms)
    assert not is_off_route([STOP], driven[:1], STOP.from_ms + LATE_MS), "one place is no journey"
    assert not is_off_route([STOP], [*driven[:6], at(29, 0.02)], STOP.from_ms + LATE_MS), "on its way"
    other = Stop(2, LAT + far, LON, STOP.from_ms, STOP.to_ms)
    assert not is_off_route([STOP, other], driven, STOP.from_ms + LATE_MS), "it may stand at either"


@pytest.fixture
def van(bench: FactBench) -> FactBench:
    bench.conn.execute("UPDATE terminal SET type = 'van' WHERE id = 'kf-1'")
    return bench


def plan(bench: FactBench, begin_ms: int, *, hours: int = 2, north: float = 0.0, name: str = "Square") -> int:
    window = {"from_ms": begin_ms, "to_ms": begin_ms + hours * HOUR}
    return van_stops.plan(bench.conn, "kf-1", by="op", name=name, latitude=LAT + north, longitude=LON, now_ms=T0, **window)


def tell(bench: FactBench, at_ms: int, north: float = 0.0) -> None:
    bench.conn.execute(
        "INSERT INTO van_position (terminal, slot, at_ms, lat_e4, lon_e4, fix, satellites, batch, idx, disputed)"
        " VALUES ('kf-1', 'gps', ?, ?, ?, 'gps', 9, -1, ?, 0)",
        (at_ms, round((LAT + north) * 10_000), round(LON * 10_000), at_ms),
    )


def alarms(bench: FactBench) -> list[str]:
    return [str(row[0]) for row in bench.rows("SELECT code FROM fault WHERE cleared_ms IS NULL ORDER BY code")]


def outcomes(bench: FactBench) -> list[object]:
    return [row[0] for row in bench.rows("SELECT outcome FROM van_stop ORDER BY from_ms")]


def test_a_missed_stop_is_an_alarm_until_the_next_one_is_reached(van: FactBench) -> None:
    plan(van, T0 + HOUR)
    plan(van, T0 + 4 * HOUR, north=0.03)
    tell(van, T0 + 2 * HOUR, 0.03)
    assert follow_vans(van.conn, T0 + 3 * HOUR + MINUTE) == 0, "its records of the last minutes may still come"
    tell(van, T0 + 3 * HOUR + MINUTE, 0.03)
    assert follow_vans(van.conn, T0 + 3 * HOUR + 2 * MINUTE) == 2
    assert alarms(van) == [MISSED]
    assert van.one("SELECT since_ms, source, terminal FROM fault") == (T0 + 3 * HOUR, "platform", "kf-1")
    assert follow_vans(van.conn, T0 + 3 * HOUR + 3 * MINUTE) == 0
    tell(van, T0 + 4 * HOUR + MINUTE, 0.03)
    follow_vans(van.conn, T0 + 4 * HOUR + 2 * MINUTE)
    assert alarms(van) == []
    assert outcomes(van) == ["missed", "reached"]


def test_it_ends_with_the_day(van: FactBench) -> None:
    plan(van, T0)
    tell(van, T0 + 2 * HOUR, 0.03)
    follow_vans(van.conn, T0 + 2 * HOUR + MINUTE)
    assert alarms(van) == [MISSED]
    follow_vans(van.conn, T0 + 2 * HOUR + SHOWN_MS)
    assert alarms(van) == []


def test_records_that_come_a_day_late_accuse_nobody_who_was_there(van: FactBench) -> None:
    plan(van, T0)
    plan(van, T0 + 3 * HOUR)
    follow_vans(van.conn, T0 + DAY)
    assert (outcomes(van), alarms(van)) == ([None, None], [])
    for hour in range(7):
        tell(van, T0 + hour * HOUR, 0.0 if hour < 2 else 0.03)
    follow_vans(van.conn, T0 + DAY + MINUTE)
    assert (outcomes(van), alarms(van)) == (["reached", "missed"], []), "yesterday's miss is told on the page, not rung"


def test_nothing_is_said_of_a_van_that_was_never_heard_of(van: FactBench) -> None:
    plan(van, T0)
    for day in range(1, 9):
        assert follow_vans(van.conn, T0 + day * DAY) == 0
    assert outcomes(van) == [None]
    tell(van, T0 + WAITED_MS + 3 * HOUR)
    assert follow_vans(van.conn, T0 + WAITED_MS + 3 * HOUR) == 0, "too late to judge"


def test_far_from_the_plan(van: FactBench) -> None:
    plan(van, T0)
    for minute in range(0, 60, 5):
        tell(van, T0 + minute * MINUTE, 0.06)
    follow_vans(van.conn, T0 + 40 * MINUTE)
    assert alarms(van) == [OFF_ROUTE]
    tell(van, T0 + 60 * MINUTE, 0.02)
    follow_vans(van.conn, T0 + 61 * MINUTE)
    assert alarms(van) == []


def test_a_plan_that_is_taken_back_and_a_van_out_of_service_have_no_alarm(van: FactBench) -> None:
    number = plan(van, T0)
    tell(van, T0 + 10 * MINUTE, 0.06)
    tell(van, T0 + 30 * MINUTE, 0.06)
    follow_vans(van.conn, T0 + 35 * MINUTE)
    assert alarms(van) == [OFF_ROUTE]
    van_stops.take_back(van.conn, "kf-1", number, by="op", now_ms=T0 + 36 * MINUTE)
    follow_vans(van.conn, T0 + 37 * MINUTE)
    assert alarms(van) == []
    plan(van, T0)
    follow_vans(van.conn, T0 + 40 * MINUTE)
    assert alarms(van) == [OFF_ROUTE]
    van.conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = 'kf-1'")
    follow_vans(van.conn, T0 + 41 * MINUTE)
    assert alarms(van) == []


def test_a_plan_is_forgotten_after_ninety_days(van: FactBench) -> None:
    plan(van, T0)
    follow_vans(van.conn, T0 + 2 * HOUR + van_stops.KEPT_MS)
    assert outcomes(van) == [None]
    follow_vans(van.conn, T0 + 2 * HOUR + van_stops.KEPT_MS + 1)
    assert outcomes(van) == []


def test_disputed_places_judge_nothing(van: FactBench) -> None:
    plan(van, T0)
    tell(van, T0 + 3 * HOUR, 0.03)
    van.conn.execute("UPDATE van_position SET disputed = 1")
    follow_vans(van.conn, T0 + 4 * HOUR)
    assert outcomes(van) == [None]


def test_what_is_no_plan(van: FactBench) -> None:
    for begin_ms, hours in ((T0 - 3 * HOUR, 2), (T0 + 91 * DAY, 2), (T0, 25), (T0, 0), (T0, -1)):
        with pytest.raises(Refused, match="window"):
            plan(van, begin_ms, hours=hours)
    with pytest.raises(Refused, match="place"):
        plan(van, T0, north=90.0)
    van.conn.execute("UPDATE terminal SET type = 'kiosk' WHERE id = 'kf-1'")
    with pytest.raises(NotFound):
        plan(van, T0)
    assert van.one("SELECT count(*) FROM van_stop") == (0,)


def test_a_plan_has_an_end_and_what_is_over_stays(van: FactBench) -> None:
    numbers = [plan(van, T0 + n * HOUR) for n in range(van_stops.MOST)]
    with pytest.raises(Conflict):
        plan(van, T0)
    tell(van, T0)
    follow_vans(van.conn, T0 + MINUTE)
    with pytest.raises(Conflict):
        van_stops.take_back(van.conn, "kf-1", numbers[0], by="op", now_ms=T0)
    with pytest.raises(NotFound):
        van_stops.take_back(van.conn, "kf-2", numbers[1], by="op", now_ms=T0)
    actions = [row[0] for row in van.rows("SELECT DISTINCT action FROM audit ORDER BY action")]
    assert actions == ["van.plan"]
