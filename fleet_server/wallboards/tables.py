"""Tables. Screens on walls, which see without an account."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Wallboard(Table, tablename="wallboard"):
    """A screen and its view token, which is stored hashed; `views` are words with commas."""

    id = Serial(primary_key=True)
    name = Text()
    token_hash = Bytea()
    lang = Text(default="zh")
    views = Text()
    interval_s = BigInt()
    created_ms = BigInt()
    created_by = Text()
    expires_ms = BigInt()
    changed_ms = BigInt(null=True, default=None)
    changed_by = Text(null=True, default=None)
    revoked_ms = BigInt(null=True, default=None)
    revoked_by = Text(null=True, default=None)
    seen_ms = BigInt(null=True, default=None)
