"""What gets into the image repository: release packs signed elsewhere, and content that this server signs after people have reviewed it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec
from tuf.api.metadata import DelegatedRole, TargetFile

from fleet_server.updates import packs, plan, releases, store, trust
from fleet_server.updates.errors import PackRefused, UpdatesError
from fleet_server.updates.keys import label_of
from fleet_server.updates.releases import Release
from fleet_server.updates.repository import Updates
from protocols.contract import artifacts
from protocols.contract.artifacts import ImageCustom, PackedCustom


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a pack brought. `version`: of the role's metadata. `signed_by`: labels of the keys."""

    role: str
    version: int
    releases: tuple[Release, ...]
    signed_by: tuple[str, ...]


def examine(updates: Updates, path: Path, *, now_ms: int) -> Taken:
    """Everything that `take` checks, but nothing is published."""
    return _take(updates, path, now_ms, publish=False)


def take(updates: Updates, path: Path, *, now_ms: int) -> Taken:
    """Verify a release pack against the present roots and publish it. PackRefused or UpdatesError; then nothing is changed.

    Blocks for as long as the pack takes to read: call it in a thread. Taken twice, the second is refused as `alreadyTaken`.
    """
    return _take(updates, path, now_ms, publish=True)


def _take(updates: Updates, path: Path, now_ms: int, *, publish: bool) -> Taken:
    now, image = plan.moment(now_ms), updates.image
    folder = store.staging_folder(updates.layout)
    try:
        # The content is checked without the lock, which may take a while; what it is compared with is looked at again under the lock.
        with packs.opened(path) as (archive, pack):
            new = _check(updates, pack, now_ms)
            found = packs.extract(archive, new, folder)
        packs.check_archives(found, new)
        top = image.targets().signed
        signed_by = tuple(label_of(key) for key in trust.signers(top, pack.role, pack.metadata).values())
        taken = Taken(role=pack.role, version=pack.metadata.signed.version, releases=new, signed_by=signed_by)
        if not publish:
            return taken
        with store.writing(updates.layout):
            _check(updates, pack, now_ms)
            for number, release in enumerate(new):
                content = found[release.sha256]
                if any(other.sha256 == release.sha256 for other in new[number + 1 :]):
                    content = Path(shutil.copyfile(content, folder / f"again-{number}"))
                store.adopt(content, image.file_of(pack.metadata.signed.targets[release.path]))
            image.publish(now, roles={pack.role: pack.metadata})
        return taken
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check(updates: Updates, pack: packs.Pack, now_ms: int) -> tuple[Release, ...]:
    top = updates.image.targets().signed
    if pack.role not in plan.RELEASE_ROLES:
        raise PackRefused("notReleaseRole", role=pack.role)
    current = updates.image.role(pack.role)
    if current is not None and current.signed_bytes == pack.metadata.signed_bytes:
        raise PackRefused("alreadyTaken")
    before = current.signed if current is not None else None
    return releases.new_releases(top, pack.role, before, pack.metadata, plan.moment(now_ms))


def add_online(
    updates: Updates, role: str, path: str, data: bytes | Path, custom: ImageCustom | PackedCustom, *, now_ms: int
) -> TargetFile:
    """Sign and publish one artifact with the server's own key: content and catalogues after their review, and packed forms.

    The same again changes nothing; another content under a known path is refused. A given file stays where it is.
    """
    return add_all_online(updates, role, [(path, data, custom)], now_ms=now_ms)[0]


def add_all_online(
    updates: Updates, role: str, items: Iterable[tuple[str, bytes | Path, ImageCustom | PackedCustom]], *, now_ms: int
) -> list[TargetFile]:
    """As `add_online`, several at once in one snapshot."""
    if role not in plan.ONLINE_ROLES:
        raise UpdatesError("notOnlineRole", role=role)
    now, image = plan.moment(now_ms), updates.image
    folder = store.staging_folder(updates.layout)
    try:
        staged = [_staged(role, path, data, custom, folder, number) for number, (path, data, custom) in enumerate(items)]
        with store.writing(updates.layout):
            delegation = trust.role_of(image.targets().signed, role)
            if not isinstance(delegation, DelegatedRole):
                raise UpdatesError("roleNotDelegated", role=role)
            metadata = image.next_targets(role, now)
            changed = False
            for target, file in staged:
                releases.check_path(target.path, delegation)
                known = metadata.signed.targets.get(target.path)
                if known is not None and known != target:
                    raise PackRefused("pathTaken", path=target.path)
                if known is None:
                    metadata.signed.targets[target.path] = target
                    store.adopt(file, image.file_of(target))
                    changed = True
            if changed:
                image.sign_online(metadata, delegation)
                if len(metadata.to_bytes()) > releases.MAX_METADATA_BYTES:
                    raise PackRefused("metadataTooLarge", role=role)
                image.publish(now, roles={role: metadata})
        return [target for target, _ in staged]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_online(updates: Updates, role: str, paths: Iterable[str], *, now_ms: int) -> list[str]:
    """Describe these no more (validity over, replaced); their files go as well. Returns what was there. Release roles never lose anything."""
    if role not in plan.ONLINE_ROLES:
        raise UpdatesError("notOnlineRole", role=role)
    image = updates.image
    with store.writing(updates.layout):
        metadata = image.next_targets(role, plan.moment(now_ms))
        gone = {path: metadata.signed.targets.pop(path) for path in paths if path in metadata.signed.targets}
        if gone:
            image.sign_online(metadata, trust.role_of(image.targets().signed, role))
            image.publish(plan.moment(now_ms), roles={role: metadata})
            for target in gone.values():
                image.file_of(target).unlink(missing_ok=True)
        return list(gone)


def _staged(
    role: str, path: str, data: bytes | Path, custom: ImageCustom | PackedCustom, folder: Path, number: int
) -> tuple[TargetFile, Path]:
    if isinstance(custom, ImageCustom) and custom.component != role:
        raise PackRefused("otherComponent", path=path, component=custom.component, role=role)
    if isinstance(custom, PackedCustom) != (role == "packed") or (
        isinstance(custom, PackedCustom) and path != artifacts.packed_path(custom.to, custom.base)
    ):
        raise PackRefused("badCustom", path=path)
    file = folder / str(number)
    if isinstance(data, bytes):
        file.write_bytes(data)
    else:
        shutil.copyfile(data, file)
    length = file.stat().st_size
    if not 1 <= length <= releases.MAX_ARTIFACT_BYTES:
        raise PackRefused("badLength", path=path, mib=releases.MAX_ARTIFACT_BYTES >> 20)
    target = TargetFile.from_file(path, str(file))
    target.unrecognized_fields["custom"] = releases.custom_member(custom)
    return target, file
