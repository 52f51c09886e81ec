"""Owns which orders are known, what state each is in, and whether a new one is taken. Pure: time, inventory and orders are passed in.

Every transition gives a new book and the record that tells it, so that both can be made durable in one transaction before the next step is done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cbor2
import msgspec

from protocols.contract import records
from protocols.contract.limits import COUNTER_STEP_MAX
from protocols.contract.wire import WireError

if TYPE_CHECKING:
    from protocols.contract import orders

Kind = Literal["selfTest", "restart", "pullLogs", "cancel", "unknown"]
State = Literal["received", "waiting", "running", "done", "failed", "refused", "expired", "cancelled"]
Reason = Literal[
    "none", "session", "replayed", "stale", "counter", "expired", "otherTerminal", "notAuthentic", "withdrawnKey", "unknownKind", "unreadable",
    "notApproved", "noSlot", "unsupported", "inUse", "device", "timeout", "interrupted", "noSpace", "upload", "noHook", "ordered",
]  # fmt: skip

UNFINISHED = frozenset({"received", "waiting", "running"})
REMEMBER_MS = 24 * 3600 * 1000
"""Ids are known until so long after their expiry (O-210)."""
MAX_UNFINISHED = 128
"""Chosen: more than an operator ever has under way at one terminal; the book is written at each step."""
MAX_KIDS = 16


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One order. `body` is kept while it is unfinished; `stream` and `boot_id` say in which run it began."""

    id: bytes
    counter: int
    content: bytes
    kind: Kind
    state: State
    reason: Reason
    expires_ms: int
    slot: str | None = None
    body: bytes = b""
    stream: bytes = b""
    boot_id: bytes = b""

    @property
    def finished(self) -> bool:
        return self.state not in UNFINISHED


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about orders that must survive a restart. `kids`: keys that were listed once, newest last."""

    highest: int = 0
    entries: tuple[Entry, ...] = ()
    kids: tuple[bytes, ...] = ()

    def find(self, order: bytes) -> Entry | None:
        return next((entry for entry in self.entries if entry.id == order), None)

    def unfinished(self) -> list[Entry]:
        """By counter."""
        return sorted((entry for entry in self.entries if not entry.finished), key=lambda entry: entry.counter)


@dataclass(frozen=True, slots=True)
class Step:
    """A new book, and the record of what changed; None if there is nothing to tell."""

    book: Book
    told: records.Order | None = None


def dump(book: Book) -> bytes:
    return msgspec.msgpack.encode(book)


def load(raw: bytes | None) -> Book:
    """The kept book; an empty one if there is none or a newer version wrote what this one cannot read."""
    if raw is None:
        return Book()
    try:
        return msgspec.msgpack.decode(raw, type=Book)
    except msgspec.MsgspecError:
        return Book()


def content_of(order: orders.Order) -> bytes:
    """What makes two envelopes the same order: everything but counter and times, which a server changes when it signs an order again.

    WireError for a body with values that no order has: a decoder knows more kinds of things than an encoder takes back.
    """
    said = [order.kind, order.body, order.by, order.approved_by]
    try:
        return hashlib.sha256(cbor2.dumps(said, canonical=True)).digest()
    except (cbor2.CBOREncodeError, ValueError, TypeError, OverflowError, RecursionError):
        raise WireError("an order with values of another kind") from None


def admit(book: Book, order: orders.Order, *, now_ms: int, slots: Iterable[str]) -> Step:
    """Take an authentic order, or refuse it. A stale one is not remembered: it may come again under a higher counter (O-213)."""
    if order.counter > book.highest + COUNTER_STEP_MAX:
        return Step(book, _told(order, "refused", "counter"))
    known, content = book.find(order.id), content_of(order)
    if known is not None:
        # The same book where nothing is new, so that a flood of repeats writes nothing.
        seen = book if order.counter <= book.highest else msgspec.structs.replace(book, highest=order.counter)
        if known.content == content:
            return Step(seen)
        return Step(seen, _told(order, "refused", "replayed"))
    if order.counter <= book.highest:
        return Step(book, _told(order, "refused", "stale"))
    reason, slot = _objection(book, order, now_ms, frozenset(slots))
    state: State = "received" if reason == "none" else "refused"
    entry = Entry(
        id=order.id,
        counter=order.counter,
        content=content,
        kind=_kind(order),
        state=state,
        reason=reason,
        expires_ms=order.expires_ms,
        slot=slot,
        body=cbor2.dumps(order.body) if state == "received" else b"",
    )
    kept = (*(old for old in book.entries if not old.finished or now_ms < old.expires_ms + REMEMBER_MS), entry)
    return Step(msgspec.structs.replace(book, highest=order.counter, entries=kept), _told_of(entry))


def _objection(book: Book, order: orders.Order, now_ms: int, slots: frozenset[str]) -> tuple[Reason, str | None]:
    """Why it is not taken, and the slot it names."""
    from protocols.contract import orders as contract

    if now_ms >= order.expires_ms:
        return "expired", None
    try:
        body = contract.body_of(order)
    except WireError:
        return "unreadable", None
    if body is None:
        return "unknownKind", None
    slot = body.slot if isinstance(body, contract.SelfTest) else None
    if contract.needs_two(body) and not contract.approved(order):
        return "notApproved", slot
    if slot is not None and slot not in slots:
        return "noSlot", slot
    if sum(not entry.finished for entry in book.entries) >= MAX_UNFINISHED:
        return "noSpace", slot
    return "none", slot


def move(book: Book, entry: Entry, state: State, reason: Reason = "none", *, stream: bytes = b"", boot_id: bytes = b"") -> Step:
    """Another state for one order. What is finished lets its body go."""
    moved = msgspec.structs.replace(
        entry, state=state, reason=reason, stream=stream or entry.stream, boot_id=boot_id or entry.boot_id
    )
    if moved.finished:
        moved = msgspec.structs.replace(moved, body=b"")
    entries = tuple(moved if one.id == entry.id else one for one in book.entries)
    return Step(msgspec.structs.replace(book, entries=entries), _told_of(moved))


def body_of(entry: Entry) -> orders.OrderBody:
    """The typed body of an unfinished order, which was checked when it came."""
    from protocols.contract import orders as contract
    from protocols.contract import wire

    body: orders.OrderBody = wire.convert(wire.load(entry.body), contract.KINDS[entry.kind])
    return body


def after_restart(entry: Entry, body: orders.OrderBody, *, stream: bytes, boot_id: bytes) -> tuple[State, Reason] | None:
    """How an order that was running ends at the agent's next start (O-209); None for one that was not."""
    from protocols.contract import orders as contract

    if entry.state != "running":
        return None
    if isinstance(body, contract.Restart):
        if body.what == "agent" and entry.stream != stream:
            return "done", "none"
        if body.what == "host" and entry.boot_id != boot_id:
            return "done", "none"
    return "failed", "interrupted"


