"""Orders on the road: which challenge names the keys, what the birth tells, and orders through a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.cli import load_profiles
from edge_agent.uplink import Conversation, Publish, UplinkSettings
from edge_agent.uplink.conversation import UNSOLICITED
from protocols.contract import envelope as cose
from protocols.contract import messages, topics, wire
from protocols.contract.limits import CONTROL_MAX_BYTES
from protocols.contract.orders import Lock, SelfTest
from protocols.contract.records import Desired
from tests.edge_agent.orders.office import BOOT_ID, Desk, Office, certificate_of
from tests.edge_agent.orders.test_agent import Here, ended
from tests.edge_agent.small_agent import Home
from tests.edge_agent.test_supervisor import of, one_printer, running
from tests.edge_agent.test_uplink_wiring import listening
from tests.support.contract import FLEET, NOW_MS, RECORD, ROOT, SERVER, SERVER_CERT, TERMINAL, MemoryKey, order_key_cert
from tests.support.processes import Processes
from tests.support.waiting import until

NEXT = MemoryKey(b"\x0a" * 32)


class Talk:
    """One terminal's conversation with its inbox behind it."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.conversation = Conversation(desk.outbox, desk.clock, ROOT.verifier, "1.0", BOOT_ID, tuple, inbox=desk.inbox)

    def challenge(self, hello: Publish, *keys: bytes, connection: bytes | None = None) -> list[Publish]:
        asked = wire.read(hello.payload, messages.Hello).connection
        message = messages.Challenge(
            connection=asked if connection is None else connection,
            nonce=bytes(16),
            version=1,
            server_ms=NOW_MS,
            certificate=SERVER_CERT,
            order_keys=keys,
        )
        sealed = wire.seal(message, SERVER, messages.CHALLENGE_CONTEXT, FLEET, TERMINAL)
        return self.conversation.received("challenge", sealed, 0.0)

    def greet(self, *keys: bytes) -> messages.Birth:
        (hello,) = self.conversation.connected(0.0)
        (birth,) = self.challenge(hello, *keys)
        return birth_of(birth)

    async def ask(self, office: Office) -> tuple[str, str]:
        self.conversation.received("order", office.order(SelfTest(slot="scanner")), 0.0)
        await self.desk.work()
        return self.desk.states()[-1]


def birth_of(item: Publish) -> messages.Birth:
    assert item.kind == "birth"
    opened = cose.verify(cose.parse(item.payload, CONTROL_MAX_BYTES), RECORD.verifier, messages.BIRTH_CONTEXT, FLEET, TERMINAL)
    return wire.read(opened.payload, messages.Birth)


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    desk = Desk(tmp_path)
    yield Talk(desk)
    desk.stop()


@pytest.mark.spec("O-103")
async def test_the_challenge_of_this_connection_names_the_keys(talk: Talk) -> None:
    talk.greet(order_key_cert())
    assert await talk.ask(Office()) == ("done", "none")
    successor = Office(NEXT)
    successor.counter = 1
    talk.greet(order_key_cert(), certificate_of(NEXT))
    assert await talk.ask(successor) == ("done", "none")
    talk.greet(certificate_of(NEXT))
    old = Office()
    old.counter = successor.counter
    assert await talk.ask(old) == ("refused", "withdrawnKey")
    assert await talk.ask(successor) == ("done", "none")


@pytest.mark.spec("O-103")
async def test_an_old_challenge_that_nobody_asked_for_brings_no_withdrawn_key_back(talk: Talk) -> None:
    """Anyone who can write to the topic may keep a challenge from before the withdrawal."""
    talk.greet()
    (hello,) = talk.challenge(Publish("hello", wire.dump(messages.Hello(connection=UNSOLICITED))), order_key_cert())
    assert hello.kind == "hello", "the terminal asks for a fresh one"
    talk.conversation.received("order", Office().order(SelfTest(slot="scanner")), 0.0)
    await talk.desk.work()
    assert talk.desk.tested == []
    (birth,) = talk.challenge(hello, order_key_cert())
    assert birth_of(birth).nonce == bytes(16)
    assert await talk.ask(Office()) == ("done", "none")


def test_one_that_lists_the_same_keys_is_answered(talk: Talk) -> None:
    talk.greet(order_key_cert())
    asked = Publish("hello", wire.dump(messages.Hello(connection=UNSOLICITED)))
    (birth,) = talk.challenge(asked, order_key_cert())
    assert birth.kind == "birth"


def test_a_challenge_of_an_earlier_hello_brings_no_keys(talk: Talk) -> None:
    (old,) = talk.conversation.connected(0.0)
    (_hello,) = talk.conversation.connected(0.0)
    assert talk.challenge(old, order_key_cert()) == []
    assert talk.desk.inbox.ring.keys == {}


def test_the_birth_tells_both_counters(talk: Talk) -> None:
    birth = talk.greet(order_key_cert())
    assert (birth.command_counter, birth.desired_counter) == (0, 0)
    office = Office()
    talk.conversation.received("desired", office.desired(lock=Lock(zh="停", since_ms=1)), 0.0)
    talk.conversation.received("order", office.order(SelfTest(slot="scanner")), 0.0)
    birth = talk.greet(order_key_cert())
    assert (birth.command_counter, birth.desired_counter) == (2, 1)


def test_an_agent_without_an_inbox_ignores_orders(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        alone = Conversation(desk.outbox, desk.clock, ROOT.verifier, "1.0", BOOT_ID, tuple)
        alone.connected(0.0)
        assert alone.received("order", Office().order(SelfTest(slot="scanner")), 0.0) == []
        assert alone.counters.not_ours == 1
    finally:
        desk.stop()


@pytest.mark.broker
async def test_through_a_broker(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> None:
    port = free_port()
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    processes.start(["mosquitto", "-c", str(settings)]).wait_for_output("running")
    home = Home(tmp_path)
    try:
        office = Here(home)
        broker = UplinkSettings(host="127.0.0.1", port=port, tls=None)
        agent = home.agent(one_printer(), load_profiles(None), uplink=True, broker=broker)
        async with listening(home, port) as listener, aiomqtt.Client("127.0.0.1", port) as client:
            listener.server_ms = 1_800_000_000_000
            listener.order_keys = (office.certificate,)
            async with running(agent):
                await until(lambda: listener.births, "the agent is born")
                await client.publish(topics.down(home.terminal, "desired"), office.desired(), qos=1)
                await until(lambda: of(home, Desired), "the desired state holds")
                order = office.make(SelfTest(slot="receipt-printer"), expires_ms=4_000_000_000_000)
                await client.publish(topics.down(home.terminal, "order"), office.seal(order), qos=1)
                assert await ended(home, order.id) == ("done", "none")
    finally:
        home.remove()
