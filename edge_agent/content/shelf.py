"""Content packages on the disk: unpacked next to the old version, checked file by file, then put in place by one small file.

`<folder>/<name>/current.json` says which version counts; versions lie in `<folder>/<name>/<sha256>/`. What is half unpacked has another name and is
swept at the next start. Nothing is served that the manifest does not name, so no path of a request ever reaches the file system.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent import files
from edge_agent.artifacts import verified
from edge_agent.artifacts.desk import Tell
from edge_agent.artifacts.verified import ArtifactRefused
from edge_agent.updater.handover import AppliedOne, Artifact, HexDigest, read_bounded
from protocols.packages import content
from protocols.packages.content import MANIFEST, MANIFEST_MAX_BYTES, PACKAGE_MAX_BYTES, Manifest
from protocols.packages.profiles import PackageError

log = logging.getLogger(__name__)

TOTAL_MAX_BYTES = 2 * 1024 * 1024 * 1024
SPARE_BYTES = 256 * 1024 * 1024
"""Stays free on the disk: the outbox comes first."""
HALF = ".half-"


class _Pointer(msgspec.Struct, frozen=True, kw_only=True):
    current: HexDigest
    previous: HexDigest | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A package that counts."""

    manifest: Manifest
    folder: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class Shown:
    """One file to serve."""

    path: Path
    content_type: str
    etag: str
    size: int


class Shelf:
    """All packages. `now_ms`: trusted wall time, None while there is none. `connected`: there is a connection to the server."""

    def __init__(
        self,
        folder: Path,
        *,
        artifacts_dir: Path,
        now_ms: Callable[[], int | None],
        connected: Callable[[], bool],
        total_max_bytes: int = TOTAL_MAX_BYTES,
        free_bytes: Callable[[Path], int] | None = None,
    ) -> None:
        self._folder, self._artifacts_dir = folder, artifacts_dir
        self._now_ms, self._connected = now_ms, connected
        self._total_max_bytes, self._free_bytes = total_max_bytes, free_bytes or _free
        self._held: dict[str, Held] = {}

    # ------------------------------------------------------------------------------------------------------------------- asking

    def valid(self) -> list[Held]:
        """What may be shown now, the most important first."""
        now_ms, connected = self._now_ms(), self._connected()
        found = [one for one in self._held.values() if one.manifest.shown_at(now_ms, connected=connected)]
        return sorted(found, key=lambda one: (-one.manifest.priority, one.manifest.name))

    def find(self, name: str, file: str) -> Shown | None:
        """A file of a package that may be shown now; None for everything else."""
        held = self._held.get(name)
        if held is None or not held.manifest.shown_at(self._now_ms(), connected=self._connected()):
            return None
        entry = next((one for one in held.manifest.files if one.name == file), None)
        kind = None if entry is None else content.type_of(entry.name)
        if entry is None or kind is None:
            return None
        return Shown(held.folder / "files" / entry.name, kind, f'"{entry.sha256[:32]}"', entry.bytes)

    def version_of(self, name: str, page: str) -> str | None:
        """Version of the package in use, if it has that page."""
        held = self._held.get(name)
        if held is None or all(one.id != page for one in held.manifest.pages):
            return None
        return held.manifest.version

    # -------------------------------------------------------------------------------------------------------------- installing

    def load(self) -> None:
        """Find what is there; sweep what an interrupted run left. Never raises: a package that cannot be read is not shown."""
        self._held.clear()
        for place in sorted(self._folder.glob("*/")):
            pointer = _pointer(place)
            for sha256 in () if pointer is None else (pointer.current, pointer.previous):
                held = None if sha256 is None else _held(place, sha256)
                if held is not None:
                    self._held[place.name] = held
                    break
            for stray in place.iterdir():
                if stray.name.startswith(HALF) or (
                    stray.is_dir() and pointer and stray.name not in (pointer.current, pointer.previous)
                ):
                    shutil.rmtree(stray, ignore_errors=True)

    async def install(self, artifact: Artifact, tell: Tell) -> AppliedOne:
        name = artifact.component.partition("/")[2]
        held = self._held.get(name)
        if held is None or held.sha256 != artifact.sha256:
            tell("installing", "none")
            self._held[name] = await asyncio.to_thread(self._unpack, name, artifact)
        return AppliedOne(component=artifact.component, state="done", version=artifact.version)

    async def revert(self, artifact: Artifact) -> AppliedOne:
        name = artifact.component.partition("/")[2]
        place = self._folder / name
        pointer = _pointer(place)
        if pointer is not None and pointer.current == artifact.sha256:
            before = None if pointer.previous is None else _held(place, pointer.previous)
            if before is None:
                (place / "current.json").unlink()
                self._held.pop(name, None)
            else:
                files.write_atomically(place / "current.json", msgspec.json.encode(_Pointer(current=before.sha256)))
                self._held[name] = before
            shutil.rmtree(place / artifact.sha256, ignore_errors=True)
        held = self._held.get(name)
        return AppliedOne(component=artifact.component, state="done", version=None if held is None else held.manifest.version)

    def _unpack(self, name: str, artifact: Artifact) -> Held:
        place = self._folder / name
        place.mkdir(parents=True, exist_ok=True)
        half, whole = place / f"{HALF}{artifact.sha256}", place / artifact.sha256
        shutil.rmtree(half, ignore_errors=True)
        pointer = _pointer(place)
        self._make_room(place, pointer, artifact.length)
        try:
            manifest = self._write(half, name, artifact)
            shutil.rmtree(whole, ignore_errors=True)
            half.rename(whole)
        except BaseException:
            shutil.rmtree(half, ignore_errors=True)
            raise
        files.sync_directory(place)
        previous = None if pointer is None else pointer.current
        pointed = _Pointer(current=artifact.sha256, previous=previous if previous != artifact.sha256 else None)
        files.write_atomically(place / "current.json", msgspec.json.encode(pointed))
        return Held(manifest, whole, artifact.sha256)

    def _write(self, half: Path, name: str, artifact: Artifact) -> Manifest:
        """Every file hashed against the manifest, and the whole against what was signed, before any of it counts."""
        manifest: Manifest | None = None
        (half / "files").mkdir(parents=True)
        try:
            with verified.opened(self._artifacts_dir, artifact, max_bytes=PACKAGE_MAX_BYTES + MANIFEST_MAX_BYTES) as chunks:
                stream = _Stream(chunks)
                for manifest, entry, body in content.entries(stream):  # noqa: B007 -- the manifest is used after the loop
                    if entry is not None and body is not None:
                        _copy(body, half / "files" / entry.name, entry.sha256)
                stream.drain()
        except (PackageError, tarfile.TarError) as err:
            raise ArtifactRefused("badArchive", str(err)) from None
        assert manifest is not None, "entries gives it first"
        if (manifest.name, manifest.version) != (name, artifact.version):
            raise ArtifactRefused("badArchive", "name, version: not those that were signed")
        _store(half / MANIFEST, msgspec.json.encode(manifest))
        for folder in sorted({half, half / "files", *(path.parent for path in (half / "files").rglob("*"))}):
            files.sync_directory(folder)
        return manifest

    def _make_room(self, place: Path, pointer: _Pointer | None, needed: int) -> None:
        """Earlier versions go before a new one is refused; what is shown stays."""
        if pointer is not None and pointer.previous is not None:
            files.write_atomically(place / "current.json", msgspec.json.encode(_Pointer(current=pointer.current)))
            shutil.rmtree(place / pointer.previous, ignore_errors=True)
        used = sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())
        if used + needed > self._total_max_bytes:
            raise ArtifactRefused("noSpace", f"content may take {self._total_max_bytes >> 20} MiB on this terminal")
        if self._free_bytes(self._folder) < needed + SPARE_BYTES:
            raise ArtifactRefused("noSpace", "the disk is too full for this package")


