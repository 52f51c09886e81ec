"""Owns which keys may sign orders now: those whose certificates the newest challenge of this connection listed and the fleet root signed (O-103)."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocols.contract import certs
from protocols.errors import ProtocolError


class KeyRing:
    """Empty until a challenge has come."""

    def __init__(self, root: Ed25519PublicKey, fleet: str) -> None:
        self._root, self._fleet = root, fleet
        self._certificates: dict[bytes, bytes] = {}
        self.keys: dict[bytes, Ed25519PublicKey] = {}
        self.listed = False
        """Whether this connection's challenge has come."""

    def forget(self) -> None:
        """A new connection: nothing is listed yet."""
        self._certificates, self.keys, self.listed = {}, {}, False

    def take(self, certificates: Sequence[bytes]) -> None:
        """Exactly these from now on; one that the fleet root did not sign for this purpose is left out."""
        self.forget()
        self.listed = True
        for raw in certificates:
            try:
                cert = certs.open_order_key_cert(raw, self._root, self._fleet)
            except ProtocolError:
                continue
            self.keys[cert.kid] = Ed25519PublicKey.from_public_bytes(cert.public_key)
            self._certificates[cert.kid] = raw

    def certificate(self, kid: bytes) -> bytes:
        return self._certificates[kid]

    @property
    def certificates(self) -> tuple[bytes, ...]:
        return tuple(self._certificates.values())
