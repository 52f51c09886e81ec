"""Owns how a terminal gets its identity and renews it: the client half of docs/spec/enrolment.md.

The one-time code is sent only to a server that has proved itself. Whatever fails, running it again is safe: keys are made once, files are replaced
whole, and `identity.json` comes last.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import cbor2
import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from msgspec import Meta

from edge_agent import config, files, identity, tls
from edge_agent.errors import ConfigError, EnrolmentRefused, ServerNotTrusted, ServerUnreachable
from edge_agent.identity import Identity, MqttAddress
from edge_agent.signing import CertificateRequest, KeyStore, RecordKey
from protocols.contract.certs import open_record_key_cert
from protocols.contract.topics import TopicError, check_terminal_id
from protocols.errors import ProtocolError

MESSAGE_MAX_BYTES = 64 * 1024
TIMEOUT_S = 20.0
ENROL_CONTEXT = "kf-enrol/1"
RENEW_CONTEXT = "kf-renew/1"
ROTATE_CONTEXT = "kf-rotate/1"

_REFUSALS = {
    "malformed": "The server did not understand the request; agent and server are probably of different versions.",
    "badProof": "The server says that key, request and proof do not fit together; remove the identity directory and enrol again.",
    "unknownTerminal": "The server knows no terminal of this name; check the spelling, or create it in the console first.",
    "badCode": "The one-time code is wrong; after five wrong tries it dies.",
    "codeExpired": "The one-time code has expired or died of wrong tries; ask the operator for a new one.",
    "codeUsed": "The one-time code was already used by another machine; ask the operator for a new one and report it.",
    "revoked": "This terminal was taken out of the fleet; ask the operator.",
}
_WAIT = {
    "waiting": "An operator has to approve this terminal first; run this command again afterwards.",
    "tooMany": "The server asks for patience; run this command again in a few minutes.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How the server proves itself before enrolment: `ca_pem`, or the SHA-256 fingerprint of its CA certificate (32 bytes)."""

    ca_pem: str | None = None
    fingerprint: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the installer asks for. The code stays out of every repr and log."""

    server_url: str
    terminal: str
    code: str = field(repr=False)
    trust: Trust
    hardware: Mapping[str, str | int]
    check_dates: bool
    """Whether the host's clock is good enough to judge the server's certificate by its dates."""


class _MqttAnswer(msgspec.Struct, frozen=True):
    host: Annotated[str, Meta(max_length=253)]
    port: Annotated[int, Meta(ge=1, le=65535)]


class _Renewed(msgspec.Struct, frozen=True, kw_only=True):
    certificate: str
    ca: str
    record_key_certificate: bytes
    server_time_ms: Annotated[int, Meta(ge=0, lt=2**53)]
    update_roots: dict[str, str] = {}


class _Enrolled(_Renewed, frozen=True, kw_only=True):
    fleet: Annotated[str, Meta(min_length=1, max_length=64)]
    root_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    mqtt: _MqttAnswer
    desired: object = None


class _Refusal(msgspec.Struct, frozen=True):
    error: str = ""


_Answer = TypeVar("_Answer", bound=_Renewed)


# ---------------------------------------------------------------------------------------------------------------------- what it does


def enrol(request: Request, keys: KeyStore, directory: Path, *, timeout_s: float = TIMEOUT_S) -> Identity:
    """Exchange the one-time code for an identity in `directory`.

    Raises EnrolmentRefused (the operator must act), ServerNotTrusted (the code was not sent), ServerUnreachable (try again), KeyRefused, ConfigError.
    """
    terminal, code = _checked(request)
    _refuse_other_identity(directory, terminal)
    files.make_private_directory(directory)
    record_key, csr = keys.record_key(), keys.certificate_request(terminal)
    address = _Address.of(request.server_url)
    context = tls.client_context(_anchor(request.trust, address, timeout_s), check_dates=request.check_dates)
    message = {
        "terminal": terminal,
        "code": code,
        "csr": csr.pem,
        "record_key": _b64(record_key.public_key),
        "proof": _b64(_prove(ENROL_CONTEXT, terminal, csr, record_key)),
        "hardware": dict(request.hardware),
    }
    answer = _post(address, context, "/api/v1/enrol", message, _Enrolled, timeout_s)
    who = Identity(
        terminal=terminal,
        fleet=answer.fleet,
        server_url=request.server_url,
        root_key=answer.root_key,
        mqtt=MqttAddress(host=answer.mqtt.host, port=answer.mqtt.port),
        enrolled_ms=answer.server_time_ms,
    )
    _check(answer, who, csr, record_key)
    config.desired_state(answer.desired or {})
    files.write_atomically(directory / identity.CA_FILE, answer.ca.encode("ascii"))
    files.write_atomically(directory / identity.RECORD_KEY_CERTIFICATE_FILE, answer.record_key_certificate)
    files.write_atomically(directory / identity.DESIRED_FILE, msgspec.json.encode(answer.desired or {}))
    _keep_update_roots(answer, directory, replace=True)
    keys.bind_certificate(answer.certificate)
    identity.save(directory, who)
    return who


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a renewal brought. `generation`: of the certified record key."""

    server_time_ms: int
    generation: int


