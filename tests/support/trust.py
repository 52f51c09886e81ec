"""Terminals' keys for tests of the server: made in memory, requests built by hand from the written specification, not with the agent's code."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from fleet_server.authority.authority import Authority

NOW_MS = 1_790_000_000_000


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


@dataclass
class Keys:
    """The two keys of one terminal."""

    terminal: str
    tls: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    record: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def record_public(self) -> bytes:
        return self.record.public_key().public_bytes_raw()

    def csr(self, common_name: str | None = None) -> x509.CertificateSigningRequest:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or self.terminal)])
        return x509.CertificateSigningRequestBuilder().subject_name(name).sign(self.tls, SHA256())

    def enrol_request(self, code: str, **changes: Any) -> dict[str, Any]:
        csr = self.csr()
        return {
            "terminal": self.terminal,
            "code": code,
            "csr": csr.public_bytes(Encoding.PEM).decode(),
            "record_key": b64(self.record_public),
            "proof": b64(self._sign(["kf-enrol/1", self.terminal, csr.public_bytes(Encoding.DER)])),
            "hardware": {"agent": "0.1.0", "future": "ignored"},
            **changes,
        }

    def renew_request(self, *, endorsed_by: Keys | None = None, **changes: Any) -> dict[str, Any]:
        csr = self.csr()
        request = {
            "terminal": self.terminal,
            "csr": csr.public_bytes(Encoding.PEM).decode(),
            "record_key": b64(self.record_public),
            "proof": b64(self._sign(["kf-renew/1", self.terminal, csr.public_bytes(Encoding.DER)])),
        }
        if endorsed_by is not None:
            request["endorsement"] = b64(endorsed_by._sign(["kf-rotate/1", self.terminal, self.record_public]))
        return {**request, **changes}

    def write_tls(self, folder: Path, certificate_pem: str | bytes) -> tuple[Path, Path]:
        """(certificate, key) as files for `ssl.SSLContext.load_cert_chain`."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / "client.pem", folder / "client.key"
        certificate.write_bytes(certificate_pem.encode() if isinstance(certificate_pem, str) else certificate_pem)
        key.write_bytes(self.tls.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key.chmod(0o600)
        return certificate, key

    def _sign(self, statement: list[object]) -> bytes:
        return self.record.sign(cbor2.dumps(statement, canonical=True))


def make_authority(folder: Path, *, fleet: str = "testfleet", names: tuple[str, ...] = (), now_ms: int = NOW_MS) -> Authority:
    return Authority.create(folder / "authority", fleet, names, now_ms=now_ms)


def issue_client(authority: Authority, terminal: str, folder: Path, *, now_ms: int = NOW_MS) -> tuple[Path, Path, str]:
    """(certificate, key, serial) of a client certificate straight from the authority."""
    keys = Keys(terminal)
    issued = authority.issue_client(terminal, keys.tls.public_key(), now_ms=now_ms)
    certificate, key = keys.write_tls(folder, issued.pem)
    return certificate, key, issued.serial
