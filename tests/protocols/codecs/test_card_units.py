"""Codecs of card readers and dispensers: bytes of the manuals' tables, any cut, noise, and nothing of a card in what is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.canon.words import DeviceState, MediaState, PaperState, SuggestedAction
from protocols.codecs import card_d1801, card_f2, card_stx
from protocols.codecs.card_unit import CardPlace, Mark
from protocols.codecs.common import StreamDecoder, xor8
from protocols.content import card_d1801 as d1801_content
from protocols.content import card_f2 as f2_content
from protocols.content import card_stx as stx_content
from protocols.errors import ChecksumError, EncodeError, FrameError, ProtocolError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

READERS: dict[str, Callable[[], StreamDecoder[Any]]] = {
    "f2": card_f2.F2Reader,
    "stx": card_stx.StxReader,
    "d1801": card_d1801.D1801Reader,
    "addressed": lambda: card_d1801.D1801Reader(addressed=True),
}
GOOD = {
    "f2": h("06 F2 00 00 06 50 31 30 30 32 30 03 94"),
    "stx": h("06 02 00 05 31 30 4E 49 4A 03 48"),
    "d1801": h("06 02 53 46 30 32 30 03 26"),
    "addressed": h("06 30 30 02 30 30 30 30 03 01"),
}


def closed(text: str) -> bytes:
    body = h(text)
    return body + bytes((xor8(body),))


class TestF2:
    """CRT-591-M001 communication protocol and QU-TK-F3 protocol."""

    @pytest.mark.parametrize(
        ("query", "frame"),
        [
            ("status", "F2 00 00 03 43 31 30 03 B0"),
            ("sensors", "F2 00 00 03 43 31 31 03 B1"),
            ("version", "F2 00 00 03 43 A4 30 03 25"),
        ],
    )
    def test_questions(self, query: str, frame: str) -> None:
        assert card_f2.encode(card_f2.Query(query)) == h(frame)

    def test_the_address_is_in_the_frame_and_in_the_check(self) -> None:
        assert card_f2.encode(card_f2.Query.STATUS, 15) == closed("F2 0F 00 03 43 31 30 03")
        with pytest.raises(EncodeError):
            card_f2.encode(card_f2.Query.STATUS, 16)

    def test_status(self) -> None:
        ack, answer = every_cut(card_f2.F2Reader, GOOD["f2"])
        assert ack is Mark.ACK
        assert (answer.positive, answer.command, answer.status) == (True, b"10", b"020")
        reading = card_f2.reading_of(answer, stacker=True, bin_sensor=True)
        assert (reading.device, reading.media, reading.stock) == (DeviceState.ONLINE, MediaState.NOT_PRESENT, PaperState.FULL)
        assert (reading.bin_full, reading.conditions, reading.judged) == (False, (), None)

    @pytest.mark.parametrize(
        ("status", "media", "stock", "conditions"),
        [
            ("120", "entering", "full", ()),
            ("220", "present", "full", ()),
            ("010", "notPresent", "low", ("STACKER_LOW",)),
            ("000", "notPresent", "out", ("STACKER_EMPTY",)),
            ("021", "notPresent", "full", ("BIN_FULL",)),
            ("201", "present", "out", ("STACKER_EMPTY", "BIN_FULL")),
        ],
    )
    def test_status_bytes(self, status: str, media: str, stock: str, conditions: tuple[str, ...]) -> None:
        answer = only(feed(card_f2.F2Reader(), [closed(f"F2 00 00 06 50 31 30 {status.encode().hex()} 03")]))
        reading = card_f2.reading_of(answer, stacker=True, bin_sensor=True)
        assert (reading.media.value, reading.stock.value, reading.conditions) == (media, stock, conditions)
        plain = card_f2.reading_of(answer, stacker=False, bin_sensor=False)
        assert (plain.stock, plain.bin_full, plain.conditions) == (PaperState.NOT_SUPPORTED, None, ())

    @pytest.mark.parametrize(
        ("frame", "tail", "device", "action"),
        [
            ("F2 00 00 05 4E 32 30 31 30 03 B9", "CARD_STUCK", "hardwareError", "clear"),
            ("F2 00 00 05 4E 32 30 41 30 03 C9", "STACKER_EMPTY", "online", "clear"),
            ("F2 00 00 05 4E 32 30 41 31 03 C8", "BIN_FULL", "online", "clear"),
            ("F2 00 00 05 4E 32 30 42 30 03 CA", "NOT_READY", "offline", "reset"),
        ],
    )
    def test_error_pairs(self, frame: str, tail: str, device: str, action: str) -> None:
        answer = only(every_cut(card_f2.F2Reader, h(frame)))
        reading = card_f2.reading_of(answer, stacker=True, bin_sensor=True)
        assert (reading.conditions, reading.device.value, reading.action.value) == ((tail,), device, action)
        assert reading.judged == frozenset({tail, "NOT_READY"}), "one error says nothing about the others"

    def test_the_other_head_for_an_error_is_the_same_error(self) -> None:
        answer = only(feed(card_f2.F2Reader(), [closed("F2 00 00 05 45 31 30 35 31 03")]))
        assert card_f2.reading_of(answer, stacker=True, bin_sensor=True).conditions == ("MECHANISM",)

    def test_padding_of_the_error_table_proves_nothing(self) -> None:
        for code in ("11", "06", "07", "08", "09", "A2", "A9", "00", "04"):
            answer = only(feed(card_f2.F2Reader(), [closed(f"F2 00 00 05 4E 31 30 {code.encode().hex()} 03")]))
            reading = card_f2.reading_of(answer, stacker=True, bin_sensor=True)
            assert (reading.device, reading.conditions, reading.judged) == (DeviceState.UNKNOWN, (), frozenset())

    def test_firmware_of_the_reset_and_barriers(self) -> None:
        text = "43 52 54 2D 35 39 31 2D 56 31 2E 30 30"
        answer = only(feed(card_f2.F2Reader(), [h(f"F2 00 00 13 50 30 33 30 32 30 {text} 03 B2")]))
        assert card_f2.version_text(answer) == "CRT-591-V1.00"
        answer = only(feed(card_f2.F2Reader(), [closed("F2 00 00 0E 50 31 31 30 32 30 30 31 30 30 30 30 30 30 03")]))
        assert card_f2.barriers_of(answer) == (False, True, False, False, False, False, False, False)

    def test_what_a_chip_says_is_blanked(self) -> None:
        secret = b"PLANTED1"
        frame = closed(f"F2 00 00 0E 50 51 33 32 32 30 {secret.hex()} 03")
        answer = only(every_cut(card_f2.F2Reader, frame))
        assert (answer.data, answer.masked) == (b"", ((10, 18),))
        assert secret not in answer.evidence
        assert "PLANTED" not in repr(answer)
        kept = only(feed(f2_content.CardReader(), [frame]))
        assert kept.data == secret
        assert "PLANTED" not in repr(kept)

    def test_our_own_words_are_no_noise(self) -> None:
        reader = card_f2.F2Reader()
        assert feed(reader, [card_f2.encode(card_f2.Query.STATUS) + GOOD["f2"]])[0] is Mark.ACK
        assert reader.noise_bytes == 0

    @pytest.mark.parametrize(
        ("command", "frame"),
        [
            ("RESET_IN_PLACE", "F2 00 00 03 43 30 33 03 B2"),
            ("RESET_TO_GATE", "F2 00 00 03 43 30 30 03 B1"),
            ("RESET_TO_BIN", "F2 00 00 03 43 30 31 03 B0"),
            ("HOLD_AT_GATE", "F2 00 00 03 43 32 30 03 B3"),
            ("TO_CONTACTS", "F2 00 00 03 43 32 31 03 B2"),
            ("TO_ANTENNA", "F2 00 00 03 43 32 32 03 B1"),
            ("TO_BIN", "F2 00 00 03 43 32 33 03 B0"),
            ("EJECT", "F2 00 00 03 43 32 39 03 BA"),
        ],
    )
    def test_commands(self, command: str, frame: str) -> None:
        assert f2_content.encode(f2_content.Command[command]) == h(frame)

    def test_a_chip_command(self) -> None:
        frame = f2_content.encode(f2_content.Command.CHIP_T0, 0, h("00 84 00 00 08"))
        assert frame == closed("F2 00 00 08 43 51 33 00 84 00 00 08 03")
        with pytest.raises(EncodeError):
            f2_content.encode(f2_content.Command.CHIP_T0, 0, bytes(513))


class TestStx:
    """Tables of the CRT-310's public drivers."""

    @pytest.mark.parametrize(("query", "frame"), [("status", "02 00 02 31 30 03 02"), ("sensors", "02 00 02 31 2F 03 1D")])
    def test_questions(self, query: str, frame: str) -> None:
        assert card_stx.encode(card_stx.Query(query)) == h(frame)

    def test_status(self) -> None:
        ack, answer = every_cut(card_stx.StxReader, GOOD["stx"])
        assert ack is Mark.ACK
        reading = card_stx.reading_of(answer)
        assert (reading.device, reading.place, reading.conditions) == (DeviceState.ONLINE, CardPlace.NONE, ())

    def test_a_short_card_inside(self) -> None:
        answer = only(every_cut(card_stx.StxReader, h("02 00 05 31 30 47 4E 4E 03 42")))
        reading = card_stx.reading_of(answer)
        assert (reading.media, reading.conditions, reading.device) == (
            MediaState.JAMMED, ("CARD_STUCK",), DeviceState.HARDWARE_ERROR,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("position", "media"),
        [
            (0x48, "entering"),
            (0x49, "entering"),
            (0x4A, "present"),
            (0x4B, "present"),
            (0x4C, "present"),
            (0x4D, "present"),
            (0x46, "jammed"),
        ],
    )
    def test_positions(self, position: int, media: str) -> None:
        answer = only(feed(card_stx.StxReader(), [closed(f"02 00 05 31 30 {position:02x} 49 4A 03")]))
        assert card_stx.reading_of(answer).media.value == media

    def test_a_refusal_repeats_the_command_only(self) -> None:
        answer = only(every_cut(card_stx.StxReader, h("02 00 03 4E 32 02 03 7C")))
        assert (answer.positive, answer.command, answer.error) == (False, b"2", 2)
        assert not answer.answers(card_stx.Query.STATUS)

    @pytest.mark.parametrize(
        ("error", "tails", "device"),
        [
            (5, ("POWER",), "hardwareError"),
            (6, ("CARD_STUCK",), "hardwareError"),
            (7, ("POWER",), "powerOff"),
            (2, (), "deviceBusy"),
            (0, (), "unknown"),
        ],
    )
    def test_errors(self, error: int, tails: tuple[str, ...], device: str) -> None:
        answer = only(feed(card_stx.StxReader(), [closed(f"02 00 03 4E 31 {error:02x} 03")]))
        assert answer.answers(card_stx.Query.STATUS)
        reading = card_stx.reading_of(answer)
        assert (reading.conditions, reading.device.value) == (tails, device)

    def test_barriers(self) -> None:
        answer = only(feed(card_stx.StxReader(), [closed("02 00 09 31 2F 30 31 30 30 30 30 30 03")]))
        assert card_stx.barriers_of(answer) == (False, True, False, False, False)

    def test_what_is_not_about_the_unit_is_blanked(self) -> None:
        frame = closed(f"02 00 0A 37 31 {b'PLANTED1'.hex()} 03")
        answer = only(every_cut(card_stx.StxReader, frame))
        assert answer.data == b""
        assert b"PLANTED" not in answer.evidence
        assert only(feed(stx_content.CardReader(), [frame])).data == b"PLANTED1"

    def test_our_own_words_are_no_noise(self) -> None:
        reader = card_stx.StxReader()
        assert feed(reader, [card_stx.encode(card_stx.Query.STATUS) + b"\x05" + GOOD["stx"]])[0] is Mark.ACK
        assert reader.noise_bytes == 0

    @pytest.mark.parametrize(
        ("command", "frame"),
        [
            ("RESET_IN_PLACE", "02 00 02 30 30 03 03"),
            ("RESET_TO_FRONT", "02 00 02 30 31 03 02"),
            ("TO_CONTACTS", closed("02 00 02 32 2F 03").hex()),
        ],
    )
    def test_commands(self, command: str, frame: str) -> None:
        assert stx_content.encode(stx_content.Command[command]) == h(frame)


