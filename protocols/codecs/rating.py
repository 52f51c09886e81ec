"""Evaluators (评价器) on a serial line, and the one scale on which every evaluator's answers are told.

No maker publishes its bytes. What is deployed sends one byte for each key, or the key in a small frame (`AA … 55`); the control library of a common
USB pad with a virtual serial port (SLE300) returns 1 very satisfied, 2 average, 3 very dissatisfied and 5 when nobody rated within eight seconds.
All of that is data (`RatingRules`). Levels are those of GB/T 39735-2020: 5 very satisfied … 1 very dissatisfied; 0 stands for asked and not rated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from protocols.codecs.common import Explanation, StreamDecoder, sum8, xor8
from protocols.errors import ChecksumError, EncodeError, FrameError

CODEC = "rating"
BEST, WORST, NOT_RATED = 5, 1, 0
FRAME_MAX_BYTES = 32
Scale = Literal["five-best-first", "five-best-last", "three-best-first", "none"]


def level_of(position: int, of: int, *, best_first: bool) -> int:
    """The level 1-5 of the answer at `position` (1 … `of`) on a scale of two to five answers; both ends stay ends, the middle stays the middle.

    Raises EncodeError for a position that the scale does not have.
    """
    if not 2 <= of <= 5 or not 1 <= position <= of:
        raise EncodeError(f"there is no answer {position} on a scale of {of}")
    steps_down = position - 1 if best_first else of - position
    return BEST - (steps_down * (BEST - WORST) + (of - 1) // 2) // (of - 1)


def scale(name: Scale) -> Mapping[int, int]:
    """The table of a usual scale, answer byte to level."""
    if name == "none":
        return {}
    if name == "three-best-first":
        return {position: level_of(position, 3, best_first=True) for position in range(1, 4)} | {5: NOT_RATED}
    best_first = name == "five-best-first"
    return {position: level_of(position, 5, best_first=best_first) for position in range(1, 6)} | {0: NOT_RATED}


@dataclass(frozen=True, slots=True, kw_only=True)
class RatingRules:
    """How one pad tells its answers. The checksum runs over the bytes between start and itself, the length byte left out."""

    framing: Literal["byte", "frame"] = "byte"
    start: bytes = b"\xaa"
    end: bytes = b"\x55"
    length: Literal["single", "fixed"] = "fixed"
    data_bytes: int = 1
    key_at: int = 0
    checksum: Literal["none", "sum8", "xor8"] = "none"
    levels: Mapping[int, int] = field(default_factory=lambda: scale("five-best-first"))

    def __post_init__(self) -> None:
        if not self.levels:
            raise EncodeError("no answer has a level, so nothing can ever be rated")
        if self.framing == "frame" and not self.start:
            raise EncodeError("a frame needs at least one start byte to be found by")
        if self.framing == "frame" and self.length == "fixed" and self.key_at >= self.data_bytes:
            raise EncodeError(f"byte {self.key_at} is outside a frame of {self.data_bytes}")


@dataclass(frozen=True, slots=True)
class Answer:
    """One key, or the pad's word that nobody pressed one. `level` None: a code that the pad's table does not have."""

    level: int | None
    raw: bytes = field(repr=False)


class RatingReader(StreamDecoder[Answer]):
    """Answers out of the pad's bytes. In byte framing every byte is one; whether a run of bytes is noise is for `burst_answer` to say."""

    def __init__(self, rules: RatingRules) -> None:
        super().__init__()
        self._rules = rules

    def _parse(self) -> Answer | None:
        if not self._buffer:
            return None
        if self._rules.framing == "byte":
            raw = self._take(1)
            return Answer(self._rules.levels.get(raw[0]), raw)
        return self._frame()

    def _frame(self) -> Answer | None:
        rules = self._rules
        if not self._seek(rules.start):
            return None
        head = len(rules.start) + (rules.length == "single")
        if len(self._buffer) < head:
            return None
        data_bytes = self._buffer[head - 1] if rules.length == "single" else rules.data_bytes
        check_bytes = 0 if rules.checksum == "none" else 1
        total = head + data_bytes + check_bytes + len(rules.end)
        if not rules.key_at < data_bytes or total > FRAME_MAX_BYTES:
            evidence = bytes(self._buffer[:head])
            self._discard(len(rules.start))
            raise FrameError("the length byte of an evaluator's frame cannot be right", evidence=evidence)
        if len(self._buffer) < total:
            return None
        raw = bytes(self._buffer[:total])
        data = raw[head : head + data_bytes]
        if check_bytes and raw[head + data_bytes] != (sum8(data) if rules.checksum == "sum8" else xor8(data)):
            # Only the start is given up: a cut frame may hide the beginning of a good one.
            self._discard(len(rules.start))
            raise ChecksumError("an evaluator's frame has a wrong checksum", evidence=raw)
        if not raw.endswith(rules.end):
            self._discard(len(rules.start))
            raise FrameError("an evaluator's frame does not end as it should", evidence=raw)
        del self._buffer[:total]
        return Answer(rules.levels.get(data[rules.key_at]), raw)


def burst_answer(answers: list[Answer]) -> Answer | None:
    """What came within the bounce of one key, as one answer: the same key several times is one press, anything else is noise (level None)."""
    if not answers:
        return None
    first = answers[0]
    return (
        first
        if all(other.raw == first.raw for other in answers)
        else Answer(None, b"".join(one.raw for one in answers)[:FRAME_MAX_BYTES])
    )


def explain(query: bytes, reply: bytes) -> tuple[Explanation, ...]:
    """The whole reply of a question about the unit's state; its meaning is the profile's."""
    return (Explanation(0, 0xFF, "rating.alive", len(reply)),) if reply else ()
