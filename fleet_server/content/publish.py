"""From reviewed rows to a signed artifact: builds the package, has it signed by the repositories' own keys, and notes the release.

Blocks (hashing, writing, signing): call in a thread. The same package gives the same bytes, so a cut in the middle is repaired by doing it again.
"""

from __future__ import annotations

import hashlib
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Protocol

import msgspec

from fleet_server.content.rules import Draft, manifest_of, withdrawal_of
from fleet_server.errors import Conflict, NotFound, Refused
from protocols.contract.artifacts import ImageCustom
from protocols.packages import catalogue as catalogues
from protocols.packages import content
from protocols.packages.catalogue import Catalogue
from protocols.packages.content import Manifest
from protocols.packages.profiles import PackageError


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """What became a target of the image repository."""

    custom: ImageCustom
    path: str
    length: int
    sha256: bytes


class Intake(Protocol):
    """The repositories: `updates.intake.add_online` bound to them. Raises UpdatesError."""

    def __call__(self, role: str, path: str, data: bytes | Path, custom: ImageCustom) -> None: ...


class Store:
    """Bytes of files under their hash, in a folder that only the server reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256

    def incoming(self) -> Path:
        """A new path for an upload, on the same file system."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder / f".upload-{secrets.token_hex(8)}"

    def take(self, path: Path, sha256: str) -> None:
        target = self.path(sha256)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.replace(target)

    def sweep(self, wanted: set[str]) -> int:
        """Remove what no package has any more; how many."""
        stray = [path for path in self._folder.glob("??/*") if path.name not in wanted]
        for path in stray:
            path.unlink(missing_ok=True)
        return len(stray)


def package(draft: Draft, store: Store, intake: Intake) -> Signed:
    """Sign a package that was claimed for it. Refused, Conflict, NotFound if a file is gone, UpdatesError."""
    if draft.state != "publishing" or draft.reviewed_by is None:
        raise Conflict("state", "contentState")
    manifest = manifest_of(draft, reviewed_by=draft.reviewed_by)
    with ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for file in manifest.files:
            path = store.path(file.sha256)
            if not path.exists():
                raise NotFound("file of a content package")
            files[file.name] = stack.enter_context(path.open("rb"))
        return _signed(manifest, files, store, intake)


def withdrawal(name: str, release: int, store: Store, intake: Intake, *, created_by: str) -> Signed:
    """Sign the empty version that takes a package away."""
    return _signed(withdrawal_of(name, release, created_by=created_by), {}, store, intake)


def _signed(manifest: Manifest, files: dict[str, IO[bytes]], store: Store, intake: Intake) -> Signed:
    target = store.incoming()
    try:
        try:
            with target.open("xb") as out:
                content.write(manifest, files, out)
        except PackageError:
            raise Refused("act", "contentDamaged") from None
        with target.open("rb") as made:
            digest = hashlib.file_digest(made, "sha256").digest()
        custom = ImageCustom(
            component="content",
            version=manifest.version,
            release=int(manifest.version.partition(".")[0]),
            name=manifest.name,
            unpacked_bytes=sum(file.bytes for file in manifest.files),
            unpacked_files=len(manifest.files),
        )
        path = f"content/{manifest.name}/{manifest.version}.tar"
        intake("content", path, target, custom)
        return Signed(custom=custom, path=path, length=target.stat().st_size, sha256=digest)
    finally:
        target.unlink(missing_ok=True)


def catalogue(made: Catalogue, area: str, release: int, intake: Intake) -> Signed:
    """Sign a catalogue. `area` is part of its path only: who gets it is decided by a rollout."""
    raw = catalogues.encode(made)
    custom = ImageCustom(component="catalogue", version=made.version, release=release)
    path = f"catalogue/{area or 'all'}-{release}.json"
    intake("catalogue", path, raw, custom)
    return Signed(custom=custom, path=path, length=len(raw), sha256=hashlib.sha256(raw).digest())
