"""A birth's list of open faults closes what it does not name and opens what nobody told, and yields to the records themselves."""

from __future__ import annotations

import pytest

from fleet_server.facts.births import Known, PendingBirths, apply_birth, conclude
from protocols.canon.words import Severity
from protocols.contract.messages import Birth, Held, OpenFault
from protocols.contract.records import ClockQuality, Fault
from tests.support.facts import T0, FactBench, Run

A, B = b"A" * 8, b"B" * 8


def fault(id_: bytes, change: str, code: str = "PRN.PAPER_OUT") -> Fault:
    return Fault(
        id=id_, code=code, change="open" if change == "open" else "clear", severity=Severity.P2, slot="printer", since_ms=T0
    )


def open_fault(id_: bytes, since_ms: int = T0) -> OpenFault:
    return OpenFault(id_, "SCN.UNPLUGGED", Severity.P3, since_ms, "scanner", False)


def birth(run: Run, *faults: OpenFault, held: int | None = None, error_ms: int = 0, more: bool = False) -> Birth:
    last = len(run.sent) if held is None else held
    return Birth(
        nonce=bytes(16),
        agent="1.0",
        boot_no=run.number,
        boot_id=run.boot_id,
        stream=run.stream,
        wall_ms=T0 + 60_000 + error_ms,
        boot_ms=60_000,
        quality=ClockQuality.SYNCED if error_ms == 0 else ClockQuality.UNSET,
        held=(Held(run.stream, 1, b"", last),) if last else (),
        faults=faults,
        more=more,
    )


def known(
    key: str, *, stream: bytes | None = None, no: int = 1, boot_no: int = 1, is_open: bool = True, by_birth: bool = False
) -> Known:
    return Known(key, is_open, by_birth, stream, no, boot_no)


class TestConclude:
    run = Run("kf-1", 2, up_ms=T0)
    key = f"kf-1:{A.hex()}"

    @pytest.mark.parametrize(
        ("stream", "no", "boot_no", "closed"),
        [
            pytest.param(run.stream, 3, 2, True, id="inside the listed backlog"),
            pytest.param(run.stream, 4, 2, False, id="captured after the birth"),
            pytest.param(b"o" * 16, 9, 1, True, id="older stream, no longer held"),
            pytest.param(b"n" * 16, 1, 3, False, id="a later start"),
            pytest.param(None, 0, 0, True, id="opened on an earlier birth's word"),
        ],
    )
    def test_only_what_was_captured_before_the_birth_is_closed_by_it(
        self, stream: bytes | None, no: int, boot_no: int, closed: bool
    ) -> None:
        found = conclude("kf-1", birth(self.run, held=3), [known(self.key, stream=stream, no=no, boot_no=boot_no)])
        assert (self.key in found.close) is closed

    def test_the_stream_of_this_start_without_a_batch_yet_is_after_the_birth(self) -> None:
        assert conclude("kf-1", birth(self.run, held=0), [known(self.key, stream=self.run.stream, boot_no=2)]).close == ()

    def test_a_named_fault_stays_and_one_closed_by_an_earlier_birth_opens_again(self) -> None:
        found = conclude("kf-1", birth(self.run, open_fault(A)), [known(self.key, is_open=False, by_birth=True)])
        assert (found.close, found.reopen, found.open) == ((), (self.key,), ())

    def test_a_fault_that_the_terminal_cleared_itself_is_not_opened_again(self) -> None:
        found = conclude("kf-1", birth(self.run, open_fault(A)), [known(self.key, is_open=False)])
        assert (found.close, found.reopen, found.open) == ((), (), ())

    def test_nothing_is_concluded_from_a_list_that_may_be_cut(self) -> None:
        full = [open_fault(n.to_bytes(8, "big")) for n in range(128)]
        assert conclude("kf-1", birth(self.run, *full), [known(self.key)]).close == ()


