"""A terminal as far as these tests need one: python-tuf's own client over real HTTP, with a memory on disk."""

from __future__ import annotations

from pathlib import Path

from tuf.api.metadata import TargetFile
from tuf.ngclient import Updater


class Client:
    """Each look is a client that starts anew and remembers what is in its folder, as a terminal does."""

    def __init__(self, folder: Path, url: str, repository: str, root: str) -> None:
        self._metadata, self._targets = folder / "metadata", folder / "targets"
        for path in (self._metadata, self._targets):
            path.mkdir(parents=True, exist_ok=True)
        self._base, self._root = f"{url}{repository}/", root.encode()

    def updater(self) -> Updater:
        return Updater(
            str(self._metadata), f"{self._base}metadata/", str(self._targets), f"{self._base}targets/", bootstrap=self._root
        )

    def refresh(self) -> None:
        """Raises what the client raises when metadata is not acceptable."""
        self.updater().refresh()

    def target(self, path: str) -> TargetFile | None:
        return self.updater().get_targetinfo(path)

    def fetch(self, path: str) -> bytes:
        updater = self.updater()
        found = updater.get_targetinfo(path)
        assert found is not None, f"{path} is not described"
        return Path(updater.download_target(found)).read_bytes()

    def version(self, role: str) -> int:
        """Of what the client has accepted."""
        from tuf.api.metadata import Metadata

        return int(Metadata.from_file(str(self._metadata / f"{role}.json")).signed.version)
