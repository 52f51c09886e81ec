"""Sealed batches and the loss notices that may replace them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import cbor2
import msgspec
from msgspec import Meta

from protocols.contract import envelope as cose
from protocols.contract import wire
from protocols.contract.limits import BATCH_MAX_RECORDS, ENVELOPE_MAX_BYTES
from protocols.contract.records import Count, Digest, Id16, Millis

BATCH_CONTEXT = "kf-batch/1"
LOSS_CONTEXT = "kf-loss/1"
CONTEXT_OF_KIND = {"data": BATCH_CONTEXT, "loss": LOSS_CONTEXT}
NO_PREV = b""
"""`prev` of number 1."""

BatchNo = Annotated[int, Meta(ge=1, lt=2**53)]
Hash = Annotated[bytes, Meta(max_length=32)]
"""A digest, or empty where there is nothing before."""
BatchClass = Literal["event", "summary"]


class Parent(msgspec.Struct, frozen=True, array_like=True):
    """The batch that a new stream continues."""

    stream: Id16
    no: BatchNo
    digest: Digest


class BatchHeader(wire.Wire, frozen=True, kw_only=True):
    """Position and origin of a batch; stands before the records as element 0 of the payload."""

    stream: Id16 = msgspec.field(name="s")
    no: BatchNo = msgspec.field(name="n")
    prev: Hash = msgspec.field(name="p")
    parent: Parent | None = msgspec.field(name="a", default=None)
    batch_class: BatchClass = msgspec.field(name="c")
    boot_no: Count = msgspec.field(name="o")
    boot_id: Id16 = msgspec.field(name="i")
    sealed_ms: Millis = msgspec.field(name="w")

    def __post_init__(self) -> None:
        _check_position(self.no, self.prev, self.parent)


class Loss(wire.Wire, frozen=True, kw_only=True):
    """Stands in place of an evicted batch: same number, same digest, so that the chain stays verifiable and the hole is explained."""

    stream: Id16 = msgspec.field(name="s")
    no: BatchNo = msgspec.field(name="n")
    digest: Digest = msgspec.field(name="h")
    prev: Hash = msgspec.field(name="p")
    parent: Parent | None = msgspec.field(name="a", default=None)
    batch_class: BatchClass = msgspec.field(name="c")
    boot_no: Count = msgspec.field(name="o")
    boot_id: Id16 = msgspec.field(name="i")
    first_ms: Millis = msgspec.field(name="f")
    last_ms: Millis = msgspec.field(name="l")
    counts: Annotated[dict[Annotated[str, Meta(max_length=32)], Count], Meta(max_length=64)] = msgspec.field(name="k")
    """Records lost, by kind."""
    written_ms: Millis = msgspec.field(name="w")

    def __post_init__(self) -> None:
        _check_position(self.no, self.prev, self.parent)


class Batch(msgspec.Struct, frozen=True):
    """An opened batch: `records` are plain maps, still to be read one by one."""

    header: BatchHeader
    records: list[Any]
    opened: cose.Opened


def _check_position(no: int, prev: bytes, parent: Parent | None) -> None:
    if no < 1:  # a schema is checked where a message is read, this also where one is made
        raise ValueError("batch numbers start at 1")
    if len(prev) != (0 if no == 1 else 32):
        raise ValueError("number 1 has no previous hash, every other has one of 32 bytes")
    if parent is not None and no != 1:
        raise ValueError("only number 1 names a parent")


def seal_batch(
    header: BatchHeader, records: Sequence[bytes], signer: cose.Signer, fleet: str, terminal: str
) -> tuple[bytes, bytes]:
    """Seal already encoded records; returns (envelope, digest). The limits are the caller's to keep: ValueError if they are not."""
    if not 1 <= len(records) <= BATCH_MAX_RECORDS:
        raise ValueError(f"a batch holds 1 to {BATCH_MAX_RECORDS} records, not {len(records)}")
    out = io.BytesIO(b"\x82")
    out.seek(1)
    out.write(wire.dump(header))
    cbor2.CBOREncoder(out).encode_length(4, len(records))  # array head; the records are encoded already
    for record in records:
        out.write(record)
    envelope, digest = cose.seal(out.getvalue(), signer, BATCH_CONTEXT, fleet, terminal)
    if len(envelope) > ENVELOPE_MAX_BYTES:
        raise ValueError(f"envelope of {len(envelope)} bytes; the limit is {ENVELOPE_MAX_BYTES}")
    return envelope, digest


def read_batch(opened: cose.Opened) -> Batch:
    """The header and the plain records of a verified batch; WireError if this version cannot read it."""
    value = wire.load(opened.payload)
    if not (isinstance(value, list) and len(value) >= 2 and isinstance(value[1], list)):
        raise wire.WireError("a batch is an array of header and records")
    header = wire.convert(value[0], BatchHeader)
    if not 1 <= len(value[1]) <= BATCH_MAX_RECORDS:
        raise wire.WireError(f"{len(value[1])} records in one batch")
    return Batch(header, value[1], opened)


def seal_loss(loss: Loss, signer: cose.Signer, fleet: str, terminal: str) -> bytes:
    return wire.seal(loss, signer, LOSS_CONTEXT, fleet, terminal)


def read_loss(opened: cose.Opened) -> Loss:
    return wire.read(opened.payload, Loss)
