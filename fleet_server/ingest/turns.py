"""Who is served next: terminals take turns, each with a bounded line of its own, so that one that floods waits for itself and not others for it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import dataclass, field

import aiomqtt

from protocols.contract.limits import WINDOW_BATCHES, WINDOW_BYTES

log = logging.getLogger(__name__)

IN_A_ROW = WINDOW_BATCHES
"""A whole window in one turn: it is answered with one acknowledgement."""
LINE_MESSAGES = 8 * WINDOW_BATCHES
LINE_BYTES = 4 * WINDOW_BYTES
"""What may wait for one terminal. An honest one has a window under way, and sends it again after 15 s without an answer: two minutes' worth."""
STRANGER = "?"


@dataclass(slots=True)
class _Line:
    messages: deque[aiomqtt.Message] = field(default_factory=deque)
    size_bytes: int = 0
    is_full: bool = False


class Turns(asyncio.Queue[aiomqtt.Message]):
    """An asyncio queue whose order is each sender's own, and between senders by turns. What does not fit into a line is dropped and
    counted: it is not acknowledged, so it is sent again."""

    def _init(self, maxsize: int) -> None:
        del maxsize
        self._lines: dict[str, _Line] = {}
        self._order: deque[str] = deque()
        self._served = 0
        self._waiting = 0
        self.dropped: Counter[str] = Counter()
        """By sender; whoever counts them takes them out."""

    def qsize(self) -> int:
        return self._waiting

    def empty(self) -> bool:
        return not self._waiting

    def _put(self, item: aiomqtt.Message) -> None:
        name, size_bytes = sender(item.topic.value), len(item.payload)
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line()
            self._order.append(name)
        if len(line.messages) >= LINE_MESSAGES or line.size_bytes + size_bytes > LINE_BYTES:
            if not line.is_full:
                log.warning("a sender is faster than it can be served, its messages are dropped", extra={"terminal": name})
                line.is_full = True
            self.dropped[name] += 1
            return
        line.messages.append(item)
        line.size_bytes += size_bytes
        self._waiting += 1

    def _get(self) -> aiomqtt.Message:
        name = self._order[0]
        line = self._lines[name]
        item = line.messages.popleft()
        line.size_bytes -= len(item.payload)
        self._waiting -= 1
        self._served += 1
        if not line.messages:
            self._order.popleft()
            del self._lines[name]
            self._served = 0
        elif self._served >= IN_A_ROW:
            self._order.rotate(-1)
            self._served = 0
        return item


def sender(topic: str) -> str:
    """Who claims to have sent it; all that claim nothing share one line. The broker sees to it that the claim is true, the ledger that it counts."""
    parts = topic.split("/", 5)
    return parts[3] if len(parts) == 6 and len(parts[3]) <= 32 else STRANGER
