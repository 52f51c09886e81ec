"""Smart cards through a CCID reader: messages that power and exchange, T=0 below the level of APDUs, and that no byte of a card shows."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.content.ccid import (
    GET_UID,
    ContentReader,
    T0Command,
    encode_exchange,
    encode_power_off,
    encode_power_on,
    offers_t0,
)
from protocols.errors import EncodeError, FrameError, ProtocolError
from tests.protocols.codecs.feeding import h


def test_messages_byte_for_byte() -> None:
    assert encode_power_on(0, 2) == h("62 00 00 00 00 00 02 00 00 00")
    assert encode_power_off(0, 3) == h("63 00 00 00 00 00 03 00 00 00")
    assert encode_exchange(0, 3, GET_UID) == h("6F 05 00 00 00 00 03 00 00 00 FF CA 00 00 00")
    assert encode_exchange(0, 4, b"", more=True) == h("6F 00 00 00 00 00 04 00 10 00")


def test_a_command_longer_than_the_reader_takes() -> None:
    assert len(encode_exchange(0, 1, bytes(261), longest=271)) == 271
    with pytest.raises(EncodeError):
        encode_exchange(0, 1, bytes(262), longest=271)


def test_an_answer_with_its_data() -> None:
    reader = ContentReader()
    reader.expect(0, 3)
    reader.feed(h("80 06 00 00 00 00 03 00 00 00 04 A1 B2 C3 90 00"))
    reply = reader.take_reply()
    assert reply is not None
    assert (reply.data, reply.chain) == (h("04 A1 B2 C3 90 00"), 0)
    assert "a1" not in repr(reply).lower().replace("data", "")
    assert reader._data == b""


def run(apdu: bytes, answers: list[str]) -> tuple[list[bytes], bytes]:
    command, sent = T0Command(apdu), []
    for answer in answers:
        assert command.tpdu is not None
        sent.append(command.tpdu)
        command.take(h(answer))
    assert command.tpdu is None
    return sent, command.response


@pytest.mark.parametrize(
    ("apdu", "answers", "sent", "response"),
    [
        ("00 E0 00 00", ["90 00"], ["00 E0 00 00 00"], "90 00"),
        ("00 B0 00 00 02", ["AB CD 90 00"], ["00 B0 00 00 02"], "AB CD 90 00"),
        ("00 B0 00 00 00", ["6C 02", "AB CD 90 00"], ["00 B0 00 00 00", "00 B0 00 00 02"], "AB CD 90 00"),
        ("00 D6 00 00 02 11 22", ["90 00"], ["00 D6 00 00 02 11 22"], "90 00"),
        ("00 A4 04 00 02 3F 00 00", ["61 03", "01 02 03 90 00"], ["00 A4 04 00 02 3F 00", "00 C0 00 00 03"], "01 02 03 90 00"),
        (
            "00 A4 04 00 02 3F 00 05",
            ["90 00", "6C 01", "07 90 00"],
            ["00 A4 04 00 02 3F 00", "00 C0 00 00 05", "00 C0 00 00 01"],
            "07 90 00",
        ),
        ("00 B0 00 00 00", ["01 61 01", "02 90 00"], ["00 B0 00 00 00", "00 C0 00 00 01"], "01 02 90 00"),
        ("00 A4 00 00 02 3F 00 00", ["6A 82"], ["00 A4 00 00 02 3F 00"], "6A 82"),
    ],
    ids=["case-1", "case-2", "case-2-corrected", "case-3", "case-4", "case-4-fetched", "more-waits", "refused"],
)
def test_t0(apdu: str, answers: list[str], sent: list[str], response: str) -> None:
    assert run(h(apdu), answers) == ([h(one) for one in sent], h(response))


@pytest.mark.parametrize("apdu", ["", "00 A4 04", "00 A4 04 00 05 01", "00 A4 04 00 00 00 05 01 02 03 04 05"])
def test_t0_takes_short_commands_only(apdu: str) -> None:
    with pytest.raises(EncodeError):
        T0Command(h(apdu))


def test_t0_ends_a_card_that_never_does() -> None:
    command = T0Command(h("00 B0 00 00 00"))

    def answer_without_end() -> None:
        for _ in range(1000):
            command.take(bytes(255) + h("61 FF"))

    with pytest.raises(FrameError):
        answer_without_end()
    with pytest.raises(FrameError):
        T0Command(h("00 B0 00 00 00")).take(b"\x90")


def test_the_first_protocol_of_an_answer_to_reset() -> None:
    assert offers_t0(h("3B 65 00 00 54 45 53 54 31"))
    assert offers_t0(h("3B 95 11 40 31"))
    assert not offers_t0(h("3B 95 11 81 31"))
    assert not offers_t0(h("3B 80 01 81"))
    assert offers_t0(b"")


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    reader = ContentReader()
    reader.expect(0, 1)
    for piece in pieces:
        reader.feed(piece)
        for _ in range(100):
            with suppress(ProtocolError):
                if reader.take_reply() is None:
                    break
        else:
            raise AssertionError("the decoder does not come to an end")
