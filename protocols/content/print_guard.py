"""Whether a raw job does more than print: sets the machine up, writes its memory, or silences what it says to whoever watches it.

A job is walked command by command, so that the bytes of a picture are never taken for a command. What is not known has two bytes and is followed by
text: a command that is refused cannot hide behind one that is not known.

Source: Epson ESC/POS command reference (GS ( A-E, GS ( L and GS 8 L functions 65-68, GS ( M, GS D, GS a, GS j, GS g 0, FS q, FS g 1, FS ( E, FS ( e,
ESC =, DLE DC4 2), Custom command manuals (FS <: another emulation), set-up utilities of unbranded printers (US …), STAR Line Mode specification
(ESC GS #, ESC FS q, ESC RS a, ESC RS E, ESC ? LF NUL, DC3), HP PJL Technical Reference (DEFAULT, INITIALIZE, USTATUS, OPMSG, FS…).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

MAX_COMMANDS = 50_000
"""A job of more is no slip; to walk it would hold up everybody else's devices."""
_POWER_OFF = b"\x10\x14\x02\x01\x08"
"""Real-time commands are obeyed in the middle of a picture, too."""

# --- ESC/POS ---

_ESCPOS_LEAD = re.compile(rb"[\x10\x1b\x1c\x1d\x1f]")
_ESCPOS_PARAMETERS: Mapping[bytes, int] = {
    **{b"\x1b" + bytes([c]): 1 for c in b"!%-3=?EGJKMRTUVadertu{ "},
    **{b"\x1b" + bytes([c]): 2 for c in b"$\\cB8"},
    **{b"\x1b" + bytes([c]): 3 for c in b"p7"},
    b"\x1bW": 8,
    **{b"\x1d" + bytes([c]): 1 for c in b"!/BEHITabefhjrw"},
    **{b"\x1d" + bytes([c]): 2 for c in b"$LPW\\"},
    b"\x1d^": 3,
    b"\x1dg": 4,
    b"\x1dz": 3,
    **{b"\x1c" + bytes([c]): 1 for c in b"!-CW"},
    **{b"\x1c" + bytes([c]): 2 for c in b"?Sp"},
    b"\x1c2": 74,
    b"\x10\x04": 1,
    b"\x10\x05": 1,
}
"""Bytes behind a command of a fixed length."""
_LISTED = frozenset((b"\x1b(", b"\x1c(", b"\x1d("))
"""ESC (, FS (, GS (: a letter, a length, and that many bytes."""
_GS_FUNCTIONS = frozenset(b"FGHKLNPQVk")
"""Of GS (: marks, slip side, transmissions, print speed, pictures, colours, pages, lines, cutter, two-dimensional codes."""
_FS_FUNCTIONS = frozenset(b"ACL")
_MEMORY_FUNCTIONS = frozenset(range(65, 69))


def escpos_sets_up(data: bytes) -> bool:
    """Whether an ESC/POS job is more than a slip."""
    if _POWER_OFF in data:
        return True
    return _walk(data, _ESCPOS_LEAD, _escpos_refused, _escpos_bytes)


def _walk(data: bytes, lead: re.Pattern[bytes], refused: Callable[[bytes, int], bool], size: Callable[[bytes, int], int]) -> bool:
    at = 0
    for _ in range(MAX_COMMANDS):
        if (found := lead.search(data, at)) is None:
            return False
        at = found.start()
        if refused(data, at):
            return True
        at += size(data, at)
    return True


def _escpos_refused(data: bytes, at: int) -> bool:
    head, first = data[at : at + 2], data[at + 2 : at + 3]
    if head[:1] == b"\x1f" or head in (b"\x1da", b"\x1dj", b"\x1dD", b"\x1cq", b"\x1c<"):
        return True
    match head:
        case b"\x1b=":
            return bool(first) and not first[0] & 1  # the printer hears nothing but the next of these
        case b"\x1dg":
            return first in (b"\x00", b"0")  # a counter that is counted on
        case b"\x1cg":
            return first in (b"\x01", b"1")
        case b"\x1c(":
            return bool(first) and first[0] not in _FS_FUNCTIONS
        case b"\x1d(":
            return bool(first) and (first[0] not in _GS_FUNCTIONS or (first == b"L" and _writes_memory(data[at + 6 : at + 7])))
        case b"\x1d8":
            return first == b"L" and _writes_memory(data[at + 8 : at + 9])
    return False


def _writes_memory(function: bytes) -> bool:
    return bool(function) and function[0] in _MEMORY_FUNCTIONS


def _escpos_bytes(data: bytes, at: int) -> int:
    """Of the command that begins at `at`, its picture or text included."""
    head = data[at : at + 2]
    if (fixed := _ESCPOS_PARAMETERS.get(head)) is not None:
        return 2 + fixed
    if head in _LISTED:
        return 5 + _number(data, at + 3, 2)
    own = _ESCPOS_OWN.get(head)
    return 2 if own is None else own(data, at)


def _real_time(data: bytes, at: int) -> int:
    return {1: 5, 3: 6, 7: 4, 8: 10}.get(_number(data, at + 2, 1), 3)


def _own_characters(data: bytes, at: int) -> int:
    """ESC & y c1 c2, then for each character its width and so many columns of y bytes."""
    high, first, last = (_number(data, at + k, 1) for k in (2, 3, 4))
    size = 5
    for _ in range(first, last + 1):
        size += 1 + high * _number(data, at + size, 1)
    return size


def _column_picture(data: bytes, at: int) -> int:
    return 5 + _number(data, at + 3, 2) * (3 if _number(data, at + 2, 1) in (32, 33) else 1)


