"""Who is in which wave, which windows a terminal gets, and which terminals a query means."""

from __future__ import annotations

from collections import Counter
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_server.errors import Refused
from fleet_server.rollouts import query as q
from fleet_server.rollouts.rules import Candidate, Policy, Step, bucket, bundle_id, waves_of
from fleet_server.rollouts.windows import (
    BEFORE_OPENING_MS,
    SPANS_MAX,
    allowed,
    clipped,
    closed_spans,
    frozen_spans,
    merged,
    overlap_ms,
    same_future,
    without,
)
from fleet_server.sites.calendar import ALWAYS, NEVER, Calendar, builtin_calendar, day_span_ms, local_time, parse_hours
from fleet_server.sites.hours import DatedHours

WEEK = parse_hours(
    '{"mon":[["09:00","12:00"],["13:30","17:00"]],"tue":[["09:00","12:00"],["13:30","17:00"]],"wed":[["09:00","12:00"],["13:30","17:00"]],'
    '"thu":[["09:00","12:00"],["13:30","17:00"]],"fri":[["09:00","12:00"],["13:30","17:00"]]}'
)
ZONE = "Asia/Shanghai"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PLAIN = Calendar(frozenset(), frozenset(), frozenset({2026}))
MONDAY_MS = day_span_ms("2026-11-23", ZONE)[0]


def candidates(count: int, sites: int = 20, hardware: int = 3) -> list[Candidate]:
    return [
        Candidate(terminal=f"t{n:03d}", site=f"s{n % sites}", area=f"a{n % sites % 5}", hardware=f"h{n % hardware}")
        for n in range(count)
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 120),
    st.integers(0, 6),
    st.lists(st.sampled_from([5.0, 25.0, 60.0]), max_size=3),
    st.text("0123456789abcdef", min_size=1, max_size=4),
)
def test_everybody_is_in_exactly_one_wave(count: int, canary: int, percents: list[float], name: str) -> None:
    policy = Policy(canary=canary, steps=(*(Step(percent=one) for one in sorted(percents)), Step(percent=100)))
    waves, members = waves_of(name, candidates(count), policy)
    assert len({member.terminal for member in members}) == len(members) == count
    assert [wave.planned for wave in waves] == [sum(member.wave == wave.no for member in members) for wave in waves]
    assert [wave.no for wave in waves] == list(range(len(waves)))
    assert waves_of(name, list(reversed(candidates(count))), policy) == (waves, members), "whatever the order in which they come"


def test_canaries_stand_on_different_sites_and_are_built_differently() -> None:
    _, members = waves_of("r", candidates(60), Policy(canary=3))
    known = {one.terminal: one for one in candidates(60)}
    chosen = [known[member.terminal] for member in members if member.wave == 0]
    assert len({one.site for one in chosen}) == 3
    assert len({one.hardware for one in chosen}) == 3


def test_a_canary_is_one_that_answers() -> None:
    silent = [Candidate(terminal=f"x{n}", site=f"s{n}", area="a", hardware=f"h{n}", ready=False) for n in range(20)]
    ready = [
        Candidate(terminal="y", site="s0", area="a", hardware="h0"),
        Candidate(terminal="z", site="s0", area="a", hardware="h0"),
    ]
    _, members = waves_of("r", [*silent, *ready], Policy(canary=2))
    assert {member.terminal for member in members if member.wave == 0} == {"y", "z"}


def test_waves_by_percentage_are_cumulative_and_by_number_are_not() -> None:
    waves, _ = waves_of("r", candidates(100), Policy(canary=2, steps=(Step(percent=5), Step(percent=25), Step(percent=100))))
    assert [wave.planned for wave in waves] == [2, 3, 20, 75]
    waves, _ = waves_of("r", candidates(100), Policy(canary=2, steps=(Step(count=10), Step(count=20), Step(percent=100))))
    assert [wave.planned for wave in waves] == [2, 10, 20, 68]


def test_each_wave_is_spread_over_the_areas() -> None:
    waves, members = waves_of("r", candidates(100), Policy(canary=0, steps=(Step(percent=20), Step(percent=100))))
    area = {one.terminal: one.area for one in candidates(100)}
    counted = Counter(area[member.terminal] for member in members if member.wave == 0)
    assert waves[0].planned == 20
    assert set(counted.values()) == {4}, "five areas of twenty: four of each"


def test_places_differ_between_rollouts_and_stay_within_one() -> None:
    assert bucket("r1", "t") == bucket("r1", "t") != bucket("r2", "t")
    assert bundle_id("r", "t", 1) == bundle_id("r", "t", 1) != bundle_id("r", "t", 2)
    assert len(bytes.fromhex(bundle_id("r", "t", 1))) == 16


# Windows --------------------------------------------------------------------------------------------------------------------------------


def test_windows_lie_outside_the_opening_hours_and_end_before_people_come() -> None:
    spans = closed_spans(DatedHours(WEEK), PLAIN, ZONE, MONDAY_MS + 10 * HOUR_MS, probation_ms=600_000)
    first = [f"{local_time(edge, ZONE):%a %H:%M}" for edge in spans[0]]
    assert first == ["Mon 17:00", "Tue 08:20"], "not the lunch break; half an hour and the probation before nine"
    weekend = next(span for span in spans if span[1] - span[0] > 2 * DAY_MS)
    assert [f"{local_time(edge, ZONE):%a %H:%M}" for edge in weekend] == ["Fri 17:00", "Mon 08:20"]
    assert len(spans) <= SPANS_MAX


