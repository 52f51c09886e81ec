"""Which names and links a release's archive may hold, and how much. The server asks before it signs, the terminal again before it unpacks."""

from __future__ import annotations

from typing import Final, Literal

ENTRIES_MAX: Final = 60_000
UNPACKED_MAX_BYTES: Final = 1 << 30
NAME_MAX_BYTES: Final = 200
PATH_MAX_BYTES: Final = 400
DEPTH_MAX: Final = 24
EXTENDED_HEADER_MAX_BYTES: Final = 64 * 1024
"""Extended headers (long names); python's own builds need less than 1 KiB."""
RESERVED: Final = frozenset({".complete"})
"""Names that the updater itself writes into a version's directory."""

NameProblem = Literal["notUtf8", "tooLong", "absolute", "control", "notPlain", "tooDeep", "reserved"]


def name_problem(name: str) -> NameProblem | None:
    """What is wrong with an entry's path, e.g. `notPlain` for one that goes up; None for a sound one."""
    try:
        raw = name.encode("utf-8")
    except UnicodeEncodeError:
        return "notUtf8"
    parts = name.split("/")
    if len(raw) > PATH_MAX_BYTES:
        return "tooLong"
    if not parts[0]:
        return "absolute"
    if any(ord(char) < 32 or ord(char) == 127 or char == "\\" for char in name):
        return "control"
    if any(part in ("", ".", "..") for part in parts):
        return "notPlain"
    if len(parts) > DEPTH_MAX or any(len(part.encode("utf-8")) > NAME_MAX_BYTES for part in parts):
        return "tooDeep"
    return "reserved" if parts[0] in RESERVED else None


def is_inside(name: str, link: str) -> bool:
    """Whether the target of a link at `name` stays in the tree.

    Steps up come first and not past the top; what follows never goes up. So every link, also through others, stays inside.
    """
    parts = link.split("/")
    ups = next((at for at, part in enumerate(parts) if part != ".."), len(parts))
    return (
        bool(link)
        and len(link.encode("utf-8", "replace")) <= PATH_MAX_BYTES
        and ups <= name.count("/")
        and not any(part in ("", ".", "..") for part in parts[ups:])
        and not any(ord(char) < 32 for char in link)
    )


def shown(name: str) -> str:
    """An entry's name as it may stand in a message: printable ASCII, cut."""
    text = name[:80].encode("ascii", "backslashreplace").decode("ascii")
    return text if text.isprintable() else repr(text)
