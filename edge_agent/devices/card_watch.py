"""A card slot over time: what its state means after hours, and how much of a flutter is told. Pure."""

from __future__ import annotations

from collections import deque

from protocols.canon.words import MediaState

FLUTTER_WINDOW_MS = 60_000
FLUTTER_CHANGES = 12
"""More insertions and removals a minute than hands make: a worn contact, or a card at the edge of the field. Then the slot's state is unknown."""


class CardWatch:
    """One slot. `stuck_after_s`: so long without a break, and the card was left behind or is jammed."""

    def __init__(self, *, stuck_after_s: int) -> None:
        self._stuck_after_ms = stuck_after_s * 1000
        self._present: bool | None = None
        self._since_ms = 0
        self._changes: deque[int] = deque(maxlen=FLUTTER_CHANGES + 1)

    def see(self, present: bool | None, boot_ms: int) -> MediaState:
        """What was just seen, None if it cannot be told; returns the word for it."""
        if present is not self._present:
            if present is not None and self._present is not None:
                self._changes.append(boot_ms)
            self._present, self._since_ms = present, boot_ms
        recent = sum(boot_ms - at < FLUTTER_WINDOW_MS for at in self._changes)
        if present is None or recent > FLUTTER_CHANGES:
            return MediaState.UNKNOWN
        return MediaState.PRESENT if present else MediaState.NOT_PRESENT

    def is_stuck(self, boot_ms: int) -> bool:
        return self._present is True and boot_ms - self._since_ms >= self._stuck_after_ms