def test_a_site_that_never_closes_is_updated_at_night_and_so_is_one_without_hours() -> None:
    for hours in (ALWAYS, NEVER):
        spans = closed_spans(DatedHours(hours), PLAIN, ZONE, MONDAY_MS + 10 * HOUR_MS)
        assert [f"{local_time(edge, ZONE):%a %H:%M}" for edge in spans[0]] == ["Tue 01:00", "Tue 04:30"]
        assert len(spans) == 14


def test_windows_follow_the_time_zone_of_the_site() -> None:
    there = closed_spans(DatedHours(WEEK), PLAIN, "Asia/Urumqi", MONDAY_MS)
    assert {f"{local_time(span[0], 'Asia/Urumqi'):%H:%M}" for span in there[1:]} == {"17:00"}
    assert {f"{local_time(span[0], ZONE):%H:%M}" for span in there[1:]} == {"19:00"}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 14 * 24 * 60), st.integers(0, 3 * 24 * 60))
def test_a_later_look_says_the_same_about_the_same_time(first_min: int, later_min: int) -> None:
    """Else terminals would be sent new windows for nothing."""
    first_ms = MONDAY_MS + first_min * 60_000
    later_ms = first_ms + later_min * 60_000
    frozen = [frozen_spans(builtin_calendar(), ZONE, at_ms, days_before=1) for at_ms in (first_ms, later_ms)]
    one = allowed(closed_spans(DatedHours(WEEK), builtin_calendar(), ZONE, first_ms), frozen[0])
    other = allowed(closed_spans(DatedHours(WEEK), builtin_calendar(), ZONE, later_ms), frozen[1])
    assert same_future(one, first_ms + 14 * DAY_MS, other, later_ms)


def test_statutory_holidays_freeze_themselves_and_the_day_before() -> None:
    autumn = day_span_ms("2026-09-20", ZONE)[0]
    spans = frozen_spans(builtin_calendar(), ZONE, autumn, days_before=1)
    holiday = next(date(2026, 9, day) for day in range(20, 31) if builtin_calendar().kind(date(2026, 9, day)) == "holiday")
    assert day_span_ms(holiday.isoformat(), ZONE)[0] - DAY_MS == next(begin for begin, until in spans if until > autumn)
    own = (autumn + HOUR_MS, autumn + 2 * HOUR_MS)
    assert own in frozen_spans(builtin_calendar(), ZONE, autumn, days_before=1, own=[own])
    nights = closed_spans(DatedHours(WEEK), builtin_calendar(), ZONE, autumn)
    assert overlap_ms((autumn, autumn + 14 * DAY_MS), allowed(nights, spans)) < overlap_ms((autumn, autumn + 14 * DAY_MS), nights)
    for begin, until in allowed(nights, spans):
        assert overlap_ms((begin, until), spans) == 0


edges = st.integers(0, 60)
some_spans = st.lists(st.tuples(edges, edges).map(lambda pair: (min(pair), max(pair))), max_size=8)


@settings(max_examples=200, deadline=None)
@given(some_spans)
def test_what_is_left_and_what_is_taken_are_the_whole(taken: list[tuple[int, int]]) -> None:
    whole = (10, 50)
    left = without(whole, taken)
    minutes = {at for begin, until in left for at in range(begin, until)}
    gone = {at for begin, until in taken for at in range(begin, until)}
    assert minutes == set(range(*whole)) - gone
    assert overlap_ms(whole, merged(taken)) + sum(until - begin for begin, until in left) == 40
    assert clipped(left, *whole) == tuple(left)


def test_the_margin_is_half_an_hour() -> None:
    assert BEFORE_OPENING_MS == 30 * 60_000


# Queries --------------------------------------------------------------------------------------------------------------------------------

TARGET = q.Target(
    id="kf-0001", code="JD-01", type="integrated", areas=frozenset({"jinhua", "jindong"}), site="jindong-hall", site_kind="hall",
    owner_class="government", profiles=frozenset({"generic.thermal"}), versions={"agent": "1.0.0"}, tags=frozenset({"Pilot"}),
)  # fmt: skip


@pytest.mark.parametrize(
    ("form", "found"),
    [
        ({}, True),
        ({"type": ["integrated"]}, True),
        ({"type": ["selfHelp", "integrated"]}, True),
        ({"type": ["selfHelp"]}, False),
        ({"area": ["jinhua"]}, True),
        ({"area": ["yiwu"]}, False),
        ({"site": ["jindong-hall"], "siteKind": ["mall"]}, False),
        ({"siteKind": ["hall"], "class": ["government"]}, True),
        ({"profile": ["generic.thermal"]}, True),
        ({"profile": ["other"]}, False),
        ({"version": ["1.0.0"], "component": ["agent"]}, True),
        ({"version": ["1.0.0"], "component": ["agent"], "versionIs": ["not"]}, False),
        ({"version": ["-"], "component": ["profiles"]}, True),
        ({"tag": ["pilot"]}, True),
        ({"id": ["x, JD-01"]}, True),
        ({"id": ["kf-0001\nkf-0002"]}, True),
        ({"id": ["kf-0002"]}, False),
    ],
)
def test_a_query_of_a_form_means_these_terminals(form: dict[str, list[str]], found: bool) -> None:
    query = q.of_form(form)
    assert q.matches(query, TARGET) is found
    assert q.decode(q.encode(query)) == query


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"version": ["1"]}, "component"),
        ({"tag": ["x" * 81]}, "tag"),
        ({"id": [f"k{n}" for n in range(501)]}, "id"),
    ],
)
def test_a_form_that_asks_for_too_much_is_refused(form: dict[str, list[str]], field: str) -> None:
    with pytest.raises(Refused) as refused:
        q.of_form(form)
    assert refused.value.field == field


def test_a_stored_query_of_another_version_is_refused() -> None:
    with pytest.raises(Refused):
        q.decode('{"conditions":[{"field":"colour","values":["red"]}]}')
