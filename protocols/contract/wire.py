"""Deterministic CBOR (RFC 8949, section 4.2) to and from frozen structs, with one error."""

from __future__ import annotations

import io
from typing import Any, TypeVar

import cbor2
import msgspec

from protocols.contract import envelope as cose
from protocols.errors import ProtocolError

T = TypeVar("T", bound=msgspec.Struct)


class WireError(ProtocolError):
    """An authentic payload that this version cannot read."""


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that travels as a CBOR map; unknown fields are ignored by readers."""


def dump(value: object) -> bytes:
    return cbor2.dumps(msgspec.to_builtins(value, builtin_types=(bytes,)), canonical=True)


def load(data: bytes) -> Any:
    """One CBOR item and nothing behind it, else WireError."""
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except Exception as err:  # noqa: BLE001 - cbor2 lets ValueError, TypeError, OverflowError, RecursionError and more through
        raise WireError(f"not CBOR: {type(err).__name__}") from None
    if stream.tell() != len(data):
        raise WireError(f"{len(data) - stream.tell()} bytes behind the payload")
    return value


def convert(value: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError) as err:
        raise WireError(f"{kind.__name__}: {err}") from None


def read(data: bytes, kind: type[T]) -> T:
    return convert(load(data), kind)


def seal(message: Wire, signer: cose.Signer, context: str, fleet: str, terminal: str) -> bytes:
    """A signed message that nobody chains: challenge, birth, head, acknowledgement, certificate, checkpoint."""
    return cose.seal(dump(message), signer, context, fleet, terminal)[0]
