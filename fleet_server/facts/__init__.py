"""What the server makes of verified records: current state, episodes, figures. All of it can be made again from the stored envelopes."""

from __future__ import annotations

import msgspec

from protocols.contract.records import Body, ClockQuality


class StoredBatch(msgspec.Struct, frozen=True, gc=False):
    """A batch whose envelope is stored."""

    id: int
    terminal: str
    stream: bytes
    no: int
    boot_id: bytes
    received_ms: int
    committed_ms: int
    disputed: bool


class DecodedRecord(msgspec.Struct, frozen=True, gc=False):
    """A record whose body this version knows; the wall time is the terminal's own word, `project` corrects it."""

    idx: int
    wall_ms: int
    quality: ClockQuality
    boot_ms: int
    body: Body
