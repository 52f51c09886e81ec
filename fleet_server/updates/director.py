"""What each terminal is to get: one role of the director repository for each, all changed in one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Metadata, TargetFile, Targets

from fleet_server.updates import plan, store, trust
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.repository import Repository, Updates
from protocols.contract import artifacts
from protocols.contract.artifacts import DirectorCustom, HexId, ImageCustom
from protocols.contract.limits import BUNDLE_MAX_COMPONENTS
from protocols.contract.orders import TargetPath
from protocols.contract.records import ComponentName
from protocols.contract.wire import WireError

ROLE_KEY = "terminals"
"""Label of the online key that signs for every terminal."""


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """One component that one terminal is to get."""

    bundle: HexId
    component: ComponentName
    target: TargetPath
    """Path in the image repository; length, hash, version and release come from there."""
    downgrade: bool = False


def set_assignments(updates: Updates, wanted: Mapping[str, Sequence[Assignment]], *, now_ms: int) -> int:
    """Replace what these terminals get; an empty sequence takes everything away. All of it becomes visible at once.

    Returns how many terminals' roles changed; what is as wanted already is not signed again.
    UpdatesError: something is not in the image repository, or a bundle is inconsistent; then nothing is changed.
    """
    now = plan.moment(now_ms)
    with store.writing(updates.layout):
        director = updates.director
        known = updates.image.known_targets()
        targets = {terminal: _targets(known, terminal, assignments) for terminal, assignments in wanted.items()}
        changed: dict[str, Metadata[Targets]] = {}
        top = _with_delegations(director, targets, now_ms)
        if top is not None:
            changed["targets"] = top
        delegator = (top or director.targets()).signed
        versions = director.versions()
        for terminal, described in targets.items():
            role = artifacts.director_role(terminal)
            current = _current(director, role, versions)
            if current is not None and current.targets == described:
                continue
            signed = Targets(version=versions.get(role, 0) + 1, expires=now + plan.period("director", role), targets=described)
            metadata = Metadata(signed)
            director.sign_online(metadata, trust.role_of(delegator, role))
            changed[role] = metadata
        if changed:
            director.publish(now, roles=changed)
        return len(changed) - ("targets" in changed)


def clear(updates: Updates, terminals: Iterable[str], *, now_ms: int) -> int:
    """Emergency: these terminals are to get nothing. Whoever has not installed yet will not."""
    return set_assignments(updates, dict.fromkeys(terminals, ()), now_ms=now_ms)


def clear_target(updates: Updates, path: str, *, now_ms: int) -> list[str]:
    """Emergency: no terminal is to get this artifact; bundles that have it are taken away whole. Returns the terminals."""
    hit = [terminal for terminal, assignments in assigned(updates).items() if any(each.target == path for each in assignments)]
    clear(updates, hit, now_ms=now_ms)
    return hit


def assigned(updates: Updates) -> dict[str, tuple[Assignment, ...]]:
    """What the director describes now, by terminal; those without anything are left out."""
    found: dict[str, tuple[Assignment, ...]] = {}
    versions = updates.director.versions()
    for role in versions:
        if not role.startswith(artifacts.DIRECTOR_ROLE_PREFIX):
            continue
        current = _current(updates.director, role, versions)
        customs = [artifacts.of_custom(target.custom, DirectorCustom) for target in current.targets.values()] if current else []
        if customs:
            found[role.removeprefix(artifacts.DIRECTOR_ROLE_PREFIX)] = tuple(
                Assignment(bundle=each.bundle, component=each.component, target=each.target, downgrade=each.downgrade)
                for each in customs
            )
    return found


def forget(updates: Updates, terminals: Iterable[str], *, now_ms: int) -> None:
    """Take terminals that left the fleet out of the delegations. Their last versions stay known: a snapshot may never lose a role."""
    now = plan.moment(now_ms)
    with store.writing(updates.layout):
        top = updates.director.next_targets("targets", now)
        delegations = top.signed.delegations
        roles = delegations.roles if delegations is not None and delegations.roles is not None else {}
        gone = [role for role in map(artifacts.director_role, terminals) if roles.pop(role, None) is not None]
        if gone:
            updates.director.sign_online(top, trust.role_of(updates.director.trusted_root().signed, "targets"))
            updates.director.publish(now, roles={"targets": top})


def _current(director: Repository, role: str, versions: Mapping[str, int]) -> Targets | None:
    if role not in versions:
        return None
    data = director.role_bytes(role, versions[role])
    signed: Targets = Metadata[Targets].from_bytes(data or b"").signed
    return signed


def _targets(
    known: Mapping[str, tuple[str, TargetFile]], terminal: str, assignments: Sequence[Assignment]
) -> dict[str, TargetFile]:
    if len(assignments) > BUNDLE_MAX_COMPONENTS:
        raise UpdatesError("bundleTooLarge", terminal=terminal, most=BUNDLE_MAX_COMPONENTS)
    if len({each.bundle for each in assignments}) > 1 or len({each.component for each in assignments}) != len(assignments):
        raise UpdatesError("bundleMixed", terminal=terminal)
    described = {}
    for each in assignments:
        _, target = known.get(each.target, ("", None))
        if target is None:
            raise UpdatesError("notInImage", path=each.target)
        try:
            of_image = artifacts.of_custom(target.custom, ImageCustom)
        except WireError:
            raise UpdatesError("notInImage", path=each.target) from None
        custom = DirectorCustom(
            bundle=each.bundle,
            size=len(assignments),
            component=each.component,
            target=each.target,
            version=of_image.version,
            release=of_image.release,
            downgrade=each.downgrade,
        )
        path = artifacts.director_path(terminal, each.component)
        described[path] = TargetFile(target.length, dict(target.hashes), path, {"custom": artifacts.to_custom(custom)})
    return described


def _with_delegations(director: Repository, terminals: Iterable[str], now_ms: int) -> Metadata[Targets] | None:
    """The director's targets role with a delegation for each of `terminals`; None if it has them all."""
    delegated = set(trust.roles_in(director.targets().signed))
    new = [terminal for terminal in terminals if artifacts.director_role(terminal) not in delegated]
    if not new:
        return None
    top = director.next_targets("targets", plan.moment(now_ms))
    keys = terminal_keys(top.signed)
    if not keys:
        raise UpdatesError("onlineKeyMissing", role=ROLE_KEY)
    assert top.signed.delegations is not None and top.signed.delegations.roles is not None
    for terminal in new:
        role = delegation(terminal, keys)
        top.signed.delegations.roles[role.name] = role
    director.sign_online(top, trust.role_of(director.trusted_root().signed, "targets"))
    return top


def terminal_keys(targets: Targets) -> list[Key]:
    """The keys that sign for terminals: those in the delegations, of which there is one set for all."""
    return list(targets.delegations.keys.values()) if targets.delegations is not None else []


def delegation(terminal: str, keys: Sequence[Key]) -> DelegatedRole:
    """One of several keys is enough: with a rotation both are there for a while."""
    return DelegatedRole(
        artifacts.director_role(terminal), [key.keyid for key in keys], 1, True, paths=list(artifacts.director_paths(terminal))
    )
