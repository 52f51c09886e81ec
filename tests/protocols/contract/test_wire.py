"""Payloads made to keep a decoder busy are refused before they are decoded."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.contract import messages, wire

AT_ONCE_S = 2.0
"""Generous: what is tested takes microseconds if it is refused, and hours to ages if it is not."""


def doubling_key(levels: int) -> bytes:
    """A map whose key holds itself twice at each level through references: hashing it takes 2**levels steps."""

    def level(n: int) -> bytes:
        if n == levels:
            return b"\x01"
        again = b"\xd8\x1d" + cbor2.dumps(n + 1) if n + 1 < levels else b"\x01"
        return b"\xd8\x1c\x82" + level(n + 1) + again

    return b"\xa1" + level(0) + b"\x01"


def as_tag(number: int, form: int) -> bytes:
    """The head of a tag in one of its five lengths."""
    if form == 0:
        return bytes((0xC0 | number,))
    return bytes((0xD7 + form,)) + number.to_bytes(1 << (form - 1), "big")


def tag_forms() -> list[tuple[int, int]]:
    return [(n, form) for n in sorted(wire.ACTIVE_TAGS) for form in range(5) if n < (24, 256, 2**16, 2**32, 2**64)[form]]


@pytest.mark.spec("C-111")
@pytest.mark.parametrize(
    "payload",
    [
        doubling_key(40),
        cbor2.dumps({"c": cbor2.CBORTag(35, "(?i)" + "[\x00-\U0010fffe]" * 5000)}),
        b"\xc4\x82\x01\xc2\x5a\x00\x01\xd0\x00" + b"\xff" * 0x1D000,
        b"\xd9\x01\x02\x81\x01",
        b"\xd8\x1e\x81\x6b1e999999999",
        b"\xd8\x1e\xd9\xd9\xf7\x81\x6b1e999999999",
    ],
    ids=["references", "pattern", "decimal", "set", "rational", "hidden"],
)
def test_what_would_keep_a_decoder_busy_is_refused_at_once(payload: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(wire.WireError):
        wire.load(payload)
    assert time.monotonic() - started < AT_ONCE_S


@pytest.mark.spec("C-111")
def test_a_hello_of_256_bytes_cannot_hold_the_server() -> None:
    payload = b"\xa2\x61c\x48" + bytes(8) + b"\x61x" + doubling_key(34)
    assert len(payload) <= 256
    with pytest.raises(wire.WireError):
        wire.read(payload, messages.Hello)


WORKS = {29: b"\x00", 35: b"\x41a", 36: b"\x78\x01a"}
"""What such a tag may hold; an array of two for the others."""


@pytest.mark.spec("C-111")
@pytest.mark.parametrize(("number", "form"), tag_forms())
def test_every_form_of_such_a_tag_is_found(number: int, form: int) -> None:
    value = WORKS.get(number, b"\x82\x01\x02")
    assert wire.active_tag(b"\x81" + as_tag(number, form) + value) == 1
    assert wire.active_tag(b"\x9f\x7f\x61a\x61b\xff" + as_tag(number, form) + value + b"\xff") == 7


@pytest.mark.spec("C-111")
@pytest.mark.parametrize(("number", "form"), tag_forms())
def test_the_same_bytes_inside_a_string_are_data(number: int, form: int) -> None:
    value = {"e": as_tag(number, form) + WORKS.get(number, b"\x82\x01\x02"), "n": -1, "f": 1.5, "l": [None, True, "text", 2**32]}
    assert wire.load(cbor2.dumps(value)) == value


_plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=80),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5) | st.integers(0, 300), inner, max_size=5),
    max_leaves=30,
)


@settings(max_examples=200, deadline=None)
@given(_plain)
def test_what_has_no_tag_is_read_whatever_its_bytes(value: Any) -> None:
    assert wire.load(cbor2.dumps(value)) == value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_with_the_one_error(data: bytes) -> None:
    with contextlib.suppress(wire.WireError):
        wire.load(data)
