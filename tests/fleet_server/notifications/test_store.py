"""Rows of channels and messages: what is claimed is claimed once, what is settled is settled by whoever holds it."""

from __future__ import annotations

import sqlite3

import pytest

from fleet_server.db import open_raw
from fleet_server.errors import Conflict, NotFound
from fleet_server.notifications import store
from fleet_server.notifications.digest import PLATFORM, Digest, PlatformEvent
from fleet_server.notifications.planner import Message, Plan, Told
from fleet_server.notifications.store import KEEP_MS, LEASE_MS, PAUSE_MS, STALE_MS, Due
from tests.fleet_server.notifications.bench import MINUTE_MS
from tests.fleet_server.notifications.city import City
from tests.fleet_server.notifications.samples import digest, event

URL = "http://127.0.0.1:1/"


def queued(city: City, channel: int, found: Digest | None = None) -> Due:
    """A message of this minute, as it is due."""
    message = Message(channel, f"digest/{city.now_ms // MINUTE_MS}", found or digest())
    assert store.queue(city.conn, Plan([message], []), city.now_ms) == 1
    (due,) = store.due(city.conn, city.now_ms)
    return due


def claimed(city: City, message: Due) -> Due:
    mine = store.claim(city.conn, message, city.now_ms)
    assert mine is not None
    return mine


def test_a_message_is_claimed_once(city: City) -> None:
    message = queued(city, city.add_channel("wecom", URL))
    other = open_raw(city.database)
    try:
        assert store.claim(city.conn, message, city.now_ms) is not None
        assert store.claim(other, message, city.now_ms) is None
        assert store.due(other, city.now_ms + LEASE_MS - 1) == []
        (again,) = store.due(other, city.now_ms + LEASE_MS)
        assert store.claim(other, again, city.now_ms + LEASE_MS) is not None
    finally:
        other.close()


def test_whoever_was_overtaken_settles_nothing(city: City) -> None:
    message = queued(city, city.add_channel("wecom", URL))
    slow = claimed(city, message)
    city.pass_ms(LEASE_MS)
    fast = claimed(city, store.due(city.conn, city.now_ms)[0])
    assert not store.delivered(city.conn, slow, city.now_ms)
    assert not store.refused(city.conn, slow, city.now_ms, "late")
    assert not store.put_off(city.conn, slow, city.now_ms, "late")
    assert city.subjects() == set()
    assert store.delivered(city.conn, fast, city.now_ms)
    assert not store.delivered(city.conn, fast, city.now_ms)
    assert city.notifications() == [("sent", 2, None)]


