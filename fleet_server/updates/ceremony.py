"""Changing who may sign: founding, rotation, revocation, delegation, longer validity. What people must sign becomes a draft, the rest is done.

Every function needs no private key of a person. `publish` makes current whatever is completely signed, in an order in which nothing breaks.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Metadata, Role, Root, Targets

from fleet_server.updates import director, drafts, founding, plan, store, trust
from fleet_server.updates.drafts import Draft
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.founding import Founders, Holders
from fleet_server.updates.keys import label_of
from fleet_server.updates.repository import Repository, Updates, parse
from protocols.contract.artifacts import IMAGE_ROLES

TERMINALS = "terminals"
"""Stands for all roles of terminals in the director repository: they have one key."""


class Change(msgspec.Struct, frozen=True):
    """The change that is wanted of one role's keys."""

    add: tuple[Key, ...] = ()
    remove: tuple[str, ...] = ()
    threshold: int | None = None


class Outcome(msgspec.Struct):
    """What was done at once, and which drafts wait for people. `done`: (key of the catalogues' `results`, facts)."""

    done: list[tuple[str, dict[str, object]]] = []
    waiting: list[Draft] = []

    def say(self, what: str, **facts: object) -> None:
        self.done.append((what, facts))


# Founding -------------------------------------------------------------------------------------------------------------------------------


def found(updates: Updates, founders: Founders, *, now_ms: int) -> Outcome:
    """Draft the first root of both repositories and the first targets of the image repository."""
    now, outcome = plan.moment(now_ms), Outcome()
    with store.writing(updates.layout):
        if any(repository.root_version() for repository in updates.both()):
            raise UpdatesError("foundedBefore")
        for repository in updates.both():
            online = founding.online_keys(updates, repository.name)
            root = Metadata(founding.first_root(repository.name, founders, online, now))
            new = [Draft(repository=repository.name, role="root", metadata=root, before=None, delegator=None)]
            if repository.name == "image":
                targets = Metadata(founding.first_targets("image", founders, online, now))
                new.append(Draft(repository="image", role="targets", metadata=targets, before=None, delegator=root))
            for draft in new:
                drafts.save(updates.layout, draft)
                outcome.waiting.append(draft)
    return outcome


# Changes --------------------------------------------------------------------------------------------------------------------------------


def rotate(updates: Updates, name: str, role: str, change: Change, *, now_ms: int) -> Outcome:
    """Change the keys or the threshold of one role. For a role of the server's without more said: make it a new key."""
    now, outcome, repository = plan.moment(now_ms), Outcome(), updates.of(name)
    with store.writing(updates.layout):
        if name == "director" and role == TERMINALS:
            if change != Change():
                raise UpdatesError("onlineRole", role=TERMINALS)
            _rotate_terminals(updates, now, outcome)
            return outcome
        _known_role(repository, role)
        if not plan.is_offline(name, role):
            if change != Change():
                raise UpdatesError("onlineRole", role=role)
            fresh = updates.keys.create(f"{name} {role}, server")
            change = Change(
                add=(fresh,), remove=tuple(key.keyid for key in trust.keys_of(_edited_delegator(updates, name, role), role))
            )
        if change == Change():
            raise UpdatesError("noChange")
        _edit_holders(updates, repository, role, change, now, outcome)
    return outcome


def revoke(updates: Updates, keyid: str, replacement: Sequence[Key], *, now_ms: int) -> Outcome:
    """Take a key out of every role of both repositories; `replacement` comes in for a person's key, a new one for a key of the server."""
    now, outcome = plan.moment(now_ms), Outcome()
    full = find_key(updates, keyid)
    with store.writing(updates.layout):
        for repository in updates.both():
            for role in _roles_with(updates, repository, full):
                if role == TERMINALS:
                    _rotate_terminals(updates, now, outcome)
                    continue
                if plan.is_offline(repository.name, role):
                    change = Change(add=tuple(replacement), remove=(full,))
                else:
                    change = Change(add=(updates.keys.create(f"{repository.name} {role}, server"),), remove=(full,))
                _edit_holders(updates, repository, role, change, now, outcome)
    return outcome


