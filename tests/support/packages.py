"""Release packages for tests: deterministic tars, tiny ones in shell for the installer, and hostile ones."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.updater.layout import About
from scripts import release as build

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


# --------------------------------------------------------------------------------------------------- the real agent, good and bad

HARMS = {
    "crashes": 'if "run" in sys.argv[1:2]: raise RuntimeError("this release is broken")\n',
    "hangs": 'if "run" in sys.argv[1:2]:\n    import time\n    while True: time.sleep(1)\n',
    "eats memory": 'if "run" in sys.argv[1:2]:\n    hoard = bytearray(b"x") * (400 << 20)\n',
    "does not load": "import edge_agent_of_another_world\n",
}
"""What a bad release does before its agent starts; all but the last pass their self-test."""
LOSES_ID_READER = "loses a peripheral"


def real(folder: Path, version: str, *, release: int = 1, harm: str | None = None) -> Package:
    """The agent of this checkout as a release without an interpreter, a few MB; with `harm` a bad one."""
    tree = folder / f"tree-{version}-{harm}"

    def alter(tree: Path) -> None:
        start = tree / "lib" / "start.py"
        if harm in HARMS:
            text = start.read_text("utf-8")
            assert "from edge_agent.cli" in text
            start.write_text(text.replace("from edge_agent.cli", f"{HARMS[harm]}from edge_agent.cli"), "utf-8")
        elif harm == LOSES_ID_READER:
            # A wrong line speed in this release's profile: as on copper, what arrives is garbage.
            profile = tree / "lib" / "app" / "firmware_profiles" / "id_readers" / "sdt-serial.toml"
            text = profile.read_text("utf-8")
            assert "115200" in text
            profile.write_text(text.replace("115200", "9600"), "utf-8")
        else:
            assert harm is None, harm

    build.make_tree(tree, version, with_interpreter=False, bytecode=True, alter=alter)
    out = folder / f"{version}-{harm}.tar"
    build.pack(tree, out)
    shutil.rmtree(tree)
    return Package(out.read_bytes(), version, release)
