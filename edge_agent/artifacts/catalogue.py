"""Which service items the terminal offers. Who lists them: the installer's file, else the signed configuration, else the released catalogue.

Names come from the catalogue. What the catalogue switches off is offered nowhere, whoever lists it: a service that was withdrawn is withdrawn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_agent.artifacts import verified
from edge_agent.artifacts.desk import Tell
from edge_agent.artifacts.kept import Kept
from edge_agent.artifacts.verified import ArtifactRefused
from edge_agent.config import ItemEntry
from edge_agent.updater.handover import AppliedOne, Artifact
from protocols.packages import catalogue as package
from protocols.packages.catalogue import Catalogue, Item
from protocols.packages.profiles import PackageError

log = logging.getLogger(__name__)


def offered(listed: Sequence[ItemEntry], catalogue: Catalogue | None) -> tuple[Item, ...]:
    """The items that can be used here. `listed`: of file or signed configuration, empty where both are silent."""
    if catalogue is None:
        return tuple(Item(code=entry.code, type=entry.type, zh=entry.code, en=entry.code) for entry in listed)
    if not listed:
        return catalogue.on()
    named, off = {item.code: item for item in catalogue.items}, catalogue.off()
    return tuple(
        Item(code=entry.code, type=entry.type, zh=name.zh, en=name.en)
        if (name := named.get(entry.code)) is not None
        else Item(code=entry.code, type=entry.type, zh=entry.code, en=entry.code)
        for entry in listed
        if entry.code not in off
    )


class CatalogueInstaller:
    """`on_change` gets the catalogue that counts now, None for none."""

    def __init__(self, *, artifacts_dir: Path, folder: Path, on_change: Callable[[Catalogue | None], None]) -> None:
        self._dir, self._on_change = artifacts_dir, on_change
        self._kept = Kept(folder, max_bytes=package.CATALOGUE_MAX_BYTES)

    def load(self) -> Catalogue | None:
        for raw in self._kept.versions():
            try:
                return package.decode(raw)
            except PackageError as err:
                log.error("the catalogue on the disk cannot be used; the one before counts", extra={"reason": str(err)})
        return None

    async def install(self, artifact: Artifact, tell: Tell) -> AppliedOne:
        raw = verified.read(self._dir, artifact, max_bytes=package.CATALOGUE_MAX_BYTES)
        try:
            catalogue = package.decode(raw)
        except PackageError as err:
            raise ArtifactRefused("badArchive", str(err)) from None
        if catalogue.version != artifact.version:
            raise ArtifactRefused("badArchive", "version: not the one that was signed")
        if self._kept.install(raw):
            self._on_change(catalogue)
        return AppliedOne(component=artifact.component, state="done", version=artifact.version)

    async def revert(self, artifact: Artifact) -> AppliedOne:
        if self._kept.revert(artifact.sha256):
            self._on_change(self.load())
        held = self.load()
        return AppliedOne(component=artifact.component, state="done", version=None if held is None else held.version)
