"""Owns the sealing of channels' secrets: addresses with tokens, signing secrets, passwords. The key is a file of its own, rows hold no clear text.

Whoever gets a copy of the database alone (a backup of one file, a file sent to support) can write to nobody's group.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fleet_server.authority.files import write_private
from fleet_server.errors import FleetServerError

KEY_NAME = "channels.key"
"""In the authority's folder: backed up and restored with it, closed to others as it is."""
_KEY_BYTES = 32
_NONCE_BYTES = 12


class SecretError(FleetServerError):
    """A secret that cannot be opened: the key is missing or another one, or the row was changed. The channel must be set anew."""


class SecretBox:
    """Seals with AES-256-GCM; what is sealed for one channel opens for no other. The key is made when something is first sealed."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / KEY_NAME

    def seal(self, clear: bytes, bound_to: str) -> bytes:
        if not self._file.exists():
            write_private(self._file, AESGCM.generate_key(_KEY_BYTES * 8))
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self._key()).encrypt(nonce, clear, bound_to.encode())

    def open(self, sealed: bytes | None, bound_to: str) -> bytes:
        """Raises SecretError."""
        if sealed is None:
            raise SecretError(f"channel {bound_to}: no secret is stored; set the channel again")
        try:
            return AESGCM(self._key()).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode())
        except (InvalidTag, ValueError) as err:
            raise SecretError(f"channel {bound_to}: its secret does not open with {self._file}; set the channel again") from err

    def _key(self) -> bytes:
        try:
            if self._file.stat().st_mode & 0o077:
                raise SecretError(f"{self._file}: other users may read it; chmod 600 it after asking how that came")
            key = self._file.read_bytes()
        except OSError as err:
            raise SecretError(f"{self._file}: {err.strerror}; set the channels again") from err
        if len(key) != _KEY_BYTES:
            raise SecretError(f"{self._file}: not a key")
        return key
