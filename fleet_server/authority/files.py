"""Keys and certificates as files: written whole or not at all, private ones readable by their owner only."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fleet_server.errors import FleetServerError


class AuthorityError(FleetServerError):
    """Keys or certificates that are missing, unreadable or do not fit together; the operator of the server must act."""


def write_private(path: Path, data: bytes) -> None:
    write(path, data, mode=0o600)


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path`: after a power cut it holds the old bytes or the new ones."""
    building = path.with_name(f".{path.name}.new")
    building.unlink(missing_ok=True)
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_pem(key: Ed25519PrivateKey | EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def new_tls_key() -> EllipticCurvePrivateKey:
    return generate_private_key(SECP256R1())


def read_ed25519(path: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(_read_private(path), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise AuthorityError(f"{path}: not an Ed25519 key")
    return key


def read_p256(path: Path) -> EllipticCurvePrivateKey:
    key = load_pem_private_key(_read_private(path), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise AuthorityError(f"{path}: not an EC key")
    return key


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as err:
        raise AuthorityError(f"{path}: no readable certificate") from err


def _read_private(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise AuthorityError(f"{path}: a private key that other users may read; chmod 600 it after asking how that came")
        return path.read_bytes()
    except OSError as err:
        raise AuthorityError(f"{path}: {err.strerror}") from err
