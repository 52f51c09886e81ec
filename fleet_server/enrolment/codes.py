"""One-time enrolment codes: 160 random bits in base32, shown once, kept as a hash."""

from __future__ import annotations

import base64
import hashlib
import secrets

CODE_BYTES = 20
SYMBOLS = 32
LIFETIME_MS = 24 * 3600 * 1000
TRIES = 5
_ALPHABET = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def new() -> str:
    """As it is shown: eight groups of four."""
    symbols = base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode("ascii")
    return "-".join(symbols[at : at + 4] for at in range(0, SYMBOLS, 4))


def reduce(typed: str) -> str | None:
    """The 32 symbols of what a person typed; None if it cannot be a code."""
    symbols = "".join(typed.split()).replace("-", "").upper()
    return symbols if len(symbols) == SYMBOLS and _ALPHABET.issuperset(symbols) else None


def digest(terminal: str, symbols: str) -> bytes:
    """What the database keeps. A plain hash is enough: 160 random bits cannot be searched."""
    return hashlib.sha256(f"kf-code/1\0{terminal}\0{symbols}".encode("ascii")).digest()
