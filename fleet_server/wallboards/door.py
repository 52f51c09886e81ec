"""Holds back whoever tries wrong tokens: so many from one address in ten minutes, then none. In memory, and bounded."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final

TRIES: Final = 10
WINDOW_MS: Final = 10 * 60_000
ADDRESSES: Final = 1_024
"""Tokens have 256 bits and cannot be guessed; this keeps guessing from costing anything."""


class Door:
    """Counts wrong tokens by address."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[int]] = OrderedDict()

    def wait_ms(self, address: str, now_ms: int) -> int:
        """0: may try; else how long until the next try is looked at."""
        tries = self._recent(address, now_ms)
        return 0 if len(tries) < TRIES else max(1, tries[0] + WINDOW_MS - now_ms)

    def failed(self, address: str, now_ms: int) -> None:
        tries = self._recent(address, now_ms)
        tries.append(now_ms)
        self._wrong[address] = tries
        self._wrong.move_to_end(address)
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    def _recent(self, address: str, now_ms: int) -> deque[int]:
        tries = self._wrong.get(address, deque())
        while tries and not now_ms - WINDOW_MS < tries[0] <= now_ms:
            tries.popleft()
        return tries
