"""How long paper lasts: a line through what was told, and silence where that says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.terminals.consumption import DAY_MS, LEAST_LEVELS, WINDOW_MS, Level, Outlook, outlook

NOW = 400 * DAY_MS


def levels(*told: tuple[float, int], refills: tuple[int, ...] = ()) -> list[Level]:
    """(days ago, remaining), oldest first."""
    return [Level(NOW - round(days * DAY_MS), remaining, n in refills) for n, (days, remaining) in enumerate(told)]


def days_left(told: list[Level]) -> float | None:
    found = outlook(told, NOW)
    return None if found is None else round(found.days_left(NOW), 2)


def test_a_steady_use_is_a_straight_line() -> None:
    told = levels((4, 300), (3, 250), (2, 200), (1, 150), (0, 100))
    assert outlook(told, NOW) == Outlook(per_day=50, empty_ms=NOW + 2 * DAY_MS, levels=5, since_ms=NOW - 4 * DAY_MS)


def test_the_days_since_the_last_level_have_used_something_too() -> None:
    assert days_left(levels((4, 300), (3, 250), (2, 200), (1, 150))) == 2.0  # 150 were left yesterday, at 50 a day


def test_an_overdue_level_means_that_use_has_slowed_down() -> None:
    # Two days beyond the usual distance of one day: 150 in 5 days, not in 3; those 2 days are not taken from what is left.
    found = outlook(levels((6, 300), (5, 250), (4, 200), (3, 150)), NOW)
    assert found is not None
    assert found.per_day == pytest.approx(30)
    assert found.days_left(NOW) == pytest.approx(4)


@pytest.mark.parametrize(
    "told",
    [
        [],
        levels((2, 300), (1, 250)),
        levels((0.9, 300), (0.5, 250), (0.1, 200)),  # less than a day
        levels((3, 300), (2, 300), (1, 300)),  # nothing was used
        levels((90, 300), (60, 250), (40, 200), (1, 190)),  # too long ago
        levels((9, 300), (6, 250), (4, 200), (3, 500), (1, 450), refills=(3,)),  # two levels since the refill
        levels((29, 500), (15, 499), (1, 498)),  # lasts for years
    ],
)
def test_where_nothing_honest_can_be_said_there_is_no_estimate(told: list[Level]) -> None:
    assert outlook(told, NOW) is None


def test_only_what_was_told_since_the_last_filling_counts() -> None:
    fresh = levels((3, 500), (2, 400), (1, 300))
    before = levels((9, 300), (7, 290), (5, 280))
    assert outlook([*before, *fresh], NOW) == outlook(fresh, NOW)  # a level that rises was filled, told or not
    assert days_left(fresh) == 2.0


def test_what_should_be_empty_is_empty_not_negative() -> None:
    assert days_left(levels((3, 20), (2, 10), (1, 0))) == 0


@given(st.lists(st.tuples(st.integers(0, 2 * WINDOW_MS), st.integers(0, 10_000), st.booleans()), max_size=12))
def test_an_estimate_is_never_in_the_past_of_its_levels_and_never_without_use(rows: list[tuple[int, int, bool]]) -> None:
    told = sorted((Level(NOW - ago, remaining, refill) for ago, remaining, refill in rows), key=lambda level: level.at_ms)
    found = outlook(told, NOW)
    if found is not None:
        assert found.per_day > 0
        assert found.levels >= LEAST_LEVELS
        assert found.empty_ms >= max(level.at_ms for level in told)