def with_kids(book: Book, kids: Iterable[bytes]) -> Book:
    """Remember keys that are listed now."""
    new = [kid for kid in kids if kid not in book.kids]
    return msgspec.structs.replace(book, kids=(*book.kids, *new)[-MAX_KIDS:]) if new else book


def _kind(order: orders.Order) -> Kind:
    from protocols.contract import orders as contract

    return order.kind if order.kind in contract.KINDS else "unknown"  # type: ignore[return-value]  # the keys are those words


def _told(order: orders.Order, state: State, reason: Reason) -> records.Order:
    return records.Order(id=order.id, counter=order.counter, kind=_kind(order), state=state, reason=reason)


def _told_of(entry: Entry) -> records.Order:
    return records.Order(
        id=entry.id, counter=entry.counter, kind=entry.kind, state=entry.state, reason=entry.reason, slot=entry.slot
    )


class Strangers:
    """Sums up what was nobody's order, so that whoever sends garbage causes one record an hour, not one for each (O-202)."""

    EVERY_MS = 3_600_000

    def __init__(self) -> None:
        self._waiting: dict[Reason, int] = {}
        self._told_ms: int | None = None

    def count(self, reason: Reason) -> None:
        self._waiting[reason] = self._waiting.get(reason, 0) + 1

    def due(self, boot_ms: int) -> tuple[Reason, int] | None:
        """The most frequent reason and how many there were of all, if they may be told now."""
        if not self._waiting or (self._told_ms is not None and boot_ms - self._told_ms < self.EVERY_MS):
            return None
        return max(self._waiting, key=lambda reason: self._waiting[reason]), sum(self._waiting.values())

    def told(self, boot_ms: int) -> None:
        self._waiting.clear()
        self._told_ms = boot_ms
