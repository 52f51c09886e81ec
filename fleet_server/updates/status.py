"""How the repositories stand: every role with its keys, threshold, version and expiry, and what somebody should do about it."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal

import msgspec
from tuf.api.metadata import Metadata

from fleet_server.updates import drafts, keys, plan, trust
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import RepositoryName
from fleet_server.updates.repository import Repository, Updates
from protocols.contract.artifacts import DIRECTOR_ROLE_PREFIX

Weight = Literal["broken", "soon"]
ONLINE_WARN_BELOW = 10 * plan.DAY
"""The server renews long before; less means that it has not run, or cannot."""


class RoleStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`version` None: not signed yet. `count`: of roles of terminals that this line stands for."""

    repository: RepositoryName
    role: str
    version: int | None
    threshold: int
    keys: tuple[str, ...]
    expires: dt.datetime | None
    offline: bool
    targets: int | None = None
    count: int = 1


class Warning_(msgspec.Struct, frozen=True):  # noqa: N801 -- the plain name is a builtin
    """`word`: a key of the catalogues' `warnings`, filled with `facts`."""

    weight: Weight
    word: str
    facts: dict[str, Any]


class Status(msgspec.Struct, frozen=True):
    roles: tuple[RoleStatus, ...]
    drafts: tuple[drafts.Draft, ...]
    warnings: tuple[Warning_, ...]

    @property
    def exit_code(self) -> int:
        """0: all well; 1: something does not work; 3: something must be done before long."""
        if any(warning.weight == "broken" for warning in self.warnings):
            return 1
        return 3 if self.warnings else 0


def status(updates: Updates, *, now_ms: int) -> Status:
    """Reads only."""
    if not updates.layout.exists:
        raise UpdatesError("notInitialised")
    now = plan.moment(now_ms)
    roles: list[RoleStatus] = []
    warnings: list[Warning_] = []
    for repository in updates.both():
        _look_at(updates, repository, now, roles, warnings)
    pending = tuple(drafts.pending(updates.layout))
    warnings += [
        Warning_("soon", "draftWaits", {"draft": draft.name, "count": draft.missing(), "keys": _names(draft.may_sign())})
        for draft in pending
    ]
    if updates.layout.journal.exists():
        warnings.append(Warning_("soon", "journal", {}))
    return Status(tuple(roles), pending, tuple(warnings))


def _look_at(
    updates: Updates, repository: Repository, now: dt.datetime, roles: list[RoleStatus], warnings: list[Warning_]
) -> None:
    root = repository.root()
    if root is None:
        warnings.append(Warning_("broken", "noRoot", {"repository": repository.name}))
        return
    versions = repository.versions()
    current: dict[str, Metadata[Any] | None] = {
        "root": root,
        "targets": repository.role("targets"),
        "snapshot": repository.snapshot(),
        "timestamp": repository.timestamp(),
    }
    for role, metadata in current.items():
        _one(updates, repository, role, root.signed, metadata, now, roles, warnings)
    top = current["targets"]
    if top is None:
        return
    terminals: list[Metadata[Any]] = []
    delegated = trust.roles_in(top.signed)
    for role in delegated:
        metadata = repository.role(role) if role in versions else None
        if role.startswith(DIRECTOR_ROLE_PREFIX) and repository.name == "director":
            terminals += [metadata] if metadata is not None else []
            continue
        _one(updates, repository, role, top.signed, metadata, now, roles, warnings)
    if repository.name == "director":
        _terminals(repository, top, terminals, now, roles, warnings)
    else:
        warnings += [Warning_("soon", "notDelegated", {"role": role}) for role in ("agent",) if role not in delegated]


def _one(
    updates: Updates,
    repository: Repository,
    role: str,
    delegator: Any,
    metadata: Metadata[Any] | None,
    now: dt.datetime,
    roles: list[RoleStatus],
    warnings: list[Warning_],
) -> None:
    found = trust.role_of(delegator, role)
    if found is None:
        return
    holders = trust.keys_of(delegator, role)
    offline = plan.is_offline(repository.name, role)
    roles.append(
        RoleStatus(
            repository=repository.name,
            role=role,
            version=metadata.signed.version if metadata is not None else None,
            threshold=found.threshold,
            keys=tuple(keys.label_of(key) for key in holders),
            expires=metadata.signed.expires if metadata is not None else None,
            offline=offline,
            targets=len(metadata.signed.targets) if metadata is not None and role not in plan.TOP_ROLES else None,
        )
    )
    facts: dict[str, Any] = {"repository": repository.name, "role": role}

    def warn(weight: Weight, word: str, **more: object) -> None:
        warnings.append(Warning_(weight, word, {**facts, **more}))

    if metadata is None:
        if role in plan.TOP_ROLES:
            warn("broken", "unsigned")
    else:
        left = metadata.signed.expires - now
        if left <= dt.timedelta(0):
            warn("broken", "expired", date=f"{metadata.signed.expires:%Y-%m-%d}")
        elif left < (plan.WARN_BELOW if offline else ONLINE_WARN_BELOW):
            warn("soon", "expiresSoon" if offline else "notRenewed", date=f"{metadata.signed.expires:%Y-%m-%d}", days=left.days)
        if trust.missing(delegator, role, metadata):
            warn("broken", "notAccepted")
    if keys.doubles(holders):
        warn("broken", "doubleKeys")
    if offline and found.threshold == 1 and role in ("root", "targets"):
        warn("soon", "oneSignature")
    if offline and len(holders) == found.threshold and found.threshold > 1:
        warn("soon", "noSpareKey", count=len(holders))
    held = [key for key in holders if updates.keys.get(key.keyid) is not None]
    if offline and held:
        warn("broken", "offlineKeyHere", keys=_names(held))
    if not offline and len(held) < found.threshold:
        warn("broken", "onlineKeyMissing")


def _terminals(
    repository: Repository,
    top: Metadata[Any],
    terminals: list[Metadata[Any]],
    now: dt.datetime,
    roles: list[RoleStatus],
    warnings: list[Warning_],
) -> None:
    first = min((metadata.signed.expires for metadata in terminals), default=None)
    delegations = top.signed.delegations
    roles.append(
        RoleStatus(
            repository=repository.name,
            role="terminals",
            version=None,
            threshold=1,
            keys=tuple(keys.label_of(key) for key in (delegations.keys.values() if delegations is not None else ())),
            expires=first,
            offline=False,
            targets=sum(len(metadata.signed.targets) for metadata in terminals),
            count=len(terminals),
        )
    )
    facts = {"repository": repository.name, "role": "terminals"}
    if first is not None and first <= now:
        warnings.append(Warning_("broken", "expired", {**facts, "date": f"{first:%Y-%m-%d}"}))
    elif first is not None and first - now < ONLINE_WARN_BELOW:
        warnings.append(Warning_("soon", "notRenewed", {**facts, "date": f"{first:%Y-%m-%d}", "days": (first - now).days}))


def _names(found: Any) -> str:
    return ", ".join(keys.label_of(key) for key in found)
