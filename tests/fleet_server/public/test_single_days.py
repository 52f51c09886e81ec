"""A day with hours of its own, as citizens are told of it."""

from __future__ import annotations

from datetime import datetime

import pytest

from fleet_server.public.opening import opening, readable
from fleet_server.sites.calendar import DEFAULT_ZONE, builtin_calendar


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+08:00").timestamp()) * 1000


@pytest.mark.parametrize(
    ("hours", "moment", "is_open", "until", "again"),
    [
        ('{"always": true, "dates": {"2026-11-20": []}}', "2026-11-20 10:00", False, None, "2026-11-21 00:00"),
        ('{"always": true, "dates": {"2026-11-20": []}}', "2026-11-19 10:00", True, "2026-11-20 00:00", None),
        (
            '{"fri": [["09:00", "17:00"]], "dates": {"2026-11-20": [["10:00", "11:00"]]}}',
            "2026-11-20 09:30",
            False,
            None,
            "2026-11-20 10:00",
        ),
        ('{"dates": {"2026-11-20": [["10:00", "11:00"]]}}', "2026-11-20 10:30", True, "2026-11-20 11:00", None),
    ],
)
def test_that_day_goes_before_the_week(hours: str, moment: str, is_open: bool, until: str | None, again: str | None) -> None:
    found = opening(readable(hours), builtin_calendar(), DEFAULT_ZONE, at(moment))
    assert (found.known, found.is_open, found.always) == (True, is_open, False)
    assert found.until_ms == (at(until) if until else None)
    assert found.next_ms == (at(again) if again else None)


def test_long_before_and_after_it_a_site_that_never_closes_says_so() -> None:
    hours = readable('{"always": true, "dates": {"2026-11-20": []}}')
    for moment in ("2026-11-05 10:00", "2026-11-21 10:00"):
        assert opening(hours, builtin_calendar(), DEFAULT_ZONE, at(moment)).always
