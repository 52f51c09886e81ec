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
