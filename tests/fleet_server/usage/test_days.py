"""Figures of a day: whole from facts, in any order of events, with the time in which nobody could see left out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.presence.watch import PresenceWatch
from fleet_server.usage.days import Interval, Observed, availability, down_spans, recompute_some, tally
from protocols.contract.records import Body, Rating, Serviceability, Session
from tests.support.facts import FactBench, Run

HOUR, MINUTE = 3_600_000, 60_000
MIDNIGHT = 1_779_984_000_000
"""2026-05-29 00:00 in Shanghai; the hall is open 9:00 to 12:00 and 13:30 to 17:00."""
NINE, NOON, HALF_ONE, FIVE = (MIDNIGHT + hour * HOUR // 2 for hour in (18, 24, 27, 34))
OPEN = [(NINE, NOON), (HALF_ONE, FIVE)]
OPEN_S = 6 * 3600 + 1800
DAY = "2026-05-29"


def usable(from_ms: int, to_ms: int, *, unusable_s: int = 0) -> Observed:
    return Observed(from_ms, to_ms, (to_ms - from_ms) // 1000 - unusable_s, 0, unusable_s)


class TestTally:
    def test_only_opening_hours_count(self) -> None:
        found = tally(OPEN, [usable(MIDNIGHT, NINE), usable(NINE, NOON), usable(NOON, HALF_ONE), usable(HALF_ONE, FIVE)], [])
        assert (found.scheduled_s, found.usable_s, found.observed_s) == (OPEN_S, OPEN_S, OPEN_S)

    def test_a_summary_of_a_whole_day_counts_by_its_share(self) -> None:
        found = tally(OPEN, [usable(MIDNIGHT, MIDNIGHT + 24 * HOUR, unusable_s=8640)], [])
        assert found.usable_s == pytest.approx(OPEN_S * 0.9, abs=1)
        assert found.unusable_s == pytest.approx(OPEN_S * 0.1, abs=1)

    def test_offline_and_stopped_count_against_the_terminal_with_the_suspicion_before(self) -> None:
        presence = [
            Interval(NINE, NINE + HOUR, "online"),
            Interval(NINE + HOUR, NINE + HOUR + 4 * MINUTE, "suspect"),
            Interval(NINE + HOUR + 4 * MINUTE, NOON + HOUR, "offline"),
            Interval(NOON + HOUR, FIVE, "online"),
        ]
        found = tally(OPEN, [usable(NINE, NINE + HOUR), usable(HALF_ONE, FIVE)], presence)
        assert (found.silent_s, found.blind_s) == (2 * 3600, 0)
        assert found.observed_s + found.silent_s == OPEN_S

    def test_a_suspicion_that_was_not_confirmed_costs_nothing(self) -> None:
        presence = [
            Interval(NINE, NINE + MINUTE, "suspect"),
            Interval(NINE + MINUTE, NOON, "online"),
            Interval(NOON, FIVE, "stopped"),
        ]
        assert down_spans(presence) == [(NOON, FIVE)]

    def test_what_the_terminal_observed_itself_outweighs_the_servers_silence(self) -> None:
        presence = [Interval(NINE, NOON, "offline"), Interval(HALF_ONE, FIVE, "unknown")]
        found = tally(OPEN, [usable(NINE, NOON), usable(HALF_ONE, HALF_ONE + HOUR)], presence)
        assert (found.silent_s, found.blind_s) == (0, 9000)
        assert found.usable_s == 4 * 3600

    def test_a_partly_observed_span_leaves_the_rest_open(self) -> None:
        found = tally(OPEN, [Observed(NINE, NOON, 5400, 0, 0)], [Interval(NINE, NOON, "offline")])
        assert (found.usable_s, found.silent_s) == (5400, 5400)

    @given(
        st.lists(
            st.tuples(st.integers(0, 96), st.integers(0, 900), st.integers(0, 900), st.integers(0, 900)),
            max_size=20,
            unique_by=lambda row: row[0],
        ),
        st.lists(
            st.tuples(st.integers(1, 200), st.sampled_from(["online", "suspect", "offline", "stopped", "unknown"])), max_size=20
        ),
    )
    def test_known_time_never_exceeds_opening_hours(
        self, quarters: list[tuple[int, int, int, int]], steps: list[tuple[int, str]]
    ) -> None:
        observed = []
        for quarter, first, second, third in quarters:
            total = max(900, first + second + third)
            start = MIDNIGHT + quarter * 15 * MINUTE
            parts = [part * 900 // total for part in (first, second, third)]
            observed.append(Observed(start, start + 15 * MINUTE, *parts))
        at_ms, presence = MIDNIGHT, []
        for minutes, state in steps:
            presence.append(Interval(at_ms, at_ms + minutes * MINUTE, state))
            at_ms += minutes * MINUTE
        found = tally(OPEN, observed, presence)
        assert 0 <= found.observed_s + found.silent_s + found.blind_s <= OPEN_S + 5


def test_availability_leaves_blind_time_out_and_says_nothing_without_knowledge() -> None:
    assert availability(usable_s=0, partial_s=0, unusable_s=0, silent_s=0) is None
    assert availability(usable_s=80, partial_s=10, unusable_s=5, silent_s=5) == pytest.approx(0.9)


class TestDays:
    def send(
        self, bench: FactBench, run: Run, *records: tuple[Body, int], received_ms: int | None = None, disputed: bool = False
    ) -> None:
        at_ms = max(at for _, at in records) if received_ms is None else received_ms
        bench.arrive(run.send([run.capture(body, at) for body, at in records], at_ms, disputed=disputed))

    def case(self, n: int, at_ms: int, *, outcome: str = "success", item: str = "tax.print") -> tuple[Body, int]:
        body = Session(
            id=n.to_bytes(16, "big"),
            item=item,
            outcome=outcome,  # type: ignore[arg-type]
            began_ms=at_ms - 60_000,
            duration_ms=60_000,
        )
        return body, at_ms

    def figures(self, bench: FactBench, day: str = DAY) -> tuple[object, ...]:
        return bench.one(
            "SELECT sessions, success, failed, abandoned, query_count, duration_ms_sum, ratings FROM terminal_day WHERE day = ?",
            day,
        )

    def settle(self, bench: FactBench, now_ms: int = MIDNIGHT + 30 * HOUR) -> None:
        while recompute_some(bench.conn, 2, now_ms):
            pass

    def test_cases_and_ratings_of_a_day(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=MIDNIGHT)
        self.send(
            bench,
            run,
            self.case(1, NINE),
            self.case(2, NOON, outcome="failed"),
            self.case(3, NOON + 1, outcome="abandoned"),
            self.case(4, FIVE, item="housing-fund.balance.query"),
            (Rating(level=5), FIVE),
            (Rating(level=5), FIVE + 1),
            (Rating(level=0), FIVE + 2),
        )
        self.settle(bench)
        assert self.figures(bench) == (4, 2, 1, 1, 1, 240_000, json.dumps({"0": 1, "5": 2}))
        assert bench.rows("SELECT * FROM dirty_day") == []

    def test_late_and_repeated_facts_come_out_right(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=MIDNIGHT)
        self.send(bench, run, self.case(1, NINE))
        self.settle(bench)
        self.send(bench, run, self.case(1, NINE), self.case(2, NOON), received_ms=MIDNIGHT + 72 * HOUR)
        self.settle(bench)
        assert self.figures(bench)[0] == 2

    def test_disputed_facts_do_not_count(self, bench: FactBench) -> None:
        self.send(bench, Run("kf-1", 1, up_ms=MIDNIGHT), self.case(1, NINE))
        self.send(bench, Run("kf-1", 2, up_ms=MIDNIGHT), self.case(2, NINE), disputed=True)
        self.settle(bench)
        assert self.figures(bench)[0] == 1

    def test_a_case_of_a_month_is_a_clock_error(self, bench: FactBench) -> None:
        body = Session(id=bytes(16), item="tax.print", outcome="success", began_ms=NINE, duration_ms=2**53 - 1)
        self.send(bench, Run("kf-1", 1, up_ms=MIDNIGHT), (body, NOON))
        self.settle(bench)
        assert self.figures(bench)[5] == 24 * HOUR

    def test_the_newest_day_comes_first(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=MIDNIGHT)
        for days in range(4):
            self.send(bench, run, self.case(days, NINE + days * 24 * HOUR))
        assert recompute_some(bench.conn, 1, MIDNIGHT + 99 * HOUR) == 1
        assert bench.rows("SELECT day FROM terminal_day") == [("2026-06-01",)]
        assert recompute_some(bench.conn, 10, MIDNIGHT + 99 * HOUR) == 3
        assert recompute_some(bench.conn, 10, MIDNIGHT + 99 * HOUR) == 0

    def test_today_counts_up_to_now(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=MIDNIGHT)
        body = Serviceability(from_ms=NINE, to_ms=NINE + HOUR, observed_s=3600, usable_s=3600, partial_s=0, unusable_s=0)
        self.send(bench, run, (body, NINE + HOUR))
        self.settle(bench, NINE + 2 * HOUR)
        assert bench.one("SELECT scheduled_s, usable_s FROM terminal_day") == (7200, 3600)

    def test_a_summary_over_midnight_counts_on_both_days(self, bench: FactBench) -> None:
        bench.add_site("S1", '{"always":true}')
        run = Run("kf-1", 1, up_ms=MIDNIGHT)
        end_ms = MIDNIGHT + 25 * HOUR
        body = Serviceability(
            from_ms=MIDNIGHT + 23 * HOUR, to_ms=end_ms, observed_s=7200, usable_s=7200, partial_s=0, unusable_s=0
        )
        self.send(bench, run, (body, end_ms))
        self.settle(bench)
        assert bench.rows("SELECT day, usable_s FROM terminal_day ORDER BY day") == [("2026-05-29", 3600), ("2026-05-30", 3600)]

    def test_a_terminal_without_a_site_has_cases_and_no_hours(self, bench: FactBench) -> None:
        bench.conn.execute("UPDATE terminal SET site = 'nowhere'")
        self.send(bench, Run("kf-1", 1, up_ms=MIDNIGHT), self.case(1, NINE))
        self.settle(bench)
        assert bench.one("SELECT sessions, scheduled_s FROM terminal_day") == (1, 0)

    def test_a_broker_outage_costs_no_availability_and_is_reported(self, bench: FactBench) -> None:
        now = NINE
        watch = PresenceWatch.load(bench.conn, now)
        watch.broker(True, now)

        def run(span_ms: int, *, beating: bool) -> None:
            nonlocal now
            for _ in range(span_ms // 10_000):
                now += 10_000
                if beating:
                    watch.heard("kf-1", "heartbeat", now)
                watch.keep(bench.conn, now)

        run(30 * MINUTE, beating=True)
        watch.broker(False, now)
        run(30 * MINUTE, beating=False)
        watch.broker(True, now)
        run(30 * MINUTE, beating=True)
        run(30 * MINUTE, beating=False)
        watch.heard("kf-1", "heartbeat", now)
        run(10_000, beating=True)
        agent = Run("kf-1", 1, up_ms=MIDNIGHT)
        for start in (NINE, NINE + 60 * MINUTE):
            body = Serviceability(
                from_ms=start, to_ms=start + 30 * MINUTE, observed_s=1800, usable_s=1800, partial_s=0, unusable_s=0
            )
            self.send(bench, agent, (body, now))
        self.settle(bench, now)
        usable_s, silent_s, blind_s = bench.one("SELECT usable_s, silent_s, blind_s FROM terminal_day WHERE day = ?", DAY)
        assert usable_s == 3600
        assert blind_s == pytest.approx(1800, abs=20)
        assert silent_s == pytest.approx(1800 - 90, abs=20)
