"""Import of a year's public holidays, through the database; the 2027 in here is invented."""

from __future__ import annotations

import json
from datetime import date, datetime

import pytest

from fleet_server.sites.calendar import TimeClass, builtin_calendar, classify, load_calendar, parse_hours
from fleet_server.sites.holidays import (
    HolidaysRefused,
    calendar_warning,
    import_holidays,
    missing_festivals,
    read_holidays,
    working_days,
)
from tests.support.facts import WORK_HOURS, FactBench

HALL = parse_hours(WORK_HOURS)
OFF_2027 = [
    ("元旦", "2027-01-01", "2027-01-03"),
    ("春节", "2027-02-05", "2027-02-11"),
    ("清明节", "2027-04-03", "2027-04-05"),
    ("劳动节", "2027-05-01", "2027-05-05"),
    ("端午节", "2027-06-09", "2027-06-09"),
    ("中秋节", "2027-09-15", "2027-09-15"),
    ("国庆节", "2027-10-01", "2027-10-07"),
]
WORK_2027 = ["2027-01-31", "2027-02-20", "2027-04-25", "2027-05-08", "2027-09-26", "2027-10-09"]


def invented_2027() -> str:
    return json.dumps({"off": [{"name_zh": n, "from": a, "to": b} for n, a, b in OFF_2027], "work": WORK_2027})


def as_csv(days: list[tuple[str, str]], header: str = "day,kind") -> str:
    return "\n".join([header, *(f"{day},{kind}" for day, kind in days)])


def refused(text: str, *, is_json: bool = False) -> str:
    with pytest.raises(HolidaysRefused) as caught:
        read_holidays(text, is_json=is_json)
    return str(caught.value)


class TestVectors:
    """2026 as published on 4 November 2025, taken from the built-in years and imported as a file."""

    @pytest.fixture
    def imported(self, bench: FactBench) -> FactBench:
        calendar = builtin_calendar()
        days = [(day.isoformat(), "off") for day in calendar.off if day.year == 2026]
        days += [(day.isoformat(), "work") for day in calendar.work if day.year == 2026]
        done = import_holidays(bench.conn, read_holidays("\ufeff" + as_csv(days), is_json=False))
        assert (done.years, done.working_days) == ((2026,), (248,))
        assert len(bench.rows("SELECT * FROM holiday")) == len(days)
        return bench

    @pytest.mark.parametrize(
        ("began", "expected"),
        [
            ("2026-02-14 10:00", TimeClass.WORK),
            ("2026-09-20 10:00", TimeClass.WORK),
            ("2026-02-23 10:00", TimeClass.HOLIDAY),
            ("2026-09-26 10:00", TimeClass.HOLIDAY),
            ("2026-10-17 10:00", TimeClass.WEEKEND),
            ("2026-09-26 12:30", TimeClass.HOLIDAY),
            ("2026-10-17 12:30", TimeClass.WEEKEND),
            ("2026-09-20 12:30", TimeClass.NOON),
            ("2026-09-20 08:30", TimeClass.BEFORE_HOURS),
            ("2026-09-20 17:00", TimeClass.AFTER_HOURS),
        ],
    )
    def test_class_of_a_case(self, imported: FactBench, began: str, expected: TimeClass) -> None:
        assert classify(HALL, load_calendar(imported.conn), datetime.fromisoformat(began)) is expected

    def test_five_working_days_after_the_eve_of_the_national_day(self, imported: FactBench) -> None:
        assert load_calendar(imported.conn).add_working_days(date(2026, 9, 30), 5) == date(2026, 10, 13)


def test_a_new_year_from_json_is_known_and_counts_at_once(bench: FactBench) -> None:
    bench.conn.execute("INSERT INTO terminal_day (terminal, day) VALUES ('kf-1', '2027-02-08'), ('kf-1', '2027-02-15')")
    assert load_calendar(bench.conn).missing_years(date(2026, 12, 1)) == (2027,)
    done = import_holidays(bench.conn, read_holidays(invented_2027(), is_json=True))
    assert done.years == (2027,)
    calendar = load_calendar(bench.conn)
    assert calendar.missing_years(date(2026, 12, 1)) == ()
    assert calendar.kind(date(2027, 2, 8)) == "holiday"
    assert calendar.kind(date(2027, 2, 20)) == "work"
    assert working_days(calendar, 2027) == done.working_days[0] == 250
    assert bench.one("SELECT name_zh FROM holiday WHERE day = '2027-06-09'") == ("端午节",)
    assert bench.rows("SELECT day FROM dirty_day") == [("2027-02-08",)]


