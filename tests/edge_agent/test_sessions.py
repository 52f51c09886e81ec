"""The session rules against a plain model, and the cases that matter by name."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import sessions
from edge_agent.clock import ClockReading
from edge_agent.sessions import Policy, SessionRefused, Sessions
from protocols.contract.records import ClockQuality, Session, encode_record

POLICY = Policy(lease_ms=120_000, max_open=3, remember=16)
BOOT = bytes(15) + b"\1"
WALL_AT_BOOT_MS = 1_790_000_000_000


def at(boot_s: float) -> ClockReading:
    boot_ms = int(boot_s * 1000)
    return ClockReading(wall_ms=WALL_AT_BOOT_MS + boot_ms, boot_ms=boot_ms, quality=ClockQuality.SYNCED)


def sid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def opened(*numbers: int, boot_s: float = 0) -> Sessions:
    state = Sessions(boot_id=BOOT)
    for number in numbers:
        state = sessions.begin(state, sid(number), "tax.invoice", "touch", at(boot_s), POLICY).state
    return state


def refused(word: str, action: object) -> None:
    assert callable(action)
    with pytest.raises(SessionRefused) as caught:
        action()
    assert caught.value.word == word


def test_a_case_from_begin_to_end() -> None:
    state = opened(1, boot_s=10)
    assert not state.idle
    step = sessions.end(state, sid(1), "failed", "device", at(70), POLICY)
    assert step.state.idle
    assert step.bodies == (
        Session(
            id=sid(1),
            item="tax.invoice",
            channel="touch",
            outcome="failed",
            cause="device",
            began_ms=WALL_AT_BOOT_MS + 10_000,
            duration_ms=60_000,
        ),
    )


def test_repeats_are_one_case() -> None:
    state = opened(1)
    again = sessions.begin(state, sid(1), "tax.invoice", "touch", at(50), POLICY)
    assert again.repeated
    assert len(again.state.open) == 1
    assert sessions.expire(again.state, at(169), POLICY).bodies == (), "a repeat is a sign of life"
    done = sessions.end(again.state, sid(1), "success", "none", at(60), POLICY).state
    repeat = sessions.end(done, sid(1), "success", "none", at(61), POLICY)
    assert (repeat.repeated, repeat.bodies) == (True, ())


def test_refusals() -> None:
    state = opened(1)
    refused("otherItem", lambda: sessions.begin(state, sid(1), "tax.refund", "touch", at(1), POLICY))
    refused("otherItem", lambda: sessions.begin(state, sid(1), "tax.invoice", "scan", at(1), POLICY))
    refused("unknown", lambda: sessions.renew(state, sid(2), at(1)))
    refused("unknown", lambda: sessions.end(state, sid(2), "success", "none", at(1), POLICY))
    done = sessions.end(state, sid(1), "success", "none", at(1), POLICY).state
    refused("ended", lambda: sessions.renew(done, sid(1), at(2)))
    refused("ended", lambda: sessions.begin(done, sid(1), "tax.invoice", "touch", at(2), POLICY))
    refused("otherOutcome", lambda: sessions.end(done, sid(1), "failed", "none", at(2), POLICY))
    refused("tooMany", lambda: sessions.begin(opened(1, 2, 3), sid(4), "tax.invoice", "touch", at(1), POLICY))


def test_lost_lease_ends_as_abandoned_with_the_time_up_to_the_last_sign_of_life() -> None:
    state = sessions.renew(opened(1), sid(1), at(30)).state
    assert sessions.next_expiry_boot_ms(state, POLICY) == 150_000
    assert sessions.expire(state, at(149.999), POLICY).bodies == ()
    step = sessions.expire(state, at(150), POLICY)
    assert [(body.outcome, body.cause, body.duration_ms) for body in step.bodies] == [("abandoned", "lease", 30_000)]
    refused("otherOutcome", lambda: sessions.end(step.state, sid(1), "success", "none", at(151), POLICY))


def test_open_sessions_survive_a_restart_of_the_agent_but_not_of_the_host() -> None:
    state = sessions.load(sessions.dump(sessions.renew(opened(1), sid(1), at(30)).state))
    same = sessions.resume(state, BOOT, POLICY)
    assert same.state == state
    assert same.bodies == ()
    other = sessions.resume(state, bytes(16), POLICY)
    assert [(body.outcome, body.cause, body.duration_ms) for body in other.bodies] == [("abandoned", "lease", 30_000)]
    assert (other.state.boot_id, other.state.idle) == (bytes(16), True)


def test_memory_of_another_version_is_a_fresh_start() -> None:
    assert sessions.load(b"\xc1") == Sessions()
    assert sessions.load(None) == Sessions()


def test_stuck_after_an_hour_of_renewals() -> None:
    state = sessions.renew(opened(1), sid(1), at(3599)).state
    assert (sessions.stuck(state, at(3599)), sessions.serving(state, at(3599))) == (False, True)
    assert (sessions.stuck(state, at(3600)), sessions.serving(state, at(3600))) == (True, False)
    another = sessions.begin(state, sid(2), "tax.invoice", "touch", at(3600), POLICY).state
    assert sessions.stuck(another, at(3600))
    assert sessions.serving(another, at(3600)), "the next citizen is waited for"
    assert not sessions.serving(Sessions(), at(3600))


def test_hidden_ids_differ_by_salt_and_purpose() -> None:
    client_id = uuid.uuid4()
    ids = {
        sessions.hidden_id(b"a" * 32, "session", client_id),
        sessions.hidden_id(b"b" * 32, "session", client_id),
        sessions.hidden_id(b"a" * 32, "rating", client_id),
    }
    assert len(ids) == 3
    assert all(len(one) == 16 and client_id.bytes not in one for one in ids)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "renew", "end", "expire", "restart", "reboot"]),
        st.integers(1, 5),
        st.sampled_from(["success", "failed", "abandoned"]),
        st.integers(0, 90_000),
    ),
    max_size=40,
)


@given(ACTIONS)
def test_every_case_is_recorded_once_whatever_happens(actions: list[tuple[str, int, str, int]]) -> None:
    policy = Policy(lease_ms=120_000, max_open=3, remember=256)
    state, now_ms, boot = Sessions(boot_id=BOOT), 0, 1
    begun: set[bytes] = set()
    recorded: list[Session] = []
    for action, number, outcome, passed_ms in actions:
        now_ms += passed_ms
        now = at(now_ms / 1000)
        try:
            if action == "begin":
                step = sessions.begin(state, sid(number), "tax.invoice", "touch", now, policy)
                begun.add(sid(number))
            elif action == "renew":
                step = sessions.renew(state, sid(number), now)
            elif action == "end":
                step = sessions.end(state, sid(number), outcome, "none", now, policy)  # type: ignore[arg-type]  # one of the words
            elif action == "expire":
                step = sessions.expire(state, now, policy)
            elif action == "restart":
                step = sessions.resume(sessions.load(sessions.dump(state)), state.boot_id, policy)
            else:
                boot += 1
                now_ms = 0
                step = sessions.resume(state, bytes(15) + bytes((boot % 256,)), policy)
        except SessionRefused:
            continue
        state = step.state
        recorded += step.bodies
        for body in step.bodies:
            encode_record(body, wall_ms=now.wall_ms, quality=now.quality, boot_ms=now.boot_ms)
    ids = [body.id for body in recorded]
    assert len(ids) == len(set(ids))
    assert {one.id for one in state.open} | set(ids) == begun
    assert not {one.id for one in state.open} & set(ids)
    assert len(state.open) <= policy.max_open
