"""A content package: a plain tar with `manifest.json` first and then exactly the files that it names, in its order.

Pages explain items to citizens: a video, pictures, a page of HTML without scripts. What may be in a package is a short list of types; what a file is
called in the manifest is what it is served as, and a terminal hashes each file against the manifest. The same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import IO, Annotated, Literal, Protocol, cast

import msgspec
from msgspec import Meta

from protocols.contract.orders import Staff
from protocols.contract.records import ItemCode, Millis, Version
from protocols.packages.profiles import PackageError, read

MANIFEST = "manifest.json"
MANIFEST_MAX_BYTES = 256 * 1024
PACKAGE_MAX_BYTES = 512 * 1024 * 1024
MAX_FILES, MAX_PAGES = 200, 60
TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "vtt": "text/vtt; charset=utf-8",
    "woff2": "font/woff2",
}
"""Types by the end of the name. No SVG, PDF or script: they can act."""
SHOWN = frozenset({"html", "png", "jpg", "jpeg", "webp", "mp4", "webm"})
"""What a page may begin with."""

PackageName = Annotated[str, Meta(pattern=r"^[a-z]{2,16}(-[a-z]{1,16}){0,3}(-[0-9]{1,3})?\Z", max_length=48)]
FileName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}(/[a-z0-9][a-z0-9_-]{0,63}){0,3}\.[a-z0-9]{2,5}\Z", max_length=160)
]
"""Lower case, no part begins with a dot: nothing in it can leave the package's folder."""
Title = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f<>]{1,80}\Z")]
HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: FileName
    bytes: Annotated[int, Meta(ge=1, le=PACKAGE_MAX_BYTES)]
    sha256: HexDigest


class Page(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to show, in this order. `items`: whose guide it is; none: everybody's."""

    id: ItemCode
    zh: Title
    en: Title
    file: FileName
    items: Annotated[tuple[ItemCode, ...], Meta(max_length=32)] = ()
    seconds: Annotated[int, Meta(ge=1, le=3600)] = 15


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: Literal["kf-content/1"] = "kf-content/1"
    name: PackageName
    version: Version
    pages: Annotated[tuple[Page, ...], Meta(max_length=MAX_PAGES)] = ()
    files: Annotated[tuple[File, ...], Meta(max_length=MAX_FILES)] = ()
    withdrawn: bool = False
    """Nothing of this package is shown any more; it has no pages and takes the place of the version that had."""
    from_ms: Millis = 0
    until_ms: Millis | None = None
    """Shown from the first moment until before the second, by trusted time."""
    weekdays: Annotated[int, Meta(ge=1, le=127)] = 127
    """Bit 0 is Monday, bit 6 Sunday."""
    utc_offset_min: Annotated[int, Meta(ge=-720, le=840)] = 480
    """What day it is: China has one time without daylight saving."""
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    """Higher first, where several packages speak about an item."""
    offline: bool = True
    """May be shown while there is no connection; false for what may have to be called back at once."""
    created_by: Staff
    reviewed_by: Staff | None = None
    """None only for a withdrawn package: what shows nothing is reviewed by nobody."""

    def shown_at(self, now_ms: int | None, *, connected: bool) -> bool:
        """Whether it may be shown now. Without trusted time only what has no window may."""
        if self.withdrawn or not (connected or self.offline):
            return False
        if now_ms is None:
            return self.from_ms == 0 and self.until_ms is None and self.weekdays == 127
        if now_ms < self.from_ms or (self.until_ms is not None and now_ms >= self.until_ms):
            return False
        zone = timezone(timedelta(minutes=self.utc_offset_min))
        day = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone).weekday()
        return bool(self.weekdays >> day & 1)


def type_of(name: str) -> str | None:
    """Content type of a file; None for one that may not be in a package."""
    return TYPES.get(name.rpartition(".")[2])


def problems(manifest: Manifest) -> Iterator[str]:
    """What each field allows alone but all together do not."""
    names = [file.name for file in manifest.files]
    if manifest.withdrawn != (not manifest.pages) or manifest.withdrawn != (not manifest.files):
        yield "pages: a package has pages and files, a withdrawn one has none"
    for index, file in enumerate(manifest.files):
        if type_of(file.name) is None:
            yield f"files[{index}].name: a file of this type may not be in a package"
        if names.index(file.name) != index:
            yield f"files[{index}].name: there twice"
    if sum(file.bytes for file in manifest.files) > PACKAGE_MAX_BYTES:
        yield f"files: more than {PACKAGE_MAX_BYTES >> 20} MiB"
    ids = [page.id for page in manifest.pages]
    for index, page in enumerate(manifest.pages):
        if ids.index(page.id) != index:
            yield f"pages[{index}].id: there twice"
        if page.file not in names:
            yield f"pages[{index}].file: not among the files"
        elif page.file.rpartition(".")[2] not in SHOWN:
            yield f"pages[{index}].file: not a page, picture or video"
    if manifest.until_ms is not None and manifest.until_ms <= manifest.from_ms:
        yield "until_ms: not after from_ms"
    if manifest.created_by == manifest.reviewed_by:
        yield "reviewed_by: the same person who made it"
    if manifest.reviewed_by is None and not manifest.withdrawn:
        yield "reviewed_by: nobody reviewed it"


def check(raw: bytes) -> Manifest:
    """Read and check a manifest. Raises PackageError."""
    manifest = read(raw, Manifest, MANIFEST_MAX_BYTES)
    for problem in problems(manifest):
        raise PackageError(problem)
    return manifest


def file_of(name: str, data: bytes) -> File:
    return File(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def write(manifest: Manifest, files: Mapping[str, IO[bytes]], out: IO[bytes]) -> None:
    """Write the package. Raises PackageError where manifest and files differ."""
    head = msgspec.json.encode(manifest)
    check(head)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(_member(MANIFEST, len(head)), io.BytesIO(head))
        for file in manifest.files:
            digest, source = hashlib.sha256(), files[file.name]
            for chunk in iter(lambda source=source: source.read(1 << 20), b""):  # type: ignore[misc]
                digest.update(chunk)
            if digest.hexdigest() != file.sha256:
                raise PackageError(f"{file.name}: not the bytes that the manifest names")
            source.seek(0)
            archive.addfile(_member(f"files/{file.name}", file.bytes), source)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


class Source(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def entries(stream: Source) -> Iterator[tuple[Manifest, File | None, IO[bytes] | None]]:
    """First (manifest, None, None), then each file with its bytes to read, in the manifest's order; the reader hashes them. Raises PackageError.

    Nothing in the tar's own headers is believed but name and size: no link, device or directory, nothing before, between or after.
    """
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST or first.type != tarfile.REGTYPE or first.size > MANIFEST_MAX_BYTES:
                raise PackageError("package: does not begin with its manifest")
            head = archive.extractfile(first)
            assert head is not None, "a regular file"
            manifest = check(head.read())
            yield manifest, None, None
            for file in manifest.files:
                member = archive.next()
                if (
                    member is None
                    or member.name != f"files/{file.name}"
                    or member.type != tarfile.REGTYPE
                    or member.size != file.bytes
                ):
                    raise PackageError(f"package: {file.name} is not where the manifest says")
                body = archive.extractfile(member)
                assert body is not None, "a regular file"
                yield manifest, file, body
            if archive.next() is not None:
                raise PackageError("package: has more than its manifest names")
    except (tarfile.TarError, EOFError, ValueError) as err:
        raise PackageError(f"package: not a readable tar ({type(err).__name__})") from None
