"""Synthetic personal data that belongs to nobody, and the search for it in everything that a program leaves behind, however it was encoded."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

NAME = "测标赵钱孙李周吴"
"""Eight signs that are no person's name."""
NUMBER = "999999190001019990"
"""The form of a resident number; no region has 999999."""
ADDRESS = "虚拟路七百四十三号九单元"
TEXT = "PLANTED-QR-7431-KX"
DIGITS = "918273645091"
"""Typed on keypads."""
CLIENT_ID = "5f0c1d2e-7a6b-4c3d-9e8f-a1b2c3d4e5f6"
"""What an application calls a case by: random, and still nobody else's business."""
MARKS = (NAME, NUMBER, ADDRESS, TEXT, DIGITS, CLIENT_ID)
LEAKED = "deliberately.leaked.mark"
"""For the control: an item code, which a record may carry."""

WINDOW = {True: 9, False: 4}
"""Signs that a piece must have to be looked for: plain ASCII, and Chinese."""


def pieces(mark: str) -> Iterator[str]:
    """The mark and its overlapping parts: something cut off in the middle is found as well."""
    yield mark
    size = WINDOW[mark.isascii()]
    for start in range(0, len(mark) - size + 1, max(1, size // 2)):
        yield mark[start : start + size]


def needles(mark: str) -> dict[bytes, str]:
    """Byte strings that betray `mark`, with the name of the encoding."""
    found: dict[bytes, str] = {}
    for piece in pieces(mark):
        raws = {name: piece.encode(name) for name in ("utf-8", "utf-16-le", "utf-16-be", "gbk")}
        for name, raw in raws.items():
            found[raw] = name
            found[raw.hex().encode()] = f"hex of {name}"
            found[raw.hex().upper().encode()] = f"hex of {name}"
            for shift in range(3):
                # Only the signs that do not depend on what stands before and behind.
                text = base64.b64encode(bytes(shift) + raw)
                core = text[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
                if len(core) >= 8:
                    found[core] = f"base64 of {name}"
                    found[core.translate(bytes.maketrans(b"+/", b"-_"))] = f"base64 of {name}"
        found.setdefault(quote(piece, safe="").encode(), "percent signs")
        if not piece.isascii():
            found[json.dumps(piece)[1:-1].encode()] = "JSON escapes"
    return found


class Search:
    """Looks for marks, and for raw byte patterns that stand for one (key codes)."""

    def __init__(self, marks: Iterable[str], raw: dict[bytes, str] | None = None) -> None:
        self._needles = {needle: (mark, how) for mark in marks for needle, how in needles(mark).items()}
        self._needles |= {needle: (what, "raw") for needle, what in (raw or {}).items()}

    def in_bytes(self, where: str, data: bytes) -> list[str]:
        """Sentences about what was found; none is what everybody wants."""
        return [f"{mark!r} as {how} in {where}" for needle, (mark, how) in self._needles.items() if needle in data]

    def in_tree(self, folder: Path, *, leave_out: frozenset[Path] = frozenset()) -> tuple[list[str], int]:
        """(findings, bytes looked at) of every file below `folder`, sockets left out."""
        found: list[str] = []
        size = 0
        for path in sorted(folder.rglob("*")):
            if path in leave_out or not path.is_file() or path.is_symlink():
                continue
            data = path.read_bytes()
            size += len(data)
            found += self.in_bytes(str(path.relative_to(folder)), data)
            found += self.in_bytes(f"the name of {path.name}", path.name.encode("utf-8", "surrogateescape"))
        return found, size
