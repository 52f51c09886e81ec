"""One TUF repository on disk: what is current, and how new metadata becomes current.

Whatever is read here was written by us, and is verified again before it is published: a repository never publishes what a terminal would refuse.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from fleet_server.updates import plan, store, trust
from fleet_server.updates.errors import UpdatesError
from fleet_server.updates.keys import OnlineKeys
from fleet_server.updates.layout import REPOSITORIES, RepositoryName, UpdatesLayout
from protocols.contract.artifacts import CUSTOM_KEY

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


class Updates:
    """Both repositories and the server's own keys. Changing anything needs `store.writing(layout)` around reading and publishing."""

    def __init__(self, layout: UpdatesLayout) -> None:
        self.layout = layout
        self.keys = OnlineKeys(layout)
        self.image = Repository(layout, "image", self.keys)
        self.director = Repository(layout, "director", self.keys)

    def of(self, name: str) -> Repository:
        if name not in REPOSITORIES:
            raise UpdatesError("unknownRepository", repository=name)
        return self.image if name == "image" else self.director

    def both(self) -> tuple[Repository, Repository]:
        return self.image, self.director

    def roots(self) -> dict[str, str]:
        """The newest root of each repository that has one, for the answer to an enrolment."""
        found: dict[str, str] = {}
        for repository in self.both():
            version = repository.root_version()
            if version:
                found[repository.name] = repository.root_path(version).read_text("utf-8")
        return found


