"""How files get into a repository: written beside, synced, renamed; the timestamp last; one writer at a time.

Versioned metadata and hash-named targets are invisible until a timestamp leads to them, so a crash before that leaves nothing but unused files.
A new root is seen as soon as it lies there; where it and the timestamp belong together, both go through a journal and are repeated after a crash.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fleet_server.updates.errors import Busy
from fleet_server.updates.layout import UpdatesLayout

LOCK_WITHIN_S = 60.0
SYNC_THREADS = 16
"""File systems gather the syncs of several threads into one write of their journal."""
COPY_BYTES = 1 << 20


@contextlib.contextmanager
def writing(layout: UpdatesLayout, within_s: float = LOCK_WITHIN_S) -> Iterator[None]:
    """The right to change the repositories, for one process at a time; ends what a crash has left half done. Raises Busy."""
    layout.make()
    descriptor = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(descriptor, within_s)
        recover(layout)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, within_s: float) -> None:
    end_s = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end_s:
                raise Busy("busy") from None
            time.sleep(0.05)
        else:
            return


def recover(layout: UpdatesLayout) -> bool:
    """Finish a publication that was cut off after its point of no return. Needs the lock. True if there was one."""
    for left in layout.staging.glob("write-*"):
        left.unlink(missing_ok=True)
    if not layout.journal.exists():
        return False
    entries = json.loads(layout.journal.read_bytes())
    for entry in entries:
        replace(layout, layout.root / entry["path"], base64.b64decode(entry["data"]))
    layout.journal.unlink()
    sync_folder(layout.root)
    return True


def replace(layout: UpdatesLayout, path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """After a crash at any point `path` holds the old bytes or the new ones."""
    building = _written(layout, data, mode)
    building.replace(path)
    sync_folder(path.parent)


def add(layout: UpdatesLayout, files: Mapping[Path, bytes]) -> None:
    """Many files that nothing leads to yet: each whole, all of them on the disk when this returns."""
    if not files:
        return

    def write(item: tuple[Path, bytes]) -> None:
        _written(layout, item[1], 0o644).replace(item[0])

    if len(files) < SYNC_THREADS:
        for item in files.items():
            write(item)
    else:
        with ThreadPoolExecutor(SYNC_THREADS) as threads:
            for _ in threads.map(write, files.items()):
                pass
    for folder in {path.parent for path in files}:
        sync_folder(folder)


def together(layout: UpdatesLayout, files: Sequence[tuple[Path, bytes]]) -> None:
    """Replace several files in this order: after a crash either none or, once somebody has taken the lock again, all."""
    entries = [{"path": str(path.relative_to(layout.root)), "data": base64.b64encode(data).decode()} for path, data in files]
    replace(layout, layout.journal, json.dumps(entries).encode(), mode=0o600)
    for path, data in files:
        replace(layout, path, data)
    layout.journal.unlink()
    sync_folder(layout.root)


def adopt(source: Path, path: Path) -> None:
    """Move a file of `staging`, already checked, to its place below `public`."""
    sync_file(source)
    made = [folder for folder in (path.parent, path.parent.parent, path.parent.parent.parent) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    source.chmod(0o644)
    source.replace(path)
    for folder in {path.parent, *(folder.parent for folder in made)}:
        sync_folder(folder)


def staged_copy(layout: UpdatesLayout, source: Path) -> tuple[Path, int, str]:
    """A copy in `staging`, with its length and SHA-256: what is checked must not change under us."""
    target = layout.staging / f"copy-{secrets.token_hex(8)}"
    digest, length = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("xb") as building:
        while part := reading.read(COPY_BYTES):
            digest.update(part)
            length += len(part)
            building.write(part)
    return target, length, digest.hexdigest()


def staging_folder(layout: UpdatesLayout, older_than_s: float = 86_400) -> Path:
    """A new private folder in `staging`; folders and copies of processes that died long ago are cleared away."""
    layout.make()
    before_s = time.time() - older_than_s
    for left in layout.staging.iterdir():
        with contextlib.suppress(OSError):
            if left.stat().st_mtime < before_s:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    folder = layout.staging / f"work-{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    return folder


def _written(layout: UpdatesLayout, data: bytes, mode: int) -> Path:
    building = layout.staging / f"write-{secrets.token_hex(8)}"
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return building


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    sync_file(folder)
