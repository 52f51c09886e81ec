"""Presence as intervals: who is heard, who is not, and when it is the platform that does not hear."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_server.facts.births import PendingBirths
from fleet_server.facts.projection import Projection
from fleet_server.presence.watch import RELOAD_MS, PresenceWatch
from fleet_server.thresholds.rules import put
from protocols.contract.messages import Birth
from protocols.contract.records import ClockQuality, Stop
from tests.support.facts import T0, FactBench, Run

T = T0 + 20_000_000
"""2026-05-29 10:00 in Shanghai, a working day, inside opening hours."""
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
STEP = 5 * SECOND
ALWAYS = '{"always":true}'


class Fleet:
    """Terminals that beat every 30 s, a watch that is kept every STEP, a clock that only this class moves."""

    def __init__(self, bench: FactBench, sites: dict[str, int], *, hours: str | None = None) -> None:
        self.bench, self.conn, self.now = bench, bench.conn, T
        self.terminals: list[str] = []
        for site, count in sites.items():
            bench.add_site(site, **({} if hours is None else {"hours": hours}))
            for n in range(count):
                self.add(f"{site.lower()}-{n}", site)
        self.watch = self.started()
        self.watch.broker(True, self.now)
        self.broker_up = True

    def add(self, terminal: str, site: str, *, klass: str = "government") -> None:
        self.bench.add_terminal(terminal, site, klass=klass, enrolled_ms=self.now)
        self.terminals.append(terminal)

    def started(self) -> PresenceWatch:
        return PresenceWatch.load(self.conn, self.now, births=PendingBirths())

    def run(self, span_ms: int, *, silent: Iterable[str] = (), each: Callable[[], None] | None = None) -> None:
        quiet = set(silent)
        for _ in range(span_ms // STEP):
            self.now += STEP
            for n, terminal in enumerate(self.terminals):
                if self.broker_up and terminal not in quiet and (self.now // STEP + n) % 6 == 0:
                    self.watch.heard(terminal, "heartbeat", self.now, depth=n)
            self.watch.keep(self.conn, self.now)
            if each is not None:
                each()

    def broker(self, up: bool) -> None:
        self.broker_up = up
        self.watch.broker(up, self.now)

    def states(self) -> dict[str, str]:
        return dict(self.conn.execute("SELECT terminal, state FROM presence WHERE to_ms IS NULL").fetchall())

    def story(self, terminal: str) -> list[tuple[str, str]]:
        return self.conn.execute(
            "SELECT state, cause FROM presence WHERE terminal = ? ORDER BY from_ms, id", (terminal,)
        ).fetchall()

    def open_alarms(self) -> set[str]:
        return {
            row[0] for row in self.conn.execute("SELECT terminal FROM fault WHERE code = 'NET.OFFLINE' AND cleared_ms IS NULL")
        }

    def gaps(self) -> list[tuple[int, int | None, str]]:
        return self.conn.execute("SELECT from_ms, to_ms, cause FROM platform_gap ORDER BY from_ms").fetchall()


@pytest.fixture
def empty(schema: object, bench: FactBench) -> FactBench:
    bench.conn.execute("DELETE FROM terminal")
    return bench


@pytest.fixture
def fleet(empty: FactBench) -> Fleet:
    return Fleet(empty, {"A": 6, "B": 6, "C": 6})


def birth(run: Run, now_ms: int) -> Birth:
    return Birth(
        nonce=b"n" * 16,
        agent="1.2.3",
        boot_no=7,
        boot_id=run.boot_id,
        stream=run.stream,
        wall_ms=now_ms - 250,
        boot_ms=1,
        quality=ClockQuality.HOLDOVER,
        held=(),
    )


class TestOneTerminal:
    def test_who_beats_is_online_in_one_interval(self, fleet: Fleet) -> None:
        fleet.run(20 * MINUTE)
        assert set(fleet.states().values()) == {"online"}
        assert fleet.story("a-0") == [("suspect", "neverSeen"), ("online", "heard")]
        assert fleet.open_alarms() == set()

    def test_silence_is_suspect_then_offline_from_the_moment_the_threshold_passed(self, fleet: Fleet) -> None:
        fleet.run(2 * MINUTE)
        (seen,) = fleet.bench.one("SELECT last_seen_ms FROM terminal_live WHERE terminal = 'a-0'")
        assert isinstance(seen, int)
        fleet.run(9 * MINUTE, silent=["a-0"])
        rows = fleet.bench.rows("SELECT state, from_ms, to_ms FROM presence WHERE terminal = 'a-0' ORDER BY from_ms DESC LIMIT 2")
        assert rows == [("offline", seen + 300 * SECOND, None), ("suspect", seen + 90 * SECOND, seen + 300 * SECOND)]
        assert fleet.open_alarms() == set()
        fleet.run(2 * MINUTE, silent=["a-0"])
        assert fleet.open_alarms() == {"a-0"}
        fleet.run(30 * MINUTE, silent=["a-0"])
        fleet.run(MINUTE)
        assert fleet.states()["a-0"] == "online"
        assert fleet.bench.rows("SELECT since_ms, cleared_by FROM fault") == [(seen, "platform")]

    def test_thresholds_that_somebody_changes_hold_within_seconds_and_for_their_class_alone(self, fleet: Fleet) -> None:
        fleet.add("partner", "A", klass="social")
        fleet.run(2 * MINUTE)
        put(fleet.conn, "presence.suspect_s", 45, by="operator", now_ms=fleet.now)
        put(fleet.conn, "presence.offline_s", 120, by="operator", now_ms=fleet.now)
        put(fleet.conn, "presence.alarm_s", 180, by="operator", now_ms=fleet.now)
        fleet.run(RELOAD_MS)
        (seen,) = fleet.bench.one("SELECT last_seen_ms FROM terminal_live WHERE terminal = 'a-0'")
        assert isinstance(seen, int)
        fleet.run(4 * MINUTE, silent=["a-0", "partner"])
        rows = fleet.bench.rows("SELECT state, from_ms, to_ms FROM presence WHERE terminal = 'a-0' ORDER BY from_ms DESC LIMIT 2")
        assert rows == [("offline", seen + 120 * SECOND, None), ("suspect", seen + 45 * SECOND, seen + 120 * SECOND)]
        assert fleet.open_alarms() == {"a-0"}
        assert fleet.states()["partner"] == "online"
        put(fleet.conn, "presence.suspect_s", None, by="operator", now_ms=fleet.now)
        put(fleet.conn, "presence.alarm_s", 200, by="operator", now_ms=fleet.now)
        fleet.run(RELOAD_MS)
        fleet.run(100 * SECOND, silent=["b-0"])
        assert fleet.states()["b-0"] == "suspect"

    def test_a_second_episode_is_a_second_fault(self, fleet: Fleet) -> None:
        for _ in range(2):
            fleet.run(2 * MINUTE)
            fleet.run(15 * MINUTE, silent=["a-0"])
        assert fleet.bench.one("SELECT count(*) FROM fault") == (2,)

    def test_a_broken_connection_is_suspect_at_once(self, fleet: Fleet) -> None:
        fleet.run(MINUTE)
        fleet.watch.heard("a-0", "will", fleet.now)
        fleet.run(STEP, silent=["a-0"])
        assert fleet.story("a-0")[-1] == ("suspect", "broken")
        assert fleet.bench.one("SELECT connected, will_ms FROM terminal_live WHERE terminal = 'a-0'") == (0, fleet.now - STEP)
        fleet.run(MINUTE)
        assert fleet.states()["a-0"] == "online"

    def test_the_will_of_the_connection_before_does_not_undo_a_greeting(self, fleet: Fleet) -> None:
        fleet.run(MINUTE)
        fleet.watch.born(fleet.conn, "a-0", birth(Run("a-0", 1, up_ms=T), fleet.now), fleet.now)
        fleet.watch.broken("a-0", fleet.now + 3 * SECOND)
        fleet.run(2 * STEP, silent=["a-0"])
        assert fleet.states()["a-0"] == "online"

    def test_partner_machines_have_hours(self, fleet: Fleet) -> None:
        fleet.add("bank-1", "A", klass="social")
        fleet.run(2 * MINUTE)
        fleet.run(110 * MINUTE, silent=["bank-1"])
        assert fleet.states()["bank-1"] == "online"
        fleet.run(130 * MINUTE, silent=["bank-1"])
        assert fleet.states()["bank-1"] == "offline"

    def test_a_new_terminal_is_adopted_soon_after_its_first_word(self, fleet: Fleet) -> None:
        fleet.run(MINUTE)
        fleet.watch.heard("a-9", "heartbeat", fleet.now)
        fleet.add("a-9", "A")
        fleet.run(2 * STEP)
        assert fleet.states()["a-9"] == "online"

    def test_names_that_nobody_enrolled_leave_nothing(self, fleet: Fleet) -> None:
        for n in range(50):
            fleet.watch.heard(f"ghost-{n}", "heartbeat", fleet.now)
            fleet.watch.broken(f"ghost-{n}", fleet.now)
        fleet.run(MINUTE)
        assert fleet.bench.one("SELECT count(*) FROM terminal_live WHERE terminal LIKE 'ghost%'") == (0,)
        assert not fleet.watch._live  # nothing is kept for them either

    def test_what_a_greeting_and_a_heartbeat_tell_is_kept(self, fleet: Fleet) -> None:
        run = Run("a-0", 1, up_ms=T)
        fleet.watch.born(fleet.conn, "a-0", birth(run, fleet.now), fleet.now)
        fleet.watch.heard("a-0", "heartbeat", fleet.now + 1, depth=3, oldest_ms=77)
        fleet.watch.heard("a-0", "batch", fleet.now + 2)
        fleet.run(2 * STEP, silent=["a-0"])
        assert fleet.bench.one(
            "SELECT last_seen_ms, seen_by, connected, last_report_ms, agent_version, boot_no, boot_id, outbox_depth, outbox_oldest_ms,"
            " clock_offset_ms, clock_quality, birth_ms FROM terminal_live WHERE terminal = 'a-0'"
        ) == (T + 2, "batch", 1, T + 2, "1.2.3", 7, run.boot_id, 3, 77, -250, "holdover", T)
        fleet.watch.heard("a-0", "heartbeat", fleet.now, depth=0)
        fleet.run(2 * STEP, silent=["a-0"])
        assert fleet.bench.one("SELECT outbox_depth, outbox_oldest_ms, boot_no FROM terminal_live WHERE terminal = 'a-0'") == (
            0,
            None,
            7,
        )


class TestAnnouncedStop:
    def stop(self, fleet: Fleet, run: Run, *, captured_ms: int | None = None) -> None:
        captured = run.capture(Stop(reason="shutdown"), fleet.now if captured_ms is None else captured_ms)
        sent = run.send([captured], fleet.now)
        stored = fleet.bench.store(sent)
        assert stored is not None
        Projection(fleet.watch, PendingBirths()).project(fleet.conn, stored, sent.decoded())
        fleet.watch.heard("a-0", "batch", fleet.now)

    def greeted(self, fleet: Fleet, number: int = 1) -> Run:
        run = Run("a-0", number, up_ms=T)
        fleet.watch.born(fleet.conn, "a-0", birth(run, fleet.now), fleet.now)
        return run

    def test_a_stop_is_known_at_once_and_alarms_inside_opening_hours(self, fleet: Fleet) -> None:
        run = self.greeted(fleet)
        fleet.run(MINUTE)
        self.stop(fleet, run)
        fleet.run(9 * MINUTE, silent=["a-0"])
        assert fleet.story("a-0")[-1] == ("stopped", "announced")
        assert fleet.open_alarms() == set()
        fleet.run(2 * MINUTE, silent=["a-0"])
        assert fleet.open_alarms() == {"a-0"}
        self.greeted(fleet, 2)
        fleet.run(STEP)
        assert fleet.states()["a-0"] == "online"
        assert fleet.open_alarms() == set()

    def test_the_stop_of_an_earlier_start_that_arrives_after_the_new_greeting_means_nothing(self, fleet: Fleet) -> None:
        before = self.greeted(fleet, 1)
        self.greeted(fleet, 2)
        self.stop(fleet, before)
        fleet.run(STEP)
        assert fleet.states()["a-0"] == "online"

    def test_a_late_stop_means_nothing(self, fleet: Fleet) -> None:
        run = self.greeted(fleet)
        self.stop(fleet, run, captured_ms=fleet.now - 10 * MINUTE)
        fleet.run(STEP)
        assert fleet.states()["a-0"] == "online"


class TestFirstStart:
    def test_terminals_enrolled_long_ago_have_time_to_connect(self, empty: FactBench) -> None:
        empty.add_terminal("old-1", "S1", enrolled_ms=T - 30 * 24 * HOUR)
        fleet = Fleet(empty, {"A": 3})
        fleet.run(6 * MINUTE, silent=["old-1"])
        assert "old-1" not in fleet.open_alarms()
        fleet.run(6 * MINUTE)
        assert fleet.states()["old-1"] == "offline"
        assert fleet.open_alarms() == {"old-1"}


class TestPlatform:
    def test_two_minutes_without_broker_make_nobody_offline(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        lost_ms = fleet.now
        fleet.broker(False)
        fleet.run(55 * SECOND)
        assert set(fleet.states().values()) == {"online"}
        fleet.run(65 * SECOND)
        assert set(fleet.states().values()) == {"unknown"}
        fleet.broker(True)
        fleet.run(10 * MINUTE)
        assert set(fleet.states().values()) == {"online"}
        assert fleet.bench.one(
            "SELECT count(*) FROM presence WHERE state IN ('suspect', 'offline') AND cause <> 'neverSeen'"
        ) == (0,)
        assert fleet.bench.one("SELECT count(*) FROM fault") == (0,)
        ((from_ms, to_ms, cause),) = fleet.gaps()
        assert (from_ms, cause) == (lost_ms, "broker")
        assert to_ms is not None
        assert 2 * MINUTE <= to_ms - from_ms <= 2 * MINUTE + 30 * SECOND
        assert fleet.bench.rows("SELECT DISTINCT from_ms FROM presence WHERE state = 'unknown'") == [(lost_ms,)]

    def test_a_short_outage_leaves_no_trace_even_if_terminals_take_a_minute_to_return(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        moves = fleet.bench.one("SELECT count(*) FROM presence")
        fleet.broker(False)
        fleet.run(40 * SECOND)
        fleet.broker(True)
        fleet.watch.heard("a-0", "heartbeat", fleet.now)
        fleet.run(60 * SECOND, silent=set(fleet.terminals) - {"a-0"})
        fleet.run(5 * MINUTE)
        assert fleet.bench.one("SELECT count(*) FROM presence") == moves
        assert fleet.gaps() == []

    def test_who_does_not_come_back_is_offline_after_five_minutes_of_being_listened_for(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        fleet.broker(False)
        fleet.run(30 * MINUTE)
        fleet.broker(True)
        back_ms = fleet.now
        fleet.run(85 * SECOND, silent=["a-0"])
        assert fleet.states()["a-0"] == "unknown"
        fleet.run(2 * MINUTE, silent=["a-0"])
        assert fleet.states()["a-0"] == "suspect"
        fleet.run(3 * MINUTE, silent=["a-0"])
        assert fleet.states()["a-0"] == "offline"
        (from_ms,) = fleet.bench.one("SELECT from_ms FROM presence WHERE terminal = 'a-0' AND to_ms IS NULL")
        assert isinstance(from_ms, int)
        assert 4 * MINUTE < from_ms - back_ms <= 6 * MINUTE

    @pytest.mark.spec("C-802")
    def test_a_restart_of_ingest_is_a_blind_span_from_its_last_flush_to_the_first_contact(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        (mark_ms,) = fleet.bench.one("SELECT at_ms FROM watch_mark")
        fleet.now += 10 * MINUTE
        fleet.watch = fleet.started()
        fleet.run(STEP, silent=fleet.terminals)
        fleet.watch.broker(True, fleet.now)
        assert set(fleet.states().values()) == {"unknown"}
        fleet.run(10 * MINUTE, silent=["a-0"])
        states = fleet.states()
        assert states.pop("a-0") == "offline"
        assert set(states.values()) == {"online"}
        ((from_ms, to_ms, cause),) = fleet.gaps()
        assert (from_ms, cause) == (mark_ms, "ingest")
        assert to_ms is not None
        assert fleet.bench.one("SELECT min(from_ms) FROM presence WHERE state = 'online' AND from_ms > ?", mark_ms) == (to_ms,)

    def test_an_outage_goes_on_over_a_restart(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        lost_ms = fleet.now
        fleet.broker(False)
        fleet.run(5 * MINUTE)
        fleet.watch = fleet.started()
        fleet.run(5 * MINUTE)
        assert set(fleet.states().values()) == {"unknown"}
        fleet.broker(True)
        fleet.run(5 * MINUTE)
        assert set(fleet.states().values()) == {"online"}
        ((from_ms, _, cause),) = fleet.gaps()
        assert (from_ms, cause) == (lost_ms, "broker")

    def test_the_first_start_of_all_was_not_blind(self, fleet: Fleet) -> None:
        fleet.run(MINUTE)
        assert fleet.gaps() == []

    def test_a_process_that_was_stopped_did_not_watch(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        stopped_ms = fleet.now
        fleet.now += 20 * MINUTE
        fleet.run(STEP, silent=fleet.terminals)
        assert set(fleet.states().values()) == {"unknown"}
        fleet.run(5 * MINUTE)
        assert set(fleet.states().values()) == {"online"}
        assert [(from_ms, cause) for from_ms, _, cause in fleet.gaps()] == [(stopped_ms, "ingest")]

    def test_no_gap_lasts_for_ever_because_nobody_is_left_to_call(self, fleet: Fleet) -> None:
        fleet.run(2 * MINUTE)
        fleet.broker(False)
        fleet.run(2 * MINUTE)
        fleet.broker(True)
        fleet.run(8 * MINUTE, silent=fleet.terminals)
        assert set(fleet.states().values()) <= {"offline", "unknown"}
        assert fleet.gaps()[0][1] is not None


class TestTogether:
    @pytest.mark.spec("C-802")
    def test_several_sites_silent_at_once_are_unknown_and_never_offline(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        silent = ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2", "c-0"]
        fleet.run(40 * MINUTE, silent=silent)
        states = fleet.states()
        assert {states[terminal] for terminal in silent} == {"unknown"}
        assert {states[terminal] for terminal in set(fleet.terminals) - set(silent)} == {"online"}
        assert fleet.open_alarms() == set()
        assert [(to_ms, cause) for _, to_ms, cause in fleet.gaps()] == [(None, "silence")]
        fleet.run(2 * MINUTE)
        assert set(fleet.states().values()) == {"online"}
        assert fleet.gaps()[0][1] is not None

    def test_when_most_are_back_the_rest_are_on_their_own_and_blind_minutes_do_not_count(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        silent = ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2", "c-0"]
        fleet.run(20 * MINUTE, silent=silent)
        fleet.run(4 * MINUTE, silent=["a-0"])
        assert fleet.states()["a-0"] in {"unknown", "suspect"}
        fleet.run(3 * MINUTE, silent=["a-0"])
        assert fleet.states()["a-0"] == "offline"

    def test_one_site_without_power_is_offline_as_one(self, fleet: Fleet) -> None:
        fleet.run(5 * MINUTE)
        fleet.run(12 * MINUTE, silent=[f"a-{n}" for n in range(6)])
        assert {fleet.story(f"a-{n}")[-1] for n in range(6)} == {("offline", "site")}
        assert fleet.open_alarms() == {f"a-{n}" for n in range(6)}
        assert fleet.gaps() == []

    def test_kiosks_switched_off_at_closing_time_are_nobodys_blindness(self, empty: FactBench) -> None:
        fleet = Fleet(empty, {"A": 4, "B": 4})
        fleet.now = T + 7 * HOUR - MINUTE
        fleet.watch = fleet.started()
        fleet.watch.broker(True, fleet.now)
        fleet.run(70 * SECOND)
        fleet.run(10 * MINUTE, silent=fleet.terminals)
        assert set(fleet.states().values()) == {"offline"}
        assert fleet.gaps() == []
        assert fleet.open_alarms() == set()


class TestOpeningHours:
    def test_silence_at_night_alarms_ten_minutes_after_opening(self, empty: FactBench) -> None:
        fleet = Fleet(empty, {"A": 3})
        fleet.now = T + 10 * HOUR
        fleet.watch = fleet.started()
        fleet.watch.broker(True, fleet.now)
        fleet.run(MINUTE)
        fleet.run(20 * MINUTE, silent=["a-0"])
        assert fleet.states()["a-0"] == "offline"
        assert fleet.open_alarms() == set()
        monday_9_ms = T + 71 * HOUR
        fleet.watch.keep(fleet.conn, fleet.now)
        fleet.now = monday_9_ms - 10 * MINUTE
        fleet.watch = fleet.started()
        fleet.watch.broker(True, fleet.now)
        fleet.run(19 * MINUTE, silent=["a-0"])
        assert fleet.open_alarms() == set()
        fleet.run(2 * MINUTE, silent=["a-0"])
        assert fleet.open_alarms() == {"a-0"}

    def test_nobody_is_alarmed_during_maintenance(self, fleet: Fleet) -> None:
        fleet.run(MINUTE)
        fleet.conn.execute("UPDATE terminal SET maintenance_until_ms = ? WHERE id = 'a-0'", (fleet.now + 40 * MINUTE,))
        fleet.run(30 * MINUTE, silent=["a-0"])
        assert fleet.open_alarms() == set()
        fleet.run(20 * MINUTE, silent=["a-0"])
        assert fleet.open_alarms() == {"a-0"}

    def test_at_midnight_yesterday_is_due_for_everybody(self, empty: FactBench) -> None:
        fleet = Fleet(empty, {"A": 2}, hours=ALWAYS)
        fleet.now = T + 14 * HOUR - MINUTE
        fleet.watch = fleet.started()
        fleet.watch.broker(True, fleet.now)
        fleet.run(30 * SECOND)
        fleet.conn.execute("DELETE FROM dirty_day")
        fleet.run(MINUTE)
        assert fleet.bench.rows("SELECT terminal, day FROM dirty_day ORDER BY terminal") == [
            ("a-0", "2026-05-29"),
            ("a-1", "2026-05-29"),
        ]


def test_heartbeats_write_to_no_row_that_business_logic_locks(fleet: Fleet) -> None:
    written: set[str] = set()

    def note(action: int, table: str | None, *_: object) -> int:
        if action in {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE} and table is not None:
            written.add(table)
        return sqlite3.SQLITE_OK

    fleet.run(MINUTE)
    fleet.conn.set_authorizer(note)
    fleet.run(3 * MINUTE)
    assert written == {"terminal_live", "watch_mark"}
    fleet.run(15 * MINUTE, silent=["a-0"])
    fleet.conn.set_authorizer(None)
    assert written == {"terminal_live", "watch_mark", "presence", "dirty_day", "change", "fault", "fault_event"}


def test_what_could_not_be_written_is_written_later(fleet: Fleet) -> None:
    fleet.run(5 * MINUTE)
    lost_ms = fleet.now
    fleet.broker(False)
    fleet.conn.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON main.presence BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    fleet.conn.execute("CREATE TEMP TRIGGER full_mark BEFORE INSERT ON main.change BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    failures = 0
    for _ in range(30):
        fleet.now += STEP
        try:
            fleet.watch.keep(fleet.conn, fleet.now)
        except sqlite3.IntegrityError:
            failures += 1
        assert not fleet.conn.in_transaction
    assert failures > 0
    fleet.conn.execute("DROP TRIGGER full")
    fleet.conn.execute("DROP TRIGGER full_mark")
    fleet.run(STEP)
    assert set(fleet.states().values()) == {"unknown"}
    assert fleet.gaps() == [(lost_ms, None, "broker")]


STEPS = st.lists(
    st.tuples(st.sampled_from(["run", "silent", "broker down", "broker up", "restart", "stall"]), st.integers(1, 8)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nobody_is_offline_without_five_minutes_of_being_listened_for(schema: object, steps: list[tuple[str, int]]) -> None:
    bench = FactBench(schema)  # type: ignore[arg-type]
    fleet = Fleet(bench, {"A": 2, "B": 2}, hours=ALWAYS)
    listened_ms = dict.fromkeys(fleet.terminals, 0)

    def count() -> None:
        for terminal in fleet.terminals:
            seen = bench.rows("SELECT last_seen_ms FROM terminal_live WHERE terminal = ?", terminal)
            heard_now = bool(seen) and seen[0][0] == fleet.now
            listened_ms[terminal] = 0 if heard_now else listened_ms[terminal] + (STEP if fleet.broker_up else 0)
        for terminal, state in fleet.states().items():
            # Last-seen times reach the database within the same step, so the count is never too low.
            assert state != "offline" or listened_ms[terminal] >= 5 * MINUTE, (terminal, fleet.now - T)

    for what, minutes in [("run", 1), *steps]:
        match what:
            case "broker down":
                fleet.broker(False)
            case "broker up":
                fleet.broker(True)
            case "restart":
                fleet.now += minutes * MINUTE
                fleet.watch = fleet.started()
                fleet.broker(fleet.broker_up)
            case "stall":
                fleet.now += minutes * MINUTE
            case _:
                pass
        fleet.run(minutes * MINUTE, silent=["a-0", "b-1"] if what == "silent" else [], each=count)
    rows = bench.rows("SELECT terminal, from_ms, to_ms FROM presence ORDER BY terminal, from_ms, id")
    for (terminal, _, to_ms), (following, from_ms, _) in itertools.pairwise(rows):
        assert terminal != following or to_ms == from_ms
    bench.close()
