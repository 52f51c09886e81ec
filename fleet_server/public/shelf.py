"""Finished answers, kept while they are true: each is made once, compressed once, and handed out with its tag as often as it is asked for.

Making an answer has no `await` in it, so of a thousand who ask at once one makes it and the others find it made.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

MOST_BYTES: Final = 32 * 1024 * 1024
LEAST_TO_COMPRESS: Final = 512
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """A body with its type and its strong tag; `packed` is the same in gzip, with a tag of its own (RFC 9110, section 8.8.3)."""

    body: bytes
    type: str
    tag: str
    packed: bytes | None = None
    status: int = 200

    @property
    def packed_tag(self) -> str:
        return f'{self.tag[:-1]}-gz"'

    @property
    def size(self) -> int:
        return len(self.body) + len(self.packed or b"")


def answer(body: str | bytes, type_: str, *, status: int = 200) -> Answer:
    data = body.encode() if isinstance(body, str) else body
    packed = gzip.compress(data, _LEVEL, mtime=0) if len(data) >= LEAST_TO_COMPRESS else None
    return Answer(data, type_, f'"{hashlib.sha256(data).hexdigest()[:20]}"', packed, status)


class Shelf:
    """Answers of one version of the view; another version clears it. The least recently used goes when it is full."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._version = ""
        self._kept: OrderedDict[Hashable, Answer] = OrderedDict()
        self._bytes = 0
        self.made = 0
        """How many were made so far."""

    def get(self, version: str, key: Hashable, make: Callable[[], Answer]) -> Answer:
        if version != self._version:
            self._kept.clear()
            self._version, self._bytes = version, 0
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
            return found
        made = make()
        self.made += 1
        self._kept[key] = made
        self._bytes += made.size
        while self._bytes > self._most_bytes and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].size
        return made
