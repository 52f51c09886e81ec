"""Tables. Fault episodes and what people did about them."""

from __future__ import annotations

from piccolo.columns import BigInt, Serial, Text
from piccolo.table import Table


class Fault(Table, tablename="fault"):
    """One episode; `id` is `terminal:hex(record id)`. Faults found by the server itself have source `platform` and no batch.

    `muted_severity` is what whoever muted it had seen: a mute ends when the fault becomes worse than that.
    """

    id = Text(primary_key=True)
    terminal = Text()
    slot = Text(null=True, default=None)
    code = Text()
    severity = Text()
    mandatory = BigInt()
    opened_ms = BigInt()
    since_ms = BigInt()
    cleared_ms = BigInt(null=True, default=None)
    cleared_by = Text(null=True, default=None)
    open_batch = BigInt(null=True, default=None)
    open_idx = BigInt(null=True, default=None)
    clear_batch = BigInt(null=True, default=None)
    clear_idx = BigInt(null=True, default=None)
    profile = Text(null=True, default=None)
    evidence = Text(null=True, default=None)
    disputed = BigInt()
    late = BigInt()
    source = Text(default="terminal")
    claimed_by = Text(null=True, default=None)
    claimed_ms = BigInt(null=True, default=None)
    muted_until_ms = BigInt(null=True, default=None)
    muted_reason = Text(null=True, default=None)
    muted_by = Text(null=True, default=None)
    muted_severity = Text(null=True, default=None)
    false_alarm = BigInt()


class FaultEvent(Table, tablename="fault_event"):
    """One step in a fault's history; `until_ms` is the end that was set with a mute."""

    id = Serial(primary_key=True)
    fault = Text()
    at_ms = BigInt()
    kind = Text()
    by = Text(null=True, default=None)
    text = Text(null=True, default=None)
    until_ms = BigInt(null=True, default=None)
