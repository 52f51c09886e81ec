"""One connection's conversation with the server, without a connection: messages and time in, publications out.

hello → challenge → birth → head → batches. Whatever is not signed by a key that the fleet root certified is ignored and counted; whatever is late for
its connection is ignored, because its nonce does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_agent.clock import Clock
from edge_agent.outbox import Outbox
from protocols.contract import certs, messages, topics, wire
from protocols.contract import envelope as cose
from protocols.contract.limits import CONTROL_MAX_BYTES, NO_ACK_FAULT_S, WINDOW_BATCHES, WINDOW_BYTES
from protocols.errors import ProtocolError

GREETING_RETRY_S = (2.0, 4.0, 8.0, 15.0, 30.0)
"""Between hellos without an answer; the last one repeats. Chosen: a restarted ingest says so itself, this is the net below it."""
RESEND_S = 15.0
"""Without any acknowledgement while batches are under way: send again from the oldest."""
REGREET_S = 60.0
"""Without any acknowledgement: greet again."""
BACK_INTERVAL_S = 0.5
"""At most one return to the oldest batch in this time, since each of a window's batches may ask for it."""
UNSOLICITED = bytes(8)
"""Connection id of a challenge that nobody asked for: the server has forgotten this connection."""


class Phase(Enum):
    GREETING = auto()
    BORN = auto()
    SENDING = auto()


@dataclass(frozen=True)
class Publish:
    kind: str
    payload: bytes


@dataclass
class Counters:
    """For diagnosis: what was ignored, and why."""

    not_authentic: int = 0
    not_ours: int = 0


class Inbox(Protocol):
    """Who takes orders and desired states, and says which were seen. `order` and `desired` raise OutboxFull; then the server sends again."""

    def connected(self) -> None: ...
    def keys(self, certificates: tuple[bytes, ...]) -> None: ...
    def order(self, raw: bytes) -> None: ...
    def desired(self, raw: bytes) -> None: ...
    def counters(self) -> tuple[int, int]:
        """(highest seen, of the desired state that holds)"""
        ...


