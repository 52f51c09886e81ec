"""How often a destination may be written to: a token bucket that stays below the platform's own limit. Pure; takes `now`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a platform allows, less our margin."""

    per_minute: int
    burst: int = 2
    max_bytes: int = 1 << 20
    """Of the whole request, or of the part that the platform measures."""
    block_ms: int = 60_000
    """How long it refuses everything once its limit was passed."""


class Bucket:
    """Starts with one token, however full it was when the process ended: a process that keeps dying must not flood."""

    def __init__(self, limits: Limits, now_ms: int) -> None:
        self._limits = limits
        self._tokens = 1.0
        self._at_ms = now_ms
        self._blocked_ms = 0

    def take(self, now_ms: int) -> int:
        """0 and a token is gone, or the milliseconds until it is worth asking again."""
        # A wall clock may be set back: then no time has passed.
        passed_ms = max(0, now_ms - self._at_ms)
        self._at_ms = now_ms
        self._blocked_ms = max(0, self._blocked_ms - passed_ms)
        per_ms = self._limits.per_minute / 60_000
        self._tokens = min(float(self._limits.burst), self._tokens + passed_ms * per_ms)
        if self._blocked_ms:
            return self._blocked_ms
        if self._tokens < 1:
            return max(1, round((1 - self._tokens) / per_ms))
        self._tokens -= 1
        return 0

    def block(self, for_ms: int) -> None:
        """The platform said at the last `take` that it was too fast."""
        self._blocked_ms = max(self._blocked_ms, for_ms)
