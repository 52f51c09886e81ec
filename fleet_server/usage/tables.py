"""Tables. Service sessions, ratings, queue events, counters and the days figures are computed for."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Session(Table, tablename="session"):
    """One finished case."""

    id = Serial(primary_key=True)
    terminal = Text()
    sid = Bytea()
    item = Text()
    channel = Text()
    outcome = Text()
    cause = Text()
    began_ms = BigInt()
    duration_ms = BigInt()
    day = Text()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class Rating(Table, tablename="rating"):
    """A good or bad review."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text(null=True, default=None)
    level = BigInt()
    channel = Text()
    at_ms = BigInt()
    day = Text()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class QueueEvent(Table, tablename="queue_event"):
    """A key of a call pad."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    action = Text()
    at_ms = BigInt()
    day = Text()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class Counters(Table, tablename="counters"):
    """What a device did in a span."""

    id = Serial(primary_key=True)
    terminal = Text()
    from_ms = BigInt()
    to_ms = BigInt()
    slot = Text()
    total = BigInt()
    ok = BigInt()
    failed = BigInt()
    lifetime = BigInt(null=True, default=None)
    derived = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class Serviceability(Table, tablename="serviceability"):
    """How long the terminal could serve in a span."""

    id = Serial(primary_key=True)
    terminal = Text()
    from_ms = BigInt()
    to_ms = BigInt()
    observed_s = BigInt()
    usable_s = BigInt()
    partial_s = BigInt()
    unusable_s = BigInt()
    in_use_s = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class HostHealth(Table, tablename="host_health"):
    """The host's own figures in a span."""

    id = Serial(primary_key=True)
    terminal = Text()
    from_ms = BigInt()
    to_ms = BigInt()
    cpu_pct = BigInt()
    mem_free_mib = BigInt()
    disk_free_mib = BigInt()
    temp_c = BigInt(null=True, default=None)
    uptime_s = BigInt()
    agent_rss_kib = BigInt()
    outbox_batches = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class Reading(Table, tablename="reading"):
    """A measured quantity in a span."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    from_ms = BigInt()
    to_ms = BigInt()
    quantity = Text()
    unit = Text()
    min_tenths = BigInt()
    mean_tenths = BigInt()
    max_tenths = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class VanPosition(Table, tablename="van_position"):
    """About where a van was (WGS-84, units of 0.0001 degrees). Kept for `fleet_server.facts.van.KEPT_MS`."""

    id = Serial(primary_key=True)
    terminal = Text()
    slot = Text()
    at_ms = BigInt()
    lat_e4 = BigInt()
    lon_e4 = BigInt()
    fix = Text()
    satellites = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class LinkEvent(Table, tablename="link_event"):
    """The agent's own view of its uplink."""

    id = Serial(primary_key=True)
    terminal = Text()
    at_ms = BigInt()
    state = Text()
    reason = Text()
    attempts = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class DirtyDay(Table, tablename="dirty_day"):
    """A day whose figures must be computed again."""

    id = Serial(primary_key=True)
    terminal = Text()
    day = Text()


class TerminalDay(Table, tablename="terminal_day"):
    """Figures of one terminal and local day.

    Seconds count inside the site's opening hours: `observed_s` by the terminal itself, `silent_s` offline or stopped and not observed, `blind_s` when
    the platform could not see; `maintenance_s`, when a person had taken it out of play, is in none of the others.
    """

    id = Serial(primary_key=True)
    terminal = Text()
    day = Text()
    sessions = BigInt()
    success = BigInt()
    failed = BigInt()
    abandoned = BigInt()
    query_count = BigInt()
    duration_ms_sum = BigInt()
    usable_s = BigInt()
    partial_s = BigInt()
    unusable_s = BigInt()
    observed_s = BigInt()
    scheduled_s = BigInt()
    silent_s = BigInt()
    blind_s = BigInt()
    maintenance_s = BigInt()
    ratings = Text(default="{}")
    computed_ms = BigInt()


class ChangedDay(Table, tablename="changed_day"):
    """When figures of a local day were last computed for any terminal: tells whether figures that somebody keeps are still those of the facts."""

    day = Text(primary_key=True)
    at_ms = BigInt()


class SessionTelling(Table, tablename="session_telling"):
    """Where a case was told that was told more than once: if the telling that counts is taken back, another one takes its place."""

    id = Serial(primary_key=True)
    terminal = Text()
    sid = Bytea()
    batch = BigInt()
