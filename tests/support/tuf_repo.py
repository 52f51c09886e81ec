"""A whole pair of update repositories for a test, made in well under a second, with keys at hand and a loopback server.

repo = TufRepo.create(tmp_path, terminals=["kiosk-0001"])
repo.release("agent", "agent/kiosk-1.1.0.tar", tar_bytes, version="1.1.0", release=2, arch="x86_64")
bundle = repo.assign("kiosk-0001", {"agent": "agent/kiosk-1.1.0.tar"})     # an `orders.Bundle` that fits
with repo.serve() as url:                                                  # http://127.0.0.1:<port>/updates/
    ...  # url + "image/metadata/", url + "image/targets/", url + "director/metadata/"; repo.roots["image"] is the trusted root
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, TargetFile

from fleet_server.updates import director, founding, packs, plan, store, trust
from fleet_server.updates.director import Assignment
from fleet_server.updates.founding import Founders, Holders
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from fleet_server.updates.serving import Files
from protocols.contract import artifacts, orders
from protocols.contract.artifacts import ImageCustom, PackedCustom


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def signers(count: int) -> list[CryptoSigner]:
    return [CryptoSigner.generate_ed25519() for _ in range(count)]


@dataclass
class TufRepo:
    """Keys of people by role in `offline`: root and targets 3 (2 must sign), firmware 3 (2 must sign), agent, image and profiles 1."""

    updates: Updates
    offline: dict[str, list[CryptoSigner]]
    clock_ms: Callable[[], int] = now_ms
    requests: list[str] = field(default_factory=list)
    """What was asked of `serve`: "GET /updates/…"."""

    @classmethod
    def create(cls, folder: Path, *, terminals: Sequence[str] = (), clock_ms: Callable[[], int] = now_ms) -> TufRepo:
        updates = Updates(UpdatesLayout(folder / "updates"))
        offline = {"root": signers(3), "targets": signers(3), "agent": signers(1), "firmware": signers(3)}
        offline |= {"image": signers(1), "profiles": signers(1)}
        repo = cls(updates, offline, clock_ms)
        repo._found()
        if terminals:
            director.set_assignments(updates, dict.fromkeys(terminals, ()), now_ms=clock_ms())
        return repo

    @property
    def roots(self) -> dict[str, str]:
        """The newest root of each repository, as enrolment hands it out."""
        return self.updates.roots()

    def holders(self, role: str, threshold: int) -> Holders:
        return Holders(tuple(signer.public_key for signer in self.offline[role]), threshold)

    def sign(self, metadata: Metadata[Any], role: str, count: int | None = None) -> Metadata[Any]:
        """By the first `count` of the role's keys; all of them by default."""
        metadata.signatures.clear()
        for signer in self.offline[role][:count]:
            metadata.sign(signer, append=True)
        return metadata

    def _found(self) -> None:
        now = plan.moment(self.clock_ms())
        founding.make_online_keys(self.updates)
        release = {role: self.holders(role, plan.RELEASE_THRESHOLDS[role]) for role in plan.RELEASE_ROLES}
        founders = Founders(root=self.holders("root", 2), targets=self.holders("targets", 2), release=release)
        for repository in self.updates.both():
            online = founding.online_keys(self.updates, repository.name)
            root = self.sign(Metadata(founding.first_root(repository.name, founders, online, now)), "root", 2)
            targets = Metadata(founding.first_targets(repository.name, founders, online, now))
            if repository.name == "image":
                self.sign(targets, "targets", 2)
            else:
                repository.sign_online(targets, root.signed.roles["targets"])
            with store.writing(self.updates.layout):
                repository.publish(now, root=root, roles={"targets": targets})
        with store.writing(self.updates.layout):
            founding.found_roles(self.updates, now)

    # Content ----------------------------------------------------------------------------------------------------------------------------

    def release(
        self,
        role: str,
        path: str,
        content: bytes | Path,
        *,
        version: str = "1.0.0",
        release: int = 1,
        arch: str = "any",
        custom: ImageCustom | PackedCustom | None = None,
        **more: Any,
    ) -> TargetFile:
        """Sign and publish one artifact of `role` with its keys, offline or the server's. `more`: members of `ImageCustom`."""
        now = plan.moment(self.clock_ms())
        described = custom or ImageCustom(component=role, version=version, release=release, arch=arch, **more)  # type: ignore[arg-type]
        image = self.updates.image
        with store.writing(self.updates.layout):
            staged = self.updates.layout.staging / f"test-{os.urandom(8).hex()}"
            staged.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
            target = TargetFile.from_file(path, str(staged))
            target.unrecognized_fields["custom"] = artifacts.to_custom(described)
            metadata = image.next_targets(role, now)
            metadata.signed.targets[path] = target
            if role in self.offline:
                self.sign(metadata, role, plan.RELEASE_THRESHOLDS[role])
            else:
                image.sign_online(metadata, trust.role_of(image.targets().signed, role))
            store.adopt(staged, image.file_of(target))
            image.publish(now, roles={role: metadata})
        return target

    def pack(
        self, artifact: Path, out: Path, *, version: str, role: str = "agent", path: str | None = None, **custom: Any
    ) -> Path:
        """A release pack as engineers sign it, for `intake.take` or the console's upload. `custom`: members of `ImageCustom`."""
        state = packs.read_state(packs.write_state(self.updates.image, role))
        described = ImageCustom(**{"component": role, "version": version, "release": 1, **custom})
        target = packs.describe(state, artifact, path or f"{role}/{artifact.name}", described, release=custom.get("release"))
        metadata = packs.prepare(state, [target], plan.moment(self.clock_ms()))
        self.sign(metadata, role, plan.RELEASE_THRESHOLDS[role])
        packs.write(out, role, metadata, {target.hashes["sha256"]: artifact})
        return out

    def assign(
        self, terminal: str, components: Mapping[str, str], *, bundle: bytes | None = None, downgrade: bool = False, **more: Any
    ) -> orders.Bundle:
        """Let the director describe these components (name → path in the image repository); returns the bundle that a desired state would hold."""
        number = bundle or os.urandom(16)
        wanted = [
            Assignment(bundle=number.hex(), component=component, target=path, downgrade=downgrade)
            for component, path in components.items()
        ]
        director.set_assignments(self.updates, {terminal: wanted}, now_ms=self.clock_ms())
        known = self.updates.image.known_targets()
        described = []
        for component, path in components.items():
            target = known[path][1]
            of = artifacts.of_custom(target.custom, ImageCustom)
            described.append(
                orders.Wanted(
                    component=component,
                    target=path,
                    version=of.version,
                    release=of.release,
                    length=target.length,
                    sha256=bytes.fromhex(target.hashes["sha256"]),
                )
            )
        return orders.Bundle(id=number, rollout=os.urandom(16), wanted=tuple(described), downgrade=downgrade, **more)

    # Serving ----------------------------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        """The server's own application over plain HTTP on loopback; the address ends in `/updates/`."""
        files = Files(self.updates.layout)

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            self.requests.append(f"{scope['method']} {scope['path']}")
            await files(scope, receive, send)

        with serving(watched) as address:
            yield f"{address}/updates/"
        files.close()


@contextlib.contextmanager
def serving(application: Any) -> Iterator[str]:
    """An ASGI application on a free loopback port, in a thread; yields http://127.0.0.1:<port>."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    server = uvicorn.Server(uvicorn.Config(application, lifespan="off", log_config=None, access_log=False, http="h11"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])), name="loopback", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
