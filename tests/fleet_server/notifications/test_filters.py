from __future__ import annotations

import pytest

from fleet_server.notifications.filters import FilterError, Filters, is_quiet, next_escalation_ms, read_filters
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS, NOON_MS, ZONE


@pytest.mark.parametrize(
    ("span", "quiet_hours"),
    [
        (("20:00", "08:00"), {20, 21, 22, 23, 0, 1, 2, 3, 4, 5, 6, 7}),
        (("12:00", "14:00"), {12, 13}),
        (("00:00", "23:59"), set(range(24))),
        (("12:00", "12:00"), set()),
    ],
)
def test_quiet_hours_are_of_the_fleets_time_zone_and_may_cross_midnight(span: tuple[str, str], quiet_hours: set[int]) -> None:
    filters = Filters(quiet={"P3": span})
    found = {hour for hour in range(24) if is_quiet(filters, "P3", NOON_MS + (hour - 12) * HOUR_MS, ZONE)}
    assert found == quiet_hours
    assert not any(is_quiet(filters, "P2", NOON_MS + hour * HOUR_MS, ZONE) for hour in range(24))


def test_the_end_of_quiet_hours_is_not_quiet() -> None:
    filters = Filters(quiet={"P3": ("20:00", "08:00")})
    assert is_quiet(filters, "P3", NOON_MS - 4 * HOUR_MS - 1, ZONE)
    assert not is_quiet(filters, "P3", NOON_MS - 4 * HOUR_MS, ZONE)


def test_escalation_doubles_and_ends() -> None:
    filters = Filters(escalate_min={"P1": 10})
    assert [next_escalation_ms(filters, "P1", 0, level) for level in range(4)] == [
        10 * MINUTE_MS,
        20 * MINUTE_MS,
        40 * MINUTE_MS,
        None,
    ]
    assert next_escalation_ms(filters, "P2", 0, 0) is None


def test_what_is_stored_is_read_strictly() -> None:
    assert read_filters("{}") == Filters()
    assert read_filters('{"severities": ["P1"], "quiet": {}, "recoveries": false}').severities == ("P1",)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"severities": ["P9"]}', r"\$\.severities\[0\]"),
        ('{"quiet": {"P3": ["8pm", "08:00"]}}', r"\$\.quiet\[\.\.\.\]\[0\]"),
        ('{"quiet": {"P3": ["24:00", "08:00"]}}', "quiet"),
        ('{"escalate_min": {"P1": 0}}', "escalate_min"),
        ('{"colour": "red"}', "colour"),
        ("[]", "object"),
        ("{", "filters"),
    ],
)
def test_filters_that_cannot_be_read_name_the_place(text: str, place: str) -> None:
    with pytest.raises(FilterError, match=place):
        read_filters(text)
