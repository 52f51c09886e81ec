"""A capture as a device: it answers what it answered when it was recorded, in the time it took then.

By match (the usual way) a question gets the answers that the same bytes got in the capture, one after the other and then the last one for good. In
order, each question must be the next of the capture. What the capture hides cannot be said again: a masked answer is silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from simulators.capture import Capture, CaptureError, Transfer
from simulators.models.base import Endpoint, Model, UsbIdentity

LONGEST_QUESTION_BYTES = 4096


@dataclass(frozen=True)
class Answer:
    """Parts of an answer: (seconds after the question, endpoint or None, bytes)."""

    parts: tuple[tuple[float, int | None, bytes], ...] = ()


@dataclass
class _Script:
    """What is known about one question."""

    answers: deque[Answer] = field(default_factory=deque)

    def next(self) -> Answer:
        return self.answers.popleft() if len(self.answers) > 1 else self.answers[0]


class ReplayDevice(Model):
    """The device of a capture."""

    kind: ClassVar[str] = "replay"
    own_faults: ClassVar[Mapping[str, str]] = {}

    def __init__(self, capture: Capture, *, in_order: bool = False, baud: int | None = None, seed: int = 0) -> None:
        super().__init__(baud=baud, usb=usb_of(capture), seed=seed)
        self.in_order = in_order
        self._pairs = list(_pairs(capture))
        if not self._pairs and not _requests(capture):
            raise CaptureError("The capture has no question that could be answered: all of it is masked, or nothing was asked.")
        self._scripts: dict[bytes, _Script] = {}
        for question, answer in self._pairs:
            self._scripts.setdefault(question, _Script()).answers.append(answer)
        self._requests = _requests(capture)
        self._buffer = bytearray()
        self._at = 0
        self.unknown_bytes = 0
        """Bytes from the host that belong to no question of the capture."""

    def on_bytes(self, data: bytes, now: float) -> None:
        self._buffer += data
        while self._buffer:
            question = self._question()
            if question is None:
                if len(self._buffer) > LONGEST_QUESTION_BYTES or not self._may_become_one():
                    self.unknown_bytes += 1
                    del self._buffer[0]
                    continue
                return
            del self._buffer[: len(question)]
            for after_s, endpoint, part in self._answer(question).parts:
                self.emit(part, now, delay_s=after_s, endpoint=endpoint)

    def on_control(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, now: float
    ) -> bytes | None:
        script = self._requests.get((request_type, request, value, index))
        return None if script is None else script.next().parts[0][2][:length]

    def _question(self) -> bytes | None:
        """The longest known question that the buffer starts with; in order, only the next one."""
        return max((one for one in self._known() if self._buffer.startswith(one)), key=len, default=None)

    def _may_become_one(self) -> bool:
        return any(question.startswith(bytes(self._buffer)) for question in self._known())

    def _known(self) -> list[bytes]:
        return [self._pairs[self._at % len(self._pairs)][0]] if self.in_order and self._pairs else list(self._scripts)

    def _answer(self, question: bytes) -> Answer:
        if self.in_order:
            answer = self._pairs[self._at % len(self._pairs)][1]
            self._at += 1
            return answer
        return self._scripts[question].next()


def usb_of(capture: Capture) -> UsbIdentity | None:
    """The USB identity in a capture's head, `usb: 154f:154f 02 82`; None for a line."""
    text = capture.head.get("usb")
    if text is None:
        return None
    try:
        ids, *endpoints = text.split()
        vid, pid = (int(word, 16) for word in ids.split(":"))
        pipes = tuple(Endpoint(int(word, 16)) for word in endpoints)
    except ValueError:
        raise CaptureError("The head's “usb” is not of the form “154f:154f 02 82”.") from None
    return UsbIdentity(vid, pid, pipes, product=capture.head.get("product", ""))


def _pairs(capture: Capture) -> Iterator[tuple[bytes, Answer]]:
    """Each question with what came until the next one. A question that is masked, or was answered by masked bytes only, has no answer to tell."""
    question, pipe = b"", None
    asked_s = 0.0
    parts: list[tuple[float, int | None, bytes]] = []
    collecting = False
    for transfer in [*capture.transfers, Transfer(0.0, "!", note="end")]:
        if transfer.way == "<":
            collecting = True
            if transfer.data and question:
                parts.append((transfer.at_s - asked_s, transfer.endpoint, transfer.data))
        elif transfer.way == ">" and question and transfer.data and not collecting and transfer.endpoint != pipe:
            question += transfer.data  # readers with four pipes take a question in two parts
        else:
            if question:
                yield question, Answer(tuple(parts))
            question, parts, collecting, asked_s = b"", [], False, transfer.at_s
            if transfer.way == ">" and transfer.data:
                question, pipe = transfer.data, transfer.endpoint


def _requests(capture: Capture) -> dict[tuple[int, int, int, int], _Script]:
    found: dict[tuple[int, int, int, int], _Script] = {}
    for transfer in capture.transfers:
        if transfer.way == "?" and transfer.request is not None and transfer.data is not None:
            script = found.setdefault(transfer.request[:4], _Script())
            script.answers.append(Answer(((0.0, None, transfer.data),)))
    return found