def extend(updates: Updates, name: str, role: str, *, now_ms: int) -> Outcome:
    """A new version of the role with a fresh expiry and the same content: at once where the server signs, else as a draft."""
    now, outcome, repository = plan.moment(now_ms), Outcome(), updates.of(name)
    with store.writing(updates.layout):
        if role == "root":
            _edit_root(updates, repository, now, lambda root: None, outcome)
        elif plan.is_offline(name, role):
            _known_role(repository, role)
            if repository.role(role) is None:
                raise UpdatesError("unknownRole", repository=name, role=role)
            _save(updates, _resigned(updates, repository, role, now), outcome)
        elif role in ("snapshot", "timestamp"):
            repository.publish(now, renew_snapshot=role == "snapshot")
            outcome.say("renewed", repository=name, role=role, days=plan.period(name, role).days)
        else:
            renewed = _next_online(repository, role, now)
            repository.publish(now, roles=renewed)
            outcome.say("renewed", repository=name, role=role, days=plan.period(name, role).days)
    return outcome


def delegate(updates: Updates, role: str, holders: Holders, *, now_ms: int) -> Outcome:
    """Give a release role its first keys, or other ones altogether."""
    if role not in plan.RELEASE_ROLES:
        raise UpdatesError("notReleaseRole", role=role)
    founding.check_holders(role, holders)
    now, outcome, image = plan.moment(now_ms), Outcome(), updates.image

    def edit(targets: Targets) -> None:
        assert targets.delegations is not None and targets.delegations.roles is not None
        targets.delegations.roles[role] = founding.delegated(role, holders, IMAGE_ROLES[role])
        targets.delegations.keys.update({key.keyid: key for key in holders.keys})
        _forget_unused(targets)

    with store.writing(updates.layout):
        _edit_targets(updates, image, now, edit, outcome)
        _resign_if_needed(updates, image, role, now, outcome)
    return outcome


def edit_roots(updates: Updates, names: Iterable[str], change: Change, *, now_ms: int) -> Outcome:
    """Change the keys of the root role itself; without a change, only a longer validity."""
    outcome = Outcome()
    for name in names:
        if change == Change():
            part = extend(updates, name, "root", now_ms=now_ms)
        else:
            part = rotate(updates, name, "root", change, now_ms=now_ms)
        outcome.done += part.done
        outcome.waiting += part.waiting
    return outcome


# Publishing -----------------------------------------------------------------------------------------------------------------------------


def publish(updates: Updates, *, now_ms: int, given: Sequence[tuple[str, Draft]] = (), urgent: bool = False) -> Outcome:
    """Make every draft current that is completely signed, and re-sign what the server signs under new rules.

    `given`: copies that came back, with the names of their files; their signatures are merged first. `urgent`: withdraw keys of release roles now,
    though the roles are not signed again yet; terminals take nothing from them until they are.
    """
    now, outcome = plan.moment(now_ms), Outcome()
    with store.writing(updates.layout):
        _merge(updates, given)
        for repository in updates.both():
            waiting = {draft.role: draft for draft in drafts.pending(updates.layout) if draft.repository == repository.name}
            for role, draft in list(waiting.items()):
                if draft.metadata.signed.version <= _current_version(repository, role):
                    # Published by a run that was killed before it could clear up.
                    drafts.drop(updates.layout, repository.name, role)
                    del waiting[role]
            published = _publish_one(updates, repository, waiting, now, urgent, outcome)
            for role in published:
                drafts.drop(updates.layout, repository.name, role)
                outcome.say("published", repository=repository.name, role=role, version=waiting[role].metadata.signed.version)
            outcome.waiting += [draft for role, draft in waiting.items() if role not in published]
        if updates.image.timestamp() is not None:
            founding.found_roles(updates, now)
        _forget_online_keys(updates, outcome)
    return outcome


