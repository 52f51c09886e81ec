"""Who is admitted, and until when: decisions over values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet_server.accounts.passwords import Passwords, new_password, new_token, token_hash
from fleet_server.accounts.rules import (
    ABSOLUTE_MS,
    IDLE_MS,
    LOCKED_MS,
    MAX_FAILED,
    Account,
    Attempt,
    Session,
    alive,
    judge,
    password_problem,
)
from tests.support.seed import quick_passwords

NOW = 1_000_000_000
ACCOUNT = Account(
    name="a", display="", password_hash="", role="viewer", failed=0, locked_until_ms=None, must_change=False, lang="zh"
)
SESSION = Session(
    token_hash=b"",
    name="a",
    display="",
    role="viewer",
    must_change=False,
    lang="zh",
    csrf="",
    created_ms=NOW,
    seen_ms=NOW,
    expires_ms=NOW + ABSOLUTE_MS,
)


def test_the_fifth_failure_locks_and_trying_does_not_prolong() -> None:
    account = ACCOUNT
    for n in range(1, MAX_FAILED):
        attempt = judge(account, False, NOW)
        assert attempt == Attempt(False, n, None)
        account = replace(account, failed=attempt.failed)
    locked = judge(account, False, NOW)
    assert locked == Attempt(False, 0, NOW + LOCKED_MS)
    account = replace(account, failed=0, locked_until_ms=locked.locked_until_ms)
    assert judge(account, True, NOW + LOCKED_MS - 1) == locked
    assert judge(account, False, NOW + LOCKED_MS - 1) == locked
    assert judge(account, True, NOW + LOCKED_MS) == Attempt(True, 0, None)


@pytest.mark.parametrize(
    ("seen_ms", "now_ms", "living"),
    [
        (NOW, NOW, True),
        (NOW, NOW + IDLE_MS - 1, True),
        (NOW, NOW + IDLE_MS, False),
        (NOW + ABSOLUTE_MS - 1, NOW + ABSOLUTE_MS - 1, True),
        (NOW + ABSOLUTE_MS - 1, NOW + ABSOLUTE_MS, False),
        (NOW, NOW - 1, False),
    ],
    ids=["fresh", "just idle enough", "idle", "old", "too old", "clock went back"],
)
def test_how_long_a_session_lives(seen_ms: int, now_ms: int, living: bool) -> None:
    assert alive(replace(SESSION, seen_ms=seen_ms), now_ms) is living


@pytest.mark.parametrize(
    ("password", "problem"),
    [
        ("river-stone-4711", None),
        ("一二三四五六七八九十甲1", None),
        ("short-1", "passwordShort"),
        ("x1" * 65, "passwordLong"),
        ("abcdefghijklmnop", "passwordSimple"),
        ("a1a1a1a1a1a1a1", "passwordSimple"),
        ("My-Operator-99", "passwordName"),
    ],
)
def test_what_a_password_must_be(password: str, problem: str | None) -> None:
    assert password_problem("operator", password) == problem


def test_first_passwords_pass_their_own_rule_and_differ() -> None:
    made = {new_password() for _ in range(50)}
    assert len(made) == 50
    assert [password for password in made if password_problem("operator", password)] == []


def test_hashes_are_argon2id_with_a_salt_and_nobody_never_fits() -> None:
    passwords = quick_passwords()
    one, two = passwords.hash("river-stone-4711"), passwords.hash("river-stone-4711")
    assert one.startswith("$argon2id$")
    assert one != two
    assert passwords.fits(one, "river-stone-4711")
    assert not passwords.fits(one, "river-stone-4712")
    assert not passwords.fits(None, "river-stone-4711")
    assert not passwords.fits("not a hash", "x")


def test_the_real_hasher_costs_what_the_rfc_asks() -> None:
    assert "m=65536,t=3,p=1" in Passwords().hash("x")


def test_tokens_are_long_and_stored_as_a_hash() -> None:
    token = new_token()
    assert len(token) >= 43
    assert token_hash(token) != token_hash(new_token())
    assert token.encode() not in token_hash(token)
