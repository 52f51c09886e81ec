"""What every table of a profile file is made of: strict structs, and the words for bytes and patterns."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta

HexText = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}( [0-9a-f]{2}){0,31}$")]
"""`10 04 04`: lower case, one blank between bytes."""


HexOrNone = Annotated[str, Meta(pattern=r"^([0-9a-f]{2}( [0-9a-f]{2}){0,7})?$")]


Word16 = Annotated[int, Meta(ge=0, le=0xFFFF)]


Byte = Annotated[int, Meta(ge=0, le=0xFF)]


Regex = Annotated[str, Meta(pattern=r"^\^", max_length=160)]
"""Anchored at the start, so that it cannot match somewhere in the middle of another maker's text."""


Millis = Annotated[int, Meta(ge=1, le=120_000)]


Version = Annotated[str, Meta(pattern=r"^(?!.*[0-9]{9})[A-Za-z0-9][A-Za-z0-9 ._+()/:~-]{0,63}\Z")]


def hex_bytes(text: HexText) -> bytes:
    return bytes.fromhex(text)


class Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file: immutable, and unknown keys are refused."""


def check_pattern(pattern: str | None, where: str) -> None:
    if pattern is not None:
        try:
            re.compile(pattern)
        except re.error as err:
            raise ValueError(f"{where}: not a regular expression ({err.msg})") from None


def check_hex_key(code: str, where: str) -> None:
    if not re.fullmatch(r"[0-9a-f]{2}", code):
        raise ValueError(f"{where}: {code!r} is not two lower-case hex digits")
