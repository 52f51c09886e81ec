"""A disk of a few megabytes that a test can fill to the last byte and empty again."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.together.power_cut import NoPowerSwitch, powered_disk

Kind = Literal["tmpfs", "ext4"]
BALLAST = "ballast"


class SmallDisk:
    def __init__(self, mount: Path) -> None:
        self.mount = mount

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Not a byte is left for anybody else but `leave_bytes`."""
        reserve = self.mount / "reserve"
        with reserve.open("wb") as file:
            file.write(os.urandom(leave_bytes))
            os.fsync(file.fileno())
        handle = os.open(self.mount / BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (4 * 1024 * 1024, 64 * 1024, 4096, 1):
                _write_until_full(handle, size)
        finally:
            os.close(handle)
        reserve.unlink()

    def empty(self) -> None:
        (self.mount / BALLAST).unlink()

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self.mount)
        return status.f_bavail * status.f_frsize


def _write_until_full(handle: int, size: int) -> None:
    """A short write means that it is full as well. What ext4 only promised so far is settled before the next, smaller size."""
    try:
        while os.write(handle, bytes(size)) == size:
            pass
        os.fsync(handle)
    except OSError as err:
        if err.errno != errno.ENOSPC:
            raise


@contextmanager
def small_disk(folder: Path, kind: Kind, *, mib: int) -> Iterator[SmallDisk]:
    """Mounted below `folder` while the context lasts. NoPowerSwitch where nothing can be mounted."""
    if kind == "ext4":
        with powered_disk(folder, "ext4") as disk:
            yield SmallDisk(disk.mount)
        return
    if os.geteuid() != 0:
        raise NoPowerSwitch("mounting a small disk needs root")
    mount = folder / "tmpfs"
    mount.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(mount)], check=True, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as err:
        raise NoPowerSwitch(f"mounting a tmpfs is not possible here: {err.stderr.strip()}") from err
    try:
        yield SmallDisk(mount)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)
