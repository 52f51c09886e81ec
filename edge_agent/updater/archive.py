"""Owns how an archive becomes files: a tar is a stranger's letter until each entry has proved harmless.

Only plain files, directories and relative links that stay inside; no entry goes through a link, no name comes twice, nothing is larger than promised.
What is unpacked is hashed in the same pass from the descriptor that was checked before, so the file cannot be another one between check and use.
Users, groups, times and set-id bits of the archive mean nothing: files get mode 0644 or 0755, and belong to whoever unpacks.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

from edge_agent.updater.errors import NotTrusted
from protocols.contract.records import UpdateReason
from protocols.packages import archive_names as names

CHUNK_BYTES = 256 * 1024
_EXTENDED = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)


class BadArchive(NotTrusted):
    """The archive holds what no release holds; the message says which entry and why."""

    def __init__(self, message: str, reason: UpdateReason = "badArchive") -> None:
        super().__init__(reason, message)


@dataclass(frozen=True, slots=True)
class Limits:
    """`files`: entries of all kinds. `unpacked_bytes`: sum of the files."""

    files: int = names.ENTRIES_MAX
    unpacked_bytes: int = names.UNPACKED_MAX_BYTES


@dataclass(slots=True)
class Unpacked:
    """What came out: sizes of files and targets of links, by path."""

    files: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    unpacked_bytes: int = 0

    def entries(self) -> int:
        return len(self.files) + len(self.links) + len(self.folders)


def open_image(path: Path) -> BinaryIO:
    """An image for `check` and `unpack`: a plain file, no link followed. OSError if there is none, BadArchive for something else."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise BadArchive(f"{path.name} is not a plain file")
    return os.fdopen(handle, "rb", buffering=0)


def check(image: BinaryIO, length: int, sha256: str, alive: Callable[[], None] = lambda: None) -> None:
    """The open file has this length and hash, or BadArchive (`length`, `hash`). `alive` is called now and then."""
    size = os.fstat(image.fileno()).st_size
    if size != length:
        raise BadArchive(f"the image has {size} bytes, {length} are signed", "length")
    image.seek(0)
    digest = hashlib.sha256()
    while chunk := image.read(CHUNK_BYTES):
        digest.update(chunk)
        alive()
    if digest.hexdigest() != sha256:
        raise BadArchive("the image has not the hash that is signed", "hash")


def unpack(image: BinaryIO, target: Path, *, sha256: str, limits: Limits, alive: Callable[[], None] = lambda: None) -> Unpacked:
    """Unpack the open image into `target`, a directory that is made here. BadArchive, or OSError of the disk; then `target` is to be discarded."""
    image.seek(0)
    stream = _Hashing(image)
    out = Unpacked()
    _make_folder(target)
    try:
        with tarfile.open(fileobj=cast(Any, stream), mode="r|", tarinfo=_Header, bufsize=CHUNK_BYTES) as tar:
            while (entry := tar.next()) is not None:
                _unpack_one(tar, entry, target, out, limits)
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every entry; typeshed does not know the attribute
                alive()
    except (tarfile.TarError, EOFError, UnicodeError, ValueError) as err:
        raise BadArchive(f"not a readable tar archive ({type(err).__name__})") from None
    while stream.read(CHUNK_BYTES):
        alive()
    if stream.hexdigest() != sha256:
        raise BadArchive("the image changed while it was unpacked", "hash")
    return out


class _Header(tarfile.TarInfo):
    """Refuses extended headers of a size that no honest archive has, before tarfile reads them into memory."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > names.EXTENDED_HEADER_MAX_BYTES:
            raise BadArchive(f"an extended header of {found.size} bytes")
        return found


class _Hashing:
    """A file for tarfile that hashes what is read."""

    def __init__(self, image: BinaryIO) -> None:
        self._image, self._digest = image, hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._image.read(min(size, CHUNK_BYTES))
        self._digest.update(chunk)
        return chunk

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _unpack_one(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path, out: Unpacked, limits: Limits) -> None:
    name = _checked_name(entry.name)
    if name in out.files or name in out.links or name in out.folders:
        raise BadArchive(f"{name}: comes twice")
    if entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
        raise BadArchive(f"{name}: has a set-id or sticky bit")
    if out.entries() >= limits.files:
        raise BadArchive(f"more than {limits.files} entries")
    _make_parents(target, name, out, limits)
    if entry.isdir():
        _make_folder(target / name)
        out.folders.add(name)
    elif entry.issym():
        link = _checked_link(name, entry.linkname)
        (target / name).symlink_to(link)
        out.links[name] = link
    elif entry.islnk():
        raise BadArchive(f"{name}: a hard link")
    elif entry.isreg() and not entry.issparse() and entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
        out.unpacked_bytes += entry.size
        if entry.size < 0 or out.unpacked_bytes > limits.unpacked_bytes:
            raise BadArchive(f"{name}: more than {limits.unpacked_bytes} bytes unpacked")
        _write(tar, entry, target / name)
        out.files[name] = entry.size
    else:
        raise BadArchive(f"{name}: neither a file, a directory nor a link")


def _write(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(entry)
    if source is None:
        raise BadArchive(f"{entry.name}: has no content")
    mode = 0o755 if entry.mode & 0o111 else 0o644
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb", buffering=0) as file:
        os.fchmod(handle, mode)
        left = entry.size
        while left:
            chunk = source.read(min(left, CHUNK_BYTES))
            if not chunk:
                raise BadArchive(f"{entry.name}: ends early")
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
            left -= len(chunk)


def _make_parents(target: Path, name: str, out: Unpacked, limits: Limits) -> None:
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        parent = "/".join(parts[:depth])
        if parent in out.folders:
            continue
        if parent in out.links:
            raise BadArchive(f"{name}: goes through the link {parent}")
        if parent in out.files:
            raise BadArchive(f"{name}: {parent} is a file")
        if out.entries() >= limits.files:
            raise BadArchive(f"more than {limits.files} entries")
        _make_folder(target / parent)
        out.folders.add(parent)


def _make_folder(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)  # whatever the umask is: the agent, another user, must be able to start from it


_NAME_WORDS: dict[names.NameProblem, str] = {
    "notUtf8": "a name that is not UTF-8",
    "tooLong": "its path is too long",
    "absolute": "an absolute path, or none",
    "control": "a control character or backslash in its name",
    "notPlain": "leaves its directory, or its path is not plain",
    "tooDeep": "too deep, or a name too long",
    "reserved": "a name that the updater uses",
}


def _checked_name(name: str) -> str:
    problem = names.name_problem(name)
    if problem is not None:
        raise BadArchive(f"{names.shown(name) or 'an entry'}: {_NAME_WORDS[problem]}")
    return name


def _checked_link(name: str, link: str) -> str:
    if not names.is_inside(name, link):
        raise BadArchive(f"{name}: a link that may lead out of the tree")
    return link
