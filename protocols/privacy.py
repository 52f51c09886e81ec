"""Patterns for text that may leave a terminal: room for a maker's word, none for a person's name, number or address."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

MakerText = Annotated[str, Meta(pattern=r"^(?!.*[0-9]{9})[^\x00-\x1f\x7f]{1,160}\Z")]
"""A name or source that the authors of a profile wrote: one line, no digit run as long as an identity number's."""

_LONG_DIGITS = re.compile(r"[0-9]{9,}")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9 ._+()/:~-]+")


def maker_word(text: str, *, max_length: int = 64) -> str:
    """A device's own word (model, firmware version) as records accept it: plain characters, long digit runs cut to their first eight.

    Empty when nothing plain is left.
    """
    plain = _NOT_PLAIN.sub(" ", text)
    short = _LONG_DIGITS.sub(lambda match: match.group()[:8], plain)
    return " ".join(short.split()).lstrip(" ._+()/:~-")[:max_length].rstrip()
