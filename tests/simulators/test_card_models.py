"""Simulated card units answer with the bytes of the manuals' tables, and do with cards what such units do."""

from __future__ import annotations

import pytest

from simulators.models.base import Model
from simulators.models.card_d1801 import Crt541Dispenser, D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.card_stx import StxCardReader

ENQ = "05"


def ask(model: Model, *queries: str, now: float = 10.0, wait_s: float = 20.0, cut: int | None = None) -> str:
    """What comes back, as hex; each query gives the unit time to answer."""
    found = b""
    for query in queries:
        raw = bytes.fromhex(query)
        for piece in [raw] if cut is None else [raw[at : at + cut] for at in range(0, len(raw), cut)]:
            model.feed(piece, now)
        now += wait_s
        found += model.take(now, 65536)
    return found.hex(" ")


@pytest.fixture(params=[None, 1, 3], ids=["whole", "bytewise", "by-three"])
def cut(request: pytest.FixtureRequest) -> int | None:
    value: int | None = request.param
    return value


class TestF2:
    @pytest.mark.parametrize(
        ("query", "answer"),
        [
            ("f2 00 00 03 43 31 30 03 b0", "06 f2 00 00 06 50 31 30 30 32 30 03 94"),
            (
                "f2 00 00 03 43 30 33 03 b2",
                "06 f2 00 00 13 50 30 33 30 32 30 43 52 54 2d 35 39 31 2d 56 31 2e 30 30 03 b2",
            ),
            ("f2 00 00 03 43 31 30 03 b1", "15"),
            ("f2 01 00 03 43 31 30 03 b1", ""),
            ("04", "04"),
        ],
    )
    def test_answers(self, query: str, answer: str, cut: int | None) -> None:
        assert ask(F2CardUnit(), query, cut=cut) == answer

    @pytest.mark.parametrize(
        ("fault", "query", "answer"),
        [
            ("jam", "f2 00 00 03 43 32 30 03 b3", "06 f2 00 00 05 4e 32 30 31 30 03 b9"),
            ("stacker-empty", "f2 00 00 03 43 32 30 03 b3", "06 f2 00 00 05 4e 32 30 41 30 03 c9"),
            ("power-cycled", "f2 00 00 03 43 32 30 03 b3", "06 f2 00 00 05 4e 32 30 42 30 03 ca"),
        ],
    )
    def test_error_pairs(self, fault: str, query: str, answer: str) -> None:
        unit = F2CardUnit()
        unit.set(fault, 5.0)
        assert ask(unit, query) == answer

    def test_a_full_bin_takes_no_card(self) -> None:
        unit = F2CardUnit()
        ask(unit, "f2 00 00 03 43 32 31 03 b2")
        unit.set("bin-full", 40.0)
        assert ask(unit, "f2 00 00 03 43 32 33 03 b0", now=50.0) == "06 f2 00 00 05 4e 32 33 41 31 03 cb"
        assert (unit.place, unit.captured) == ("inside", 0)

    def test_a_move_without_a_card_feeds_one(self) -> None:
        unit = F2CardUnit(stacker=2)
        assert ask(unit, "f2 00 00 03 43 32 30 03 b3").startswith("06 f2 00 00 06 50 32 30 31 31 30")
        assert (unit.place, unit.stacker, unit.dispensed, unit.motions) == ("gate", 1, 1, 1)
        unit.act("take-card", 40.0)
        assert (unit.place, unit.taken) == ("none", 1)

    def test_the_result_comes_after_the_motion(self) -> None:
        unit = F2CardUnit()
        unit.feed(bytes.fromhex("f200000343323003b3"), 10.0)
        assert unit.take(10.5, 99) == b"\x06"
        unit.feed(bytes.fromhex("f200000343313003b0"), 10.6)
        assert unit.take(10.9, 99) == b"", "while the motor runs nothing else is heard"
        assert unit.take(13.0, 99).hex().startswith("f20000065032303132")

    def test_a_result_is_repeated_after_nak_and_the_motion_is_not(self) -> None:
        unit = F2CardUnit()
        first = ask(unit, "f2 00 00 03 43 32 30 03 b3")
        assert ask(unit, "15", now=100.0) == first.removeprefix("06 ")
        assert unit.motions == 1

    def test_a_card_pulled_away_while_it_is_captured(self) -> None:
        unit = F2CardUnit()
        ask(unit, "f2 00 00 03 43 32 30 03 b3")
        unit.feed(bytes.fromhex("f200000343323303b0"), 50.0)
        unit.act("take-card", 50.5)
        assert "4e 32 33 34 30" in unit.take(60.0, 99).hex(" ")
        assert (unit.captured, unit.taken) == (0, 1)

    def test_a_brown_out_forgets_the_initialisation(self) -> None:
        unit = F2CardUnit()
        unit.set("brown-out", 10.0)
        unit.advance(11.0)
        unit.clear("brown-out", 13.0)
        assert ask(unit, "f2 00 00 03 43 31 30 03 b0", now=14.0) == "06 f2 00 00 05 4e 31 30 42 30 03 c9"
        unit.act("initialise", 40.0)
        assert ask(unit, "f2 00 00 03 43 31 30 03 b0", now=50.0).endswith("30 32 30 03 94")

    def test_lost_words(self) -> None:
        unit = F2CardUnit()
        unit.set("lost-answer", 5.0)
        assert ask(unit, "f2 00 00 03 43 32 30 03 b3") == "06"
        assert unit.dispensed == 1
        unit.clear("lost-answer", 40.0)
        unit.set("lost-ack", 41.0)
        assert ask(unit, "f2 00 00 03 43 31 30 03 b0", now=50.0) == "f2 00 00 06 50 31 30 31 32 30 03 95"
        unit.set("nak", 80.0)
        assert ask(unit, "f2 00 00 03 43 31 30 03 b0", now=90.0) == "15"

    @pytest.mark.parametrize(("entry", "permit", "prohibit"), [("30-permits", "30", "31"), ("30-prohibits", "32", "30")])
    def test_entry_means_the_opposite_on_two_units(self, entry: str, permit: str, prohibit: str) -> None:
        unit = F2CardUnit(entry=entry)  # type: ignore[arg-type]
        for parameter, opened in ((permit, True), (prohibit, False)):
            body = bytes.fromhex(f"f20000034333{parameter}03")
            check = 0
            for byte in body:
                check ^= byte
            ask(unit, (body + bytes((check,))).hex(), now=10.0 if opened else 40.0)
            assert unit.entry_open is opened

    def test_a_person_puts_a_card_in_only_where_it_is_let_in(self) -> None:
        reader = F2CardReader()
        reader.act("insert-card", 5.0, "M1")
        assert reader.place == "none"
        reader.entry_open = True
        reader.act("insert-card", 6.0, "M1")
        reader.advance(10.0)
        assert (reader.place, reader.card.marker) == ("inside", "M1")
        assert "M1" in repr(reader.card)  # the simulator's own card says what it is; what it answers is not shown
        assert "answer" not in repr(reader.card)


