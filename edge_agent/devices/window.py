"""Rates over the last answers: what one bad answer does not prove, a share of bad ones does."""

from __future__ import annotations

from collections import deque


class RateWindow:
    """The share of bad ones among the last `size`. It is high from `high` on until it falls below half of that."""

    def __init__(self, *, size: int = 20, least: int = 5, high: float = 0.2) -> None:
        """`least`: bad ones needed, so that a single one after a start is no rate."""
        self._outcomes: deque[bool] = deque(maxlen=size)
        self._least = least
        self._high = high
        self._is_high = False

    def add(self, bad: bool) -> None:
        self._outcomes.append(bad)
        count = sum(self._outcomes)
        share = count / len(self._outcomes)
        if not self._is_high:
            self._is_high = count >= self._least and share >= self._high
        elif share < self._high / 2:
            self._is_high = False

    def forget(self) -> None:
        """Start anew: what was seen is too long ago to say anything."""
        self._outcomes.clear()
        self._is_high = False

    @property
    def is_high(self) -> bool:
        return self._is_high

    @property
    def is_clean(self) -> bool:
        """Hardly any bad ones among enough."""
        return len(self._outcomes) >= self._least and sum(self._outcomes) <= 1
