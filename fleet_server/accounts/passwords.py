"""Password hashes (argon2id) and random secrets. The only module that sees a password."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# RFC 9106, section 4, second recommended option: 64 MiB, three passes.
_HASHER: Final = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=1)
# Without 0, O, 1, l, I: a first password is typed off a terminal.
_TYPABLE: Final = "23456789abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ"


class Passwords:
    """Hashes and checks. `hasher` is passed in so that tests need not be slow."""

    def __init__(self, hasher: PasswordHasher = _HASHER) -> None:
        self._hasher = hasher
        # Checked when the account does not exist, so that the answer takes as long as for one that does.
        self._nobody = hasher.hash(secrets.token_urlsafe(16))

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def fits(self, password_hash: str | None, password: str) -> bool:
        """Whether `password` belongs to the hash; with no hash the same work is done and the answer is no."""
        try:
            self._hasher.verify(password_hash or self._nobody, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None


def new_password() -> str:
    """A random first password: 16 characters of 57, more than 90 bits."""
    return "-".join("".join(secrets.choice(_TYPABLE) for _ in range(4)) for _ in range(4))


def new_token() -> str:
    """256 random bits for a cookie."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored of a token: it has full entropy, so one round of SHA-256 is enough."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