class TestStx:
    @pytest.mark.parametrize(
        ("queries", "answer"),
        [
            (("02 00 02 31 30 03 02",), "06"),
            (("02 00 02 31 30 03 02", ENQ), "06 02 00 05 31 30 4e 49 4a 03 48"),
            (("02 00 02 31 30 03 03", ENQ), "15"),
            (("02 00 02 32 30 03 01", ENQ), "06 02 00 03 32 30 45 03 45"),
        ],
    )
    def test_answers(self, queries: tuple[str, ...], answer: str, cut: int | None) -> None:
        assert ask(StxCardReader(), *queries, wait_s=3.0, cut=cut) == answer

    def test_a_short_card(self) -> None:
        reader = StxCardReader()
        reader.set("short-card", 5.0)
        assert ask(reader, "02 00 02 31 30 03 02", ENQ, wait_s=3.0) == "06 02 00 05 31 30 47 49 4a 03 41"

    def test_supply(self) -> None:
        for fault, code in (("voltage", "05 03 78"), ("backup-power", "07 03 7a")):
            reader = StxCardReader()
            reader.set(fault, 5.0)
            assert ask(reader, "02 00 02 31 30 03 02", ENQ, wait_s=3.0) == f"06 02 00 03 4e 31 {code}"

    def test_nothing_moves_before_enq(self) -> None:
        reader = StxCardReader()
        reader.act("insert-card", 5.0)
        reader.advance(9.0)
        before = reader.motions
        assert ask(reader, "02 00 02 32 33 03 02", wait_s=30.0) == "06"
        assert reader.motions == before
        assert ask(reader, ENQ, ENQ, now=100.0) == "02 00 03 32 33 59 03 5a"
        assert (reader.motions, reader.captured) == (before + 1, 1)


