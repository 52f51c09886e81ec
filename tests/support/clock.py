"""A wall clock that stands still until a test moves it."""

from __future__ import annotations


class HandClock:
    """Called, it says `now_ms`."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms
