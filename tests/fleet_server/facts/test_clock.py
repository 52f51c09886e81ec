"""Wrong clocks: 1970, a day off either way, synchronised to nonsense. Whatever arrives first, facts end at the true time."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from fleet_server.facts import project
from fleet_server.facts.clock import CREDIBLE_MS, FLOOR_MS, BatchTimes, Fix, Timing, is_late
from protocols.canon.words import DeviceState, PaperState, Severity
from protocols.contract.records import (
    Body,
    Boot,
    Clock,
    ClockQuality,
    Consumable,
    Device,
    Fault,
    Serviceability,
    Session,
    Sighting,
)
from tests.support.facts import T0, FactBench, Run

DAY = 86_400_000
UNSET, HOLDOVER, SYNCED = ClockQuality.UNSET, ClockQuality.HOLDOVER, ClockQuality.SYNCED
SECONDS = 1000


class TestTiming:
    def test_without_fixed_points_the_terminals_word_stands(self) -> None:
        assert Timing().wall_ms(T0, UNSET, 5) == T0

    def test_a_clock_that_was_never_set_counts_from_the_fixed_point(self) -> None:
        assert Timing([Fix(60_000, T0)]).wall_ms(123, UNSET, 10_000) == T0 - 50_000

    def test_a_credible_clock_keeps_its_own_word(self) -> None:
        timing = Timing([Fix(60_000, T0)])
        assert timing.wall_ms(T0 - 50_000 + CREDIBLE_MS, HOLDOVER, 10_000) == T0 - 50_000 + CREDIBLE_MS
        assert timing.wall_ms(T0 - 50_000 + CREDIBLE_MS + 1, HOLDOVER, 10_000) == T0 - 50_000

    @pytest.mark.parametrize("error_ms", [DAY, -DAY])
    def test_a_clock_synchronised_to_a_wrong_time_is_put_right_by_the_next_step(self, error_ms: int) -> None:
        timing = Timing([Fix(0, T0), Fix(100_000, T0 + 100_000 + error_ms), Fix(200_000, T0 + 200_000)])
        assert timing.wall_ms(T0 + 50_000, SYNCED, 50_000) == T0 + 50_000
        assert timing.wall_ms(T0 + 150_000 + error_ms, SYNCED, 150_000) == T0 + 150_000
        assert timing.wall_ms(T0 + 250_000, SYNCED, 250_000) == T0 + 250_000

    def test_slow_drift_over_months_is_no_contradiction(self) -> None:
        fixes = [Fix(n * DAY, T0 + n * DAY + n * 30_000) for n in range(60)]
        timing = Timing(fixes)
        assert all(timing.wall_ms(fix.wall_ms, HOLDOVER, fix.boot_ms) == fix.wall_ms for fix in fixes)

    def test_the_order_of_fixed_points_does_not_matter(self) -> None:
        fixes = [Fix(0, T0), Fix(100_000, T0 + DAY), Fix(200_000, T0 + 200_000)]
        answers = {Timing(order).wall_ms(T0 + DAY + 10_000, SYNCED, 110_000) for order in itertools.permutations(fixes)}
        assert answers == {T0 + 110_000}


class TestBatchTimes:
    def test_a_time_behind_the_arrival_is_dated_back_from_it(self) -> None:
        times = BatchTimes(Timing(), T0, last_boot_ms=50_000)
        assert times.at_ms(T0 + DAY, SYNCED, 40_000) == T0 - 10_000
        assert times.at_ms(T0 + CREDIBLE_MS, SYNCED, 40_000) == T0 + CREDIBLE_MS

    def test_1970_without_any_fixed_point_is_dated_back_from_the_arrival(self) -> None:
        times = BatchTimes(Timing(), T0, last_boot_ms=50_000)
        assert times.at_ms(7, UNSET, 50_000) == T0
        assert times.at_ms(FLOOR_MS, UNSET, 50_000) == FLOOR_MS

    def test_late_is_more_than_two_minutes(self) -> None:
        assert not is_late(T0, T0 + 120_000)
        assert is_late(T0, T0 + 120_001)


def clock(run: Run, true_ms: int, step_ms: int = 0) -> tuple[Body, int]:
    return Clock(boot_ms=true_ms - run.up_ms, wall_ms=true_ms + run.error_ms, quality=run.quality, step_ms=step_ms), true_ms


def facts_at(run: Run, at_ms: int) -> list[tuple[Body, int]]:
    """One of every kind that carries a time, as the terminal's clock has it."""
    wall_ms = max(0, at_ms + run.error_ms)
    return [
        (Boot(agent="1.0", os="Debian 12", arch="x86_64", python="3.11", previous="none"), at_ms),
        (Device(slot="receipt-printer", family="escpos", device=DeviceState.ONLINE, paper=PaperState.OUT), at_ms + 1),
        (Sighting(bus="usb", port="1-1.4"), at_ms + 2),
        (
            Consumable(
                slot="laser-printer", item="paper", event="level", remaining=9, capacity=500, unit="sheet", source="counter"
            ),
            at_ms + 3,
        ),
        (
            Fault(
                id=b"fault--1",
                code="PRN.PAPER_OUT",
                change="open",
                severity=Severity.P2,
                slot="receipt-printer",
                since_ms=max(0, wall_ms - 2 * SECONDS),
            ),
            at_ms + 4,
        ),
        (
            Session(
                id=b"s" * 16,
                item="tax.print",
                outcome="success",
                began_ms=max(0, wall_ms - 5 * SECONDS),
                duration_ms=5 * SECONDS,
            ),
            at_ms + 5,
        ),
        (
            Serviceability(
                from_ms=max(0, wall_ms - 900 * SECONDS), to_ms=wall_ms, observed_s=900, usable_s=900, partial_s=0, unusable_s=0
            ),
            at_ms + 6,
        ),
    ]


