"""Where the update repositories lie in the data directory. Only `public` is served; keys and drafts lie beside it, never below."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

RepositoryName = Literal["image", "director"]
REPOSITORIES: tuple[RepositoryName, ...] = ("image", "director")


class UpdatesLayout(msgspec.Struct, frozen=True):
    root: Path

    @property
    def public(self) -> Path:
        return self.root / "public"

    @property
    def keys(self) -> Path:
        """Online keys, one PEM file for each, named by key id."""
        return self.root / "keys"

    @property
    def drafts(self) -> Path:
        """Metadata that waits for the signatures of people."""
        return self.root / "drafts"

    @property
    def staging(self) -> Path:
        """What is being written or checked; on the same file system as `public`. Worthless after a restart."""
        return self.root / "staging"

    @property
    def journal(self) -> Path:
        """The end of a publication of a new root, repeated after a crash."""
        return self.root / "journal.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def metadata(self, repository: RepositoryName) -> Path:
        return self.public / repository / "metadata"

    def targets(self, repository: RepositoryName) -> Path:
        return self.public / repository / "targets"

    @property
    def exists(self) -> bool:
        return self.keys.is_dir()

    def make(self) -> None:
        """Create what is missing; nobody else may look into it."""
        folders = [self.root, self.keys, self.drafts, self.staging]
        folders += [folder(name) for name in REPOSITORIES for folder in (self.metadata, self.targets)]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.keys.chmod(0o700)