def test_a_channel_has_one_waiting_message_and_one_a_minute(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    first = queued(city, channel)
    city.pass_ms(MINUTE_MS)
    other = Plan([Message(channel, "digest/other", digest())], [])
    assert store.queue(city.conn, other, city.now_ms) == 0, "one is waiting"
    store.delivered(city.conn, claimed(city, first), city.now_ms)
    same = Plan([Message(channel, f"digest/{(city.now_ms - MINUTE_MS) // MINUTE_MS}", digest())], [])
    assert store.queue(city.conn, same, city.now_ms) == 0, "that minute had its digest"
    assert store.queue(city.conn, other, city.now_ms) == 1


def test_a_plan_for_a_channel_that_is_gone_or_off_is_not_queued(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    plan = Plan([Message(channel, "digest/1", digest()), Message(99, "digest/1", digest())], [])
    store.enable_channel(city.conn, "duty", enabled=False, by="x", now_ms=city.now_ms)
    assert store.queue(city.conn, plan, city.now_ms) == 0
    store.enable_channel(city.conn, "duty", enabled=True, by="x", now_ms=city.now_ms)
    assert store.queue(city.conn, plan, city.now_ms) == 1


def test_what_a_channel_stands_at_follows_deliveries_only(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    message = queued(city, channel, digest(event("kf-1"), event("kf-2", kind="opened", severity="P1")))
    assert store.sent_so_far(city.conn)[channel].standing == {}
    store.delivered(city.conn, claimed(city, message), city.now_ms)
    told = Told(severity="P2", told_ms=message.digest.at_ms)
    assert store.sent_so_far(city.conn)[channel].standing["kf-1|LSR.PAPER_OUT"] == told

    city.pass_ms(MINUTE_MS)
    after = digest(
        event("kf-1", kind="recovered", until_ms=city.now_ms),
        event("kf-2", kind="unclaimed", severity="P1", level=2),
        platform=PlatformEvent(kind="blind", cause="ingest", since_ms=1),
        at_ms=city.now_ms,
    )
    store.delivered(city.conn, claimed(city, queued(city, channel, after)), city.now_ms)
    standing = store.sent_so_far(city.conn)[channel].standing
    assert standing.keys() == {"kf-2|LSR.PAPER_OUT", PLATFORM}
    assert standing["kf-2|LSR.PAPER_OUT"] == Told(severity="P1", told_ms=message.digest.at_ms, level=2)


def test_the_planner_learns_of_waiting_delivered_and_refused(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    assert store.sent_so_far(city.conn)[channel].last_ms is None
    message = claimed(city, queued(city, channel))
    assert store.sent_so_far(city.conn)[channel].waiting
    made_ms = city.now_ms
    city.pass_ms(1_000)
    store.refused(city.conn, message, city.now_ms, "no such robot")
    sent = store.sent_so_far(city.conn)[channel]
    assert (sent.waiting, sent.last_ms, sent.paused_until_ms) == (False, made_ms, city.now_ms + PAUSE_MS)
    store.enable_channel(city.conn, "duty", enabled=True, by="x", now_ms=city.now_ms)
    assert store.sent_so_far(city.conn)[channel].paused_until_ms == 0, "somebody has set it anew"


def test_a_stale_message_is_dropped_but_not_under_the_hands_of_who_sends_it(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    message = queued(city, channel)
    city.pass_ms(STALE_MS)
    mine = claimed(city, message)
    assert store.drop_stale(city.conn, [channel], city.now_ms) == 0
    store.put_off(city.conn, mine, city.now_ms + 1, "no connection")
    assert store.drop_stale(city.conn, [channel], city.now_ms) == 0
    assert store.drop_stale(city.conn, [channel + 1], city.now_ms + 1) == 0
    assert store.drop_stale(city.conn, [channel], city.now_ms + 1) == 1
    assert city.notifications() == [("dropped", 1, "no connection")]
    assert city.subjects() == set()


@pytest.mark.parametrize("end", ["off", "removed"])
def test_a_channel_that_ends_drops_what_waits_and_forgets_where_it_stood(city: City, end: str) -> None:
    channel = city.add_channel("wecom", URL)
    store.delivered(city.conn, claimed(city, queued(city, channel)), city.now_ms)
    city.pass_ms(MINUTE_MS)
    waiting = claimed(city, queued(city, channel, digest(event("kf-2"))))
    if end == "off":
        store.enable_channel(city.conn, "duty", enabled=False, by="x", now_ms=city.now_ms)
    else:
        store.remove_channel(city.conn, "duty", by="test", now_ms=city.now_ms)
    assert city.subjects() == set()
    assert not store.delivered(city.conn, waiting, city.now_ms)
    assert [state for state, _, _ in city.notifications()] == ["sent", "dropped"]
    assert not store.any_enabled(city.conn)


def test_names_are_taken_once_and_missing_ones_are_said(city: City) -> None:
    city.add_channel("wecom", URL)
    with pytest.raises(Conflict):
        city.add_channel("feishu", URL)
    with pytest.raises(NotFound, match="other"):
        store.channel(city.conn, "other")
    with pytest.raises(NotFound):
        store.remove_channel(city.conn, "other", by="test", now_ms=city.now_ms)


def test_old_messages_go_but_never_the_newest_of_a_channel(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    for _ in range(3):
        store.delivered(city.conn, claimed(city, queued(city, channel)), city.now_ms)
        city.pass_ms(MINUTE_MS)
    assert store.trim(city.conn, city.now_ms) == 0
    assert store.trim(city.conn, city.now_ms + KEEP_MS) == 2
    assert store.sent_so_far(city.conn)[channel].last_ms == city.now_ms - MINUTE_MS


def test_no_row_holds_a_secret_in_the_clear(city: City) -> None:
    city.add_channel("dingtalk", "https://oapi.dingtalk.com/robot/send?access_token=PLANTED", secret="SECPLANTED")
    (found,) = store.channels(city.conn)
    assert "PLANTED" not in repr(found)
    city.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"PLANTED" not in city.database.read_bytes()


def test_two_processes_never_queue_two_messages_for_one_minute(city: City) -> None:
    channel = city.add_channel("wecom", URL)
    message = Message(channel, "digest/7", digest())
    other = open_raw(city.database)
    try:
        assert store.queue(city.conn, Plan([message], []), city.now_ms) == 1
        assert store.queue(other, Plan([message], []), city.now_ms) == 0
    finally:
        other.close()
    with pytest.raises(sqlite3.IntegrityError):
        city.conn.execute(
            "INSERT INTO standing (channel, subject, severity, level, told_ms) VALUES (1, 'x', 'P1', 0, 0), (1, 'x', 'P1', 0, 0)"
        )
