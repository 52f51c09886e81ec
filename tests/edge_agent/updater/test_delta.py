"""Packed forms and differences: what zstd's own program makes comes out whole, never bigger than signed; the image itself is always the way out."""

from __future__ import annotations

import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from edge_agent.updater import delta, fetch, trust
from edge_agent.updater.download import Downloader
from edge_agent.updater.errors import NotTrusted, Unavailable
from protocols.contract.artifacts import ImageCustom
from protocols.contract.orders import Wanted
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.mirror import Mirror

pytestmark = pytest.mark.spec("U-203 U-204")

ROOT = Path(__file__).resolve().parents[3]
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program makes the differences on the server")


def noise(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


OLD = noise(600_000, 1)
NEW = OLD[:140_000] + b"changed" * 600 + OLD[140_000:500_000] + noise(20_000, 2) + OLD[520_000:]


def by_program(new: bytes, folder: Path, *options: str, old: bytes | None = None) -> bytes:
    """One frame by the zstd program, as the server makes it."""
    (folder / "new").write_bytes(new)
    command = ["zstd", "-q", "-f", *options, "new", "-o", "out.zst"]
    if old is not None:
        (folder / "old").write_bytes(old)
        command[1:1] = ["--patch-from=old"]
    subprocess.run(command, cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return (folder / "out.zst").read_bytes()


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def base_of(path: Path, data: bytes) -> delta.Base:
    path.write_bytes(data)
    return delta.Base(path, len(data), digest(data))


def unpack(folder: Path, packed: bytes, *, result: bytes = NEW, base: delta.Base | None = None) -> bytes:
    source = folder / "packed"
    source.write_bytes(packed)
    form = trust.Form("delta" if base else "packed", "", len(packed), digest(packed), base.sha256 if base else None)
    delta.unpack(source, form, folder / "result", length=len(result), sha256=digest(result), base=base)
    return (folder / "result").read_bytes()


@needs_zstd
@pytest.mark.parametrize(
    "options", [("-1",), ("-19",), ("-19", "--long=27"), ("--ultra", "-22", "--long=27"), ("-19", "--single-thread")]
)
def test_what_the_program_packed_comes_out(tmp_path: Path, options: tuple[str, ...]) -> None:
    assert unpack(tmp_path, by_program(NEW, tmp_path, *options)) == NEW


@needs_zstd
@pytest.mark.parametrize(
    "options", [("-3",), ("-19",), ("-19", "--long=27"), ("--ultra", "-22", "--long=27"), ("-19", "--no-check")]
)
def test_a_difference_of_the_program_comes_out(tmp_path: Path, options: tuple[str, ...]) -> None:
    packed = by_program(NEW, tmp_path, *options, old=OLD)
    assert len(packed) < len(NEW) // 10
    assert unpack(tmp_path, packed, base=base_of(tmp_path / "base", OLD)) == NEW


@needs_zstd
@pytest.mark.parametrize(
    ("old", "new"), [(OLD, b"short"), (b"x", NEW[:300_000]), (OLD, OLD), (noise(1_500_000, 5), noise(1_500_000, 5)[:-3])]
)
def test_differences_between_unequal_sizes(tmp_path: Path, old: bytes, new: bytes) -> None:
    packed = by_program(new, tmp_path, "-9", "--long=27", old=old)
    assert unpack(tmp_path, packed, result=new, base=base_of(tmp_path / "base", old)) == new


@needs_zstd
def test_a_difference_larger_than_the_usual_window(tmp_path: Path) -> None:
    """Content repeats 20 MB back, beyond the 8 MB window of level 19: only a window over all of the old image reaches it."""
    old = noise(20_000_000, 9)
    new = old[10_000_000:] + old[:10_000_000]
    packed = by_program(new, tmp_path, "-3", "--long=27", old=old)
    assert len(packed) < 1_000_000
    assert unpack(tmp_path, packed, result=new, base=base_of(tmp_path / "base", old)) == new


@needs_zstd
def test_against_another_base_nothing_comes_out(tmp_path: Path) -> None:
    packed = by_program(NEW, tmp_path, "-19", old=OLD)
    wrong = base_of(tmp_path / "base", OLD[:-1] + b"x")
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path, packed, base=wrong)
    assert caught.value.reason in ("delta", "hash")
    lost = delta.Base(tmp_path / "nothing", len(OLD), digest(OLD))
    with pytest.raises(NotTrusted):
        unpack(tmp_path, packed, base=lost)
    (tmp_path / "base").write_bytes(b"rotten" + OLD[6:])
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path, packed, base=delta.Base(tmp_path / "base", len(OLD), digest(OLD)))
    assert caught.value.reason == "delta"
    assert not (tmp_path / "result").exists()
    assert unpack(tmp_path, packed, base=base_of(tmp_path / "base", OLD)) == NEW


