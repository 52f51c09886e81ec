"""The authority's folder: which key lies in which file, and what each may do.

fleet.json            the fleet's name
root.key              Ed25519 root; may be taken away, then no terminal can be enrolled and no server key certified until it is back
root.pub              its public half
ca.key  ca.pem        X.509 authority
crl.pem               revoked client certificates
signing/<kid>.key     the server's signing keys; <kid>.cose is the root's certificate of each, `current` names the one in use
server.key server.pem TLS of broker, enrolment and console; server.pem carries the authority behind the leaf
ingest.key ingest.pem the ingest's client certificate
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from fleet_server.authority import files, tls
from fleet_server.authority.files import AuthorityError
from protocols.contract.certs import (
    OrderKeyCert,
    RecordKeyCert,
    ServerKeyCert,
    open_server_key_cert,
    seal_order_key_cert,
    seal_record_key_cert,
    seal_server_key_cert,
)
from protocols.contract.envelope import key_id

INGEST_NAME = "server.ingest"
PROBE_NAME = "server.probe"
"""Names with a dot: no terminal id can be one of them."""
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
KICK_LIFETIME = timedelta(minutes=5)


class RootOffline(AuthorityError):
    """The root key was taken away; put `root.key` back for this step."""

    status = 503
    word = "rootOffline"


class Ed25519Signer:
    """A `protocols.contract.envelope.Signer` over a key in memory. Its repr shows the key id only."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes_raw()
        self._kid = key_id(self.public_key)

    @property
    def kid(self) -> bytes:
        return self._kid

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"Ed25519Signer({self._kid.hex()})"