def _merge(updates: Updates, given: Sequence[tuple[str, Draft]]) -> None:
    for file, copy_ in given:
        path = drafts.path_of(updates.layout, copy_.repository, copy_.role)
        if not path.exists():
            raise UpdatesError("noDraft", name=copy_.name)
        own = drafts.read(path)
        own.merge(copy_, file)
        drafts.save(updates.layout, own)


def _publish_one(
    updates: Updates, repository: Repository, waiting: dict[str, Draft], now: dt.datetime, urgent: bool, outcome: Outcome
) -> list[str]:
    """Returns the roles of the drafts that are current now."""
    before = repository.root()
    root: Metadata[Root] | None = waiting["root"].metadata if "root" in waiting else None
    if root is not None and trust.root_missing(before.signed if before is not None else None, root):
        root = None
    now_root = root or before
    if now_root is None:
        return []
    roles: dict[str, Metadata[Targets]] = {}
    top = waiting["targets"].metadata if "targets" in waiting else None
    if top is not None and not trust.missing(now_root.signed, "targets", top):
        roles["targets"] = top
    elif repository.name == "director":
        _online_targets(updates, repository, before, now_root, roles, now)
    present = roles.get("targets") or repository.role("targets")
    if present is None or trust.missing(now_root.signed, "targets", present):
        if before is None and present is None and root is not None:
            repository.publish(now, root=root)
            return ["root"]
        # A root with which nothing would be accepted stays back until the targets role is signed for it.
        return []
    for role in trust.roles_in(present.signed):
        draft = waiting.get(role)
        if draft is not None and not trust.missing(present.signed, role, draft.metadata):
            roles[role] = draft.metadata
    if "targets" in roles:
        behind = _behind(repository, roles, now)
        if behind and not urgent:
            # New delegations stay back with the roles that they would orphan; a new root need not wait for them.
            old = repository.role("targets")
            roles = {role: metadata for role, metadata in roles.items() if role not in ("targets", *behind)}
            if old is None or trust.missing(now_root.signed, "targets", old):
                return []
            present = old
            roles = {role: metadata for role, metadata in roles.items() if not trust.missing(present.signed, role, metadata)}
            for role in behind:
                outcome.say("behind", role=role)
        elif behind:
            for role in behind:
                outcome.say("orphaned", role=role)
    if root is None and not roles:
        return []
    repository.publish(now, root=root, roles=roles, leave_unsigned=urgent)
    return [role for role in waiting if (role == "root" and root is not None) or roles.get(role) is waiting[role].metadata]


def _behind(repository: Repository, roles: dict[str, Metadata[Targets]], now: dt.datetime) -> list[str]:
    """Offline roles whose present metadata the new delegations would not accept. Those that the server signs are signed again, into `roles`."""
    top = roles["targets"].signed
    behind = []
    for role in trust.roles_in(top):
        current = repository.role(role) if role not in roles else None
        if current is None or not trust.missing(top, role, current):
            continue
        if plan.is_offline(repository.name, role):
            behind.append(role)
        else:
            again = repository.next_targets(role, now)
            repository.sign_online(again, trust.role_of(top, role))
            roles[role] = again
    return behind


def _online_targets(
    updates: Updates,
    repository: Repository,
    before: Metadata[Root] | None,
    root: Metadata[Root],
    roles: dict[str, Metadata[Targets]],
    now: dt.datetime,
) -> None:
    """The director's targets role is the server's: made with the first root, signed by the old and the new key with a root that changes it."""
    current = repository.role("targets")
    if current is None:
        founders = Founders(root=Holders((), 1))
        metadata = Metadata(founding.first_targets("director", founders, founding.online_keys(updates, "director"), now))
    elif trust.missing(root.signed, "targets", current):
        metadata = repository.next_targets("targets", now)
    else:
        return
    repository.sign_online(metadata, root.signed.roles["targets"], before.signed.roles["targets"] if before is not None else None)
    roles["targets"] = metadata


