"""Evidence bytes as a person reads them: each byte with its mask and its meaning. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocols.codecs.common import Explanation


@dataclass(frozen=True, slots=True)
class Byte:
    """`title` is set where the byte decided something."""

    text: str
    masked: bool = False
    title: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One explanation beside the bytes: `7E & 60`, and what it means."""

    bytes: str
    text: str


def masked_positions(spans: Sequence[Sequence[int]], length: int) -> frozenset[int]:
    """Positions of the [start, end) spans that the agent blanked."""
    return frozenset(at for span in spans if len(span) == 2 for at in range(max(0, span[0]), min(length, span[1])))


def view(reply: bytes, masked: frozenset[int], marks: Sequence[tuple[Explanation, str]]) -> list[Byte]:
    """`marks`: explanations with their words; only bytes that were not blanked can have decided anything."""
    titles: dict[int, str] = {}
    for mark, words in marks:
        for at in range(mark.offset, min(mark.offset + mark.length, len(reply))):
            if at not in masked:
                titles[at] = f"{titles[at]}; {words}" if at in titles else words
    return [Byte("··" if at in masked else f"{byte:02X}", at in masked, titles.get(at, "")) for at, byte in enumerate(reply)]


def lines(
    query: bytes, reply: bytes, masked: frozenset[int], marks: Sequence[tuple[Explanation, str]], bit_word: str
) -> list[Line]:
    """`10 04 04 → 7E  0x60 = out of paper`; a whole field is quoted as text where it is text."""
    result = []
    for mark, words in marks:
        part = reply[mark.offset : mark.offset + mark.length]
        if any(at in masked for at in range(mark.offset, mark.offset + mark.length)):
            continue
        if mark.length > 1 and part.isascii() and part.decode("ascii").isprintable():
            shown = f"“{part.decode('ascii')}”"
        else:
            shown = part.hex(" ").upper()
        question = _question(query, reply, mark.offset)
        head = f"{question} → {shown}" if question else shown
        bits = "" if mark.mask == 0xFF or mark.length > 1 else f"{bit_word} 0x{mark.mask:02X} "
        result.append(Line(head, f"{bits}= {words}"))
    return result


def _question(query: bytes, reply: bytes, offset: int) -> str:
    """Where each answer byte belongs to a question of its own (a row of DLE EOT n), that question; else a short query as it is."""
    if query and len(query) % max(1, len(reply)) == 0 and len(query) // max(1, len(reply)) == 3:
        return query[offset * 3 : offset * 3 + 3].hex(" ").upper()
    return query.hex(" ").upper() if 0 < len(query) <= 8 else ""
