"""What was begun and what became of it, by slot; in the outbox's memory, so that a unit left in its boot loader is not forgotten."""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from protocols.contract.records import UpdateReason

KEY = "firmware.journal"

Phase = Literal["new", "writing", "committed", "failed", "refused"]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One slot's last order. `tries` counts attempts that began to write or failed before it; one that was cut off counts."""

    sha256: str
    version: str
    phase: Phase = "new"
    tries: int = 0
    place: str | None = None
    profile: str | None = None
    reason: UpdateReason = "none"

    @property
    def ended(self) -> bool:
        return self.phase in ("committed", "failed", "refused")


class Store(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


class Journal:
    """All entries; each change is durable when the call returns. Raises what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        try:
            self._entries = msgspec.msgpack.decode(store.get(KEY) or b"\x80", type=dict[str, Entry])
        except msgspec.MsgspecError:
            self._entries = {}

    def get(self, slot: str) -> Entry | None:
        return self._entries.get(slot)

    def put(self, slot: str, entry: Entry) -> Entry:
        entries = {**self._entries, slot: entry}
        self._store.put(KEY, msgspec.msgpack.encode(entries))
        self._entries = entries
        return entry

    def failed(self) -> list[str]:
        """Slots whose last order failed."""
        return sorted(slot for slot, entry in self._entries.items() if entry.phase == "failed")
