"""Signing in and out: rows of `staff` and `login`. The cookie's token never reaches the database, only its hash."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from fleet_server import audit
from fleet_server.accounts import rules
from fleet_server.accounts.events import remember
from fleet_server.accounts.passwords import Passwords, new_token, token_hash
from fleet_server.accounts.rules import Account, Limits, Session
from fleet_server.engine import FleetEngine
from fleet_server.thresholds.rules import values

HASHING_AT_ONCE: Final = 2
"""Each takes 64 MiB and a processor for a while: strangers who guess may not take the machine from the pages."""
MINUTE_MS: Final = 60_000
EVEN_S: Final = 0.25
"""A refusal comes at a multiple of this after its request: the write that a known name costs is not to be seen in the time it takes."""


REFUSALS_TOLD_EVERY_MS: Final = MINUTE_MS
"""Strangers, and those who go on guessing at a locked account, fill the audit log with one row a minute at most; it says how many there were."""
STRANGER: Final = "?"
"""Object of a sign-in under a name that there is not: what was typed may be a password."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A fresh session; `token` goes into the cookie and nowhere else."""

    token: str
    session: Session

    def __repr__(self) -> str:
        return f"SignedIn({self.session.name})"


class Sessions:
    """The one place that opens, finds and ends sessions."""

    def __init__(self, db: FleetEngine, passwords: Passwords) -> None:
        self._db = db
        self._passwords = passwords
        self._hashing = asyncio.Semaphore(HASHING_AT_ONCE)
        self._limits, self._limits_of = rules.USUAL, 0
        self._told_ms: dict[str, int] = {}
        self._untold: dict[str, int] = {}

    async def limits(self) -> Limits:
        """The limits that operators set; read again when a threshold was set since."""
        newest = (await self._db.read("SELECT max(id) AS id FROM threshold"))[0]["id"] or 0
        if newest != self._limits_of:
            self._limits, self._limits_of = limits_of(await self._db.look(values)), newest
        return self._limits

    async def sign_in(self, name: str, password: str, *, now_ms: int, lang: str | None = None) -> SignedIn | None:
        """A new session, or None: wrong name, wrong password and locked account are one answer and take the same time."""
        began_s = time.monotonic()
        account = await self._attempt(name, password, now_ms=now_ms)
        if account is None:
            await asyncio.sleep(-(time.monotonic() - began_s) % EVEN_S)
            return None
        return await self._open(account, now_ms=now_ms, lang=lang or account.lang)

    async def _attempt(self, name: str, password: str, *, now_ms: int) -> Account | None:
        """The account if the password fits and it is not locked. Every failure counts, wherever it was made."""
        account = await self._account(name)
        stored = account.password_hash if account else None
        # argon2 holds the processor for tens of milliseconds on purpose: not on the event loop.
        async with self._hashing:
            fits = await asyncio.to_thread(self._passwords.fits, stored, password[: rules.PASSWORD_MAX])
        if account is None:
            if self._is_told(STRANGER, now_ms):
                await self._db.write(lambda connection: self._tell_refusal(connection, STRANGER, "unknown", now_ms))
            return None

        limits = await self.limits()

        def decide(connection: sqlite3.Connection) -> bool:
            # Read again inside the transaction: two browsers may be guessing at once.
            current = _account_of(_one(connection, "SELECT * FROM staff WHERE name = ?", account.name))
            attempt = rules.judge(current, fits, now_ms, limits)
            if attempt.locked_until_ms is not None and attempt.locked_until_ms != current.locked_until_ms:
                remember(connection, account.name, "locked", by="", now_ms=now_ms)
            connection.execute(
                "UPDATE staff SET failed = ?, locked_until_ms = ? WHERE name = ?",
                (attempt.failed, attempt.locked_until_ms, account.name),
            )
            if not attempt.admitted:
                shut = current.disabled or rules.locked(current, now_ms)
                if not shut or self._is_told(account.name, now_ms):
                    why = "disabled" if current.disabled else "locked" if shut else "password"
                    self._tell_refusal(connection, account.name, why, now_ms)
            return attempt.admitted

        return account if await self._db.write(decide) else None

    def _is_told(self, name: str, now_ms: int) -> bool:
        """Whether a refusal that anybody can bring about gets a row; else it is counted in the next one."""
        told_ms = self._told_ms.get(name)
        if told_ms is not None and 0 <= now_ms - told_ms < REFUSALS_TOLD_EVERY_MS:
            self._untold[name] = self._untold.get(name, 0) + 1
            return False
        self._told_ms[name] = now_ms
        return True

    def _tell_refusal(self, connection: sqlite3.Connection, name: str, why: str, now_ms: int) -> None:
        count = self._untold.pop(name, 0) + 1
        audit.write(connection, "", "", "session.refuse", f"account:{name}", {"why": why, "count": count}, "refused", now_ms)

    async def find(self, token: str, *, now_ms: int) -> Session | None:
        """The living session of a cookie; marks it as seen at most once a minute."""
        hashed = token_hash(token)
        rows = await self._db.read(
            "SELECT l.token_hash, l.created_ms, l.seen_ms, l.expires_ms, l.csrf, s.name, s.display, s.role, s.must_change, s.lang,"
            " s.letters FROM login l JOIN staff s ON s.name = l.staff WHERE l.token_hash = ? AND s.disabled_ms IS NULL",
            (hashed,),
        )
        if not rows:
            return None
        session = _session_of(rows[0])
        if not rules.alive(session, now_ms, await self.limits()):
            await self.sign_out(session, now_ms=now_ms, why="expired")
            return None
        return session

    async def touch(self, session: Session, *, now_ms: int) -> None:
        """Note that a person, not a page's own refresh, used the session."""
        if now_ms - session.seen_ms >= rules.SEEN_EVERY_MS:
            await self._db.write(
                lambda connection: connection.execute(
                    "UPDATE login SET seen_ms = ? WHERE token_hash = ?", (now_ms, session.token_hash)
                )
            )

    async def sign_out(self, session: Session, *, now_ms: int, why: str = "self") -> None:
        def end(connection: sqlite3.Connection) -> None:
            done = connection.execute("DELETE FROM login WHERE token_hash = ?", (session.token_hash,))
            if done.rowcount == 1:
                actor = session.name if why == "self" else audit.SERVER
                audit.write(connection, actor, None, "session.close", f"account:{session.name}", {"why": why}, now_ms=now_ms)

        await self._db.write(end)

    async def password_fits(self, session: Session, password: str, *, now_ms: int) -> bool:
        """Whether somebody signed in knows the password. Guessing here locks the account as at the door, and ends the session it is tried from."""
        if await self._attempt(session.name, password, now_ms=now_ms):
            return True
        account = await self._account(session.name)
        if account is None or rules.locked(account, now_ms):
            await self.sign_out(session, now_ms=now_ms, why="locked")
        return False

    async def hashed(self, password: str) -> str:
        """What is stored of a password."""
        async with self._hashing:
            return await asyncio.to_thread(self._passwords.hash, password)

    async def change_password(self, session: Session, password: str, *, now_ms: int) -> SignedIn:
        """Set a new password, end every session of the account, open a new one. The caller has checked the old password and the rules."""
        hashed = await self.hashed(password)

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE staff SET password_hash = ?, must_change = 0, failed = 0, locked_until_ms = NULL, password_ms = ? WHERE name = ?",
                (hashed, now_ms, session.name),
            )
            connection.execute("DELETE FROM login WHERE staff = ?", (session.name,))
            remember(connection, session.name, "password", by=session.name, now_ms=now_ms)

        await self._db.write(change)
        account = await self._account(session.name)
        assert account is not None
        return await self._open(account, now_ms=now_ms, lang=account.lang)

    async def set_language(self, session: Session, lang: str) -> None:
        await self._db.write(
            lambda connection: connection.execute("UPDATE staff SET lang = ? WHERE name = ?", (lang, session.name))
        )

    async def _account(self, name: str) -> Account | None:
        rows = await self._db.read("SELECT * FROM staff WHERE name = ?", (name[:64],))
        return _account_of(rows[0]) if rows else None

    async def _open(self, account: Account, *, now_ms: int, lang: str) -> SignedIn:
        token, csrf = new_token(), new_token()
        hashed = token_hash(token)
        limits = await self.limits()

        def insert(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM login WHERE expires_ms <= ? OR seen_ms <= ?", (now_ms, now_ms - limits.idle_ms))
            connection.execute(
                "INSERT INTO login (token_hash, staff, created_ms, seen_ms, expires_ms, csrf) VALUES (?, ?, ?, ?, ?, ?)",
                (hashed, account.name, now_ms, now_ms, now_ms + limits.absolute_ms, csrf),
            )
            connection.execute(
                "DELETE FROM login WHERE staff = ? AND token_hash NOT IN"
                " (SELECT token_hash FROM login WHERE staff = ? ORDER BY seen_ms DESC, created_ms DESC LIMIT ?)",
                (account.name, account.name, limits.max_sessions),
            )
            connection.execute("UPDATE staff SET lang = ? WHERE name = ?", (lang, account.name))
            audit.write(connection, account.name, None, "session.open", f"account:{account.name}", now_ms=now_ms)

        await self._db.write(insert)
        letters = (await self._db.read("SELECT letters FROM staff WHERE name = ?", (account.name,)))[0]["letters"]
        session = Session(
            letters=bool(letters),
            token_hash=hashed,
            name=account.name,
            display=account.display,
            role=account.role,
            must_change=account.must_change,
            lang=lang,
            csrf=csrf,
            created_ms=now_ms,
            seen_ms=now_ms,
            expires_ms=now_ms + limits.absolute_ms,
        )
        return SignedIn(token, session)


def limits_of(set_: Mapping[str, float]) -> Limits:
    """From thresholds by name."""
    return Limits(
        idle_ms=int(set_["account.idle_min"] * MINUTE_MS),
        absolute_ms=int(set_["account.session_h"] * 60 * MINUTE_MS),
        max_failed=int(set_["account.failed_max"]),
        locked_ms=int(set_["account.locked_min"] * MINUTE_MS),
        max_sessions=int(set_["account.sessions_max"]),
        password_min=int(set_["account.password_min"]),
    )


def _one(connection: sqlite3.Connection, sql: str, *params: Any) -> dict[str, Any]:
    return cast(dict[str, Any], connection.execute(sql, params).fetchone())


def _account_of(row: dict[str, Any]) -> Account:
    return Account(
        name=row["name"],
        display=row["display"],
        password_hash=row["password_hash"],
        role=rules.known_role(row["role"]),
        failed=row["failed"],
        locked_until_ms=row["locked_until_ms"],
        must_change=bool(row["must_change"]),
        lang=row["lang"],
        disabled=row["disabled_ms"] is not None,
    )


def _session_of(row: dict[str, Any]) -> Session:
    return Session(
        token_hash=row["token_hash"],
        name=row["name"],
        display=row["display"],
        role=rules.known_role(row["role"]),
        must_change=bool(row["must_change"]),
        lang=row["lang"],
        csrf=row["csrf"],
        created_ms=row["created_ms"],
        seen_ms=row["seen_ms"],
        expires_ms=row["expires_ms"],
        letters=bool(row["letters"]),
    )
