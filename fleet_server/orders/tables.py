"""Tables. What was asked of terminals, what was signed for each, what each reported."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Configuration(Table, tablename="configuration"):
    """One version of a terminal configuration. Rows are never changed: going back means wanting an earlier version again."""

    version = Serial(primary_key=True)
    made_ms = BigInt()
    made_by = Text()
    note = Text(default="")
    content = Text()
    """JSON: devices, items, intervals."""


class OrderRequest(Table, tablename="order_request"):
    """What one person asked of one or many terminals, and what was decided about it."""

    id = Bytea(primary_key=True)
    at_ms = BigInt()
    kind = Text()
    """selfTest, restart, pullLogs, cancel; or a piece of the desired state: configuration, lock, unlock."""
    body = Text()
    """JSON of the order's body, `{"sha256": …, "version": n}`, `{"zh": …, "en": …}` or `{}`."""
    requested_by = Text()
    note = Text(default="")
    expires_ms = BigInt()
    """After this nobody approves it any more, and no terminal begins it."""
    terminals = BigInt()
    needs_two = Text(default="")
    """Why a second person must approve: `risky` or `batch`; empty: nobody must."""
    digest = Bytea()
    """SHA-256 over all of the above and the terminals: what is approved."""
    state = Text()
    """waiting, approved, rejected, withdrawn, lapsed, or refused (dispatch found the approval wanting)."""
    state_ms = BigInt()
    decided_by = Text(null=True, default=None)
    decided_ms = BigInt(null=True, default=None)
    decided_note = Text(default="")
    approved_digest = Bytea(null=True, default=None)


class OrderItem(Table, tablename="order_item"):
    """One terminal of a request."""

    id = Serial(primary_key=True)
    request = Bytea()
    terminal = Text()
    order_id = Bytea(null=True, default=None)
    """Id under which the terminal does it at most once; None for a piece of the desired state."""
    body = Text(null=True, default=None)
    """JSON, where it differs from the request's: what a cancel cancels."""
    kind = Text()
    expires_ms = BigInt()
    state = Text()
    """asked (not approved yet), ready (to be signed), sent (signed), received, waiting, running; or its end: done, failed, refused, expired,
    cancelled, superseded, dropped (never signed)."""
    reason = Text(default="")
    state_ms = BigInt()
    since_ms = BigInt()
    """When the state and its reason began: "waiting for … since …"."""
    heard_ms = BigInt(null=True, default=None)
    """When the first report of the terminal arrived here; it is not sent again after that."""
    first_counter = BigInt(null=True, default=None)
    counter = BigInt(null=True, default=None)
    kid = Bytea(null=True, default=None)
    envelope = Bytea(null=True, default=None)
    sealed_ms = BigInt(null=True, default=None)
    issues = BigInt(default=0)
    """How often it was signed: again under a higher counter when the terminal called it stale."""


class OrderReport(Table, tablename="order_report"):
    """What a terminal's record says about an order."""

    id = Serial(primary_key=True)
    terminal = Text()
    order_id = Bytea(null=True, default=None)
    counter = BigInt()
    kind = Text()
    state = Text()
    reason = Text()
    slot = Text(null=True, default=None)
    count_ = BigInt(db_column_name="count", default=1)
    at_ms = BigInt()
    received_ms = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class DesiredReport(Table, tablename="desired_report"):
    """What a terminal's record says about a desired state."""

    id = Serial(primary_key=True)
    terminal = Text()
    counter = BigInt()
    state = Text()
    reason = Text()
    config_version = BigInt()
    locked = BigInt()
    count_ = BigInt(db_column_name="count", default=1)
    at_ms = BigInt()
    received_ms = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class Wanted(Table, tablename="wanted"):
    """The pieces of one terminal's desired state; signed whenever `changed` is ahead of `sealed`."""

    terminal = Text(primary_key=True)
    configuration = BigInt(null=True, default=None)
    """A version."""
    configuration_sha256 = Bytea(null=True, default=None)
    """Of the content that was approved under it."""
    configuration_by = Text(null=True, default=None)
    configuration_approved_by = Text(null=True, default=None)
    configuration_ms = BigInt(null=True, default=None)
    lock = Text(null=True, default=None)
    """JSON {zh, en, since_ms}."""
    lock_by = Text(null=True, default=None)
    lock_ms = BigInt(null=True, default=None)
    bundle = Text(null=True, default=None)
    """JSON of `orders.Bundle`."""
    bundle_by = Text(null=True, default=None)
    bundle_approved_by = Text(null=True, default=None)
    bundle_ms = BigInt(null=True, default=None)
    changed_by = Text()
    changed = BigInt(default=0)
    sealed = BigInt(default=0)


class DesiredState(Table, tablename="desired_state"):
    """A desired state as it was signed; ingest delivers the newest of a terminal."""

    id = Serial(primary_key=True)
    terminal = Text()
    counter = BigInt()
    sealed_ms = BigInt()
    signed_for = Text()
    """Name of whoever asked for it."""
    approved_by = Text(null=True, default=None)
    kid = Bytea()
    envelope = Bytea()
    configuration = BigInt(null=True, default=None)
    locked = BigInt(default=0)
    bundle = Bytea(null=True, default=None)
    state = Text(default="sent")
    """sent, applied, refused, rolledBack."""
    reason = Text(default="")
    state_ms = BigInt()


class TerminalCounter(Table, tablename="terminal_counter"):
    """Highest counter given out for a terminal, or told by its birth: orders and desired states share it."""

    terminal = Text(primary_key=True)
    counter = BigInt()
    desired_held = BigInt(default=0)
    """What the newest birth says about the desired state that it holds."""


class OrderKey(Table, tablename="order_key"):
    """Certificates of order keys. Those that were not withdrawn stand in each challenge."""

    kid = Bytea(primary_key=True)
    certificate = Bytea()
    created_ms = BigInt()
    retired_ms = BigInt(null=True, default=None)
    """Another key signs now; what this one signed still counts."""
    withdrawn_ms = BigInt(null=True, default=None)
    withdrawn_by = Text(null=True, default=None)


class PulledLog(Table, tablename="pulled_log"):
    """An excerpt of an agent's log that came in answer to an order; the file lies in the data directory."""

    id = Serial(primary_key=True)
    terminal = Text()
    order_id = Bytea()
    from_ms = BigInt()
    to_ms = BigInt()
    lines = BigInt()
    cut_ = BigInt(db_column_name="cut", default=0)
    size = BigInt()
    """Bytes of the text."""
    sha256 = Bytea()
    """Of the text."""
    received_ms = BigInt()
    removed_ms = BigInt(null=True, default=None)
    """The file's time was over."""


class Play(Table, tablename="play"):
    """Proof of play: how often a page of a content package was shown in a span."""

    id = Serial(primary_key=True)
    terminal = Text()
    component = Text()
    version = Text()
    page = Text()
    from_ms = BigInt()
    to_ms = BigInt()
    count_ = BigInt(db_column_name="count")
    seconds = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()