def _forget_online_keys(updates: Updates, outcome: Outcome) -> None:
    """Delete keys of the server that no metadata and no draft names any more."""
    if any(repository.timestamp() is None for repository in updates.both()):
        return
    used: set[str] = set()
    for repository in updates.both():
        for delegator in (repository.trusted_root().signed, repository.targets().signed):
            used.update(key.keyid for role in trust.roles_in(delegator) for key in trust.keys_of(delegator, role))
        if repository.name == "director":
            used.update(key.keyid for key in director.terminal_keys(repository.targets().signed))
    for draft in drafts.pending(updates.layout):
        if isinstance(draft.metadata.signed, (Root, Targets)):
            delegator = draft.metadata.signed
            used.update(key.keyid for role in trust.roles_in(delegator) for key in trust.keys_of(delegator, role))
    for keyid in updates.keys.ids() - used:
        updates.keys.forget(keyid)
        outcome.say("keyDeleted", key=keyid[:8])


# Editing --------------------------------------------------------------------------------------------------------------------------------


def _edit_holders(
    updates: Updates, repository: Repository, role: str, change: Change, now: dt.datetime, outcome: Outcome
) -> None:
    if role in plan.TOP_ROLES:
        _edit_root(updates, repository, now, lambda root: _apply_to_root(root, role, change), outcome)
        if role == "targets" and plan.is_offline(repository.name, role):
            _save(updates, _resigned(updates, repository, "targets", now), outcome)
        return
    _edit_targets(updates, repository, now, lambda targets: _apply_to_targets(targets, role, change), outcome)
    if plan.is_offline(repository.name, role):
        _resign_if_needed(updates, repository, role, now, outcome)


def _edit_root(
    updates: Updates, repository: Repository, now: dt.datetime, edit: Callable[[Root], None], outcome: Outcome
) -> None:
    before = repository.trusted_root()
    path = drafts.path_of(updates.layout, repository.name, "root")
    if path.exists() and drafts.read(path).metadata.signed.version == before.signed.version + 1:
        root: Root = drafts.read(path).metadata.signed
    else:
        root = copy.deepcopy(before.signed)
        root.version += 1
    root.expires = now + plan.period(repository.name, "root")
    edit(root)
    for role, found in root.roles.items():
        founding.check_holders(role, Holders(tuple(root.keys[keyid] for keyid in found.keyids), found.threshold))
    _save(
        updates, Draft(repository=repository.name, role="root", metadata=Metadata(root), before=before, delegator=None), outcome
    )


def _edit_targets(
    updates: Updates, repository: Repository, now: dt.datetime, edit: Callable[[Targets], None], outcome: Outcome
) -> None:
    draft = _resigned(updates, repository, "targets", now)
    edit(draft.metadata.signed)
    for role in trust.roles_in(draft.metadata.signed):
        found = trust.role_of(draft.metadata.signed, role)
        if found is not None and role in (*plan.RELEASE_ROLES, *plan.ONLINE_ROLES):
            founding.check_holders(role, Holders(tuple(trust.keys_of(draft.metadata.signed, role)), found.threshold))
    _save(updates, draft, outcome)


def _resigned(updates: Updates, repository: Repository, role: str, now: dt.datetime) -> Draft:
    """The role's next version, with what a present draft has already changed, unsigned."""
    before = repository.role(role)
    path = drafts.path_of(updates.layout, repository.name, role)
    wanted = before.signed.version + 1 if before is not None else 1
    if path.exists() and drafts.read(path).metadata.signed.version == wanted:
        metadata = Metadata(drafts.read(path).metadata.signed)
        metadata.signed.expires = now + plan.period(repository.name, role)
    else:
        metadata = repository.next_targets(role, now)
    return Draft(
        repository=repository.name,
        role=role,
        metadata=metadata,
        before=before,
        delegator=_delegator_draft(updates, repository, role),
    )


