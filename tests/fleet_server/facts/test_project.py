"""What each record kind leaves behind, once, whatever came before or after it."""

from __future__ import annotations

import json

import pytest

from fleet_server.facts.project import reproject, unproject
from protocols.canon.words import DeviceState, PaperState, Severity
from protocols.contract.records import (
    Body,
    Boot,
    Consumable,
    Counters,
    Device,
    Evidence,
    Fault,
    Host,
    Link,
    Queue,
    Rating,
    Reading,
    Serviceability,
    Session,
    Sighting,
    SlotCount,
)
from tests.support.facts import T0, FactBench, Run

MINUTE = 60_000
FAULT = b"fault--1"


def device(paper: PaperState, *, slot: str = "receipt-printer", state: DeviceState = DeviceState.ONLINE) -> Device:
    return Device(slot=slot, family="escpos", device=state, paper=paper, firmware="1.0")


def fault(change: str, *, severity: Severity = Severity.P2, code: str = "PRN.PAPER_OUT", id_: bytes = FAULT) -> Fault:
    return Fault(
        id=id_,
        code=code,
        change="open" if change == "open" else "clear",
        severity=severity,
        slot="receipt-printer",
        mandatory=True,
        since_ms=T0,
        evidence=Evidence(codec="escpos", query=b"\x10\x04\x04", reply=b"\x7e", masked=((0, 0),)) if change == "open" else None,
    )


def session(sid: bytes, *, outcome: str = "success", began_ms: int = T0) -> Session:
    return Session(id=sid * 16, item="tax.print", outcome=outcome, began_ms=began_ms, duration_ms=90_000)  # type: ignore[arg-type]


def run(number: int = 1) -> Run:
    return Run("kf-1", number, up_ms=T0 - 10 * MINUTE)


def send(bench: FactBench, run_: Run, *records: tuple[Body, int], delay_ms: int = 500, disputed: bool = False) -> int:
    captured = [run_.capture(body, at) for body, at in records]
    return bench.arrive(run_.send(captured, max(at for _, at in records) + delay_ms, disputed=disputed))[0]


class TestDevices:
    def test_the_newest_change_is_current_and_knows_since_when_its_words_hold(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (device(PaperState.FULL), T0), (device(PaperState.OUT), T0 + 1000))
        renamed = Device(slot="receipt-printer", family="escpos", device=DeviceState.ONLINE, paper=PaperState.OUT, firmware="1.1")
        send(bench, agent, (renamed, T0 + 2000))
        assert bench.one("SELECT paper, firmware, since_ms, at_ms FROM device") == ("out", "1.1", T0 + 1000, T0 + 2000)
        assert bench.one("SELECT count(*) FROM device_change") == (3,)

    def test_a_late_older_change_enters_the_history_only(self, bench: FactBench) -> None:
        first, second = run(1), run(2)
        send(bench, second, (device(PaperState.OUT), T0 + 60 * MINUTE))
        send(bench, first, (device(PaperState.OUT), T0), delay_ms=61 * MINUTE)
        assert bench.one("SELECT paper, since_ms, at_ms FROM device") == ("out", T0, T0 + 60 * MINUTE)
        assert bench.rows("SELECT at_ms, late FROM device_change ORDER BY at_ms") == [(T0, 1), (T0 + 60 * MINUTE, 0)]

    def test_within_a_stream_the_position_decides_over_a_clock_that_stepped_back(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (device(PaperState.OUT), T0 + 5000))
        agent.error_ms = -8000
        send(bench, agent, (device(PaperState.FULL), T0 + 6000))
        assert bench.one("SELECT paper FROM device") == ("full",)

    def test_each_changed_slot_gives_one_hint(self, bench: FactBench) -> None:
        send(
            bench,
            run(),
            (device(PaperState.FULL), T0),
            (device(PaperState.OUT), T0 + 1),
            (device(PaperState.OUT, slot="scanner"), T0),
        )
        assert bench.rows("SELECT terminal, kind, ref FROM change ORDER BY ref") == [
            ("kf-1", "device", "receipt-printer"),
            ("kf-1", "device", "scanner"),
        ]

    def test_taking_a_batch_back_brings_the_state_before_it_back_with_its_details(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (device(PaperState.FULL), T0))
        before = bench.facts()["device"]
        later = send(bench, agent, (device(PaperState.OUT), T0 + 1000), (device(PaperState.LOW, slot="scanner"), T0 + 1000))
        unproject(bench.conn, [later])
        assert bench.facts()["device"] == before

    def test_evidence_is_kept_as_hex(self, bench: FactBench) -> None:
        body = Device(
            slot="receipt-printer",
            family="escpos",
            device=DeviceState.ONLINE,
            evidence=Evidence(codec="escpos", query=b"\x10\x04\x04", reply=b"\x7e\x00", masked=((1, 2),)),
        )
        send(bench, run(), (body, T0))
        (text,) = bench.one("SELECT evidence FROM device")
        assert json.loads(str(text)) == {"codec": "escpos", "query": "100404", "reply": "7e00", "masked": [[1, 2]]}


