"""CCID readers: messages of the class specification; nothing of a card survives the codec."""

from __future__ import annotations

import inspect
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs import ccid
from protocols.codecs.ccid import Answer, Card, CcidReader, HardwareError, MessageType, Outcome, SlotChange
from protocols.errors import EncodeError, FrameError, ProtocolError, UnexpectedReply
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

ABSENT = h("81 00 00 00 00 00 01 02 00 00")
PRESENT = h("81 00 00 00 00 00 01 01 01 00")
MUTE = h("80 00 00 00 00 00 02 41 FE 00")
UID = h("80 06 00 00 00 00 03 00 00 00 04 A1 B2 C3 90 00")
EXTENSION = h("80 00 00 00 00 00 04 80 02 00")
R502 = h(
    "36 21 10 01 00 07 03 00 00 00 A0 0F 00 00 A0 0F 00 00 00 01 2A 00 00 18 40 05 00 00 FE 00 00 00 00 00 00 00 00 00 00 00 BA 00 04 00"
    " 12 00 01 00 FF FF 00 00 00 01"
)


def asking(slot: int = 0, sequence: int = 1) -> CcidReader:
    made = CcidReader()
    made.expect(slot, sequence)
    return made


def test_questions_byte_for_byte() -> None:
    assert ccid.encode_slot_status(0, 1) == h("65 00 00 00 00 00 01 00 00 00")
    assert ccid.encode_abort(1, 9) == h("72 00 00 00 00 01 09 00 00 00")
    assert ccid.abort_value(1, 9) == 0x0901
    with pytest.raises(EncodeError):
        ccid.encode_slot_status(0, 256)


def test_nothing_here_can_power_a_card_or_speak_to_it() -> None:
    encoders = [member for name, member in inspect.getmembers(ccid, inspect.isfunction) if name.startswith("encode")]
    assert {encoder(0, 1)[0] for encoder in encoders} == {0x65, 0x72}


@pytest.mark.parametrize(
    ("frame", "card", "outcome", "error"),
    [
        (ABSENT, Card.ABSENT, Outcome.DONE, 0),
        (PRESENT, Card.INACTIVE, Outcome.DONE, 1),
        (h("81 00 00 00 00 00 01 00 00 00"), Card.ACTIVE, Outcome.DONE, 0),
        (h("81 00 00 00 00 00 01 42 FB 00"), Card.ABSENT, Outcome.FAILED, 0xFB),
    ],
    ids=["absent", "present", "active", "hardware-error"],
)
def test_slot_status(frame: bytes, card: Card, outcome: Outcome, error: int) -> None:
    answer = only(every_cut(asking, frame))
    assert (answer.kind, answer.card, answer.outcome, answer.error) == (MessageType.SLOT_STATUS, card, outcome, error)
    assert (answer.evidence, answer.masked) == (frame, ())
    assert answer.is_hardware_error == (error == 0xFB)
    assert answer.card.is_present == (card is not Card.ABSENT)


def test_mute_and_time_extension() -> None:
    mute = only(every_cut(lambda: asking(0, 2), MUTE))
    assert (mute.card, mute.outcome, mute.error) == (Card.INACTIVE, Outcome.FAILED, ccid.ERROR_MUTE)
    assert only(every_cut(lambda: asking(0, 4), EXTENSION)).outcome is Outcome.TIME_EXTENSION


def test_an_answer_to_another_question_is_told_and_gone() -> None:
    first, second = every_cut(asking, UID + ABSENT)
    assert isinstance(first, UnexpectedReply)
    assert second.card is Card.ABSENT
    assert isinstance(only(every_cut(lambda: asking(1, 1), ABSENT)), UnexpectedReply)


@pytest.mark.spec("C-206")
def test_card_data_never_leaves_the_codec() -> None:
    answer = only(every_cut(lambda: asking(0, 3), UID))
    assert answer.data_length == 6
    assert answer.evidence == UID[:10] + bytes(6)
    assert answer.masked == ((10, 16),)
    long = h("80 E8 03 00 00 00 03 00 00 00") + b"PLANTED!" * 125
    answer = only(every_cut(lambda: asking(0, 3), long))
    assert (answer.data_length, len(answer.evidence)) == (1000, 74)
    assert b"PLANTED" not in answer.evidence
    assert "PLANTED" not in repr(answer)


