"""Greeting, acknowledgement and presence: everything on the wire that is not a batch.

Order on one connection: hello → challenge → birth → head → batches and acknowledgements. Signed by the server: challenge, head, ack. Signed by the
terminal's record key: birth. Unsigned hints: hello, heartbeat, will.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from protocols.canon.words import Severity
from protocols.contract import wire
from protocols.contract.batch import BatchNo, Hash, Parent
from protocols.contract.limits import ACKS_PER_MESSAGE, BIRTH_MAX_STREAMS, ORDER_KEYS_MAX
from protocols.contract.records import ClockQuality, Code, Count, Digest, Id8, Id16, Millis, Slot, Version

CHALLENGE_CONTEXT = "kf-challenge/1"
BIRTH_CONTEXT = "kf-birth/1"
HEAD_CONTEXT = "kf-head/1"
ACK_CONTEXT = "kf-ack/1"
VERSION = 1
"""Contract version spoken by this code; the topic root and every context carry it too."""


class Hello(wire.Wire, frozen=True, kw_only=True):
    """A terminal has connected and asks for a challenge."""

    connection: Id8 = msgspec.field(name="c")
    versions: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=8)] = msgspec.field(name="v", default=(VERSION,))


class Challenge(wire.Wire, frozen=True, kw_only=True):
    """A fresh nonce for this connection, and the certificate of the key that signs here."""

    connection: Id8 = msgspec.field(name="c")
    nonce: Id16 = msgspec.field(name="n")
    version: Count = msgspec.field(name="v")
    server_ms: Millis = msgspec.field(name="t")
    certificate: Annotated[bytes, Meta(max_length=1024)] = msgspec.field(name="k")
    ADDED: ClassVar[Mapping[str, object]] = {"o": ()}
    order_keys: Annotated[tuple[Annotated[bytes, Meta(max_length=1024)], ...], Meta(max_length=ORDER_KEYS_MAX)] = msgspec.field(
        name="o", default=()
    )
    """Certificates of the keys that may sign orders now. A key that is not listed any more has been withdrawn."""


class Held(msgspec.Struct, frozen=True, array_like=True):
    """What the terminal still holds of one stream: numbers `first` to `last` without a gap."""

    stream: Id16
    first: BatchNo
    prev: Hash
    """Hash before `first`; empty for number 1."""
    last: Count
    parent: Parent | None = None


class OpenFault(msgspec.Struct, frozen=True, array_like=True):
    id: Id8
    code: Code
    severity: Severity
    since_ms: Millis
    slot: Slot | None = None
    mandatory: bool = False


class Birth(wire.Wire, frozen=True, kw_only=True):
    """The terminal's word on what it holds. What is not listed of a listed stream is gone for good."""

    nonce: Id16 = msgspec.field(name="n")
    versions: Annotated[tuple[Count, ...], Meta(min_length=1, max_length=8)] = msgspec.field(name="v", default=(VERSION,))
    agent: Version = msgspec.field(name="g")
    boot_no: Count = msgspec.field(name="o")
    boot_id: Id16 = msgspec.field(name="i")
    stream: Id16 = msgspec.field(name="s")
    """The stream of this start, which may have no batch yet."""
    wall_ms: Millis = msgspec.field(name="t")
    boot_ms: Millis = msgspec.field(name="b")
    quality: ClockQuality = msgspec.field(name="q")
    held: Annotated[tuple[Held, ...], Meta(max_length=BIRTH_MAX_STREAMS)] = msgspec.field(name="h")
    more: bool = msgspec.field(name="m", default=False)
    """More streams are held than fit; they are listed by a later birth and not sent before."""
    faults: Annotated[tuple[OpenFault, ...], Meta(max_length=128)] = msgspec.field(name="f", default=())
    command_counter: Count = msgspec.field(name="x", default=0)
    """Highest counter of an order or a desired state seen; a restored server raises its own above it."""
    ADDED: ClassVar[Mapping[str, object]] = {"d": 0}
    desired_counter: Count = msgspec.field(name="d", default=0)
    """Counter of the desired state that is held; 0: none but what enrolment brought."""


class StreamHead(msgspec.Struct, frozen=True, array_like=True):
    """What the server has of one stream; number 0 with an empty hash: nothing."""

    stream: Id16
    no: Count
    digest: Hash
    aside: tuple[tuple[BatchNo, Digest], ...] = ()
    """Batches of a forked stream that the server has set aside: it has them too."""


class Head(wire.Wire, frozen=True, kw_only=True):
    nonce: Id16 = msgspec.field(name="n")
    heads: Annotated[tuple[StreamHead, ...], Meta(max_length=BIRTH_MAX_STREAMS)] = msgspec.field(name="h")


class AckMode(IntEnum):
    ALONE = 0
    """This batch is stored."""
    UP_TO = 1
    """Everything up to this batch is stored."""
    BACK = 2
    """Everything up to this batch is stored, and what was sent beyond it cannot be used yet: send on from here."""


class AckEntry(msgspec.Struct, frozen=True, array_like=True):
    stream: Id16
    no: Count
    digest: Hash
    mode: AckMode


class Ack(wire.Wire, frozen=True, kw_only=True):
    """Sent after the commit. `nonce` names the connection: an acknowledgement from before a restore releases nothing."""

    nonce: Id16 = msgspec.field(name="n")
    entries: Annotated[tuple[AckEntry, ...], Meta(min_length=1, max_length=ACKS_PER_MESSAGE)] = msgspec.field(name="a")


class Heartbeat(wire.Wire, frozen=True, kw_only=True):
    """Every 30 s, unsigned, a hint only."""

    boot_no: Count = msgspec.field(name="o")
    depth: Count = msgspec.field(name="d", default=0)
    """Batches waiting to be acknowledged."""
    oldest_ms: Millis | None = msgspec.field(name="w", default=None)


class ServerState(wire.Wire, frozen=True, kw_only=True):
    """On `kf/1/server/state`: ingest has (re)started."""

    epoch: Id8 = msgspec.field(name="e")