def renew(
    who: Identity,
    keys: KeyStore,
    directory: Path,
    *,
    now_ms: int,
    check_dates: bool,
    rotate: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> Renewal:
    """Get a new client certificate; with `rotate` also have the next record key certified. Raises as `enrol` does."""
    present, validity = keys.record_key(), keys.validity()
    record_key = keys.next_record_key() if rotate else present
    csr = keys.certificate_request(who.terminal)
    expired = validity is None or now_ms >= validity.end_ms
    context = tls.client_context(identity.load_ca(directory), check_dates=check_dates, keys=None if expired else keys)
    message = {
        "terminal": who.terminal,
        "csr": csr.pem,
        "record_key": _b64(record_key.public_key),
        "proof": _b64(_prove(RENEW_CONTEXT, who.terminal, csr, record_key)),
    }
    if rotate:
        message["endorsement"] = _b64(present.sign(_canonical([ROTATE_CONTEXT, who.terminal, record_key.public_key])))
    answer = _post(_Address.of(who.server_url), context, "/api/v1/renew", message, _Renewed, timeout_s)
    generation = _check(answer, who, csr, record_key)
    name = identity.NEXT_RECORD_KEY_CERTIFICATE_FILE if rotate else identity.RECORD_KEY_CERTIFICATE_FILE
    files.write_atomically(directory / name, answer.record_key_certificate)
    files.write_atomically(directory / identity.CA_FILE, answer.ca.encode("ascii"))
    _keep_update_roots(answer, directory, replace=False)
    keys.bind_certificate(answer.certificate)
    return Renewal(server_time_ms=answer.server_time_ms, generation=generation)


def post_signed(
    who: Identity, keys: KeyStore, directory: Path, path: str, body: bytes, *, check_dates: bool, timeout_s: float = TIMEOUT_S
) -> int:
    """Post a COSE message under the terminal's certificate; the HTTP status. Raises ServerNotTrusted, ServerUnreachable, KeyRefused, NotEnrolled."""
    context = tls.client_context(identity.load_ca(directory), check_dates=check_dates, keys=keys)
    status, _ = _exchange(_Address.of(who.server_url), context, "POST", path, body, timeout_s, content_type="application/cose")
    return status


def parse_fingerprint(text: str) -> bytes:
    """SHA-256 in hexadecimal, with or without colons; ConfigError otherwise."""
    plain = re.sub(r"[\s:-]", "", text)
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", plain):
        raise ConfigError("the CA fingerprint is not SHA-256 in hexadecimal (64 digits)")
    return bytes.fromhex(plain)


# ------------------------------------------------------------------------------------------------------------------- what it checks


def _checked(request: Request) -> tuple[str, str]:
    try:
        terminal = check_terminal_id(request.terminal)
    except TopicError:
        raise ConfigError("the terminal's name has 1 to 32 of a-z, 0-9 and -") from None
    code = re.sub(r"[\s-]", "", request.code).upper()
    if not re.fullmatch(r"[A-Z2-7]{32}", code):
        raise ConfigError("the one-time code has 32 letters and digits from 2 to 7; check what was typed")
    if request.trust.ca_pem is None and request.trust.fingerprint is None:
        raise ConfigError("say how to recognise the server: --ca-fingerprint as printed with the code, or --ca-file")
    return terminal, code


def _refuse_other_identity(directory: Path, terminal: str) -> None:
    if not (directory / identity.IDENTITY_FILE).exists():
        return
    known = identity.load(directory)
    if known.terminal != terminal:
        raise ConfigError(f"this machine is already enrolled as {known.terminal}; remove {directory} and its state first")


def _prove(context: str, terminal: str, csr: CertificateRequest, key: RecordKey) -> bytes:
    return key.sign(_canonical([context, terminal, csr.der]))


def _canonical(value: list[object]) -> bytes:
    return cbor2.dumps(value, canonical=True)


def _check(answer: _Renewed, who: Identity, csr: CertificateRequest, record_key: RecordKey) -> int:
    """The answer is ours and the fleet's; returns the record key's generation. ServerNotTrusted otherwise. Dates are not looked at."""
    try:
        chain = x509.load_pem_x509_certificates(answer.certificate.encode("ascii"))
        roots = x509.load_pem_x509_certificates(answer.ca.encode("ascii"))
        names = [str(name.value) for name in chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except ValueError as err:
        raise ServerNotTrusted("the server's answer holds certificates that cannot be read") from err
    if names != [who.terminal]:
        raise ServerNotTrusted("the server's certificate names another terminal")
    if chain[0].public_key() != x509.load_der_x509_csr(csr.der).public_key():
        raise ServerNotTrusted("the server's certificate was made for another key")
    if not _leads_to(chain, roots):
        raise ServerNotTrusted("the server's certificate for this terminal is not signed by the CA that came with it")
    try:
        certified = open_record_key_cert(
            answer.record_key_certificate, Ed25519PublicKey.from_public_bytes(who.root_key), who.fleet, who.terminal
        )
    except ProtocolError as err:
        raise ServerNotTrusted("the fleet root did not certify this terminal's record key") from err
    if certified.public_key != record_key.public_key:
        raise ServerNotTrusted("the fleet root certified another record key")
    return certified.generation


def _keep_update_roots(answer: _Renewed, directory: Path, *, replace: bool) -> None:
    """A renewal only adds what is missing: once a root is trusted, only its own keys can name the next."""
    for repository, name in identity.UPDATE_ROOT_FILES.items():
        root = answer.update_roots.get(repository)
        if root is not None and (replace or not (directory / name).exists()):
            files.write_atomically(directory / name, root.encode("utf-8"))


def _leads_to(chain: list[x509.Certificate], roots: list[x509.Certificate]) -> bool:
    """Each certificate is signed by the next, the last by a root."""
    for at, certificate in enumerate(chain):
        if any(_signed_by(certificate, root) for root in roots):
            return True
        if at + 1 == len(chain) or not _signed_by(certificate, chain[at + 1]):
            return False
    return False


def _signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------------- HTTPS


@dataclass(frozen=True, slots=True)
class _Address:
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> _Address:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigError("the server's address cannot be read; it looks like https://fleet.example.org") from None
        if parts.scheme != "https" or not host:
            raise ConfigError("the server's address must start with https://")
        return cls(host, port or 443)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def _anchor(trust: Trust, address: _Address, timeout_s: float) -> str:
    """The CA to trust: the file's, or the one that the server shows and whose fingerprint is the pinned one."""
    if trust.ca_pem is not None:
        return trust.ca_pem
    status, body = _exchange(address, tls.anonymous_context(), "GET", "/api/v1/ca", None, timeout_s)
    try:
        shown = x509.load_pem_x509_certificates(body) if status == http.HTTPStatus.OK else []
    except ValueError:
        shown = []
    for certificate in shown:
        if hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest() == trust.fingerprint:
            return certificate.public_bytes(Encoding.PEM).decode("ascii")
    raise ServerNotTrusted(f"{address} does not show the CA certificate of this fingerprint; the code was not sent")


def _post(
    address: _Address, context: ssl.SSLContext, path: str, message: Mapping[str, object], answer: type[_Answer], timeout_s: float
) -> _Answer:
    status, body = _exchange(address, context, "POST", path, msgspec.json.encode(message), timeout_s)
    if status == http.HTTPStatus.OK:
        try:
            return msgspec.json.decode(body, type=answer)
        except msgspec.DecodeError as err:
            raise ServerUnreachable(f"{address} gave an answer that this agent does not understand") from err
    word = _refusal_word(body)
    if word in _WAIT:
        raise ServerUnreachable(_WAIT[word])
    if word in _REFUSALS and status < http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise EnrolmentRefused(word, _REFUSALS[word])
    raise ServerUnreachable(f"{address} answered with HTTP status {status}; is it a fleet server?")


def _refusal_word(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Refusal).error
    except msgspec.DecodeError:
        return ""


def _exchange(
    address: _Address,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: bytes | None,
    timeout_s: float,
    *,
    content_type: str = "application/json",
) -> tuple[int, bytes]:
    """One request on a connection of its own; redirects are not followed. `timeout_s` is for each wait."""
    connection = http.client.HTTPSConnection(address.host, address.port, timeout=timeout_s, context=context)
    headers = {"Accept": "application/json", "User-Agent": "kiosk-fleet-agent", "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = content_type
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        content = response.read(MESSAGE_MAX_BYTES + 1)
    except ssl.SSLCertVerificationError as err:
        raise ServerNotTrusted(
            f"{address} did not prove to be the server ({err.verify_message}); nothing secret was sent"
        ) from err
    except (OSError, http.client.HTTPException) as err:
        raise ServerUnreachable(f"{address} does not answer ({type(err).__name__})") from err
    finally:
        connection.close()
    if len(content) > MESSAGE_MAX_BYTES:
        raise ServerUnreachable(f"{address} gave an answer of more than {MESSAGE_MAX_BYTES // 1024} KiB")
    return response.status, content


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
