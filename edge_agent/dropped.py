"""What the updater hands over: a verified file per component in a directory that only the updater writes, and what the agent answers.

The updater puts the file and then `want.json` into `updates/<component>/`. Who installs it trusts nothing but the hash: the file is opened once,
without following a link, and what is used are the very bytes that were hashed. Answers go to `requests/outcomes/<component, / as +>.json`.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_agent import files
from edge_agent.errors import AgentError
from protocols.contract.records import ComponentName, Count, ProfileId, UpdateReason, Version

WANT = "want.json"
WANT_MAX_BYTES = 16 * 1024
CHUNK_BYTES = 1 << 20
OUTCOMES = "outcomes"

HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
HexId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
FileName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")]


class DropRefused(AgentError):
    """What lies there is not what was verified. `reason` is the word for the record."""

    def __init__(self, reason: UpdateReason, sentence: str) -> None:
        super().__init__(sentence)
        self.reason: UpdateReason = reason


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """One verified file, as `want.json` says it. `path` is a name beside it."""

    component: ComponentName
    version: Version
    release: Count
    path: FileName
    sha256: HexDigest
    length: Count
    """The true length: XMODEM cannot tell it."""
    hardware: Annotated[tuple[ProfileId, ...], Meta(max_length=64)] = ()
    min_from: Version | None = None
    unpacked_bytes: Count = 0
    unpacked_files: Count = 0
    bundle: HexId = "0" * 32
    rollout: HexId = "0" * 32


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it, for the updater's workflow. `sha256` tells which file is meant."""

    component: ComponentName
    version: Version
    sha256: HexDigest
    state: Literal["committed", "failed", "refused"]
    reason: UpdateReason = "none"


def find(updates_dir: Path) -> list[Dropped]:
    """Everything that lies there, by component; what cannot be read is left out, for the updater writes it again."""
    found = []
    for want in _wants(updates_dir):
        try:
            with _opened(want) as file:
                raw = file.read(WANT_MAX_BYTES + 1)
            drop = msgspec.json.decode(raw, type=Dropped) if len(raw) <= WANT_MAX_BYTES else None
        except (OSError, msgspec.MsgspecError):
            continue
        if drop is not None and drop.component == str(want.parent.relative_to(updates_dir)):
            found.append(drop)
    return sorted(found, key=lambda drop: drop.component)


def read(updates_dir: Path, drop: Dropped, *, max_bytes: int) -> bytes:
    """The file's bytes, hashed as they were read. Raises DropRefused."""
    if drop.length > max_bytes:
        raise DropRefused("length", f"{drop.component}: larger than {max_bytes} bytes")
    digest, parts, left = hashlib.sha256(), [], drop.length + 1
    try:
        with _opened(updates_dir / drop.component / drop.path) as file:
            while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
                digest.update(chunk)
                parts.append(chunk)
                left -= len(chunk)
    except OSError as err:
        raise DropRefused("notFound", f"{drop.component}: cannot be read ({err.strerror})") from err
    if left != 1:
        raise DropRefused("length", f"{drop.component}: not the length that was signed")
    if digest.hexdigest() != drop.sha256:
        raise DropRefused("hash", f"{drop.component}: not the bytes that were signed")
    return b"".join(parts)


def answer(requests_dir: Path, told: Answer) -> None:
    """Tell the updater. OSError if the directory cannot be written."""
    folder = requests_dir / OUTCOMES
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomically(folder / f"{told.component.replace('/', '+')}.json", msgspec.json.encode(told), mode=0o640)


def read_answer(requests_dir: Path, component: str) -> Answer | None:
    """The agent's last word on a component; None if there is none that can be read."""
    try:
        raw = (requests_dir / OUTCOMES / f"{component.replace('/', '+')}.json").read_bytes()
        return msgspec.json.decode(raw, type=Answer)
    except (OSError, msgspec.MsgspecError):
        return None


def _wants(updates_dir: Path) -> Iterator[Path]:
    yield from sorted(updates_dir.glob(f"*/{WANT}"))
    yield from sorted(updates_dir.glob(f"*/*/{WANT}"))


class _opened:  # noqa: N801 -- used like a function
    """A regular file, opened once and without following a link at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Reader:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise OSError(0, "not a regular file")
        return _Reader(self._fd)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class _Reader:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, size: int) -> bytes:
        return os.read(self._fd, size)
