"""Release packs: one file that carries a new version of a role's metadata and the artifacts it adds. Made and signed without a server.

A pack is a plain tar: `manifest.json`, `metadata.json`, then `targets/<sha256>` for each artifact. Only the signed metadata counts; the manifest
is for people and for finding one's way. A state file is what a release engineer needs of the server: roots, targets role, the role's metadata.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from fleet_server.updates import archives, plan, releases, trust
from fleet_server.updates.errors import PackRefused, UpdatesError
from fleet_server.updates.releases import Release
from fleet_server.updates.repository import Repository, parse
from protocols.contract.artifacts import ImageCustom

PACK_FORMAT = "kiosk-fleet-release/1"
STATE_FORMAT = "kiosk-fleet-state/1"
MANIFEST_MAX_BYTES = 64 * 1024
PACK_MAX_BYTES = releases.MAX_ARTIFACT_BYTES * 2
COPY_BYTES = 1 << 20


class State(msgspec.Struct, frozen=True):
    """What the repository says about one role, verified from its first root on."""

    role: str
    root: Metadata[Root]
    targets: Metadata[Targets]
    current: Metadata[Targets] | None


class Pack(msgspec.Struct, frozen=True):
    """The signed part of a pack."""

    role: str
    metadata: Metadata[Targets]


# State files ----------------------------------------------------------------------------------------------------------------------------


def write_state(image: Repository, role: str) -> bytes:
    """For a release engineer; holds nothing secret."""
    if role not in plan.RELEASE_ROLES:
        raise UpdatesError("notReleaseRole", role=role)
    current = image.role_bytes(role)
    tree = {
        "format": STATE_FORMAT,
        "role": role,
        "roots": [json.loads(image.root_path(version).read_bytes()) for version in range(1, image.root_version() + 1)],
        "targets": json.loads(image.role_bytes("targets") or b"null"),
        "current": json.loads(current) if current is not None else None,
    }
    return json.dumps(tree, indent=1).encode() + b"\n"


def read_state(data: bytes, trusted_root: bytes | None = None) -> State:
    """UpdatesError unless every step is signed: root by root, targets by the last root, the role by targets.

    `trusted_root`: a root that the reader knows from elsewhere; the chain must lead through it.
    """
    try:
        tree = json.loads(data)
        if tree["format"] != STATE_FORMAT:
            raise UpdatesError("noState")
        role = tree["role"]
        roots = [parse(json.dumps(root).encode(), Root) for root in tree["roots"]]
        targets = parse(json.dumps(tree["targets"]).encode(), Targets)
        current = parse(json.dumps(tree["current"]).encode(), Targets) if tree["current"] is not None else None
    except (ValueError, KeyError, TypeError) as err:
        raise UpdatesError("noState") from err
    if not roots or role not in plan.RELEASE_ROLES:
        raise UpdatesError("noState")
    for before, root in zip([None, *roots], roots, strict=False):
        trust.verify_root(before.signed if before is not None else None, root)
    if trusted_root is not None and not any(_same(parse(trusted_root, Root), root) for root in roots):
        raise UpdatesError("otherRoot")
    trust.verify(roots[-1].signed, "targets", targets)
    if current is not None:
        trust.verify(targets.signed, role, current)
    return State(role, roots[-1], targets, current)


def _same(one: Metadata[Root], other: Metadata[Root]) -> bool:
    return one.signed_bytes == other.signed_bytes


# Making a pack --------------------------------------------------------------------------------------------------------------------------


def describe(state: State, artifact: Path, path: str, custom: ImageCustom, *, release: int | None = None) -> TargetFile:
    """The target for an artifact; `release` None: the next counter. An agent's archive is looked into, and its unpacked size taken."""
    known = releases.customs(state.current.signed.targets) if state.current is not None else []
    if state.role == "agent":
        unpacked = archives.check(artifact)
        custom = msgspec.structs.replace(custom, unpacked_bytes=unpacked.bytes, unpacked_files=unpacked.entries)
    custom = msgspec.structs.replace(custom, release=release or releases.next_counter(known, custom))
    target = TargetFile.from_file(path, str(artifact))
    target.unrecognized_fields["custom"] = releases.custom_member(custom)
    return target


def prepare(state: State, targets: Sequence[TargetFile], now: dt.datetime) -> Metadata[Targets]:
    """The role's next metadata, unsigned; PackRefused if the server would refuse it."""
    before = state.current.signed if state.current is not None else None
    body = Targets(
        version=before.version + 1 if before is not None else 1,
        expires=now + plan.OFFLINE_PERIOD,
        targets=dict(before.targets) if before is not None else {},
    )
    for target in targets:
        if target.path in body.targets:
            raise PackRefused("pathTaken", path=target.path)
        body.targets[target.path] = target
    metadata = Metadata(body)
    releases.new_releases(state.targets.signed, state.role, before, metadata, now, signed=False)
    return metadata


def add_signature(delegator: Targets | None, role: str, metadata: Metadata[Targets], signer: CryptoSigner) -> None:
    """Sign; with `delegator` known, only if the key may sign for the role at all."""
    if delegator is not None and signer.public_key.keyid not in {key.keyid for key in trust.keys_of(delegator, role)}:
        raise UpdatesError("keyNotOfRole", key=signer.public_key.keyid[:8], role=role)
    metadata.sign(signer, append=True)


