"""Owns what `edge-agent updater pin` may write: root reads files of the agent's user here, so they are a stranger's until they have been parsed.

Only what was parsed is written, in this program's own form: whatever else a link or a file of the agent's user could carry never gets into `/etc`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from edge_agent import identity
from edge_agent.errors import AgentError, ConfigError
from edge_agent.updater.source import Pinned


class PinRefused(AgentError):
    """Whom this terminal trusts would change, and nobody said that this is meant."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """SHA-256, hexadecimal, as `fleet-server` prints them with the one-time code."""

    root: str
    """Of the fleet root's raw public key."""
    ca: tuple[str, ...]
    """Of each CA certificate's DER form."""

    @classmethod
    def of(cls, pinned: Pinned) -> Fingerprints:
        certificates = x509.load_pem_x509_certificates(pinned.ca_pem.encode("ascii"))
        return cls(
            hashlib.sha256(pinned.who.root_key).hexdigest(), tuple(each.fingerprint(SHA256()).hex() for each in certificates)
        )


def load_strange(folder: Path) -> Pinned:
    """What lies in the agent's folder, parsed. NotEnrolled if something is missing, ConfigError if it is not what it should be."""
    found = Pinned.load(folder)
    try:
        Ed25519PublicKey.from_public_bytes(found.who.root_key)
        certificates = x509.load_pem_x509_certificates(found.ca_pem.encode("ascii"))
    except ValueError:
        raise ConfigError(f"{folder / identity.CA_FILE}: no CA certificates in PEM") from None
    for name, raw in (("image", found.roots.image), ("director", found.roots.director)):
        _check_root(folder / identity.UPDATE_ROOT_FILES[name], raw)
    pem = b"".join(each.public_bytes(Encoding.PEM) for each in certificates).decode("ascii")
    return Pinned(who=found.who, ca_pem=pem, roots=found.roots)


def _check_root(path: Path, raw: bytes) -> None:
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        metadata = Metadata[Root].from_bytes(raw)
        if not isinstance(metadata.signed, Root):
            raise ConfigError(f"{path}: no root metadata")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(f"{path}: no root metadata that its own keys signed") from None


def check_change(found: Pinned, folder: Path, *, expected_root: str | None, replace: bool) -> None:
    """PinRefused if `expected_root` is another, or if what is pinned in `folder` trusts others than `found` and not both were given."""
    new = Fingerprints.of(found)
    if expected_root is not None and expected_root != new.root:
        raise PinRefused(f"the fleet root has the fingerprint {new.root}, not the one that was given")
    if not os.path.lexists(folder / identity.IDENTITY_FILE) or (replace and expected_root is not None):
        return
    pinned = load_strange(folder)
    old = Fingerprints.of(pinned)
    changed = [
        what
        for what, is_it in (
            ("fleet root", old.root != new.root),
            ("fleet", pinned.who.fleet != found.who.fleet),
            ("terminal", pinned.who.terminal != found.who.terminal),
            ("CA", sorted(old.ca) != sorted(new.ca)),
            ("root of the image repository", pinned.roots.image != found.roots.image),
            ("root of the director", pinned.roots.director != found.roots.director),
        )
        if is_it
    ]
    if changed:
        raise PinRefused(
            f"another {', '.join(changed)} is pinned in {folder} (fleet root {old.root}, now {new.root}): compare with the server's output, then"
            " repeat with --replace --fleet-root <fingerprint>"
        )


def parse_fingerprint(text: str) -> str:
    """SHA-256 in hexadecimal, with or without colons. ConfigError otherwise."""
    plain = text.replace(":", "").lower()
    if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
        raise ConfigError("the fingerprint of the fleet root is not SHA-256 in hexadecimal (64 digits)")
    return plain
