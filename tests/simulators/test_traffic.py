"""The demo city: who is where, which days are worked, and a history that is the same every time and stays within its budget."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from itertools import pairwise

import pytest

from fleet_server.console.outline import load_outline
from protocols.canon.faults import FAULTS
from protocols.canon.words import TerminalType
from protocols.contract import records
from simulators import items, traffic
from simulators.population import DIVISIONS, FleetPlan, plan_fleet
from simulators.traffic import CameOnline, Case, DayHistory, FaultCleared, FaultOpened, PadKey, Rated, Refilled, WentOffline
from simulators.workdays import DAY_MS, DayKind, Hours, after_staff_minutes, day_kind, day_of, midnight_ms

FIRST = date(2026, 5, 5)
BUDGET = 500_000


@pytest.fixture(scope="module")
def fleet() -> FleetPlan:
    return plan_fleet()


@pytest.fixture(scope="module")
def month(fleet: FleetPlan) -> dict[str, list[DayHistory]]:
    return {plan.id: list(traffic.terminal_history(plan, FIRST, 30)) for plan in fleet.terminals}


def all_days(month: dict[str, list[DayHistory]]) -> list[DayHistory]:
    return [day for history in month.values() for day in history]


class TestWorkdays:
    @pytest.mark.parametrize(
        ("day", "kind"),
        [
            ("2026-02-14", DayKind.WORKDAY),
            ("2026-09-20", DayKind.WORKDAY),
            ("2026-02-23", DayKind.HOLIDAY),
            ("2026-09-26", DayKind.HOLIDAY),
            ("2026-10-17", DayKind.WEEKEND),
            ("2026-10-13", DayKind.WORKDAY),
            ("2025-01-26", DayKind.WORKDAY),
            ("2025-02-04", DayKind.HOLIDAY),
            ("2025-10-11", DayKind.WORKDAY),
            ("2027-02-06", DayKind.WEEKEND),
        ],
    )
    def test_days(self, day: str, kind: DayKind) -> None:
        assert day_kind(date.fromisoformat(day)) is kind

    @pytest.mark.parametrize("year", [2025, 2026])
    def test_both_years_have_248_working_days(self, year: int) -> None:
        days = [date(year, 1, 1) + timedelta(days=number) for number in range(365)]
        assert sum(day_kind(day) is DayKind.WORKDAY for day in days) == 248

    def test_midnight_is_chinas(self) -> None:
        assert midnight_ms(date(2026, 1, 1)) == 1_767_196_800_000
        assert day_of(1_767_196_800_000) == date(2026, 1, 1)
        assert day_of(1_767_196_799_999) == date(2025, 12, 31)

    def test_repairs_wait_for_staff(self) -> None:
        friday_evening = midnight_ms(date(2026, 10, 16)) + 20 * 3_600_000
        assert after_staff_minutes(friday_evening, 60) == midnight_ms(date(2026, 10, 19)) + int(9.5 * 3_600_000)
        late_morning = midnight_ms(date(2026, 10, 19)) + int(11.5 * 3_600_000)
        assert after_staff_minutes(late_morning, 60) == midnight_ms(date(2026, 10, 19)) + 14 * 3_600_000

    def test_hours_as_a_table(self) -> None:
        week = Hours(workday=((540, 720), (810, 1020)), weekend=((540, 720),)).week()
        assert week["mon"] == [["09:00", "12:00"], ["13:30", "17:00"]]
        assert week["sun"] == [["09:00", "12:00"]]
        assert week["holiday"] == []


class TestPopulation:
    def test_counts(self, fleet: FleetPlan) -> None:
        assert Counter(plan.kind for plan in fleet.terminals) == {"kiosk": 350, "call-pads": 30, "booth": 10, "desk": 9, "van": 1}
        assert sum(plan.site.city_level for plan in fleet.of_kind("kiosk")) == 46
        assert {site.division for site in fleet.sites} == {division.code for division in DIVISIONS}
        assert len(fleet.by_id) == 400

    def test_names_and_codes_are_unique_and_well_formed(self, fleet: FleetPlan) -> None:
        assert [plan.id for plan in fleet.terminals] == [f"kf-{number:04d}" for number in range(1, 401)]
        assert all(plan.code == plan.id.upper() for plan in fleet.terminals)
        for names in ([site.zh for site in fleet.sites], [site.en for site in fleet.sites], [site.code for site in fleet.sites]):
            assert len(set(names)) == len(names)
        assert all(site.zh.startswith(("金华市", *(division.zh for division in DIVISIONS))) for site in fleet.sites)
        for plan in fleet.terminals:
            assert TerminalType(plan.record_word)

    def test_places_lie_in_the_city(self, fleet: FleetPlan) -> None:
        outline = load_outline(None)
        for site in fleet.sites:
            assert outline.adcode_at(site.lon, site.lat) == site.division, site.code

    def test_the_same_city_every_time(self, fleet: FleetPlan) -> None:
        assert plan_fleet() == fleet
        assert plan_fleet(2) != fleet

    def test_terminals_are_built_as_planned(self, fleet: FleetPlan) -> None:
        for plan in fleet.terminals[::7]:
            built = {entry["slot"] for entry in plan.build().ports()}
            planned = {slot for slots in traffic._slots_of(plan).values() for slot in slots}
            assert built >= planned, plan.id
            assert plan.is_whole or built == planned, plan.id

    def test_item_codes_fit_the_records(self) -> None:
        for item in items.ITEMS:
            body = records.Session(id=bytes(16), item=item.code, outcome="success", began_ms=1, duration_ms=1)
            assert records.encode_record(body, wall_ms=1, quality=records.ClockQuality.SYNCED, boot_ms=1)


class TestHistory:
    def test_it_is_the_same_every_time(self, fleet: FleetPlan, month: dict[str, list[DayHistory]]) -> None:
        for plan in fleet.terminals[::40]:
            assert list(traffic.terminal_history(plan, FIRST, 30)) == month[plan.id]
        plan = fleet.terminals[0]
        assert list(traffic.terminal_history(plan, FIRST, 30, seed=2)) != month[plan.id]

    def test_events_lie_in_their_day_and_in_order(self, month: dict[str, list[DayHistory]]) -> None:
        for day in all_days(month):
            start = midnight_ms(day.day)
            assert all(start <= event.at_ms < start + DAY_MS for event in day.events)
            assert all(before.at_ms <= after.at_ms for before, after in pairwise(day.events))

    def test_faults_open_once_and_clear_once(self, month: dict[str, list[DayHistory]]) -> None:
        for history in month.values():
            open_now: dict[int, str] = {}
            for day in history:
                for event in day.events:
                    if isinstance(event, FaultOpened):
                        assert event.episode not in open_now
                        open_now[event.episode] = event.code
                    elif isinstance(event, FaultCleared):
                        assert open_now.pop(event.episode) == event.code
                        assert event.since_ms < event.at_ms
                assert {fault.episode for fault in day.open_at_end} == set(open_now)

    def test_network_goes_and_comes_back_alternately(self, month: dict[str, list[DayHistory]]) -> None:
        for history in month.values():
            changes = [type(event) for day in history for event in day.events if isinstance(event, WentOffline | CameOnline)]
            assert changes[::2] == [WentOffline] * len(changes[::2])
            assert changes[1::2] == [CameOnline] * len(changes[1::2])

    def test_a_terminal_serves_one_person_at_a_time_and_in_opening_hours(
        self, fleet: FleetPlan, month: dict[str, list[DayHistory]]
    ) -> None:
        for plan in fleet.terminals:
            for day in month[plan.id]:
                cases = [event for event in day.events if isinstance(event, Case)]
                assert all(before.at_ms < after.began_ms for before, after in pairwise(cases))
                spans = plan.site.hours.spans(day.day)
                assert not cases or spans, "a case on a day on which the place is closed"
                for case in cases:
                    minute = (case.began_ms - midnight_ms(day.day)) / 60_000
                    assert any(start <= minute < end + 30 for start, end in spans)

    def test_ratings_belong_to_successful_cases(self, month: dict[str, list[DayHistory]]) -> None:
        for history in month.values():
            done = {
                event.number for day in history for event in day.events if isinstance(event, Case) and event.outcome == "success"
            }
            rated = [
                event.case_number
                for day in history
                for event in day.events
                if isinstance(event, Rated) and event.case_number is not None
            ]
            assert set(rated) <= done
            assert len(set(rated)) == len(rated)

    def test_every_event_fits_a_record(self, month: dict[str, list[DayHistory]]) -> None:
        """The words of the history are the words of the contract."""
        synced = records.ClockQuality.SYNCED
        kinds = Counter[str]()
        for day in all_days(month):
            for event in day.events:
                body: records.Body
                if isinstance(event, Case):
                    body = records.Session(
                        id=bytes(16),
                        item=event.item,
                        channel=event.channel,
                        outcome=event.outcome,
                        cause=event.cause,
                        began_ms=event.began_ms,
                        duration_ms=event.duration_ms,
                    )
                elif isinstance(event, Rated):
                    channel = "evaluator" if event.slot else "terminal"
                    body = records.Rating(level=event.level, channel=channel, slot=event.slot)  # type: ignore[arg-type]  # checked below
                elif isinstance(event, PadKey):
                    body = records.Queue(slot=event.slot, action=event.action)  # type: ignore[arg-type]  # checked by encode_record
                elif isinstance(event, Refilled):
                    body = records.Consumable(
                        slot=event.slot,
                        item=event.item,
                        event="refill",
                        remaining=event.capacity,
                        capacity=event.capacity,
                        unit=event.unit,
                        source="manual",
                    )
                elif isinstance(event, FaultOpened | FaultCleared):
                    assert event.code in FAULTS
                    body = records.Fault(
                        id=bytes(8),
                        code=event.code,
                        change="open" if isinstance(event, FaultOpened) else "clear",
                        severity=FAULTS[event.code].severity,
                        slot=event.slot,
                        since_ms=event.at_ms,
                    )
                elif isinstance(event, WentOffline):
                    body = records.Link(state="down", reason=event.reason)
                else:
                    assert isinstance(event, CameOnline)
                    body = records.Link(state="up", reason="connected", attempts=event.attempts)
                kinds[type(event).__name__] += 1
                if kinds[type(event).__name__] <= 200:
                    assert records.encode_record(body, wall_ms=event.at_ms, quality=synced, boot_ms=1)
        assert set(kinds) == {"Case", "Rated", "PadKey", "Refilled", "FaultOpened", "FaultCleared", "WentOffline", "CameOnline"}

    def test_simulated_devices_can_show_the_faults(self, fleet: FleetPlan) -> None:
        kiosk = next(plan for plan in fleet.of_kind("kiosk") if plan.has_sensors).build()
        pads = fleet.of_kind("call-pads")[0].build()
        for trouble in traffic.TROUBLES:
            assert trouble.code in FAULTS
            if trouble.simulated_as is None or trouble.slot is None:
                continue
            terminal, device = (pads, "call-pad-1") if trouble.slot == "call-pad" else (kiosk, trouble.slot)
            terminal.set(device, trouble.simulated_as)
            terminal.clear(device, trouble.simulated_as)

    def test_days_add_up(self, month: dict[str, list[DayHistory]]) -> None:
        for day in all_days(month):
            summary = day.summary
            assert summary.usable_s + summary.partial_s + summary.unusable_s == 86_400
            assert min(summary.usable_s, summary.partial_s, summary.unusable_s) >= 0
            assert summary.in_use_s == sum(event.duration_ms for event in day.events if isinstance(event, Case)) // 1000
            assert all(slot.failed <= slot.total for slot in summary.slots)

    def test_a_settled_history_ends_well(self, fleet: FleetPlan) -> None:
        troubled = 0
        for plan in fleet.terminals:
            *_, before, last = traffic.terminal_history(plan, FIRST, 20, settle=True)
            troubled += bool(before.open_at_end)
            assert last.open_at_end == ()
            gone = [event for event in last.events if isinstance(event, WentOffline | CameOnline)]
            assert not gone or isinstance(gone[-1], CameOnline)
        assert troubled, "the day before must have something to settle"

    def test_shape_of_use(self, fleet: FleetPlan, month: dict[str, list[DayHistory]]) -> None:
        cases = [event for day in all_days(month) for event in day.events if isinstance(event, Case)]
        outcomes = Counter(case.outcome for case in cases)
        assert 0.955 < outcomes["success"] / len(cases) < 0.985
        by_hour = Counter((case.began_ms // 3_600_000 + 8) % 24 for case in cases)
        assert by_hour[12] < 0.6 * by_hour[10], "noon dips"
        assert by_hour[3] < 0.05 * by_hour[10]
        closed = {plan.id for plan in fleet.terminals if plan.site.kind == "hall"}
        holiday = [day for day in all_days(month) if day.terminal_id in closed and day_kind(day.day) is DayKind.HOLIDAY]
        assert holiday
        assert not any(isinstance(event, Case | PadKey) for day in holiday for event in day.events)
        levels = Counter(event.level for day in all_days(month) for event in day.events if isinstance(event, Rated))
        assert levels[5] > 0.85 * sum(levels[level] for level in range(1, 6))


@pytest.mark.slow
@pytest.mark.parametrize("first", [date(2026, 5, 5), date(2025, 9, 1)])
def test_two_hundred_days_of_the_whole_city_stay_within_their_budget(fleet: FleetPlan, first: date) -> None:
    total = 0
    cases: Counter[bool] = Counter()
    zero = []
    for plan in fleet.terminals:
        days = list(traffic.terminal_history(plan, first, 200))
        total += sum(day.record_count for day in days)
        count = sum(isinstance(event, Case) for day in days for event in day.events)
        if plan.kind == "kiosk":
            cases[plan.site.city_level] += count
            if count == 0:
                zero.append(plan.id)
    assert 300_000 < total <= BUDGET
    assert 1.5 < cases[True] / (46 * 200) < 2.3, "city kiosks: about two cases a day"
    assert 0.38 < cases[False] / (304 * 200) < 0.6, "the others: about half a case a day"
    assert len(zero) < 10