def _resign_if_needed(updates: Updates, repository: Repository, role: str, now: dt.datetime, outcome: Outcome) -> None:
    """A role whose keys change must be signed by those that will count, unless its present signatures still do."""
    current = repository.role(role)
    if current is None:
        return
    delegator = _delegator_draft(updates, repository, role)
    if trust.missing(delegator.signed, role, current):
        _save(updates, _resigned(updates, repository, role, now), outcome)


def _delegator_draft(updates: Updates, repository: Repository, role: str) -> Metadata[Any]:
    """Who will say which keys sign: the draft of root or targets where there is one, else the present one."""
    holder = "root" if role in plan.TOP_ROLES else "targets"
    path = drafts.path_of(updates.layout, repository.name, holder)
    if path.exists():
        metadata: Metadata[Any] = drafts.read(path).metadata
        return metadata
    found: Metadata[Any] = repository.trusted_root() if holder == "root" else repository.targets()
    return found


def _edited_delegator(updates: Updates, name: str, role: str) -> Root | Targets:
    signed: Root | Targets = _delegator_draft(updates, updates.of(name), role).signed
    return signed


def _save(updates: Updates, draft: Draft, outcome: Outcome) -> None:
    drafts.save(updates.layout, draft)
    outcome.waiting[:] = [each for each in outcome.waiting if each.name != draft.name] + [draft]


def _changed_ids(role: str, ids: list[str], change: Change) -> list[str]:
    for keyid in change.remove:
        if keyid not in ids:
            raise UpdatesError("unknownKey", key=keyid[:8])
    kept = [keyid for keyid in ids if keyid not in change.remove]
    added = [key.keyid for key in change.add]
    if set(added) & set(change.remove) or len(set(added)) != len(added):
        raise UpdatesError("doubleKeys", role=role, keys=", ".join(keyid[:8] for keyid in added))
    return kept + [keyid for keyid in added if keyid not in kept]


def _new_threshold(role: str, found: Role, ids: list[str], change: Change) -> int:
    threshold = change.threshold if change.threshold is not None else found.threshold
    if len(ids) < threshold:
        raise UpdatesError("belowThreshold", role=role, count=len(ids), threshold=threshold)
    return threshold


def _apply_to_root(root: Root, role: str, change: Change) -> None:
    found = root.roles[role]
    ids = _changed_ids(role, found.keyids, change)
    found.threshold = _new_threshold(role, found, ids, change)
    found.keyids = ids
    root.keys.update({key.keyid: key for key in change.add})
    used = {keyid for each in root.roles.values() for keyid in each.keyids}
    root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}


def _apply_to_targets(targets: Targets, role: str, change: Change) -> None:
    found = trust.role_of(targets, role)
    if found is None or targets.delegations is None:
        raise UpdatesError("roleNotDelegated", role=role)
    ids = _changed_ids(role, found.keyids, change)
    found.threshold = _new_threshold(role, found, ids, change)
    found.keyids = ids
    targets.delegations.keys.update({key.keyid: key for key in change.add})
    _forget_unused(targets)


def _forget_unused(targets: Targets) -> None:
    if targets.delegations is not None:
        used = {keyid for each in (targets.delegations.roles or {}).values() for keyid in each.keyids}
        targets.delegations.keys = {keyid: key for keyid, key in targets.delegations.keys.items() if keyid in used}


