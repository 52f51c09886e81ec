"""Periods and scopes as an address says them; months without a case and what follows from them."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.errors import Refused
from fleet_server.figures.idle import months_without, proposal
from fleet_server.figures.question import Period, Scope


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-11", "2026-11-01", "2026-11-30"),
        ("2026-Q1", "2026-01-01", "2026-03-31"),
        ("2026-Q4", "2026-10-01", "2026-12-31"),
        ("2026", "2026-01-01", "2026-12-31"),
        ("2026-02-27..2026-03-02", "2026-02-27", "2026-03-02"),
    ],
)
def test_an_address_names_days_and_days_name_an_address(text: str, first: str, last: str) -> None:
    assert Period.read(text) == Period(first, last)
    assert Period(first, last).text == text


def test_days_that_are_a_month_are_called_a_month() -> None:
    assert Period.read("2026-02-01..2026-02-28").text == "2026-02"
    assert Period.read("2026-04-01..2026-06-30").text == "2026-Q2"


@pytest.mark.parametrize(
    "text", ["", "2026-13", "2026-Q5", "26", "2026-1", "2026-11-31..2026-12-01", "a..b", "2026-11-02..2026-11-01"]
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        Period.read(text)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("2026-01", "2025-12", "2026-02"),
        ("2026-Q1", "2025-Q4", "2026-Q2"),
        ("2026", "2025", "2027"),
        ("2026-11-08..2026-11-14", "2026-11-01..2026-11-07", "2026-11-15..2026-11-21"),
    ],
)
def test_what_comes_before_and_after_is_of_the_same_kind(text: str, before: str, after: str) -> None:
    assert (Period.read(text).before().text, Period.read(text).after().text) == (before, after)


def test_a_running_period_is_set_beside_as_many_days() -> None:
    assert Period.read("2026-11").as_long_before("2026-11-18") == Period("2026-10-01", "2026-10-18")
    assert Period.read("2026-11").as_long_before("2026-12-01") == Period.read("2026-10")
    # February has no 30th to go on to.
    assert Period.read("2026-03").as_long_before("2026-03-30") == Period.read("2026-02")


@given(st.dates(date(2001, 1, 1), date(2190, 1, 1)), st.integers(0, 500))
def test_any_days_come_back_from_their_address(first: date, more: int) -> None:
    period = Period(first.isoformat(), (first + timedelta(days=more)).isoformat())
    assert Period.read(period.text) == period
    assert period.after().before() == period or period.is_month or period.is_quarter or period.is_year


def test_a_scope_is_the_same_text_whichever_way_it_is_made() -> None:
    scope = Scope(area="east", owner="social", direct=True)
    assert Scope.from_json(scope.to_json()) == scope
    assert Scope.of({"area": "east", "owner": "social", "direct": "1", "nonsense": "x", "site": ""}) == scope
    assert Scope().to_json() == "{}"
    assert Scope(area="a", type="kiosk").to_json() == '{"area":"a","type":"kiosk"}'


@pytest.mark.parametrize(
    ("last_day", "since", "until", "months"),
    [
        ("2026-08-15", "2026-01-01", "2026-10-31", 2),
        ("2026-08-31", "2026-01-01", "2026-10-31", 2),
        ("2026-09-01", "2026-01-01", "2026-10-31", 1),
        ("2026-10-01", "2026-01-01", "2026-10-31", 0),
        ("2026-08-15", "2026-01-01", "2026-11-17", 2),
        (None, "2026-08-01", "2026-10-31", 3),
        (None, "2026-08-02", "2026-10-31", 2),
        (None, "2026-10-20", "2026-10-31", 0),
        ("2026-01-05", "2026-08-20", "2026-10-31", 2),
        ("2025-11-30", "2025-01-01", "2026-02-28", 3),
    ],
)
def test_whole_months_without_a_case(last_day: str | None, since: str, until: str, months: int) -> None:
    assert months_without(last_day, since, until) == months


@pytest.mark.parametrize(
    ("months", "mark", "wanted"),
    [
        (0, "", ""), (1, "", ""), (2, "", "relocate"), (3, "", "withdraw"), (9, "", "withdraw"),
        (2, "fault", "repair"), (3, "maintenance", "repair"), (5, "offline", "repair"), (5, "retired", ""), (1, "fault", ""),
    ],
)  # fmt: skip
def test_an_idle_machine_is_moved_then_withdrawn_and_a_broken_one_repaired_first(months: int, mark: str, wanted: str) -> None:
    assert proposal(months, mark, relocate_months=2, withdraw_months=3) == wanted
