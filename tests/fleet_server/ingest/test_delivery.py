"""Who is sent which order, when, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_server.channel import transact
from fleet_server.ingest import delivery
from fleet_server.ingest.delivery import AGAIN_MS, AT_ONCE, PER_TERMINAL, TRIES_MAX, Delivery, Message
from fleet_server.orders import keys, requests
from protocols.contract.records import Order
from tests.support.facts import FactBench
from tests.support.ordering import OrderBench


@pytest.fixture
def city(bench: FactBench, tmp_path: Path) -> OrderBench:
    made = OrderBench.make(bench, tmp_path)
    made.add_terminals("kf-2", "kf-3")
    return made


class Ingest:
    """A delivery that notices every write: here one connection does everything."""

    def __init__(self, city: OrderBench) -> None:
        self.city = city
        self.delivery = Delivery(city.conn, lambda: city.now_ms)

    def look(self) -> list[Message]:
        self.delivery._news = True
        self.rekeyed = self.delivery.rekeyed()
        messages, self.more = self.delivery.look()
        return messages

    def born(self, terminal: str = "kf-1", counter: int = 0, held: int = 0) -> list[Message]:
        self.delivery.born(terminal, counter, held)
        return self.look()


def kinds(messages: list[Message]) -> list[tuple[str, str]]:
    return [(one.terminal, one.kind) for one in messages]


@pytest.mark.spec("O-212")
def test_what_was_signed_before_the_greeting_comes_with_it(city: OrderBench) -> None:
    ingest = Ingest(city)
    request = city.ask("kf-1", "kf-2")
    requests.lock(city.conn, ["kf-1"], "停用", by="wang", now_ms=city.now_ms)
    city.sign()
    assert ingest.look() == []
    messages = ingest.born()
    assert kinds(messages) == [("kf-1", "desired"), ("kf-1", "order")]
    assert (
        messages[1].envelope
        == city.facts.one("SELECT envelope FROM order_item WHERE request = ? AND terminal = 'kf-1'", request)[0]
    )
    assert ingest.look() == []


def test_what_is_signed_afterwards_comes_at_the_next_look(city: OrderBench) -> None:
    ingest = Ingest(city)
    ingest.born("kf-1")
    ingest.born("kf-2")
    city.ask("kf-2")
    assert ingest.look() == []
    city.sign()
    assert kinds(ingest.look()) == [("kf-2", "order")]


@pytest.mark.spec("O-212")
def test_only_a_desired_state_that_the_terminal_does_not_hold_is_sent(city: OrderBench) -> None:
    ingest = Ingest(city)
    requests.lock(city.conn, ["kf-1"], "停用", by="wang", now_ms=city.now_ms)
    city.sign()
    assert ingest.born(counter=1, held=1) == []
    assert kinds(ingest.born(counter=0, held=0)) == [("kf-1", "desired")]


@pytest.mark.spec("O-212")
def test_what_the_terminal_told_of_is_not_sent_again(city: OrderBench) -> None:
    ingest = Ingest(city)
    request = city.ask()
    city.sign()
    order = city.order(request)
    city.report(Order(id=order.id, counter=order.counter, kind="restart", state="received"))
    assert ingest.born(counter=1) == []


@pytest.mark.spec("O-212")
def test_expired_orders_are_not_sent(city: OrderBench) -> None:
    ingest = Ingest(city)
    city.ask(lasts_ms=60_000)
    city.sign()
    city.now_ms += 60_000
    assert ingest.born() == []


def test_orders_come_by_their_counters(city: OrderBench) -> None:
    ingest = Ingest(city)
    signed = []
    for _ in range(4):
        signed.append(city.ask())
        city.sign()
    assert [one.envelope for one in ingest.born()] == [
        city.facts.one("SELECT envelope FROM order_item WHERE request = ?", request)[0] for request in signed
    ]


def test_one_terminal_with_many_orders_does_not_hold_up_the_others(city: OrderBench) -> None:
    ingest = Ingest(city)
    for _ in range(3 * PER_TERMINAL):
        city.ask("kf-1")
    city.ask("kf-2")
    city.sign()
    ingest.delivery.born("kf-1", 0, 0)
    ingest.delivery.born("kf-2", 0, 0)
    first = kinds(ingest.look())
    assert ("kf-2", "order") in first
    assert first[:PER_TERMINAL] == [("kf-1", "order")] * PER_TERMINAL
    assert first[PER_TERMINAL] == ("kf-2", "order")
    rest = list(first)
    while len(rest) < 3 * PER_TERMINAL + 1:
        rest += kinds(ingest.look())
    assert rest.count(("kf-1", "order")) == 3 * PER_TERMINAL


def test_a_look_is_bounded(city: OrderBench) -> None:
    ingest = Ingest(city)
    names = [f"kf-{n}" for n in range(100, 220)]
    city.add_terminals(*names)
    city.approve(city.ask(*names))
    city.sign()
    for name in names:
        ingest.delivery.born(name, 0, 0)
    assert len(ingest.look()) == AT_ONCE
    assert ingest.more


def test_what_was_not_answered_is_sent_again_a_few_times(city: OrderBench) -> None:
    ingest = Ingest(city)
    city.ask()
    city.sign()
    assert len(ingest.born()) == 1
    sent = 1
    for _ in range(20):
        city.now_ms += AGAIN_MS
        sent += len(ingest.look())
    assert sent == TRIES_MAX
    assert len(ingest.born()) == 1


def test_nothing_is_sent_between_challenge_and_birth(city: OrderBench) -> None:
    ingest = Ingest(city)
    ingest.born()
    ingest.delivery.left("kf-1")
    city.ask()
    city.sign()
    assert ingest.look() == []
    assert len(ingest.born()) == 1


@pytest.mark.spec("O-102")
def test_a_new_list_of_keys_makes_everybody_greet_again_a_few_at_a_time(
    city: OrderBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "REKEYED_AT_ONCE", 2)
    ingest = Ingest(city)
    for terminal in ("kf-1", "kf-2", "kf-3"):
        ingest.born(terminal)
    assert ingest.rekeyed == []
    transact(city.conn, lambda conn: keys.rotate(conn, city.authority, city.folder, by="cli:root", now_ms=city.now_ms))
    asked: list[str] = []
    for _ in range(4):
        ingest.look()
        asked += ingest.rekeyed
        for terminal in ingest.rekeyed:
            ingest.delivery.left(terminal)
    assert asked == ["kf-1", "kf-2", "kf-3"]


def test_nothing_is_read_unless_another_process_wrote(city: OrderBench) -> None:
    ingest = Ingest(city)
    ingest.born()
    city.ask()
    city.sign()
    statements: list[str] = []
    city.conn.set_trace_callback(statements.append)
    ingest.delivery.rekeyed()
    assert ingest.delivery.look() == ([], False)
    assert statements == ["PRAGMA data_version"]


@pytest.mark.spec("O-214")
def test_an_implausible_counter_is_followed_and_noted_once(city: OrderBench) -> None:
    ingest = Ingest(city)
    ingest.born("kf-1", counter=500)
    assert city.facts.rows("SELECT 1 FROM audit WHERE action = 'terminal.counter'") == []
    for step in range(1, 4):
        ingest.born("kf-1", counter=step * 2**50)
    noted = city.facts.rows("SELECT object, detail FROM audit WHERE action = 'terminal.counter'")
    assert noted == [("terminal:kf-1", '{"counter":1125899906842624,"why":"implausible"}')]
    request = city.ask()
    city.sign()
    assert city.order(request).counter == 3 * 2**50 + 1
