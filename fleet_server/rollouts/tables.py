"""Tables. What terminals say about updates; written by ingest from their signed records."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class InstalledVersion(Table, tablename="installed_version"):
    """The terminal's newest word on one component that runs there."""

    id = Serial(primary_key=True)
    terminal = Text()
    component = Text()
    version = Text()
    release = BigInt()
    sha256 = Bytea(null=True, default=None)
    at_ms = BigInt()
    batch = BigInt()
    idx = BigInt()


class VersionsTold(Table, tablename="versions_told"):
    """Each report of a terminal on what runs there, from which the newest is `installed_version`."""

    id = Serial(primary_key=True)
    terminal = Text()
    at_ms = BigInt()
    installed = Text()
    """JSON list of {component, version, release, sha256 (hexadecimal or null)}."""
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class UpdateStep(Table, tablename="update_step"):
    """A step of an update of one component, as the terminal reported it."""

    id = Serial(primary_key=True)
    terminal = Text()
    bundle = Bytea()
    rollout = Bytea()
    component = Text()
    state = Text()
    reason = Text()
    since_ms = BigInt()
    at_ms = BigInt()
    received_ms = BigInt()
    from_version = Text(null=True, default=None)
    to_version = Text()
    via = Text()
    bytes_done = BigInt()
    bytes_total = BigInt()
    tries = BigInt()
    resumed = BigInt()
    batch = BigInt()
    idx = BigInt()
    disputed = BigInt()


class Release(Table, tablename="release"):
    """An artifact of the image repository, as its signed metadata describes it, with what people say about it."""

    id = Serial(primary_key=True)
    component = Text()
    """agent, firmware, image, profiles, catalogue, content."""
    name = Text(default="")
    """Content: name of the package."""
    version = Text()
    release = BigInt()
    arch = Text(default="any")
    hardware = Text(default="[]")
    """Firmware: JSON list of the profiles it fits."""
    path = Text()
    length = BigInt()
    sha256 = Bytea()
    notes = Text(default="")
    uploaded_by = Text()
    uploaded_ms = BigInt()
    known = Text(default="")
    """`good` or `bad` once somebody said so; a bad one stops its rollouts and starts in no new one."""
    known_by = Text(null=True, default=None)
    known_ms = BigInt(null=True, default=None)
    known_reason = Text(default="")


class Rollout(Table, tablename="rollout"):
    """Releases for a target group, under a policy, asked for by one person and approved by another."""

    id = Text(primary_key=True)
    """32 hex digits."""
    title = Text()
    releases = Text()
    """JSON list of ids of `release`."""
    query = Text()
    policy = Text()
    priority = BigInt(default=0)
    state = Text()
    reason = Text(default="")
    since_ms = BigInt()
    wave = BigInt(default=-1)
    created_by = Text()
    created_ms = BigInt()
    submitted_ms = BigInt(null=True, default=None)
    approved_by = Text(null=True, default=None)
    approved_ms = BigInt(null=True, default=None)
    digest = Bytea(null=True, default=None)
    """SHA-256 over what was submitted; approved is this and nothing else."""
    paused_ms = BigInt(default=0)
    paused_since_ms = BigInt(null=True, default=None)
    revision = BigInt(default=0)
    """Grows with each act of a person: a plan made before is not carried out after it."""


class RolloutWave(Table, tablename="rollout_wave"):
    """One wave; number 0 is the canary."""

    id = Serial(primary_key=True)
    rollout = Text()
    no = BigInt()
    planned = BigInt()
    opened_ms = BigInt(null=True, default=None)
    met_ms = BigInt(null=True, default=None)
    passed_ms = BigInt(null=True, default=None)
    paused_before_ms = BigInt(default=0)


class RolloutMember(Table, tablename="rollout_member"):
    """One terminal of a rollout."""

    id = Serial(primary_key=True)
    rollout = Text()
    terminal = Text()
    wave = BigInt()
    bucket = BigInt()
    site = Text()
    state = Text()
    reason = Text()
    detail = Text(default="")
    since_ms = BigInt()
    joined_ms = BigInt()
    started_ms = BigInt(null=True, default=None)
    ended_ms = BigInt(null=True, default=None)
    tries = BigInt(default=0)
    bundle = Text(default="")
    components = Text(default="[]")
    windows = Text(null=True, default=None)
    windows_to_ms = BigInt(default=0)
    hold = BigInt(default=0)
    paused_before_ms = BigInt(default=0)
    late = BigInt(default=0)


class RolloutEvent(Table, tablename="rollout_event"):
    """What happened to a rollout or one of its terminals, by a person or by the server (`actor` empty). Never changed."""

    id = Serial(primary_key=True)
    rollout = Text()
    at_ms = BigInt()
    actor = Text(default="")
    kind = Text()
    terminal = Text(null=True, default=None)
    detail = Text(default="{}")


class FreezePeriod(Table, tablename="freeze_period"):
    """A span in which nothing starts, besides the statutory holidays."""

    id = Serial(primary_key=True)
    from_ms = BigInt()
    to_ms = BigInt()
    name = Text()
    set_by = Text()
    set_ms = BigInt()
    removed_by = Text(null=True, default=None)
    removed_ms = BigInt(null=True, default=None)
