"""Deterministic CBOR (RFC 8949, section 4.2) to and from frozen structs, with one error."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import cbor2
import msgspec

from protocols.contract import envelope as cose
from protocols.errors import ProtocolError

T = TypeVar("T", bound=msgspec.Struct)

ACTIVE_TAGS = frozenset({4, 5, 28, 29, 30, 35, 36, 256, 258, 55799})
"""Tags that make a decoder compute, refer or compile: decimal fractions, shared values and references to them, rationals, patterns, MIME, string
references, sets, and the empty tag that could hide another (IANA registry of CBOR tags). A hundred bytes of references inside the key of a map take
longer to hash than the universe is old; `1e999999999` as a rational, or a page of patterns, takes a while too."""
_MAYBE_ACTIVE = re.compile(
    rb"[\xc4\xc5](?:\x82|\x9f|\x98\x02|\x99\x00\x02|[\x9a\x9b]\x00)"
    rb"|\xd8(?:[\x1c\x1d]|[\x04\x05][\x82\x98-\x9b\x9f]|\x1e[\x80-\xbf]|[\x23\x24][\x40-\x7f])"
    rb"|\xd9(?:\x00[\x04\x05\x1c-\x1e\x23\x24]|\x01[\x00\x02]|\xd9\xf7)|\xda\x00\x00[\x00\x01\xd9]|\xdb\x00{6}[\x00\x01\xd9]",
    re.DOTALL,
)
"""How such a tag with a value that works begins. Cheap, and rarely true by chance of bytes inside a digest."""


class WireError(ProtocolError):
    """An authentic payload that this version cannot read."""


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything that travels as a CBOR map; unknown fields are ignored by readers."""

    ADDED: ClassVar[Mapping[str, object]] = {}
    """Fields that came after the first release, by their name on the wire, with the value that older readers assume: left off while they have it
    (C-603)."""


def dump(value: object) -> bytes:
    plain = msgspec.to_builtins(value, builtin_types=(bytes,))
    if isinstance(value, Wire):
        for name, assumed in value.ADDED.items():
            if plain[name] == assumed:
                del plain[name]
    return cbor2.dumps(plain, canonical=True)


def load(data: bytes) -> Any:
    """One CBOR item without active tags and nothing behind it, else WireError."""
    if active_tag(data) is not None:
        raise WireError("a tag that a reader would have to work for")
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except Exception as err:  # noqa: BLE001 - cbor2 lets ValueError, TypeError, OverflowError, RecursionError and more through
        raise WireError(f"not CBOR: {type(err).__name__}") from None
    if stream.tell() != len(data):
        raise WireError(f"{len(data) - stream.tell()} bytes behind the payload")
    return value


def active_tag(data: bytes) -> int | None:
    """Where in `data`, a sequence of CBOR items, the first of ACTIVE_TAGS stands. Linear, and without recursion."""
    if _MAYBE_ACTIVE.search(data) is None:
        return None
    at, end = 0, len(data)
    while at < end:
        start, major, info = at, data[at] >> 5, data[at] & 0x1F
        at += 1
        argument = info
        if 24 <= info <= 27:
            width = 1 << (info - 24)
            argument = int.from_bytes(data[at : at + width], "big")
            at += width
        elif info == 31:
            argument = 0  # indefinite: its parts follow as items
        elif info > 27:
            return None  # reserved: the decoder stops here too
        if major in (2, 3):
            at += argument
        elif major == 6 and argument in ACTIVE_TAGS:
            return start
    return None


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
