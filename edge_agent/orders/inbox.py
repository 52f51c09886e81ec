"""Owns what comes in: verifies envelopes under the keys of this connection's challenge, asks the rules, and makes the answer durable."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from edge_agent.clock import Clock
from edge_agent.orders import book as rules
from edge_agent.orders.book import Book, Entry, Reason, State, Strangers
from edge_agent.orders.keys import KeyRing
from edge_agent.outbox.errors import OutboxError
from protocols.contract import records

if TYPE_CHECKING:
    from edge_agent.orders.desired import DesiredKeeper
    from protocols.contract import envelope as cose

log = logging.getLogger(__name__)

BOOK_KEY = "orders.book"
_TOLD_ONCE = frozenset({"replayed", "stale", "counter"})
SAID_MAX = 512
"""Refusals remembered of one connection, so that each is told once."""


class Ledger(Protocol):
    """Facts and memory, durable together when it returns."""

    def capture(self, body: records.Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None: ...


class Memory(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


class BookKeeper:
    """The book, on stable storage before anybody acts on it. Every method raises OutboxFull and then nothing has changed."""

    def __init__(self, ledger: Ledger, memory: Memory) -> None:
        self._ledger, self._memory = ledger, memory
        self.book: Book = rules.load(memory.get(BOOK_KEY))

    def take(self, step: rules.Step) -> None:
        if step.told is not None:
            self._ledger.capture(step.told, urgent=True, memory={BOOK_KEY: rules.dump(step.book)})
        elif step.book is not self.book:
            self._memory.put(BOOK_KEY, rules.dump(step.book))
        self.book = step.book

    def move(self, entry: Entry, state: State, reason: Reason = "none", *, stream: bytes = b"", boot_id: bytes = b"") -> None:
        self.take(rules.move(self.book, entry, state, reason, stream=stream, boot_id=boot_id))


class Inbox:
    """The receiving end of one terminal's `down/order` and `down/desired`. `on_order` is called after an order was taken."""

    def __init__(
        self,
        *,
        keeper: BookKeeper,
        desired: DesiredKeeper,
        ledger: Ledger,
        clock: Clock,
        root: Ed25519PublicKey,
        fleet: str,
        terminal: str,
        trusted_now_ms: Callable[[], int],
        slots: Callable[[], frozenset[str]],
        on_order: Callable[[], None] = lambda: None,
        on_keys: Callable[[tuple[bytes, ...]], None] = lambda _certificates: None,
    ) -> None:
        self._keeper, self._desired, self._ledger, self._clock = keeper, desired, ledger, clock
        self._fleet, self._terminal = fleet, terminal
        self._now_ms, self._slots, self._on_order, self._on_keys = trusted_now_ms, slots, on_order, on_keys
        self.ring = KeyRing(root, fleet)
        self._said: set[tuple[bytes, str]] = set()
        self._strangers, self._desired_strangers = Strangers(), Strangers()

    def connected(self) -> None:
        """A new connection: its challenge will list keys anew."""
        self.ring.forget()
        self._said.clear()

    def keys(self, certificates: Sequence[bytes]) -> None:
        """What the challenge of this connection lists."""
        self.ring.take(certificates)
        with contextlib.suppress(OutboxError):  # only the word for a refusal depends on it
            self._keeper.take(rules.Step(rules.with_kids(self._keeper.book, self.ring.keys)))
        self._on_keys(self.ring.certificates)

    def counters(self) -> tuple[int, int]:
        """(highest seen of any kind, of the desired state that is held), for the birth."""
        return max(self._keeper.book.highest, self._desired.seen), self._desired.held

    def order(self, raw: bytes) -> None:
        """Raises OutboxFull; then nothing was taken, and the server sends it again."""
        if not self.ring.listed:
            return  # nobody can be believed yet; whatever is still valid comes after the birth
        from protocols.contract import envelope as cose
        from protocols.contract import orders, wire

        try:
            order = orders.open_order(raw, self.ring.keys, self._fleet, self._terminal)
            step = rules.admit(self._keeper.book, order, now_ms=self._now_ms(), slots=self._slots())
        except cose.EnvelopeError as err:
            self._strangers.count(self._why(err, raw, orders.ORDER_CONTEXT))
        except wire.WireError:
            self._strangers.count("unreadable")
        else:
            if step.told is not None and step.told.reason in _TOLD_ONCE and self._said_before(order.id, step.told.reason):
                step = rules.Step(step.book)
            self._keeper.take(step)
            if step.told is not None and step.told.state == "received":
                self._on_order()
            return
        self.tell_strangers()

    def desired(self, raw: bytes) -> None:
        """Raises OutboxFull; then the state before holds, and the server sends it again."""
        if not self.ring.listed:
            return
        from protocols.contract import envelope as cose
        from protocols.contract import orders, wire

        try:
            desired = orders.open_desired(raw, self.ring.keys, self._fleet, self._terminal)
        except cose.EnvelopeError as err:
            self._desired_strangers.count(self._why(err, raw, orders.DESIRED_CONTEXT))
        except wire.WireError:
            self._desired_strangers.count("unreadable")
        else:
            certificate = self.ring.certificate(cose.parse(raw, len(raw)).kid)
            repeated = desired.counter <= self._desired.held
            if repeated and (self._desired.holds(raw) or self._said_before(raw[-64:], "desired")):
                return
            self._desired.take(desired, raw, certificate)
            return
        self.tell_strangers()

    def tell_strangers(self) -> None:
        """Sum up what was not authentic, once an hour at most; called now and then, and at the end."""
        boot_ms = self._clock.boot_ms()
        try:
            if due := self._strangers.due(boot_ms):
                self._ledger.capture(records.Order(state="refused", reason=due[0], count=due[1]))
                self._strangers.told(boot_ms)
            if due := self._desired_strangers.due(boot_ms):
                reason = due[0]
                assert reason in ("notAuthentic", "otherTerminal", "withdrawnKey", "unreadable")
                self._ledger.capture(records.Desired(counter=0, state="refused", reason=reason, count=due[1]))
                self._desired_strangers.told(boot_ms)
        except OutboxError:
            log.warning("no space to tell of orders that were not authentic")

    def _why(self, err: cose.EnvelopeError, raw: bytes, context: str) -> Reason:
        """A key that was listed once is a withdrawn one, a signature that holds for a neighbour is that one's; anything else is nobody's."""
        from protocols.contract import envelope as cose
        from protocols.contract import orders

        if err.reason == "unknownKey":
            return "withdrawnKey" if cose.parse(raw, len(raw)).kid in self._keeper.book.kids else "notAuthentic"
        if err.reason == "signature" and orders.addressee(raw, self.ring.keys, self._fleet, context) is not None:
            return "otherTerminal"
        return "notAuthentic"

    def _said_before(self, what: bytes, word: str) -> bool:
        """Whether this was refused on this connection already."""
        if (what, word) in self._said or len(self._said) >= SAID_MAX:
            return True
        self._said.add((what, word))
        return False
