"""Keys of a numeric keypad in the standard's words, and what ends an entry."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codecs.keys import EV_KEY, EV_SYN, SYN_DROPPED, InputEvent
from protocols.content.key_entry import DIGITS, KEYS, MAX_LEN, KeyEntry, Pressed
from simulators.models.keys import Keypad

ALL = dict.fromkeys(KEYS, False)
ENTER = ALL | {"enter": True, "cancel": True}


def typed(text: str) -> list[InputEvent]:
    model = Keypad()
    model.type_text(text, 0.0)
    return [InputEvent(0, 0, event.type, event.code, event.value) for event in model.take_events(1e9)]


def entry(text: str, active: Mapping[str, bool] = ENTER, max_len: int = 0, *, auto_end: bool = False) -> KeyEntry:
    one = KeyEntry(active, max_len, auto_end)
    one.feed(typed(text))
    return one


@pytest.mark.parametrize(
    ("text", "max_len", "auto_end", "digits", "ended"),
    [
        ("123\n", 0, False, ["one", "two", "three"], "enter"),
        ("0987654\n", 0, False, ["zero", "nine", "eight", "seven", "six", "five", "four"], "enter"),
        ("12\b3\n", 0, False, ["one", "three"], "enter"),
        ("\b\b1\n", 0, False, ["one"], "enter"),
        ("1234\n", 2, False, ["one", "two"], "enter"),
        ("1234", 2, True, ["one", "two"], "auto"),
        ("12\x1b9", 0, False, ["one", "two"], "cancel"),
        ("12", 0, True, ["one", "two"], None),
    ],
)
def test_entries(text: str, max_len: int, auto_end: bool, digits: list[str], ended: str | None) -> None:
    one = entry(text, max_len=max_len, auto_end=auto_end)
    assert (one.digits, one.ended) == (digits, ended)


def test_keys_that_are_not_active_are_not_there() -> None:
    one = KeyEntry({"one": False, "enter": True})
    assert one.feed(typed("2*1/\n")) == [Pressed("one", "continue"), Pressed("enter", "enter")]


def test_lost_events_end_the_trust_in_what_was_typed() -> None:
    one = entry("12")
    one.feed([InputEvent(0, 0, EV_SYN, SYN_DROPPED, 0)])
    assert one.dropped
    assert one.feed(typed("3\n")) == []


@given(st.text(alphabet="0123456789\b*+-/.", max_size=200), st.integers(0, MAX_LEN))
@settings(max_examples=40)
def test_never_more_digits_than_asked_for(text: str, max_len: int) -> None:
    one = entry(text, max_len=max_len)
    assert len(one.digits) <= (max_len or MAX_LEN)
    assert set(one.digits) <= DIGITS
    assert one.ended is None


def test_no_digit_is_in_a_repr() -> None:
    one = entry("7777")
    assert "seven" not in repr(Pressed("seven", "continue"))
    assert "seven" not in repr(KeyEntry({"enter": True}, digits=["seven"]))
    assert one.digits == ["seven"] * 4


def test_held_keys_count_once() -> None:
    one = KeyEntry(ENTER)
    one.feed([InputEvent(0, 0, EV_KEY, 2, value) for value in (1, 2, 2, 2, 0)])
    assert one.digits == ["one"]
