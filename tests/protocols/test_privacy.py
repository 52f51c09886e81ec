"""Words of devices as records accept them."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.contract.records import Version
from protocols.privacy import maker_word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("V1.00.07", "V1.00.07"),
        ("Firmware Version: V1.00\r\n", "Firmware Version: V1.00"),
        ("330102199001011235", "33010219"),
        ("TM-T88V 张三", "TM-T88V"),
        ("\x00\xff", ""),
        ("  (c)", "c)"),
    ],
)
def test_maker_word(text: str, word: str) -> None:
    assert maker_word(text) == word


@given(st.text(max_size=120))
def test_what_comes_out_fits_a_record_or_is_empty(text: str) -> None:
    word = maker_word(text)
    assert not re.search(r"[0-9]{9}", word)
    if re.search(r"[0-9]", word):  # a version without a digit is none
        assert msgspec.convert(word, Version) == word