class TestD1801:
    """QU-CD-720M/820M manual 3.19, section 3.5; CRT-541 specification 1.0, section 4.4."""

    @pytest.mark.parametrize(("query", "frame"), [("RF", "02 52 46 03 15"), ("PB", "02 50 42 03 13"), ("GV", "02 47 56 03 10")])
    def test_questions(self, query: str, frame: str) -> None:
        assert card_d1801.encode(card_d1801.Query(query)) == h(frame)

    def test_the_addressed_question(self) -> None:
        assert card_d1801.encode(card_d1801.Query.ENQUIRY, 0) == h("02 30 30 41 50 03 10")
        for query, address in ((card_d1801.Query.ENQUIRY, None), (card_d1801.Query.STATE, 3), (card_d1801.Query.ENQUIRY, 16)):
            with pytest.raises(EncodeError):
                card_d1801.encode(query, address)

    @pytest.mark.parametrize(
        ("state", "tails", "media", "stock"),
        [
            ("200", ("MECHANISM",), "unknown", "unknown"),
            ("020", ("CARD_STUCK",), "jammed", "unknown"),
            ("100", ("BIN_FULL",), "unknown", "unknown"),
            ("800", (), "unknown", "unknown"),
            ("400", (), "unknown", "unknown"),
            ("004", (), "entering", "unknown"),
            ("002", (), "present", "unknown"),
            ("008", ("STACKER_EMPTY",), "notPresent", "out"),
            ("010", ("STACKER_LOW",), "notPresent", "low"),
            ("000", (), "notPresent", "full"),
            ("001", ("NOT_READY",), "notPresent", "notSupported"),
        ],
    )
    def test_states_in_their_order(self, state: str, tails: tuple[str, ...], media: str, stock: str) -> None:
        answer = only(every_cut(card_d1801.D1801Reader, closed(f"02 53 46 {state.encode().hex()} 03")))
        reading = card_d1801.reading_of(answer)
        assert (reading.conditions, reading.media.value, reading.stock.value) == (tails, media, stock)

    def test_a_state_takes_back_only_what_ranks_before_it(self) -> None:
        def judged(state: str) -> frozenset[str] | None:
            return card_d1801.reading_of(
                only(feed(card_d1801.D1801Reader(), [closed(f"02 53 46 {state.encode().hex()} 03")]))
            ).judged

        assert judged("000") is None
        assert "STACKER_EMPTY" not in (judged("020") or ())
        assert {"MECHANISM", "CARD_STUCK", "BIN_FULL"} <= (judged("004") or frozenset())
        assert not {"STACKER_EMPTY", "STACKER_LOW"} & (judged("004") or frozenset())

    def test_a_sibling_calls_the_low_hopper_empty(self) -> None:
        answer = only(feed(card_d1801.D1801Reader(), [closed("02 53 46 30 31 30 03")]))
        assert card_d1801.reading_of(answer, low_means_empty=True).conditions == ("STACKER_EMPTY",)

    def test_flags_say_everything_at_once(self) -> None:
        answer = only(feed(card_d1801.D1801Reader(), [closed("02 50 42 31 31 34 03")]))
        reading = card_d1801.reading_of(answer)
        assert (reading.conditions, reading.media, reading.judged) == (("BIN_FULL", "STACKER_LOW"), MediaState.ENTERING, None)
        ready = card_d1801.reading_of(only(feed(card_d1801.D1801Reader(), [closed("02 50 42 30 38 31 03")])))
        assert (ready.conditions, ready.device) == ((), DeviceState.ONLINE)
        unready = card_d1801.reading_of(only(feed(card_d1801.D1801Reader(), [closed("02 50 42 30 30 30 03")])))
        assert unready.conditions == ("NOT_READY",)

    def test_version(self) -> None:
        answer = only(feed(card_d1801.D1801Reader(), [closed("02 47 56 33 31 35 03")]))
        assert card_d1801.version_text(answer) == "3.15"

    @pytest.mark.parametrize(
        ("pair", "device", "tails"),
        [
            ("00", "online", ()), ("10", "deviceBusy", ()), ("30", "online", ()), ("40", "hardwareError", ("MECHANISM",)),
            ("50", "deviceBusy", ()), ("01", "online", ("STACKER_LOW",)), ("62", "online", ("STACKER_EMPTY",)), ("70", "unknown", ()),
        ],
    )  # fmt: skip
    def test_the_addressed_answer(self, pair: str, device: str, tails: tuple[str, ...]) -> None:
        stream = h("06 30 30") + closed(f"02 30 30 {pair.encode().hex()} 03")
        ack, answer = every_cut(lambda: card_d1801.D1801Reader(addressed=True), stream)
        assert ack is Mark.ACK
        reading = card_d1801.reading_of(answer)
        assert (reading.device.value, reading.conditions) == (device, tails)
        assert reading.media is (MediaState.UNKNOWN if pair == "70" else MediaState.NOT_SUPPORTED)

    @pytest.mark.parametrize(
        ("command", "frame"), [("DISPENSE", "02 44 43 03 06"), ("CAPTURE", "02 43 50 03 12"), ("RESET", "02 53 54 03 06")]
    )
    def test_commands(self, command: str, frame: str) -> None:
        assert d1801_content.encode(d1801_content.Command[command]) == h(frame)

    def test_the_addressed_form_dispenses_and_resets_only(self) -> None:
        assert d1801_content.encode(d1801_content.Command.DISPENSE, 0) == closed("02 30 30 44 43 03")
        with pytest.raises(EncodeError):
            d1801_content.encode(d1801_content.Command.CAPTURE, 0)