class _Stream(io.RawIOBase):
    """The hashed pieces as a file for tarfile."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        out = bytearray()
        while size < 0 or len(out) < size:
            if not self._left:
                self._left = next(self._chunks, b"")
                if not self._left:
                    break
            take = len(self._left) if size < 0 else size - len(out)
            out += self._left[:take]
            self._left = self._left[take:]
        return bytes(out)

    def drain(self) -> None:
        """To the end, where the hash is judged. More than zero blocks after the archive is not what we write."""
        while rest := self.read(1 << 20):
            if rest.strip(b"\0"):
                raise PackageError("package: has more after its end")


def _copy(body: object, path: Path, sha256: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as out:
        while chunk := body.read(1 << 20):  # type: ignore[attr-defined]
            digest.update(chunk)
            out.write(chunk)
        out.flush()
        os.fsync(out.fileno())
    if digest.hexdigest() != sha256:
        raise PackageError(f"{path.name}: not the bytes that the manifest names")


def _store(path: Path, data: bytes) -> None:
    with path.open("xb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _pointer(place: Path) -> _Pointer | None:
    raw = read_bounded(place / "current.json", 4096)
    try:
        return None if raw is None else msgspec.json.decode(raw, type=_Pointer)
    except msgspec.MsgspecError:
        return None


def _held(place: Path, sha256: str) -> Held | None:
    """A version on the disk, if its manifest can be read and every file has its length."""
    raw = read_bounded(place / sha256 / MANIFEST, MANIFEST_MAX_BYTES)
    try:
        if raw is None:
            return None
        manifest = content.check(raw)
        for entry in manifest.files:
            if (place / sha256 / "files" / entry.name).stat().st_size != entry.bytes:
                return None
    except (PackageError, OSError) as err:
        log.error("a content package on the disk cannot be used", extra={"package": place.name, "reason": str(err)})
        return None
    return Held(manifest, place / sha256, sha256) if manifest.name == place.name else None


def _free(path: Path) -> int:
    return shutil.disk_usage(path).free
