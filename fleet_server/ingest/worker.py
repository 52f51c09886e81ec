"""The ingest process: one connection to the broker, one writer to the database."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiomqtt

from fleet_server.ingest.desk import Answer, Desk, Incoming
from fleet_server.ingest.turns import Turns
from protocols.contract import messages, topics, wire

log = logging.getLogger(__name__)

RECONNECT_S = 0.1
"""The broker is on the same machine or near; terminals wait for us."""
RECOVER_S = 1.0
BUNDLE_MESSAGES = 512
KEEPALIVE_S = 30
HOUSEKEEPING_S = 0.5
DELIVERY_S = 0.2
"""Between looks for new orders; a look without news is one PRAGMA."""


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None
    client_id: str = "ingest"


class _Client(aiomqtt.Client):
    """Gives up at once when the connection ends before the broker has answered; aiomqtt waits its whole timeout for what cannot come any more."""

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttCodeError(reason_code, "The broker hung up without an answer"))
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)


class Worker:
    """Runs until cancelled. `housekeeping` does a little work between messages and says whether there is more."""

    def __init__(
        self,
        address: BrokerAddress,
        desk: Desk,
        housekeeping: Callable[[], bool],
        on_broker: Callable[[bool], None],
    ) -> None:
        self._address, self._desk = address, desk
        self._housekeeping, self._on_broker = housekeeping, on_broker
        self._epoch = os.urandom(8)
        self._client: aiomqtt.Client | None = None

    async def run(self) -> None:
        # If either ends, so does the process, and the supervisor starts it again: presence must not stop unnoticed.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_house())
            tasks.create_task(self._deliver())
            tasks.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            try:
                await self._one_connection()
            except aiomqtt.MqttError as err:
                log.warning("no broker: %s", err)
            self._on_broker(False)
            await asyncio.sleep(RECONNECT_S)

    async def _one_connection(self) -> None:
        queue = Turns()

        class OwnQueue:
            """Gives aiomqtt our queue, so that a whole bundle can be taken at once."""

            def __new__(cls, *_args: object, **_kwargs: object) -> asyncio.Queue[aiomqtt.Message]:  # type: ignore[misc]
                return queue

        async with _Client(
            self._address.host,
            self._address.port,
            identifier=self._address.client_id,
            clean_session=True,
            keepalive=KEEPALIVE_S,
            tls_context=self._address.tls() if self._address.tls else None,
            queue_type=OwnQueue,  # type: ignore[arg-type]
            max_inflight_messages=1024,
        ) as client:
            client.pending_calls_threshold = 100_000
            await client.subscribe(f"{topics.ROOT}/+/+/up/#", qos=1)
            self._on_broker(True)
            await client.publish(topics.SERVER_STATE, wire.dump(messages.ServerState(epoch=self._epoch)))
            self._client = client
            try:
                async for first in client.messages:
                    bundle = [_incoming(first)]
                    while len(bundle) < BUNDLE_MESSAGES and not queue.empty():
                        bundle.append(_incoming(queue.get_nowait()))
                    await self._handle(client, bundle)
                    self._count_dropped(queue)
            finally:
                self._client = None

    async def _handle(self, client: aiomqtt.Client, bundle: list[Incoming]) -> None:
        while bundle:
            try:
                taken, answers = self._desk.handle(bundle)
            except sqlite3.OperationalError as err:
                # A full disk or a lock held too long: nothing was committed or acknowledged, so the terminals send it again.
                log.error("cannot store, leaving %d messages to be sent again: %s", len(bundle), err)
                await asyncio.sleep(RECOVER_S)
                return
            del bundle[:taken]
            await self._publish(client, answers)

    def _count_dropped(self, queue: Turns) -> None:
        """Before the line of a sender is empty there is a next bundle, so nothing stays uncounted for long."""
        if queue.dropped:
            try:
                self._desk.count_dropped(queue.dropped)
            except sqlite3.OperationalError as err:
                log.warning("dropped messages will be counted later: %s", err)
            else:
                queue.dropped.clear()

    async def _publish(self, client: aiomqtt.Client, answers: list[Answer]) -> None:
        """QoS 0: an answer that is lost is asked for again by the terminal, and nothing here waits for slow readers."""
        for answer in answers:
            await client.publish(answer.topic, answer.payload, qos=0)
        _go_on()
        await asyncio.sleep(0)

    async def _deliver(self) -> None:
        """Orders and desired states, as soon as they are signed or their terminal has greeted."""
        while True:
            more = False
            client = self._client
            if client is not None:
                try:
                    answers, more = self._desk.deliver()
                    await self._publish(client, answers)
                except (sqlite3.OperationalError, aiomqtt.MqttError) as err:
                    # What was not published is owed again at the next greeting, or after a while without an answer.
                    log.warning("orders will be delivered later: %s", err)
            await asyncio.sleep(0.005 if more else DELIVERY_S)

    async def _keep_house(self) -> None:
        while True:
            more = self._housekeeping()
            await asyncio.sleep(0.005 if more else HOUSEKEEPING_S)


def _go_on() -> None:
    """Raise the cancellation that Python 3.11's `wait_for`, which aiomqtt uses, forgets when the awaited result comes at the same moment."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _incoming(message: aiomqtt.Message) -> Incoming:
    return Incoming(str(message.topic), message.payload)
