"""What the fleet root says about keys: record keys of terminals, signing keys of the server.

A certificate is a COSE_Sign1 of the fleet's Ed25519 root. A record-key certificate carries no dates: whether a key was valid for a batch is decided
by the position of its last record in the chain (`records.Key`), which no clock can change.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.batch import BatchNo
from protocols.contract.records import Count, Digest, Id16, Millis

RECORD_KEY_CONTEXT = "kf-recordkey/1"
SERVER_KEY_CONTEXT = "kf-serverkey/1"
ORDER_KEY_CONTEXT = "kf-orderkey/1"
CHECKPOINT_CONTEXT = "kf-checkpoint/1"
CERTIFICATE_MAX_BYTES = 1024
CHECKPOINT_MAX_BYTES = 1024

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]


class RecordKeyCert(wire.Wire, frozen=True, kw_only=True):
    terminal: str = msgspec.field(name="t")
    kid: Id16 = msgspec.field(name="k")
    public_key: PublicKey = msgspec.field(name="p")
    generation: Annotated[int, Meta(ge=1)] = msgspec.field(name="g")
    issued_ms: Millis = msgspec.field(name="w")


class ServerKeyCert(wire.Wire, frozen=True, kw_only=True):
    kid: Id16 = msgspec.field(name="k")
    public_key: PublicKey = msgspec.field(name="p")
    issued_ms: Millis = msgspec.field(name="w")


class OrderKeyCert(ServerKeyCert, frozen=True, kw_only=True):
    """A key that may sign orders and desired states, and nothing else; greeting keys may not. Same fields, another context."""


class Checkpoint(wire.Wire, frozen=True, kw_only=True):
    """Signed by the server: the head of one stream, and how much of it was kept when this was written."""

    terminal: str = msgspec.field(name="t")
    stream: Id16 = msgspec.field(name="s")
    no: BatchNo = msgspec.field(name="n")
    digest: Digest = msgspec.field(name="h")
    erased_up_to: Count = msgspec.field(name="e", default=0)
    """Batches 1 to this number are kept as (number, hash, reason) only."""
    made_ms: Millis = msgspec.field(name="w")


_Key = TypeVar("_Key", bound=ServerKeyCert)


def seal_record_key_cert(cert: RecordKeyCert, root: cose.Signer, fleet: str) -> bytes:
    return wire.seal(cert, root, RECORD_KEY_CONTEXT, fleet, cert.terminal)


def open_record_key_cert(raw: bytes, root: Ed25519PublicKey, fleet: str, terminal: str) -> RecordKeyCert:
    """EnvelopeError if the root did not certify this for `terminal`, WireError if it cannot be read."""
    opened = cose.verify(cose.parse(raw, CERTIFICATE_MAX_BYTES), root, RECORD_KEY_CONTEXT, fleet, terminal)
    cert = wire.read(opened.payload, RecordKeyCert)
    if cert.terminal != terminal or cert.kid != cose.key_id(cert.public_key):
        raise cose.EnvelopeError("certificate", f"the certificate does not fit terminal {terminal} and its own key")
    return cert


def seal_server_key_cert(cert: ServerKeyCert, root: cose.Signer, fleet: str) -> bytes:
    return wire.seal(cert, root, SERVER_KEY_CONTEXT, fleet, "")


def open_server_key_cert(raw: bytes, root: Ed25519PublicKey, fleet: str) -> ServerKeyCert:
    return _open_fleet_key(raw, root, SERVER_KEY_CONTEXT, fleet, ServerKeyCert)


def seal_order_key_cert(cert: OrderKeyCert, root: cose.Signer, fleet: str) -> bytes:
    return wire.seal(cert, root, ORDER_KEY_CONTEXT, fleet, "")


def open_order_key_cert(raw: bytes, root: Ed25519PublicKey, fleet: str) -> OrderKeyCert:
    return _open_fleet_key(raw, root, ORDER_KEY_CONTEXT, fleet, OrderKeyCert)


def _open_fleet_key(raw: bytes, root: Ed25519PublicKey, context: str, fleet: str, kind: type[_Key]) -> _Key:
    opened = cose.verify(cose.parse(raw, CERTIFICATE_MAX_BYTES), root, context, fleet, "")
    cert = wire.read(opened.payload, kind)
    if cert.kid != cose.key_id(cert.public_key):
        raise cose.EnvelopeError("certificate", "the certificate does not fit its own key")
    return cert


def seal_checkpoint(checkpoint: Checkpoint, server_key: cose.Signer, fleet: str) -> bytes:
    return wire.seal(checkpoint, server_key, CHECKPOINT_CONTEXT, fleet, checkpoint.terminal)


def open_checkpoint(raw: bytes, server_key: Ed25519PublicKey, fleet: str, terminal: str) -> Checkpoint:
    opened = cose.verify(cose.parse(raw, CHECKPOINT_MAX_BYTES), server_key, CHECKPOINT_CONTEXT, fleet, terminal)
    return wire.read(opened.payload, Checkpoint)
