"""Whether metadata carries enough good signatures. Counts keys, not key ids: one key under two names is one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Role, Root, Targets

from fleet_server.updates import keys
from fleet_server.updates.errors import UpdatesError


def role_of(delegator: Root | Targets, role: str) -> Role | None:
    if isinstance(delegator, Root):
        return delegator.roles.get(role)
    delegations = delegator.delegations
    return (delegations.roles or {}).get(role) if delegations is not None else None


def keys_of(delegator: Root | Targets, role: str) -> list[Key]:
    """The keys that may sign for `role`; ids without a key are left out."""
    found = role_of(delegator, role)
    if found is None:
        return []
    known = delegator.keys if isinstance(delegator, Root) else (delegator.delegations.keys if delegator.delegations else {})
    return [known[keyid] for keyid in found.keyids if keyid in known]


def roles_in(delegator: Root | Targets) -> list[str]:
    if isinstance(delegator, Root):
        return list(delegator.roles)
    return list(delegator.delegations.roles or {}) if delegator.delegations is not None else []


def signers(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> dict[str, Key]:
    """The keys of `role` that have signed, each key once however many ids it goes by."""
    if role_of(delegator, role) is None:
        return {}
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    different: dict[str, tuple[str, Key]] = {}
    for keyid, key in result.signed.items():
        different.setdefault(str(key.keyval.get("public")).lower(), (keyid, key))
    return dict(different.values())


def missing(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> int:
    """How many signatures are still needed. A role that is not delegated can never be satisfied."""
    found = role_of(delegator, role)
    if found is None:
        return 1
    return max(0, found.threshold - len(signers(delegator, role, metadata)))


def verify(delegator: Root | Targets, role: str, metadata: Metadata[Any]) -> None:
    """UpdatesError unless the threshold of different keys of `role` has signed."""
    found = role_of(delegator, role)
    if found is None:
        raise UpdatesError("unknownRole", repository="", role=role)
    refuse_doubles(role, keys_of(delegator, role))
    if missing(delegator, role, metadata):
        raise UpdatesError(
            "missingSignatures", role=role, threshold=found.threshold, valid=len(signers(delegator, role, metadata))
        )


def refuse_doubles(role: str, found: Iterable[Key]) -> None:
    wrong = keys.doubles(found)
    if wrong:
        raise UpdatesError("doubleKeys", role=role, keys=", ".join(keyid[:8] for keyid in wrong))


def root_missing(previous: Root | None, metadata: Metadata[Root]) -> int:
    """How many signatures a new root still needs, by its own rule and by that of the root before; one that serves both counts for both."""
    own = missing(metadata.signed, "root", metadata)
    return max(own, missing(previous, "root", metadata)) if previous is not None else own


def verify_root(previous: Root | None, metadata: Metadata[Root]) -> None:
    """UpdatesError unless it is the next root, signed by the threshold of the root before and of itself."""
    if previous is not None:
        if metadata.signed.version != previous.version + 1:
            raise UpdatesError("wrongVersion", role="root", version=metadata.signed.version, wanted=previous.version + 1)
        verify(previous, "root", metadata)
    verify(metadata.signed, "root", metadata)
    for role in metadata.signed.roles:
        refuse_doubles(role, keys_of(metadata.signed, role))
