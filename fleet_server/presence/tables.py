"""Tables. Whether terminals could be seen, as intervals with a cause, the server's own blind spans included."""

from __future__ import annotations

from piccolo.columns import BigInt, Bytea, Serial, Text
from piccolo.table import Table


class Presence(Table, tablename="presence"):
    """One interval; the open one has no `to_ms`."""

    id = Serial(primary_key=True)
    terminal = Text()
    from_ms = BigInt()
    to_ms = BigInt(null=True, default=None)
    state = Text()
    cause = Text()


class PlatformGap(Table, tablename="platform_gap"):
    """A span in which the server itself could not see."""

    id = Serial(primary_key=True)
    from_ms = BigInt()
    to_ms = BigInt(null=True, default=None)
    cause = Text()


class ClockFix(Table, tablename="clock_fix"):
    """A fixed point between a terminal's boot clock and wall time."""

    id = Serial(primary_key=True)
    terminal = Text()
    boot_id = Bytea()
    boot_ms = BigInt()
    wall_ms = BigInt()
    quality = Text()
    batch = BigInt(null=True, default=None)


class ClockWork(Table, tablename="clock_work"):
    """A boot whose batches are being given corrected times, slice by slice; a row goes when it is done."""

    id = Serial(primary_key=True)
    terminal = Text()
    boot_id = Bytea()
    before = Text()
    """JSON: the fixed points by which its facts were made so far, [boot clock, wall time] each."""
    step = Text(default="move")
    at_batch = BigInt()
    """Batches up to this row are done in this step."""
    last_batch = BigInt()
    """Later rows were made with the new fixed points."""
    moved = BigInt()


class WatchMark(Table, tablename="watch_mark"):
    """Until when the presence watch has seen everything: what lies between this and its next start is a blind span."""

    name = Text(primary_key=True)
    at_ms = BigInt()
