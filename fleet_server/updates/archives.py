"""What an archive may hold before it may be released: plain files, directories, links that stay inside; no more than is promised.

Terminals have the same rules and apply them again; a release that they would refuse is refused here, where a person can still mend it.
"""

from __future__ import annotations

import stat
import tarfile
from pathlib import Path

import msgspec

from fleet_server.updates.errors import PackRefused
from protocols.packages import archive_names as names

_EXTENDED = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


class Unpacked(msgspec.Struct, frozen=True):
    """What a terminal will find: entries of all kinds, directories that are only implied among them, and the sum of the files."""

    entries: int
    bytes: int


class _Header(tarfile.TarInfo):
    """Refuses extended headers of a size that no honest archive has, before tarfile reads them into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > names.EXTENDED_HEADER_MAX_BYTES:
            raise PackRefused("noArchive")
        return found


def check(path: Path) -> Unpacked:
    """Look at every entry of a plain tar; PackRefused names the first that breaks a rule. The contents are not read."""
    seen: dict[str, str] = {}
    total = 0
    try:
        with tarfile.open(path, "r:", tarinfo=_Header) as archive:
            for entry in archive:
                total += _check_entry(entry, seen)
                if len(seen) > names.ENTRIES_MAX or total > names.UNPACKED_MAX_BYTES:
                    raise PackRefused("archiveTooLarge", files=names.ENTRIES_MAX, mib=names.UNPACKED_MAX_BYTES >> 20)
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every entry otherwise
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError, EOFError, UnicodeError, OverflowError) as err:
        raise PackRefused("noArchive") from err
    # At a header that it cannot read tarfile stops as if the archive ended: only the block of zeros is its end.
    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise PackRefused("noArchive")
    if not seen:
        raise PackRefused("noArchive")
    return Unpacked(entries=len(seen), bytes=total)


def _check_entry(entry: tarfile.TarInfo, seen: dict[str, str]) -> int:
    """Remember the entry and its directories in `seen` (path → kind); returns its bytes."""
    name = _checked_name(entry.name)
    if name in seen:
        raise _bad("entryTwice", name)
    if entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        raise _bad("entryRights", name)
    parts = name.split("/")
    for depth in range(1, len(parts)):
        parent = "/".join(parts[:depth])
        if seen.setdefault(parent, "folder") != "folder":
            raise _bad("entryThrough", name)
    if entry.isdir():
        seen[name] = "folder"
        return 0
    if entry.issym():
        if not names.is_inside(name, entry.linkname):
            raise _bad("entryLink", name)
        seen[name] = "link"
        return 0
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse() or entry.size < 0:
        raise _bad("entryKind", name)
    seen[name] = "file"
    return entry.size


def _checked_name(name: str) -> str:
    problem = names.name_problem(name)
    if problem is not None:
        raise _bad("entryReserved" if problem == "reserved" else "entryName", name)
    return name


def _bad(reason: str, name: str) -> PackRefused:
    return PackRefused(reason, entry=names.shown(name))
