"""Counts what a full disk refused: facts that are missing, not how often somebody tried to store them. Pure, and forgotten with the process."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocols.contract import records

NAMED_MAX = 10_000
"""Chosen: a kiosk's facts of weeks. Beyond it each try counts."""


class Refusals:
    """An application repeats a case until it is taken, and a driver the state it sees: a fact that is stored at last was not lost."""

    def __init__(self) -> None:
        self._named: set[bytes] = set()
        self._others = 0

    @property
    def count(self) -> int:
        return len(self._named) + self._others

    def refused(self, bodies: Iterable[records.Body]) -> None:
        for body in bodies:
            name = _name_of(body)
            if name is not None and (name in self._named or len(self._named) < NAMED_MAX):
                self._named.add(name)
            else:
                self._others += 1

    def stored(self, bodies: Iterable[records.Body]) -> None:
        if self._named:
            self._named.difference_update(name for name in map(_name_of, bodies) if name is not None)

    def told(self) -> None:
        """Their number is on record."""
        self._named.clear()
        self._others = 0


def _name_of(body: records.Body) -> bytes | None:
    """What two tries at one fact have in common; None for kinds of which two that look the same may be two facts (reviews, calls)."""
    match body:
        case records.Session():
            return b"session" + body.id
        case records.Fault():
            return b"fault" + body.id + body.change.encode()
        case records.Device() | records.Sighting() | records.Consumable():
            return type(body).__name__.encode() + msgspec.msgpack.encode(body)
        case _:
            return None