def write(path: Path, role: str, metadata: Metadata[Targets], contents: dict[str, Path]) -> None:
    """`contents`: the artifacts' files by SHA-256. Replaces `path` whole."""
    building = path.with_name(f".{path.name}.new")
    with building.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        _write_head(archive, role, metadata, contents)
        for sha256, content in contents.items():
            with content.open("rb") as reading:
                entry = tarfile.TarInfo(f"targets/{sha256}")
                entry.size = os.fstat(reading.fileno()).st_size
                archive.addfile(entry, reading)
        archive.close()
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def rewrite(path: Path, pack: Pack) -> None:
    """Put other metadata (with one more signature) into a pack; the artifacts stay."""
    building = path.with_name(f".{path.name}.new")
    with opened(path) as (archive, _), building.open("wb") as file:
        new = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 -- closed below, before the sync
        _write_head(new, pack.role, pack.metadata, ())
        for entry, content in contents(archive):
            copy = tarfile.TarInfo(entry.name)
            copy.size = entry.size
            new.addfile(copy, content)
        new.close()
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def _write_head(archive: tarfile.TarFile, role: str, metadata: Metadata[Targets], contents: Any) -> None:
    manifest = {"format": PACK_FORMAT, "role": role, "version": metadata.signed.version, "new": sorted(contents)}
    for name, data in (("manifest.json", json.dumps(manifest, indent=1).encode()), ("metadata.json", metadata.to_bytes())):
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


# Reading a pack -------------------------------------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[tuple[tarfile.TarFile, Pack]]:
    """A pack of acceptable form, before its artifacts; PackRefused otherwise. What it says is not verified yet."""
    try:
        if path.stat().st_size > PACK_MAX_BYTES:
            raise PackRefused("packTooLarge", mib=PACK_MAX_BYTES >> 20)
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|", bufsize=COPY_BYTES) as archive:
            manifest = json.loads(_member(archive, "manifest.json", MANIFEST_MAX_BYTES))
            if not isinstance(manifest, dict) or manifest.get("format") != PACK_FORMAT:
                raise PackRefused("noPack")
            metadata = parse(_member(archive, "metadata.json", releases.MAX_METADATA_BYTES), Targets)
            yield archive, Pack(str(manifest.get("role", ""))[:32], metadata)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise UpdatesError("noSpace", why=err.strerror) from err
        raise PackRefused("noPack") from err
    except (tarfile.TarError, ValueError, RecursionError, EOFError, OverflowError) as err:
        raise PackRefused("noPack") from err
    except UpdatesError as err:
        if err.reason == "unreadableMetadata":
            raise PackRefused("noPack") from err
        raise


def contents(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, BinaryIO]]:
    """The artifacts in the order in which they lie; anything that is no plain `targets/<sha256>` is refused."""
    seen: set[str] = set()
    while (entry := archive.next()) is not None:
        content = archive.extractfile(entry) if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE) else None
        if (
            content is None
            or not entry.name.startswith("targets/")
            or entry.name in seen
            or len(entry.name) != len("targets/") + 64
        ):
            raise PackRefused("strayMember")
        seen.add(entry.name)
        if len(seen) > releases.MAX_NEW:
            raise PackRefused("strayMember")
        yield entry, content  # type: ignore[misc]  # tarfile's reader is a BufferedReader
        archive.members = []  # type: ignore[attr-defined]


def extract(archive: tarfile.TarFile, wanted: Sequence[Release], folder: Path | None) -> dict[str, Path]:
    """Check every artifact against the signed length and hash, and write it to `folder` if there is one. PackRefused otherwise."""
    missing: dict[str, Release] = {}
    for each in wanted:
        if missing.setdefault(each.sha256, each).length != each.length:
            raise PackRefused("otherContent", path=each.path)
    found: dict[str, Path] = {}
    for entry, content in contents(archive):
        sha256 = entry.name.removeprefix("targets/")
        release = missing.pop(sha256, None)
        if release is None:
            raise PackRefused("strayMember")
        if entry.size != release.length:
            raise PackRefused("otherContent", path=release.path)
        digest = hashlib.sha256()
        target = (folder / sha256) if folder is not None else None
        with target.open("xb") if target is not None else open(os.devnull, "wb") as writing:  # noqa: PTH123
            left = release.length
            while left and (part := content.read(min(COPY_BYTES, left))):
                digest.update(part)
                writing.write(part)
                left -= len(part)
        if left or digest.hexdigest() != sha256:
            raise PackRefused("otherContent", path=release.path)
        if target is not None:
            found[sha256] = target
    if missing:
        raise PackRefused("contentMissing", path=next(iter(missing.values())).path)
    return found


def check_archives(found: dict[str, Path], new: Sequence[Release]) -> None:
    """Agents' archives hold only what a terminal unpacks, and as much as is signed."""
    for release in new:
        if release.custom.component != "agent":
            continue
        unpacked = archives.check(found[release.sha256])
        if (unpacked.bytes, unpacked.entries) != (release.custom.unpacked_bytes, release.custom.unpacked_files):
            raise PackRefused("otherUnpackedSize", path=release.path)


def _member(archive: tarfile.TarFile, name: str, max_bytes: int) -> bytes:
    entry = archive.next()
    if entry is None or entry.name != name or entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.size > max_bytes:
        raise PackRefused("noPack")
    content = archive.extractfile(entry)
    data = content.read() if content is not None else b""
    if len(data) != entry.size:
        raise PackRefused("noPack")
    return data