class TestApply:
    @pytest.mark.spec("C-410")
    def test_a_fault_whose_clear_is_gone_is_closed_by_the_birth(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0)
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        assert apply_birth(bench.conn, "kf-1", birth(run), T0 + 60_000)
        assert bench.one("SELECT cleared_by, cleared_ms FROM fault") == ("birth", T0 + 60_000)
        assert bench.rows("SELECT kind FROM fault_event ORDER BY at_ms") == [("open",), ("clear",)]
        bench.arrive(run.send([run.capture(fault(A, "clear"), T0 + 5000)], T0 + 70_000))
        assert bench.one("SELECT cleared_by, cleared_ms FROM fault") == ("terminal", T0 + 5000)
        assert bench.rows("SELECT at_ms FROM fault_event WHERE kind = 'clear'") == [(T0 + 5000,)]

    @pytest.mark.spec("C-410")
    def test_it_waits_for_the_backlog_it_lists(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0)
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        greeting = birth(run, held=2)
        assert not apply_birth(bench.conn, "kf-1", greeting, T0 + 60_000)
        assert bench.one("SELECT cleared_ms FROM fault") == (None,)
        bench.arrive(run.send([run.capture(fault(A, "clear"), T0 + 9)], T0 + 61_000))
        assert apply_birth(bench.conn, "kf-1", greeting, T0 + 61_000)
        assert bench.one("SELECT cleared_by FROM fault") == ("terminal",)

    def test_a_birth_that_announces_more_or_comes_from_a_disputed_stream_says_nothing(self, bench: FactBench) -> None:
        run, copy = Run("kf-1", 1, up_ms=T0), Run("kf-1", 2, up_ms=T0)
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        assert not apply_birth(bench.conn, "kf-1", birth(run, more=True), T0)
        bench.arrive(copy.send([copy.capture(fault(B, "open"), T0)], T0, disputed=True))
        assert not apply_birth(bench.conn, "kf-1", birth(copy), T0)
        assert bench.rows("SELECT cleared_ms FROM fault") == [(None,), (None,)]

    def test_an_unknown_fault_is_opened_and_its_record_completes_it_later(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0)
        assert apply_birth(bench.conn, "kf-1", birth(run, open_fault(A)), T0 + 60_000)
        assert bench.one("SELECT source, code, since_ms, opened_ms, open_batch, slot FROM fault") == (
            "terminal",
            "SCN.UNPLUGGED",
            T0,
            T0 + 60_000,
            None,
            "scanner",
        )
        (batch,) = bench.arrive(run.send([run.capture(fault(A, "open", "SCN.UNPLUGGED"), T0 + 7)], T0 + 61_000))
        assert bench.one("SELECT opened_ms, open_batch FROM fault") == (T0 + 7, batch)
        assert bench.one("SELECT at_ms, kind FROM fault_event") == (T0 + 7, "open")

    def test_the_birth_may_be_told_twice(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0)
        for _ in range(2):
            apply_birth(bench.conn, "kf-1", birth(run, open_fault(A), open_fault(B)), T0 + 60_000)
        assert bench.one("SELECT count(*) FROM fault_event") == (2,)
        assert bench.one("SELECT count(*) FROM fault WHERE cleared_ms IS NULL") == (2,)

    def test_a_birth_with_a_wrong_clock_is_held_against_the_servers(self, bench: FactBench) -> None:
        run = Run("kf-1", 1, up_ms=T0)
        day_ms = 86_400_000
        apply_birth(bench.conn, "kf-1", birth(run, open_fault(A, since_ms=T0 - day_ms), error_ms=-day_ms), T0 + 60_000)
        assert bench.one("SELECT since_ms FROM fault") == (T0,)

    def test_platform_faults_are_not_the_births_business(self, bench: FactBench) -> None:
        from fleet_server.faults.platform import open_platform_fault

        open_platform_fault(bench.conn, "kf-1", "SEC.CLONE", T0)
        assert apply_birth(bench.conn, "kf-1", birth(Run("kf-1", 1, up_ms=T0)), T0 + 60_000)
        assert bench.one("SELECT cleared_ms FROM fault") == (None,)


class TestWaiting:
    def test_a_birth_speaks_as_soon_as_the_last_listed_batch_is_stored(self, bench: FactBench) -> None:
        run, births = Run("kf-1", 1, up_ms=T0), PendingBirths()
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        births.born(bench.conn, "kf-1", birth(run, held=3), T0 + 60_000)
        for _ in range(2):
            assert bench.one("SELECT cleared_ms FROM fault WHERE id LIKE ?", f"%{A.hex()}") == (None,)
            sent = run.send([run.capture(fault(B, "clear"), T0)], T0)
            bench.arrive(sent)
            births.stored(bench.conn, "kf-1", sent.stream, sent.no)
        assert bench.one("SELECT cleared_by FROM fault WHERE id LIKE ?", f"%{A.hex()}") == ("birth",)

    def test_a_backlog_that_ends_in_a_loss_notice_is_found_by_the_next_retry(self, bench: FactBench) -> None:
        run, births = Run("kf-1", 1, up_ms=T0), PendingBirths()
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        births.born(bench.conn, "kf-1", birth(run, held=2), T0 + 60_000)
        bench.conn.execute("INSERT INTO batch (terminal, stream, no, kind) VALUES ('kf-1', ?, 2, 'loss')", (run.stream,))
        births.retry(bench.conn)
        assert bench.one("SELECT cleared_by FROM fault") == ("birth",)

    def test_a_newer_birth_replaces_one_that_waits(self, bench: FactBench) -> None:
        run, births = Run("kf-1", 1, up_ms=T0), PendingBirths()
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        births.born(bench.conn, "kf-1", birth(run, held=2), T0 + 60_000)
        births.born(bench.conn, "kf-1", birth(run, open_fault(A), held=3), T0 + 70_000)
        bench.arrive(*(run.send([run.capture(fault(B, "clear"), T0)], T0) for _ in range(2)))
        births.retry(bench.conn)
        assert bench.one("SELECT cleared_ms FROM fault WHERE id LIKE ?", f"%{A.hex()}") == (None,)

    def test_a_birth_whose_transaction_was_rolled_back_is_told_again(self, bench: FactBench) -> None:
        run, births = Run("kf-1", 1, up_ms=T0), PendingBirths()
        bench.arrive(run.send([run.capture(fault(A, "open"), T0)], T0))
        bench.conn.execute("BEGIN")
        births.born(bench.conn, "kf-1", birth(run), T0 + 60_000)
        bench.conn.execute("ROLLBACK")
        assert bench.one("SELECT cleared_ms FROM fault") == (None,)
        for _ in range(3):
            births.retry(bench.conn)
        assert bench.one("SELECT cleared_by FROM fault") == ("birth",)
        assert bench.one("SELECT count(*) FROM fault_event WHERE kind = 'clear'") == (1,)
