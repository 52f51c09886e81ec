"""One small artifact on the disk, and the one before it. Each file is replaced whole; a cut leaves the old state or the new."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edge_agent import files
from edge_agent.updater.handover import read_bounded


class Kept:
    """`current` and `previous` in `folder`. Raises OSError if the disk does."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._current, self._previous = folder / "current.json", folder / "previous.json"

    def versions(self) -> tuple[bytes, ...]:
        """What is there, the newest first."""
        found = (read_bounded(path, self._max_bytes) for path in (self._current, self._previous))
        return tuple(raw for raw in found if raw is not None)

    def install(self, raw: bytes) -> bool:
        """False if it is there already."""
        self._folder.mkdir(parents=True, exist_ok=True)
        held = read_bounded(self._current, self._max_bytes)
        if held == raw:
            return False
        if held is not None:
            files.write_atomically(self._previous, held)
        files.write_atomically(self._current, raw)
        return True

    def revert(self, sha256: str) -> bool:
        """Back to the one before, if what is in use has this hash. False: nothing to do."""
        held = read_bounded(self._current, self._max_bytes)
        if held is None or hashlib.sha256(held).hexdigest() != sha256:
            return False
        before = read_bounded(self._previous, self._max_bytes)
        if before is None or before == held:
            self._current.unlink()
        else:
            files.write_atomically(self._current, before)
        self._previous.unlink(missing_ok=True)
        return True
