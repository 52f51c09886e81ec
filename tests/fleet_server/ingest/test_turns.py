"""One terminal that floods waits for itself; nobody waits for it."""

from __future__ import annotations

import asyncio

import aiomqtt
import pytest

from fleet_server.ingest import turns
from fleet_server.ingest.turns import IN_A_ROW, LINE_BYTES, LINE_MESSAGES, Turns
from protocols.contract import topics


def message(terminal: str, number: int = 0, size_bytes: int = 4) -> aiomqtt.Message:
    payload = number.to_bytes(4, "big").ljust(size_bytes, b"\0")
    return aiomqtt.Message(topics.up(terminal, "batch"), payload, 1, retain=False, mid=number, properties=None)


def take_all(queue: Turns) -> list[tuple[str, int]]:
    taken = []
    while not queue.empty():
        item = queue.get_nowait()
        assert isinstance(item.payload, bytes)
        taken.append((turns.sender(item.topic.value), int.from_bytes(item.payload[:4], "big")))
    return taken


async def test_an_honest_terminal_waits_for_one_turn_of_a_flood_and_not_for_all_of_it() -> None:
    queue = Turns()
    for number in range(LINE_MESSAGES):
        queue.put_nowait(message("flood", number))
    queue.put_nowait(message("honest", 1))
    taken = take_all(queue)
    assert taken.index(("honest", 1)) == IN_A_ROW
    assert [number for name, number in taken if name == "flood"] == list(range(LINE_MESSAGES))


@pytest.mark.parametrize(("size_bytes", "kept"), [(4, LINE_MESSAGES), (LINE_BYTES // 10, 10)])
async def test_what_waits_for_one_terminal_is_bounded_and_room_comes_back(
    size_bytes: int, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Turns()
    for number in range(3 * LINE_MESSAGES):
        queue.put_nowait(message("flood", number, size_bytes))
        queue.put_nowait(message(f"one-{number}", 0))
    assert queue.qsize() == kept + 3 * LINE_MESSAGES
    assert len(caplog.records) == 1
    assert queue.dropped == {"flood": 3 * LINE_MESSAGES - kept}
    assert len(take_all(queue)) == kept + 3 * LINE_MESSAGES
    queue.put_nowait(message("flood", 7, size_bytes))
    assert take_all(queue) == [("flood", 7)]


async def test_each_senders_order_is_kept_whatever_comes_between() -> None:
    queue = Turns()
    taken: list[tuple[str, int]] = []
    for number in range(500):
        queue.put_nowait(message(f"t-{number * 7 % 5}", number))
        if number % 3 == 0:
            item = queue.get_nowait()
            assert isinstance(item.payload, bytes)
            taken.append((turns.sender(item.topic.value), int.from_bytes(item.payload[:4], "big")))
    taken += take_all(queue)
    assert len(taken) == 500
    for name in {name for name, _ in taken}:
        numbers = [number for sender, number in taken if sender == name]
        assert numbers == sorted(numbers)


async def test_topics_that_name_nobody_share_one_line() -> None:
    queue = Turns()
    for number in range(2 * LINE_MESSAGES):
        queue.put_nowait(aiomqtt.Message(f"kf/1/{number}", b"", 0, retain=False, mid=0, properties=None))
    assert queue.qsize() == LINE_MESSAGES


async def test_somebody_who_waits_is_woken() -> None:
    queue = Turns()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait(message("late", 3))
    item = await asyncio.wait_for(waiting, 5)
    assert item.mid == 3
