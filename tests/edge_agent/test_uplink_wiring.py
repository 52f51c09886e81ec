"""The agent and a broker: it greets, is born with its open faults, learns the server's time, and says goodbye."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from edge_agent.cli import load_profiles
from edge_agent.uplink import UplinkSettings
from protocols.contract import certs, messages, topics, wire
from protocols.contract import envelope as cose
from protocols.contract.records import Link, Stop
from tests.edge_agent.small_agent import Home, OffsetClock
from tests.edge_agent.small_fleet import RootKey
from tests.edge_agent.test_supervisor import of, one_printer, running
from tests.support.processes import Processes
from tests.support.waiting import until

pytestmark = pytest.mark.broker


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.remove()


@pytest.fixture
def broker_port(tmp_path: Path, processes: Processes, free_port: Callable[[], int]) -> int:
    port = free_port()
    settings = tmp_path / "mosquitto.conf"
    settings.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    processes.start(["mosquitto", "-c", str(settings)]).wait_for_output("running")
    return port


class Listener:
    """What a server would see, and the challenge that it would send."""

    def __init__(self, home: Home, client: aiomqtt.Client) -> None:
        self._home, self._client = home, client
        self.kinds: list[str] = []
        self.births: list[messages.Birth] = []
        self.key = RootKey()
        cert = certs.ServerKeyCert(kid=self.key.kid, public_key=self.key.public_key, issued_ms=0)
        self._certificate = certs.seal_server_key_cert(cert, home.root, "testfleet")
        self.server_ms = 0
        self.order_keys: tuple[bytes, ...] = ()

    async def run(self) -> None:
        async for message in self._client.messages:
            up = topics.parse_up(str(message.topic))
            self.kinds.append(up.kind)
            assert isinstance(message.payload, bytes)
            if up.kind == "hello":
                hello = wire.read(message.payload, messages.Hello)
                challenge = messages.Challenge(
                    connection=hello.connection,
                    nonce=bytes(16),
                    version=1,
                    server_ms=self.server_ms,
                    certificate=self._certificate,
                    order_keys=self.order_keys,
                )
                sealed = wire.seal(challenge, self.key, messages.CHALLENGE_CONTEXT, "testfleet", up.terminal)
                await self._client.publish(topics.down(up.terminal, "challenge"), sealed, qos=1)
            elif up.kind == "birth":
                self.births.append(wire.read(cose.parse(message.payload, 1 << 20).payload, messages.Birth))


@asynccontextmanager
async def listening(home: Home, port: int) -> AsyncIterator[Listener]:
    async with aiomqtt.Client("127.0.0.1", port, identifier="listener") as client:
        await client.subscribe("kf/1/+/+/up/+", qos=1)
        listener = Listener(home, client)
        task = asyncio.ensure_future(listener.run())
        try:
            yield listener
        finally:
            if task.done():
                task.result()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_greeting_birth_time_and_goodbye(home: Home, broker_port: int) -> None:
    clock = OffsetClock()
    settings = UplinkSettings(host="127.0.0.1", port=broker_port, tls=None)
    simulated = one_printer()
    simulated.set("receipt-printer", "paper-out")
    agent = home.agent(simulated, load_profiles(None), clock=clock, uplink=True, broker=settings)
    async with listening(home, broker_port) as listener:
        listener.server_ms = clock.wall_ms() + 3_600_000
        async with running(agent):
            await until(lambda: listener.births, "the agent is born")
            await until(lambda: agent.status().uplink.connected, "the status says so")
            assert agent._house.trusted_now_ms() >= listener.server_ms
            assert listener.births[0].stream == agent._outbox.stream
        assert "hb" in listener.kinds
    assert [(body.state, body.reason) for body in of(home, Link)] == [("up", "connected"), ("down", "stopping")]
    assert of(home, Stop)


async def test_broker_that_is_not_there(home: Home, free_port: Callable[[], int]) -> None:
    settings = UplinkSettings(host="127.0.0.1", port=free_port(), tls=None, backoff_max_s=0.1)
    agent = home.agent(one_printer(), load_profiles(None), uplink=True, broker=settings)
    async with running(agent):
        await until(lambda: agent.status().uplink.reason == "refused", "the reason is told")
        assert not agent.status().uplink.connected
    assert of(home, Link) == []


async def test_terminal_without_certificate_keeps_recording(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """The uplink cannot even begin; nothing else suffers."""
    agent = home.agent(one_printer(), load_profiles(None), uplink=True)
    async with running(agent):
        await until(lambda: "a part failed and starts again" in caplog.text, "the uplink has failed")
        await until(lambda: agent.status().slots[0].device == "online", "the printer is watched all the same")
