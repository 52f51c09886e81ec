from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet_server.notifications import dingtalk, feishu, wecom
from fleet_server.notifications.bucket import Bucket, Limits

PLATFORMS = {"dingtalk": (dingtalk.LIMITS, 20), "wecom": (wecom.LIMITS, 20), "feishu": (feishu.LIMITS, 100)}


@given(waits=st.lists(st.integers(0, 5_000), min_size=1, max_size=400), kind=st.sampled_from(sorted(PLATFORMS)))
def test_however_it_is_asked_no_platforms_limit_is_passed(waits: list[int], kind: str) -> None:
    limits, allowed = PLATFORMS[kind]
    now_ms, taken = 0, []
    bucket = Bucket(limits, 0)
    for wait_ms in waits:
        now_ms += wait_ms
        if bucket.take(now_ms) == 0:
            taken.append(now_ms)
    for end_ms in taken:
        assert sum(end_ms - 60_000 < at_ms <= end_ms for at_ms in taken) < allowed
        assert sum(end_ms - 1_000 < at_ms <= end_ms for at_ms in taken) <= 4  # Feishu: 5 a second


def test_it_says_when_it_is_worth_asking_again() -> None:
    bucket = Bucket(Limits(per_minute=15, burst=2), 0)
    assert bucket.take(0) == 0
    wait_ms = bucket.take(0)
    assert wait_ms == 4_000
    assert bucket.take(wait_ms - 1) > 0
    assert bucket.take(wait_ms) == 0


def test_a_new_process_may_send_one_message_not_a_burst() -> None:
    bucket = Bucket(Limits(per_minute=15, burst=3), 1_000)
    assert bucket.take(1_000) == 0
    assert bucket.take(1_000) > 0


def test_a_block_holds_however_many_tokens_there_are() -> None:
    bucket = Bucket(dingtalk.LIMITS, 0)
    assert bucket.take(0) == 0
    bucket.block(600_000)
    assert bucket.take(1) == 599_999
    bucket.block(1_000)
    assert bucket.take(599_999) == 1
    assert bucket.take(600_000) == 0


def test_a_clock_that_was_set_back_gives_no_tokens() -> None:
    bucket = Bucket(Limits(per_minute=15, burst=3), 100_000)
    assert bucket.take(100_000) == 0
    assert bucket.take(0) > 0
    assert bucket.take(4_000) == 0
    bucket.block(10_000)
    assert bucket.take(0) == 10_000
    assert bucket.take(10_000) == 0
