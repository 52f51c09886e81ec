"""A small fleet made of keys: both update repositories, an order key, one terminal that wants an update, and a mirror in between.

Made with tuf.api alone and not with the server's code, so that it can also publish what our server never would. Whoever attacks in a test may use
what the attack gives him: the mirror's files, and the keys he has stolen, nothing else.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from ssl import SSLContext
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from edge_agent.updater import delta, fetch, trust
from edge_agent.updater.counters import Counters
from edge_agent.updater.download import Downloader
from edge_agent.updater.errors import UpdaterError
from edge_agent.updater.floor import TimeFloor, as_datetime
from protocols.contract import artifacts, certs, orders
from protocols.contract.artifacts import DirectorCustom, ImageCustom, PackedCustom
from protocols.contract.envelope import key_id
from tests.edge_agent.attacks.mirror import Mirror

NOW_MS = 1_790_000_000_000
DAY_MS = 24 * 3600 * 1000
FLEET = "test-city"
TERMINAL, OTHER = "kiosk-0001", "kiosk-0002"
ARCH = "x86_64"
PRINTER, READER = "printer-one", "reader-one"
THRESHOLDS = {"root": 2, "firmware": 2}
LIFETIMES_MS = {"timestamp": 9 * DAY_MS, "snapshot": 9 * DAY_MS, "root": 365 * DAY_MS}
TOP = ("root", "timestamp", "snapshot", "targets")
QUICK = fetch.Pace(connect_s=5, silence_s=0.8, window_s=0.4, min_bytes_s=2000, deadline_s=20)
QUICK_TARGETS = fetch.Pace(connect_s=5, silence_s=0.8, window_s=0.4, min_bytes_s=2000, deadline_s=None)
INSTALLED = "installed"


class OrderKey:
    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = self.private.public_key().public_bytes_raw()
        self.kid = key_id(self.public)

    def sign(self, data: bytes) -> bytes:
        return self.private.sign(data)


def signers(count: int = 1) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


class Repo:
    """One TUF repository. `keys` are all its keys; `publish` signs with them; what was published stays at the mirror."""

    def __init__(self, mirror: Mirror, name: str, roles: Mapping[str, Iterable[str]]) -> None:
        self.mirror, self.name = mirror, name
        self.now_ms = NOW_MS
        self.keys = {role: signers(3 if THRESHOLDS.get(role, 1) > 1 else 1) for role in (*TOP, *roles)}
        self.expires_ms: dict[str, int] = {}
        """Roles that end at another time than usual."""
        self.root = Metadata(Root(consistent_snapshot=True, roles={role: Role([], THRESHOLDS.get(role, 1)) for role in TOP}))
        self.timestamp = Metadata(Timestamp(version=1))
        self.snapshot = Metadata(Snapshot(version=1, meta={}))
        self.targets = {"targets": Metadata(Targets(version=1))}
        for role in TOP:
            for signer in self.keys[role]:
                self.root.signed.add_key(signer.public_key, role)
        delegations = Delegations({}, {})
        self.targets["targets"].signed.delegations = delegations
        for role, paths in roles.items():
            self.delegate(role, paths)
        self._made = False
        self.publish("root", *self.targets)
        self._made = True
        self.first_root = self.file("1.root.json")

    def delegate(self, role: str, paths: Iterable[str], *, to: str = "targets", terminating: bool = True) -> None:
        self.keys.setdefault(role, signers(3 if THRESHOLDS.get(role, 1) > 1 else 1))
        signed = self.targets[to].signed
        if signed.delegations is None:
            signed.delegations = Delegations({}, {})
        assert signed.delegations.roles is not None
        signed.delegations.roles[role] = DelegatedRole(role, [], THRESHOLDS.get(role, 1), terminating, list(paths))
        for signer in self.keys[role]:
            signed.add_key(signer.public_key, role)
        self.targets.setdefault(role, Metadata(Targets(version=1)))

    def md(self, role: str) -> Metadata[Any]:
        top: dict[str, Metadata[Any]] = {"root": self.root, "timestamp": self.timestamp, "snapshot": self.snapshot}
        return top.get(role) or self.targets[role]

    def publish(self, *roles: str, bump: bool = True) -> None:
        """New versions of these roles, then of snapshot and timestamp."""
        for role in roles:
            self._renew(role, bump=bump and self._made)
        if set(roles) - {"snapshot", "timestamp", "root"}:
            self._renew("snapshot", bump=bump and self._made)
        if set(roles) - {"timestamp", "root"}:
            self._renew("timestamp", bump=bump and self._made)

    def _renew(self, role: str, *, bump: bool) -> None:
        md = self.md(role)
        signed = md.signed
        if bump:
            signed.version += 1
        signed.expires = as_datetime(self.expires_ms.get(role, self.now_ms + LIFETIMES_MS.get(role, 90 * DAY_MS))).replace(
            microsecond=0
        )
        if role == "snapshot":
            signed.meta = {f"{name}.json": self._meta(name) for name in self.targets}
        if role == "timestamp":
            signed.snapshot_meta = self._meta("snapshot")
            signed.unrecognized_fields["kiosk-fleet"] = {"signed_ms": self.now_ms}
        self.put(role, sign(md, self.keys[role]))

    def _meta(self, role: str) -> MetaFile:
        version = self.md(role).signed.version
        return MetaFile.from_data(version, self.file(f"{version}.{role}.json"), ["sha256"])

    def put(self, role: str, data: bytes) -> None:
        """What the mirror gives as the present version of `role`."""
        version = Metadata.from_bytes(data).signed.version
        self.set_file("timestamp.json" if role == "timestamp" else f"{version}.{role}.json", data)

    def key(self, name: str) -> str:
        return f"/updates/{self.name}/metadata/{name}"

    def file(self, name: str) -> bytes:
        found = self.mirror.files[self.key(name)]
        assert isinstance(found, bytes)
        return found

    def set_file(self, name: str, data: Any) -> None:
        self.mirror.files[self.key(name)] = data

    def newest(self, role: str) -> str:
        """Name of the file that a client asks for to get the present version of `role`."""
        return "timestamp.json" if role == "timestamp" else f"{self.md(role).signed.version}.{role}.json"

    def add(self, role: str, path: str, data: bytes, custom: Any, *, described: bytes | None = None) -> TargetFile:
        """Describe a target in `role` and lay it at the mirror. `described`: what the metadata say, where it is something else."""
        target = TargetFile.from_data(path, data if described is None else described, ["sha256"])
        if custom is not None:
            target.unrecognized_fields["custom"] = artifacts.to_custom(custom)
        self.targets[role].signed.targets[path] = target
        self.mirror.files[self.target_key(target)] = data
        return target

    def target_key(self, target: TargetFile) -> str:
        folder, slash, name = target.path.rpartition("/")
        return f"/updates/{self.name}/targets/{folder}{slash}{target.hashes['sha256']}.{name}"

    def rotate(self, role: str, new: list[CryptoSigner] | None = None, *, threshold: int | None = None) -> None:
        """New keys for a top-level role, by a new root that the old and the new root keys sign."""
        old_root_keys = self.keys["root"]
        replaced = new or signers(len(self.keys[role]))
        entry = self.root.signed.roles[role]
        for keyid in list(entry.keyids):
            self.root.signed.revoke_key(keyid, role)
        for signer in replaced:
            self.root.signed.add_key(signer.public_key, role)
        if threshold is not None:
            entry.threshold = threshold
        self.keys[role] = replaced
        self.root.signed.version += 1
        self.root.signed.expires = as_datetime(self.now_ms + LIFETIMES_MS["root"]).replace(microsecond=0)
        both = {signer.public_key.keyid: signer for signer in (*old_root_keys, *self.keys["root"])}
        self.put("root", sign(self.root, list(both.values())))


def sign(md: Metadata[Any], keys: Iterable[CryptoSigner]) -> bytes:
    md.signatures.clear()
    for signer in keys:
        md.sign(signer, append=True)
    return md.to_bytes(JSONSerializer())


def forged(md: Metadata[Any], keys: Iterable[CryptoSigner], **changes: Any) -> bytes:
    """A changed copy, signed with these keys; the original stays as it is."""
    made = copy.deepcopy(md)
    for name, value in changes.items():
        setattr(made.signed, name, value)
    return sign(made, keys)


@dataclass
class World:
    folder: Path
    mirror: Mirror
    now_ms: int = NOW_MS
    """The terminal's clock; the server's stays right."""
    pace: fetch.Pace = QUICK
    image: Repo = field(init=False)
    director: Repo = field(init=False)
    desired: bytes = field(init=False, default=b"")
    running: bytes = b""
    """What is installed at the terminal."""
    units: dict[str, str] | None = field(default_factory=lambda: {"receipt-printer": PRINTER, "id-reader": READER})
    counter: int = 0
    last: Any = None
    """What the terminal's last look led to: a Plan, a Refused or an UpdaterError."""
    got: delta.Got | None = None
    bases: dict[str, delta.Base] = field(default_factory=dict)
    tls: SSLContext | None = None
    """How the terminal trusts its server; None: plain HTTP."""
    copies: list[Path] = field(default_factory=list)
    """Where the counters are kept besides."""

    def __post_init__(self) -> None:
        self.root = OrderKey()
        self.order_key = OrderKey()
        self.certificates = [self.certificate(self.order_key)]
        self.image = Repo(self.mirror, "image", artifacts.IMAGE_ROLES)
        roles = {artifacts.director_role(each): artifacts.director_paths(each) for each in (TERMINAL, OTHER)}
        self.director = Repo(self.mirror, "director", roles)
        self.roots = trust.Roots(self.image.first_root, self.director.first_root)
        self.state = self.folder / "state"
        self.state.mkdir()

    # The rightful parties -----------------------------------------------------------------------------------------------------------

    def certificate(self, key: OrderKey, *, by: OrderKey | None = None, fleet: str = FLEET) -> bytes:
        cert = certs.OrderKeyCert(kid=key.kid, public_key=key.public, issued_ms=NOW_MS)
        return certs.seal_order_key_cert(cert, by or self.root, fleet)

    def release(self, number: int, *, component: str = "agent", content: bytes | None = None, **custom: Any) -> orders.Wanted:
        """The release engineer signs release `number` of a component; returns how a bundle names it."""
        kind, _, rest = component.partition("/")
        data = content if content is not None else tar({"bin/agent": f"{component} {number} ".encode() * 400})
        path = f"{kind}/{rest + '/' if rest else ''}{kind}-{number}.0.tar"
        if kind == "firmware":
            custom.setdefault("hardware", (PRINTER,))
        described = ImageCustom(component=kind, version=f"{number}.0", release=number, **{"arch": ARCH, **custom})  # type: ignore[arg-type]
        target = self.image.add(kind, path, data, described)
        self.image.publish(kind)
        return wanted(component, target, described)

    def assign(
        self, *wants: orders.Wanted, bundle: bytes = b"\1" * 16, downgrade: bool = False, to: str = TERMINAL, **changes: Any
    ) -> None:
        """The director gives `to` these components and nothing else."""
        role = artifacts.director_role(to)
        self.director.targets[role].signed.targets.clear()
        for want in wants:
            self.direct(want, size=len(wants), bundle=bundle, downgrade=downgrade, to=to, **changes)
        self.director.publish(role)

    def direct(
        self, want: orders.Wanted, *, size: int, bundle: bytes, downgrade: bool = False, to: str = TERMINAL, **changes: Any
    ) -> None:
        fields = {
            "bundle": bundle.hex(),
            "size": size,
            "component": want.component,
            "target": want.target,
            "version": want.version,
            "release": want.release,
            "downgrade": downgrade,
            **changes,
        }
        path = artifacts.director_path(to, want.component)
        target = TargetFile(want.length, {"sha256": want.sha256.hex()}, path)
        target.unrecognized_fields["custom"] = artifacts.to_custom(DirectorCustom(**fields))
        self.director.targets[artifacts.director_role(to)].signed.targets[path] = target

    def want(
        self,
        *wants: orders.Wanted,
        bundle: bytes = b"\1" * 16,
        key: OrderKey | None = None,
        to: str = TERMINAL,
        fleet: str = FLEET,
        approved_by: str | None = "wang",
        counter: int | None = None,
        issued_ms: int | None = None,
        **changes: Any,
    ) -> bytes:
        """The signed desired state, as the terminal's next one."""
        self.counter = counter if counter is not None else self.counter + 1
        desired = orders.Desired(
            counter=self.counter,
            issued_ms=self.image.now_ms if issued_ms is None else issued_ms,
            by="li",
            approved_by=approved_by,
            bundle=orders.Bundle(id=bundle, rollout=b"\2" * 16, wanted=wants, **changes),
        )
        self.desired = orders.seal_desired(desired, key or self.order_key, fleet, to)
        return self.desired

    def order(self, *wants: orders.Wanted, downgrade: bool = False, bundle: bytes = b"\1" * 16) -> None:
        """What a rollout does: director and desired state say the same."""
        self.assign(*wants, bundle=bundle, downgrade=downgrade)
        self.want(*wants, bundle=bundle, downgrade=downgrade)

    def pack(
        self, want: orders.Wanted, packed: bytes, base: bytes | None = None, *, describes: bytes | None = None
    ) -> TargetFile:
        """The server lays a packed form of an image beside it."""
        to = want.sha256.hex()
        path = artifacts.packed_path(to, base.hex() if base else None)
        target = self.image.add(
            "packed", path, packed, PackedCustom(to=to, base=base.hex() if base else None), described=describes
        )
        self.image.publish("packed")
        return target

    def pass_days(self, days: float, *, publish: bool = True) -> None:
        """Time goes by for everybody; the server renews what it renews by itself."""
        self.now_ms += round(days * DAY_MS)
        for repo in (self.image, self.director):
            repo.now_ms = self.now_ms
            if publish:
                repo.publish("targets", *[role for role in repo.targets if role != "targets"])

    # The terminal -------------------------------------------------------------------------------------------------------------------

    def fetcher(self) -> fetch.Fetcher:
        return fetch.Fetcher(fetch.Origin.of(self.mirror.url), tls=self.tls, pace=self.pace)

    def parts(self) -> tuple[TimeFloor, Counters]:
        return TimeFloor(self.state / "floor.json"), Counters(self.state / "counters.json", *self.copies)

    def update(self) -> str:
        """One run of the updater, from the desired state that lies there to the installed image: `installed`, or the word for why not."""
        floor, counters = self.parts()
        fetcher = self.fetcher()
        try:
            desired = trust.open_desired(
                self.desired, self.certificates, root=self.root.private.public_key(), fleet=FLEET, terminal=TERMINAL
            )
            counters.accept_desired(desired.counter, self.desired)
            floor.hear_server(desired.counter, desired.issued_ms)
            assert desired.bundle is not None
            looker = trust.Trust(
                self.state / "tuf", base_url=self.mirror.url, roots=self.roots, fetcher=fetcher, floor=floor, counters=counters
            )
            terminal = trust.Terminal(TERMINAL, ARCH, self.units)
            self.last = looker.look(desired.bundle, terminal, system_ms=self.now_ms, bases=delta.bases(self.bases))
            if isinstance(self.last, trust.Refused):
                return self.last.reason
            downloader = Downloader(
                self.state / "images", fetcher, pace=QUICK_TARGETS, reserve_bytes=0, sleep=lambda seconds: None
            )
            images = []
            for component in self.last.components:
                self.got = delta.obtain(component, downloader, base=self.bases.get(component.wanted.component))
                images.append((component, self.got.path.read_bytes()))
            for component, data in images:  # all of it or nothing
                assert hashlib.sha256(data).digest() == component.wanted.sha256
                counters.installed(component.wanted.component, component.wanted.release, lowers=component.lowers)
                if component.wanted.component == "agent":
                    self.running = data
        except UpdaterError as err:
            self.last = err
            return err.reason
        finally:
            fetcher.close()
        return INSTALLED

    def image_at(self, want: orders.Wanted) -> delta.Base:
        """The image of a component that was installed, to start a difference from."""
        return delta.Base(self.state / "images" / want.sha256.hex(), want.length, want.sha256)


def wanted(component: str, target: TargetFile, custom: ImageCustom) -> orders.Wanted:
    return orders.Wanted(
        component=component,
        target=target.path,
        version=custom.version,
        release=custom.release,
        length=target.length,
        sha256=bytes.fromhex(target.hashes["sha256"]),
    )


def tar(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def when(ms: int) -> datetime.datetime:
    return as_datetime(ms).replace(microsecond=0)
