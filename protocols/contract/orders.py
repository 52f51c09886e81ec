"""What operators want of a terminal: orders, which are done once, and the desired state, which holds until the next.

Both are signed by an order key (`certs.OrderKeyCert`) for one terminal, name who ordered and who approved, and carry a counter. An order has an
expiry and an id under which it is done at most once. Specification: docs/spec/orders.md.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.limits import BUNDLE_MAX_COMPONENTS, DESIRED_MAX_BYTES, LOG_MAX_BYTES, ORDER_MAX_BYTES
from protocols.contract.records import ComponentName, Count, Digest, Id16, Millis, Slot, Version

ORDER_CONTEXT = "kf-order/1"
DESIRED_CONTEXT = "kf-desired/1"
LOG_CONTEXT = "kf-log/1"

Staff = Annotated[str, Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?\Z")]
"""Name of an account of the console."""
Counter = Annotated[int, Meta(ge=1, lt=2**53)]
Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]{0,120}\Z")]
"""A sentence for the screen."""
TargetPath = Annotated[
    str,
    Meta(pattern=r"^(?!.*(?:^|/)\.)[A-Za-z0-9][A-Za-z0-9._+-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._+-]{0,95}){0,5}\Z", max_length=255),
]
"""Path of a target in the image repository: no part begins with a dot, none is empty."""


Addressee = Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,32}\Z")]
"""The terminal that a message is for, as `seal_*` writes it. What binds the message to it is the external data; this lets another terminal say why it
refuses (`addressee`)."""
_ADDRESSEE = re.compile(rb"at(?:[\x61-\x77][a-z0-9-]{1,23}|\x78[\x18-\x20][a-z0-9-]{24,32})")
"""How the member `t` stands in deterministic CBOR: the text "t", then a text of up to 32 bytes with its length."""
_ADDRESSEES_MAX: Final = 4


class SelfTest(msgspec.Struct, frozen=True, kw_only=True):
    """Test one device. `query`: ask for its state; the others move or sound something and need an idle terminal."""

    slot: Slot
    test: Literal["query", "print", "read", "beep"] = "query"


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    what: Literal["application", "agent", "host"]
    when: Literal["idle", "now"] = "idle"
    """`now` cuts a citizen off: only for a terminal that hangs."""


class PullLogs(msgspec.Struct, frozen=True, kw_only=True):
    from_ms: Millis
    to_ms: Millis


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """Give up an order that has not begun."""

    order: Id16


OrderBody = SelfTest | Restart | PullLogs | Cancel
KINDS: dict[str, type] = {"selfTest": SelfTest, "restart": Restart, "pullLogs": PullLogs, "cancel": Cancel}
KIND_OF: dict[type, str] = {body: kind for kind, body in KINDS.items()}


class Order(wire.Wire, frozen=True, kw_only=True):
    """One thing to do once. `kind` and `body` stay plain until `body_of`: a terminal must be able to say that it does not know a kind."""

    id: Id16 = msgspec.field(name="i")
    counter: Counter = msgspec.field(name="x")
    issued_ms: Millis = msgspec.field(name="w")
    expires_ms: Millis = msgspec.field(name="e")
    by: Staff = msgspec.field(name="b")
    approved_by: Staff | None = msgspec.field(name="a", default=None)
    kind: Annotated[str, Meta(pattern=r"^[a-zA-Z]{1,24}\Z")] = msgspec.field(name="k")
    body: dict[str, Any] = msgspec.field(name="v")
    terminal: Addressee = msgspec.field(name="t", default="")

    ADDED: ClassVar[Mapping[str, object]] = {"t": ""}


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A version of the terminal's configuration; tables as in the agent's file. The one before is kept, and comes back if this one does not start."""

    version: Counter
    devices: tuple[dict[str, Any], ...] = ()
    items: tuple[dict[str, Any], ...] = ()
    intervals: dict[str, Any] = {}


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The terminal serves nobody and shows why."""

    zh: Line
    en: Line = ""
    since_ms: Millis


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One component of a bundle, as both repositories must describe it."""

    component: ComponentName
    target: TargetPath
    version: Version
    release: Counter
    """Release counter of the component: never goes down at a terminal, but with `Bundle.downgrade`."""
    length: Count
    sha256: Digest


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout wants here: all of it or nothing."""

    id: Id16
    rollout: Id16
    wanted: Annotated[tuple[Wanted, ...], Meta(min_length=1, max_length=BUNDLE_MAX_COMPONENTS)]
    windows: Annotated[tuple[tuple[Millis, Millis], ...], Meta(max_length=64)] | None = None
    """Spans [from, to) in which it may be installed, made by the server from the site's hours, holidays and time zone; None: at any time.
    After the last of them the terminal waits for a newer desired state."""
    not_before_ms: Millis = 0
    rate_bytes_s: Annotated[int, Meta(ge=1024)] | None = None
    hold: bool = False
    """Paused: download and check, do not install."""
    downgrade: bool = False
    """A lower release counter is wanted here; said by an operator for this terminal."""
    probation_s: Annotated[int, Meta(ge=5, le=86400)] = 600


class Desired(wire.Wire, frozen=True, kw_only=True):
    """All that is wanted of one terminal. Whole: what it does not name is not wanted any more."""

    counter: Counter = msgspec.field(name="x")
    issued_ms: Millis = msgspec.field(name="w")
    by: Staff = msgspec.field(name="b")
    approved_by: Staff | None = msgspec.field(name="a", default=None)
    configuration: Configuration | None = msgspec.field(name="c", default=None)
    lock: Lock | None = msgspec.field(name="l", default=None)
    bundle: Bundle | None = msgspec.field(name="u", default=None)
    terminal: Addressee = msgspec.field(name="t", default="")

    ADDED: ClassVar[Mapping[str, object]] = {"t": ""}


class LogExcerpt(wire.Wire, frozen=True, kw_only=True):
    """Answer to `pullLogs`, signed by the terminal's record key and posted over HTTPS: gzip of UTF-8 lines, scrubbed by the agent."""

    order: Id16 = msgspec.field(name="i")
    from_ms: Millis = msgspec.field(name="f")
    to_ms: Millis = msgspec.field(name="t")
    lines: Count = msgspec.field(name="n")
    cut: bool = msgspec.field(name="c", default=False)
    """There was more than may be sent; the newest lines are here."""
    text: Annotated[bytes, Meta(max_length=LOG_MAX_BYTES)] = msgspec.field(name="d")


