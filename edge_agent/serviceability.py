"""Owns how long the terminal could serve: seconds per span, from a sequence of observations. Pure: time is passed in.

Seconds are counted on the boot clock. What lies between two observations that are too far apart (the host slept, the agent hung) was not observed and
is counted as nothing.
"""

from __future__ import annotations

from edge_agent.clock import ClockReading
from edge_agent.status import Service
from protocols.contract.records import Serviceability

MAX_GAP_MS = 60_000
"""Chosen: observations come every few seconds; after a minute without any nobody can say what was."""


class ServiceabilityMeter:
    """Accumulates one span after the other. Each observation says what holds from now on."""

    def __init__(self, now: ClockReading, service: Service, *, in_use: bool) -> None:
        self._span_boot_ms = self._last_boot_ms = now.boot_ms
        self._service: Service = service
        self._in_use = in_use
        self._ms: dict[Service, int] = {"usable": 0, "partial": 0, "unusable": 0}
        self._in_use_ms = 0

    def observe(self, now: ClockReading, service: Service, *, in_use: bool) -> None:
        """From `now` on the terminal is `service`; until now it was what the observation before said."""
        passed_ms = now.boot_ms - self._last_boot_ms
        if 0 < passed_ms <= MAX_GAP_MS:
            self._ms[self._service] += passed_ms
            self._in_use_ms += passed_ms if self._in_use else 0
        self._last_boot_ms = max(now.boot_ms, self._last_boot_ms)
        self._service, self._in_use = service, in_use

    def close_span(self, now: ClockReading) -> Serviceability | None:
        """The span up to `now`, and a new one begins; None if it has no whole observed second. The last fraction of a second is dropped."""
        self.observe(now, self._service, in_use=self._in_use)
        span_ms = now.boot_ms - self._span_boot_ms
        parts, in_use_s = _whole_seconds(self._ms), self._in_use_ms // 1000
        self._span_boot_ms = now.boot_ms
        self._ms, self._in_use_ms = dict.fromkeys(self._ms, 0), 0
        observed_s = sum(parts.values())
        if observed_s == 0:
            return None
        return Serviceability(
            from_ms=max(0, now.wall_ms - span_ms),
            to_ms=max(0, now.wall_ms),
            observed_s=observed_s,
            usable_s=parts["usable"],
            partial_s=parts["partial"],
            unusable_s=parts["unusable"],
            in_use_s=in_use_s,
        )


def _whole_seconds(parts_ms: dict[Service, int]) -> dict[Service, int]:
    """Whole seconds that add up to the whole seconds of the sum; what is over goes to the largest fractions."""
    seconds = {service: ms // 1000 for service, ms in parts_ms.items()}
    over = sum(parts_ms.values()) // 1000 - sum(seconds.values())
    for service in sorted(parts_ms, key=lambda one: parts_ms[one] % 1000, reverse=True)[:over]:
        seconds[service] += 1
    return seconds


def next_span_end_ms(wall_ms: int, span_s: int) -> int:
    """Wall time of the next multiple of `span_s`: quarter hours end at :00, :15, :30 and :45."""
    span_ms = span_s * 1000
    return (wall_ms // span_ms + 1) * span_ms