class Authority:
    """An opened authority folder. Private keys are read from their files when they are needed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.fleet: str = json.loads((folder / "fleet.json").read_text("utf-8"))["fleet"]
            self.root_public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode((folder / "root.pub").read_bytes()))
        except (OSError, ValueError, KeyError) as err:
            raise AuthorityError(f"{folder}: no authority here; `fleet-server init` makes one") from err
        self.ca = files.read_certificate(self.ca_file)

    @classmethod
    def create(cls, folder: Path, fleet: str, names: Iterable[str], *, now_ms: int) -> Authority:
        """Make all keys and certificates; the folder appears complete or not at all."""
        if folder.exists():
            raise AuthorityError(f"{folder}: there is an authority already")
        making = folder.with_name(f".{folder.name}.making")
        shutil.rmtree(making, ignore_errors=True)
        (making / "signing").mkdir(parents=True, mode=0o700)
        making.chmod(0o700)
        root = Ed25519PrivateKey.generate()
        files.write_private(making / "root.key", files.private_pem(root))
        files.write(making / "root.pub", base64.b64encode(root.public_key().public_bytes_raw()) + b"\n")
        ca_key = files.new_tls_key()
        files.write_private(making / "ca.key", files.private_pem(ca_key))
        files.write(making / "ca.pem", tls.make_authority(ca_key, fleet, tls.at(now_ms)).public_bytes(Encoding.PEM))
        files.write(making / "fleet.json", json.dumps({"fleet": fleet}).encode())
        authority = cls(making)
        authority.rotate_server_key(now_ms=now_ms)
        authority.write_revocation_list([], now_ms=now_ms)
        authority.ensure_tls(names, now_ms=now_ms)
        making.rename(folder)
        files.sync_folder(folder.parent)
        return cls(folder)

    # Where things are ----------------------------------------------------------------------------------------------------------------

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def crl_file(self) -> Path:
        return self.folder / "crl.pem"

    @property
    def server_files(self) -> tuple[Path, Path]:
        """(certificate chain, key)."""
        return self.folder / "server.pem", self.folder / "server.key"

    @property
    def ingest_files(self) -> tuple[Path, Path]:
        return self.folder / "ingest.pem", self.folder / "ingest.key"

    @property
    def ca_fingerprint(self) -> str:
        """SHA-256 over the certificate's DER form, hexadecimal: what an installer types beside the code."""
        return self.ca.fingerprint(SHA256()).hex()

    @property
    def root_fingerprint(self) -> str:
        """SHA-256 over the fleet root's raw public key, hexadecimal: what `edge-agent updater pin` prints and compares."""
        return hashlib.sha256(self.root_public_key.public_bytes_raw()).hexdigest()

    # The root: what records are believed by ------------------------------------------------------------------------------------------

    @property
    def root_online(self) -> bool:
        return (self.folder / "root.key").exists()

    def certify_record_key(self, terminal: str, public_key: bytes, generation: int, *, now_ms: int) -> bytes:
        """The root's word that `public_key` is the terminal's record key of this generation. RootOffline without the root's key."""
        cert = RecordKeyCert(
            terminal=terminal, kid=key_id(public_key), public_key=public_key, generation=generation, issued_ms=now_ms
        )
        return seal_record_key_cert(cert, self._root(), self.fleet)

    def rotate_server_key(self, *, now_ms: int) -> ServerKeyCert:
        """Make a signing key, have the root certify it, use it from now on. Older certificates stay: what they signed stays verifiable."""
        root = self._root()
        key = Ed25519PrivateKey.generate()
        signer = Ed25519Signer(key)
        cert = ServerKeyCert(kid=signer.kid, public_key=signer.public_key, issued_ms=now_ms)
        name = signer.kid.hex()
        files.write_private(self.folder / "signing" / f"{name}.key", files.private_pem(key))
        files.write(self.folder / "signing" / f"{name}.cose", seal_server_key_cert(cert, root, self.fleet))
        files.write(self.folder / "signing" / "current", name.encode())
        return cert

    def certify_order_key(self, public_key: bytes, *, now_ms: int) -> bytes:
        """The root's word that this key may sign orders. The key itself is none of this folder's: backups hold the folder. RootOffline."""
        cert = OrderKeyCert(kid=key_id(public_key), public_key=public_key, issued_ms=now_ms)
        return seal_order_key_cert(cert, self._root(), self.fleet)

    def server_signer(self) -> Ed25519Signer:
        """The key that signs challenges, acknowledgements and checkpoints now."""
        return Ed25519Signer(files.read_ed25519(self.folder / "signing" / f"{self._current()}.key"))

    @property
    def server_key_certificate(self) -> bytes:
        """Root-signed certificate of `server_signer`."""
        return (self.folder / "signing" / f"{self._current()}.cose").read_bytes()

    def server_key_certificates(self) -> list[tuple[ServerKeyCert, bytes]]:
        """All that were ever issued, each verified, oldest first."""
        found = []
        for file in (self.folder / "signing").glob("*.cose"):
            raw = file.read_bytes()
            found.append((open_server_key_cert(raw, self.root_public_key, self.fleet), raw))
        return sorted(found, key=lambda pair: pair[0].issued_ms)

    def _current(self) -> str:
        try:
            return (self.folder / "signing" / "current").read_text("ascii").strip()
        except OSError as err:
            raise AuthorityError(f"{self.folder}: no signing key is in use; `fleet-server rotate-server-key` makes one") from err

    def _root(self) -> Ed25519Signer:
        file = self.folder / "root.key"
        if not file.exists():
            raise RootOffline(f"{file} is not there: the fleet's root is kept offline")
        signer = Ed25519Signer(files.read_ed25519(file))
        if signer.public_key != self.root_public_key.public_bytes_raw():
            raise AuthorityError(f"{file} is not the key of root.pub")
        return signer

    # X.509: who may connect ----------------------------------------------------------------------------------------------------------

    def terminal_uri(self, terminal: str) -> str:
        return f"urn:kiosk-fleet:{self.fleet}:terminal:{terminal}"

    def issue_client(self, terminal: str, public_key: EllipticCurvePublicKey, *, now_ms: int) -> tls.Issued:
        """A client certificate for 90 days, CN = terminal id."""
        certificate = tls.issue_client(
            self.ca, files.read_p256(self.folder / "ca.key"), public_key, terminal, self.terminal_uri(terminal), tls.at(now_ms)
        )
        return tls.Issued(
            pem=certificate.public_bytes(Encoding.PEM),
            serial=tls.serial_of(certificate),
            issued_ms=now_ms,
            not_after_ms=tls.not_after_ms(certificate),
        )

    def issue_own_client(self, name: str, *, now_ms: int, lifetime: timedelta = KICK_LIFETIME) -> bytes:
        """Key and certificate in one PEM for the server's own use: a probe, or the take-over that ends a revoked terminal's session."""
        key = files.new_tls_key()
        certificate = tls.issue_client(
            self.ca,
            files.read_p256(self.folder / "ca.key"),
            key.public_key(),
            name,
            f"urn:kiosk-fleet:{self.fleet}:server",
            tls.at(now_ms),
            lifetime,
        )
        return files.private_pem(key) + certificate.public_bytes(Encoding.PEM)

    def write_revocation_list(self, revoked: Iterable[tuple[str, int]], *, now_ms: int) -> None:
        """Replace crl.pem; `revoked` are (serial in hexadecimal, time in ms)."""
        crl = tls.revocation_list(self.ca, files.read_p256(self.folder / "ca.key"), revoked, tls.at(now_ms))
        files.write(self.crl_file, crl.public_bytes(Encoding.PEM))

    def ensure_tls(self, names: Iterable[str], *, now_ms: int) -> bool:
        """Renew the server's and the ingest's certificates when names changed or a third of the lifetime is left; True if something changed."""
        wanted = list(dict.fromkeys([*names, *LOOPBACK_NAMES]))
        changed = False
        chain, key_file = self.server_files
        if self._due(chain, now_ms) or tls.names_of(files.read_certificate(chain)) != frozenset(wanted):
            key = files.new_tls_key()
            certificate = tls.issue_server(
                self.ca, files.read_p256(self.folder / "ca.key"), key.public_key(), wanted, tls.at(now_ms)
            )
            self._write_pair(chain, key_file, files.private_pem(key), certificate)
            changed = True
        chain, key_file = self.ingest_files
        if self._due(chain, now_ms):
            pem = self.issue_own_client(INGEST_NAME, now_ms=now_ms, lifetime=tls.SERVER_LIFETIME)
            self._write_pair(chain, key_file, pem, x509.load_pem_x509_certificate(pem))
            changed = True
        return changed

    def _write_pair(self, chain: Path, key_file: Path, key_pem: bytes, certificate: x509.Certificate) -> None:
        # The certificate goes first and last: while it is missing, the pair counts as due, so a cut between the two files heals at the next start.
        chain.unlink(missing_ok=True)
        files.write_private(key_file, key_pem.split(b"-----BEGIN CERTIFICATE")[0])
        files.write(chain, certificate.public_bytes(Encoding.PEM) + self.ca.public_bytes(Encoding.PEM))

    def _due(self, chain: Path, now_ms: int) -> bool:
        if not chain.exists():
            return True
        left_ms = tls.not_after_ms(files.read_certificate(chain)) - now_ms
        return left_ms < tls.SERVER_LIFETIME.total_seconds() * 1000 / 3
