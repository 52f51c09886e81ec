"""The repositories in a backup, and after a restore: terminals have seen versions that a restored server does not know, and take nothing older."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fleet_server.updates import duty, store
from fleet_server.updates.layout import UpdatesLayout

SKIP = 1_000_000
"""Versions that a server may have published between a backup and the day of its restore; one a second for eleven days."""


def copy_for_backup(layout: UpdatesLayout, folder: Path) -> dict[str, Path]:
    """Everything of one moment, below `folder`, by name in the archive (`updates/…`). Files are replaced, never written, so links do."""
    if not layout.exists:
        return {}
    found: dict[str, Path] = {}
    with store.writing(layout):
        for source in sorted(layout.root.rglob("*")):
            below = source.relative_to(layout.root)
            if not source.is_file() or source.is_symlink() or below.parts[0] in (layout.staging.name, layout.lock.name):
                continue
            copy = folder / below
            copy.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, copy)
            except OSError:  # the archive is written to another file system
                shutil.copyfile(source, copy)
            found[f"updates/{below}"] = copy
    return found


def after_restore(layout: UpdatesLayout, now_ms: int) -> list[str]:
    """Lead what the server signs beyond every version that terminals may hold. What people signed after the backup has to be uploaded again."""
    return duty.renew_all(layout, now_ms, skip=SKIP) if layout.exists else []
