"""Tables. Signed envelopes as they came, the streams they form, and what could not be used."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Stream(Table, tablename="stream"):
    """One start of an agent and the parent it continues. Known by terminal and id together: an id is only a number that somebody chose."""

    id = Serial(primary_key=True)
    terminal = Text()
    stream = Bytea()
    parent_stream = Bytea(null=True, default=None)
    parent_no = BigInt(null=True, default=None)
    parent_digest = Bytea(null=True, default=None)
    boot_no = BigInt()
    boot_id = Bytea()
    head_no = BigInt()
    head_digest = Bytea()
    disputed = BigInt()
    forked = BigInt()
    verdict = Text(null=True, default=None)
    first_ms = BigInt()
    notice = Text(null=True, default=None)
    settle_from = BigInt(null=True, default=None)
    """A verdict was said, and the facts of its disputed batches from this number on still have to follow it."""


class Batch(Table, tablename="batch"):
    """A stored batch; `envelope` is empty only after a recorded erasure."""

    id = Serial(primary_key=True)
    terminal = Text()
    stream = Bytea()
    no = BigInt()
    kind = Text(default="data")
    digest = Bytea()
    prev = Bytea()
    kid = Bytea()
    context = Text()
    envelope = Bytea(null=True, default=None)
    received_ms = BigInt()
    committed_ms = BigInt()
    sealed_ms = BigInt()
    first_ms = BigInt()
    last_ms = BigInt()
    records = BigInt()
    class_ = Text(db_column_name="class")
    disputed = BigInt()
    erased_reason = Text(null=True, default=None)


class Aside(Table, tablename="aside"):
    """An authentic batch whose number was taken by another."""

    id = Serial(primary_key=True)
    stream = Bytea()
    no = BigInt()
    digest = Bytea()
    terminal = Text()
    envelope = Bytea()
    received_ms = BigInt()


class Hole(Table, tablename="hole"):
    """Numbers that a signed birth declared gone."""

    id = Serial(primary_key=True)
    stream = Bytea()
    first_no = BigInt()
    last_no = BigInt()
    terminal = Text()
    prev_digest = Bytea(null=True, default=None)
    next_prev = Bytea(null=True, default=None)
    birth_id = BigInt(null=True, default=None)
    closed_ms = BigInt()


class Birth(Table, tablename="birth"):
    """A signed greeting that closed a hole."""

    id = Serial(primary_key=True)
    terminal = Text()
    received_ms = BigInt()
    envelope = Bytea()


class Quarantine(Table, tablename="quarantine"):
    """A message that is not authentic, kept within bounds."""

    id = Serial(primary_key=True)
    terminal = Text()
    topic = Text()
    reason = Text()
    size = BigInt()
    envelope = Bytea(null=True, default=None)
    received_ms = BigInt()


class QuarantineCount(Table, tablename="quarantine_count"):
    """How often each reason met each sender."""

    id = Serial(primary_key=True)
    terminal = Text()
    reason = Text()
    count_ = BigInt(db_column_name="count")
    last_ms = BigInt()


class Parked(Table, tablename="parked"):
    """A stored record that this version cannot project."""

    id = Serial(primary_key=True)
    batch = BigInt()
    idx = BigInt()
    kind = Text()
    reason = Text()


class Checkpoint(Table, tablename="checkpoint"):
    """A signed statement over what was erased."""

    id = Serial(primary_key=True)
    terminal = Text()
    made_ms = BigInt()
    envelope = Bytea()


class ServerKey(Table, tablename="server_key"):
    """A server signing key's root-signed certificate."""

    kid = Bytea(primary_key=True)
    certificate = Bytea()
    created_ms = BigInt()
    retired_ms = BigInt(null=True, default=None)
