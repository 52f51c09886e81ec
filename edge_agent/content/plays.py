"""Proof of play: what the application says it has shown, added up per span and package. Counts of pages, nothing about who looked."""

from __future__ import annotations

from typing import Protocol

import msgspec

from protocols.contract.records import Play, Plays

KEY = "content.plays"
MAX_PAGES = 60
"""Of one record."""
MAX_KINDS = 2000
"""Pages counted in one span; an application that invents more is not believed."""


class _Count(msgspec.Struct, array_like=True):
    component: str
    version: str
    page: str
    count: int = 0
    seconds: int = 0


class _Book(msgspec.Struct):
    from_ms: int = 0
    counts: list[_Count] = []


class Memory(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


class PlayBook:
    """Counts of the span that runs. Durable after each call."""

    def __init__(self, memory: Memory, now_ms: int) -> None:
        self._memory = memory
        try:
            self._book = msgspec.msgpack.decode(memory.get(KEY) or b"", type=_Book)
        except msgspec.MsgspecError:
            self._book = _Book(from_ms=now_ms)

    def add(self, name: str, version: str, page: str, *, count: int, seconds: int) -> bool:
        """False if there is no room for one more page. Raises OutboxError if it cannot be kept."""
        component = f"content/{name}"
        known = next(
            (one for one in self._book.counts if (one.component, one.version, one.page) == (component, version, page)), None
        )
        if known is None:
            if len(self._book.counts) >= MAX_KINDS:
                return False
            known = _Count(component, version, page)
            self._book.counts.append(known)
        known.count += count
        known.seconds += seconds
        self._memory.put(KEY, msgspec.msgpack.encode(self._book))
        return True

    def peek(self, to_ms: int) -> list[Plays]:
        """The records of the span that ends now."""
        groups: dict[tuple[str, str], list[Play]] = {}
        for one in self._book.counts:
            play = Play(page=one.page, count=one.count, seconds=min(one.seconds, 2**31 - 1))
            groups.setdefault((one.component, one.version), []).append(play)
        return [
            Plays(
                component=component,
                version=version,
                from_ms=min(self._book.from_ms, to_ms),
                to_ms=to_ms,
                pages=tuple(pages[at : at + MAX_PAGES]),
            )
            for (component, version), pages in groups.items()
            for at in range(0, len(pages), MAX_PAGES)
        ]

    def fresh(self, from_ms: int) -> bytes:
        """The memory's value for a new span; `begin` takes it over once it is kept."""
        return msgspec.msgpack.encode(_Book(from_ms=from_ms))

    def begin(self, from_ms: int) -> None:
        self._book = _Book(from_ms=from_ms)
