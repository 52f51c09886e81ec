"""A real filesystem that loses power: ext4 or xfs on a loop device, stopped by the SHUTDOWN ioctl without flushing its log.

What was not synchronised is gone afterwards, as after pulling the plug: ext4(5) and xfs call it "shutdown", the request is FS_IOC_SHUTDOWN.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FS_IOC_SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32) of <linux/fs.h>."""
NO_LOG_FLUSH = 2
IMAGE_MIB = {"ext4": 64, "xfs": 320}
"""xfs refuses anything below 300 MiB."""


class NoPowerSwitch(Exception):
    """This machine cannot mount images; the message says what is missing."""


class PoweredDisk:
    """One mounted image."""

    def __init__(self, image: Path, mount: Path, kind: str) -> None:
        self._image, self.mount, self._kind = image, mount, kind

    def cut(self) -> None:
        """Lose power now: nothing reaches the platter any more. Whoever has files open there must end before `come_back`."""
        handle = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, FS_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def come_back(self) -> None:
        """Mounted again, with whatever the platter has."""
        _run("umount", str(self.mount))
        _mount(self._image, self.mount, self._kind)


@contextmanager
def powered_disk(folder: Path, kind: str) -> Iterator[PoweredDisk]:
    """A fresh filesystem of `kind` mounted below `folder`. NoPowerSwitch where that cannot be done."""
    if os.geteuid() != 0:
        raise NoPowerSwitch("mounting a disk image needs root")
    mkfs = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if mkfs is None:
        raise NoPowerSwitch(f"mkfs.{kind} is not installed")
    image, mount = folder / f"{kind}.img", folder / kind
    with image.open("wb") as file:
        file.truncate(IMAGE_MIB[kind] * 1024 * 1024)
    mount.mkdir()
    _run(mkfs, "-q", *(("-F",) if kind == "ext4" else ()), str(image))
    _mount(image, mount, kind)
    try:
        yield PoweredDisk(image, mount, kind)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)


def _mount(image: Path, mount: Path, kind: str) -> None:
    try:
        _run("mount", "-o", "loop", "-t", kind, str(image), str(mount))
    except subprocess.CalledProcessError as err:
        raise NoPowerSwitch(f"mounting {kind} on a loop device is not possible here: {err.stderr.strip()}") from err


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
