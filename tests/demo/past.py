"""How the past enters: day after day into a terminal's own spool, under a clock that stands in that day, as a stream between two live ones.

One transaction a day, sealed every few days. Nothing here waits: whoever drives it decides how many days lie on the road at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Final, overload

from edge_agent.clock import Clock
from edge_agent.outbox import Outbox, Recorder
from edge_agent.version import AGENT_VERSION
from protocols.contract.records import Body, Boot, ClockQuality
from simulators.history import DayRecords, Told, inventory_of, recorded_past
from simulators.workdays import MINUTE_MS, day_of
from tests.demo.city import Member
from tests.demo.setup import Setup

MARK: Final = "demo.past"
"""In the spool's own memory, written with the day it names: the last day that is in."""
SEAL_EVERY_DAYS: Final = 4
"""A terminal's day is two batches of one to three records; what a batch costs is mostly the batch (measured: 0.7 ms of ingest, a record 0.1 ms)."""
FINISHED: Final = b"finished"


class TimeMachine:
    """The host's clock, except inside `past`. Server and terminals of a demo share one host, so it counts as synchronised."""

    def __init__(self, base: Clock) -> None:
        self._base = base
        self._there_ms: int | None = None
        self._began_ms = 0

    def wall_ms(self) -> int:
        return self._base.wall_ms() if self._there_ms is None else self._there_ms

    def boot_ms(self) -> int:
        return self._base.boot_ms() if self._there_ms is None else max(0, self._there_ms - self._began_ms)

    def quality(self) -> ClockQuality:
        return ClockQuality.SYNCED

    def stand_at(self, wall_ms: int) -> None:
        """Only inside `past`."""
        assert self._there_ms is not None
        self._there_ms = wall_ms

    @contextmanager
    def past(self, wall_ms: int, *, began_ms: int) -> Iterator[None]:
        """It is `wall_ms`, of a boot that began at `began_ms`. No other task may run meanwhile."""
        self._there_ms, self._began_ms = wall_ms, began_ms
        try:
            yield
        finally:
            self._there_ms = None


class _AtTheirTimes(Sequence[Body]):
    """Facts that are read at the moments when they happened: going through them moves the clock."""

    def __init__(self, told: Sequence[Told], clock: TimeMachine) -> None:
        self._told, self._clock = told, clock

    @overload
    def __getitem__(self, index: int) -> Body: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Body]: ...
    def __getitem__(self, index: int | slice) -> Body | Sequence[Body]:
        if isinstance(index, slice):
            return _AtTheirTimes(self._told[index], self._clock)
        return self._told[index].body

    def __len__(self) -> int:
        return len(self._told)

    def __iter__(self) -> Iterator[Body]:
        for told in self._told:
            self._clock.stand_at(told.at_ms)
            yield told.body


class Past:
    """One terminal's past on its way into the spool. `next_day` until it says None; continues where an earlier run was stopped."""

    def __init__(
        self,
        member: Member,
        setup: Setup,
        outbox: Outbox,
        clock: TimeMachine,
        live_boot_id: bytes,
        *,
        os_name: str,
        recorder: Recorder | None = None,
        continues: bool = True,
    ) -> None:
        """`recorder`: of a running agent, told of what was sealed. `continues`: a live stream goes on behind the past, else a start opens one."""
        self._outbox, self._clock, self._recorder, self._live_boot_id = outbox, clock, recorder, live_boot_id
        self._continues = continues
        self._os_name = os_name
        self._day_count = setup.days + 1
        self._first_day = day_of(setup.until_ms) - timedelta(days=setup.days)
        mark = outbox.get(MARK)
        self.finished = mark == FINISHED
        self._done_up_to = None if mark is None or self.finished else date.fromisoformat(mark.decode())
        inventory = inventory_of(member.plan, serial_only=member.own_process)
        self._days = recorded_past(member.plan, inventory, self._first_day, setup.until_ms, setup.days)
        self._boot_id = hashlib.sha256(f"past {member.id}".encode()).digest()[:16]
        self._began_ms = 0
        self._streaming = False
        self._unsealed_days = 0

    def skip_known(self) -> int:
        """Days that an earlier run brought in; call once, first."""
        if self.finished:
            return self._day_count
        if self._done_up_to is None:
            return 0
        known = 0
        while self._first_day + timedelta(days=known) <= self._done_up_to:
            next(self._days)
            known += 1
        return known

    def next_day(self) -> int | None:
        """Capture and seal one more day; its number of records, None when all are in and the live stream goes on."""
        if self.finished:
            return None
        day = next(self._days, None)
        if day is None:
            self._end()
            return None
        if not self._streaming:
            self._begin(day)
        bodies = _AtTheirTimes(day.told, self._clock)
        with self._clock.past(day.closes_ms, began_ms=self._began_ms):
            self._outbox.capture_many(bodies, memory={MARK: day.day.isoformat().encode()})
            self._clock.stand_at(day.closes_ms)
            self._unsealed_days += 1
            if self._unsealed_days >= SEAL_EVERY_DAYS:
                self._unsealed_days = 0
                self._seal()
        return len(day.told)

    def _begin(self, day: DayRecords) -> None:
        first_ms = day.told[0].at_ms if day.told else day.closes_ms
        self._began_ms = first_ms - 2 * MINUTE_MS
        self._seal()
        with self._clock.past(first_ms - MINUTE_MS, began_ms=self._began_ms):
            start = self._outbox.start_stream(self._boot_id)
            boot = Boot(
                agent=AGENT_VERSION,
                os=self._os_name,
                arch="x86_64",
                python="3.11.2",
                previous="none" if self._done_up_to is None else "clean",
                same_boot=start.same_boot,
            )
            self._outbox.capture(boot)
        self._streaming = True

    def _end(self) -> None:
        if self._streaming:
            self._seal()
            if self._continues:
                self._outbox.start_stream(self._live_boot_id)
        self._outbox.put(MARK, FINISHED)
        self.finished = True

    def _seal(self) -> None:
        if self._recorder is not None:
            self._recorder.seal()
        else:
            self._outbox.seal()
