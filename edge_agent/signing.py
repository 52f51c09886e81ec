"""Owns the terminal's two keys: Ed25519 for records, P-256 for TLS. Private keys are made here and never leave.

`KeyStore` is all the rest of the agent sees, so that a TPM or a PKCS#11 token can stand behind it. The shipped one keeps PEM files with mode 0600 and
refuses looser ones. The parser of certificates (5 MiB) is loaded only where one is made or bound: a running agent does without it for weeks.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from edge_agent import files
from edge_agent.errors import KeyRefused
from protocols.contract.envelope import Signer, key_id

RECORD_KEY_FILE = "record.key"
NEXT_RECORD_KEY_FILE = "record.next.key"
TLS_PENDING_FILE = "tls.next.key"
TLS_FILE = "tls.pem"
"""Private key and certificate chain in one file: one rename exchanges both, so they always fit."""


class RecordKey(Signer, Protocol):
    """The key that signs batches and births."""

    @property
    def public_key(self) -> bytes:
        """Raw, 32 bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate says it is good."""

    begin_ms: int
    end_ms: int

    def renewal_due(self, now_ms: int) -> bool:
        """Whether two thirds of the lifetime have passed: a 90-day certificate is renewed at day 60."""
        return (now_ms - self.begin_ms) * 3 >= (self.end_ms - self.begin_ms) * 2


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A PKCS#10 request in both forms; the proof of enrolment is made over `der`."""

    pem: str
    der: bytes


class KeyStore(Protocol):
    """The terminal's keys. Everything raises KeyRefused if a key cannot be used."""

    def record_key(self) -> RecordKey:
        """The present record key, made at the first call."""
        ...

    def next_record_key(self) -> RecordKey:
        """The key that will follow, made at the first call after a promotion."""
        ...

    def has_next_record_key(self) -> bool: ...

    def promote_next_record_key(self) -> None:
        """The next record key becomes the present one; the old one is gone."""
        ...

    def certificate_request(self, terminal: str) -> CertificateRequest:
        """For a TLS key that is made once and kept until a certificate is bound to it."""
        ...

    def bind_certificate(self, chain_pem: str) -> None:
        """From now on TLS uses the requested key with this chain. KeyRefused if the two do not fit."""
        ...

    def validity(self) -> Validity | None:
        """Of the present client certificate; None before enrolment."""
        ...

    def load_client_certificate(self, context: ssl.SSLContext) -> None: ...


class FileKey:
    """A record key in memory, from a PEM file."""

    __slots__ = ("_key", "_kid", "_public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self._kid = key_id(self._public)

    @classmethod
    def load(cls, path: Path) -> FileKey:
        """KeyRefused if the file is missing, not private to its owner, or no Ed25519 key."""
        return cls(_ed25519(files.read_private(path), path))

    @classmethod
    def load_or_make(cls, path: Path) -> FileKey:
        if not path.exists():
            files.create_once(path, _pem(Ed25519PrivateKey.generate()))
        return cls.load(path)

    @property
    def kid(self) -> bytes:
        return self._kid

    @property
    def public_key(self) -> bytes:
        return self._public

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"FileKey(kid={self._kid.hex()})"


class FileKeyStore:
    """Keys as files of one directory (mode 0700), which belongs to no disk image and no backup."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._record_key: FileKey | None = None

    def record_key(self) -> FileKey:
        if self._record_key is None:
            files.make_private_directory(self._directory)
            self._record_key = FileKey.load_or_make(self._directory / RECORD_KEY_FILE)
        return self._record_key

    def next_record_key(self) -> FileKey:
        return FileKey.load_or_make(self._directory / NEXT_RECORD_KEY_FILE)

    def has_next_record_key(self) -> bool:
        return (self._directory / NEXT_RECORD_KEY_FILE).exists()

    def promote_next_record_key(self) -> None:
        self._record_key = self.next_record_key()
        (self._directory / NEXT_RECORD_KEY_FILE).replace(self._directory / RECORD_KEY_FILE)
        files.sync_directory(self._directory)

    def certificate_request(self, terminal: str) -> CertificateRequest:
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        key = self._pending_tls_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, terminal)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        return CertificateRequest(pem=request.public_bytes(Encoding.PEM).decode("ascii"), der=request.public_bytes(Encoding.DER))

    def bind_certificate(self, chain_pem: str) -> None:
        from cryptography import x509

        pending = self._directory / TLS_PENDING_FILE
        key = _p256(files.read_private(pending), pending)
        try:
            chain = x509.load_pem_x509_certificates(chain_pem.encode("ascii"))
        except ValueError as err:
            raise KeyRefused("the certificate chain cannot be read") from err
        if chain[0].public_key() != key.public_key():
            raise KeyRefused("the certificate was made for another key")
        begin_ms, end_ms = (
            int(date.timestamp() * 1000) for date in (chain[0].not_valid_before_utc, chain[0].not_valid_after_utc)
        )
        # Text before the first block is nobody's business but ours (RFC 7468, section 2); it saves the running agent a certificate parser.
        whole = (
            f"valid {begin_ms} {end_ms}\n".encode("ascii")
            + _pem(key)
            + b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
        )
        files.write_atomically(self._directory / TLS_FILE, whole)
        pending.unlink()

    def validity(self) -> Validity | None:
        path = self._directory / TLS_FILE
        if not path.exists():
            return None
        match = re.match(rb"valid ([0-9]{1,15}) ([0-9]{1,15})\n", files.read_private(path))
        if match is None:
            raise KeyRefused(f"{path} was not written by this agent; enrol this terminal again")
        return Validity(int(match[1]), int(match[2]))

    def load_client_certificate(self, context: ssl.SSLContext) -> None:
        path = self._directory / TLS_FILE
        files.read_private(path)
        try:
            context.load_cert_chain(path)
        except ssl.SSLError as err:
            raise KeyRefused(f"{path}: key and certificate do not fit together") from err

    def _pending_tls_key(self) -> ec.EllipticCurvePrivateKey:
        path = self._directory / TLS_PENDING_FILE
        if not path.exists():
            files.make_private_directory(self._directory)
            files.create_once(path, _pem(ec.generate_private_key(ec.SECP256R1())))
        return _p256(files.read_private(path), path)


def _pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _ed25519(pem: bytes, path: Path) -> Ed25519PrivateKey:
    key = _load(pem, path)
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyRefused(f"{path} is not an Ed25519 key")
    return key


def _p256(pem: bytes, path: Path) -> ec.EllipticCurvePrivateKey:
    key = _load(pem, path)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyRefused(f"{path} is not a P-256 key")
    return key


def _load(pem: bytes, path: Path) -> object:
    try:
        return load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as err:
        raise KeyRefused(f"{path} is not a private key in PEM without password") from err