def needs_two(wanted: OrderBody | Desired) -> bool:
    """Whether a second person must have approved: what interrupts a citizen or takes a machine away, and whatever changes what runs on it.

    A lock alone needs one person: closing a machine that does harm must not wait.
    """
    if isinstance(wanted, Restart):
        return wanted.what == "host" or wanted.when == "now"
    if isinstance(wanted, Desired):
        return wanted.configuration is not None or wanted.bundle is not None
    return False


def approved(order: Order | Desired) -> bool:
    """A second person has approved, and it is another one."""
    return order.approved_by is not None and order.approved_by != order.by


def body_of(order: Order) -> OrderBody | None:
    """The typed body; None for a kind that this version does not know. WireError if a known kind does not fit its schema."""
    kind = KINDS.get(order.kind)
    return None if kind is None else wire.convert(order.body, kind)


def make(body: OrderBody, *, id: bytes, counter: int, issued_ms: int, expires_ms: int, by: str, approved_by: str | None) -> Order:  # noqa: A002 -- the field's name
    return Order(
        id=id,
        counter=counter,
        issued_ms=issued_ms,
        expires_ms=expires_ms,
        by=by,
        approved_by=approved_by,
        kind=KIND_OF[type(body)],
        body=msgspec.to_builtins(body, builtin_types=(bytes,)),
    )


def seal_order(order: Order, key: cose.Signer, fleet: str, terminal: str) -> bytes:
    return wire.seal(msgspec.structs.replace(order, terminal=terminal), key, ORDER_CONTEXT, fleet, terminal)


def open_order(raw: bytes, keys: dict[bytes, Ed25519PublicKey], fleet: str, terminal: str) -> Order:
    """`keys`: those of the current challenge, by id. EnvelopeError (`unknownKey` for one that is not listed), WireError if unreadable."""
    return _addressed(wire.read(_verified(raw, keys, ORDER_MAX_BYTES, ORDER_CONTEXT, fleet, terminal), Order), terminal)


def seal_desired(desired: Desired, key: cose.Signer, fleet: str, terminal: str) -> bytes:
    return wire.seal(msgspec.structs.replace(desired, terminal=terminal), key, DESIRED_CONTEXT, fleet, terminal)


def open_desired(raw: bytes, keys: dict[bytes, Ed25519PublicKey], fleet: str, terminal: str) -> Desired:
    return _addressed(wire.read(_verified(raw, keys, DESIRED_MAX_BYTES, DESIRED_CONTEXT, fleet, terminal), Desired), terminal)


def addressee(raw: bytes, keys: dict[bytes, Ed25519PublicKey], fleet: str, context: str) -> str | None:
    """The terminal of this fleet for which `raw` is authentic; None if it is for none that it names.

    For what did not open, to say why. Nothing of it is decoded: names are looked for in its bytes, and a signature that holds for one is the proof.
    """
    try:
        envelope = cose.parse(raw, DESIRED_MAX_BYTES)
    except cose.EnvelopeError:
        return None
    key = keys.get(envelope.kid)
    if key is None:
        return None
    for found in itertools.islice(_ADDRESSEE.finditer(envelope.payload), _ADDRESSEES_MAX):
        text = found.group()[2:]
        length, start = (text[1], 2) if text[0] == 0x78 else (text[0] - 0x60, 1)
        terminal = text[start : start + length].decode("ascii")
        try:
            cose.verify(envelope, key, context, fleet, terminal)
        except cose.EnvelopeError:
            continue
        return terminal
    return None


M = TypeVar("M", Order, Desired)


def _addressed(message: M, terminal: str) -> M:
    if message.terminal not in ("", terminal):
        raise wire.WireError("it names another terminal than it is signed for")
    return message


def _verified(raw: bytes, keys: dict[bytes, Ed25519PublicKey], max_bytes: int, context: str, fleet: str, terminal: str) -> bytes:
    envelope = cose.parse(raw, max_bytes)
    key = keys.get(envelope.kid)
    if key is None:
        raise cose.EnvelopeError("unknownKey", "not signed by an order key that is valid now")
    return cose.verify(envelope, key, context, fleet, terminal).payload