class Conversation:
    """`now_s` is any monotone clock, the same one in every call."""

    def __init__(
        self,
        outbox: Outbox,
        clock: Clock,
        root: Ed25519PublicKey,
        agent_version: str,
        boot_id: bytes,
        open_faults: Callable[[], tuple[messages.OpenFault, ...]],
        random_bytes: Callable[[int], bytes] = os.urandom,
        on_server_time: Callable[[int], None] = lambda _ms: None,
        inbox: Inbox | None = None,
    ) -> None:
        self._outbox, self._clock, self._root = outbox, clock, root
        self._version, self._boot_id, self._open_faults = agent_version, boot_id, open_faults
        self._random, self._on_server_time = random_bytes, on_server_time
        self._inbox = inbox
        self._order_keys: tuple[bytes, ...] = ()
        self._server_keys: dict[bytes, Ed25519PublicKey] = {}
        self.counters = Counters()
        self.phase = Phase.GREETING
        self._connection = b""
        self._nonce = b""
        self._hellos = 0
        self._retry_at = 0.0
        self._sent_seq = 0
        self._listed: frozenset[bytes] | None = None
        self._waiting_since: float | None = None
        """Since when batches lie here that the server could have acknowledged; starts anew with each acknowledgement."""
        self._back_at: float | None = None
        self._last_back = float("-inf")

    # -- inputs --------------------------------------------------------------------------------------------------------

    def connected(self, now_s: float) -> list[Publish]:
        """A new connection stands and its subscriptions are made."""
        self._hellos, self._waiting_since = 0, None
        self._order_keys = ()
        if self._inbox is not None:
            self._inbox.connected()
        self._note_waiting(now_s)
        return self._greet(now_s)

    def received(self, kind: str, payload: bytes, now_s: float) -> list[Publish]:
        """A message of `down/<kind>` or, with kind `state`, of the server's own topic."""
        try:
            match kind:
                case "challenge":
                    return self._on_challenge(payload, now_s)
                case "head":
                    return self._on_head(payload, now_s)
                case "ack":
                    return self._on_ack(payload, now_s)
                case "state":
                    return self._greet(now_s)
                case "order" if self._inbox is not None:
                    self._inbox.order(payload)
                    return []
                case "desired" if self._inbox is not None:
                    self._inbox.desired(payload)
                    return []
        except ProtocolError:
            self.counters.not_authentic += 1
            return []
        self.counters.not_ours += 1
        return []

    def tick(self, now_s: float) -> list[Publish]:
        """Time has passed, or the outbox has something new."""
        self._note_waiting(now_s)
        if self.phase is not Phase.SENDING:
            return self._greet(now_s) if now_s >= self._retry_at else []
        if self._sent_seq and self._waiting_since is not None:
            waiting_s = now_s - self._waiting_since
            if waiting_s >= REGREET_S and now_s >= self._retry_at:
                return self._greet(now_s)
            if waiting_s >= RESEND_S and now_s - self._last_back >= RESEND_S:
                self._go_back(now_s)
        if self._back_at is not None and now_s >= self._back_at:
            self._go_back(now_s)
        return self._fill_window(now_s)

    def wake_in_s(self, now_s: float) -> float:
        """When `tick` is due at the latest."""
        if self.phase is not Phase.SENDING:
            return max(0.0, self._retry_at - now_s)
        if self._back_at is not None:
            return max(0.0, self._back_at - now_s)
        return 5.0

    def no_ack(self, now_s: float) -> bool:
        """Connected and waiting for an acknowledgement for more than five minutes: the fault NET.NO_ACK."""
        return self._waiting_since is not None and now_s - self._waiting_since >= NO_ACK_FAULT_S

    # -- inside --------------------------------------------------------------------------------------------------------

    def _greet(self, now_s: float) -> list[Publish]:
        self.phase = Phase.GREETING
        self._connection = self._random(8)
        self._nonce = b""
        self._retry_at = now_s + GREETING_RETRY_S[min(self._hellos, len(GREETING_RETRY_S) - 1)]
        self._hellos += 1
        return [Publish("hello", wire.dump(messages.Hello(connection=self._connection)))]

    def _on_challenge(self, payload: bytes, now_s: float) -> list[Publish]:
        envelope = cose.parse(payload, CONTROL_MAX_BYTES)
        # The certificate travels inside: read it first, believe nothing else before the signature holds under it.
        claimed = wire.read(envelope.payload, messages.Challenge)
        cert = certs.open_server_key_cert(claimed.certificate, self._root, self._outbox.fleet)
        key = Ed25519PublicKey.from_public_bytes(cert.public_key)
        cose.verify(envelope, key, messages.CHALLENGE_CONTEXT, self._outbox.fleet, self._outbox.terminal)
        if cert.kid != envelope.kid:
            raise cose.EnvelopeError("certificate", "the challenge is signed by another key than the one it brings")
        self._server_keys = {cert.kid: key}
        if claimed.connection not in (self._connection, UNSOLICITED):
            self.counters.not_ours += 1
            return []
        if claimed.connection == self._connection:
            # An answer to our own random number, so it is fresh: time and list of order keys are those of now.
            self._on_server_time(claimed.server_ms)
            self._order_keys = claimed.order_keys
            if self._inbox is not None:
                self._inbox.keys(claimed.order_keys)
        elif self._inbox is not None and claimed.order_keys != self._order_keys:
            # Perhaps an old challenge that somebody kept, with a key that was withdrawn since: ask for a fresh one.
            return self._greet(now_s)
        return self._give_birth(claimed.nonce, now_s)

    def _give_birth(self, nonce: bytes, now_s: float) -> list[Publish]:
        held, more = self._outbox.held()
        listed = {span.stream for span in held}
        self._listed = frozenset(listed) if more else None
        seen, desired = self._inbox.counters() if self._inbox is not None else (0, 0)
        birth = messages.Birth(
            nonce=nonce,
            agent=self._version,
            boot_no=self._outbox.boot_no,
            boot_id=self._boot_id,
            stream=self._outbox.stream,
            wall_ms=max(0, self._clock.wall_ms()),
            boot_ms=self._clock.boot_ms(),
            quality=self._clock.quality(),
            held=held,
            more=more,
            faults=self._open_faults()[:128],
            command_counter=seen,
            desired_counter=desired,
        )
        self.phase, self._nonce = Phase.BORN, nonce
        self._retry_at = now_s + GREETING_RETRY_S[-2]
        signed = wire.seal(birth, self._outbox.signer, messages.BIRTH_CONTEXT, self._outbox.fleet, self._outbox.terminal)
        return [Publish("birth", signed)]

    def _on_head(self, payload: bytes, now_s: float) -> list[Publish]:
        head = self._open(payload, messages.HEAD_CONTEXT, messages.Head)
        if head.nonce != self._nonce or self.phase is not Phase.BORN:
            self.counters.not_ours += 1
            return []
        self._outbox.apply_head(head)
        self.phase, self._hellos = Phase.SENDING, 1
        self._sent_seq, self._back_at = 0, None
        return self._fill_window(now_s)

    def _on_ack(self, payload: bytes, now_s: float) -> list[Publish]:
        ack = self._open(payload, messages.ACK_CONTEXT, messages.Ack)
        if ack.nonce != self._nonce or self.phase is not Phase.SENDING:
            # Of another connection, perhaps from before a restore: it releases nothing. If we have missed a challenge, greet again.
            self.counters.not_ours += 1
            if self.phase is Phase.SENDING and now_s >= self._retry_at:
                return self._greet(now_s)
            return []
        done = self._outbox.apply_ack(ack)
        if done.count:
            self._waiting_since = None
        if done.go_back and self._back_at is None:
            self._back_at = max(now_s, self._last_back + BACK_INTERVAL_S)
        return self.tick(now_s)

    def _note_waiting(self, now_s: float) -> None:
        if not self._outbox.depth():
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now_s

    def _go_back(self, now_s: float) -> None:
        self._sent_seq, self._back_at, self._last_back = 0, None, now_s

    def _fill_window(self, now_s: float) -> list[Publish]:
        under_way, under_way_bytes = self._outbox.under_way(self._sent_seq)
        room = WINDOW_BATCHES - under_way
        if room <= 0 or under_way_bytes >= WINDOW_BYTES:
            return []
        out: list[Publish] = []
        for item in self._outbox.unacknowledged(self._sent_seq, max_count=room, max_bytes=WINDOW_BYTES - under_way_bytes):
            if self._listed is not None and item.stream not in self._listed:
                # Not listed by this birth: its turn comes with the next one.
                return out if out or under_way else self._greet(now_s)
            out.append(Publish("loss" if item.kind == "loss" else "batch", item.envelope))
            self._sent_seq = item.seq
        return out

    def _open(self, payload: bytes, context: str, kind: type[wire.T]) -> wire.T:
        envelope = cose.parse(payload, CONTROL_MAX_BYTES)
        key = self._server_keys.get(envelope.kid)
        if key is None:
            raise cose.EnvelopeError("unknownKey", "not signed by the key of this connection's challenge")
        opened = cose.verify(envelope, key, context, self._outbox.fleet, self._outbox.terminal)
        return wire.read(opened.payload, kind)


def kind_of_topic(topic: str, terminal: str) -> str | None:
    """`challenge`, `head`, `ack` or `state`; None for what is not for us."""
    if topic == topics.SERVER_STATE:
        return "state"
    prefix, _, kind = topic.rpartition("/")
    return kind if prefix == topics.down(terminal, "").rstrip("/") and kind in topics.DOWN_KINDS else None