class TestFaults:
    @pytest.mark.spec("C-208")
    def test_an_episode_opens_and_clears(self, bench: FactBench) -> None:
        agent = run()
        opened = send(bench, agent, (fault("open"), T0 + 1000))
        assert bench.one("SELECT opened_ms, since_ms, cleared_ms, open_batch, late FROM fault") == (
            T0 + 1000,
            T0,
            None,
            opened,
            0,
        )
        cleared = send(bench, agent, (fault("clear"), T0 + 9000))
        assert bench.one("SELECT id, cleared_ms, cleared_by, clear_batch, severity, mandatory, source FROM fault") == (
            f"kf-1:{FAULT.hex()}",
            T0 + 9000,
            "terminal",
            cleared,
            "P2",
            1,
            "terminal",
        )
        assert bench.rows("SELECT at_ms, kind, text FROM fault_event ORDER BY at_ms") == [
            (T0 + 1000, "open", "P2"),
            (T0 + 9000, "clear", None),
        ]

    def test_a_clear_before_its_opening_ends_the_same(self, bench: FactBench, schema: object) -> None:
        agent = run()
        opening = agent.send([agent.capture(fault("open"), T0 + 1000)], T0 + 20_000)
        clearing = agent.send([agent.capture(fault("clear"), T0 + 9000)], T0 + 20_000)
        bench.arrive(clearing)
        assert bench.one("SELECT opened_ms, open_batch, cleared_ms FROM fault") == (T0, None, T0 + 9000)
        bench.arrive(opening)
        assert bench.one("SELECT opened_ms, cleared_ms, evidence IS NULL FROM fault") == (T0 + 1000, T0 + 9000, 0)
        assert bench.rows("SELECT kind FROM fault_event ORDER BY at_ms") == [("open",), ("clear",)]

    def test_a_second_opening_that_is_worse_is_a_step_of_the_same_episode(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (fault("open", severity=Severity.P3), T0), (fault("open", severity=Severity.P1), T0 + 5))
        send(bench, agent, (fault("open", severity=Severity.P2), T0 + 9))
        assert bench.one("SELECT severity, opened_ms FROM fault") == ("P1", T0)
        assert bench.rows("SELECT at_ms, kind, text FROM fault_event ORDER BY at_ms") == [
            (T0, "open", "P3"),
            (T0 + 5, "worse", "P1"),
        ]

    def test_what_people_did_to_a_fault_survives_new_facts(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (fault("open"), T0))
        bench.conn.execute(
            "UPDATE fault SET claimed_by = 'operator', claimed_ms = 5, muted_until_ms = 9, muted_reason = 'parts ordered'"
        )
        bench.conn.execute("INSERT INTO fault_event (fault, at_ms, kind, by) SELECT id, 5, 'claim', 'operator' FROM fault")
        send(bench, agent, (fault("open", severity=Severity.P1), T0 + 5), (fault("clear"), T0 + 9))
        assert bench.one("SELECT claimed_by, claimed_ms, muted_until_ms FROM fault") == ("operator", 5, 9)
        assert bench.one("SELECT count(*) FROM fault_event WHERE by = 'operator'") == (1,)

    @pytest.mark.parametrize(("worse", "ends"), [(Severity.P1, True), (Severity.P2, False), (Severity.P3, False)])
    def test_a_mute_ends_when_the_fault_becomes_worse_than_what_was_muted(
        self, bench: FactBench, worse: Severity, ends: bool
    ) -> None:
        agent = run()
        send(bench, agent, (fault("open", severity=Severity.P2), T0))
        bench.conn.execute(
            "UPDATE fault SET muted_until_ms = ?, muted_reason = 'r', muted_by = 'operator', muted_severity = severity", (T0 * 2,)
        )
        batch = send(bench, agent, (fault("open", severity=worse), T0 + 5))
        assert bench.one("SELECT muted_until_ms IS NULL, muted_by IS NULL FROM fault") == (ends, ends)
        assert bench.rows("SELECT at_ms, by FROM fault_event WHERE kind = 'muteEnded'") == ([(T0 + 5, None)] if ends else [])
        # Muted again as bad as it is now: telling the same batch once more ends nothing.
        bench.conn.execute("UPDATE fault SET muted_until_ms = ?, muted_severity = severity", (T0 * 2,))
        reproject(bench.conn, [batch])
        assert bench.one("SELECT muted_until_ms FROM fault") == (T0 * 2,)

    def test_a_worse_fault_of_the_same_slot_is_not_muted_with_it(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (fault("open", severity=Severity.P3, code="PRN.PAPER_NEAR_END"), T0))
        bench.conn.execute("UPDATE fault SET muted_until_ms = ?, muted_severity = severity", (T0 * 2,))
        send(bench, agent, (fault("open", id_=b"fault--2"), T0 + 5))
        assert bench.rows("SELECT code, muted_until_ms IS NULL FROM fault ORDER BY code") == [
            ("PRN.PAPER_NEAR_END", 0),
            ("PRN.PAPER_OUT", 1),
        ]