@pytest.mark.parametrize("form", sorted(READERS))
class TestNoise:
    def test_a_wrong_check_byte_drops_the_whole_frame(self, form: str) -> None:
        good = GOOD[form]
        lead = 3 if form == "addressed" else 1
        spoiled = good[lead:-1] + bytes((good[-1] ^ 0x40,))
        found = feed(READERS[form](), [spoiled + good])
        assert isinstance(found[0], ChecksumError)
        assert found[1] is Mark.ACK
        assert len(found) == 3

    def test_two_answers_in_one_read(self, form: str) -> None:
        assert len(feed(READERS[form](), [GOOD[form] * 2])) == 4

    def test_a_cut_answer_waits_and_is_forgotten_with_the_next_question(self, form: str) -> None:
        reader = READERS[form]()
        feed(reader, [GOOD[form][:-2]])
        assert reader.pending_bytes > 0
        reader.reset()
        assert len(feed(reader, [GOOD[form]])) == 2

    @settings(max_examples=60)
    @given(flips=st.integers(0, 10_000))
    def test_a_flipped_bit_is_never_another_state(self, form: str, flips: int) -> None:
        lead = 3 if form == "addressed" else 1
        spoiled = bytearray(GOOD[form])
        at, bit = divmod(flips % ((len(spoiled) - lead) * 8), 8)
        spoiled[lead + at] ^= 1 << bit
        found = feed(READERS[form](), [bytes(spoiled)])
        assert all(isinstance(event, Mark | ProtocolError) for event in found)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=1200), st.integers(1, 50))
    def test_anything_may_come(self, form: str, noise: bytes, size: int) -> None:
        reader = READERS[form]()
        for event in feed(reader, [noise[at : at + size] for at in range(0, len(noise), size)]):
            if isinstance(event, Mark | ProtocolError):
                continue
            if form == "f2":
                card_f2.reading_of(event, stacker=True, bin_sensor=True)
            elif form == "stx":
                if event.answers(card_stx.Query.STATUS):
                    card_stx.reading_of(event)
            else:
                card_d1801.reading_of(event)
        assert reader.pending_bytes <= 600
        assert drain(reader) == []

    def test_an_impossible_length_costs_one_byte(self, form: str) -> None:
        broken = {
            "f2": "F2 00 FF FF",
            "stx": "02 FF FF",
            "d1801": "02 53 46 30 32 30 30 31",
            "addressed": "02 30 30 30 30 30 30",
        }[form]
        found = feed(READERS[form](), [h(broken) + GOOD[form]])
        assert isinstance(found[0], FrameError)
        assert found[-1].evidence == GOOD[form][3 if form == "addressed" else 1 :]


def test_advice_follows_what_a_person_can_do() -> None:
    answer = only(feed(card_f2.F2Reader(), [closed("F2 00 00 05 4E 31 30 35 31 03")]))
    assert card_f2.reading_of(answer, stacker=True, bin_sensor=True).action is SuggestedAction.MAINTENANCE