def times(bench: FactBench) -> dict[str, object]:
    return {
        "boot": bench.one("SELECT at_ms FROM boot")[0],
        "device": bench.one("SELECT at_ms, since_ms FROM device"),
        "change": bench.one("SELECT at_ms FROM device_change")[0],
        "sighting": bench.one("SELECT at_ms FROM sighting")[0],
        "consumable": bench.one("SELECT at_ms FROM consumable")[0],
        "fault": bench.one("SELECT opened_ms, since_ms FROM fault"),
        "story": bench.one("SELECT at_ms, kind FROM fault_event"),
        "session": bench.one("SELECT began_ms, day FROM session"),
        "served": bench.one("SELECT to_ms FROM serviceability")[0],
    }


TRUE_TIMES = {
    "boot": T0,
    "device": (T0 + 1, T0 + 1),
    "change": T0 + 1,
    "sighting": T0 + 2,
    "consumable": T0 + 3,
    "fault": (T0 + 4, T0 - 2 * SECONDS + 4),
    "story": (T0 + 4, "open"),
    "session": (T0 - 5 * SECONDS, "2026-05-29"),
    "served": T0,
}


def near(found: dict[str, object]) -> dict[str, object]:
    """Times told inside a body move with the record, which was captured some milliseconds later: compared to the ten milliseconds."""

    def blur(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(map(blur, value))
        return (value + 5) // 10 if isinstance(value, int) else value

    return {key: blur(value) for key, value in found.items()}


class TestCorrection:
    @pytest.mark.parametrize(
        ("error_ms", "quality"),
        [
            pytest.param(DAY, UNSET, id="a day ahead, never set"),
            pytest.param(-DAY, UNSET, id="a day behind, never set"),
            pytest.param(60 * SECONDS - T0, UNSET, id="1970"),
            pytest.param(DAY, SYNCED, id="synchronised a day ahead"),
            pytest.param(-DAY, SYNCED, id="synchronised a day behind"),
            pytest.param(-DAY, HOLDOVER, id="set back by hand"),
        ],
    )
    @pytest.mark.parametrize("order", ["fact first", "fixed point first", "one batch"])
    @pytest.mark.spec("C-702")
    def test_a_later_fixed_point_corrects_every_fact_of_the_boot(
        self, bench: FactBench, error_ms: int, quality: ClockQuality, order: str
    ) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=error_ms, quality=quality)
        records = [run.capture(body, at) for body, at in facts_at(run, T0)]
        run.error_ms, run.quality = 0, SYNCED
        point = run.capture(*clock(run, T0 + 30 * SECONDS, step_ms=-error_ms))
        received_ms = T0 + 2 * DAY
        if order == "one batch":
            bench.arrive(run.send([*records, point], received_ms))
        else:
            told = [run.send(records, received_ms), run.send([point], received_ms)]
            bench.arrive(*(told if order == "fact first" else reversed(told)))
        assert near(times(bench)) == near(TRUE_TIMES)
        assert ("2026-05-29",) in bench.rows("SELECT day FROM dirty_day")

    @pytest.mark.spec("C-702", "C-703")
    def test_days_that_were_wrong_are_computed_again(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=-3 * DAY, quality=UNSET)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        assert ("2026-05-26",) in bench.rows("SELECT day FROM dirty_day")
        bench.conn.execute("DELETE FROM dirty_day")
        run.error_ms, run.quality = 0, SYNCED
        bench.arrive(run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 30 * SECONDS))
        assert bench.rows("SELECT day FROM dirty_day ORDER BY day")[0] == ("2026-05-26",)
        assert ("2026-05-29",) in bench.rows("SELECT day FROM dirty_day")

    def test_1970_is_dated_by_its_arrival_until_a_fixed_point_comes(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=60 * SECONDS - T0, quality=UNSET)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + 40 * SECONDS))
        assert bench.one("SELECT began_ms > ? FROM session", T0) == (1,)
        run.error_ms, run.quality = 0, SYNCED
        bench.arrive(run.send([run.capture(*clock(run, T0 + 50 * SECONDS))], T0 + 50 * SECONDS))
        assert near(times(bench)) == near(TRUE_TIMES)

    def test_a_wrong_future_state_gives_way_to_a_true_newer_one(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=DAY, quality=UNSET)
        wrong = run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + 3 * DAY)
        run.error_ms, run.quality = 0, SYNCED
        point = run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 3 * DAY)
        later = Run("kf-1", 2, up_ms=run.up_ms, boot=1)
        newer = later.send(
            [
                later.capture(
                    Device(slot="receipt-printer", family="escpos", device=DeviceState.ONLINE, paper=PaperState.FULL),
                    T0 + 60 * SECONDS,
                ),
                later.capture(Sighting(bus="usb", port="1-1.4", present=False), T0 + 60 * SECONDS),
            ],
            T0 + 3 * DAY,
        )
        bench.arrive(wrong, newer, point)
        assert bench.one("SELECT paper, at_ms FROM device") == ("full", T0 + 60 * SECONDS)
        assert bench.one("SELECT present, at_ms FROM sighting") == (0, T0 + 60 * SECONDS)

    def test_what_people_did_to_a_fault_survives_its_new_time(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=-DAY, quality=UNSET)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        bench.conn.execute("UPDATE fault SET claimed_by = 'operator'")
        run.error_ms, run.quality = 0, SYNCED
        bench.arrive(run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 30 * SECONDS))
        assert bench.one("SELECT claimed_by, opened_ms FROM fault") == ("operator", T0 + 4)

    def test_a_fixed_point_from_the_future_is_kept_and_not_used(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        run.error_ms = DAY
        bench.arrive(run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 30 * SECONDS))
        assert near(times(bench)) == near(TRUE_TIMES)
        assert bench.one("SELECT quality FROM clock_fix") == ("future",)

    def test_other_boots_are_not_touched(self, bench: FactBench) -> None:
        first = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=-DAY, quality=UNSET)
        bench.arrive(first.send([first.capture(body, at) for body, at in facts_at(first, T0)], T0 + SECONDS))
        second = Run("kf-1", 2, up_ms=T0 + 600 * SECONDS)
        bench.arrive(second.send([second.capture(*clock(second, T0 + 700 * SECONDS))], T0 + 700 * SECONDS))
        assert bench.one("SELECT began_ms FROM session") == (T0 - DAY - 5 * SECONDS,)