class Repository:
    """`image` or `director`."""

    def __init__(self, layout: UpdatesLayout, name: RepositoryName, keys: OnlineKeys) -> None:
        self.layout, self.name, self.keys = layout, name, keys
        self.metadata_dir = layout.metadata(name)
        self.targets_dir = layout.targets(name)

    # What is current --------------------------------------------------------------------------------------------------------------------

    def root_version(self) -> int:
        """0: there is no root yet. Versions have no gaps, since terminals walk them one by one."""
        version = 0
        while self.root_path(version + 1).exists():
            version += 1
        return version

    def root_path(self, version: int) -> Path:
        return self.metadata_dir / f"{version}.root.json"

    def root(self) -> Metadata[Root] | None:
        version = self.root_version()
        return parse(self.root_path(version).read_bytes(), Root) if version else None

    def trusted_root(self) -> Metadata[Root]:
        root = self.root()
        if root is None:
            raise UpdatesError("noRoot", repository=self.name)
        return root

    def timestamp(self) -> Metadata[Timestamp] | None:
        path = self.metadata_dir / "timestamp.json"
        return parse(path.read_bytes(), Timestamp) if path.exists() else None

    def snapshot(self) -> Metadata[Snapshot] | None:
        timestamp = self.timestamp()
        if timestamp is None:
            return None
        return parse((self.metadata_dir / f"{timestamp.signed.snapshot_meta.version}.snapshot.json").read_bytes(), Snapshot)

    def versions(self) -> dict[str, int]:
        """Current version of each role of the snapshot."""
        snapshot = self.snapshot()
        return (
            {} if snapshot is None else {name.removesuffix(".json"): meta.version for name, meta in snapshot.signed.meta.items()}
        )

    def role_bytes(self, role: str, version: int | None = None) -> bytes | None:
        """As it lies on the disk; None if the role has no metadata yet."""
        found = self.versions().get(role) if version is None else version
        return None if found is None else (self.metadata_dir / f"{found}.{role}.json").read_bytes()

    def role(self, role: str) -> Metadata[Targets] | None:
        """`targets` or a delegated role."""
        data = self.role_bytes(role)
        return None if data is None else parse(data, Targets)

    def targets(self) -> Metadata[Targets]:
        found = self.role("targets")
        if found is None:
            raise UpdatesError("noTargets", repository=self.name)
        return found

    def delegator(self, role: str) -> Root | Targets:
        """Who says which keys sign for `role`."""
        return self.trusted_root().signed if role in plan.TOP_ROLES else self.targets().signed

    def known_targets(self) -> dict[str, tuple[str, TargetFile]]:
        """Everything that terminals would accept of the delegated roles: path → (role, target). A role whose keys were withdrawn is left out."""
        top = self.role("targets")
        if top is None:
            return {}
        known: dict[str, tuple[str, TargetFile]] = {}
        versions = self.versions()
        for name in trust.roles_in(top.signed):
            if name not in versions:
                continue
            metadata = parse(self.role_bytes(name, versions[name]) or b"", Targets)
            if trust.missing(top.signed, name, metadata):
                continue
            for path, target in metadata.signed.targets.items():
                known.setdefault(path, (name, target))
        return known

    def file_of(self, target: TargetFile) -> Path:
        """Where the content of a target lies: below its hash, as consistent snapshots have it."""
        return self.targets_dir / hashed_path(target)

    # Making the next version ------------------------------------------------------------------------------------------------------------

    def next_targets(self, role: str, now: dt.datetime) -> Metadata[Targets]:
        """An unsigned copy of the role's metadata with the next version and a fresh expiry; empty if there was none."""
        current = self.role(role)
        signed = current.signed if current is not None else Targets()
        signed.version = signed.version + 1 if current is not None else self.versions().get(role, 0) + 1
        signed.expires = now + plan.period(self.name, role)
        return Metadata(signed)

    def sign_online(self, metadata: Metadata[Any], *roles: Role | None) -> None:
        """Sign with each key of these roles that this server holds."""
        metadata.signatures.clear()
        for keyid in dict.fromkeys(keyid for role in roles if role is not None for keyid in role.keyids):
            signer = self.keys.get(keyid)
            if signer is not None:
                metadata.sign(signer, append=True)

    def publish(
        self,
        now: dt.datetime,
        *,
        roles: Mapping[str, Metadata[Targets]] | None = None,
        root: Metadata[Root] | None = None,
        renew_snapshot: bool = False,
        leave_unsigned: bool = False,
        skip: int = 0,
    ) -> None:
        """Make signed roles and a signed root current, with a new snapshot and timestamp. Needs the lock.

        All is verified as a terminal would: UpdatesError, and nothing is changed. After a crash at any point terminals see the state before or the
        one after; where a new root and the timestamp belong together, the next holder of the lock finishes it.
        `leave_unsigned`: roles whose present metadata new delegations no longer accept may stay behind; terminals take nothing from them until they
        are signed again. `skip`: leave out so many versions of what the server signs.
        """
        given = dict(roles or {})
        before = self.root()
        if root is not None:
            trust.verify_root(before.signed if before is not None else None, root)
        now_root = root or before
        if now_root is None:
            raise UpdatesError("noRoot", repository=self.name)
        self._check_clock(now)
        given_top = given.get("targets")
        if given_top is None and self.role("targets") is None:
            if given:
                raise UpdatesError("noTargets", repository=self.name)
            # The first root: nothing can be offered before the targets role is signed.
            store.replace(self.layout, self.root_path(now_root.signed.version), now_root.to_bytes())
            return
        top = given_top or self.targets()
        old_root = before.signed if before is not None and root is not None else None
        self._verify_roles(now_root.signed, top, given, leave_unsigned=leave_unsigned, skip=skip)
        files = {
            self.metadata_dir / f"{metadata.signed.version}.{role}.json": metadata.to_bytes() for role, metadata in given.items()
        }
        snapshot, timestamp = self._seal(now, now_root.signed, old_root, given, renew_snapshot, skip)
        if snapshot is not None:
            files[self.metadata_dir / f"{snapshot.signed.version}.snapshot.json"] = snapshot.to_bytes()
        store.add(self.layout, files)
        newest = (self.metadata_dir / "timestamp.json", timestamp.to_bytes())
        if root is None:
            store.replace(self.layout, *newest)
            return
        rooted = (self.root_path(root.signed.version), root.to_bytes())
        # With keys that both roots know, the timestamp goes first and no terminal ever sees two that do not fit.
        fits_old = old_root is not None and not trust.missing(old_root, "targets", top)
        store.together(self.layout, [newest, rooted] if fits_old else [rooted, newest])

    def _check_clock(self, now: dt.datetime) -> None:
        current = self.timestamp()
        signed = signed_at(current.signed) if current is not None else None
        if signed is not None and now < signed - plan.CLOCK_TOLERANCE:
            raise UpdatesError("clockWentBack", now=now.isoformat(), signed=signed.isoformat())

    def _verify_roles(
        self, root: Root, top: Metadata[Targets], given: Mapping[str, Metadata[Targets]], *, leave_unsigned: bool, skip: int
    ) -> None:
        trust.verify(root, "targets", top)
        present = self.versions()
        for role in trust.roles_in(top.signed):
            trust.refuse_doubles(role, trust.keys_of(top.signed, role))
        for role, metadata in given.items():
            wanted = present.get(role, 0) + 1 + (0 if plan.is_offline(self.name, role) else skip)
            if metadata.signed.version != wanted:
                raise UpdatesError("wrongVersion", role=role, version=metadata.signed.version, wanted=wanted)
            if role != "targets":
                trust.verify(top.signed, role, metadata)
        if "targets" not in given or leave_unsigned:
            return
        # New delegations must not orphan what is current: a role whose keys changed comes along signed by the new ones.
        for role in trust.roles_in(top.signed):
            data = self.role_bytes(role, present[role]) if role in present and role not in given else None
            if data is not None:
                trust.verify(top.signed, role, parse(data, Targets))

    def _seal(
        self, now: dt.datetime, root: Root, old_root: Root | None, given: Mapping[str, Metadata[Targets]], renew: bool, skip: int
    ) -> tuple[Metadata[Snapshot] | None, Metadata[Timestamp]]:
        """The next snapshot (None: the present one goes on) and timestamp, signed with the keys of both roots, so that both lead to them."""
        last_snapshot, last_timestamp = self.snapshot(), self.timestamp()
        snapshot: Metadata[Snapshot] | None = None
        if given or renew or last_snapshot is None or trust.missing(root, "snapshot", last_snapshot):
            body = Snapshot(
                version=last_snapshot.signed.version + 1 + skip if last_snapshot is not None else 1,
                expires=now + plan.period(self.name, "snapshot"),
                meta=dict(last_snapshot.signed.meta) if last_snapshot is not None else {},
            )
            body.meta.update({f"{role}.json": self._meta_file(role, metadata) for role, metadata in given.items()})
            snapshot = Metadata(body)
            self.sign_online(snapshot, root.roles.get("snapshot"), old_root.roles.get("snapshot") if old_root else None)
            self._require(root, "snapshot", snapshot)
        if snapshot is not None:
            version, content = snapshot.signed.version, snapshot.to_bytes()
        else:
            version = last_timestamp.signed.snapshot_meta.version if last_timestamp is not None else 1
            content = (self.metadata_dir / f"{version}.snapshot.json").read_bytes()
        timestamp = Metadata(
            Timestamp(
                version=last_timestamp.signed.version + 1 + skip if last_timestamp is not None else 1,
                expires=now + plan.period(self.name, "timestamp"),
                snapshot_meta=MetaFile.from_data(version, content, ["sha256"]),
                unrecognized_fields={CUSTOM_KEY: {"signed_ms": plan.milliseconds(now)}},
            )
        )
        self.sign_online(timestamp, root.roles.get("timestamp"), old_root.roles.get("timestamp") if old_root else None)
        self._require(root, "timestamp", timestamp)
        return snapshot, timestamp

    def _meta_file(self, role: str, metadata: Metadata[Targets]) -> MetaFile:
        # Hashes forbid two files of one version, which matters where people sign; for hundreds of roles of the server they would only cost bytes.
        if plan.is_offline(self.name, role):
            return MetaFile.from_data(metadata.signed.version, metadata.to_bytes(), ["sha256"])
        return MetaFile(metadata.signed.version)

    def _require(self, root: Root, role: str, metadata: Metadata[Any]) -> None:
        if trust.missing(root, role, metadata):
            raise UpdatesError("onlineKeyMissing", role=role)


def parse(data: bytes, kind: type[S]) -> Metadata[S]:
    """Metadata of one kind; UpdatesError for anything else."""
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except (DeserializationError, RepositoryError) as err:
        raise UpdatesError("unreadableMetadata") from err
    if not isinstance(metadata.signed, kind):
        raise UpdatesError("unreadableMetadata")
    return metadata


def hashed_path(target: TargetFile) -> str:
    folder, _, name = target.path.rpartition("/")
    return f"{folder}/{target.hashes['sha256']}.{name}" if folder else f"{target.hashes['sha256']}.{name}"


def signed_at(timestamp: Timestamp) -> dt.datetime | None:
    """When a timestamp of ours was signed, as it says itself (`kiosk-fleet.signed_ms`); None for one that does not."""
    ours = timestamp.unrecognized_fields.get(CUSTOM_KEY)
    at = ours.get("signed_ms") if isinstance(ours, dict) else None
    return plan.moment(at) if isinstance(at, int) else None
