"""Resident cards: the order of steps, the layouts of the three kinds of text, and that nothing of a card shows where it must not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.content.sdt import CardContent, CardSession, ContentReader, Form, OutOfOrder, Reply, Step, decode_card
from protocols.errors import FrameError, ProtocolError
from tests.protocols.codecs.feeding import h

FOUND = h("AA AA AA 96 69 00 08 00 00 9F 00 00 00 00 97")
SELECTED = h("AA AA AA 96 69 00 0C 00 00 90 00 00 00 00 00 00 00 00 9C")
NONE = h("AA AA AA 96 69 00 04 00 00 80 84")
PHOTO = bytes(range(256)) * 4
FINGER = b"\xf5" * 1024


def _padded(text: str, size: int) -> bytes:
    return text.ljust(size // 2)[: size // 2].encode("utf-16-le")


def block(*parts: tuple[str, int]) -> bytes:
    raw = b"".join(_padded(text, size) for text, size in parts)
    assert len(raw) == 256
    return raw


CITIZEN = block(
    ("李四测试", 30), ("1", 2), ("97", 4), ("19900101", 16), ("测试路 1 号", 70), ("33010219900101123X", 36), ("测试公安局", 30),
    ("20200101", 16), ("长期", 16), ("", 36),
)  # fmt: skip
PERMIT = block(
    ("陈测试", 30), ("2", 2), ("", 4), ("19910202", 16), ("测试路 2 号", 70), ("81000019910202001X", 36), ("测试公安局", 30),
    ("20210101", 16), ("20260101", 16), ("H12345678", 18), ("01", 4), ("", 6), ("J", 2), ("", 6),
)  # fmt: skip
FOREIGNER = block(
    ("TESTER, ANNA MARIA", 120), ("2", 2), ("FRA110091090110", 30), ("FRA", 6), ("安娜", 30), ("20190101", 16), ("20290101", 16),
    ("19850505", 16), ("01", 4), ("1500", 8), ("I", 2), ("", 6),
)  # fmt: skip
FOREIGNER_2023 = block(
    ("安娜", 30), ("2", 2), ("00", 4), ("19850505", 16), ("TESTER, ANNA MARIA", 70), ("911110198505050012", 36), ("", 90), ("Y", 2), ("", 6),
)  # fmt: skip


def content(text: bytes, *, finger: bytes | None = None) -> bytes:
    lengths = len(text).to_bytes(2, "big") + len(PHOTO).to_bytes(2, "big")
    if finger is None:
        return lengths + text + PHOTO
    return lengths + len(finger).to_bytes(2, "big") + text + PHOTO + finger


def framed(sw3: int, data: bytes = b"") -> bytes:
    body = (len(data) + 4).to_bytes(2, "big") + bytes((0, 0, sw3)) + data
    check = 0
    for byte in body:
        check ^= byte
    return h("AA AA AA 96 69") + body + bytes((check,))


def test_questions_byte_for_byte() -> None:
    session = CardSession()
    assert session.ask(Step.FIND) == h("AA AA AA 96 69 00 03 20 01 22")
    session.take(Step.FIND, 0x9F)
    assert session.ask(Step.SELECT) == h("AA AA AA 96 69 00 03 20 02 21")
    session.take(Step.SELECT, 0x90)
    assert session.ask(Step.READ) == h("AA AA AA 96 69 00 03 30 01 32")
    with_finger = CardSession(fingerprint=True)
    with_finger.take(Step.FIND, 0x9F)
    with_finger.take(Step.SELECT, 0x90)
    assert with_finger.ask(Step.READ) == h("AA AA AA 96 69 00 03 30 10 23")


def test_whole_answers_have_the_published_lengths() -> None:
    assert len(framed(0x90, content(CITIZEN))) == 1295
    assert [len(framed(0x90, content(CITIZEN, finger=FINGER[:size]))) for size in (0, 512, 1024)] == [1297, 1809, 2321]


@pytest.mark.parametrize("early", [Step.SELECT, Step.READ])
def test_no_step_before_its_turn(early: Step) -> None:
    with pytest.raises(OutOfOrder):
        CardSession().ask(early)


def test_a_failure_begins_with_finding_again() -> None:
    for step, failing in ((Step.FIND, 0x80), (Step.SELECT, 0x81), (Step.READ, 0x41)):
        session = CardSession()
        for before in (Step.FIND, Step.SELECT, Step.READ):
            if before is step:
                break
            session.take(before, 0x9F if before is Step.FIND else 0x90)
        assert not session.take(step, failing)
        assert session.next_step is Step.FIND
        for later in (Step.SELECT, Step.READ):
            with pytest.raises(OutOfOrder):
                session.ask(later)


def test_a_read_card_must_be_found_anew() -> None:
    session = CardSession()
    for step, sw3 in ((Step.FIND, 0x9F), (Step.SELECT, 0x90), (Step.READ, 0x90)):
        session.ask(step)
        assert session.take(step, sw3)
    with pytest.raises(OutOfOrder):
        session.ask(Step.READ)


def test_a_citizens_card() -> None:
    card = decode_card(content(CITIZEN))
    assert card.form is Form.CITIZEN
    assert card.fields == {
        "name": "李四测试", "sex": "1", "nation": "97", "birth": "19900101", "address": "测试路 1 号", "number": "33010219900101123X",
        "authority": "测试公安局", "validFrom": "20200101", "validTo": "长期",
    }  # fmt: skip
    assert (card.photo, card.fingerprint) == (PHOTO, None)


def test_a_permit() -> None:
    card = decode_card(content(PERMIT))
    assert card.form is Form.PERMIT
    assert card.fields["number"] == "81000019910202001X"
    assert (card.fields["passNumber"], card.fields["issueCount"]) == ("H12345678", "01")
    assert "nation" not in card.fields


def test_a_foreigners_card() -> None:
    card = decode_card(content(FOREIGNER))
    assert card.form is Form.FOREIGNER
    assert card.fields == {
        "englishName": "TESTER, ANNA MARIA", "sex": "2", "number": "FRA110091090110", "nationality": "FRA", "name": "安娜", "validFrom": "20190101",
        "validTo": "20290101", "birth": "19850505", "version": "01", "authority": "1500",
    }  # fmt: skip


def test_a_foreigners_card_of_2023() -> None:
    card = decode_card(content(FOREIGNER_2023))
    assert card.form is Form.FOREIGNER_2023
    assert (card.fields["name"], card.fields["englishName"], card.fields["number"]) == (
        "安娜",
        "TESTER, ANNA MARIA",
        "911110198505050012",
    )


@pytest.mark.parametrize("size", [0, 512, 1024])
def test_fingerprints(size: int) -> None:
    assert decode_card(content(CITIZEN, finger=FINGER[:size]), fingerprint=True).fingerprint == FINGER[:size]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x00",
        content(CITIZEN)[:-1],
        content(CITIZEN) + b"\x00",
        b"\x00\x10\x00\x00" + bytes(16),
        h("01 00 08 00") + bytes(256 + 2048),
    ],
    ids=["empty", "cut", "short", "long", "text", "photo"],
)
def test_parts_that_do_not_add_up(data: bytes) -> None:
    with pytest.raises(FrameError) as told:
        decode_card(data)
    assert told.value.evidence == b""


@pytest.mark.parametrize("pieces", [1, 7, 64, 5000])
def test_data_is_given_once_with_its_answer(pieces: int) -> None:
    reader, stream = ContentReader(), NONE + FOUND + SELECTED + framed(0x90, content(CITIZEN))
    found: list[Reply] = []
    for at in range(0, len(stream), pieces):
        reader.feed(stream[at : at + pieces])
        while (reply := reader.take_reply()) is not None:
            found.append(reply)
    assert [(one.sw3, len(one.data)) for one in found] == [(0x80, 0), (0x9F, 4), (0x90, 8), (0x90, 1284)]
    assert decode_card(found[3].data).fields["name"] == "李四测试"
    assert reader._data == b""


def test_nothing_of_a_card_is_in_a_repr_or_an_error() -> None:
    reader = ContentReader()
    reader.feed(framed(0x90, content(CITIZEN)))
    reply = reader.take_reply()
    assert reply is not None
    spoiled = bytearray(framed(0x90, content(CITIZEN)))
    spoiled[-1] ^= 0x10
    reader.feed(bytes(spoiled))
    with pytest.raises(ProtocolError) as told:
        reader.take_reply()
    shown = [
        repr(reply),
        repr(decode_card(reply.data)),
        repr(told.value),
        str(told.value),
        told.value.evidence.hex(),
        repr(reader),
    ]
    for planted in ("李四", "19900101", "3301", CITIZEN[:8].hex(), PHOTO[4:12].hex(), "citizen"):
        assert not any(planted in text for text in shown), planted


@given(st.binary(max_size=3000), st.booleans())
def test_any_bytes_are_a_card_or_a_frame_error(data: bytes, fingerprint: bool) -> None:
    try:
        card = decode_card(data, fingerprint=fingerprint)
    except FrameError:
        return
    assert isinstance(card, CardContent)
