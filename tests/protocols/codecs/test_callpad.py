"""Call pads: the published frame, other vendors' rules as data, keys and ratings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs import callpad
from protocols.codecs.callpad import CallPadReader, FrameRules, KeySequence, PadAction, PadFrame
from protocols.errors import ChecksumError, EncodeError, FrameError, LineError
from tests.protocols.codecs.feeding import drain, every_cut, feed, h, only

PAUSE = h("FF 68 03 03 68 01 01 12 14 16")


def test_the_published_frame() -> None:
    frame = only(every_cut(CallPadReader, PAUSE))
    assert (frame.address, frame.function, frame.data, frame.raw) == (1, 1, b"\x12", PAUSE)
    assert callpad.key_of(frame) == "pause"
    assert callpad.encode_frame(1, 1, b"\x12") == PAUSE


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (0x0C, "callNext"),
        (0x0D, "recall"),
        (0x0B, "evaluate"),
        (0x0E, "cancel"),
        (0x0F, "confirm"),
        (0x11, "oneMetre"),
        (0x12, "pause"),
        (0x13, "transfer"),
        (0x06, "6"),
        (0x55, None),
    ],
)
def test_keys(code: int, word: str | None) -> None:
    frame = only(every_cut(CallPadReader, callpad.encode_frame(7, 1, bytes((code,)))))
    assert callpad.key_of(frame) == word
    assert callpad.rating_of(frame) is None


def test_ratings() -> None:
    frame = only(every_cut(CallPadReader, h("FF 68 03 03 68 02 11 05 18 16")))
    assert callpad.rating_of(frame) == 5
    assert callpad.key_of(frame) is None
    reversed_keys = FrameRules(ratings={1: 5, 5: 1})
    assert callpad.rating_of(frame, reversed_keys) == 1
    assert callpad.rating_of(PadFrame(2, 0x11, b"\x09", b""), reversed_keys) is None


def test_poll_and_display() -> None:
    assert callpad.encode_poll(3) == h("FF 68 02 02 68 03 01 04 16")
    assert callpad.encode_display(1, "A1042") == h("FF 68 05 05 68 01 02 30 34 32 99 16")
    assert callpad.encode_display(1, "7") == callpad.encode_display(1, "007")
    with pytest.raises(EncodeError):
        callpad.encode_display(1, "A1x")


def test_after_noise_merged_and_with_trailing_bytes() -> None:
    decoder = CallPadReader()
    found = feed(decoder, [h("00 16 FF 00") + PAUSE + PAUSE + PAUSE[:4]])
    assert [item.raw for item in found if isinstance(item, PadFrame)] == [PAUSE, PAUSE]
    decoder.feed(PAUSE[4:])
    assert only(drain(decoder)).raw == PAUSE


def test_a_wrong_checksum_a_wrong_end_and_lengths_that_disagree() -> None:
    for damaged, error in (
        (PAUSE[:-2] + b"\x15\x16", ChecksumError),
        (PAUSE[:-1] + b"\x17", FrameError),
        (h("FF 68 03 04 68 01 01 12 14 16"), FrameError),
        (h("FF 68 FF FF 68"), FrameError),
        (h("FF 68 03 03 69 01 01 12 14 16"), FrameError),
    ):
        first, *rest = every_cut(CallPadReader, damaged + PAUSE)
        assert isinstance(first, error)
        assert rest[-1].raw == PAUSE


def test_a_cut_frame_does_not_cost_the_next() -> None:
    found = every_cut(CallPadReader, PAUSE[:7] + PAUSE + PAUSE)
    assert any(isinstance(item, LineError) for item in found)
    assert [item.raw for item in found if isinstance(item, PadFrame)] == [PAUSE, PAUSE]


def test_our_own_echo_is_dropped_but_a_pads_is_not() -> None:
    poll = callpad.encode_poll(3)
    decoder = CallPadReader()
    decoder.expect_echo(poll)
    assert feed(decoder, [bytes((byte,)) for byte in poll]) == []
    assert only(feed(decoder, [poll])).raw == poll


def test_an_echo_that_does_not_come() -> None:
    decoder = CallPadReader()
    decoder.expect_echo(callpad.encode_poll(3))
    assert only(feed(decoder, [PAUSE])).raw == PAUSE


VENDORS: list[dict[str, Any]] = [
    {"start": b"\x68"},
    {"start": b"\xaa\x55", "length": "single", "separator": b"", "checksum": "xor8", "end": b""},
    {"start": b"\xaa", "length": "fixed", "fixed_bytes": 3, "separator": b"", "checksum": "xor8", "end": b"\x55"},
    {"start": b"\x02", "length": "single", "separator": b"", "checksum": "none", "end": b"\x03"},
    {"start": b"\xaa\x55", "length": "single", "separator": b"", "checksum": "sum8", "sum_from_length": True, "end": b"\x0d\x0a"},
]


@pytest.mark.parametrize("rules", VENDORS)
@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_other_vendors_are_data(rules: dict[str, Any], data: st.DataObject) -> None:
    made = FrameRules(**rules)
    payload = data.draw(st.binary(min_size=1, max_size=1 if made.length == "fixed" else 20))
    address, function = data.draw(st.integers(0, 255)), data.draw(st.integers(0, 255))
    raw = callpad.encode_frame(address, function, payload, made)
    assert only(every_cut(lambda: CallPadReader(made), raw)) == PadFrame(address, function, payload, raw)


@pytest.mark.parametrize(
    ("rules", "raw"),
    [
        ({"start": b"\xaa\x55", "length": "single", "separator": b"", "checksum": "xor8", "end": b""}, "AA 55 03 01 01 0C 0C"),
        ({"start": b"\x68"}, "68 03 03 68 01 01 12 14 16"),
        (
            {"start": b"\xaa\x55", "length": "single", "separator": b"", "checksum": "sum8", "sum_from_length": True, "end": b""},
            "AA 55 03 01 01 0C 11",
        ),
    ],
)
def test_frames_written_by_hand(rules: dict[str, Any], raw: str) -> None:
    frame = only(every_cut(lambda: CallPadReader(FrameRules(**rules)), h(raw)))
    assert (frame.address, frame.function) == (1, 1)


@pytest.mark.parametrize(
    "rules", [{"start": b""}, {"length": "fixed"}, {"length": "fixed", "fixed_bytes": 99}, {"max_body_bytes": 1}]
)
def test_impossible_rules(rules: dict[str, Any]) -> None:
    with pytest.raises(EncodeError):
        FrameRules(**rules)


@pytest.mark.parametrize(
    ("address", "data", "rules"),
    [(256, b"", FrameRules()), (1, bytes(64), FrameRules()), (1, b"", FrameRules(length="fixed", fixed_bytes=3))],
)
def test_impossible_frames(address: int, data: bytes, rules: FrameRules) -> None:
    with pytest.raises(EncodeError):
        callpad.encode_frame(address, 1, data, rules)


@pytest.mark.parametrize(
    ("presses", "action"),
    [
        (["callNext"], PadAction.CALL_NEXT),
        (["6", "confirm"], PadAction.DROP),
        (["0", "confirm"], PadAction.HOLD),
        (["3", "confirm"], PadAction.CALL_BACK),
        (["confirm"], PadAction.CONFIRM),
        (["7", "confirm"], PadAction.CONFIRM),
        (["6", "6", "confirm"], PadAction.CONFIRM),
        (["6", "callNext"], PadAction.CALL_NEXT),
        (["6"], None),
        (["unheard-of"], None),
    ],
)
def test_key_sequences(presses: list[str], action: PadAction | None) -> None:
    sequence = KeySequence()
    result = None
    for at, key in enumerate(presses):
        result = sequence.press(key, at * 1.0)
    assert result is action


def test_a_digit_is_forgotten_after_a_while_and_by_another_action() -> None:
    sequence = KeySequence(within_s=5)
    sequence.press("6", 0.0)
    assert sequence.press("confirm", 5.1) is PadAction.CONFIRM
    sequence.press("6", 10.0)
    sequence.press("callNext", 11.0)
    assert sequence.press("confirm", 12.0) is PadAction.CONFIRM
    sequence.press("6", 20.0)
    assert sequence.press("6", 30.0) is None
    assert sequence.press("confirm", 31.0) is PadAction.DROP


def test_decisive_bytes() -> None:
    assert [(hit.offset, hit.key) for hit in callpad.explain(b"", PAUSE)] == [(5, "callpad.address"), (6, "callpad.function")]
    assert [(hit.offset, hit.key) for hit in callpad.explain(b"", PAUSE[:-2] + b"\x15\x16")] == [(8, "callpad.checksum")]
    assert callpad.explain(b"", b"") == ()


@given(
    st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([PAUSE, b"\xff\x68", b"\x03\x03\x68"])), max_size=20),
    st.sampled_from([{}, *VENDORS]),
)
@settings(deadline=None)
def test_no_bytes_make_it_fail_otherwise(pieces: list[bytes], rules: dict[str, Any]) -> None:
    made = FrameRules(**rules)
    decoder = CallPadReader(made)
    decoder.expect_echo(callpad.encode_frame(1, 1, b"\x01", made))
    for item in feed(decoder, pieces):
        if isinstance(item, PadFrame):
            callpad.key_of(item, made)
            callpad.rating_of(item, made)
    assert decoder.pending_bytes <= made.max_body_bytes + 16


@given(st.binary(max_size=60))
def test_explain_takes_anything(reply: bytes) -> None:
    for hit in callpad.explain(b"", reply):
        assert hit.offset + hit.length <= len(reply)
