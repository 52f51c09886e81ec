"""The set of device profiles that is in use: those that came with the agent, the released set on top, the installer's own files above both.

A set that cannot be used never stops the agent: it is refused with path and reason, and what was in use stays.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from edge_agent.artifacts import verified
from edge_agent.artifacts.desk import Tell
from edge_agent.artifacts.kept import Kept
from edge_agent.artifacts.verified import ArtifactRefused
from edge_agent.updater.handover import AppliedOne, Artifact
from protocols.packages import profiles as package
from protocols.packages.profiles import PackageError
from protocols.profile.schema import Profile

log = logging.getLogger(__name__)


class ProfilesInstaller:
    """`shipped`: with the agent; `own`: the installer's files. `pinned`: ids that the configuration names. `on_change` gets all that count now."""

    def __init__(
        self,
        *,
        artifacts_dir: Path,
        folder: Path,
        shipped: Mapping[str, Profile],
        own: Mapping[str, Profile],
        pinned: Callable[[], frozenset[str]],
        on_change: Callable[[dict[str, Profile]], None],
    ) -> None:
        self._dir, self._shipped, self._own = artifacts_dir, shipped, own
        self._pinned, self._on_change = pinned, on_change
        self._kept = Kept(folder, max_bytes=package.PROFILES_MAX_BYTES)
        self.version: str | None = None
        """Of the released set in use."""

    def load(self) -> dict[str, Profile]:
        """What counts: the newest set on the disk that can be read."""
        for raw in self._kept.versions():
            try:
                found, released = package.decode(raw)
            except PackageError as err:
                log.error("the profile set on the disk cannot be used; the one before counts", extra={"reason": str(err)})
                continue
            self.version = found.version
            return self._merged(released)
        self.version = None
        return self._merged({})

    async def install(self, artifact: Artifact, tell: Tell) -> AppliedOne:
        raw = verified.read(self._dir, artifact, max_bytes=package.PROFILES_MAX_BYTES)
        try:
            found, released = package.decode(raw)
        except PackageError as err:
            raise ArtifactRefused("badArchive", str(err)) from None
        if found.version != artifact.version:
            raise ArtifactRefused("badArchive", "version: not the one that was signed")
        merged = self._merged(released)
        missing = self._pinned() - merged.keys()
        if missing:
            raise ArtifactRefused("configuration", f"the configuration names profile {min(missing)}, which would be gone")
        if self._kept.install(raw):
            self.version = found.version
            self._on_change(merged)
        return AppliedOne(component=artifact.component, state="done", version=artifact.version)

    async def revert(self, artifact: Artifact) -> AppliedOne:
        if self._kept.revert(artifact.sha256):
            self._on_change(self.load())
        return AppliedOne(component=artifact.component, state="done", version=self.version)

    def _merged(self, released: Mapping[str, Profile]) -> dict[str, Profile]:
        return {**self._shipped, **released, **self._own}
