"""Figures by hand: what each counts, and what it must not."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_server.errors import Refused
from fleet_server.figures.board import OFF_HOURS
from fleet_server.figures.facts import weigh_contact
from fleet_server.figures.opening import OpenTime
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.sites.hours import keep_replaced_hours
from protocols.canon.words import Severity
from tests.fleet_server.figures.conftest import DAY, HOUR, JUNE, NOW, Town, at


class TestPeriod:
    def test_a_month_knows_its_neighbours(self) -> None:
        assert Period.month("2026-03") == Period("2026-03-01", "2026-03-31")
        assert Period.month("2026-01").before() == Period.month("2025-12")
        assert Period.month("2026-12").days == 31
        assert Period.month("2026-03").year_before() == Period.month("2025-03")
        assert Period.month("2024-02").year_before() == Period.month("2023-02")

    def test_other_spans_are_compared_with_as_many_days_before(self) -> None:
        assert Period("2026-03-05", "2026-03-11").before() == Period("2026-02-26", "2026-03-04")
        assert Period("2024-02-28", "2024-02-29").year_before() == Period("2023-02-28", "2023-02-28")

    @pytest.mark.parametrize(
        "days", [("2026-06-02", "2026-06-01"), ("2026-6-1", "2026-06-02"), ("20260601", "2026-06-02"), ("x", "y")]
    )
    def test_what_is_no_span_of_days_is_refused(self, days: tuple[str, str]) -> None:
        with pytest.raises(Refused):
            Period(*days)

    def test_a_month_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(Refused):
            Period.month("2026-13")


class TestPopulation:
    def test_in_service_on_at_least_one_day(self, town: Town) -> None:
        town.terminal("always")
        town.terminal("first-minute-gone", until="2026-06-01 00:00")
        town.terminal("gone-before", until="2026-05-31 23:59")
        town.terminal("last-minute-new", since="2026-06-30 23:59")
        town.terminal("new-after", since="2026-07-01 00:00")
        town.conn.execute(
            "INSERT INTO terminal (id, code, type, name_zh, name_en, site, created_ms) VALUES ('never', '', '', '', '', 'hall-e', 0)"
        )
        population = town.board().population
        assert {one.id: one.machine_days for one in population.members} == {
            "always": 30,
            "first-minute-gone": 1,
            "last-minute-new": 1,
        }
        assert set(population.outside) == {"gone-before", "new-after", "never"}

    def test_a_running_period_counts_the_days_that_have_begun(self, town: Town) -> None:
        town.terminal("a")
        board = town.board(now_ms=at("06-10 00:30"))
        assert (board.population.elapsed_days, board.members[0].machine_days) == (10, 10)
        assert town.board(now_ms=at("05-31 23:00")).members == ()

    def test_scope_is_area_subtree_site_type_terminal_and_all_of_them(self, town: Town) -> None:
        town.terminal("e1", "hall-e")
        town.terminal("e2", "far", type="desk")
        town.terminal("w1", "hall-w")
        town.terminal("nowhere", "no-such-site")

        def ids(**scope: Any) -> set[str]:
            return {one.id for one in town.board(scope=Scope(**scope)).members}

        assert ids() == {"e1", "e2", "w1", "nowhere"}
        assert ids(area="city") == {"e1", "e2", "w1"}
        assert ids(area="east") == {"e1", "e2"}
        assert ids(area="far-east") == {"e2"}
        assert ids(site="hall-w") == {"w1"}
        assert ids(type="desk", area="east") == {"e2"}
        assert ids(type="desk", area="west") == set()
        assert ids(terminal="w1") == {"w1"}

    def test_local_days_are_those_of_the_site(self, town: Town) -> None:
        town.site("urumqi", "west", zone="Asia/Urumqi")
        town.terminal("u", "urumqi", since="2026-07-01 01:00")
        assert town.board().members[0].machine_days == 1


class TestCases:
    def test_all_ways_of_counting_add_up(self, town: Town) -> None:
        town.terminal("a")
        town.terminal("b", "zone24")
        town.case("a", "06-09 10:00")
        town.case("a", "06-09 10:30", "failed")
        town.case("b", "06-09 23:59", item="social.proof")
        town.case("b", "06-30 23:59", "abandoned", item="social.proof")
        town.case("b", "07-01 00:00")
        board = town.board()
        assert (board.cases().value, board.cases_success().value) == (4, 2)
        assert board.success_rate().value == 0.5
        assert {one.key: one.numerator for one in board.by_outcome()} == {"success": 2, "failed": 1, "abandoned": 1}
        assert [(one.key, one.numerator) for one in board.by_item()] == [("social.proof", 2), ("tax.print", 2)]
        assert [(one.key, one.numerator) for one in board.by_terminal()] == [("a", 2), ("b", 2)]
        assert {one.key: one.numerator for one in board.by_hour() if one.numerator} == {"10": 2, "23": 2}
        assert board.success_by_item()["social.proof"].value == 0.5

    def test_disputed_cases_do_not_count(self, town: Town) -> None:
        town.terminal("a")
        town.case("a", "06-09 10:00")
        town.case("a", "06-09 11:00", disputed=True)
        assert town.board().cases().value == 1

    def test_cases_of_terminals_not_in_service_are_told_apart(self, town: Town) -> None:
        town.terminal("gone", until="2026-05-31 12:00")
        town.terminal("a")
        town.case("gone", "06-02 10:00")
        figure = town.board().cases()
        assert (figure.value, figure.shown) == (0, {"outside": 1})

    def test_share_with_cases_needs_a_successful_one(self, town: Town) -> None:
        for n in range(4):
            town.terminal(f"t{n}")
        town.case("t0", "06-09 10:00")
        town.case("t1", "06-09 10:00", "failed")
        board = town.board()
        share, zero = board.active_share(), board.zero_terminals()
        assert (share.numerator, share.denominator, share.value) == (1, 4, 0.25)
        assert zero.numerator == 3 == zero.population - share.numerator

    def test_without_terminals_there_is_no_ratio(self, town: Town) -> None:
        board = town.board()
        assert [one.value for one in (board.active_share(), board.success_rate(), board.cases_per_terminal())] == [None] * 3
        assert board.cases().value == 0

    def test_means_are_weighted_by_machine_days(self, town: Town) -> None:
        """A machine that came on the 21st has a third of the weight: 40 cases on 40 machine-days are 30 in a month, not 20."""
        town.terminal("old")
        town.terminal("new", since="2026-06-21 08:00")
        for n in range(30):
            town.case("old", at("06-01 10:00") + n * DAY)
        for n in range(10):
            town.case("new", at("06-21 10:00") + n * DAY)
        board = town.board()
        figure = board.cases_per_terminal()
        assert (figure.numerator, figure.denominator, figure.value) == (40, 40, 30)
        assert board.cases_per_terminal_day().value == 1
        assert board.cases_per_terminal_year().value == 365

    def test_a_running_month_is_annualised_over_its_elapsed_days(self, town: Town) -> None:
        town.terminal("a")
        for day in range(1, 11):
            town.case("a", f"06-{day:02} 10:00")
        board = town.board(now_ms=at("06-10 20:00"))
        assert (board.cases_per_terminal().value, board.cases_per_terminal_year().value) == (10, 365)


class TestZeroList:
    def test_longest_ago_first_never_before_that_and_repairs_are_marked(self, town: Town) -> None:
        for name in ("never", "may", "april", "broken", "silent", "kept", "busy"):
            town.terminal(name)
        town.case("may", "05-30 10:00")
        town.case("april", "04-30 10:00")
        town.case("april", "05-20 10:00", "failed")
        town.case("busy", "06-30 16:00")
        town.case("kept", "07-05 10:00")
        town.fault("broken", "06-02 10:00", None)
        town.fault("may", "06-02 10:00", None, severity=Severity.P3)
        town.conn.execute(
            "INSERT INTO fault (id, terminal, code, severity, mandatory, opened_ms, since_ms, disputed, late, source, false_alarm)"
            " VALUES ('x', 'silent', 'NET.OFFLINE', 'P2', 1, 0, 0, 0, 0, 'platform', 0)"
        )
        town.conn.execute(
            "INSERT INTO desired_report (terminal, counter, state, reason, config_version, locked, at_ms, received_ms, batch, idx, disputed)"
            " VALUES ('never', 1, 'applied', 'none', 0, 1, 0, 0, 1, 0, 0)"
        )
        town.conn.execute("UPDATE terminal SET maintenance_until_ms = ? WHERE id = 'april'", (NOW + HOUR,))
        town.conn.execute("UPDATE terminal SET maintenance_until_ms = ? WHERE id = 'may'", (NOW - HOUR,))
        rows = town.board().zero_list()
        assert [(row.member.id, row.days_since, row.mark) for row in rows] == [
            ("broken", None, "fault"),
            ("kept", None, ""),
            ("never", None, "locked"),
            ("silent", None, "offline"),
            ("april", 61, "maintenance"),
            ("may", 31, ""),
        ]

    def test_a_retired_machine_says_so(self, town: Town) -> None:
        town.terminal("gone", until="2026-06-15 12:00")
        assert [row.mark for row in town.board().zero_list()] == ["retired"]


class TestOffHours:
    @pytest.mark.parametrize(
        ("when", "expected"),
        [
            ("06-19 10:00", "HOLIDAY"),
            ("06-20 12:30", "HOLIDAY"),
            ("06-13 10:00", "WEEKEND"),
            ("06-09 12:30", "NOON"),
            ("06-09 08:59", "BEFORE_HOURS"),
            ("06-09 17:00", "AFTER_HOURS"),
            ("06-09 13:30", "WORK"),
        ],
    )
    def test_a_case_is_in_exactly_one_class(self, town: Town, when: str, expected: str) -> None:
        town.terminal("a")
        town.case("a", when)
        board = town.board()
        assert {one.key: one.numerator for one in board.by_class() if one.numerator} == {expected: 1}
        assert board.offhours_share().numerator == int(expected in {one.value for one in OFF_HOURS})

    def test_hours_are_those_of_the_day_not_of_today(self, town: Town) -> None:
        """Late hours from the 10th on: 18:00 is after hours on the 9th and working time on the 10th."""
        town.terminal("a")
        late = '{"tue": [["12:00", "20:00"]], "wed": [["12:00", "20:00"]]}'
        keep_replaced_hours(town.conn, [{"code": "hall-e", "hours": late}], "2026-06-10")
        town.conn.execute("UPDATE site SET hours = ? WHERE code = 'hall-e'", (late,))
        for day in ("06-09", "06-10"):
            town.case("a", f"{day} 18:00")
        counts = {one.key: one.numerator for one in town.board().by_class() if one.numerator}
        assert counts == {"AFTER_HOURS": 1, "WORK": 1}

    def test_a_site_elsewhere_has_its_own_clock(self, town: Town) -> None:
        town.site("urumqi", "west", '{"tue": [["10:00", "18:00"]]}', zone="Asia/Urumqi")
        town.terminal("u", "urumqi")
        town.case("u", "06-09 19:30")
        board = town.board()
        assert {one.key: one.numerator for one in board.by_class() if one.numerator} == {"WORK": 1}
        assert {one.key: one.numerator for one in board.by_hour() if one.numerator} == {"17": 1}


TUESDAY = Period("2026-06-09", "2026-06-09")
OPEN_S = int(6.5 * 3600)


class TestOnline:
    def test_offline_counts_inside_opening_hours_with_the_suspicion_before(self, town: Town) -> None:
        town.terminal("a")
        town.presence(
            "a", ("online", "06-01 00:00"), ("suspect", "06-09 11:00"), ("offline", "06-09 11:30"), ("online", "06-09 14:00")
        )
        figure = town.board(TUESDAY).online_rate()
        assert figure.shown == {"offline_s": 3600 + 1800}
        assert (figure.numerator, figure.denominator) == (OPEN_S - 5400, OPEN_S)

    def test_a_suspicion_that_passed_is_online(self, town: Town) -> None:
        town.terminal("a")
        town.presence("a", ("online", "06-01 00:00"), ("suspect", "06-09 11:00"), ("online", "06-09 11:30"))
        assert town.board(TUESDAY).online_rate().value == 1

    def test_blind_time_is_in_neither_and_told(self, town: Town) -> None:
        town.terminal("a")
        town.presence("a", ("online", "06-01 00:00"), ("unknown", "06-09 10:00"), ("online", "06-09 11:00"))
        figure = town.board(TUESDAY).online_rate()
        assert (figure.numerator, figure.denominator, figure.shown) == (OPEN_S - 3600, OPEN_S - 3600, {"blind_s": 3600})

    def test_time_without_presence_is_unknown_not_good(self, town: Town) -> None:
        town.terminal("a")
        figure = town.board(TUESDAY).online_rate()
        assert (figure.value, figure.shown) == (None, {"unwatched_s": OPEN_S})
        town.presence("a", ("online", "06-09 16:00"))
        figure = town.board(TUESDAY).online_rate()
        assert (figure.denominator, figure.shown) == (3600, {"unwatched_s": OPEN_S - 3600})

    def test_time_before_enrolment_and_after_now_is_not_asked_for(self, town: Town) -> None:
        town.terminal("a", since="2026-06-09 11:00")
        town.presence("a", ("online", "06-09 11:00"))
        assert town.board(TUESDAY, now_ms=at("06-09 14:30")).online_rate().denominator == 2 * 3600

    def test_parts_of_contact_add_up_to_opening_time(self) -> None:
        spans = OpenTime([(0, 10_000), (20_000, 40_000)])
        intervals = [
            (1, -5_000, 4_000, "online"),
            (2, 4_000, 8_000, "suspect"),
            (3, 8_000, 22_000, "offline"),
            (4, 22_000, 25_000, "unknown"),
            (5, 25_000, 26_000, "suspect"),
            (6, 26_000, 27_000, "stopped"),
            (7, 27_000, 30_000, "online"),
        ]
        found = weigh_contact(intervals, spans, 1_000, 38_000)
        assert (found.online_s, found.offline_s, found.blind_s, found.unwatched_s) == (3 + 1 + 3, 4 + 4 + 1, 3, 8)
        assert [one.id for one in found.down] == [2, 3, 6]


class TestAvailability:
    def test_silence_counts_against_it_and_blind_time_does_not(self, town: Town) -> None:
        town.terminal("a")
        town.presence(
            "a", ("online", "06-01 00:00"), ("offline", "06-09 13:30"), ("unknown", "06-09 15:00"), ("online", "06-09 17:00")
        )
        town.served("a", "06-09 09:00", "06-09 12:00", usable_s=7_200, partial_s=1_800, unusable_s=1_800)
        town.settle()
        figure = town.board(TUESDAY).availability()
        assert (figure.numerator, figure.denominator) == (9_000, 10_800 + 5_400)
        assert figure.shown == {"partial_s": 1_800, "unusable_s": 1_800, "silent_s": 5_400, "blind_s": 7_200}

    def test_days_still_to_be_computed_are_told(self, town: Town) -> None:
        town.terminal("a")
        town.served("a", "06-09 09:00", "06-09 12:00", usable_s=60)
        figure = town.board(TUESDAY).availability()
        assert (figure.value, figure.shown) == (None, {"pending_days": 1})


class TestIntact:
    """The 9th is a Tuesday: checks at 09:00 and 15:00."""

    def rate(self, town: Town) -> tuple[int, int | None, dict[str, int]]:
        figure = town.board(TUESDAY).intact_rate()
        return figure.numerator, figure.denominator, dict(figure.shown)

    def test_a_mandatory_fault_at_the_moment_of_a_check(self, town: Town) -> None:
        for name in ("well", "broken", "optional", "between", "notice", "software"):
            town.terminal(name)
            town.presence(name, ("online", "06-01 00:00"))
        town.fault("broken", "06-08 10:00", "06-09 15:00")
        town.fault("optional", "06-08 10:00", None, mandatory=False)
        town.fault("between", "06-09 09:01", "06-09 14:59")
        town.fault("notice", "06-08 10:00", None, severity=Severity.P4, code="PRN.PAPER_NEAR_END")
        town.fault("software", "06-08 10:00", None, code="APP.CRASH", slot=None)
        assert self.rate(town) == (11, 12, {})

    def test_what_nobody_could_tell_is_in_neither(self, town: Town) -> None:
        for name in ("lost", "told", "blind"):
            town.terminal(name)
        town.presence("lost", ("offline", "06-01 00:00"))
        town.presence("told", ("offline", "06-01 00:00"))
        town.presence("blind", ("online", "06-01 00:00"), ("unknown", "06-09 14:00"))
        town.served("told", "06-09 08:55", "06-09 09:10", usable_s=900)
        assert self.rate(town) == (2, 2, {"unknown": 4})

    def test_a_closed_site_is_not_checked(self, town: Town) -> None:
        town.terminal("a")
        town.presence("a", ("online", "06-01 00:00"))
        saturday = Period("2026-06-13", "2026-06-13")
        assert town.board(saturday).intact_rate().value is None

    def test_checks_follow_service_and_the_clock(self, town: Town) -> None:
        town.terminal("a", since="2026-06-09 12:00")
        town.presence("a", ("online", "06-09 12:00"))
        assert town.board(TUESDAY).intact_rate().denominator == 1
        assert town.board(TUESDAY, now_ms=at("06-09 14:00")).intact_rate().denominator == 0


class TestFaults:
    def test_rate_count_and_repair_time(self, town: Town) -> None:
        for name in ("a", "b", "c"):
            town.terminal(name)
        town.fault("a", "05-31 10:00", "06-01 10:00")
        town.fault("a", "06-05 10:00", "06-05 12:00", code="LSR.JAM")
        town.fault("b", "06-30 23:00", "07-01 02:00")
        town.fault("b", "06-05 10:00", None, severity=Severity.P4)
        town.fault("c", "05-01 10:00", "05-31 23:00")
        board = town.board()
        assert (board.fault_rate().numerator, board.fault_rate().denominator, board.faults().value) == (2, 3, 3)
        mttr = board.mttr()
        assert (mttr.denominator, mttr.value) == (2, 13)
        assert [(one.key, one.numerator) for one in board.faults_by_code()] == [("PRN.PAPER_OUT", 2), ("LSR.JAM", 1)]

    def test_false_alarms_do_not_count(self, town: Town) -> None:
        town.terminal("a")
        town.fault("a", "06-05 10:00", "06-05 12:00")
        town.conn.execute("UPDATE fault SET false_alarm = 1")
        assert town.board().fault_rate().numerator == 0


class TestReviewsAndQueues:
    def test_good_rate_leaves_unanswered_questions_out(self, town: Town) -> None:
        town.terminal("a")
        town.rated("a", "06-09 10:00", 5, 4, 3, 2, 1, 0, 0)
        board = town.board()
        figure = board.good_rate()
        assert (figure.numerator, figure.denominator, figure.shown) == (3, 5, {"unanswered": 2})
        assert board.rating_answered_share().value == pytest.approx(5 / 7)
        assert [one.numerator for one in board.by_level()] == [1, 1, 1, 1, 1]

    def test_queue_keys_are_counted_by_action(self, town: Town) -> None:
        town.terminal("a")
        town.called("a", "06-09 10:00", "callNext", "recall", "callNext", "pause")
        board = town.board()
        assert board.queue_calls().value == 2
        assert [(one.key, one.numerator) for one in board.by_queue_action()] == [("callNext", 2), ("pause", 1), ("recall", 1)]


def test_a_figure_says_period_population_rule_and_unit(town: Town) -> None:
    town.terminal("a")
    figure = town.board(scope=Scope(area="east")).active_share()
    assert figure.question == Question(JUNE, Scope(area="east"))
    assert (figure.population, figure.rule, figure.unit, figure.is_ratio) == (1, "inServiceOneDay", "share", True)
