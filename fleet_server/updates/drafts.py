"""Metadata on its way through people's hands: a file that each signs in turn, on machines that need not know the server.

A draft carries what it replaces and who may sign, so that whoever signs sees what changes. None of that is believed when it comes back: the server
compares it with its own copy and verifies every signature.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import CryptoSigner, Key
from tuf.api.metadata import Metadata, Root, Targets

from fleet_server.updates import store, trust
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.layout import REPOSITORIES, UpdatesLayout
from fleet_server.updates.repository import parse

FORMAT = "kiosk-fleet-draft/1"
MAX_BYTES = 8 << 20


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """`before`: the version that it follows. `delegator`: who says which keys sign; None for a root, which says so itself."""

    repository: str
    role: str
    metadata: Metadata[Any]
    before: Metadata[Any] | None
    delegator: Metadata[Any] | None

    @property
    def name(self) -> str:
        return f"{self.repository}.{self.role}"

    @property
    def code(self) -> str:
        """What people read to each other to be sure that they sign the same: of the content, not of the signatures."""
        digest = hashlib.sha256(self.metadata.signed_bytes).hexdigest()[:16]
        return "-".join(digest[at : at + 4] for at in range(0, 16, 4))

    def rules(self) -> list[tuple[str, Root | Targets]]:
        """Every rule that must be met: ("old" | "new" | "by", delegator)."""
        if self.role != "root":
            return [("by", self.delegator.signed)] if self.delegator is not None else []
        own = [("new", self.metadata.signed)]
        return [("old", self.before.signed), *own] if self.before is not None else own

    def missing(self) -> int:
        """Signatures that are still needed, by the strictest of the rules; one signature may serve two."""
        return max((trust.missing(delegator, self.role, self.metadata) for _, delegator in self.rules()), default=1)

    def signed_by(self) -> list[Key]:
        found = {
            keyid: key
            for _, delegator in self.rules()
            for keyid, key in trust.signers(delegator, self.role, self.metadata).items()
        }
        return list(found.values())

    def may_sign(self) -> list[Key]:
        """Keys whose signature would still help."""
        done = {key.keyid for key in self.signed_by()}
        wanted = [
            key
            for _, delegator in self.rules()
            if trust.missing(delegator, self.role, self.metadata)
            for key in trust.keys_of(delegator, self.role)
        ]
        return list({key.keyid: key for key in wanted if key.keyid not in done}.values())

    def sign(self, signer: CryptoSigner) -> None:
        """UpdatesError for a key that no rule names."""
        allowed = {key.keyid for _, delegator in self.rules() for key in trust.keys_of(delegator, self.role)}
        if signer.public_key.keyid not in allowed:
            raise UpdatesError("keyNotOfRole", key=signer.public_key.keyid[:8], role=self.name)
        self.metadata.sign(signer, append=True)

    def merge(self, other: Draft, file: str) -> None:
        """Take over the signatures of another copy. UpdatesError if that is of something else."""
        if self.name != other.name or self.metadata.signed_bytes != other.metadata.signed_bytes:
            raise UpdatesError("draftDiffers", file=file, code=other.code, wanted=self.code)
        self.metadata.signatures.update(other.metadata.signatures)

    def to_bytes(self) -> bytes:
        tree = {
            "format": FORMAT,
            "repository": self.repository,
            "role": self.role,
            "metadata": self.metadata.to_dict(),
            "before": self.before.to_dict() if self.before is not None else None,
            "delegator": self.delegator.to_dict() if self.delegator is not None else None,
        }
        return json.dumps(tree, indent=1, ensure_ascii=False).encode() + b"\n"


def read(path: Path) -> Draft:
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise UpdatesError("unreadableDraft", file=path.name)
        tree = json.loads(data)
        if tree["format"] != FORMAT or tree["repository"] not in REPOSITORIES or not isinstance(tree["role"], str):
            raise UpdatesError("unreadableDraft", file=path.name)
        kind = Root if tree["role"] == "root" else Targets
        delegator = tree["delegator"]
        of = Root if tree["role"] == "targets" else Targets
        return Draft(
            repository=tree["repository"],
            role=tree["role"],
            metadata=_metadata(tree["metadata"], kind),
            before=_metadata(tree["before"], kind) if tree["before"] is not None else None,
            delegator=_metadata(delegator, of) if delegator is not None else None,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as err:
        raise UpdatesError("unreadableDraft", file=path.name) from err


def _metadata(tree: object, kind: Any) -> Metadata[Any]:
    metadata: Metadata[Any] = parse(json.dumps(tree).encode(), kind)
    return metadata


def path_of(layout: UpdatesLayout, repository: str, role: str) -> Path:
    return layout.drafts / f"{repository}.{role}.json"


def pending(layout: UpdatesLayout) -> list[Draft]:
    """The drafts on the server, root before targets before the other roles."""
    order = {"root": 0, "targets": 1}
    found = [read(path) for path in sorted(layout.drafts.glob("*.json"))]
    return sorted(found, key=lambda draft: (draft.repository, order.get(draft.role, 2), draft.role))


def save(layout: UpdatesLayout, draft: Draft) -> Path:
    """Needs the lock."""
    path = path_of(layout, draft.repository, draft.role)
    store.replace(layout, path, draft.to_bytes())
    return path


def drop(layout: UpdatesLayout, repository: str, role: str) -> bool:
    """Needs the lock."""
    path = path_of(layout, repository, role)
    if not path.exists():
        return False
    path.unlink()
    store.sync_folder(path.parent)
    return True
