"""Who may sign in, and until when: pure decisions over stored values and `now`.

Session and lockout limits follow GB/T 22239-2019 (failed-login handling, idle logout) and the OWASP session guidance.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from fleet_server.accounts.permissions import ROLES as ROLES
from fleet_server.accounts.permissions import Role as Role
from fleet_server.accounts.permissions import role_may

IDLE_MS: Final = 30 * 60_000
ABSOLUTE_MS: Final = 12 * 3_600_000
SEEN_EVERY_MS: Final = 60_000
"""`seen_ms` is written at most this often, so that reading a page is not a write."""
MAX_FAILED: Final = 5
LOCKED_MS: Final = 10 * 60_000
PASSWORD_MIN: Final = 12
PASSWORD_MAX: Final = 128
"""argon2 is slow on purpose: nobody may send it a megabyte."""


MAX_SESSIONS: Final = 10
"""Open browsers per account (chosen); the oldest is signed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What operators may set; the defaults are those above."""

    idle_ms: int = IDLE_MS
    absolute_ms: int = ABSOLUTE_MS
    max_failed: int = MAX_FAILED
    locked_ms: int = LOCKED_MS
    max_sessions: int = MAX_SESSIONS
    password_min: int = PASSWORD_MIN


USUAL: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A row of `staff`, as far as signing in needs it."""

    name: str
    display: str
    password_hash: str
    role: Role
    failed: int
    locked_until_ms: int | None
    must_change: bool
    lang: str
    disabled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A row of `login` with its account: who is asking."""

    token_hash: bytes
    name: str
    display: str
    role: Role
    must_change: bool
    lang: str
    csrf: str
    created_ms: int
    seen_ms: int
    expires_ms: int
    letters: bool = True
    """Whether single letters of the keyboard do anything for this person."""

    @property
    def operator(self) -> bool:
        return self.role == "operator"

    def may(self, permission: str) -> bool:
        return role_may(self.role, permission)


def may(session: Session, permission: str) -> bool:
    """Whether who is asking may do it."""
    return session.may(permission)


def known_role(word: str) -> Role:
    """A role as it is stored; one that this version does not know may only look."""
    for role in ROLES:
        if role == word:
            return role
    return "viewer"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a sign-in attempt leaves behind in `staff`."""

    admitted: bool
    failed: int
    locked_until_ms: int | None


def locked(account: Account, now_ms: int) -> bool:
    return account.locked_until_ms is not None and now_ms < account.locked_until_ms


def judge(account: Account, password_fits: bool, now_ms: int, limits: Limits = USUAL) -> Attempt:
    """A locked account admits nobody, not even with the right password, and the lock is not prolonged by trying. Nor does a disabled one."""
    if account.disabled or locked(account, now_ms):
        return Attempt(False, account.failed, account.locked_until_ms)
    if password_fits:
        return Attempt(True, 0, None)
    failed = account.failed + 1
    if failed >= limits.max_failed:
        return Attempt(False, 0, now_ms + limits.locked_ms)
    return Attempt(False, failed, None)


def alive(session: Session, now_ms: int, limits: Limits = USUAL) -> bool:
    """Idle and absolute limits; a clock that went back does not lengthen a session, nor do limits that were changed since it began."""
    ends_ms = min(session.expires_ms, session.created_ms + limits.absolute_ms, session.seen_ms + limits.idle_ms)
    return session.created_ms <= now_ms < ends_ms


def password_problem(name: str, password: str, least: int = PASSWORD_MIN) -> str | None:
    """Key of what is wrong with a new password, None if it will do: length first, and not just one kind of character."""
    if len(password) < least:
        return "passwordShort"
    if len(password) > PASSWORD_MAX:
        return "passwordLong"
    if name.casefold() in password.casefold():
        return "passwordName"
    if len({unicodedata.category(char) for char in password}) < 2 or len(set(password)) < 5:
        return "passwordSimple"
    return None