class TestDisputed:
    def test_disputed_facts_are_marked_and_leave_current_state_alone(self, bench: FactBench) -> None:
        send(bench, run(1), (device(PaperState.FULL), T0), (fault("open"), T0))
        send(
            bench,
            run(2),
            (device(PaperState.OUT), T0 + 9),
            (fault("clear"), T0 + 9),
            (fault("open", id_=b"fault--2"), T0 + 9),
            (session(b"a"), T0 + 9),
            disputed=True,
        )
        assert bench.one("SELECT paper FROM device") == ("full",)
        assert bench.rows("SELECT disputed, cleared_ms FROM fault ORDER BY id") == [(0, None), (1, None)]
        assert bench.one("SELECT disputed FROM session") == (1,)
        assert bench.rows("SELECT day FROM dirty_day") == []

    def test_restored_streams_count_as_if_they_had_never_been_disputed(self, bench: FactBench, schema: object) -> None:
        batch = send(bench, run(2), (fault("open"), T0), (session(b"a"), T0), (device(PaperState.OUT), T0), disputed=True)
        bench.conn.execute("UPDATE batch SET disputed = 0")
        reproject(bench.conn, [batch])
        assert bench.one("SELECT disputed FROM fault") == (0,)
        assert bench.one("SELECT disputed FROM session") == (0,)
        assert bench.one("SELECT paper FROM device") == ("out",)
        assert bench.one("SELECT count(*) FROM fault_event") == (1,)

    def test_copied_streams_leave_nothing_behind(self, bench: FactBench) -> None:
        send(bench, run(1), (fault("open"), T0), (session(b"a"), T0))
        before = bench.facts()
        copied = send(
            bench,
            run(2),
            (Boot(agent="1.0", os="Debian 12", arch="x86_64", python="3.11", previous="none"), T0),
            (fault("open", id_=b"fault--2"), T0 + 1),
            (session(b"b"), T0 + 1),
            (session(b"a", outcome="failed"), T0 + 2),
            disputed=True,
        )
        unproject(bench.conn, [copied])
        assert bench.facts() == before

    def test_an_undisputed_clear_takes_over_an_episode_that_only_a_copy_told(self, bench: FactBench) -> None:
        send(bench, run(2), (fault("open"), T0), disputed=True)
        send(bench, run(1), (fault("clear"), T0 + 5000))
        assert bench.one("SELECT disputed, cleared_ms, open_batch FROM fault") == (0, T0 + 5000, None)


