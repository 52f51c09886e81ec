"""The server half of docs/spec/enrolment.md, written a second time for the agent's tests: a CA, a fleet root and an HTTPS server on loopback."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols.contract import certs
from protocols.contract.envelope import key_id

SERVER_TIME_MS = 1_790_000_000_000
UTC = dt.UTC


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class RootKey:
    """The fleet root as a signer."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.kid = key_id(self.public_key)

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)


class SmallCa:
    def __init__(self, name: str = "test CA") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(name))
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=UTC))
            .not_valid_after(dt.datetime(2046, 1, 1, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).digest()

    def issue(
        self,
        common_name: str,
        public_key: Any,
        *,
        begin: dt.datetime | None = None,
        days: int = 90,
        server: bool = False,
    ) -> x509.Certificate:
        begin = begin or dt.datetime.now(UTC) - dt.timedelta(hours=1)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + dt.timedelta(days=days))
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if server:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """An agent that hangs up because it does not trust us is what the tests are about."""


class SmallFleet:
    """Knows terminals by (id → code). `spoil` may change an answer before it is sent; `requests` keeps what arrived."""

    def __init__(self, folder: Path, codes: dict[str, str], *, begin: dt.datetime | None = None, server_days: int = 90) -> None:
        self.ca, self.root, self.fleet = SmallCa(), RootKey(), "testfleet"
        self.codes, self.used, self.record_keys = codes, dict[str, tuple[bytes, bytes]](), dict[str, bytes]()
        self.generations = dict[str, int]()
        self.requests = list[tuple[str, dict[str, Any]]]()
        self.peers = list[str | None]()
        self.excerpts = list[tuple[str | None, str, bytes]]()
        """(terminal of the client certificate, content type, body) of what came to /api/v1/logs"""
        self.connections_with_bytes = 0
        self.spoil: Callable[[dict[str, Any]], None] = lambda _answer: None
        self.refuse: tuple[int, str] | None = None
        self.client_begin: dt.datetime | None = None
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self.ca.issue("127.0.0.1", key.public_key(), server=True, begin=begin, days=server_days)
        pem = folder / "server.pem"
        pem.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        context.load_verify_locations(cadata=self.ca.pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        self._server = _QuietServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> SmallFleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    # ------------------------------------------------------------------------------------------------------------------ the rules

    def enrol(self, ask: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        terminal = ask["terminal"]
        if terminal not in self.codes:
            return 404, {"error": "unknownTerminal"}
        if ask["code"] != self.codes[terminal]:
            return 403, {"error": "badCode"}
        csr, record_key = self._proved("kf-enrol/1", ask)
        if csr is None:
            return 400, {"error": "badProof"}
        keys = (record_key, csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
        if self.used.setdefault(terminal, keys) != keys:
            return 409, {"error": "codeUsed"}
        self.record_keys[terminal] = record_key
        return 200, self._issued(terminal, csr, record_key) | {
            "fleet": self.fleet,
            "root_key": base64.b64encode(self.root.public_key).decode(),
            "mqtt": {"host": "127.0.0.1", "port": 8883, "later": True},
            "desired": {"items": [{"code": "tax.invoice"}]},
        }

    def renew(self, ask: dict[str, Any], peer: str | None) -> tuple[int, dict[str, Any]]:
        terminal = ask["terminal"]
        known = self.record_keys.get(terminal)
        if known is None or peer not in (terminal, None):
            return 403, {"error": "revoked"}
        csr, record_key = self._proved("kf-renew/1", ask)
        if csr is None:
            return 400, {"error": "badProof"}
        if record_key != known:
            signed = cbor2.dumps(["kf-rotate/1", terminal, record_key], canonical=True)
            try:
                Ed25519PublicKey.from_public_bytes(known).verify(base64.b64decode(ask["endorsement"]), signed)
            except (InvalidSignature, KeyError):
                return 400, {"error": "badProof"}
            self.record_keys[terminal] = record_key
            self.generations[terminal] = self.generations.get(terminal, 1) + 1
        return 200, self._issued(terminal, csr, record_key)

    def _proved(self, context: str, ask: dict[str, Any]) -> tuple[x509.CertificateSigningRequest | None, bytes]:
        csr = x509.load_pem_x509_csr(ask["csr"].encode())
        record_key = base64.b64decode(ask["record_key"], validate=True)
        signed = cbor2.dumps([context, ask["terminal"], csr.public_bytes(Encoding.DER)], canonical=True)
        names = [name.value for name in csr.subject]
        try:
            Ed25519PublicKey.from_public_bytes(record_key).verify(base64.b64decode(ask["proof"]), signed)
        except InvalidSignature:
            return None, b""
        return (csr if csr.is_signature_valid and names == [ask["terminal"]] else None), record_key

    def _issued(self, terminal: str, csr: x509.CertificateSigningRequest, record_key: bytes) -> dict[str, Any]:
        certificate = self.ca.issue(terminal, csr.public_key(), begin=self.client_begin)
        record_key_certificate = certs.seal_record_key_cert(
            certs.RecordKeyCert(
                terminal=terminal,
                kid=key_id(record_key),
                public_key=record_key,
                generation=self.generations.get(terminal, 1),
                issued_ms=SERVER_TIME_MS,
            ),
            self.root,
            self.fleet,
        )
        return {
            "certificate": certificate.public_bytes(Encoding.PEM).decode(),
            "ca": self.ca.pem,
            "record_key_certificate": base64.b64encode(record_key_certificate).decode(),
            "server_time_ms": SERVER_TIME_MS,
        }

    # ------------------------------------------------------------------------------------------------------------------- the wire

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fleet = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                fleet.connections_with_bytes += 1
                self._send(200, fleet.ca.pem.encode()) if self.path == "/api/v1/ca" else self._send(404, b"")

            def do_POST(self) -> None:
                fleet.connections_with_bytes += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                certificate = self.connection.getpeercert()
                subject = [pair[0][1] for pair in certificate["subject"]] if certificate else [None]
                if self.path == "/api/v1/logs":
                    fleet.excerpts.append((subject[0], self.headers["Content-Type"], body))
                    self._send(204 if fleet.refuse is None else fleet.refuse[0], b"")
                    return
                ask = json.loads(body)
                fleet.requests.append((self.path, ask))
                fleet.peers.append(subject[0])
                if fleet.refuse is not None:
                    status, answer = fleet.refuse[0], {"error": fleet.refuse[1], "message": "for the operator's log"}
                elif self.path == "/api/v1/enrol":
                    status, answer = fleet.enrol(ask)
                else:
                    status, answer = fleet.renew(ask, subject[0])
                if status == 200:
                    fleet.spoil(answer)
                self._send(status, json.dumps(answer).encode())

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name http.server calls
                pass

        return Handler