class TestD1801:
    @pytest.mark.parametrize(
        ("fault", "answer"),
        [
            ("", "06 02 53 46 30 30 30 03 24"),
            ("jam", "06 02 53 46 30 32 30 03 26"),
            ("stacker-empty", "06 02 53 46 30 30 38 03 2c"),
            ("bin-full", "06 02 53 46 31 30 30 03 25"),
            ("not-ready", "06 02 53 46 30 30 31 03 25"),
        ],
    )
    def test_states(self, fault: str, answer: str, cut: int | None) -> None:
        board = D1801Dispenser()
        if fault:
            board.set(fault, 5.0)
        assert ask(board, "02 52 46 03 15", ENQ, wait_s=0.5, cut=cut) == answer

    def test_dispense_then_capture(self) -> None:
        board = D1801Dispenser(stacker=1)
        assert ask(board, "02 44 43 03 06", ENQ, wait_s=0.5) == "06"
        assert ask(board, "02 52 46 03 15", ENQ, now=11.0, wait_s=0.1) == "06 02 53 46 38 30 30 03 2c"
        assert ask(board, "02 52 46 03 15", ENQ, now=20.0, wait_s=0.5) == "06 02 53 46 30 30 34 03 20"
        assert ask(board, "02 50 42 03 13", ENQ, now=22.0, wait_s=0.5) == "06 02 50 42 30 30 3d 03 2e"
        ask(board, "02 43 50 03 12", ENQ, now=30.0, wait_s=5.0)
        assert (board.dispensed, board.captured, board.motions, board.place) == (1, 1, 2, "none")

    def test_version(self) -> None:
        assert ask(D1801Dispenser(), "02 47 56 03 10", ENQ, wait_s=0.5) == "06 02 47 56 33 31 39 03 2b"


class TestCrt541:
    def test_enquiry_and_dispensing(self) -> None:
        unit = Crt541Dispenser()
        enquiry, dispense = "02 30 30 41 50 03 10", "02 30 30 44 43 03 06"
        assert ask(unit, enquiry, wait_s=0.5) == "06 30 30 02 30 30 30 30 03 01"
        assert ask(unit, dispense, now=20.0, wait_s=0.5) == "06 30 30"
        assert ask(unit, enquiry, now=20.6, wait_s=0.3).endswith("31 30 03 00")
        assert ask(unit, enquiry, now=30.0, wait_s=0.5).endswith("33 30 03 02")
        assert ask(unit, enquiry, now=31.0, wait_s=0.5).endswith("30 30 03 01"), "the success is told once"
        assert unit.motions == 1

    def test_another_address_is_not_meant(self) -> None:
        assert ask(Crt541Dispenser(address=3), "02 30 30 41 50 03 10") == ""
        assert ask(Crt541Dispenser(), "02 30 30 41 50 03 11", wait_s=0.5) == "15 30 30"
