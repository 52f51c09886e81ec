"""Opening hours, holidays of the State Council's notices, and the class of time a case began in."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pytest

from fleet_server.sites.calendar import (
    ALWAYS,
    DAY_MS,
    DEFAULT_ZONE,
    NEVER,
    HoursError,
    TimeClass,
    builtin_calendar,
    classify,
    day_span_ms,
    local_day,
    local_days,
    local_time,
    open_since_ms,
    open_spans_ms,
    parse_hours,
    periods,
    with_imported,
)

CALENDAR = builtin_calendar()
HALL = parse_hours(
    '{"mon":[["09:00","12:00"],["13:30","17:00"]],"tue":[["09:00","12:00"],["13:30","17:00"]],"wed":[["09:00","12:00"],["13:30","17:00"]],'
    '"thu":[["09:00","12:00"],["13:30","17:00"]],"fri":[["09:00","12:00"],["13:30","17:00"]]}'
)
MALL = parse_hours(
    '{"mon":[["10:00","22:00"]],"sat":[["10:00","24:00"]],"sun":[["10:00","22:00"]],"holiday":[["10:00","18:00"]]}'
)
SHANGHAI = "Asia/Shanghai"


def at(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+08:00").timestamp()) * 1000


@pytest.mark.parametrize(
    ("began", "expected"),
    [
        ("2026-02-14 10:00", TimeClass.WORK),
        ("2026-09-20 10:00", TimeClass.WORK),
        ("2026-02-23 10:00", TimeClass.HOLIDAY),
        ("2026-09-26 10:00", TimeClass.HOLIDAY),
        ("2026-10-17 10:00", TimeClass.WEEKEND),
        ("2026-11-18 08:59", TimeClass.BEFORE_HOURS),
        ("2026-11-18 09:00", TimeClass.WORK),
        ("2026-11-18 12:00", TimeClass.NOON),
        ("2026-11-18 13:29", TimeClass.NOON),
        ("2026-11-18 13:30", TimeClass.WORK),
        ("2026-11-18 17:00", TimeClass.AFTER_HOURS),
        ("2026-10-01 08:00", TimeClass.HOLIDAY),
    ],
)
def test_class_of_a_case_by_its_local_start(began: str, expected: TimeClass) -> None:
    assert classify(HALL, CALENDAR, datetime.fromisoformat(began)) is expected


def test_a_site_that_never_closes_still_has_weekends() -> None:
    assert classify(ALWAYS, CALENDAR, local_time(at("2026-11-18 03:00"))) is TimeClass.WORK
    assert classify(ALWAYS, CALENDAR, local_time(at("2026-11-21 03:00"))) is TimeClass.WEEKEND


@pytest.mark.parametrize("year", [2025, 2026])
def test_a_year_has_248_working_days(year: int) -> None:
    days = (date(year, 1, 1) + timedelta(days=n) for n in range(365))
    assert sum(CALENDAR.kind(day) == "work" for day in days) == 248


def test_five_working_days_after_the_eve_of_the_national_day() -> None:
    assert CALENDAR.add_working_days(date(2026, 9, 30), 5) == date(2026, 10, 13)


def test_holidays_of_the_next_year_must_be_known_from_december() -> None:
    assert CALENDAR.missing_years(date(2026, 11, 30)) == ()
    assert CALENDAR.missing_years(date(2026, 12, 1)) == (2027,)
    assert CALENDAR.missing_years(date(2027, 3, 1)) == (2027,)


def test_an_imported_year_is_known_and_an_imported_day_replaces_a_built_in_one() -> None:
    calendar = with_imported(CALENDAR, [("2027-01-01", "off"), ("2026-10-10", "off"), ("2026-10-07", "work")])
    assert calendar.missing_years(date(2026, 12, 1)) == ()
    assert calendar.kind(date(2026, 10, 10)) == "holiday"
    assert calendar.kind(date(2026, 10, 7)) == "work"
    assert CALENDAR.kind(date(2026, 10, 7)) == "holiday"


def test_a_make_up_day_has_mondays_hours_and_a_holiday_its_own() -> None:
    assert periods(HALL, CALENDAR, date(2026, 2, 14)) == ((540, 720), (810, 1020))
    assert periods(HALL, CALENDAR, date(2026, 2, 16)) == ()
    assert periods(MALL, CALENDAR, date(2026, 10, 1)) == ((600, 1080),)


def test_open_spans_are_utc_and_midnight_belongs_to_the_day() -> None:
    assert open_spans_ms(MALL, CALENDAR, SHANGHAI, "2026-11-21") == ((at("2026-11-21 10:00"), at("2026-11-22 00:00")),)
    assert open_spans_ms(ALWAYS, CALENDAR, SHANGHAI, "2026-11-21") == (day_span_ms("2026-11-21"),)


@pytest.mark.parametrize(
    ("moment", "since"),
    [
        ("2026-11-18 08:59", None),
        ("2026-11-18 11:59", "2026-11-18 09:00"),
        ("2026-11-18 12:00", None),
        ("2026-11-18 16:00", "2026-11-18 13:30"),
        ("2026-11-21 11:00", None),
    ],
)
def test_open_since(moment: str, since: str | None) -> None:
    assert open_since_ms(HALL, CALENDAR, SHANGHAI, at(moment)) == (None if since is None else at(since))


def test_always_is_open_since_ever_and_never_is_not() -> None:
    assert open_since_ms(ALWAYS, CALENDAR, SHANGHAI, at("2026-11-21 03:00")) == 0
    assert open_since_ms(NEVER, CALENDAR, SHANGHAI, at("2026-11-18 10:00")) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense", "format"),
        ('{"mon":[["09:00"]]}', "format"),
        ('{"monday":[]}', "format"),
        ('{"mon":[["9:00","12:00"]]}', "time"),
        ('{"mon":[["09:00:30","12:00"]]}', "time"),
        ('{"mon":[["09:00","25:00"]]}', "time"),
        ('{"mon":[["12:00","09:00"]]}', "order"),
        ('{"mon":[["09:00","12:00"],["11:00","17:00"]]}', "order"),
    ],
)
def test_hours_that_cannot_be_meant_are_refused(text: str, reason: str) -> None:
    with pytest.raises(HoursError) as refused:
        parse_hours(text)
    assert refused.value.reason == reason


def test_local_days() -> None:
    assert local_day(at("2026-11-21 00:00")) == "2026-11-21"
    assert local_day(at("2026-11-21 00:00") - 1) == "2026-11-20"
    assert local_day(at("2026-11-21 00:00"), "Europe/Lisbon") == "2026-11-20"
    assert local_days(at("2026-11-20 23:00"), at("2026-11-21 00:00")) == ["2026-11-20"]
    assert local_days(at("2026-11-20 23:00"), at("2026-11-22 00:01")) == ["2026-11-20", "2026-11-21", "2026-11-22"]
    assert local_days(at("2026-11-20 23:00"), at("2026-11-20 23:00")) == ["2026-11-20"]


def test_a_day_with_a_clock_change_has_its_true_length() -> None:
    start, end = day_span_ms("2026-10-25", "Europe/Lisbon")
    assert end - start == 25 * 3_600_000


def test_an_unknown_zone_does_not_stop_figures() -> None:
    assert local_day(at("2026-11-21 00:00"), "Nowhere/Here") == "2026-11-21"
    assert local_time(at("2026-11-21 10:30")).strftime("%H:%M") == "10:30"


class TestDates:
    """Days that have hours of their own."""

    HOURS = parse_hours('{"mon": [["09:00", "17:00"]], "dates": {"2026-11-23": [], "2026-11-22": [["10:00", "12:00"]]}}')

    @pytest.mark.parametrize(
        ("day", "expected"),
        [("2026-11-16", ((540, 1020),)), ("2026-11-23", ()), ("2026-11-22", ((600, 720),)), ("2026-11-30", ((540, 1020),))],
    )
    def test_they_hold_on_their_day_alone(self, day: str, expected: tuple[tuple[int, int], ...]) -> None:
        assert periods(self.HOURS, builtin_calendar(), date.fromisoformat(day)) == expected

    def test_they_go_before_a_holiday_and_before_always_open(self) -> None:
        holiday = parse_hours('{"holiday": [["09:00", "10:00"]], "dates": {"2026-10-01": [["08:00", "09:00"]]}}')
        assert periods(holiday, builtin_calendar(), date(2026, 10, 1)) == ((480, 540),)
        assert periods(holiday, builtin_calendar(), date(2026, 10, 2)) == ((540, 600),)
        always = parse_hours('{"always": true, "dates": {"2026-10-01": []}}')
        assert periods(always, builtin_calendar(), date(2026, 10, 1)) == ()

    def test_a_site_that_never_closes_opens_again_after_such_a_day(self) -> None:
        always = parse_hours('{"always": true, "dates": {"2026-11-10": []}}')
        noon = day_span_ms("2026-11-10")[0] + DAY_MS // 2
        opened = day_span_ms("2026-11-10")[1]
        assert open_since_ms(always, builtin_calendar(), DEFAULT_ZONE, noon - DAY_MS) == 0
        assert open_since_ms(always, builtin_calendar(), DEFAULT_ZONE, noon) is None
        assert open_since_ms(always, builtin_calendar(), DEFAULT_ZONE, noon + DAY_MS) == opened
        assert open_since_ms(always, builtin_calendar(), DEFAULT_ZONE, noon + 9 * DAY_MS) == opened

    def test_the_class_of_a_case_follows_them(self) -> None:
        calendar = builtin_calendar()
        assert classify(self.HOURS, calendar, datetime.fromisoformat("2026-11-23 10:00")) is TimeClass.AFTER_HOURS
        assert classify(self.HOURS, calendar, datetime.fromisoformat("2026-11-22 11:00")) is TimeClass.WEEKEND

    @pytest.mark.parametrize("text", ['{"dates": {"tomorrow": []}}', '{"dates": {"2026-02-30": []}}'])
    def test_a_day_that_does_not_exist_is_refused(self, text: str) -> None:
        with pytest.raises(HoursError) as refused:
            parse_hours(text)
        assert refused.value.reason == "day"
