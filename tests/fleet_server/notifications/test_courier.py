"""From rows to people, over real sockets, with a clock that the test moves."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from fleet_server.notifications import store
from fleet_server.notifications.courier import FIRST_RETRY_MS, LONGEST_RETRY_MS, Courier, retry_ms
from fleet_server.notifications.store import LEASE_MS, PAUSE_MS, STALE_MS
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS, ZONE
from tests.fleet_server.notifications.city import City
from tests.support.fakes.http import Answer, Platform, Request, Served, serve
from tests.support.fakes.receiver import Receiver
from tests.support.fakes.robots import DingTalk, Feishu, WeCom
from tests.support.waiting import until

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
DOWN = Answer(503, b"")
JAM = "kf-{}|PRN.JAM"


@pytest.fixture
async def courier(city: City) -> AsyncIterator[Courier]:
    made = start(city)
    yield made
    await made.close()


def start(city: City) -> Courier:
    """A courier that has been looking for an hour."""
    city.now_ms -= HOUR_MS
    made = Courier(city.database, city.box, fleet="jinhua", zone=ZONE, now_ms=city.clock, tick_s=0.01)
    city.now_ms += HOUR_MS
    return made


async def look(courier: Courier) -> None:
    """One look, and everything that it began to send."""
    await courier.step()
    await courier.idle()


async def look_for(courier: Courier, city: City, length_ms: int, step_ms: int = 5_000) -> None:
    for _ in range(0, length_ms, step_ms):
        await look(courier)
        city.pass_ms(step_ms)
    await look(courier)


@dataclass
class Switch:
    """A platform that is down until it is switched on."""

    platform: Platform
    on: bool = False

    def answer(self, request: Request) -> Answer:
        return self.platform.answer(request) if self.on else DOWN


@contextmanager
def receiving(city: City) -> Iterator[tuple[Receiver, Served]]:
    receiver = Receiver(SECRET)
    with serve(receiver, now_ms=city.clock) as served:
        yield receiver, served


async def test_a_fault_reaches_a_webhook_once_and_its_recovery_after_it(city: City, courier: Courier) -> None:
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        key = city.open_fault("kf-1")
        await look_for(courier, city, 5 * MINUTE_MS)
        city.clear_fault(key)
        await look_for(courier, city, 5 * MINUTE_MS)
    assert [(found["kind"], found["subject"]) for _, tree in receiver.received for found in tree["data"]["events"]] == [
        ("opened", JAM.format(1)),
        ("recovered", JAM.format(1)),
    ]
    assert city.notifications() == [("sent", 1, None)] * 2
    assert city.subjects() == set()


async def test_every_channel_is_told_in_its_own_way(city: City, courier: Courier) -> None:
    robots = (DingTalk(secret="SECx"), WeCom(), Feishu(secret="y"))
    with (
        serve(robots[0], now_ms=city.clock) as one,
        serve(robots[1], now_ms=city.clock) as two,
        serve(robots[2], now_ms=city.clock) as three,
    ):
        city.add_channel("dingtalk", one.url(robots[0].url_path()), name="a", secret="SECx")
        city.add_channel("wecom", two.url(robots[1].url_path()), name="b")
        city.add_channel("feishu", three.url(robots[2].url_path()), name="c", secret="y", lang="en")
        for number in range(8):
            city.open_fault(f"kf-{number * 4}", "NET.OFFLINE", source="platform", slot=None)
        await look_for(courier, city, 10 * MINUTE_MS)
    for robot, words in zip(robots, ("大厅 0：8 台终端", "大厅 0：8 台终端", "Hall 0: 8 terminals"), strict=True):
        assert [robot.codes, len(robot.shown)] == [[0], 1]
        assert words in robot.shown[0].text


async def test_news_without_end_passes_no_platforms_limit(city: City, courier: Courier) -> None:
    """Something new at every look for half an hour: one message a minute, none refused."""
    robot = DingTalk()
    with serve(robot, now_ms=city.clock) as served:
        city.add_channel("dingtalk", served.url(robot.url_path()))
        city.open_fault("kf-0")
        for number in range(30 * 6):
            city.open_fault(f"kf-{number % 40}", f"NEW.F{number}")
            await look(courier)
            city.pass_ms(10_000)
    assert set(robot.codes) == {0}
    assert len(robot.shown) == len(robot.codes) == 30
    assert all(later.at_ms - earlier.at_ms >= MINUTE_MS for earlier, later in pairwise(robot.shown))


async def test_a_peer_that_is_down_is_tried_again_with_the_same_message(city: City, courier: Courier) -> None:
    with receiving(city) as (receiver, served):
        receiver.answers = [DOWN] * 3
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        city.open_fault("kf-1")
        await look_for(courier, city, 3 * MINUTE_MS, step_ms=1_000)
    assert city.notifications() == [("sent", 4, None)]
    assert len(set(receiver.ids())) == 1
    times = [request.at_ms for request in served.requests]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(FIRST_RETRY_MS << n <= gap <= (FIRST_RETRY_MS << n) * 1.2 + 1_000 for n, gap in enumerate(gaps))


async def test_after_a_long_outage_of_a_robot_people_are_told_what_holds_then(city: City, courier: Courier) -> None:
    """Not a queue of old messages, and no word about what has come and gone."""
    robot = WeCom()
    down = Switch(robot)
    with serve(down, now_ms=city.clock) as served:
        city.add_channel("wecom", served.url(robot.url_path()))
        over = city.open_fault("kf-1")
        await look_for(courier, city, HOUR_MS, step_ms=MINUTE_MS)
        city.clear_fault(over)
        for number in range(2, 6):
            city.open_fault(f"kf-{number}")
            await look_for(courier, city, 20 * MINUTE_MS, step_ms=MINUTE_MS)
        down.on = True
        await look_for(courier, city, STALE_MS + 6 * MINUTE_MS)
    text = "\n".join(shown.text for shown in robot.shown)
    assert [text.count(f"KF-{number} ") for number in range(1, 6)] == [0, 1, 1, 1, 1]
    assert len(robot.shown) <= 2


async def test_after_a_long_outage_of_a_webhook_the_message_that_waited_comes_first(city: City, courier: Courier) -> None:
    """Its receiver may have got it, and knows it by its id only."""
    with receiving(city) as (receiver, served):
        receiver.answers = [DOWN] * 1_000
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        over = city.open_fault("kf-1")
        await look_for(courier, city, HOUR_MS, step_ms=MINUTE_MS)
        city.clear_fault(over)
        city.open_fault("kf-2")
        await look_for(courier, city, HOUR_MS, step_ms=MINUTE_MS)
        receiver.answers = []
        await look_for(courier, city, STALE_MS)
    assert len(set(receiver.ids())) == 2
    assert receiver.events("opened") == [JAM.format(1), JAM.format(2)]
    assert receiver.events("recovered") == [JAM.format(1)]


async def test_what_is_refused_for_good_is_not_tried_again_until_the_channel_is_set_anew(city: City, courier: Courier) -> None:
    robot = WeCom(token="right")
    with serve(robot, now_ms=city.clock) as served:
        city.add_channel("wecom", served.url("/cgi-bin/webhook/send?key=wrong"))
        city.open_fault("kf-1")
        await look_for(courier, city, PAUSE_MS - MINUTE_MS, step_ms=MINUTE_MS)
        assert robot.codes == [93000]
        ((state, attempts, why),) = city.notifications()
        assert (state, attempts) == ("failed", 1)
        assert why is not None and "93000" in why and "wrong" not in why
        store.remove_channel(city.conn, "duty", by="test", now_ms=city.now_ms)
        city.add_channel("wecom", served.url(robot.url_path()))
        await look(courier)
    assert robot.codes == [93000, 0]


async def test_a_refused_channel_is_tried_with_something_new_after_its_rest(city: City, courier: Courier) -> None:
    robot = WeCom()
    with serve(robot, now_ms=city.clock) as served:
        city.add_channel("wecom", served.url("/cgi-bin/webhook/send?key=wrong"))
        city.open_fault("kf-1")
        await look_for(courier, city, 3 * PAUSE_MS, step_ms=MINUTE_MS)
    assert robot.codes == [93000] * 4


async def test_too_fast_at_a_shared_robot_is_waited_out(city: City, courier: Courier) -> None:
    """Somebody else sends to the same robot, and DingTalk shuts it for ten minutes."""
    robot = DingTalk()
    with serve(robot, now_ms=city.clock) as served:
        for name in ("a", "b"):
            city.add_channel("dingtalk", served.url(robot.url_path()), name=name)
        robot._accepted_ms += [city.now_ms] * 20
        city.open_fault("kf-1")
        await look(courier)
        assert robot.codes.count(130101) == 1, "the second channel knows that the robot is shut"
        await look_for(courier, city, 590_000, step_ms=10_000)
        assert robot.codes == [130101]
        await look_for(courier, city, MINUTE_MS, step_ms=5_000)
    assert robot.codes == [130101, 0, 0]


async def test_a_slow_peer_holds_up_no_other(city: City, courier: Courier) -> None:
    release = threading.Event()
    slow, quick = Receiver(SECRET), Receiver(SECRET)
    slow.before_answer = lambda: release.wait(20)
    with serve(slow, now_ms=city.clock) as one, serve(quick, now_ms=city.clock) as two:
        city.add_channel("webhook", one.url("/"), name="slow", secret=SECRET)
        city.add_channel("webhook", two.url("/"), name="quick", secret=SECRET)
        for number in range(4):
            city.open_fault(f"kf-{number}")
            await courier.step()
            while len(quick.received) < number + 1:
                await courier.step()
            city.pass_ms(MINUTE_MS)
        release.set()
        await courier.idle()
    assert len(slow.ids()) == 1


async def test_blindness_is_one_message_to_each_channel_and_its_end_another(city: City, courier: Courier) -> None:
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        await look(courier)
        from_ms = city.now_ms
        for number in range(40):
            city.open_fault(f"kf-{number}", "NET.OFFLINE")
        for _ in range(100):  # ingest is dead: nobody marks the time
            city.now_ms += 10_000
            if city.now_ms - from_ms >= MINUTE_MS:
                await look(courier)
        assert [tree["data"]["platform"]["kind"] for _, tree in receiver.received] == ["blind"]
        city.conn.execute("INSERT INTO platform_gap (from_ms, to_ms, cause) VALUES (?, ?, 'ingest')", (from_ms, city.now_ms))
        city.conn.execute("UPDATE fault SET cleared_ms = ?", (city.now_ms,))
        city.mark()
        await look_for(courier, city, 10 * MINUTE_MS)
    assert [tree["data"]["platform"]["kind"] for _, tree in receiver.received] == ["blind", "sighted"]
    assert all(tree["data"]["events"] == [] for _, tree in receiver.received)


async def test_a_server_that_just_started_does_not_report_its_own_absence(city: City) -> None:
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        city.now_ms += 10 * HOUR_MS
        courier = Courier(city.database, city.box, fleet="jinhua", zone=ZONE, now_ms=city.clock)
        for _ in range(10):
            await look(courier)
            city.now_ms += 5_000
        city.mark()
        await look_for(courier, city, 5 * MINUTE_MS)
        await courier.close()
    assert receiver.received == []


async def test_a_message_whose_sender_died_is_sent_again_when_its_lease_ends(city: City, courier: Courier) -> None:
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        city.open_fault("kf-1")
        receiver.answers = [DOWN]
        await look(courier)
        city.pass_ms(10_000)
        # Another process claimed it and was killed.
        (message,) = store.due(city.conn, city.now_ms)
        assert store.claim(city.conn, message, city.now_ms) is not None
        await look_for(courier, city, LEASE_MS - 10_000, step_ms=10_000)
        assert len(receiver.ids()) == 1
        await look_for(courier, city, 20_000)
    assert city.notifications() == [("sent", 3, None)]


async def test_channels_come_go_and_change_while_it_runs(city: City, courier: Courier) -> None:
    with receiving(city) as (receiver, served):
        city.open_fault("kf-1")
        await look(courier)
        city.add_channel("webhook", served.url("/a"), secret=SECRET)
        await look(courier)
        store.enable_channel(city.conn, "duty", enabled=False, by="x", now_ms=city.now_ms)
        city.pass_ms(MINUTE_MS)
        city.open_fault("kf-2")
        await look(courier)
        assert len(receiver.received) == 1
        city.pass_ms(MINUTE_MS)
        store.enable_channel(city.conn, "duty", enabled=True, by="x", now_ms=city.now_ms)
        await look(courier)
    assert [len(tree["data"]["events"]) for _, tree in receiver.received] == [1, 2]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("kind", "pigeon", "no channel of kind"),
        ("config", '{"colour": 1}', "colour"),
        ("filters", '{"severities": ["P9"]}', "severities"),
        ("secret", b"short", "does not open"),
    ],
)
async def test_a_channel_that_cannot_be_opened_stops_no_other(
    city: City, courier: Courier, caplog: pytest.LogCaptureFixture, column: str, value: object, words: str
) -> None:
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), name="good", secret=SECRET)
        city.add_channel("webhook", served.url("/"), name="bad", secret=SECRET)
        city.conn.execute(f"UPDATE channel SET {column} = ? WHERE name = 'bad'", (value,))
        city.open_fault("kf-1")
        await look_for(courier, city, MINUTE_MS)
    assert len(receiver.received) == 1
    said = [record.message for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(said) == 1, "once, not at every look"
    assert words in said[0]


async def test_no_token_reaches_log_or_row(
    city: City, courier: Courier, caplog: pytest.LogCaptureFixture, free_port: Callable[[], int]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # as `start_logging` does
    robot = DingTalk(token="another")
    with serve(robot, now_ms=city.clock) as served:
        city.add_channel("dingtalk", served.url("/robot/send?access_token=PLANTED"), name="a", secret="SECPLANTED")
        city.add_channel("wecom", f"http://127.0.0.1:{free_port()}/?key=PLANTED", name="b")
        city.open_fault("kf-1")
        await look_for(courier, city, 2 * MINUTE_MS)
    assert {state for state, _, _ in city.notifications()} == {"failed", "queued"}
    assert "PLANTED" not in caplog.text
    assert "PLANTED" not in "\n".join(city.conn.iterdump())


async def test_nothing_that_a_person_typed_or_did_leaves_the_server(
    city: City, courier: Courier, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    planted: dict[str, Any] = {
        "claimed_by": "PLANTED",
        "muted_reason": "PLANTED",
        "evidence": '{"hex": "PLANTED"}',
        "profile": "PLANTED",
    }
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET, filters='{"quiet": {}}')
        key = city.open_fault("kf-1", severity="P1", **planted)
        city.conn.execute(
            "UPDATE terminal SET maintenance_reason = 'PLANTED', maintenance_by = 'PLANTED', maintenance_until_ms = 1"
        )
        city.conn.execute(
            "INSERT INTO fault_event (fault, at_ms, kind, by, text) VALUES (?, 1, 'note', 'PLANTED', 'PLANTED')", (key,)
        )
        await look_for(courier, city, 2 * MINUTE_MS)
        city.clear_fault(key)
        await look_for(courier, city, 3 * MINUTE_MS)
    assert len(receiver.received) == 2
    everything = "".join(request.body.decode() + repr(request.headers) for request in served.requests)
    everything += caplog.text + repr(city.rows("SELECT * FROM notification"))
    assert "PLANTED" not in everything


async def test_an_attempt_that_breaks_unforeseen_is_logged_and_tried_again(
    city: City, courier: Courier, caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        city.open_fault("kf-1")
        city.conn.execute(
            "CREATE TRIGGER broken BEFORE UPDATE OF sent_ms ON notification BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        await look(courier)
        assert "broke off" in caplog.text
        city.conn.execute("DROP TRIGGER broken")
        city.pass_ms(LEASE_MS)
        await look(courier)
    assert city.notifications() == [("sent", 2, None)]
    assert len(receiver.ids()) == 2 and len(set(receiver.ids())) == 1


async def test_the_loop_runs_until_it_is_cancelled_and_outlives_a_database_that_is_away(
    city: City, caplog: pytest.LogCaptureFixture
) -> None:

    with receiving(city) as (receiver, served):
        city.add_channel("webhook", served.url("/"), secret=SECRET)
        city.conn.execute("ALTER TABLE fault RENAME TO fault_away")
        courier = start(city)
        running = asyncio.create_task(courier.run())
        await until(lambda: "were not looked at" in caplog.text, "a failed look")
        city.conn.execute("ALTER TABLE fault_away RENAME TO fault")
        city.open_fault("kf-1")
        await until(lambda: receiver.received, "a message")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_retries_double_to_a_limit_and_differ_between_messages() -> None:
    for attempt, base_ms in ((1, 5_000), (2, 10_000), (6, 160_000), (7, LONGEST_RETRY_MS), (99, LONGEST_RETRY_MS)):
        waits = {retry_ms(attempt, message) for message in range(50)}
        assert min(waits) >= base_ms
        assert max(waits) <= base_ms * 1.2
        assert len(waits) > 20
        assert retry_ms(attempt, 1) == retry_ms(attempt, 1)
