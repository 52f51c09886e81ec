"""Release packages for tests: deterministic tars, tiny ones in shell for the installer, and hostile ones."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.updater.layout import About

TINY = """#!/bin/sh
case "$1" in
  selftest) {selftest} ;;
  *) {run} ;;
esac
"""


@dataclass(frozen=True)
class Package:
    """One image, as bytes, and what its metadata would say."""

    raw: bytes
    version: str
    release: int = 1

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def about(self) -> About:
        return About(version=self.version, release=self.release, sha256=self.sha256)

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.sha256}.tar"
        path.write_bytes(self.raw)
        return path


def entry(
    name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, link: str = "", size: int | None = None
) -> tuple[tarfile.TarInfo, bytes]:
    """One entry as its header would have it, however wrong."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, link
    info.size = len(data) if size is None else size
    return info, data


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.GNU_FORMAT) -> bytes:  # noqa: A002 -- tarfile's word
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def tiny(
    version: str,
    *,
    release: int = 1,
    run: str = "exec sleep 600",
    selftest: str | None = None,
    files: int = 2,
    padding: int = 100,
) -> Package:
    """A complete package in shell: `selftest` says its version, everything else runs `run`."""
    said = f"""echo '{{"version": "{version}"}}'""" if selftest is None else selftest
    script = TINY.format(selftest=said, run=run).encode()
    entries = [
        entry("bin", kind=tarfile.DIRTYPE, mode=0o755),
        entry("bin/edge-agent", script, mode=0o755),
        entry("lib", kind=tarfile.DIRTYPE, mode=0o755),
        *(entry(f"lib/part{at}.txt", f"{version} {at} ".encode() * (padding // 8)) for at in range(files)),
        entry("lib/current.txt", kind=tarfile.SYMTYPE, link="part0.txt"),
    ]
    return Package(tar(entries), version, release)