def _tab_stops(data: bytes, at: int) -> int:
    return _until(data, at + 2, 0, most=32) - at


def _bar_code(data: bytes, at: int) -> int:
    if _number(data, at + 2, 1) <= 6:
        return _until(data, at + 3, 0, most=255) - at
    return 4 + _number(data, at + 3, 1)


_ESCPOS_OWN: Mapping[bytes, Callable[[bytes, int], int]] = {
    b"\x10\x14": _real_time,
    b"\x1b&": _own_characters,
    b"\x1b*": _column_picture,
    b"\x1bD": _tab_stops,
    b"\x1bZ": lambda data, at: 7 + _number(data, at + 5, 2),
    b"\x1d*": lambda data, at: 4 + 8 * _number(data, at + 2, 1) * _number(data, at + 3, 1),
    b"\x1d8": lambda data, at: 7 + _number(data, at + 3, 4),
    b"\x1dC": lambda data, at: {0x30: 5, 0x31: 9, 0x32: 5}.get(_number(data, at + 2, 1), 3),
    b"\x1dQ": lambda data, at: 8 + _number(data, at + 4, 2) * _number(data, at + 6, 2),
    b"\x1dV": lambda data, at: 3 if _number(data, at + 2, 1) in (0, 1, 48, 49) else 4,
    b"\x1dk": _bar_code,
    b"\x1dv": lambda data, at: 8 + _number(data, at + 4, 2) * _number(data, at + 6, 2),
}

# --- Star line mode ---

_STAR_LEAD = re.compile(rb"[\x13\x1b]")
_STAR_REFUSED = (b"\x1b\x1d#", b"\x1b\x1cq", b"\x1b\x1ea", b"\x1b\x1eE", b"\x1b?\n\x00")
_STAR_PARAMETERS: Mapping[bytes, int] = {
    **{b"\x1b" + bytes([c]): 1 for c in b"-CIJNQRW_adehlswz"},
    **{b"\x1b" + bytes([c]): 2 for c in b"Ai"},
    b"\x1bb": 4,
    **{b"\x1b\x1d" + bytes([c]): 1 for c in b"LPRat"},
    b"\x1b\x1dA": 2,
    b"\x1b\x1cp": 2,
    **{b"\x1b\x1e" + bytes([c]): 1 for c in b"ACFLdr"},
}


def star_sets_up(data: bytes) -> bool:
    """Whether a job in Star's line mode is more than a slip."""
    return _walk(data, _STAR_LEAD, _star_refused, _star_bytes)


def _star_refused(data: bytes, at: int) -> bool:
    return data[at] == 0x13 or data.startswith(_STAR_REFUSED, at)


def _star_bytes(data: bytes, at: int) -> int:
    for size in (2, 3):
        if (fixed := _STAR_PARAMETERS.get(data[at : at + size])) is not None:
            return size + fixed
    if data.startswith((b"\x1bK", b"\x1bL"), at):
        return 4 + _number(data, at + 2, 2)
    if data.startswith(b"\x1bX", at):
        return 4 + 3 * _number(data, at + 2, 2)
    if data.startswith(b"\x1bk", at):
        return 4 + 24 * _number(data, at + 2, 1)
    if data.startswith(b"\x1bD", at):
        return _until(data, at + 2, 0, most=32) - at
    if data.startswith(b"\x1b\x1dS", at):
        return 9 + _number(data, at + 4, 2) * _number(data, at + 6, 2)
    if data.startswith(b"\x1b\x1dyD1", at):
        return 8 + _number(data, at + 6, 2)
    if data.startswith(b"\x1b\x1dxD", at):
        return 6 + _number(data, at + 4, 2)
    if data.startswith(b"\x1b*rB", at):
        return 4
    if data.startswith((b"\x1b*r", b"\x1b\x0c\x00"), at):
        return _raster_lines(data, at) - at
    return 2


def _raster_lines(data: bytes, at: int) -> int:
    """Behind a command of raster mode and the lines of the picture that follow it: `b` or `k`, a length, so many bytes."""
    at = at + 4 if data[at + 3 : at + 4] in (b"A", b"C", b"R") else _until(data, at + 2, 0, most=16)
    while data[at : at + 1] in (b"b", b"k"):
        at += 3 + _number(data, at + 1, 2)
    return at


# --- PJL ---

_PJL_PART = re.compile(rb"(?:\A|\x1b%-12345X)((?:[ \t\r\n]++|@PJL[^\n]*+(?:\n|\Z))*+)", re.IGNORECASE)
_PJL_REFUSED = re.compile(
    rb"@PJL[ \t]+(?:(?:DEFAULT|INITIALIZE|UPGRADE|OPMSG|STMSG|DMCMD|FS[A-Z]+|USTATUS(?:OFF)?)\b"
    rb"|SET[ \t]+SERVICEMODE\b|ENTER[ \t]+LANGUAGE[ \t]*=[ \t]*ACL\b)",
    re.IGNORECASE,
)


def pjl_sets_up(data: bytes) -> bool:
    """Whether a document's job language does more than choose how this document is printed. PJL stands at the beginning and behind each UEL."""
    return any(_PJL_REFUSED.search(part.group(1)) for part in _PJL_PART.finditer(data))


# --- both ---


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _until(data: bytes, at: int, end: int, *, most: int) -> int:
    """Behind the byte `end`, or behind `most` bytes without it."""
    found = data.find(bytes([end]), at, at + most + 1)
    return at + most if found < 0 else found + 1
