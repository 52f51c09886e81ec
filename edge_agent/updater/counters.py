"""Owns what a terminal may never forget: the newest desired state it accepted, and the highest release of each component it ever installed.

Kept in two places where the caller has two (a second partition, a file that an image restore does not touch); the higher number counts. A file
that is missing or spoiled counts as nothing, so one good copy is enough. The first place must take what is new; one of the others that cannot be
written protects less, but stops nothing.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from edge_agent import files
from edge_agent.updater.errors import NotTrusted
from edge_agent.updater.verified import open_plain
from protocols.contract.limits import COUNTER_STEP_MAX
from protocols.contract.records import ComponentName, Count

log = logging.getLogger(__name__)

FILE: Final = "counters.json"
MAX_BYTES = 64 * 1024


class _File(msgspec.Struct, frozen=True, kw_only=True):
    desired: Count = 0
    digest: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    """SHA-256 of that desired state's envelope: a counter is used once."""
    releases: dict[ComponentName, Count] = {}


class Counters:
    """`paths`: where the copies lie, the one that must be written first. Copies that are behind are made again at once."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._broken: set[Path] = set()
        kept, found = _File(), [_read(path) for path in paths]
        for one in found:
            kept = _higher(kept, one)
        self._kept = kept
        for path, one in zip(paths, found, strict=True):
            if one != kept:
                self._copy(path, kept)

    @property
    def desired(self) -> int:
        return self._kept.desired

    @property
    def releases(self) -> dict[str, int]:
        """By component; one that was never installed is missing."""
        return dict(self._kept.releases)

    def accept_desired(self, counter: int, raw: bytes) -> None:
        """Remember an authentic desired state. NotTrusted (`superseded`) if a newer one was accepted, or another one with this counter."""
        digest = hashlib.sha256(raw).hexdigest()
        if counter < self._kept.desired or (counter == self._kept.desired and digest != self._kept.digest):
            raise NotTrusted("superseded", f"desired state {counter} is not newer than {self._kept.desired}")
        if counter > self._kept.desired + COUNTER_STEP_MAX:
            raise NotTrusted("notAuthentic", f"desired state {counter} is too far above {self._kept.desired}")
        if counter > self._kept.desired:
            self._write(msgspec.structs.replace(self._kept, desired=counter, digest=digest))

    def installed(self, component: str, release: int, *, lowers: bool = False) -> None:
        """A release was committed. Only with `lowers`, which desired state and director must both have said, may the number fall."""
        if lowers or release > self._kept.releases.get(component, 0):
            self._write(msgspec.structs.replace(self._kept, releases={**self._kept.releases, component: release}))

    def _write(self, new: _File) -> None:
        """OSError if the first place refuses: then nothing counts as accepted."""
        if self._paths:
            files.write_atomically(self._paths[0], msgspec.json.encode(new))
        self._kept = new
        for path in self._paths[1:]:
            self._copy(path, new)

    def _copy(self, path: Path, new: _File) -> None:
        """As far as it can be had; a place that refuses is told once."""
        try:
            files.write_atomically(path, msgspec.json.encode(new))
        except OSError as err:
            if path not in self._broken:
                log.warning(
                    "a copy of the release counters cannot be written", extra={"path": str(path), "reason": str(err.strerror)}
                )
            self._broken.add(path)
        else:
            self._broken.discard(path)


def _higher(one: _File, other: _File) -> _File:
    newer = max(one, other, key=lambda kept: kept.desired)
    components = {*one.releases, *other.releases}
    releases = {name: max(one.releases.get(name, 0), other.releases.get(name, 0)) for name in components}
    return msgspec.structs.replace(newer, releases=releases)


def _read(path: Path) -> _File:
    try:
        with open_plain(path) as file:
            return msgspec.json.decode(file.read(MAX_BYTES), type=_File)
    except (OSError, NotTrusted, msgspec.MsgspecError, UnicodeDecodeError):
        return _File()
