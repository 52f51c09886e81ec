"""Owns the step from "checked" to "used": what is read is what was hashed, because it is read through the same open file.

A path can name another file a moment later. So a file is opened once, without following a link, hashed through that descriptor, and handed on as
that descriptor. Where even its bytes could change in between, `HashingReader` hashes what the consumer really got, and `finish` must be called
before anything made of it counts.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from edge_agent.updater.errors import NotTrusted

_BLOCK = 1024 * 1024


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file for reading. NotTrusted if it is a link, a device or anything else; OSError as usual."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as err:
        if path.is_symlink():
            raise NotTrusted("hash", f"{path.name} is a link") from err
        raise
    file = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise NotTrusted("hash", f"{path.name} is not a regular file")
    return file


def open_verified(path: Path, length: int, sha256: bytes) -> BinaryIO:
    """The file at `path`, at its beginning, after its content was checked. NotTrusted with reason `length` or `hash`."""
    file = open_plain(path)
    try:
        check(file, length, sha256, path.name)
    except BaseException:
        file.close()
        raise
    return file


def check(file: BinaryIO, length: int, sha256: bytes, name: str) -> None:
    """Hash an open file from its beginning, and go back there."""
    found = os.fstat(file.fileno()).st_size
    if found != length:
        raise NotTrusted("length", f"{name} has {found} bytes instead of {length}")
    file.seek(0)
    digest, seen = hashlib.sha256(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
        seen += len(block)
    if seen != length or digest.digest() != sha256:
        raise NotTrusted("hash", f"{name} has not the content that was signed")
    file.seek(0)


class HashingReader(io.RawIOBase):
    """Reads `file` from where it stands, never more than `length` bytes, and hashes what it hands out."""

    def __init__(self, file: BinaryIO, length: int, sha256: bytes) -> None:
        super().__init__()
        self._file = file
        self._left = length
        self._sha256 = sha256
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        data = self._file.read(len(view)) if len(view) else b""
        view[: len(data)] = data
        self._digest.update(data)
        self._left -= len(data)
        return len(data)

    def finish(self) -> None:
        """Read what the consumer left, and compare. NotTrusted if the bytes that were handed out are not those that were signed."""
        while self.read(_BLOCK):
            pass
        if self._left:
            raise NotTrusted("length", f"the file ended {self._left} bytes too early")
        if self._file.read(1):
            raise NotTrusted("length", "the file is longer than it was signed")
        if self._digest.digest() != self._sha256:
            raise NotTrusted("hash", "the file changed while it was used")