def settle(bench: FactBench) -> tuple[str, bytes] | None:
    """Correct one boot whose fixed points wait, to the end."""
    boot = project.settle_clock(bench.conn, set())
    while project.correct_some(bench.conn):
        pass
    return boot


class TestCostOfCorrection:
    """A terminal whose clock goes back and forth costs itself its times for a while, and nobody else the server."""

    @pytest.mark.spec("C-702")
    def test_a_long_boot_is_put_right_later_and_ends_the_same(self, bench: FactBench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(project, "BATCHES_AT_ONCE", 1)
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=-DAY, quality=UNSET)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        run.error_ms, run.quality = 0, SYNCED
        bench.arrive(run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 30 * SECONDS))
        assert near(times(bench)) != near(TRUE_TIMES)
        assert settle(bench) == ("kf-1", run.boot_id)
        assert near(times(bench)) == near(TRUE_TIMES)
        assert project.settle_clock(bench.conn, set()) is None

    def test_going_back_and_forth_is_not_followed(self, bench: FactBench, monkeypatch: pytest.MonkeyPatch) -> None:
        corrections = 0
        real = project._correct_earlier

        def counting(*arguments: Any) -> None:
            nonlocal corrections
            corrections += 1
            real(*arguments)

        monkeypatch.setattr(project, "_correct_earlier", counting)
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        for number in range(100):
            run.error_ms = -DAY * (number % 2)
            at_ms = T0 + (number + 30) * SECONDS
            bench.arrive(run.send([run.capture(*clock(run, at_ms))], at_ms))
        assert corrections <= project.FIXES_AT_ONCE
        assert project.settle_clock(bench.conn, {("kf-1", run.boot_id)}) is None
        assert settle(bench) is not None
        assert corrections <= project.FIXES_AT_ONCE

    def test_fixed_points_are_kept_up_to_a_number(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS)
        for start in range(0, 2 * project.MAX_FIXES, 64):
            points = [run.capture(*clock(run, T0 + (start + n) * SECONDS)) for n in range(64)]
            bench.arrive(run.send(points, T0 + DAY))
        assert bench.one("SELECT count(*) FROM clock_fix") == (project.MAX_FIXES,)

    @pytest.mark.spec("C-702")
    @pytest.mark.parametrize("slice_", [1, 3, 40])
    def test_slices_end_as_one_correction_would_however_often_they_are_cut_off(
        self, bench: FactBench, schema: Path, monkeypatch: pytest.MonkeyPatch, slice_: int
    ) -> None:
        at_once = FactBench(schema)
        run = Run("kf-1", 1, up_ms=T0 - 600 * SECONDS, error_ms=-DAY, quality=UNSET)
        for target, longest in ((at_once, project.BATCHES_AT_ONCE), (bench, 1)):
            monkeypatch.setattr(project, "BATCHES_AT_ONCE", longest)
            run = Run("kf-1", 1, up_ms=T0 - 600 * SECONDS, error_ms=-DAY, quality=UNSET)
            for number in range(12):
                at_ms = T0 + number * SECONDS
                target.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, at_ms)], at_ms + SECONDS))
            run.error_ms, run.quality = 0, SYNCED
            target.arrive(run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 30 * SECONDS))
        assert project.settle_clock(bench.conn, set()) == ("kf-1", run.boot_id)
        assert project.settle_clock(bench.conn, set()) is None, "one boot at a time"
        late = run.send([run.capture(body, at) for body, at in facts_at(run, T0 + 40 * SECONDS)], T0 + 41 * SECONDS)
        slices = 0
        while True:
            bench.conn.execute("BEGIN IMMEDIATE")
            project.correct_some(bench.conn, slice_)
            bench.conn.execute("ROLLBACK")  # as after kill -9
            bench.conn.execute("BEGIN IMMEDIATE")
            more = project.correct_some(bench.conn, slice_)
            bench.conn.execute("COMMIT")
            if not more:
                break
            slices += 1
            if slices == 2:
                bench.arrive(late)
        at_once.arrive(late)
        assert slices >= 2 * 12 // slice_
        assert bench.facts() == at_once.facts()
        assert bench.one("SELECT count(*) FROM clock_work") == (0,)
        at_once.close()

    def test_a_batch_that_cannot_be_corrected_holds_up_no_other(self, bench: FactBench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(project, "BATCHES_AT_ONCE", 0)
        run = Run("kf-1", 1, up_ms=T0 - 60 * SECONDS, error_ms=-DAY, quality=UNSET)
        bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        (poison,) = bench.arrive(run.send([run.capture(body, at) for body, at in facts_at(run, T0)], T0 + SECONDS))
        run.error_ms, run.quality = 0, SYNCED
        bench.arrive(run.send([run.capture(*clock(run, T0 + 30 * SECONDS))], T0 + 30 * SECONDS))
        real = project.load

        def failing(conn: Any, batch_id: int) -> Any:
            if batch_id == poison:
                raise ValueError(batch_id)
            return real(conn, batch_id)

        monkeypatch.setattr(project, "load", failing)
        settle(bench)
        assert bench.one("SELECT count(*) FROM clock_work") == (0,)
        assert bench.rows("SELECT 1 FROM session WHERE began_ms > ?", T0 - DAY) != []
