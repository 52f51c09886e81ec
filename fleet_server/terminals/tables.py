"""Tables. The registry of terminals, their keys and the newest state of their devices."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Terminal(Table, tablename="terminal"):
    """What operators maintain; no heartbeat ever touches it."""

    id = Text(primary_key=True)
    code = Text()
    type = Text()
    name_zh = Text()
    name_en = Text()
    site = Text()
    class_ = Text(db_column_name="class", default="government")
    inventory = Text(default="[]")
    created_ms = BigInt()
    enrolled_ms = BigInt(null=True, default=None)
    revoked_ms = BigInt(null=True, default=None)
    maintenance_until_ms = BigInt(null=True, default=None)
    maintenance_reason = Text(null=True, default=None)
    maintenance_by = Text(null=True, default=None)
    tags = Text(default="[]")
    revoked_by = Text(null=True, default=None)
    revoked_reason = Text(null=True, default=None)


class Maintenance(Table, tablename="maintenance"):
    """A span in which a person took a terminal out of play. It lasts until `to_ms`, else until `until_ms`: what nobody ends ends by itself."""

    id = Serial(primary_key=True)
    terminal = Text()
    from_ms = BigInt()
    to_ms = BigInt(null=True, default=None)
    until_ms = BigInt()
    reason = Text()
    by = Text()
    ended_by = Text(null=True, default=None)


class VanStop(Table, tablename="van_stop"):
    """Where a van is to stand from when to when (WGS-84, units of 0.0001 degrees), and what became of it: `reached`, `missed`, or nothing yet."""

    id = Serial(primary_key=True)
    terminal = Text()
    name = Text()
    lat_e4 = BigInt()
    lon_e4 = BigInt()
    from_ms = BigInt()
    to_ms = BigInt()
    made_ms = BigInt()
    by = Text()
    outcome = Text(null=True, default=None)


class TerminalLive(Table, tablename="terminal_live"):
    """What connections and batches last said."""

    terminal = Text(primary_key=True)
    last_seen_ms = BigInt(null=True, default=None)
    seen_by = Text(null=True, default=None)
    connected = BigInt()
    last_report_ms = BigInt(null=True, default=None)
    agent_version = Text(null=True, default=None)
    os = Text(null=True, default=None)
    boot_no = BigInt(null=True, default=None)
    boot_id = Bytea(null=True, default=None)
    outbox_depth = BigInt(null=True, default=None)
    outbox_oldest_ms = BigInt(null=True, default=None)
    clock_offset_ms = BigInt(null=True, default=None)
    clock_quality = Text(null=True, default=None)
    cert_not_after_ms = BigInt(null=True, default=None)
    birth_ms = BigInt(null=True, default=None)
    will_ms = BigInt(null=True, default=None)


class EnrolmentCode(Table, tablename="enrolment_code"):
    """A one-time code, hashed."""

    id = Serial(primary_key=True)
    terminal = Text()
    code_hash = Bytea()
    created_ms = BigInt()
    expires_ms = BigInt()
    tries_left = BigInt()
    used_ms = BigInt(null=True, default=None)
    used_by = Bytea(null=True, default=None)
    created_by = Text()


class RecordKey(Table, tablename="record_key"):
    """A certified record key; `last_*` is the position of its rotation record, nothing behind it is accepted under this key."""

    kid = Bytea(primary_key=True)
    terminal = Text()
    generation = BigInt()
    public_key = Bytea()
    certificate = Bytea()
    issued_ms = BigInt()
    last_stream = Bytea(null=True, default=None)
    last_no = BigInt(null=True, default=None)
    revoked_ms = BigInt(null=True, default=None)


class TlsCertificate(Table, tablename="tls_certificate"):
    """A client certificate issued to a terminal."""

    serial = Text(primary_key=True)
    terminal = Text()
    not_after_ms = BigInt()
    issued_ms = BigInt()
    revoked_ms = BigInt(null=True, default=None)


class Device(Table, tablename="device"):
    """Current state of one inventory slot; the newest capture time wins."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    family = Text()
    device = Text()
    paper = Text()
    toner = Text()
    media = Text()
    cover = Text()
    action = Text()
    owner = Text()
    limited = BigInt()
    profile = Text(null=True, default=None)
    port = Text(null=True, default=None)
    vid = BigInt(null=True, default=None)
    pid = BigInt(null=True, default=None)
    firmware = Text(null=True, default=None)
    asset = Text(null=True, default=None)
    since_ms = BigInt()
    at_ms = BigInt()
    batch = BigInt()
    idx = BigInt()
    evidence = Text(null=True, default=None)


class DeviceChange(Table, tablename="device_change"):
    """History of `device`."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    at_ms = BigInt()
    device = Text()
    paper = Text()
    toner = Text()
    media = Text()
    cover = Text()
    batch = BigInt()
    idx = BigInt()
    late = BigInt()
    disputed = BigInt()


class Sighting(Table, tablename="sighting"):
    """Hardware without a profile."""

    id = Serial(primary_key=True)
    terminal = Text()
    port = Text()
    bus = Text()
    vid = BigInt(null=True, default=None)
    pid = BigInt(null=True, default=None)
    present = BigInt()
    at_ms = BigInt()


class Consumable(Table, tablename="consumable"):
    """Newest level of a consumable."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    item = Text()
    remaining = BigInt()
    capacity = BigInt()
    unit = Text()
    source = Text()
    at_ms = BigInt()
    refilled_ms = BigInt(null=True, default=None)


class ConsumableLevel(Table, tablename="consumable_level"):
    """History of `consumable`: every level that was told, from which the daily use follows. Levels of disputed streams are not in it."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    item = Text()
    at_ms = BigInt()
    event = Text()
    remaining = BigInt()
    capacity = BigInt()
    unit = Text()
    batch = BigInt()
    idx = BigInt()


class Boot(Table, tablename="boot"):
    """A start of the agent."""

    id = Serial(primary_key=True)
    terminal = Text()
    stream = Bytea()
    at_ms = BigInt()
    agent = Text()
    os = Text()
    previous = Text()
    same_boot = BigInt()
    disputed = BigInt()
