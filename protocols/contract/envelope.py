"""COSE_Sign1 (RFC 9052, section 4.2) with Ed25519, as narrow as we can make it.

The envelope is tag 18 around `[protected, {}, payload, signature]` in deterministic encoding: algorithm and key id in the protected header, an empty
unprotected map, the payload attached, nothing behind the last byte. What a signature is *for* stands in the external data
`[context, fleet, terminal]`, so a message moved to another terminal, fleet or purpose does not open.

The digest of an envelope is SHA-256 over its Sig_structure. The signature is not in it: whoever carries the message cannot make a second version of
it with another digest.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Protocol

import cbor2
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols.errors import ProtocolError

EDDSA = -8
"""COSE algorithm EdDSA (RFC 9053, section 2.2); with an OKP Ed25519 key."""
KID_BYTES = 16
SIGNATURE_BYTES = 64
_TAG_ARRAY4 = b"\xd2\x84"  # tag 18, array of four
_EMPTY_MAP = 0xA0


class EnvelopeError(ProtocolError):
    """Bytes that are not an authentic envelope. `reason` is a stable word for quarantine and counters."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Signer(Protocol):
    """A record key: a file, a TPM or a PKCS#11 token can stand behind it."""

    @property
    def kid(self) -> bytes: ...
    def sign(self, data: bytes) -> bytes: ...


class Envelope(msgspec.Struct, frozen=True):
    """A well-formed, not yet verified envelope."""

    protected: bytes
    payload: bytes
    signature: bytes
    kid: bytes
    raw: bytes


class Opened(msgspec.Struct, frozen=True):
    """A verified envelope."""

    payload: bytes
    kid: bytes
    digest: bytes
    raw: bytes


def key_id(public_key: bytes) -> bytes:
    """First 16 bytes of SHA-256 over the raw 32-byte public key."""
    return hashlib.sha256(public_key).digest()[:KID_BYTES]


@lru_cache(maxsize=4096)
def external_data(context: str, fleet: str, terminal: str) -> bytes:
    return cbor2.dumps([context, fleet, terminal], canonical=True)


def sig_structure(protected: bytes, aad: bytes, payload: bytes) -> bytes:
    """RFC 9052, section 4.4."""
    return cbor2.dumps(["Signature1", protected, aad, payload])


def seal(payload: bytes, signer: Signer, context: str, fleet: str, terminal: str) -> tuple[bytes, bytes]:
    """Sign `payload`; returns (envelope bytes, digest)."""
    protected = cbor2.dumps({1: EDDSA, 4: signer.kid}, canonical=True)
    to_sign = sig_structure(protected, external_data(context, fleet, terminal), payload)
    signature = signer.sign(to_sign)
    raw = _TAG_ARRAY4 + cbor2.dumps(protected) + bytes((_EMPTY_MAP,)) + cbor2.dumps(payload) + cbor2.dumps(signature)
    return raw, hashlib.sha256(to_sign).digest()


def parse(raw: bytes, max_bytes: int) -> Envelope:
    """Split an envelope without trusting it. The size comes first; nothing but the exact form of `seal` is accepted.

    Raises EnvelopeError with reason `oversized`, `malformed`, `trailing` or `algorithm`.
    """
    if len(raw) > max_bytes:
        raise EnvelopeError("oversized", f"{len(raw)} bytes; the limit is {max_bytes}")
    if raw[:2] != _TAG_ARRAY4:
        raise EnvelopeError("malformed", "not a tagged COSE_Sign1")
    protected, at = _byte_string(raw, 2)
    if at >= len(raw) or raw[at] != _EMPTY_MAP:
        raise EnvelopeError("malformed", "the unprotected header is not empty")
    payload, at = _byte_string(raw, at + 1)
    signature, at = _byte_string(raw, at)
    if at != len(raw):
        raise EnvelopeError("trailing", f"{len(raw) - at} bytes behind the envelope")
    if len(signature) != SIGNATURE_BYTES:
        raise EnvelopeError("malformed", f"signature of {len(signature)} bytes")
    # The one accepted header is small and fixed: compare bytes instead of decoding a stranger's map.
    kid = protected[5:]
    if len(kid) != KID_BYTES or protected[:3] != b"\xa2\x01\x27" or protected[3:5] != b"\x04\x50":
        raise EnvelopeError("algorithm", "the protected header is not {alg: EdDSA, kid: 16 bytes}")
    return Envelope(protected=protected, payload=payload, signature=signature, kid=kid, raw=raw)


def verify(envelope: Envelope, public_key: Ed25519PublicKey, context: str, fleet: str, terminal: str) -> Opened:
    """Check the signature over exactly the received bytes; EnvelopeError `signature` if it does not hold."""
    signed = sig_structure(envelope.protected, external_data(context, fleet, terminal), envelope.payload)
    try:
        public_key.verify(envelope.signature, signed)
    except InvalidSignature:
        raise EnvelopeError("signature", f"signature does not hold for {context} of {terminal}") from None
    return Opened(payload=envelope.payload, kid=envelope.kid, digest=hashlib.sha256(signed).digest(), raw=envelope.raw)


def _byte_string(raw: bytes, at: int) -> tuple[bytes, int]:
    """A definite-length byte string with the shortest length (RFC 8949, section 4.2.1) at `at`; returns (value, next offset)."""
    if at >= len(raw) or raw[at] >> 5 != 2:
        raise EnvelopeError("malformed", f"byte string expected at byte {at}")
    info = raw[at] & 0x1F
    if info < 24:
        size, start = info, at + 1
    elif info in (24, 25, 26):
        width = 1 << (info - 24)
        start = at + 1 + width
        size = int.from_bytes(raw[at + 1 : start], "big")
        if size < (24, 1 << 8, 1 << 16)[info - 24]:
            raise EnvelopeError("malformed", f"length not in its shortest form at byte {at}")
    else:
        raise EnvelopeError("malformed", f"indefinite or oversized string at byte {at}")
    if start + size > len(raw):
        raise EnvelopeError("malformed", f"cut off: {start + size - len(raw)} bytes missing")
    return raw[start : start + size], start + size
