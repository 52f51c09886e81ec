"""Owns what the agent does by the clock: clock records, leases, host health, serviceability, summaries. One call of `tick` does what is due.

Nothing here waits or opens anything; whoever calls it passes the parts in and decides how often.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from edge_agent import host, status
from edge_agent.clock import Clock, ClockReading, ClockWatch, TimeFloor, read
from edge_agent.faults import Condition
from edge_agent.host import HOST_CODES, HostMeter, HostProbe
from edge_agent.outbox.errors import OutboxError, OutboxFull
from edge_agent.serviceability import ServiceabilityMeter, next_span_end_ms
from protocols.contract.records import Body, ClockQuality, Fault, Notice

log = logging.getLogger(__name__)

FLOOR_KEY, SYNCED_KEY = "clock.floor", "clock.synced_boot"
FLOOR_KEPT_EVERY_MS = 3_600_000
PURGE_EVERY_MS = 3_600_000
REBOOT_SHOWN_MS = 60_000
"""An unexpected reboot is observed for a minute after the start; the catalogue keeps it open a while longer."""
PRESSURE_STEPS = ((0.75, 16), (0.5, 4))
"""Share of the spool that waits, and how many spans are then joined into one summary: hours instead of quarter hours."""

TERMINAL_CODES = HOST_CODES | frozenset({
    "HOST.CLOCK_SKEW",
    "PWR.UNEXPECTED_REBOOT",
    "APP.SESSION_STUCK",
    "NET.NO_ACK",
    "NET.DNS_FAIL",
    "NET.TLS_FAIL",
})  # fmt: skip
"""What `Housekeeping` can speak about."""


class Spooler(Protocol):
    """The part of the outbox that is needed here."""

    @property
    def pressure(self) -> float: ...
    def depth(self) -> int: ...
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...
    def purge(self) -> int: ...


class Watched(Protocol):
    """The part of the monitor that is needed here."""

    def open_faults(self) -> list[Fault]: ...
    def observe_terminal(self, conditions: Iterable[Condition], *, judged: frozenset[str]) -> None: ...
    def close_span(self, from_ms: int, to_ms: int) -> list[Body]: ...


class Leases(Protocol):
    @property
    def idle(self) -> bool: ...
    def stuck(self) -> bool: ...
    def expire(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one terminal's housekeeping looks after. `network`: the NET codes that hold now. `locked`: an operator has closed the terminal."""

    clock: Clock
    spool: Spooler
    capture: Callable[[Body], None]
    monitor: Callable[[], Watched]
    leases: Leases
    probe: HostProbe
    network: Callable[[], frozenset[str]]
    locked: Callable[[], bool]