def test_chinese_headings_and_dates_with_slashes_read_the_same(bench: FactBench) -> None:
    days = [(one.day, one.kind) for one in read_holidays(invented_2027(), is_json=True)]
    rows = [(f"{day.year}/{day.month}/{day.day}", "休" if kind == "off" else "班") for day, kind in days]
    assert [(one.day, one.kind) for one in read_holidays(as_csv(rows, "日期,类型"), is_json=False)] == days


@pytest.mark.parametrize("gone", [name for name, _, _ in OFF_2027])
def test_a_year_without_one_festival_is_not_complete_and_nothing_is_written(bench: FactBench, gone: str) -> None:
    text = json.dumps({"off": [{"from": a, "to": b} for n, a, b in OFF_2027 if n != gone], "work": WORK_2027})
    with pytest.raises(HolidaysRefused, match="2027: "):
        import_holidays(bench.conn, read_holidays(text, is_json=True))
    assert bench.rows("SELECT * FROM holiday") == []


def test_a_year_without_its_make_up_days_is_not_complete(bench: FactBench) -> None:
    many = [{"from": f"2027-{month}-01", "to": f"2027-{month}-05"} for month in ("03", "07", "11")]
    text = json.dumps({"off": [*({"from": a, "to": b} for _, a, b in OFF_2027), *many]})
    with pytest.raises(HolidaysRefused, match="working days"):
        import_holidays(bench.conn, read_holidays(text, is_json=True))


def test_one_day_corrects_a_known_year_and_cannot_start_a_new_one(bench: FactBench) -> None:
    import_holidays(bench.conn, read_holidays("day,kind\n2026-11-23,off", is_json=False))
    assert load_calendar(bench.conn).kind(date(2026, 11, 23)) == "holiday"
    with pytest.raises(HolidaysRefused, match="New Year has 0"):
        import_holidays(bench.conn, read_holidays("day,kind\n2027-05-01,off", is_json=False))


def test_the_built_in_years_are_complete() -> None:
    assert [missing_festivals(builtin_calendar(), year) for year in (2025, 2026)] == [[], []]


def test_what_cannot_be_read_is_named_line_by_line() -> None:
    problem = refused("day,kind\n2027-02-30,off\n2027-01-01,maybe\n2027-01-01,off\n2027-01-01,off\n2027-01-04,work")
    for part in ("line 2: no day", "line 3: kind", "2027-01-01 is there more than once", "2027-01-04 is a weekday"):
        assert part in problem


@pytest.mark.parametrize(
    ("text", "is_json", "reason"),
    [
        ("a,b\n1,2", False, "header"),
        ("", False, "header"),
        ("day,kind\n", False, "no day"),
        ("{", True, "not JSON"),
        ("[]", True, "lists off and work"),
        ('{"off": [{"from": "2027-01-01", "to": "2027-12-31"}]}', True, "one holiday"),
        ('{"off": [{"from": "2027-01-03", "to": "2027-01-01"}]}', True, "one holiday"),
        ('{"work": 7}', True, "no day like"),
    ],
)
def test_other_files_are_refused(text: str, is_json: bool, reason: str) -> None:
    assert reason in refused(text, is_json=is_json)


def test_the_warning_comes_on_the_first_of_december_and_names_the_year() -> None:
    calendar = builtin_calendar()
    assert calendar_warning(calendar, date(2026, 11, 30)) is None
    assert "缺少 2027 年" in (calendar_warning(calendar, date(2026, 12, 1)) or "")
    assert "holidays of 2027 are missing" in (calendar_warning(calendar, date(2026, 12, 1), "en") or "")
    assert "2027 and 2028" in (calendar_warning(calendar, date(2027, 12, 1), "en") or "")
