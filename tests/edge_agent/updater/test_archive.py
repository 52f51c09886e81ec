"""What a hostile archive tries, beside the same archive without the trick."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from pathlib import Path

import pytest

from edge_agent.updater import archive
from edge_agent.updater.archive import BadArchive, Limits
from tests.support.packages import entry, tar

pytestmark = pytest.mark.spec("U-203 U-301")

GOOD = [
    entry("bin", kind=tarfile.DIRTYPE, mode=0o755),
    entry("bin/edge-agent", b"#!/bin/sh\n", mode=0o755),
    entry("lib/a/data.txt", b"data", mode=0o600),
    entry("lib/a/link", kind=tarfile.SYMTYPE, link="data.txt"),
    entry("lib/up", kind=tarfile.SYMTYPE, link="../bin/edge-agent"),
]


def unpack(raw: bytes, folder: Path, limits: Limits | None = None) -> archive.Unpacked:
    path = folder / "image.tar"
    path.write_bytes(raw)
    sha256 = hashlib.sha256(raw).hexdigest()
    with archive.open_image(path) as image:
        archive.check(image, len(raw), sha256)
        return archive.unpack(image, folder / "tree", sha256=sha256, limits=limits or Limits())


def test_an_honest_archive_becomes_plain_files_of_ours(tmp_path: Path) -> None:
    out = unpack(tar(GOOD), tmp_path)
    tree = tmp_path / "tree"
    assert out.files == {"bin/edge-agent": 10, "lib/a/data.txt": 4}
    assert out.links == {"lib/a/link": "data.txt", "lib/up": "../bin/edge-agent"}
    assert out.folders == {"bin", "lib", "lib/a"}
    assert (tree / "lib/up").read_bytes() == b"#!/bin/sh\n"
    modes = {path: stat.S_IMODE((tree / path).stat().st_mode) for path in ("bin/edge-agent", "lib/a/data.txt", "lib/a")}
    assert modes == {"bin/edge-agent": 0o755, "lib/a/data.txt": 0o644, "lib/a": 0o755}
    assert (tree / "bin/edge-agent").stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_format_of_tar_is_read(tmp_path: Path, kind: int) -> None:
    long = "lib/" + "x" * 90 + "/" + "y" * 90 + ".txt"
    assert unpack(tar([*GOOD, entry(long, b"1")], kind), tmp_path).files[long] == 1


TRICKS: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str]] = {
    "goes up": ([entry("../evil", b"x")], "leaves its directory"),
    "goes up in the middle": ([entry("lib/../../evil", b"x")], "leaves its directory"),
    "absolute": ([entry("/tmp/evil", b"x")], "absolute"),
    "not plain": ([entry("./lib//evil", b"x")], "not plain"),
    "absolute link": ([entry("l", kind=tarfile.SYMTYPE, link="/etc/passwd")], "lead out"),
    "link up": ([entry("lib/l", kind=tarfile.SYMTYPE, link="../../etc/passwd")], "lead out"),
    "link up through a link": (
        [
            entry("p/q", kind=tarfile.DIRTYPE, mode=0o755),
            entry("p/q/top", kind=tarfile.SYMTYPE, link="../.."),
            entry("x", kind=tarfile.SYMTYPE, link="p/q/top/../secret"),
        ],
        "lead out",
    ),
    "empty link": ([entry("l", kind=tarfile.SYMTYPE, link="")], "lead out"),
    "file through a link": (
        [entry("l", kind=tarfile.SYMTYPE, link="bin"), entry("l/evil", b"x")],
        "goes through the link l",
    ),
    "file below a file": ([entry("f", b"x"), entry("f/evil", b"x")], "f is a file"),
    "over a link": ([entry("l", kind=tarfile.SYMTYPE, link="bin/edge-agent"), entry("l", b"x")], "comes twice"),
    "twice": ([entry("f", b"1"), entry("f", b"2")], "comes twice"),
    "over a directory": ([entry("bin", b"x")], "comes twice"),
    "hard link": ([entry("h", kind=tarfile.LNKTYPE, link="bin/edge-agent")], "hard link"),
    "hard link out": ([entry("h", kind=tarfile.LNKTYPE, link="/etc/shadow")], "hard link"),
    "character device": ([entry("d", kind=tarfile.CHRTYPE)], "neither a file"),
    "block device": ([entry("d", kind=tarfile.BLKTYPE)], "neither a file"),
    "pipe": ([entry("d", kind=tarfile.FIFOTYPE)], "neither a file"),
    "contiguous file": ([entry("d", kind=tarfile.CONTTYPE)], "neither a file"),
    "setuid": ([entry("s", b"x", mode=0o4755)], "set-id"),
    "setgid": ([entry("s", b"x", mode=0o2755)], "set-id"),
    "sticky directory": ([entry("s", kind=tarfile.DIRTYPE, mode=0o1777)], "sticky"),
    "control character": ([entry("a\nb", b"x")], "control character"),
    "backslash": ([entry("a\\b", b"x")], "backslash"),
    "long name": ([entry("n" * 201, b"x")], "too long"),
    "long path": ([entry("/".join(["p" * 50] * 9), b"x")], "its path is too long"),
    "deep": ([entry("/".join("d" * 30), b"x")], "too deep"),
    "our mark": ([entry(".complete", b"{}")], "updater uses"),
    "not UTF-8": ([entry("a\udcff", b"x")], "not UTF-8"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_trick_is_refused_with_its_reason(tmp_path: Path, trick: str) -> None:
    entries, words = TRICKS[trick]
    with pytest.raises(BadArchive, match=words) as refused:
        unpack(tar([*GOOD, *entries]), tmp_path)
    assert refused.value.reason == "badArchive"
    assert not (tmp_path / "evil").exists() and not (tmp_path.parent / "evil").exists()


def test_a_bomb_ends_at_the_signed_size(tmp_path: Path) -> None:
    raw = tar([*GOOD, entry("zeros", bytes(100_000))])
    with pytest.raises(BadArchive, match="more than 50000 bytes unpacked"):
        unpack(raw, tmp_path, Limits(unpacked_bytes=50_000))
    assert not (tmp_path / "tree/zeros").exists()


def test_a_flood_of_entries_ends_at_the_limit(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="more than 100 entries"):
        unpack(tar([*GOOD, *(entry(f"e/{at}") for at in range(200))]), tmp_path, Limits(files=100))


def test_directories_that_only_paths_name_count_too(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="more than 20 entries"):
        unpack(tar([entry(f"{at}/a/b/c/d/e") for at in range(10)]), tmp_path, Limits(files=20))


def test_a_huge_extended_header_is_not_read_into_memory(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="extended header"):
        unpack(tar([entry("x" * 100_000)], tarfile.PAX_FORMAT), tmp_path)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    whole = tar([*GOOD, entry("big", bytes(30_000))])
    with pytest.raises(BadArchive):
        unpack(whole[: len(whole) // 2], tmp_path)


def test_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="not a readable tar"):
        unpack(b"\x1f\x8b" + bytes(range(256)) * 20, tmp_path)


def test_compression_is_not_undone_here(tmp_path: Path) -> None:
    import gzip

    with pytest.raises(BadArchive, match="not a readable tar"):
        unpack(gzip.compress(tar(GOOD)), tmp_path)


def test_length_and_hash_are_checked_on_the_open_file(tmp_path: Path) -> None:
    raw = tar(GOOD)
    path = tmp_path / "image.tar"
    path.write_bytes(raw)
    sha256 = hashlib.sha256(raw).hexdigest()
    with archive.open_image(path) as image:
        archive.check(image, len(raw), sha256)
        with pytest.raises(BadArchive) as length:
            archive.check(image, len(raw) - 1, sha256)
        with pytest.raises(BadArchive) as digest:
            archive.check(image, len(raw), "0" * 64)
    assert (length.value.reason, digest.value.reason) == ("length", "hash")


def test_another_file_under_the_same_name_changes_nothing(tmp_path: Path) -> None:
    raw, path = tar(GOOD), tmp_path / "image.tar"
    path.write_bytes(raw)
    sha256 = hashlib.sha256(raw).hexdigest()
    with archive.open_image(path) as image:
        archive.check(image, len(raw), sha256)
        other = tmp_path / "other.tar"
        other.write_bytes(tar([entry("bin/edge-agent", b"evil", mode=0o755)]))
        other.replace(path)
        archive.unpack(image, tmp_path / "tree", sha256=sha256, limits=Limits())
    assert (tmp_path / "tree/bin/edge-agent").read_bytes() == b"#!/bin/sh\n"


def test_a_file_changed_in_place_between_check_and_use_is_refused(tmp_path: Path) -> None:
    raw, path = tar(GOOD), tmp_path / "image.tar"
    path.write_bytes(raw)
    sha256 = hashlib.sha256(raw).hexdigest()
    with archive.open_image(path) as image:
        archive.check(image, len(raw), sha256)
        with path.open("r+b") as file:
            file.seek(raw.index(b"data\0"))
            file.write(b"evil")
        with pytest.raises(BadArchive) as changed:
            archive.unpack(image, tmp_path / "tree", sha256=sha256, limits=Limits())
    assert changed.value.reason == "hash"


def test_an_image_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(tar(GOOD))
    (tmp_path / "link").symlink_to("image")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        archive.open_image(tmp_path / "link")
    with pytest.raises(BadArchive, match="not a plain file"):
        archive.open_image(tmp_path / "pipe")
    archive.open_image(tmp_path / "image").close()
