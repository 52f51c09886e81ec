"""A machine's PC/SC service with one reader, as its clients see it: a result code, and for each reader an event state.

Written from the PC/SC part 5 tables: the lower half of an event state are flags, the upper half counts insertions and removals. Nobody sends bytes
to it; a port takes `snapshot`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.base import Model

NO_SERVICE, NO_READERS = 0x8010001D, 0x8010002E
GONE, EMPTY, PRESENT, IN_USE, MUTE = 0x0008, 0x0010, 0x0020, 0x0100, 0x0200
READER = "Simulated CCID Reader 00 00"


class PcscService(Model):
    """One service, one reader. `silence` and `stall` of the line mean a service that hangs."""

    kind: ClassVar[str] = "card-reader"
    own_faults: ClassVar[Mapping[str, str]] = {
        "service-stopped": "the PC/SC service does not run",
        "reader-gone": "the service has no reader: it was unplugged, or its driver lost it",
        "card-mute": "cards do not answer (dirty contacts, upside down)",
        "card-stuck": "a card lies in the reader and does not come out",
        "reader-busy": "another program uses the reader",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "insert-card": "put a card into the reader",
        "remove-card": "take the card out",
    }

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self._card = False
        self._moves = 0

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "insert-card":
            self._move(True)
        elif name == "remove-card" and not self.has("card-stuck"):
            self._move(False)

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "card-stuck":
            self._move(active)

    def _move(self, card: bool) -> None:
        if card is not self._card:
            self._card = card
            self._moves += 1

    def snapshot(self) -> tuple[int, tuple[tuple[str, int], ...]]:
        """Result code, and (name, event state) of each reader."""
        with self.lock:
            if self.has("service-stopped"):
                return NO_SERVICE, ()
            if self.has("reader-gone"):
                return NO_READERS, ()
            flags = PRESENT if self._card else EMPTY
            if self._card and self.has("card-mute"):
                flags |= MUTE
            if self.has("reader-busy"):
                flags |= IN_USE
            return 0, ((READER, self._moves << 16 | flags),)
