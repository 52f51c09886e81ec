"""Archives that no release holds: for each a name, what makes it, and the honest archive that differs in nothing else."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

Entry = tuple[tarfile.TarInfo, bytes]


def entry(
    name: str,
    data: bytes = b"content",
    *,
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
    size: int | None = None,
) -> Entry:
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode = kind, link, mode
    made.size = (len(data) if kind == tarfile.REGTYPE else 0) if size is None else size
    return made, data


def archive(entries: Iterable[Entry], *, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for made, data in entries:
            tar.addfile(made, io.BytesIO(data) if made.isreg() else None)
    return out.getvalue()


@dataclass(frozen=True)
class Hostile:
    make: Callable[[], bytes]
    honest: Callable[[], bytes]


def _one(bad: Callable[[], list[Entry]], good: Callable[[], list[Entry]] = lambda: [entry("lib/a")]) -> Hostile:
    return Hostile(lambda: archive(bad()), lambda: archive(good()))


def _raw_size(size: int) -> bytes:
    """A header that promises `size` bytes which are not there."""
    made, _ = entry("big", b"", size=size)
    return made.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024


MAX_FILES = 50
MAX_BYTES = 1_000_000
NAME, LONG = "lib/a", "n" * 201

HOSTILE: dict[str, Hostile] = {
    "path-traversal": _one(lambda: [entry("../outside")]),
    "path-traversal-in-the-middle": _one(lambda: [entry("lib/../../outside")]),
    "path-traversal-by-a-directory": _one(lambda: [entry("..", kind=tarfile.DIRTYPE)]),
    "absolute-name": _one(lambda: [entry("/outside")]),
    "absolute-name-with-two-slashes": _one(lambda: [entry("//outside")]),
    "empty-name": _one(lambda: [entry("")]),
    "dot-name": _one(lambda: [entry("./lib/./a")]),
    "backslash-name": _one(lambda: [entry("..\\outside")]),
    "control-character-in-a-name": _one(lambda: [entry("lib/a\x1b[2J")]),
    "newline-in-a-name": _one(lambda: [entry("lib/a\nb")]),
    "symlink-to-an-absolute-path": _one(
        lambda: [entry("link", kind=tarfile.SYMTYPE, link="/etc/passwd")],
        lambda: [entry(NAME), entry("link", kind=tarfile.SYMTYPE, link=NAME)],
    ),
    "symlink-out-of-the-tree": _one(
        lambda: [entry("lib/link", kind=tarfile.SYMTYPE, link="../../outside")],
        lambda: [entry("lib/link", kind=tarfile.SYMTYPE, link="../a"), entry("a")],
    ),
    "symlink-out-of-the-tree-through-another": _one(
        lambda: [
            entry("one", kind=tarfile.SYMTYPE, link="lib/deep"),
            entry("two", kind=tarfile.SYMTYPE, link="one/../../../outside"),
        ]
    ),
    "write-through-a-symlink": _one(
        lambda: [entry("link", kind=tarfile.SYMTYPE, link="lib"), entry("link/a")],
        lambda: [entry("link", kind=tarfile.SYMTYPE, link="lib"), entry(NAME)],
    ),
    "file-in-the-place-of-a-symlink": _one(lambda: [entry("a", kind=tarfile.SYMTYPE, link="b"), entry("a")]),
    "hard-link": _one(lambda: [entry(NAME), entry("link", kind=tarfile.LNKTYPE, link=NAME)]),
    "hard-link-to-a-system-file": _one(lambda: [entry("link", kind=tarfile.LNKTYPE, link="/etc/shadow")]),
    "character-device": _one(lambda: [entry("null", kind=tarfile.CHRTYPE)]),
    "block-device": _one(lambda: [entry("disk", kind=tarfile.BLKTYPE)]),
    "fifo": _one(lambda: [entry("pipe", kind=tarfile.FIFOTYPE)]),
    "unknown-kind-of-entry": _one(lambda: [entry("odd", kind=b"Z")]),
    "setuid": _one(lambda: [entry("bin/su", mode=0o4755)], lambda: [entry("bin/su", mode=0o755)]),
    "setgid": _one(lambda: [entry("bin/su", mode=0o2755)], lambda: [entry("bin/su", mode=0o755)]),
    "sticky-directory": _one(
        lambda: [entry("tmp", kind=tarfile.DIRTYPE, mode=0o1777)], lambda: [entry("tmp", kind=tarfile.DIRTYPE, mode=0o755)]
    ),
    "duplicate-names": _one(lambda: [entry(NAME), entry(NAME, b"other")]),
    "file-under-a-file": _one(lambda: [entry("a"), entry("a/b")]),
    "directory-over-a-file": _one(lambda: [entry("a"), entry("a", kind=tarfile.DIRTYPE)]),
    "too-many-files": _one(
        lambda: [entry(f"f{number}") for number in range(MAX_FILES + 1)],
        lambda: [entry(f"f{number}") for number in range(MAX_FILES)],
    ),
    "too-many-directories-in-paths": _one(
        lambda: [entry(f"{each}/{'/'.join(f'd{number}' for number in range(21))}/a") for each in "abc"],
        lambda: [entry(f"{each}/{'/'.join(f'd{number}' for number in range(21))}/a") for each in "ab"],
    ),
    "too-deep": _one(lambda: [entry("/".join("d" * 40))], lambda: [entry("/".join("d" * 20))]),
    "long-name": _one(lambda: [entry(LONG)], lambda: [entry(LONG[:-1])]),
    "long-path": _one(lambda: [entry("/".join(["p" * 100] * 5))], lambda: [entry("/".join(["p" * 100] * 3))]),
    "huge-extended-header": _one(lambda: [entry("n" * 200_000)]),
    "more-bytes-than-signed": _one(lambda: [entry("a", b"x" * (MAX_BYTES + 1))], lambda: [entry("a", b"x" * MAX_BYTES)]),
    "more-bytes-than-signed-in-many-files": _one(lambda: [entry(f"f{number}", b"x" * 100_000) for number in range(11)]),
    "size-of-a-terabyte-in-the-header": Hostile(lambda: _raw_size(2**40), lambda: archive([entry("a")])),
    "cut-off": Hostile(lambda: archive([entry("a", b"x" * 9000)])[:4000], lambda: archive([entry("a", b"x" * 9000)])),
    "not-an-archive": Hostile(lambda: b"#!/bin/sh\n" * 500, lambda: archive([entry("a")])),
}
