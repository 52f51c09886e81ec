"""Messages of the owner API against whatever an application may send: an answer or a refusal, never an error, never an echo."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.owner import messages
from edge_agent.owner.claims import Claims, ClaimTaken
from edge_agent.owner.messages import Command, MessageRefused, PayloadRefused

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NAMES = sorted(messages.PAYLOAD_NAMES)


@given(st.text(max_size=300) | VALUES.map(json.dumps))
@settings(max_examples=150)
def test_any_text_is_a_command_or_an_acknowledgement_that_refuses(text: str) -> None:
    try:
        assert isinstance(messages.parse(text, set(), room=True), Command)
    except MessageRefused as refused:
        head = json.loads(refused.answer)["header"]
        assert head["type"] == "acknowledge"
        assert head["status"] in ("invalidMessage", "invalidRequestID")


@given(st.sampled_from(NAMES), st.dictionaries(st.text(max_size=12), VALUES, max_size=4))
@settings(max_examples=150)
def test_any_payload_is_taken_by_its_schema_or_refused_without_a_word_of_it(name: str, payload: dict[str, Any]) -> None:
    payload["PLANTED-330102"] = "PLANTED-330102"
    command = Command(name=name, request_id=1, version="2.0", timeout_ms=0, payload=payload)
    assert "PLANTED" not in repr(command)
    with pytest.raises(PayloadRefused) as refused:
        messages.check(command)
    assert not str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["take", "renew", "busy", "free", "drop", "wait"])), max_size=60)
)
@settings(max_examples=100)
def test_a_device_never_has_two_holders_and_a_busy_one_never_loses_it(steps: list[tuple[str, str]]) -> None:
    claims, now_ms, holder = Claims(), 0, None
    for who, what in steps:
        mine = claims.of("scanner", who)
        if what == "take":
            if holder in (None, who):
                claims.take("scanner", who, f"app-{who}", lease_ms=1000, now_ms=now_ms)
                holder = who
            else:
                with pytest.raises(ClaimTaken) as taken:
                    claims.take("scanner", who, f"app-{who}", lease_ms=1000, now_ms=now_ms)
                assert taken.value.by == f"app-{holder}"
        elif what == "wait":
            now_ms += 600
            for ended in claims.run_out(now_ms):
                assert not ended.busy
                claims.drop(ended)
                holder = None
        elif mine is not None:
            if what == "renew":
                claims.seen(mine, now_ms)
            elif what == "busy":
                mine.busy += 1
            elif what == "free":
                mine.busy = 0
                claims.seen(mine, now_ms)
            else:
                claims.drop(mine)
                holder = None
        assert [one for one in "abc" if claims.of("scanner", one) is not None] == ([] if holder is None else [holder])
