"""Tables. Where notifications go, those that were decided, and what each channel has been told."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class NotificationChannel(Table, tablename="channel"):
    """Somebody who wants to be told. `secret` is sealed: addresses with tokens, signing secrets, passwords."""

    id = Serial(primary_key=True)
    kind = Text()
    name = Text()
    config = Text(default="{}")
    filters = Text(default="{}")
    secret = Bytea(null=True, default=None)
    enabled = BigInt(default=1)
    set_by = Text()
    set_ms = BigInt()


class ChannelChange(Table, tablename="channel_change"):
    """Who did what to a channel, and when."""

    id = Serial(primary_key=True)
    channel = BigInt()
    name = Text()
    what = Text()
    by = Text()
    at_ms = BigInt()


class Notification(Table, tablename="notification"):
    """One message to one channel; `state` is queued, sent, failed or dropped. While queued, `next_ms` is also the lease of whoever sends it."""

    id = Serial(primary_key=True)
    channel = BigInt()
    dedupe_key = Text()
    state = Text(default="queued")
    attempts = BigInt()
    next_ms = BigInt()
    payload = Text()
    error = Text(null=True, default=None)
    created_ms = BigInt()
    sent_ms = BigInt(null=True, default=None)
    channel_name = Text()
    test = BigInt()


class Standing(Table, tablename="standing"):
    """What a channel was told and was not yet told the end of; written when a message has been delivered."""

    id = Serial(primary_key=True)
    channel = BigInt()
    subject = Text()
    severity = Text()
    level = BigInt()
    told_ms = BigInt()
