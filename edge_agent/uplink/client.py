"""MQTT 3.1.1 over mutual TLS on the agent's own loop: connects, subscribes, carries the conversation's publications, reconnects with backoff."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import aiomqtt

from edge_agent.outbox import Outbox, OutboxError
from edge_agent.uplink.conversation import Conversation, Publish, kind_of_topic
from protocols.contract import messages, topics, wire
from protocols.contract.limits import HEARTBEAT_S

log = logging.getLogger(__name__)

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
"""Chosen: 400 terminals coming back spread over a minute at worst, over half a second after a short break."""
KEEPALIVE_S = 45
CONNECT_TIMEOUT_S = 15.0

LinkReason = Literal["connected", "dns", "refused", "tls", "timeout", "closed", "notAuthorised", "noAck", "stopping"]


@dataclass(frozen=True, kw_only=True)
class UplinkSettings:
    """Where the broker is. `tls` makes a fresh context for each connection, so that a renewed certificate is used at the next one."""

    host: str
    port: int
    tls: Callable[[], ssl.SSLContext] | None
    heartbeat_s: float = HEARTBEAT_S
    backoff_first_s: float = BACKOFF_FIRST_S
    backoff_max_s: float = BACKOFF_MAX_S


class _Client(aiomqtt.Client):
    """Gives up at once when the connection ends before the broker has answered; aiomqtt waits its whole timeout for what cannot come any more."""

    def _on_disconnect(self, client: Any, userdata: Any, flags: Any, reason_code: Any, properties: Any = None) -> None:
        if not self._connected.done():
            self._connected.set_exception(aiomqtt.MqttCodeError(reason_code, "The broker hung up without an answer"))
            return
        super()._on_disconnect(client, userdata, flags, reason_code, properties)


class Uplink:
    """Owns the connection. `run` ends only when cancelled."""

    def __init__(
        self,
        settings: UplinkSettings,
        outbox: Outbox,
        conversation: Conversation,
        on_link: Callable[[Literal["up", "down"], LinkReason, int], None],
        rng: random.Random | None = None,
    ) -> None:
        self._settings, self._outbox, self._conversation = settings, outbox, conversation
        self._on_link = on_link
        self._rng = rng or random.Random()
        self._wake = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self.connected = False
        self.last_reason: LinkReason = "closed"

    def kick(self) -> None:
        """Something new lies in the outbox."""
        self._wake.set()

    def no_ack(self) -> bool:
        return self.connected and self._conversation.no_ack(time.monotonic())

    async def run(self) -> None:
        attempts = 0
        while True:
            reason: LinkReason
            started_s = time.monotonic()
            try:
                await self._one_connection(attempts)
                reason = "closed"
            except aiomqtt.MqttError as err:
                reason = _reason(err)
                log.info("uplink lost", extra={"terminal": self._outbox.terminal, "reason": reason})
            if self.connected:
                self.connected = False
                self._on_link("down", reason, attempts)
                attempts = 0
            self.last_reason = reason
            attempts = 0 if time.monotonic() - started_s > BACKOFF_MAX_S else attempts + 1
            limit = min(self._settings.backoff_max_s, self._settings.backoff_first_s * 2 ** min(max(attempts - 1, 0), 16))
            await asyncio.sleep(self._rng.uniform(0, limit))

    async def _one_connection(self, attempts: int) -> None:
        terminal = self._outbox.terminal
        client = _Client(
            self._settings.host,
            self._settings.port,
            identifier=terminal,
            clean_session=True,
            keepalive=KEEPALIVE_S,
            timeout=CONNECT_TIMEOUT_S,
            tls_context=self._settings.tls() if self._settings.tls else None,
            will=aiomqtt.Will(topics.up(terminal, "will"), self._heartbeat(), qos=1),
            max_inflight_messages=128,
        )
        client.pending_calls_threshold = 1_000  # a window of batches may be under way
        async with client:
            await client.subscribe([(topics.down(terminal, "+"), 1), (topics.SERVER_STATE, 0)])
            self.connected = True
            self.last_reason = "connected"
            self._on_link("up", "connected", attempts)
            # No TaskGroup: until Python 3.13 one whose task failed leaves its parent marked as cancelled, which `_go_on` would believe.
            tasks = [asyncio.ensure_future(work) for work in (self._receive(client), self._pump(client), self._beat(client))]
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (*tasks, *self._sending):
                    task.cancel()
                await asyncio.gather(*tasks, *self._sending, return_exceptions=True)

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            kind = kind_of_topic(str(message.topic), self._outbox.terminal)
            if kind is not None and isinstance(message.payload, bytes):
                if kind == "state":
                    # Everybody hears this at once; the challenges should not all fall due at once.
                    await asyncio.sleep(self._rng.uniform(0, 0.5))
                with contextlib.suppress(OutboxError):  # a full disk: the next acknowledgement or head says it again
                    self._publish(client, self._conversation.received(kind, message.payload, time.monotonic()))

    async def _pump(self, client: aiomqtt.Client) -> None:
        self._publish(client, self._conversation.connected(time.monotonic()))
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._conversation.wake_in_s(time.monotonic()) + 0.01):
                    await self._wake.wait()
            self._wake.clear()
            with contextlib.suppress(OutboxError):
                self._publish(client, self._conversation.tick(time.monotonic()))

    async def _beat(self, client: aiomqtt.Client) -> None:
        while True:
            await client.publish(topics.up(self._outbox.terminal, "hb"), self._heartbeat(), qos=0)
            _go_on()
            await asyncio.sleep(self._settings.heartbeat_s)

    def _heartbeat(self) -> bytes:
        return wire.dump(
            messages.Heartbeat(boot_no=self._outbox.boot_no, depth=self._outbox.depth(), oldest_ms=self._outbox.oldest_ms())
        )

    def _publish(self, client: aiomqtt.Client, publications: list[Publish]) -> None:
        """Hand publications to the client in order, without waiting: what counts is the server's own acknowledgement."""
        for item in publications:
            coroutine = client.publish(topics.up(self._outbox.terminal, item.kind), item.payload, qos=1, timeout=60)
            task = asyncio.get_running_loop().create_task(coroutine)
            self._sending.add(task)
            task.add_done_callback(self._published)

    def _published(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.exception()  # a lost connection is noticed by the receiver; the batch stays in the outbox


def _go_on() -> None:
    """Raise the cancellation that Python 3.11's `wait_for`, which aiomqtt uses, forgets when the awaited result comes at the same moment.

    For tasks without a task group of their own: 3.11's leaves the count of its parent's cancellations raised when a child fails.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _reason(err: aiomqtt.MqttError) -> LinkReason:
    """A word of the link record for whatever ended the connection."""
    chain: list[BaseException] = []
    cause: BaseException | None = err
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(item) for item in chain).lower()
    if any(isinstance(item, ssl.SSLEOFError | ssl.SSLZeroReturnError) for item in chain):
        return "closed"  # the other end left in the middle of the handshake: nothing is wrong with certificates
    if any(isinstance(item, ssl.SSLError) for item in chain) or "ssl" in text or "certificate" in text:
        return "tls"
    if "name or service" in text or "name resolution" in text or "nodename" in text:
        return "dns"
    if "refused" in text and "authori" not in text:
        return "refused"
    if "not authori" in text or "bad user" in text:
        return "notAuthorised"
    if "timed out" in text or "timeout" in text:
        return "timeout"
    return "closed"