class TestCases:
    @pytest.mark.spec("C-209")
    def test_a_case_told_twice_is_one_case_and_the_result_beats_the_lost_lease(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (session(b"a", outcome="abandoned"), T0), (session(b"b"), T0))
        send(bench, agent, (session(b"a"), T0 + 1000), (session(b"b"), T0 + 1000))
        assert bench.rows("SELECT sid, outcome FROM session ORDER BY sid") == [(b"a" * 16, "success"), (b"b" * 16, "success")]

    def test_a_case_counts_on_the_local_day_it_began(self, bench: FactBench) -> None:
        midnight = 1_780_070_400_000  # 2026-05-30 00:00 in Shanghai
        send(bench, run(), (session(b"a", began_ms=midnight - 1), midnight + 60_000))
        assert bench.one("SELECT day FROM session") == ("2026-05-29",)
        assert bench.rows("SELECT day FROM dirty_day") == [("2026-05-29",)]

    def test_the_day_is_that_of_the_site(self, bench: FactBench) -> None:
        bench.add_site("S1", zone="Europe/Lisbon")
        send(bench, run(), (session(b"a", began_ms=1_780_070_400_000), 1_780_070_460_000))
        assert bench.one("SELECT day FROM session") == ("2026-05-29",)

    def test_ratings_and_keys_count_once(self, bench: FactBench) -> None:
        agent = run()
        sent = agent.send(
            [
                agent.capture(Rating(level=5), T0),
                agent.capture(Rating(level=5), T0),
                agent.capture(Queue(slot="call-pad-1", action="callNext"), T0),
            ],
            T0,
        )
        bench.arrive(sent, sent)
        assert bench.one("SELECT count(*), sum(level) FROM rating") == (2, 10)
        assert bench.one("SELECT slot, action, day FROM queue_event") == ("call-pad-1", "callNext", "2026-05-29")


