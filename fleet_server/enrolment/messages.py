"""What enrolment and renewal say over HTTPS, and the proofs inside: docs/spec/enrolment.md, sections 3 to 5."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import cbor2
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from msgspec import Meta

from fleet_server.errors import FleetServerError
from protocols.contract.topics import TopicError, check_terminal_id

MESSAGE_MAX_BYTES = 64 * 1024
ENROL_CONTEXT = "kf-enrol/1"
RENEW_CONTEXT = "kf-renew/1"
ROTATE_CONTEXT = "kf-rotate/1"

PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Pem = Annotated[str, Meta(max_length=8192)]
Terminal = Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")]

STATUS = {
    "malformed": 400,
    "badProof": 400,
    "unknownTerminal": 404,
    "badCode": 403,
    "codeExpired": 403,
    "codeUsed": 409,
    "revoked": 403,
    "tooMany": 429,
    "rootOffline": 503,
}


class Denied(FleetServerError):
    """An answer that is no certificate; `word` tells the agent, the message tells the server's operator."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.reason = word
        self.http_status = STATUS[word]


class EnrolRequest(msgspec.Struct, frozen=True, kw_only=True):
    terminal: Terminal
    code: Annotated[str, Meta(max_length=128)]
    csr: Pem
    record_key: PublicKey
    proof: Signature
    hardware: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"EnrolRequest({self.terminal})"


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True):
    terminal: Terminal
    csr: Pem
    record_key: PublicKey
    proof: Signature
    endorsement: Signature | None = None


class Mqtt(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    certificate: str
    ca: str
    record_key_certificate: bytes
    server_time_ms: int
    update_roots: dict[str, str] = {}
    """Newest root metadata of the update repositories, `image` and `director` (E-10); empty before the ceremony."""


class Enrolled(Renewed, frozen=True, kw_only=True):
    fleet: str
    root_key: bytes
    mqtt: Mqtt
    desired: dict[str, Any]


class CertificateRequest(msgspec.Struct, frozen=True):
    """The only two things that are taken from a PKCS#10 request."""

    public_key: EllipticCurvePublicKey
    der: bytes

    @property
    def key_digest(self) -> bytes:
        return hashlib.sha256(self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def read(raw: bytes, kind: type[Any]) -> Any:
    """The request; Denied `malformed`. The size comes before the parsing."""
    if len(raw) > MESSAGE_MAX_BYTES:
        raise Denied("malformed", f"a request of {len(raw)} bytes; the limit is {MESSAGE_MAX_BYTES}")
    try:
        request = msgspec.json.decode(raw, type=kind)
        check_terminal_id(request.terminal)
    except (msgspec.DecodeError, msgspec.ValidationError, TopicError, RecursionError) as err:
        raise Denied("malformed", f"not a request: {type(err).__name__}") from None
    return request


def check_csr(pem: str, terminal: str) -> CertificateRequest:
    """A P-256 request, signed by its own key, for CN = `terminal` and nothing else; Denied `badProof`, or `malformed` if unreadable."""
    try:
        csr = x509.load_pem_x509_csr(pem.encode("ascii"))
        key, holds, attributes = csr.public_key(), csr.is_signature_valid, list(csr.subject)
        algorithm = csr.signature_hash_algorithm
    except Exception as err:  # noqa: BLE001 - the X.509 parser raises ValueError, TypeError, UnsupportedAlgorithm and its own kinds
        raise Denied("malformed", f"certificate request: {type(err).__name__}") from None
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1) or algorithm is None:
        raise Denied("badProof", "the certificate request is not for a P-256 key")
    if not holds:
        raise Denied("badProof", "the certificate request is not signed by its own key")
    if [(one.oid, one.value) for one in attributes] != [(NameOID.COMMON_NAME, terminal)]:
        raise Denied("badProof", f"the certificate request does not name {terminal} alone")
    return CertificateRequest(key, csr.public_bytes(Encoding.DER))


def check_signature(public_key: bytes, signature: bytes, statement: list[object], what: str) -> None:
    """Denied `badProof` unless `signature` holds over the deterministic CBOR of `statement`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, cbor2.dumps(statement, canonical=True))
    except (InvalidSignature, ValueError):
        raise Denied("badProof", f"{what} does not hold") from None