def test_an_unexpected_answer_is_blanked_too() -> None:
    told = only(every_cut(asking, h("80 07 00 00 00 00 63 00 00 00") + b"PLANTED"))
    assert isinstance(told, UnexpectedReply)
    assert b"PLANTED" not in told.evidence
    assert "PLANTED" not in repr(told)


def test_noise_before_and_between() -> None:
    decoder = asking()
    found = feed(decoder, [h("00 FF 12 50 03") + ABSENT + h("00 00") + PRESENT])
    assert [one.card for one in found] == [Card.ABSENT, Card.INACTIVE]
    assert decoder.noise_bytes == 7


def test_a_length_that_nobody_asked_for() -> None:
    found = every_cut(asking, h("80 FF FF FF 7F 00 01 00 00 00") + ABSENT)
    assert isinstance(found[0], FrameError)
    assert found[-1].card is Card.ABSENT


@pytest.mark.parametrize(
    ("packet", "slots", "notice"),
    [
        ("50 03", 1, SlotChange((True,), (True,))),
        ("50 02", 1, SlotChange((False,), (True,))),
        ("50 0D 00 00", 2, SlotChange((True, True), (False, True))),
        ("50 00 01", 5, SlotChange((False, False, False, False, True), (False,) * 5)),
        ("51 00 07 01", 1, HardwareError(0, 7, 1)),
    ],
)
def test_notices(packet: str, slots: int, notice: object) -> None:
    assert ccid.decode_notice(h(packet), slots=slots) == notice


@pytest.mark.parametrize(
    "packet", ["", "50", "51 00", "51 00 07 02", "51 01 07 01", "51 00 07 01 00", "52 03", "81 00 00 00 00 00 01 02 00 00"]
)
def test_what_is_no_notice(packet: str) -> None:
    with pytest.raises(FrameError):
        ccid.decode_notice(h(packet))


def test_the_class_descriptor() -> None:
    said = ccid.parse_class_descriptor(R502)
    assert said is not None
    assert (said.slots, said.protocols, said.level, said.max_message_bytes) == (1, 3, "extended", 65554)
    tpdu = R502[:40] + (0x000100BA).to_bytes(4, "little") + (271).to_bytes(4, "little") + R502[48:]
    assert getattr(ccid.parse_class_descriptor(tpdu), "level", None) == "tpdu"


@pytest.mark.parametrize(
    "raw",
    [b"", R502[:53], b"\x36\x22" + R502[2:], b"\x09" + R502[1:], R502[:4] + b"\xff" + R502[5:], R502[:44] + bytes(4) + R502[48:]],
    ids=["empty", "cut", "type", "length", "slots", "message"],
)
def test_descriptors_that_lie(raw: bytes) -> None:
    assert ccid.parse_class_descriptor(raw) is None


def test_explanations() -> None:
    card, error = ccid.explain(b"", h("81 00 00 00 00 00 01 41 FB 00"))
    assert (card.key, error.key, error.offset) == ("ccid.inactive", "ccid.error_hardware", 8)
    assert [hit.key for hit in ccid.explain(b"", ABSENT)] == ["ccid.absent"]
    assert [hit.key for hit in ccid.explain(b"", h("51 00 00 01"))] == ["ccid.overcurrent"]
    assert ccid.explain(b"", h("50 03")) == ()


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([ABSENT, UID, MUTE, b"\x81", R502])), max_size=20))
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    decoder = asking()
    for item in feed(decoder, pieces):
        assert isinstance(item, Answer | ProtocolError)
    assert decoder.pending_bytes <= ccid.MAX_DATA_BYTES + ccid.HEADER_BYTES
    assert drain(decoder) == []


@given(st.binary(max_size=80), st.integers(1, 8))
def test_any_packet_and_any_descriptor(raw: bytes, slots: int) -> None:
    with suppress(FrameError):
        ccid.decode_notice(raw, slots=slots)
    ccid.parse_class_descriptor(raw)
