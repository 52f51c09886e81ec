"""Owns what a row of the audit log is, how rows are chained, and what the server signs about them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import cbor2
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.records import Digest, Millis

ROW_CONTEXT: Final = "kf-audit-row/1"
HEAD_CONTEXT: Final = "kf-audit/1"
FIRST_PREV: Final = bytes(32)
HEAD_MAX_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row as it is stored; `detail` is the JSON text itself, byte for byte."""

    id: int
    at_ms: int
    actor: str
    role: str
    action: str
    object: str
    detail: str
    result: str
    prev: bytes
    hash: bytes


class Head(wire.Wire, frozen=True, kw_only=True):
    """The server's word: row `audit` has this hash. Everything before it is fixed by that."""

    audit: Annotated[int, Meta(ge=1, lt=2**53)] = msgspec.field(name="n")
    hash: Digest = msgspec.field(name="h")
    made_ms: Millis = msgspec.field(name="w")


def row_hash(row_id: int, at_ms: int, words: Sequence[str], prev: bytes) -> bytes:
    """SHA-256 over the deterministic CBOR of all columns and the hash before; `words`: actor, role, action, object, detail, result."""
    return hashlib.sha256(cbor2.dumps([ROW_CONTEXT, row_id, at_ms, *words, prev], canonical=True)).digest()


def hash_of(row: Row) -> bytes:
    """What the row's hash must be."""
    return row_hash(row.id, row.at_ms, (row.actor, row.role, row.action, row.object, row.detail, row.result), row.prev)


def seal_head(head: Head, signer: cose.Signer, fleet: str) -> bytes:
    return wire.seal(head, signer, HEAD_CONTEXT, fleet, "")


def open_head(raw: bytes, keys: dict[bytes, Ed25519PublicKey], fleet: str) -> Head:
    """EnvelopeError if none of the server's keys signed it, WireError if it cannot be read."""
    envelope = cose.parse(raw, HEAD_MAX_BYTES)
    key = keys.get(envelope.kid)
    if key is None:
        raise cose.EnvelopeError("unknownKey", "not signed by a key of this server")
    return wire.read(cose.verify(envelope, key, HEAD_CONTEXT, fleet, "").payload, Head)
