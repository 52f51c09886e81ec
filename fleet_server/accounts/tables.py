"""Tables. Staff who sign in to the console."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Staff(Table, tablename="staff"):
    """A person with a password and a role."""

    name = Text(primary_key=True)
    display = Text()
    password_hash = Text()
    role = Text(default="viewer")
    failed = BigInt()
    locked_until_ms = BigInt(null=True, default=None)
    must_change = BigInt()
    created_ms = BigInt()
    lang = Text(default="zh")
    disabled_ms = BigInt(null=True, default=None)
    letters = BigInt(default=1)
    """Whether single letters of the keyboard do anything."""
    password_ms = BigInt(null=True, default=None)
    """When the password was last set by its owner."""


class Login(Table, tablename="login"):
    """A session of a signed-in browser; the cookie's token is stored hashed."""

    token_hash = Bytea(primary_key=True)
    staff = Text()
    created_ms = BigInt()
    seen_ms = BigInt()
    expires_ms = BigInt()
    csrf = Text()


class ListColumns(Table, tablename="list_columns"):
    """Which columns a person wants to see in a list; JSON list of their names."""

    id = Serial(primary_key=True)
    staff = Text()
    page = Text()
    columns = Text(default="[]")
    set_ms = BigInt()


class AccountEvent(Table, tablename="account_event"):
    """Somebody changed an account, or it was locked. Rows are never changed."""

    id = Serial(primary_key=True)
    at_ms = BigInt()
    set_by = Text()
    staff = Text()
    kind = Text()
    detail = Text(default="")