class TestOtherKinds:
    def test_consumables_keep_the_newest_level_and_the_last_refill(self, bench: FactBench) -> None:
        def level(event: str, remaining: int) -> Consumable:
            return Consumable(
                slot="laser-printer",
                item="paper",
                event=event,  # type: ignore[arg-type]
                remaining=remaining,
                capacity=500,
                unit="sheet",
                source="counter",
            )

        agent = run()
        send(bench, agent, (level("refill", 500), T0 + 1000))
        send(bench, agent, (level("level", 480), T0 + 2000))
        send(bench, agent, (level("level", 3), T0 + 500))
        assert bench.one("SELECT remaining, at_ms, refilled_ms FROM consumable") == (480, T0 + 2000, T0 + 1000)
        told = bench.rows("SELECT event, remaining FROM consumable_level ORDER BY at_ms")
        assert told == [("level", 3), ("refill", 500), ("level", 480)]

    def test_levels_of_a_stream_in_dispute_leave_the_history_and_come_back_with_its_verdict(self, bench: FactBench) -> None:
        agent = run()
        level = Consumable(
            slot="laser-printer", item="paper", event="level", remaining=9, capacity=500, unit="sheet", source="counter"
        )
        send(bench, agent, (level, T0 + 1000))
        (batch,) = bench.one("SELECT id FROM batch")
        assert isinstance(batch, int)
        for disputed, left in ((1, 0), (0, 1)):
            bench.conn.execute("UPDATE batch SET disputed = ?", (disputed,))
            reproject(bench.conn, [batch])
            assert bench.one("SELECT count(*) FROM consumable_level") == (left,)

    def test_hardware_without_a_profile(self, bench: FactBench) -> None:
        agent = run()
        send(bench, agent, (Sighting(bus="usb", port="1-1.4", vid=0x1234, pid=1), T0))
        send(bench, agent, (Sighting(bus="usb", port="1-1.4", vid=0x1234, pid=1, present=False), T0 + 1))
        assert bench.one("SELECT port, vid, present, at_ms FROM sighting") == ("1-1.4", 0x1234, 0, T0 + 1)

    def test_starts_tell_the_running_versions(self, bench: FactBench) -> None:
        def boot(agent: str) -> Boot:
            return Boot(agent=agent, os="Debian 12", arch="x86_64", python="3.11", previous="clean")

        send(bench, run(2), (boot("1.1"), T0 + 10))
        send(bench, run(1), (boot("1.0"), T0))
        assert bench.one("SELECT agent_version, os FROM terminal_live") == ("1.1", "Debian 12")
        assert bench.one("SELECT count(*) FROM boot") == (2,)

    def test_summaries_and_links(self, bench: FactBench) -> None:
        span = {"from_ms": T0, "to_ms": T0 + 15 * MINUTE}
        agent = run()
        records: list[Body] = [
            Counters(
                **span,
                slots=(
                    SlotCount(slot="scanner", total=3, ok=2, failed=1),
                    SlotCount(slot="keypad", total=1, ok=1, failed=0, derived=True),
                ),
            ),
            Serviceability(**span, observed_s=900, usable_s=600, partial_s=200, unusable_s=100),
            Host(**span, cpu_pct=3, mem_free_mib=900, disk_free_mib=9000, uptime_s=77, agent_rss_kib=35_000, outbox_batches=1),
            Reading(
                **span,
                slot="climate",
                quantity="temperature",
                unit="celsius",
                min_tenths=-10,
                mean_tenths=2**52,
                max_tenths=2**53 - 1,
            ),
            Link(state="down", reason="closed", attempts=2),
        ]
        sent = agent.send([agent.capture(body, T0 + 15 * MINUTE) for body in records], T0 + 15 * MINUTE)
        bench.arrive(sent, sent)
        assert bench.rows("SELECT slot, total, derived FROM counters ORDER BY slot") == [("keypad", 1, 1), ("scanner", 3, 0)]
        assert bench.one("SELECT from_ms, to_ms, usable_s, partial_s, unusable_s FROM serviceability") == (
            T0,
            T0 + 15 * MINUTE,
            600,
            200,
            100,
        )
        assert bench.one("SELECT cpu_pct, temp_c FROM host_health") == (3, None)
        assert bench.one("SELECT min_tenths, mean_tenths < 2e9 FROM reading") == (-10, 1)
        assert bench.one("SELECT state, reason, attempts FROM link_event") == ("down", "closed", 2)

    def test_a_span_that_began_before_the_clock_was_set_dirties_two_days_at_most(self, bench: FactBench) -> None:
        body = Serviceability(from_ms=0, to_ms=T0, observed_s=900, usable_s=900, partial_s=0, unusable_s=0)
        send(bench, run(), (body, T0))
        (days,) = bench.one("SELECT count(*) FROM dirty_day")
        assert days in {2, 3}

    @pytest.mark.parametrize("began_ms", [0, 2**53 - 1])
    def test_times_inside_a_body_never_stop_a_batch(self, bench: FactBench, began_ms: int) -> None:
        send(bench, run(), (session(b"a", began_ms=began_ms), T0))
        (kept,) = bench.one("SELECT began_ms FROM session")
        assert isinstance(kept, int)
        assert 0 <= kept <= T0
