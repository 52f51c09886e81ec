"""The rules that a new version of a release role must keep. Values only: the same on the engineer's machine and on the server."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from tuf.api.metadata import DelegatedRole, Metadata, TargetFile, Targets

from fleet_server.updates import plan, trust
from fleet_server.updates.errors import PackRefused
from protocols.contract import artifacts, orders
from protocols.contract.artifacts import CUSTOM_KEY, ImageCustom
from protocols.contract.wire import WireError

MAX_NEW = 16
MAX_ARTIFACT_BYTES = 1 << 30
MAX_METADATA_BYTES = 4_500_000
"""python-tuf's clients read 5,000,000 bytes of a targets file."""
MIN_PERIOD = plan.DAY
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PACKED_PATH = re.compile(r"packed/[0-9a-f]{64}(-[0-9a-f]{64})?\.zst")
_TARGET_PATH = msgspec.json.Decoder(orders.TargetPath)


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact that a release adds."""

    path: str
    length: int
    sha256: str
    custom: ImageCustom


def new_releases(
    delegator: Targets, role: str, before: Targets | None, after: Metadata[Targets], now: dt.datetime, *, signed: bool = True
) -> tuple[Release, ...]:
    """What `after` adds to `before`; PackRefused says which rule it breaks. `signed`: also that enough people have signed."""
    if role not in plan.RELEASE_ROLES:
        raise PackRefused("notReleaseRole", role=role)
    delegation = trust.role_of(delegator, role)
    if not isinstance(delegation, DelegatedRole):
        raise PackRefused("roleNotDelegated", role=role)
    body = after.signed
    wanted = before.version + 1 if before is not None else 1
    if body.version != wanted:
        raise PackRefused("wrongVersion", role=role, version=body.version, wanted=wanted)
    if body.delegations is not None or body.unrecognized_fields:
        raise PackRefused("foreignFields", role=role)
    check_expiry(role, body.expires, now)
    kept = before.targets if before is not None else {}
    for path, target in kept.items():
        if path not in body.targets:
            raise PackRefused("targetRemoved", path=path)
        if body.targets[path] != target:
            raise PackRefused("targetChanged", path=path)
    new = [_release(role, delegation, target) for path, target in body.targets.items() if path not in kept]
    if not 1 <= len(new) <= MAX_NEW:
        raise PackRefused("noNewTarget", role=role, most=MAX_NEW)
    known = customs(kept)
    for each in new:
        check_counter(known, each.custom)
    if len(after.to_bytes()) > MAX_METADATA_BYTES:
        raise PackRefused("metadataTooLarge", role=role)
    if signed:
        verify(delegator, role, after)
    return tuple(new)


def verify(delegator: Targets, role: str, metadata: Metadata[Targets]) -> None:
    """PackRefused unless the threshold of different keys has signed."""
    found = trust.role_of(delegator, role)
    if found is None:
        raise PackRefused("roleNotDelegated", role=role)
    trust.refuse_doubles(role, trust.keys_of(delegator, role))
    valid = len(trust.signers(delegator, role, metadata))
    if valid < found.threshold:
        raise PackRefused("missingSignatures", role=role, threshold=found.threshold, valid=valid)


def check_expiry(role: str, expires: dt.datetime, now: dt.datetime) -> None:
    if expires < now + MIN_PERIOD:
        raise PackRefused("expiresSoon", role=role, expires=f"{expires:%Y-%m-%d}")
    if expires > now + plan.OFFLINE_MAX:
        raise PackRefused("expiresLate", role=role, expires=f"{expires:%Y-%m-%d}", days=plan.OFFLINE_MAX.days)


def custom_member(custom: ImageCustom | artifacts.PackedCustom) -> dict[str, Any]:
    """For a target's `custom`, in the form that it has when it is read again: what is compared must not differ by list and tuple."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(artifacts.to_custom(custom)))
    return plain


def line_of(custom: ImageCustom) -> tuple[str, str, str, tuple[str, ...]]:
    """Releases of one line follow each other: a component on one architecture, for the same hardware, of the same name."""
    return custom.component, custom.arch, custom.name, tuple(sorted(custom.hardware))


def check_counter(known: list[ImageCustom], new: ImageCustom) -> None:
    """The release counter of a line only grows: it is what stops a downgrade."""
    highest = max((each.release for each in known if line_of(each) == line_of(new)), default=0)
    if new.release <= highest:
        raise PackRefused("counterTooLow", release=new.release, highest=highest)


def next_counter(known: list[ImageCustom], new: ImageCustom) -> int:
    """One version has one counter on all architectures; a new version the next."""
    same = [each.release for each in known if each.version == new.version and each.name == new.name]
    line = max((each.release for each in known if line_of(each) == line_of(new)), default=0)
    return max(same) if same and max(same) > line else max((each.release for each in known), default=0) + 1


def customs(targets: Mapping[str, TargetFile]) -> list[ImageCustom]:
    return [artifacts.of_custom(target.custom, ImageCustom) for target in targets.values()]


def check_path(path: str, delegation: DelegatedRole) -> None:
    if delegation.name == "packed":
        # Made of two hashes, these are longer than what people may name.
        if not _PACKED_PATH.fullmatch(path):
            raise PackRefused("badPath", path=path[:120])
        return
    try:
        _TARGET_PATH.decode(msgspec.json.encode(path))
    except msgspec.ValidationError:
        raise PackRefused("badPath", path=path[:120]) from None
    if not delegation.is_delegated_path(path):
        raise PackRefused("foreignPath", path=path, role=delegation.name)


def _release(role: str, delegation: DelegatedRole, target: TargetFile) -> Release:
    check_path(target.path, delegation)
    if set(target.hashes) != {"sha256"} or not _SHA256.fullmatch(target.hashes["sha256"]):
        raise PackRefused("badHash", path=target.path)
    if type(target.length) is not int or not 1 <= target.length <= MAX_ARTIFACT_BYTES:
        raise PackRefused("badLength", path=target.path, mib=MAX_ARTIFACT_BYTES >> 20)
    if set(target.unrecognized_fields) != {"custom"} or not isinstance(target.custom, dict) or set(target.custom) != {CUSTOM_KEY}:
        raise PackRefused("badCustom", path=target.path)
    try:
        custom = artifacts.of_custom(target.custom, ImageCustom)
    except WireError as err:
        raise PackRefused("badCustom", path=target.path) from err
    check_custom(role, target.path, custom)
    return Release(path=target.path, length=target.length, sha256=target.hashes["sha256"], custom=custom)


def check_custom(role: str, path: str, custom: ImageCustom) -> None:
    if custom.component != role:
        raise PackRefused("otherComponent", path=path, component=custom.component, role=role)
    if role == "firmware" and not custom.hardware:
        raise PackRefused("noHardware", path=path)
    if role == "agent" and not (custom.unpacked_bytes and custom.unpacked_files):
        raise PackRefused("noUnpackedSize", path=path)
