"""Data-driven status tables."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import FrameError
from protocols.profile.options.escpos import Bit, Fixed, Status
from protocols.profile.status import conditions_of, explain_status, queries_of

PRESENTER = Status(
    query="10 04 05",
    reply_bytes=2,
    valid=(Fixed(mask=0x93, value=0x12),),
    bits=(
        Bit(mask=0x60, value=0x60, condition="PAPER_OUT"),
        Bit(mask=0x0C, value=0x04, condition="JAM"),
        Bit(at=1, mask=0x01, value=0x01, condition="OUTPUT_NOT_TAKEN"),
        Bit(at=1, mask=0x02, value=0x02, condition="JAM"),
    ),
)


@pytest.mark.parametrize(
    ("reply", "conditions"),
    [
        ("12 00", ()),
        ("72 00", ("PAPER_OUT",)),
        ("16 00", ("JAM",)),
        ("1e 00", ()),
        ("12 01", ("OUTPUT_NOT_TAKEN",)),
        ("76 03", ("PAPER_OUT", "JAM", "OUTPUT_NOT_TAKEN")),
    ],
)
def test_bits_name_conditions(reply: str, conditions: tuple[str, ...]) -> None:
    assert conditions_of(PRESENTER, bytes.fromhex(reply)) == conditions


@pytest.mark.parametrize("reply", ["", "12", "12 00 00", "00 00", "ff ff"])
def test_noise_is_no_fault(reply: str) -> None:
    with pytest.raises(FrameError):
        conditions_of(PRESENTER, bytes.fromhex(reply))


def test_decisive_bits() -> None:
    hits = explain_status([PRESENTER], b"\x10\x04\x05", bytes.fromhex("7201"))
    assert [(hit.offset, hit.mask, hit.key) for hit in hits] == [
        (0, 0x60, "condition.PAPER_OUT"),
        (1, 0x01, "condition.OUTPUT_NOT_TAKEN"),
    ]
    assert explain_status([PRESENTER], b"\x10\x04\x04", bytes.fromhex("7201")) == ()
    assert queries_of([PRESENTER]) == {b"\x10\x04\x05": PRESENTER}


@given(st.binary(max_size=4))
def test_no_bytes_make_it_fail_otherwise(reply: bytes) -> None:
    with contextlib.suppress(FrameError):
        conditions_of(PRESENTER, reply)
    explain_status([PRESENTER], b"\x10\x04\x05", reply)
