"""An archive that is rightly signed can still be hostile, when a release key or a build machine was stolen. Each beside its honest twin."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from edge_agent.updater import archive, verified
from edge_agent.updater.errors import NotTrusted
from tests.edge_agent.attacks.hostile_archives import HOSTILE, MAX_BYTES, MAX_FILES

pytestmark = pytest.mark.spec("U-203 U-301")

LIMITS = archive.Limits(files=MAX_FILES, unpacked_bytes=MAX_BYTES)


def unpack(folder: Path, data: bytes) -> archive.Unpacked:
    folder.mkdir()
    image = folder / "image.tar"
    image.write_bytes(data)
    digest = hashlib.sha256(data).digest()
    with verified.open_verified(image, len(data), digest) as file:
        return archive.unpack(file, folder / "tree", sha256=digest.hex(), limits=LIMITS)


@pytest.mark.parametrize("attack", HOSTILE)
def test_hostile_archive(tmp_path: Path, attack: str) -> None:
    """Nothing outside the tree is written, nothing but plain files, directories and inner links is made, and the archive is refused."""
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path / "hostile", HOSTILE[attack].make())
    assert caught.value.reason == "badArchive"
    assert sorted(path.name for path in (tmp_path / "hostile").iterdir()) == ["image.tar", "tree"]
    assert [path.name for path in tmp_path.iterdir()] == ["hostile"]
    for path in (tmp_path / "hostile" / "tree").rglob("*"):
        status = path.lstat()
        assert status.st_nlink == 1 or path.is_dir()
        assert path.is_symlink() or path.is_file() or path.is_dir()
        assert path.is_symlink() or not status.st_mode & 0o7000
    unpack(tmp_path / "honest", HOSTILE[attack].honest())
    assert list((tmp_path / "honest" / "tree").iterdir())


def test_archive_exchanged_between_check_and_unpacking(tmp_path: Path) -> None:
    """The path names another file by the time it is used; what is unpacked comes from the file that was hashed."""
    good, evil = HOSTILE["setuid"].honest(), HOSTILE["setuid"].make()
    image = tmp_path / "image.tar"
    image.write_bytes(good)
    digest = hashlib.sha256(good)
    with verified.open_verified(image, len(good), digest.digest()) as file:
        (tmp_path / "evil.tar").write_bytes(evil)
        os.replace(tmp_path / "evil.tar", image)  # noqa: PTH105 -- what an attacker does
        archive.unpack(file, tmp_path / "tree", sha256=digest.hexdigest(), limits=LIMITS)
    assert (tmp_path / "tree" / "bin" / "su").stat().st_mode & 0o7777 == 0o755
    with pytest.raises(NotTrusted):
        verified.open_verified(image, len(good), digest.digest())


def test_archive_changed_in_place_between_check_and_unpacking(tmp_path: Path) -> None:
    """The same inode gets other bytes: no descriptor helps, but what was unpacked was hashed on its way, and does not count."""
    good = HOSTILE["cut-off"].honest()
    image = tmp_path / "image.tar"
    image.write_bytes(good)
    digest = hashlib.sha256(good)
    with verified.open_verified(image, len(good), digest.digest()) as file:
        with image.open("r+b") as writer:
            writer.seek(2000)
            writer.write(b"evil")
        with pytest.raises(NotTrusted) as caught:
            archive.unpack(file, tmp_path / "tree", sha256=digest.hexdigest(), limits=LIMITS)
    assert caught.value.reason == "hash"
    image.write_bytes(good)
    with verified.open_verified(image, len(good), digest.digest()) as file:
        archive.unpack(file, tmp_path / "other", sha256=digest.hexdigest(), limits=LIMITS)


def test_compressed_archive_is_not_undone(tmp_path: Path) -> None:
    """A gzip bomb in the place of a tar: nothing is decompressed while unpacking."""
    import gzip

    with pytest.raises(NotTrusted):
        unpack(tmp_path / "hostile", gzip.compress(bytes(50_000_000), mtime=0))
    made = io.BytesIO(HOSTILE["setuid"].honest()).getvalue()
    unpack(tmp_path / "honest", made)
