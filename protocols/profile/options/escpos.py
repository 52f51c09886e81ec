"""Receipt printers: `escpos`, the `status` tables beside the family's own questions, and `quirks`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.codecs.escpos import MechanicalBit
from protocols.profile.tables import Byte, HexText, Table


class EscPosOptions(Table, frozen=True, kw_only=True):
    queries: Annotated[tuple[Literal[1, 2, 3, 4], ...], Meta(min_length=1, max_length=4)] = (1, 2, 3, 4)
    """Which DLE EOT questions the model answers."""
    auto_status: bool = True
    near_end_sensor: bool = True
    mechanical_bit: MechanicalBit = MechanicalBit.JAM
    fence: Literal["process-id", "gs-r", "none"] = "gs-r"
    """How to learn that a job is on paper."""
    identity: bool = True
    """Answers GS I 65-68."""
    dialect: Literal["escpos", "star"] = "escpos"
    """`star`: line mode, whose status has seven to nine bytes; `queries`, `mechanical_bit` and `identity` mean nothing there."""
    presenter: Literal["none", "custom"] = "none"
    """Holds the slip until it is taken. `custom`: GS e moves it (Custom and makers who copied it)."""
    cut_counter: bool = False
    """Answers GS g 2 with the cuts since it was made."""
    text: Literal["plain", "gbk"] = "plain"
    """Characters of the test slip."""


class Bit(Table, frozen=True, kw_only=True):
    """`condition` holds where the byte at `at`, masked, equals `value`."""

    at: Annotated[int, Meta(ge=0, le=63)] = 0
    mask: Annotated[int, Meta(ge=1, le=0xFF)]
    value: Byte
    condition: Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{1,31}$")]

    def __post_init__(self) -> None:
        if self.value & ~self.mask:
            raise ValueError(f"value {self.value:#04x} has bits outside mask {self.mask:#04x}, so it can never be met")


class Fixed(Table, frozen=True, kw_only=True):
    """Bits that are constant in every sound reply; they turn noise into `unknown` instead of a fault."""

    at: Annotated[int, Meta(ge=0, le=63)] = 0
    mask: Annotated[int, Meta(ge=1, le=0xFF)]
    value: Byte

    def __post_init__(self) -> None:
        if self.value & ~self.mask:
            raise ValueError(f"value {self.value:#04x} has bits outside mask {self.mask:#04x}, so no reply is valid")


class Status(Table, frozen=True, kw_only=True):
    """A status question beside those of the family, and the bits of its reply."""

    query: HexText
    reply_bytes: Annotated[int, Meta(ge=1, le=64)]
    valid: Annotated[tuple[Fixed, ...], Meta(max_length=64)] = ()
    bits: Annotated[tuple[Bit, ...], Meta(min_length=1, max_length=64)]


class Quirks(Table, frozen=True, kw_only=True):
    """Declared deviations; each is read by a driver."""

    port_status_is_constant: bool = False
    """GET_PORT_STATUS answers the same byte whatever happens: it proves presence only."""
