"""Pads behind a framed serial line: call pads, evaluators, window screens."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.codecs.callpad import FrameRules, PadAction
from protocols.errors import EncodeError
from protocols.profile.tables import Byte, HexOrNone, HexText, Table, check_hex_key, hex_bytes


class CallPadOptions(Table, frozen=True, kw_only=True):
    """Framing, functions and keys of one vendor; defaults in `codecs.callpad`."""

    start: HexText = "ff 68"
    length: Literal["double", "single", "fixed"] = "double"
    fixed_bytes: Annotated[int, Meta(ge=0, le=64)] = 0
    separator: HexOrNone = "68"
    checksum: Literal["sum8", "xor8", "none"] = "sum8"
    sum_from_length: bool = False
    end: HexOrNone = "16"
    poll_function: Byte = 0x01
    key_function: Byte = 0x01
    display_function: Byte = 0x02
    rating_function: Byte = 0x11
    keys: dict[str, str] | None = None
    """Key code as two hex digits to an action of `codecs.callpad.PadAction` or a digit."""
    ratings: dict[str, int] | None = None
    """Rating byte as two hex digits to a level 0-5."""
    addresses: Annotated[tuple[Annotated[int, Meta(ge=0, le=255)], ...], Meta(min_length=1, max_length=64)] = (1,)
    """Pads to poll where the inventory names no address."""
    polled: bool = False
    """Keys wait for the poll; otherwise the pad sends them by itself."""
    echo_ack: bool = True
    """Each frame is acknowledged by sending it back."""

    def __post_init__(self) -> None:
        for code, action in (self.keys or {}).items():
            check_hex_key(code, "keys")
            if action not in _PAD_WORDS:
                raise ValueError(f"keys: {action!r} is neither a digit nor an action")
        for code, level in (self.ratings or {}).items():
            check_hex_key(code, "ratings")
            if not 0 <= level <= 5:
                raise ValueError(f"ratings: {level} is not a level 0-5")
        try:
            self.rules()
        except EncodeError as err:
            raise ValueError(str(err)) from None

    def rules(self) -> FrameRules:
        standard = FrameRules()
        return FrameRules(
            start=hex_bytes(self.start),
            length=self.length,
            fixed_bytes=self.fixed_bytes,
            separator=bytes.fromhex(self.separator),
            checksum=self.checksum,
            sum_from_length=self.sum_from_length,
            end=bytes.fromhex(self.end),
            poll_function=self.poll_function,
            key_function=self.key_function,
            display_function=self.display_function,
            rating_function=self.rating_function,
            keys=standard.keys if self.keys is None else {int(code, 16): word for code, word in self.keys.items()},
            ratings=standard.ratings if self.ratings is None else {int(code, 16): level for code, level in self.ratings.items()},
        )


_PAD_WORDS = frozenset({str(action) for action in PadAction} | {str(digit) for digit in range(10)})
