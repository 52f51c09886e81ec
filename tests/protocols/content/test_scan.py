"""Codes out of a scanner's bytes and key events: whole or not at all, whatever else is on the line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs.keys import EV_KEY, EV_SYN, SYN_DROPPED, InputEvent
from protocols.content.scan import Code, Found, KeyScan, LineScan, Spoilt, encode_trigger
from protocols.errors import BufferOverflow
from simulators.models.keys import HidScanner

ANSWER = bytes.fromhex("020130303030") + b"#SCNTRG1" + bytes.fromhex("063b03")


def line(*pieces: bytes, triggers: int = 0, terminators: tuple[str, ...] = ("cr",)) -> list[Found]:
    """Everything that comes of these pieces, the last of which is followed by silence."""
    scan, found, now_s = LineScan(terminators), list[Found](), 0.0
    for _ in range(triggers):
        scan.expect_answer()
    for piece in pieces:
        now_s += 0.01
        scan.feed(piece, now_s)
        while (one := scan.next(now_s)) is not None:
            found.append(one)
    while (one := scan.next(now_s + 1)) is not None:
        found.append(one)
    return found


def test_the_trigger_is_newlands() -> None:
    assert encode_trigger(on=True).hex() == "7e01303030302353434e545247313b03"
    assert encode_trigger(on=False).hex() == "7e01303030302353434e545247303b03"


@pytest.mark.parametrize(
    ("pieces", "triggers", "found"),
    [
        ((b"HELLO\r",), 0, [Code(b"HELLO")]),
        ((b"HE", b"LLO", b"\r\n"), 0, [Code(b"HELLO"), Spoilt("noEnd")]),
        ((b"\x02HELLO\r",), 0, [Code(b"HELLO")]),
        ((b"A\rB\r",), 0, [Code(b"A"), Code(b"B")]),
        ((b"\r\r\r",), 0, []),
        ((b"HELLO",), 0, [Spoilt("noEnd")]),
        ((ANSWER + b"HELLO\r",), 1, [Code(b"HELLO")]),
        ((ANSWER[:5], ANSWER[5:], b"HELLO\r"), 1, [Code(b"HELLO")]),
        ((b"HELLO\r" + ANSWER,), 1, [Code(b"HELLO")]),
        ((ANSWER[:-1] + b"\r",), 0, [Code(ANSWER[1:-1])]),  # nobody asked: a code that looks like an answer is a code
        ((b"\xd5\xc5\xc8\xfd\r",), 0, [Code(b"\xd5\xc5\xc8\xfd")]),
        ((b"x" * 7168 + b"\r",), 0, [Code(b"x" * 7168)]),
        ((b"x" * 7169 + b"\r",), 0, [Spoilt("tooLong")]),
        ((b"x" * 7169,), 0, [Spoilt("tooLong")]),
    ],
)
def test_codes_are_whole_or_spoilt(pieces: tuple[bytes, ...], triggers: int, found: list[Found]) -> None:
    assert line(*pieces, triggers=triggers) == found


def test_only_one_answer_is_taken_out_for_each_trigger() -> None:
    assert line(ANSWER, ANSWER[:-1] + b"\r", triggers=1, terminators=("cr",)) == [Code(ANSWER[1:-1])]


def test_an_endless_stream_ends_in_an_error_and_not_in_memory() -> None:
    scan = LineScan(("cr",))
    with pytest.raises(BufferOverflow):
        scan.feed(b"x" * 1_000_000, 0.0)
    assert not scan.pending


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20))
@settings(max_examples=60)
def test_what_comes_out_was_between_two_ends_however_it_was_cut(data: bytes, cuts: list[int]) -> None:
    pieces, rest = [], data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    whole = line(data)
    came = line(*pieces, rest)
    assert came == whole
    assert [one.data for one in came if isinstance(one, Code)] == [
        part for raw in data.split(b"\r")[:-1] if (part := raw.removeprefix(b"\x02"))
    ]


# ------------------------------------------------------------------------------------------------------------------------------ keys


def keys_of(text: str) -> list[InputEvent]:
    """As a scanner types it, by a model that was written independently."""
    model = HidScanner()
    model.type_text(text, 0.0)
    return [InputEvent(0, 0, event.type, event.code, event.value) for event in model.take_events(1e9)]


PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


def test_every_printable_character_comes_out_as_it_went_in() -> None:
    assert KeyScan(("enter",)).feed(keys_of(PRINTABLE + "\n"), 0.0) == [Code(PRINTABLE.encode())]


@given(st.text(alphabet=PRINTABLE, min_size=1, max_size=80))
@settings(max_examples=40)
def test_text_by_the_us_layout(text: str) -> None:
    scan, found = KeyScan(("enter",)), list[Found]()
    for event in keys_of(text + "\n"):
        found += scan.feed([event], 0.0)
    assert found == [Code(text.encode())]


def key(code: int, value: int) -> InputEvent:
    return InputEvent(0, 0, EV_KEY, code, value)


def pressed(*codes: int) -> list[InputEvent]:
    return [key(code, value) for code in codes for value in (1, 0)]


def test_caps_lock_shift_of_both_sides_and_repeats() -> None:
    scan = KeyScan(("enter",))
    typed = [
        *pressed(58),
        *pressed(30),
        key(54, 1),
        *pressed(30, 2),
        key(54, 0),
        *pressed(58),
        key(48, 1),
        key(48, 2),
        key(48, 0),
        *pressed(28),
    ]
    assert scan.feed(typed, 0.0) == [Code(b"Aa!b")]


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([*pressed(30, 48)], "noEnd"),
        ([*pressed(30), InputEvent(0, 0, EV_SYN, SYN_DROPPED, 0), *pressed(48, 28)], "dropped"),
        ([key(29, 1), *pressed(30), key(29, 0), *pressed(28)], "notText"),
        ([*pressed(59, 28)], "notText"),
        ([*pressed(*[30] * 7169), *pressed(28)], "tooLong"),
    ],
)
def test_what_cannot_be_trusted_is_spoilt(events: list[InputEvent], why: str) -> None:
    scan = KeyScan(("enter",))
    found = scan.feed(events, 0.0) or scan.tick(1.0)
    assert [one.why for one in found if isinstance(one, Spoilt)] == [why]
    assert scan.feed(keys_of("OK\n"), 2.0) == [Code(b"OK")]  # and the next one is sound again


def test_no_code_is_in_a_repr() -> None:
    scan = KeyScan(("enter",))
    scan.feed(keys_of("PLANTED"), 0.0)
    assert "PLANTED" not in repr(Code(b"PLANTED")) + repr(scan) + repr(LineScan(("cr",)))
