"""Evaluator pad on a serial line: a byte for each key, or the key in a frame. It asks by itself, waits for the citizen, and tells that nobody came.

Makers publish no bytes; the forms are those seen on sale, and the answers of the SLE300 control (1, 2, 3, and 5 when the eight seconds are over).
Who rates is nobody's business: one press is one number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from simulators.errors import UnknownName
from simulators.models.base import Model
from simulators.models.checksums import sum8

STUCK_EVERY_S = 0.4


@dataclass(frozen=True)
class PadForm:
    """`answers`: byte that is sent for a level, 0 for nobody. `framed`: AA key 55; with `counted` AA, length, key, sum, 55."""

    answers: Mapping[int, int] = field(default_factory=lambda: {5: 1, 4: 2, 3: 3, 2: 4, 1: 5, 0: 0})
    framed: bool = False
    counted: bool = False
    status_question: bytes = b""
    status_answer: bytes = b""

    def bytes_of(self, answer: int) -> bytes:
        if self.counted:
            return bytes((0xAA, 1, answer, sum8(bytes((answer,))), 0x55))
        return bytes((0xAA, answer, 0x55)) if self.framed else bytes((answer,))


BYTE_FORM = PadForm()
FRAME_FORM = PadForm(framed=True)
THREE_KEYS = PadForm(answers={5: 1, 3: 2, 1: 3, 0: 5})
COUNTED_FORM = PadForm(counted=True, status_question=b"\xaa\x01\xf0\xf0\x55", status_answer=b"\xaa\x01\xf1\xf1\x55")
"""With a question about its state, as a maker might document one."""


class RatingPad(Model):
    kind: ClassVar[str] = "evaluator"
    own_faults: ClassVar[Mapping[str, str]] = {
        "stuck-key": "one key is stuck and sent again and again",
        "unknown-keys": "another model was put in: it sends codes that are in no table",
        "noise": "single bytes of noise arrive from the cable all the time",
        "bad-checksum": "frames arrive with a wrong checksum (only a pad with checksums)",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "rate": "a citizen presses a face, 5 best: rate 5",
        "ask": "the clerk asks for a rating: the pad speaks, waits eight seconds and then says that nobody rated",
    }

    def __init__(self, *, form: PadForm = BYTE_FORM, baud: int = 9600, wait_s: float = 8.0, seed: int = 0) -> None:
        super().__init__(baud=baud, seed=seed)
        self.form = form
        self.wait_s = wait_s
        self.ratings = 0
        self._asked_until: float | None = None
        self._next_stuck = 0.0
        self._next_noise = 0.0
        self._buffer = bytearray()

    def on_bytes(self, data: bytes, now: float) -> None:
        question = self.form.status_question
        self._buffer += data
        while question and question in self._buffer:
            del self._buffer[: self._buffer.find(question) + len(question)]
            self.emit(self.form.status_answer, now)
        del self._buffer[:-64]

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "ask":
            self._asked_until = now + self.wait_s
            return
        level = int(args[0]) if args and args[0].isdecimal() else 5 if not args else -1
        if level not in self.form.answers or level == 0:
            known = ", ".join(str(one) for one in sorted(self.form.answers, reverse=True) if one)
            raise UnknownName(f"This pad has the levels {known}, not “{args[0] if args else ''}”.")
        self.ratings += 1
        self._asked_until = None
        self._send(self.form.answers[level], now)

    def on_fault(self, name: str, active: bool, now: float) -> None:
        self._next_stuck = self._next_noise = now

    def on_power_cycle(self, now: float) -> None:
        self._asked_until = None
        self._buffer.clear()

    def _send(self, answer: int, now: float) -> None:
        raw = self.form.bytes_of(answer + 0x60 if self.has("unknown-keys") else answer)
        if self.has("bad-checksum") and self.form.counted:
            raw = raw[:3] + bytes((raw[3] ^ 0x5A,)) + raw[4:]
        self.emit(raw, now)

    def run_mechanism(self, now: float) -> None:
        if self._asked_until is not None and now >= self._asked_until:
            self._asked_until = None
            self._send(self.form.answers[0], now)
        if self.has("stuck-key") and now >= self._next_stuck:
            self._next_stuck = now + STUCK_EVERY_S
            self._send(self.form.answers[5], now)
        if self.has("noise") and now >= self._next_noise:
            self._next_noise = now + 2.0
            self.emit(bytes(self._random.choices(range(0x80, 0x100), k=self._random.randint(1, 4))), now)

    def mechanism_due(self) -> float | None:
        due = [
            moment
            for moment, holds in (
                (self._asked_until, self._asked_until is not None),
                (self._next_stuck, self.has("stuck-key")),
                (self._next_noise, self.has("noise")),
            )
            if holds and moment is not None
        ]
        return min(due, default=None)
