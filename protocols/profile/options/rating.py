"""Evaluators on a serial line: framing, keys, and how their answers become levels."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.codecs.rating import RatingRules, scale
from protocols.errors import EncodeError
from protocols.profile.tables import HexOrNone, HexText, Regex, Table, check_hex_key, check_pattern, hex_bytes


class Heartbeat(Table, frozen=True, kw_only=True):
    """A question about the unit's state that its maker documents. Without one, only what the pad sends by itself is heard."""

    send: HexText
    reply: Regex
    """Regular expression over the reply's hex digits, lower case without blanks."""

    def __post_init__(self) -> None:
        check_pattern(self.reply, "reply")


class RatingOptions(Table, frozen=True, kw_only=True):
    """One byte for each key, or a small frame around it. No maker publishes more than this, so all of it is data."""

    framing: Literal["byte", "frame"] = "byte"
    start: HexText = "aa"
    end: HexOrNone = "55"
    length: Literal["single", "fixed"] = "fixed"
    """`single`: one byte behind the start counts the bytes between it and the checksum; `fixed`: there are always `data_bytes`."""
    data_bytes: Annotated[int, Meta(ge=1, le=16)] = 1
    key_at: Annotated[int, Meta(ge=0, le=15)] = 0
    """Which of these bytes is the key."""
    checksum: Literal["none", "sum8", "xor8"] = "none"
    scale: Literal["five-best-first", "five-best-last", "three-best-first", "none"] = "five-best-first"
    """The usual tables: answers 1 to 5 with 1 or 5 for very satisfied; answers 1 to 3, with 5 for "asked, not rated"."""
    answers: dict[str, int] | None = None
    """Answer as two hex digits to a level: 5 very satisfied … 1 very dissatisfied, 0 asked and not rated. Replaces the scale's where given."""
    wait_s: Annotated[float, Meta(ge=1, le=120)] = 8.0
    """How long the pad waits for a citizen before it reports that nobody rated."""
    heartbeat: Heartbeat | None = None

    def __post_init__(self) -> None:
        for code, level in (self.answers or {}).items():
            check_hex_key(code, "answers")
            if not 0 <= level <= 5:
                raise ValueError(f"answers: {level} is not a level 0-5")
        try:
            self.rules()
        except EncodeError as err:
            raise ValueError(str(err)) from None

    def rules(self) -> RatingRules:
        """Raises EncodeError for a frame that cannot be, or if no level can ever come of it."""
        answers = {int(code, 16): level for code, level in (self.answers or {}).items()}
        return RatingRules(
            framing=self.framing,
            start=hex_bytes(self.start),
            end=bytes.fromhex(self.end),
            length=self.length,
            data_bytes=self.data_bytes,
            key_at=self.key_at,
            checksum=self.checksum,
            levels={**scale(self.scale), **answers},
        )
