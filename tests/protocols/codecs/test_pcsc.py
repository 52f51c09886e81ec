"""PC/SC event states and result codes in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codecs import pcsc
from protocols.codecs.explain import MEANINGS
from tests.protocols.codecs.feeding import h


@pytest.mark.parametrize(
    ("word", "is_there", "has_card", "is_mute", "in_use", "inserted"),
    [
        (0x00000010, True, False, False, False, 0),
        (0x00010022, True, True, False, False, 1),
        (0x00020012, True, False, False, False, 2),
        (0x00030322, True, True, True, True, 3),
        (0x000300A2, True, True, False, True, 3),
        (0x0000000E, False, False, False, False, 0),
        (0x00000210, True, False, False, False, 0),
    ],
    ids=["empty", "card", "removed", "mute-in-use", "exclusive", "gone", "mute-without-card"],
)
def test_event_states(word: int, is_there: bool, has_card: bool, is_mute: bool, in_use: bool, inserted: int) -> None:
    state = pcsc.read_state(word)
    assert (state.is_there, state.has_card, state.is_mute, state.in_use, state.inserted) == (
        is_there, has_card, is_mute, in_use, inserted,
    )  # fmt: skip
    assert state.evidence == word.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("code", "key"),
    [
        (0x8010001D, "pcsc.no_service"),
        (0x8010001E, "pcsc.no_service"),
        (0x80100003, "pcsc.no_service"),
        (0x80100013, "pcsc.no_service"),
        (0x8010002E, "pcsc.no_readers"),
        (0x8010006A, "pcsc.refused"),
        (0x80100001, "pcsc.stalled"),
        (0x80100099, "pcsc.other"),
    ],
)
def test_result_codes(code: int, key: str) -> None:
    (hit,) = pcsc.explain(b"", pcsc.code_evidence(code - (1 << 32)))
    assert (hit.key, hit.length) == (key, 4)
    assert pcsc.is_refused(code) == (key == "pcsc.refused")


def test_an_event_state_is_explained_bit_by_bit() -> None:
    hits = pcsc.explain(b"", h("00 03 03 22"))
    assert [(hit.offset, hit.mask, hit.key) for hit in hits] == [
        (3, 0x20, "pcsc.present"), (2, 0x01, "pcsc.in_use"), (2, 0x02, "pcsc.mute"),
    ]  # fmt: skip


@given(st.binary(max_size=6))
def test_any_bytes(raw: bytes) -> None:
    for hit in pcsc.explain(b"", raw):
        assert hit.key in MEANINGS
        assert hit.offset + hit.length <= len(raw)