def bomb(count: int) -> bytes:
    """A frame that does not say how much comes out of it."""
    packer = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    return b"".join(packer.compress(b"\0" * 1_000_000) for _ in range(count)) + packer.flush()


def test_a_bomb_is_stopped_at_the_signed_length(tmp_path: Path) -> None:
    packed = bomb(200)
    assert len(packed) < 20_000
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path, packed)
    assert caught.value.reason == "length"
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_a_frame_that_says_another_length_is_refused_at_its_header(tmp_path: Path) -> None:
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path, zstandard.ZstdCompressor().compress(b"x" * 10**8))
    assert caught.value.reason == "length"


def test_a_frame_that_wants_too_much_memory_is_refused_at_its_header(tmp_path: Path) -> None:
    # Magic number, a descriptor without a content size, and a window of 2 GiB (RFC 8878, 3.1.1).
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path, b"\x28\xb5\x2f\xfd\x00" + bytes((21 << 3,)) + b"\x01\x00\x00")
    assert caught.value.reason == "delta"


@pytest.mark.parametrize("spoil", ["cut", "flip", "empty", "garbage"])
def test_what_does_not_decode_leaves_nothing(tmp_path: Path, spoil: str) -> None:
    good = zstandard.ZstdCompressor(level=3, write_checksum=True).compress(NEW)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    packed = {"cut": good[:-1000], "flip": bytes(flipped), "empty": b"", "garbage": b"garbage" * 100}[spoil]
    with pytest.raises(NotTrusted):
        unpack(tmp_path, packed)
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]
    assert unpack(tmp_path, good) == NEW


def test_other_content_of_the_right_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotTrusted) as caught:
        unpack(tmp_path, zstandard.ZstdCompressor().compress(NEW[::-1]))
    assert caught.value.reason == "hash"


# ------------------------------------------------------------------------------------------------------------------ choice and fallback


def component(
    mirror: Mirror, *, old: bytes = OLD, packed: bytes | None = None, difference: bytes | None = None
) -> trust.Component:
    """The image and its forms, described and served."""
    forms = [("full", NEW)]
    if packed is not None:
        forms.insert(0, ("packed", packed))
    if difference is not None:
        forms.insert(0, ("delta", difference))
    made = []
    for via, data in forms:
        mirror.files[f"/{via}"] = data
        base = digest(old) if via == "delta" else None
        made.append(trust.Form(via, f"{mirror.url}/{via}", len(data), digest(data), base))  # type: ignore[arg-type]
    wanted = Wanted(component="agent", target="agent/a-2.0.tar", version="2.0", release=2, length=len(NEW), sha256=digest(NEW))
    return trust.Component(wanted, ImageCustom(component="agent", version="2.0", release=2), False, tuple(made))


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with mirrors.running() as made:
        yield made


@pytest.fixture
def downloader(mirror: Mirror, tmp_path: Path) -> Iterator[Downloader]:
    with fetch.Fetcher(fetch.Origin.of(mirror.url), tls=None) as getting:
        yield Downloader(tmp_path / "images", getting, reserve_bytes=0, sleep=lambda seconds: None)


PACKED = zstandard.ZstdCompressor(level=3).compress(NEW)


