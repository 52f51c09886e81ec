"""Owns how small files reach the disk: whole or not at all, and private from the first byte."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from edge_agent.errors import KeyRefused

PRIVATE = 0o600


def write_atomically(path: Path, data: bytes, mode: int = PRIVATE, owner: tuple[int, int] | None = None) -> None:
    """Replace `path` by `data`. After a power cut there is the old file or the new one; nobody else could ever read it in between.

    `owner`: (uid, gid) to give it to, for root.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # created with mode 0600
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename in `path` last."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_private_directory(path: Path) -> None:
    """Create `path` with mode 0700 if it is missing; an existing directory is left as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def read_private(path: Path, *, owner: int | None = None) -> bytes:
    """The content of a secret file. KeyRefused if it is missing, not a regular file, or anyone but its owner may touch it.

    `owner`: a user whose file root may take for one of its own.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise KeyRefused(f"{path} is missing") from None
    except OSError as err:
        raise KeyRefused(f"{path} cannot be read: {os.strerror(err.errno or 0)}") from err
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise KeyRefused(f"{path} is not a regular file")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeyRefused(f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others can touch it: chmod 600 {path}")
        if status.st_uid not in (os.geteuid(), 0, owner):
            raise KeyRefused(f"{path} belongs to user {status.st_uid}, who could exchange it: chown it to the agent's user")
        return file.read()


def create_once(path: Path, data: bytes) -> bool:
    """Create `path` with mode 0600 unless it exists; False if somebody was first. Never replaces a key."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True
