"""Key devices as the kernel shows them (`struct input_event`), and the health of their keys. Never tells which key a citizen pressed.

A profile may name keys (an evaluator's five faces, a help button): only named keys become `Press`. All others are counted. Key codes and
values: linux/input-event-codes.h. Debounce on arrival time (`now_s`), not on the event's own stamp, which replayed devices get wrong.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from protocols.codecs.common import StreamDecoder
from protocols.errors import EncodeError

CODEC = "keys"
EV_SYN, EV_KEY, EV_MSC, EV_LED, EV_REP = 0, 1, 4, 17, 20
SYN_REPORT, SYN_DROPPED = 0, 3
UP, DOWN, REPEAT = 0, 1, 2
EVENT_BYTES = 24
_EVENT = struct.Struct("<qqHHi")
"""64-bit kernels, little-endian: x86-64 and arm64."""

KEYPAD_CODES = frozenset({*range(2, 12), 71, 72, 73, 75, 76, 77, 79, 80, 81, 82, 83, 74, 78, 55, 98, 96, 28, 14, 1, 15, 69})
"""What a numeric keypad can send: digits of both rows, dot, signs, both Enter keys, Backspace, Esc, Tab, NumLock."""


class KeyEvent(Protocol):
    """The part of an input event that matters here; events of any origin that have it will do."""

    @property
    def type(self) -> int: ...
    @property
    def code(self) -> int: ...
    @property
    def value(self) -> int: ...


class InputEvent(NamedTuple):
    """One `struct input_event`."""

    sec: int
    usec: int
    type: int
    code: int
    value: int

    def __repr__(self) -> str:
        """Without code and value: they are what somebody typed."""
        return f"InputEvent(type={self.type})"


def pack_event(event: InputEvent) -> bytes:
    """24 bytes as the kernel delivers them; EncodeError for numbers that do not fit."""
    try:
        return _EVENT.pack(*event)
    except struct.error:
        raise EncodeError("an input event's number does not fit its field") from None


class EventReader(StreamDecoder[InputEvent]):
    """Cuts a byte stream of an event node into events."""

    def _parse(self) -> InputEvent | None:
        if len(self._buffer) < EVENT_BYTES:
            return None
        return InputEvent(*_EVENT.unpack(self._take(EVENT_BYTES)))


@dataclass(frozen=True, slots=True)
class Press:
    """A named key went down."""

    name: str


@dataclass(frozen=True, slots=True)
class StuckKey:
    """A key is held longer than a person would; `name` only for named keys."""

    name: str | None
    held_s: float


@dataclass(frozen=True, slots=True)
class KeyFreed:
    """The last stuck key was released."""


@dataclass(frozen=True, slots=True)
class RepeatStorm:
    """More presses or repeats than fingers make; `per_s` is the rate over the window."""

    per_s: float


@dataclass(frozen=True, slots=True)
class StormOver:
    """The rate is normal again."""


@dataclass(frozen=True, slots=True)
class ResyncNeeded:
    """The kernel dropped events: read the pressed keys and call `resync`."""


KeyHealth = Press | StuckKey | KeyFreed | RepeatStorm | StormOver | ResyncNeeded


class KeyMonitor:
    """Presses, stuck keys and storms from key events; a pure state machine, time is passed in (seconds of any steady clock).

    `stuck_after_s`: 10 s is longer than the longest deliberate press seen on kiosks. A storm is `storm_per_s` presses for `storm_window_s`;
    the kernel's own auto-repeat of one held key (25-33 per second) is no storm but becomes a stuck key. A scanner in keyboard mode sends
    bursts of hundreds per second: watch it with `scanner.BurstCounter`, not with this class.
    """

    def __init__(
        self,
        names: Mapping[int, str] | None = None,
        *,
        stuck_after_s: float = 10.0,
        storm_per_s: float = 40.0,
        storm_window_s: float = 2.0,
    ) -> None:
        self._names = dict(names or {})
        self._stuck_after_s = stuck_after_s
        self._storm_per_s = storm_per_s
        self._storm_window_s = storm_window_s
        self._down_since: dict[int, float] = {}
        self._stuck: set[int] = set()
        self._presses: deque[float] = deque(maxlen=4096)
        self._storming = False
        self._dropping = False
        self.press_count = 0
        """Key presses seen so far, named or not."""

    def feed(self, events: Iterable[KeyEvent], now_s: float) -> list[KeyHealth]:
        """What the events of one read mean; includes what `tick(now_s)` would say."""
        found: list[KeyHealth] = []
        for event in events:
            if event.type == EV_SYN:
                if event.code == SYN_DROPPED:
                    self._dropping = True
                    found.append(ResyncNeeded())
                elif event.code == SYN_REPORT:
                    self._dropping = False
            elif event.type == EV_KEY and not self._dropping:
                # Between SYN_DROPPED and the next report, events are a torn tail (kernel: event-codes.txt).
                self._key(event.code, event.value, now_s, found)
        return found + self.tick(now_s)

    def resync(self, pressed: Iterable[int], now_s: float) -> list[KeyHealth]:
        """Take the key bitmap as truth, at open and after ResyncNeeded; a key that is down at open starts its time now."""
        self._dropping = False
        pressed = frozenset(pressed)
        found: list[KeyHealth] = []
        for code in set(self._down_since) - pressed:
            self._release(code, found)
        for code in pressed:
            self._down_since.setdefault(code, now_s)
        return found + self.tick(now_s)

    def tick(self, now_s: float) -> list[KeyHealth]:
        """What the passing of time alone reveals."""
        found: list[KeyHealth] = []
        for code, since in self._down_since.items():
            if code not in self._stuck and now_s - since >= self._stuck_after_s:
                self._stuck.add(code)
                found.append(StuckKey(self._names.get(code), now_s - since))
        while self._presses and now_s - self._presses[0] > self._storm_window_s:
            self._presses.popleft()
        rate = len(self._presses) / self._storm_window_s
        if not self._storming and rate >= self._storm_per_s:
            self._storming = True
            found.append(RepeatStorm(rate))
        elif self._storming and rate < self._storm_per_s / 2:
            self._storming = False
            found.append(StormOver())
        return found

    def _key(self, code: int, value: int, now_s: float, found: list[KeyHealth]) -> None:
        if value == UP:
            self._release(code, found)
            return
        known_down = code in self._down_since
        self._down_since.setdefault(code, now_s)
        if value == DOWN:
            self._presses.append(now_s)
            self.press_count += 1
            name = self._names.get(code)
            if name is not None and not known_down:
                found.append(Press(name))

    def _release(self, code: int, found: list[KeyHealth]) -> None:
        self._down_since.pop(code, None)
        if code in self._stuck:
            self._stuck.discard(code)
            if not self._stuck:
                found.append(KeyFreed())
