"""What comings and goings on USB say about cables, hubs and supply, over all devices of the terminal. Pure; time is passed in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

UNSTABLE, HUB_LOST = "HOST.USB_UNSTABLE", "HOST.USB_HUB_LOST"
CODES = frozenset({UNSTABLE, HUB_LOST})

RETURNS = 4
WITHIN_S = 3600.0
"""A device that is plugged anew is back once; more than three times an hour is a cable, a hub or the supply."""
TOGETHER_S = 5.0
"""Devices of one hub that vanish so close together were switched off with it (over-current, its own plug)."""


class PlugWatch:
    """Remembers by place in the USB tree (`1-1.4`) who was there, who went when, and who came back how often."""

    def __init__(self) -> None:
        self._there: frozenset[str] = frozenset()
        self._gone_s: dict[str, float] = {}
        self._returns_s: dict[str, deque[float]] = {}

    def look(self, places: Iterable[str], now_s: float, *, expected_to_move: frozenset[str] = frozenset()) -> frozenset[str]:
        """The codes that hold now. `expected_to_move`: places where a device is being switched over on purpose."""
        there = frozenset(places)
        for place in self._there - there:
            self._gone_s[place] = now_s
        for place in there - self._there:
            if self._gone_s.pop(place, None) is not None and place not in expected_to_move:
                self._returns_s.setdefault(place, deque(maxlen=RETURNS)).append(now_s)
        self._there = there
        codes = {UNSTABLE} if any(_too_often(returns_s, now_s) for returns_s in self._returns_s.values()) else set()
        return frozenset(codes | ({HUB_LOST} if self._a_hub_is_gone(expected_to_move) else set()))

    def _a_hub_is_gone(self, expected_to_move: frozenset[str]) -> bool:
        """All devices of a hub are gone, two at least, and they went together."""
        hubs = {hub_of(place) for place in self._gone_s} - {hub_of(place) for place in self._there} - {None}
        for hub in hubs:
            gone_s = [at for place, at in self._gone_s.items() if hub_of(place) == hub and place not in expected_to_move]
            if len(gone_s) >= 2 and max(gone_s) - min(gone_s) <= TOGETHER_S:
                return True
        return False


def hub_of(place: str) -> str | None:
    """The hub's own place; None for a device in a socket of the computer itself."""
    return place.rpartition(".")[0] or None


def _too_often(returns_s: deque[float], now_s: float) -> bool:
    return len(returns_s) == RETURNS and now_s - returns_s[0] <= WITHIN_S