def _rotate_terminals(updates: Updates, now: dt.datetime, outcome: Outcome) -> None:
    """A new key for all terminals' roles: delegations and every role change in one snapshot, so no terminal sees a mixture."""
    repository = updates.director
    fresh = updates.keys.create("director terminals, server")
    top = repository.next_targets("targets", now)
    delegations = top.signed.delegations
    if delegations is None or delegations.roles is None:
        raise UpdatesError("noTargets", repository="director")
    delegations.keys = {fresh.keyid: fresh}
    for name, role in delegations.roles.items():
        delegations.roles[name] = DelegatedRole(name, [fresh.keyid], 1, True, paths=role.paths)
    repository.sign_online(top, repository.trusted_root().signed.roles["targets"])
    roles = {"targets": top}
    versions = repository.versions()
    for name in delegations.roles:
        if name in versions:
            current = parse(repository.role_bytes(name, versions[name]) or b"", Targets)
            current.signed.version += 1
            current.signed.expires = now + plan.period("director", name)
            repository.sign_online(current, delegations.roles[name])
            roles[name] = current
    repository.publish(now, roles=roles)
    outcome.say("terminalsRotated", count=len(roles) - 1, key=fresh.keyid[:8])
    _forget_online_keys(updates, outcome)


def _next_online(repository: Repository, role: str, now: dt.datetime) -> dict[str, Metadata[Targets]]:
    names = [role]
    if repository.name == "director" and role == TERMINALS:
        names = [name for name in trust.roles_in(repository.targets().signed) if name in repository.versions()]
    else:
        _known_role(repository, role)
    renewed = {}
    for name in names:
        metadata = repository.next_targets(name, now)
        repository.sign_online(metadata, trust.role_of(repository.delegator(name), name))
        renewed[name] = metadata
    return renewed


def _known_role(repository: Repository, role: str) -> None:
    if role in plan.TOP_ROLES:
        repository.trusted_root()
        return
    if trust.role_of(repository.targets().signed, role) is None:
        raise UpdatesError("unknownRole", repository=repository.name, role=role)


def _current_version(repository: Repository, role: str) -> int:
    return repository.root_version() if role == "root" else repository.versions().get(role, 0)


# Keys -----------------------------------------------------------------------------------------------------------------------------------


def all_keys(updates: Updates) -> dict[str, Key]:
    """Every key that a current role or a draft of one names."""
    found: dict[str, Key] = {}
    for repository in updates.both():
        for delegator in _delegators(updates, repository):
            found.update({key.keyid: key for role in trust.roles_in(delegator) for key in trust.keys_of(delegator, role)})
            if isinstance(delegator, Targets):
                found.update({key.keyid: key for key in director.terminal_keys(delegator)})
    return found


def find_key(updates: Updates, beginning: str) -> str:
    """The whole id of a key from its first digits; UpdatesError if there is none, or more than one."""
    found = [keyid for keyid in all_keys(updates) if len(beginning) >= 4 and keyid.startswith(beginning.lower())]
    if not found:
        raise UpdatesError("unknownKey", key=beginning[:16])
    if len(found) > 1:
        raise UpdatesError("ambiguousKey", key=beginning[:16])
    return found[0]


def names(keys: Iterable[Key]) -> str:
    return ", ".join(label_of(key) for key in keys)


def _delegators(updates: Updates, repository: Repository) -> list[Root | Targets]:
    found: list[Root | Targets] = []
    root, top = repository.root(), repository.role("targets")
    found += [each.signed for each in (root, top) if each is not None]
    for draft in drafts.pending(updates.layout):
        if draft.repository == repository.name and draft.role in ("root", "targets"):
            found.append(draft.metadata.signed)
    return found


def _roles_with(updates: Updates, repository: Repository, keyid: str) -> list[str]:
    roles: list[str] = []
    for holder in ("timestamp", "agent"):
        delegator = _edited_delegator(updates, repository.name, holder) if repository.root_version() else None
        if delegator is None:
            continue
        if isinstance(delegator, Targets) and repository.name == "director":
            roles += [TERMINALS] if keyid in {key.keyid for key in director.terminal_keys(delegator)} else []
            continue
        roles += [role for role in trust.roles_in(delegator) if keyid in {key.keyid for key in trust.keys_of(delegator, role)}]
    return roles
