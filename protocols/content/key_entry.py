"""What a person types at a numeric keypad, key by key, in the words of XFS4IoT's Keyboard interface (CWA 17852). For the holder of a claim only.

Key codes: linux/input-event-codes.h. A plain keypad has no secure element: it is for ticket and identity numbers, never for a PIN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from protocols.codecs.keys import DOWN, EV_KEY, EV_SYN, SYN_DROPPED, KeyEvent

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CODES = {
    **{code: _NAMES[number] for code, number in zip(range(2, 12), (1, 2, 3, 4, 5, 6, 7, 8, 9, 0), strict=True)},
    **dict(zip((82, 79, 80, 81, 75, 76, 77, 71, 72, 73), _NAMES, strict=True)),
    28: "enter", 96: "enter", 1: "cancel", 14: "backspace", 111: "clear", 355: "clear", 138: "help", 83: "decPoint", 52: "decPoint",
    55: "oemStar", 98: "oemSlash", 78: "oemPlus", 74: "oemMinus",
}  # fmt: skip
DIGITS = frozenset(_NAMES)
KEYS = frozenset(_CODES.values())
"""Every word a key of such a pad can have."""
MAX_LEN = 64

Completion = Literal["auto", "enter", "cancel", "continue", "clear", "backspace", "help", "fk"]


@dataclass(frozen=True, slots=True)
class Pressed:
    """One key. `completion`: `continue` while the entry goes on, else what ended it."""

    digit: str = field(repr=False)
    completion: Completion


@dataclass(slots=True)
class KeyEntry:
    """One entry, from its first key to what ends it. `active`: the keys that count, each with whether it ends the entry.

    `max_len` 0: as many digits as `MAX_LEN`; with `auto_end` the last of them ends the entry.
    """

    active: Mapping[str, bool]
    max_len: int = 0
    auto_end: bool = True
    digits: list[str] = field(default_factory=list, repr=False)
    ended: Completion | None = None
    dropped: bool = False
    """The kernel lost events: what was typed is not known."""

    def feed(self, events: Iterable[KeyEvent]) -> list[Pressed]:
        """The keys that count; those after the end are left out."""
        pressed = []
        for event in events:
            if event.type == EV_SYN and event.code == SYN_DROPPED:
                self.dropped = True
            elif event.type == EV_KEY and event.value == DOWN and self.ended is None and not self.dropped:
                name = _CODES.get(event.code)
                if name is not None and name in self.active:
                    pressed += self._press(name)
        return pressed

    def _press(self, name: str) -> list[Pressed]:
        limit = self.max_len or MAX_LEN
        if name in DIGITS:
            if len(self.digits) >= limit:
                return []
            self.digits.append(name)
            if self.auto_end and self.max_len and len(self.digits) == self.max_len:
                self.ended = "auto"
        elif name == "backspace":
            del self.digits[-1:]
        elif name == "clear":
            self.digits.clear()
        if self.ended is None and self.active[name]:
            self.ended = _ENDED_BY.get(name, "fk")
        return [Pressed(name, self.ended or "continue")]


_ENDED_BY: dict[str, Completion] = {
    "enter": "enter",
    "cancel": "cancel",
    "clear": "clear",
    "backspace": "backspace",
    "help": "help",
}
