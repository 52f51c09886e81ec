"""Many agents' way to the broker in one process: outbox, conversation and uplink of each, or bare MQTT clients in their place.

Run with a file that says what to do. Talks in lines: `ready` when everybody is in; at each line it is sent, it says what happened since the last one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import aiomqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_agent.clock import SystemClock
from edge_agent.outbox import Outbox
from edge_agent.uplink import Conversation, Uplink, UplinkSettings
from edge_agent.uplink.conversation import Phase
from fleet_server.authority.authority import Ed25519Signer
from protocols.contract import topics
from tests.bench.stage import FLEET, client_context

LOOK_EVERY_S = 0.01


class Agent:
    """The uplink half of an agent, as the supervisor composes it."""

    def __init__(self, order: dict[str, Any], item: dict[str, Any]) -> None:
        signer = Ed25519Signer(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(item["key"])))
        clock = SystemClock()
        outbox = Outbox(item["spool"], signer, FLEET, item["id"], clock, durable=False)
        outbox.start_stream(bytes(range(16)))
        root = Ed25519PublicKey.from_public_bytes(bytes.fromhex(order["root"]))
        self.conversation = Conversation(outbox, clock, root, "0.1.0", bytes(range(16)), tuple)
        settings = UplinkSettings(
            host="127.0.0.1", port=order["port"], tls=lambda: client_context(Path(order["ca"]), Path(item["tls"]))
        )
        self.uplink = Uplink(settings, outbox, self.conversation, self._on_link)
        self.connected_s = self.lost_s = 0.0
        self.task = asyncio.create_task(self.uplink.run())

    def _on_link(self, state: str, *_: object) -> None:
        if state == "up":
            self.connected_s = time.monotonic()
        else:
            self.lost_s = time.monotonic()

    @property
    def greeted(self) -> bool:
        return self.uplink.connected and self.conversation.phase is Phase.SENDING


async def agents(order: dict[str, Any]) -> None:
    fleet = [Agent(order, item) for item in order["terminals"]]
    await _all_greeted(fleet)
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        await _until(lambda: not any(agent.uplink.connected for agent in fleet))
        await _all_greeted(fleet)
        now_s = time.monotonic()
        print(json.dumps({"connected_s": sorted(agent.connected_s for agent in fleet), "greeted_s": now_s}), flush=True)
    for agent in fleet:
        agent.task.cancel()
    await asyncio.gather(*(agent.task for agent in fleet), return_exceptions=True)


async def _all_greeted(fleet: list[Agent]) -> None:
    await _until(lambda: all(agent.greeted for agent in fleet))


async def _until(look: Any) -> None:
    while not look():
        await asyncio.sleep(LOOK_EVERY_S)


async def bare(order: dict[str, Any]) -> None:
    """The same library and the same certificates, nothing else: connect and subscribe, all at once."""
    contexts = [client_context(Path(order["ca"]), Path(item["tls"])) for item in order["terminals"]]
    print("ready", flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        leave = asyncio.Event()
        done: list[float] = []

        async def one(item: dict[str, Any], context: Any, leave: asyncio.Event = leave, done: list[float] = done) -> None:
            async with aiomqtt.Client(
                "127.0.0.1", order["port"], identifier=item["id"], tls_context=context, timeout=60
            ) as client:
                await client.subscribe(topics.down(item["id"], "+"), qos=1)
                done.append(time.monotonic())
                await leave.wait()

        started_s = time.monotonic()
        tasks = [asyncio.create_task(one(item, context)) for item, context in zip(order["terminals"], contexts, strict=True)]
        await _until(lambda done=done, tasks=tasks: len(done) == len(tasks) or any(task.done() for task in tasks))
        leave.set()
        await asyncio.gather(*tasks)
        print(json.dumps({"started_s": started_s, "connected_s": sorted(done)}), flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    what = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    asyncio.run({"agents": agents, "bare": bare}[what["mode"]](what))