class Housekeeping:
    """`tick` every few seconds; `close` at the end of a run."""

    def __init__(
        self, parts: Parts, *, boot_id: bytes, unexpected_reboot: bool, summary_s: int = 900, host_sample_s: int = 15
    ) -> None:
        self._parts, self._boot_id = parts, boot_id
        self._summary_s, self._host_sample_ms = summary_s, host_sample_s * 1000
        now = read(parts.clock)
        self._begin_ms = now.boot_ms
        self._unexpected_reboot = unexpected_reboot
        self._watch = ClockWatch()
        self.floor = TimeFloor(int.from_bytes(parts.spool.get(FLOOR_KEY) or b"", "big"))
        self._kept_floor_ms = self.floor.floor_ms
        self._server_offset_ms: int | None = None
        self._heard: tuple[int, int] | None = None
        self._is_behind = False
        self._synced_kept = parts.spool.get(SYNCED_KEY) == boot_id
        self._host = HostMeter(now, parts.probe.sample())
        self._sampled_ms = now.boot_ms
        self._service = ServiceabilityMeter(now, "usable", in_use=False)
        self._span_boot_ms = now.boot_ms
        self._span_end_ms = next_span_end_ms(now.wall_ms, summary_s)
        self._span_longest_ms = summary_s * 1000
        self._thinned = False
        self._purged_ms = now.boot_ms

    def learn_server_time(self, server_ms: int) -> None:
        """A time that the server has signed just now."""
        now = read(self._parts.clock)
        self._server_offset_ms = server_ms - now.wall_ms
        self._heard = (server_ms, now.boot_ms)
        self.floor.hear(server_ms)

    def trusted_now_ms(self) -> int:
        """The best guess at the time, never before what is surely past: a synchronised clock, else what the server said in this run and the
        boot clock since then, else whatever the clock says. A clock that stands in 1970 or in 2038 decides nothing while anybody knows better."""
        now = read(self._parts.clock)
        if now.quality is ClockQuality.SYNCED or self._heard is None:
            return max(now.wall_ms, self.floor.floor_ms)
        server_ms, heard_boot_ms = self._heard
        return max(server_ms + now.boot_ms - heard_boot_ms, self.floor.floor_ms)

    def pace(self, *, summary_s: int, host_sample_s: int) -> None:
        """Other intervals hold from the next span and sample on."""
        self._summary_s, self._host_sample_ms = summary_s, host_sample_s * 1000

    def tick(self) -> None:
        """Do what is due. A full disk postpones it; nothing else is raised."""
        now = read(self._parts.clock)
        try:
            self._watch_clock(now)
            self._parts.leases.expire()
            if now.boot_ms - self._purged_ms >= PURGE_EVERY_MS:
                self._purged_ms = now.boot_ms
                self._parts.spool.purge()
        except OutboxFull:
            log.warning("no space for records of the clock and of sessions; trying again")
        if now.boot_ms - self._sampled_ms >= self._host_sample_ms:
            self._sampled_ms = now.boot_ms
            self._host.observe(self._parts.probe.sample())
        monitor = self._parts.monitor()
        monitor.observe_terminal([Condition(code) for code in sorted(self._conditions(now))], judged=TERMINAL_CODES)
        service = status.service(monitor.open_faults(), locked=self._parts.locked())
        self._service.observe(now, service, in_use=not self._parts.leases.idle)
        # The boot clock ends a span as well: wall time may have been set back by a day.
        if now.wall_ms >= self._span_end_ms or now.boot_ms - self._span_boot_ms >= self._span_longest_ms:
            self._close_span(now)

    def close(self) -> None:
        """The agent stops: what was measured of the running span is told."""
        self._close_span(read(self._parts.clock))
        self._keep_floor()

    # ---------------------------------------------------------------------------------------------------------------------- inside

    def _watch_clock(self, now: ClockReading) -> None:
        body = self._watch.observe(now)
        if body is not None:
            self._parts.capture(body)
        if now.quality is ClockQuality.SYNCED:
            self.floor.learn(now.wall_ms)
            if not self._synced_kept:
                self._parts.spool.put(SYNCED_KEY, self._boot_id)
                self._synced_kept = True
        if abs(self.floor.floor_ms - self._kept_floor_ms) >= FLOOR_KEPT_EVERY_MS:
            self._keep_floor()
        is_behind = self.floor.behind_ms(now.wall_ms) > host.CLOCK_SKEW_MS
        if is_behind and not self._is_behind:
            self._parts.capture(Notice(code="clockWentBack"))
        self._is_behind = is_behind

    def _keep_floor(self) -> None:
        self._kept_floor_ms = self.floor.floor_ms
        try:
            self._parts.spool.put(FLOOR_KEY, self._kept_floor_ms.to_bytes(8, "big"))
        except OutboxError:
            log.warning("the time floor cannot be kept")

    def _conditions(self, now: ClockReading) -> set[str]:
        codes = set(self._host.conditions()) | self._parts.network()
        if host.clock_is_off(now, self.floor.behind_ms(now.wall_ms), self._server_offset_ms):
            codes.add("HOST.CLOCK_SKEW")
        if self._parts.leases.stuck():
            codes.add("APP.SESSION_STUCK")
        if self._unexpected_reboot and now.boot_ms - self._begin_ms < REBOOT_SHOWN_MS:
            codes.add("PWR.UNEXPECTED_REBOOT")
        return codes

    def _close_span(self, now: ClockReading) -> None:
        """Tell the span's summaries and begin the next; under pressure spans are joined before they are told."""
        factor = next((factor for limit, factor in PRESSURE_STEPS if self._parts.spool.pressure > limit), 1)
        bodies: list[Body] = []
        if factor > 1 and not self._thinned:
            bodies.append(Notice(code="summariesThinned"))
        self._thinned = factor > 1
        from_ms, to_ms = max(0, now.wall_ms - (now.boot_ms - self._span_boot_ms)), now.wall_ms
        self._span_boot_ms = now.boot_ms
        self._span_end_ms = next_span_end_ms(now.wall_ms, self._summary_s * factor)
        self._span_longest_ms = self._summary_s * factor * 1000
        bodies.append(self._host.close_span(now, outbox_batches=self._parts.spool.depth()))
        serviceability = self._service.close_span(now)
        if serviceability is not None:
            bodies.append(serviceability)
        bodies += self._parts.monitor().close_span(from_ms, to_ms)
        for body in bodies:
            try:
                self._parts.capture(body)
            except OutboxError:
                log.warning("a summary could not be kept")
