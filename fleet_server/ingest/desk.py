"""What arrives from terminals, handled in bundles: one transaction, one commit, then the answers. Knows no broker.

Greetings live in memory: after a restart every terminal is asked to greet again, and a batch from a connection that has not greeted is stored, but
answered with a challenge instead of an acknowledgement.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from fleet_server.channel import abandon, transact
from fleet_server.errors import place_of
from fleet_server.evidence.ledger import STRANGER, Greeting, HeadMoved, Ledger
from fleet_server.ingest.delivery import Delivery
from protocols.contract import envelope as cose
from protocols.contract import messages, topics, wire
from protocols.contract.limits import ACKS_PER_MESSAGE, CONTROL_MAX_BYTES
from protocols.errors import ProtocolError

log = logging.getLogger(__name__)

BUNDLE_S = 0.05
"""Longest transaction (architecture decision): other writers wait no longer than this."""
HINT_MAX_BYTES = 256
UNSOLICITED = bytes(8)
HEAD_RETRIES = 5
BIRTHS_PER_GREETING = 64
"""One birth lists 400 streams: far more than any disk holds."""


@dataclass(frozen=True, slots=True)
class Incoming:
    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    topic: str
    payload: bytes


class Presence(Protocol):
    """Where sightings of a terminal go; must not touch rows that business logic locks."""

    def heard(self, terminal: str, by: str, now_ms: int, *, depth: int | None = None, oldest_ms: int | None = None) -> None: ...
    def born(self, conn: sqlite3.Connection, terminal: str, birth: messages.Birth, now_ms: int) -> None: ...


@dataclass
class Tally:
    """Since start: what `fleet_server.ingest` reports."""

    batches: int = 0
    records: int = 0
    quarantined: int = 0
    births: int = 0
    poison: int = 0
    """Messages that made us fail."""


class Desk:
    def __init__(
        self,
        ledger: Ledger,
        signer: cose.Signer,
        certificate: bytes,
        presence: Presence,
        wall_ms: Callable[[], int],
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._ledger, self._signer, self._certificate = ledger, signer, certificate
        self._presence, self._wall_ms, self._random = presence, wall_ms, random_bytes
        self._delivery = Delivery(ledger.conn, wall_ms)
        self._greetings: dict[str, Greeting] = {}
        self._reached = 0
        self.tally = Tally()

    def handle(self, bundle: Sequence[Incoming]) -> tuple[int, list[Answer]]:
        """Take as many messages of `bundle` as fit into one short transaction; returns (how many, answers to publish now).

        Raises sqlite3.OperationalError if nothing can be stored at the moment. A message that makes us fail in any other way is set aside alone.
        """
        for _ in range(HEAD_RETRIES):
            try:
                return self._handle_once(bundle)
            except HeadMoved:
                log.info("another worker advanced a stream; reading again")
            except sqlite3.OperationalError:
                raise
            except Exception as err:  # noqa: BLE001 - whatever one sender made us do must not end the service to all others
                if self._reached == 1:
                    return self._set_aside(bundle[0], err)
                bundle = bundle[: self._reached - 1]
        return self._handle_once(bundle[:1])

    def _handle_once(self, bundle: Sequence[Incoming]) -> tuple[int, list[Answer]]:
        conn, deadline_s, taken = self._ledger.conn, time.monotonic() + BUNDLE_S, 0
        answers: list[Answer] = []
        acks: dict[str, list[messages.AckEntry]] = {}
        before = replace(self.tally)
        conn.execute("BEGIN IMMEDIATE")
        try:
            self._ledger.refresh()
            for message in bundle:
                taken += 1
                self._reached = taken
                self._take(message, answers, acks)
                if time.monotonic() >= deadline_s:
                    break
            answers.extend(self._acknowledgements(acks))
            conn.execute("COMMIT")
        except BaseException:
            abandon(conn)
            self._ledger.forget()
            self.tally = before
            raise
        return taken, answers

    def deliver(self) -> tuple[list[Answer], bool]:
        """What is to be published now of orders, desired states and new lists of keys, and whether there is more. Writes nothing."""
        now_ms = self._wall_ms()
        answers = [self._challenge(terminal, UNSOLICITED, now_ms) for terminal in self._delivery.rekeyed()]
        messages_, more = self._delivery.look()
        answers += [Answer(topics.down(one.terminal, one.kind), one.envelope) for one in messages_]
        return answers, more

    def count_dropped(self, dropped: Mapping[str, int]) -> None:
        """Messages by sender that came faster than they could be served: nobody has read them, and they are counted all the same."""
        now_ms = self._wall_ms()

        def count(_: sqlite3.Connection) -> None:
            self._ledger.refresh()
            for terminal, messages_dropped in dropped.items():
                self._ledger.count(terminal, "flood", messages_dropped, now_ms)

        transact(self._ledger.conn, count)

    def _set_aside(self, message: Incoming, err: Exception) -> tuple[int, list[Answer]]:
        """Keep the message that we cannot handle, unacknowledged: a later version may."""
        self.tally.poison += 1
        log.error(
            "a message could not be handled and was set aside", extra={"topic": message.topic[:120], "reason": place_of(err)}
        )
        try:
            terminal = topics.parse_up(message.topic).terminal
        except topics.TopicError:
            terminal = STRANGER
        self._greetings.pop(terminal, None)
        now_ms = self._wall_ms()
        transact(self._ledger.conn, lambda _: self._ledger.quarantine(terminal, message.topic, "poison", message.payload, now_ms))
        return 1, []

    def _take(self, message: Incoming, answers: list[Answer], acks: dict[str, list[messages.AckEntry]]) -> None:
        now_ms = self._wall_ms()
        try:
            topic = topics.parse_up(message.topic)
        except topics.TopicError:
            self._quarantine(STRANGER, message, "topic", now_ms)
            return
        match topic.kind:
            case "batch" | "loss":
                self._on_batch(topic, message, answers, acks, now_ms)
            case "hello":
                self._on_hello(topic.terminal, message, answers, now_ms)
            case "birth":
                self._on_birth(topic.terminal, message, answers, now_ms)
            case "hb" | "will":
                self._on_hint(topic, message, now_ms)

    def _on_batch(
        self,
        topic: topics.UpTopic,
        message: Incoming,
        answers: list[Answer],
        acks: dict[str, list[messages.AckEntry]],
        now_ms: int,
    ) -> None:
        greeting = self._greetings.get(topic.terminal)
        outcome = self._ledger.receive(topic.terminal, topic.kind, message.topic, message.payload, greeting, now_ms)
        if outcome.quarantined:
            self.tally.quarantined += 1
            return
        self._presence.heard(topic.terminal, "batch", now_ms)
        self.tally.batches += bool(outcome.stored)
        self.tally.records += outcome.stored
        if greeting is None:
            answers.append(self._challenge(topic.terminal, UNSOLICITED, now_ms))
        elif greeting.greeted and outcome.ack:
            acks.setdefault(topic.terminal, []).append(outcome.ack)

    def _on_hello(self, terminal: str, message: Incoming, answers: list[Answer], now_ms: int) -> None:
        refusal = self._ledger.refusal(terminal)
        if refusal is not None:
            self._quarantine(terminal, message, refusal, now_ms)
            return
        if len(message.payload) > HINT_MAX_BYTES:
            self._quarantine(terminal, message, "oversized", now_ms)
            return
        try:
            hello = wire.read(message.payload, messages.Hello)
        except wire.WireError:
            self._quarantine(terminal, message, "unreadable", now_ms)
            return
        answers.append(self._challenge(terminal, hello.connection, now_ms))

    def _challenge(self, terminal: str, connection: bytes, now_ms: int) -> Answer:
        greeting = self._greetings[terminal] = Greeting(self._random(16))
        self._delivery.left(terminal)
        challenge = messages.Challenge(
            connection=connection,
            nonce=greeting.nonce,
            version=messages.VERSION,
            server_ms=now_ms,
            certificate=self._certificate,
            order_keys=self._delivery.certificates(),
        )
        return self._answer(terminal, "challenge", challenge, messages.CHALLENGE_CONTEXT)

    def _on_birth(self, terminal: str, message: Incoming, answers: list[Answer], now_ms: int) -> None:
        try:
            opened = self._ledger.open(terminal, messages.BIRTH_CONTEXT, message.payload, CONTROL_MAX_BYTES)
            birth = wire.read(opened.payload, messages.Birth)
        except ProtocolError as err:
            self._quarantine(terminal, message, getattr(err, "reason", "unreadable"), now_ms)
            return
        greeting = self._greetings.get(terminal)
        if greeting is None or birth.nonce != greeting.nonce:
            # A birth of an earlier connection says nothing about this one.
            self._quarantine(terminal, message, "staleNonce", now_ms)
            return
        greeting.births += 1
        if greeting.births > BIRTHS_PER_GREETING:
            # Each is answered at length. Whoever wants more has to read what it was told: the next nonce stands behind it.
            self._ledger.count(terminal, "flood", 1, now_ms)
            answers.append(self._challenge(terminal, UNSOLICITED, now_ms))
            return
        greeting.spans = {held.stream: held for held in birth.held}
        greeting.birth = opened.raw
        self.tally.births += 1
        self._presence.born(self._ledger.conn, terminal, birth, now_ms)
        self._delivery.born(terminal, birth.command_counter, birth.desired_counter)
        head = messages.Head(nonce=birth.nonce, heads=self._ledger.heads(terminal, birth.held))
        answers.append(self._answer(terminal, "head", head, messages.HEAD_CONTEXT))

    def _on_hint(self, topic: topics.UpTopic, message: Incoming, now_ms: int) -> None:
        """Heartbeat and will are worth nothing as evidence: unreadable ones are dropped."""
        if len(message.payload) > HINT_MAX_BYTES:
            return
        try:
            beat = wire.read(message.payload, messages.Heartbeat)
        except wire.WireError:
            return
        by = "heartbeat" if topic.kind == "hb" else "will"
        self._presence.heard(topic.terminal, by, now_ms, depth=beat.depth, oldest_ms=beat.oldest_ms)

    def _quarantine(self, terminal: str, message: Incoming, reason: str, now_ms: int) -> None:
        self.tally.quarantined += 1
        self._ledger.quarantine(terminal, message.topic, reason, message.payload, now_ms)

    def _acknowledgements(self, acks: dict[str, list[messages.AckEntry]]) -> Iterable[Answer]:
        for terminal, entries in acks.items():
            nonce = self._greetings[terminal].nonce
            merged = merge_acks(entries)
            for start in range(0, len(merged), ACKS_PER_MESSAGE):
                ack = messages.Ack(nonce=nonce, entries=tuple(merged[start : start + ACKS_PER_MESSAGE]))
                yield self._answer(terminal, "ack", ack, messages.ACK_CONTEXT)

    def _answer(self, terminal: str, kind: str, message: wire.Wire, context: str) -> Answer:
        return Answer(topics.down(terminal, kind), wire.seal(message, self._signer, context, self._ledger.fleet, terminal))


def merge_acks(entries: Sequence[messages.AckEntry]) -> list[messages.AckEntry]:
    """Of a run of `UP_TO` in one stream only the last counts, and of several `BACK` one is enough; order is kept."""
    merged: list[messages.AckEntry] = []
    for entry in entries:
        if merged and entry.mode is not messages.AckMode.ALONE:
            last = merged[-1]
            if last.mode is entry.mode and last.stream == entry.stream and last.no <= entry.no:
                merged[-1] = entry
                continue
        merged.append(entry)
    return merged
