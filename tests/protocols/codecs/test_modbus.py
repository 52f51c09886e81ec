"""Modbus RTU: frames of module data sheets; silence, spoiled and refused are three answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs import modbus
from protocols.codecs.modbus import Bits, ReadRequest, Registers, ReplyReader, Silence, StreamingText, Truncated
from protocols.errors import ChecksumError, DeviceRefused, EncodeError, ProtocolError, UnexpectedReply
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

CLIMATE = ReadRequest(1, 4, 1, 2)
CLIMATE_REPLY = h("01 04 04 01 31 02 22 2A CE")
INPUTS = ReadRequest(1, 2, 0, 8)
INPUTS_REPLY = h("01 02 01 05 61 8B")
REFUSED = h("01 84 02 C2 C1")


def test_questions_byte_for_byte() -> None:
    assert modbus.encode_read(CLIMATE) == h("01 04 00 01 00 02 20 0B")
    assert modbus.encode_read(INPUTS) == h("01 02 00 00 00 08 79 CC")


def test_climate() -> None:
    answer = only(every_cut(lambda: ReplyReader(CLIMATE), CLIMATE_REPLY))
    assert answer == Registers((0x0131, 0x0222), CLIMATE_REPLY)
    climate = modbus.climate_of(answer)
    assert (climate.temp_tenths, climate.humidity_tenths) == (305, 546)


def test_below_zero() -> None:
    answer = only(every_cut(lambda: ReplyReader(ReadRequest(1, 4, 1, 1)), h("01 04 02 FF 33 B8 D5")))
    assert modbus.signed16(answer.values[0]) == -205


@pytest.mark.parametrize("raw", [0x7FFF, 0x8000, 851, 0x10000 - 401])
def test_an_impossible_temperature_is_no_reading(raw: int) -> None:
    assert modbus.climate_of(Registers((raw, 500), b"")).temp_tenths is None
    assert modbus.climate_of(Registers((200, 1001), b"")).humidity_tenths is None


def test_door_inputs() -> None:
    answer = only(every_cut(lambda: ReplyReader(INPUTS), INPUTS_REPLY))
    assert isinstance(answer, Bits)
    assert modbus.inputs_of(answer, 4) == (True, False, True, False)
    assert modbus.inputs_of(Registers((0, 1, 0xFFFF), b""), 3) == (False, True, True)
    with pytest.raises(UnexpectedReply):
        modbus.inputs_of(answer, 9)
    with pytest.raises(UnexpectedReply):
        modbus.climate_of(Registers((1,), b""))


def test_a_refusal_names_its_code() -> None:
    error = only(every_cut(lambda: ReplyReader(CLIMATE), REFUSED))
    assert isinstance(error, DeviceRefused)
    assert (error.code, error.evidence, error.retryable) == (2, REFUSED, False)
    assert "address" in str(error)


def test_busy_may_be_asked_again() -> None:
    body = h("01 84 06")
    busy = body + modbus.crc16(body).to_bytes(2, "little")
    error = only(feed(ReplyReader(CLIMATE), [busy]))
    assert isinstance(error, DeviceRefused)
    assert error.retryable


def test_a_wrong_crc() -> None:
    spoiled = CLIMATE_REPLY[:-1] + b"\xcf"
    error = only(every_cut(lambda: ReplyReader(CLIMATE), spoiled))
    assert isinstance(error, ChecksumError)
    assert error.evidence == spoiled


@pytest.mark.parametrize("noise", ["00 FF 80", "01", "01 04", "04 01 01", "01 04 04 01 31", "FF " * 20])
def test_after_noise(noise: str) -> None:
    found = every_cut(lambda: ReplyReader(CLIMATE), h(noise) + CLIMATE_REPLY)
    assert found[-1] == Registers((0x0131, 0x0222), CLIMATE_REPLY)


def test_our_own_echo_before_the_answer() -> None:
    for request, reply in ((CLIMATE, CLIMATE_REPLY), (INPUTS, INPUTS_REPLY)):
        found = every_cut(lambda request=request: ReplyReader(request), modbus.encode_read(request) + reply)  # type: ignore[misc]
        assert only(found).reply == reply


def test_trailing_bytes_survive() -> None:
    decoder = ReplyReader(CLIMATE)
    assert len(feed(decoder, [CLIMATE_REPLY + CLIMATE_REPLY[:3]])) == 1
    decoder.feed(CLIMATE_REPLY[3:])
    assert only(drain(decoder)).reply == CLIMATE_REPLY


def test_an_answer_of_another_unit_or_of_another_size_is_not_ours() -> None:
    assert feed(ReplyReader(ReadRequest(2, 4, 1, 2)), [CLIMATE_REPLY]) == []
    assert feed(ReplyReader(ReadRequest(1, 4, 1, 1)), [CLIMATE_REPLY]) == []


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        (b"", Silence),
        (CLIMATE_REPLY[:6], Truncated),
        (h("FF 00 80") + CLIMATE_REPLY[:6], Truncated),
        (h("FF 00 80 7F"), ChecksumError),
        (CLIMATE_REPLY[:-1] + b"\xcf" + b"\x01", ChecksumError),
        (b"30.5C,54.6%RH\r\n30.5C,54.6%RH\r\n", StreamingText),
    ],
)
def test_what_was_missing_after_the_timeout(seen: bytes, kind: type[ProtocolError]) -> None:
    decoder = ReplyReader(CLIMATE)
    decoder.feed(seen)
    errors = drain(decoder)
    assert type(errors[0] if errors else decoder.give_up()) is kind
    assert decoder.pending_bytes == 0 or errors


@pytest.mark.parametrize(
    "bad",
    [(0, 4, 0, 1), (248, 4, 0, 1), (1, 5, 0, 1), (1, 6, 0, 1), (1, 4, 0, 0), (1, 4, 0, 126), (1, 2, 0, 2001), (1, 4, 0xFFFF, 2)],
)
def test_impossible_questions(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(EncodeError):
        ReadRequest(*bad)


def test_decisive_bytes() -> None:
    assert modbus.explain(b"", REFUSED)[0].key == "modbus.exception_address"
    assert (modbus.explain(b"", CLIMATE_REPLY)[0].offset, modbus.explain(b"", CLIMATE_REPLY)[0].length) == (3, 4)
    assert modbus.explain(b"", CLIMATE_REPLY[:-1] + b"\xcf")[0].key == "modbus.crc"


@given(st.lists(st.one_of(st.binary(max_size=20), st.sampled_from([CLIMATE_REPLY, REFUSED, b"\x01", b"\x01\x04"])), max_size=20))
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes]) -> None:
    decoder = ReplyReader(CLIMATE)
    for item in feed(decoder, pieces):
        if isinstance(item, Registers):
            modbus.climate_of(item)
    assert isinstance(decoder.give_up(), ProtocolError)


@given(
    st.integers(1, 247),
    st.sampled_from([1, 2, 3, 4]),
    st.integers(0, 0xFF00),
    st.integers(1, 125),
    st.binary(min_size=250, max_size=250),
)
@settings(deadline=None, max_examples=60)
def test_every_sound_answer_is_read(address: int, function: int, start: int, count: int, filling: bytes) -> None:
    request = ReadRequest(address, function, start, count)
    body = bytes((address, function, request.data_bytes)) + filling[: request.data_bytes]
    reply = body + modbus.crc16(body).to_bytes(2, "little")
    if reply.startswith(modbus.encode_read(request)):
        return
    answer = only(feed(ReplyReader(request), [reply]))
    assert len(answer.values) == count
    assert answer.reply == reply


@given(st.binary(max_size=60))
def test_explain_takes_anything(reply: bytes) -> None:
    for hit in modbus.explain(b"", reply):
        assert hit.offset + hit.length <= len(reply)