@needs_zstd
def test_the_shortest_form_is_taken(mirror: Mirror, downloader: Downloader, tmp_path: Path) -> None:
    difference = by_program(NEW, tmp_path, "-19", old=OLD)
    base = base_of(tmp_path / "base", OLD)
    got = delta.obtain(component(mirror, packed=PACKED, difference=difference), downloader, base=base)
    assert (got.via, got.bytes_fetched, got.failed) == ("delta", len(difference), ())
    assert got.path.read_bytes() == NEW
    assert [path for path, _ in mirror.requests] == ["/delta"]


def test_without_the_right_base_the_packed_form_is_taken(mirror: Mirror, downloader: Downloader, tmp_path: Path) -> None:
    other = base_of(tmp_path / "base", b"something else")
    for base in (None, other):
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
        got = delta.obtain(component(mirror, packed=PACKED, difference=b"x"), downloader, base=base)
        assert (got.via, got.path.read_bytes()) == ("packed", NEW)


def test_a_difference_that_needs_too_much_memory_is_not_tried(mirror: Mirror, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", OLD)
    made = component(mirror, packed=PACKED, difference=b"x")
    assert [form.via for form in delta.choose(made, base)] == ["delta", "packed", "full"]
    assert [form.via for form in delta.choose(made, base, memory_bytes=len(NEW))] == ["packed", "full"]


def test_whatever_fails_ends_in_the_image_itself(mirror: Mirror, downloader: Downloader, tmp_path: Path) -> None:
    base = base_of(tmp_path / "base", OLD)
    got = delta.obtain(component(mirror, packed=b"garbage", difference=b"more garbage"), downloader, base=base)
    assert (got.via, got.path.read_bytes()) == ("full", NEW)
    assert got.failed == (("delta", "delta"), ("packed", "delta"))
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == [digest(NEW).hex()]


def test_a_form_that_is_gone_from_the_server_does_not_matter(mirror: Mirror, downloader: Downloader) -> None:
    made = component(mirror, packed=PACKED)
    del mirror.files["/packed"]
    got = delta.obtain(made, downloader)
    assert (got.via, got.failed) == ("full", (("packed", "notFound"),))


def test_a_server_that_is_away_is_no_reason_to_fetch_more(mirror: Mirror, downloader: Downloader) -> None:
    """The shorter form goes on next time; an outage must not turn into the long way for everybody."""
    made = component(mirror, packed=PACKED)
    mirror.files["/packed"] = lambda handler: handler.send(503, b"")
    with pytest.raises(Unavailable):
        delta.obtain(made, downloader)
    assert [path for path, _ in mirror.requests] == ["/packed"]
    mirror.files["/packed"] = PACKED
    assert delta.obtain(made, downloader).via == "packed"


@needs_zstd
@pytest.mark.slow
def test_memory_of_a_difference_stays_within_both_sizes(tmp_path: Path) -> None:
    """A child that applies a difference between images of 40 MB; its largest resident size, less what an idle one has."""
    old = noise(40_000_000, 3)
    new = old[:20_000_000] + b"x" * 1000 + old[20_000_000:]
    packed = by_program(new, tmp_path, "-1", "--long=27", old=old)
    (tmp_path / "packed").write_bytes(packed)
    (tmp_path / "base").write_bytes(old)
    code = (
        "import resource, sys; from pathlib import Path; from edge_agent.updater import delta, trust\n"
        "folder, length, sha, packed_length, packed_sha, base_length, base_sha = sys.argv[1:]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; folder = Path(folder)\n"
        "base = delta.Base(folder / 'base', int(base_length), bytes.fromhex(base_sha))\n"
        "form = trust.Form('delta', '', int(packed_length), bytes.fromhex(packed_sha), base.sha256)\n"
        "delta.unpack(folder / 'packed', form, folder / 'out', length=int(length), sha256=bytes.fromhex(sha), base=base)\n"
        "print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    arguments = [str(len(new)), digest(new).hex(), str(len(packed)), digest(packed).hex(), str(len(old)), digest(old).hex()]
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    grown_bytes = (int(out[1]) - int(out[0])) * 1024  # ru_maxrss counts KiB
    assert grown_bytes < len(old) * 2 + len(new) + 30_000_000  # mapped once, copied once, and the window
