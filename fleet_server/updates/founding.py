"""The first metadata of both repositories: which roles there are, whose keys sign for them, and how many of them must."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence

import msgspec
from securesystemslib.signer import Key, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root, Targets

from fleet_server.updates import plan, store, trust
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import RepositoryName
from fleet_server.updates.repository import Updates
from protocols.contract.artifacts import IMAGE_ROLES

ONLINE: dict[RepositoryName, tuple[str, ...]] = {
    "image": ("snapshot", "timestamp", *plan.ONLINE_ROLES),
    "director": ("targets", "snapshot", "timestamp", "terminals"),
}
"""Roles for which the server makes keys of its own; `terminals` is the key of all roles of terminals."""


class Holders(msgspec.Struct, frozen=True):
    """Keys that may sign for a role, and how many of them must."""

    keys: tuple[Key, ...]
    threshold: int


class Founders(msgspec.Struct, frozen=True, kw_only=True):
    """The people's keys. `targets` None: those of root. Release roles without keys are left out and can be delegated later."""

    root: Holders
    targets: Holders | None = None
    release: dict[str, Holders] = {}


def make_online_keys(updates: Updates) -> bool:
    """The server's own keys, where they are missing. Needs no people. True if they were made now."""
    with store.writing(updates.layout):
        path = updates.layout.root / "online.json"
        if path.exists():
            return False
        made = {name: {role: updates.keys.create(f"{name} {role}, server") for role in roles} for name, roles in ONLINE.items()}
        tree = {name: {role: {"keyid": key.keyid, **key.to_dict()} for role, key in of.items()} for name, of in made.items()}
        store.replace(updates.layout, path, json.dumps(tree, indent=1).encode(), mode=0o600)
        return True


def online_keys(updates: Updates, name: RepositoryName) -> dict[str, SSlibKey]:
    """The keys that `make_online_keys` made for the first metadata; later ones stand in the metadata themselves."""
    try:
        tree = json.loads((updates.layout.root / "online.json").read_bytes())[name]
    except OSError:
        raise UpdatesError("notInitialised") from None
    return {role: SSlibKey.from_dict(fields.pop("keyid"), fields) for role, fields in tree.items()}


def first_root(name: RepositoryName, founders: Founders, online: Mapping[str, Key], now: dt.datetime) -> Root:
    """Version 1. UpdatesError if a threshold cannot be met, or a key is given twice."""
    targets = (founders.targets or founders.root) if name == "image" else Holders((online["targets"],), 1)
    holders = {
        "root": founders.root,
        "targets": targets,
        "snapshot": Holders((online["snapshot"],), 1),
        "timestamp": Holders((online["timestamp"],), 1),
    }
    for role, each in holders.items():
        check_holders(role, each)
    return Root(
        version=1,
        expires=now + plan.period(name, "root"),
        keys={key.keyid: key for each in holders.values() for key in each.keys},
        roles={role: Role([key.keyid for key in each.keys], each.threshold) for role, each in holders.items()},
        consistent_snapshot=True,
    )


def first_targets(name: RepositoryName, founders: Founders, online: Mapping[str, Key], now: dt.datetime) -> Targets:
    expires = now + plan.period(name, "targets")
    if name == "director":
        return Targets(version=1, expires=expires, delegations=Delegations({online["terminals"].keyid: online["terminals"]}, {}))
    holders = dict(founders.release) | {role: Holders((online[role],), 1) for role in plan.ONLINE_ROLES}
    roles = {}
    for role, paths in IMAGE_ROLES.items():
        if role in holders:
            check_holders(role, holders[role])
            roles[role] = delegated(role, holders[role], paths)
    keys = {key.keyid: key for role in roles for key in holders[role].keys}
    return Targets(version=1, expires=expires, delegations=Delegations(keys, roles))


def delegated(role: str, holders: Holders, paths: Sequence[str]) -> DelegatedRole:
    return DelegatedRole(role, [key.keyid for key in holders.keys], holders.threshold, True, paths=list(paths))


def check_holders(role: str, holders: Holders) -> None:
    """UpdatesError if the same key is given twice, or fewer keys than must sign."""
    ids = [key.keyid for key in holders.keys]
    if len(set(ids)) != len(ids):
        raise UpdatesError("doubleKeys", role=role, keys=", ".join(sorted({keyid[:8] for keyid in ids if ids.count(keyid) > 1})))
    trust.refuse_doubles(role, holders.keys)
    if not 1 <= holders.threshold <= len(ids):
        raise UpdatesError("badThreshold", role=role, threshold=holders.threshold, count=len(ids))


def found_roles(updates: Updates, now: dt.datetime) -> None:
    """First, empty metadata of the roles that the server signs, where they have none. Needs the lock and signed top roles."""
    image = updates.image
    top, versions = image.targets().signed, image.versions()
    new = {}
    for role in plan.ONLINE_ROLES:
        if role not in versions and trust.role_of(top, role) is not None:
            metadata = image.next_targets(role, now)
            image.sign_online(metadata, trust.role_of(top, role))
            new[role] = metadata
    if new:
        image.publish(now, roles=new)
