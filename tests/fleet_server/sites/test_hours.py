"""Opening hours by day: replaced hours still hold for the days before."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from fleet_server.enrolment.registry import import_sites
from fleet_server.errors import Refused
from fleet_server.sites.calendar import NEVER, Hours, day_span_ms, parse_hours
from fleet_server.sites.hours import hours_of_terminal, keep_replaced_hours, load_hours
from fleet_server.usage.days import recompute_some
from protocols.contract.records import Session
from tests.support.facts import WORK_HOURS, FactBench, Run

LATE = '{"mon":[["12:00","20:00"]],"tue":[["12:00","20:00"]]}'
EARLY = '{"mon":[["07:00","11:00"]],"tue":[["07:00","11:00"]]}'
SHANGHAI = timezone(timedelta(hours=8))


def change(bench: FactBench, hours: str, today: str, **more: str) -> int:
    rows = [{"code": "S1", "area": "A", "hours": hours, **more}]
    kept = keep_replaced_hours(bench.conn, rows, today)
    import_sites(bench.conn, [], rows)
    return kept


def held(bench: FactBench, day: str) -> Hours:
    one = hours_of_terminal(bench.conn, "kf-1", day)
    assert load_hours(bench.conn, ["S1"])["S1"].on(day) == one
    return one


def test_new_hours_hold_from_today_and_the_old_ones_before(bench: FactBench) -> None:
    assert change(bench, LATE, "2026-06-10") == 1
    assert held(bench, "2026-06-09") == parse_hours(WORK_HOURS)
    assert held(bench, "2026-06-10") == parse_hours(LATE)


def test_several_changes_each_hold_in_their_time(bench: FactBench) -> None:
    change(bench, LATE, "2026-06-10")
    change(bench, EARLY, "2026-06-20")
    assert [held(bench, day) for day in ("2026-06-09", "2026-06-19", "2026-06-20")] == [
        parse_hours(WORK_HOURS),
        parse_hours(LATE),
        parse_hours(EARLY),
    ]


def test_two_changes_on_one_day_leave_what_held_the_day_before(bench: FactBench) -> None:
    change(bench, LATE, "2026-06-10")
    change(bench, EARLY, "2026-06-10")
    assert held(bench, "2026-06-09") == parse_hours(WORK_HOURS)
    assert held(bench, "2026-06-10") == parse_hours(EARLY)


def test_hours_may_start_on_an_earlier_day_and_push_later_ones_out(bench: FactBench) -> None:
    change(bench, LATE, "2026-06-10")
    change(bench, EARLY, "2026-06-20", hours_from="2026-06-05")
    assert held(bench, "2026-06-04") == parse_hours(WORK_HOURS)
    assert held(bench, "2026-06-05") == parse_hours(EARLY)
    assert held(bench, "2026-06-12") == parse_hours(EARLY)


def test_the_same_hours_and_the_first_hours_of_a_site_leave_no_trace(bench: FactBench) -> None:
    assert change(bench, WORK_HOURS.replace(",", ", "), "2026-06-10") == 0
    bench.conn.execute("UPDATE site SET hours = '{}' WHERE code = 'S1'")
    assert change(bench, LATE, "2026-06-10") == 0
    assert bench.rows("SELECT * FROM site_hours") == []


@pytest.mark.parametrize(("day", "reason"), [("2026-06-11", "future"), ("yesterday", "day")])
def test_a_day_that_cannot_be_is_refused(bench: FactBench, day: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        change(bench, LATE, "2026-06-10", hours_from=day)
    assert refused.value.reason == reason


def test_a_terminal_without_a_site_is_never_open(bench: FactBench) -> None:
    bench.add_terminal("kf-2", site="nowhere")
    assert hours_of_terminal(bench.conn, "kf-2", "2026-06-09") == NEVER


def test_a_past_day_computed_again_keeps_its_own_hours(bench: FactBench) -> None:
    """2026-06-02 is a Tuesday: 6.5 hours under the old pattern, 8 under the new."""
    run, at_ms = (
        Run("kf-1", 1, up_ms=day_span_ms("2026-06-01")[0]),
        int(datetime(2026, 6, 2, 10, tzinfo=SHANGHAI).timestamp() * 1000),
    )

    def told(n: int, at: int) -> None:
        body = Session(id=n.to_bytes(16, "big"), item="tax.print", outcome="success", began_ms=at, duration_ms=60_000)
        bench.arrive(run.send([run.capture(body, at + 60_000)], at + 60_000))
        while recompute_some(bench.conn, 10, at_ms + 30 * 86_400_000):
            pass

    told(1, at_ms)
    change(bench, LATE, "2026-06-09")
    told(2, at_ms)
    told(3, at_ms + 7 * 86_400_000)
    assert bench.rows("SELECT day, sessions, scheduled_s FROM terminal_day ORDER BY day") == [
        ("2026-06-02", 2, 23_400),
        ("2026-06-09", 1, 28_800),
    ]


def test_days_from_the_change_on_are_computed_again(bench: FactBench) -> None:
    bench.conn.executemany(
        "INSERT INTO terminal_day (terminal, day) VALUES ('kf-1', ?)", [("2026-06-04",), ("2026-06-05",), ("2026-06-06",)]
    )
    change(bench, LATE, "2026-06-10", hours_from="2026-06-05")
    assert bench.rows("SELECT day FROM dirty_day ORDER BY day") == [("2026-06-05",), ("2026-06-06",)]
