"""Attacks on what lies at the terminal, on its clock, and on the way to it. Each beside the same request from the rightful party."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from edge_agent import tls
from edge_agent.updater import fetch
from edge_agent.updater.cache import alone_in
from protocols.contract.orders import Wanted
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.play import accepted, path_of, refused, swapped, tampered
from tests.edge_agent.attacks.world import DAY_MS, INSTALLED, NOW_MS, World
from tests.support.tls import server_context

pytestmark = pytest.mark.spec("U-107 U-108 U-201 U-204")

YEAR_2038_MS = 2**31 * 1000
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd program makes the differences on the server")


@pytest.fixture
def new(world: World) -> Wanted:
    want = world.release(2, content=bytes(range(256)) * 4000)
    world.order(want)
    return want


def cut_off(world: World, new: Wanted, at: int = 600_000) -> Path:
    """The download of release 2 was interrupted; returns its part."""
    path = path_of(world, new)
    data = world.mirror.files[path]
    assert isinstance(data, bytes)

    def once(handler: mirrors.Handler) -> None:
        handler.close_connection = True
        if handler.headers.get("Range") is None:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data[:at])

    with swapped(world.image, path, once):
        refused(world, "unreachable")
    part = world.state / "images" / f"{new.sha256.hex()}.part"
    assert part.stat().st_size == at
    return part


# ------------------------------------------------------------------------------------------------------------------- files on their way


def test_bit_flipped_part(world: World, new: Wanted) -> None:
    part = cut_off(world, new)
    data = bytearray(part.read_bytes())
    data[300_000] ^= 0x10
    part.write_bytes(data)
    world.mirror.requests.clear()
    accepted(world, new)
    asked = [header for path, header in world.mirror.requests if path == path_of(world, new)]
    assert asked == ["bytes=600000-", None]  # the flip showed at the end, and everything was fetched anew, once


def test_truncated_part(world: World, new: Wanted) -> None:
    part = cut_off(world, new)
    part.write_bytes(part.read_bytes()[:1000])
    accepted(world, new)


def test_part_with_somebody_elses_tail(world: World, new: Wanted) -> None:
    part = cut_off(world, new)
    with part.open("ab") as file:
        file.write(b"evil" * 1000)
    accepted(world, new)


def test_part_that_is_a_link_to_a_victim(world: World, new: Wanted, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    part = cut_off(world, new)
    part.unlink()
    part.symlink_to(victim)
    accepted(world, new)
    assert victim.read_bytes() == b"precious"


def test_ledger_that_lies(world: World, new: Wanted) -> None:
    part = cut_off(world, new)
    part.write_bytes(b"evil" * (new.length // 4))
    part.with_suffix(".ledger").write_text(f'{{"length":{new.length},"synced":{new.length}}}')
    accepted(world, new)


def test_finished_image_swapped_before_use(world: World, new: Wanted) -> None:
    accepted(world, new)
    image = world.state / "images" / new.sha256.hex()
    image.write_bytes(b"e" * new.length)
    accepted(world, new)
    image.unlink()
    image.symlink_to("/etc/hostname")
    accepted(world, new)


def test_two_updaters_at_once(world: World, new: Wanted) -> None:
    with alone_in(world.state / "tuf"):
        refused(world, "inUse")
    accepted(world, new)


# ------------------------------------------------------------------------------------------------------------------------ packed forms


def test_zstd_bomb_in_the_place_of_a_packed_image(world: World, new: Wanted) -> None:
    packer = zstandard.ZstdCompressor(level=19, write_content_size=False).compressobj()
    bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
    assert len(bomb) < 30_000
    world.pack(new, bomb)
    accepted(world, new)
    assert world.got is not None and world.got.failed == (("packed", "length"),)
    assert sum(path.stat().st_size for path in (world.state / "images").iterdir()) < 2 * new.length


def test_packed_form_of_an_older_image(world: World, new: Wanted) -> None:
    world.pack(new, zstandard.ZstdCompressor().compress(world.running))
    accepted(world, new)
    assert world.got is not None and world.got.via == "full"


def test_packed_form_that_is_right(world: World, new: Wanted) -> None:
    data = world.mirror.files[path_of(world, new)]
    assert isinstance(data, bytes)
    world.pack(new, zstandard.ZstdCompressor().compress(data))
    accepted(world, new)
    assert world.got is not None and world.got.via == "packed"


@needs_zstd
def test_delta_against_the_wrong_base(world: World, tmp_path: Path) -> None:
    """The server's packed key is stolen: a difference made against another image lies under the name of ours."""
    first = world.release(2, content=random.Random(1).randbytes(1_000_000))
    world.order(first)
    accepted(world, first)
    old, other = world.running, random.Random(2).randbytes(1_000_000)
    content = other[:400_000] + old[400_000:]
    later = world.release(3, content=content)
    world.order(later, bundle=b"\3" * 16)
    (tmp_path / "new").write_bytes(content)
    made = {}
    for name, base in (("wrong", other), ("right", old)):
        (tmp_path / name).write_bytes(base)
        subprocess.run(["zstd", "-q", f"--patch-from={name}", "new", "-o", f"{name}.zst"], cwd=tmp_path, check=True)
        made[name] = (tmp_path / f"{name}.zst").read_bytes()
    world.bases["agent"] = world.image_at(first)
    world.pack(later, made["wrong"], first.sha256)
    accepted(world, later)
    assert world.got is not None and (world.got.via, [via for via, _ in world.got.failed]) == ("full", ["delta"])
    world.pack(later, made["right"], first.sha256)
    (world.state / "images" / later.sha256.hex()).unlink()
    accepted(world, later)
    assert world.got.via == "delta"


# ---------------------------------------------------------------------------------------------------------------------- restored disks


def test_downgrade_by_disk_image_restore_and_replay(world: World, new: Wanted, tmp_path: Path) -> None:
    """The thief restores yesterday's disk and plays yesterday's repositories and order to it. Both were right then; they have ended since."""
    shutil.copytree(world.state, tmp_path / "disk-image", symlinks=True)
    before, order = dict(world.mirror.files), world.desired
    accepted(world, new)
    later = world.release(3)
    world.order(later, bundle=b"\3" * 16)
    accepted(world, later)
    world.pass_days(10)
    live, now = dict(world.mirror.files), world.desired
    shutil.rmtree(world.state)
    shutil.copytree(tmp_path / "disk-image", world.state, symlinks=True)
    world.mirror.files, world.desired = before, order
    refused(world, "metadataExpired")
    world.mirror.files, world.desired = live, now
    accepted(world, later)


def test_downgrade_by_disk_image_restore_with_counters_kept_elsewhere(world: World, new: Wanted, tmp_path: Path) -> None:
    """A second copy of the counters on another partition ends it at once, whatever the clock says."""
    world.copies.append(tmp_path / "other-partition.json")
    accepted(world, new)
    shutil.copytree(world.state, tmp_path / "disk-image", symlinks=True)
    before, order = dict(world.mirror.files), world.desired
    later = world.release(3)
    world.order(later, bundle=b"\3" * 16)
    accepted(world, later)
    live, now = dict(world.mirror.files), world.desired
    shutil.rmtree(world.state)
    shutil.copytree(tmp_path / "disk-image", world.state, symlinks=True)
    world.mirror.files, world.desired = before, order
    refused(world, "superseded")
    world.mirror.files, world.desired = live, now
    accepted(world, later)


def test_downgrade_after_the_counters_were_destroyed_in_one_place(world: World, new: Wanted, tmp_path: Path) -> None:
    world.copies.append(tmp_path / "other-partition.json")
    accepted(world, new)
    (world.state / "counters.json").write_bytes(b"\0" * 100)
    world.order(world.release(1), bundle=b"\3" * 16)
    refused(world, "downgrade")
    world.order(new, bundle=b"\4" * 16)
    accepted(world, new)


# -------------------------------------------------------------------------------------------------------------------------------- clock


def swap_bytes(world: World, new: Wanted) -> str:
    world.mirror.files[path_of(world, new)] = b"x" * new.length
    return "hash"


def roll_back(world: World, new: Wanted) -> str:
    world.image.set_file("timestamp.json", forge_lower(world))
    return "metadataRollback"


def forge_lower(world: World) -> bytes:
    """An old timestamp, rightly signed in its time."""
    from tests.edge_agent.attacks.world import forged

    return forged(world.image.timestamp, world.image.keys["timestamp"], version=1)


def freeze(world: World, new: Wanted) -> str:
    """The order is of today, the repositories are of twenty days ago."""
    world.image.now_ms += 20 * DAY_MS
    world.want(new)
    return "metadataExpired"


def stranger(world: World, new: Wanted) -> str:
    from tests.edge_agent.attacks.world import forged, signers

    world.director.set_file("timestamp.json", forged(world.director.timestamp, signers(), version=99))
    return "notAuthentic"


def other_terminal(world: World, new: Wanted) -> str:
    world.want(new, to="kiosk-0002")
    return "wrongTerminal"


def wrong_arch(world: World, new: Wanted) -> str:
    world.order(world.release(7, arch="aarch64"))
    return "wrongArch"


@pytest.mark.parametrize(
    "attack", [swap_bytes, roll_back, freeze, stranger, other_terminal, wrong_arch], ids=lambda attack: attack.__name__
)
@pytest.mark.parametrize("clock_ms", [0, 7 * DAY_MS], ids=["1970-01-01", "1970-01-08"])
def test_clock_at_1970_opens_no_door(world: World, new: Wanted, attack: Callable[[World, Wanted], str], clock_ms: int) -> None:
    world.now_ms = clock_ms
    kept = dict(world.mirror.files)
    refused(world, attack(world, new))
    world.mirror.files = {**world.mirror.files, **kept}
    for repo in (world.image, world.director):
        repo.now_ms = NOW_MS + 21 * DAY_MS
        repo.publish(*repo.targets)
    world.order(new, bundle=b"\5" * 16)
    accepted(world, new)


def test_clock_at_1970_stops_no_update(world: World, new: Wanted) -> None:
    world.now_ms = 0
    accepted(world, new)


def test_clock_at_2038_installs_nothing_and_leaves_nothing_behind(world: World, new: Wanted) -> None:
    """Everything has ended by then; told as the clock's fault. Set right, the terminal goes on: the floor never learns from the clock."""
    for wrong_ms in (YEAR_2038_MS, 2**32 * 1000, 253_402_300_800_000, 2**53):
        world.now_ms = wrong_ms
        refused(world, "clock")
    world.now_ms = NOW_MS
    accepted(world, new)


def test_clock_set_back_behind_what_was_signed_since(world: World, new: Wanted) -> None:
    """Stale time: the clock is set back by 20 days, so that frozen repositories look fresh. The order that the server signed since says otherwise."""
    frozen = dict(world.mirror.files)
    world.pass_days(20)
    world.want(new)
    live = dict(world.mirror.files)
    world.now_ms = NOW_MS
    world.mirror.files = frozen
    refused(world, "metadataExpired")
    world.mirror.files = live
    accepted(world, new)


def test_stale_time_floor_survives_a_restart_and_a_spoiled_file(world: World, new: Wanted) -> None:
    world.pass_days(20)
    world.want(new)
    accepted(world, new)
    floor, _ = world.parts()
    assert floor.ms == NOW_MS + 20 * DAY_MS
    (world.state / "floor.json").write_bytes(b"\xff\xff")
    floor, _ = world.parts()
    assert 0 < floor.ms < NOW_MS
    accepted(world, new)


# ---------------------------------------------------------------------------------------------------------------------- man in the middle


def test_man_in_the_middle_with_a_certificate_of_another_authority(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    context, ca_file = server_context(tmp_path)
    _, other = server_context(tmp_path / "other")
    with mirrors.running(context) as mirror:
        world = World(tmp_path, mirror)
        want = world.release(2)
        world.order(want)
        world.tls = tls.client_context(other.read_text("ascii"), check_dates=True)
        refused(world, "certificate")
        world.tls = tls.client_context(ca_file.read_text("ascii"), check_dates=True)
        accepted(world, want)


def test_man_in_the_middle_who_speaks_no_tls(tmp_path: Path) -> None:
    """An https address never becomes plain HTTP, and a plain one is not asked when TLS is configured."""
    _, ca_file = server_context(tmp_path)
    with mirrors.running() as mirror:
        world = World(tmp_path, mirror)
        want = world.release(2)
        world.order(want)
        world.tls = tls.client_context(ca_file.read_text("ascii"), check_dates=True)
        refused(world, "unreachable")
        assert isinstance(world.last.__cause__, fetch.OriginRefused) and mirror.requests == []
        world.tls = None
        accepted(world, want)
    assert world.update() != INSTALLED


def test_metadata_torn_by_a_power_cut_are_fetched_anew(world: World, new: Wanted) -> None:
    """Empty and half files where trusted metadata lay: told apart, fetched again, and the rollback protection of the rest stays."""
    accepted(world, new)
    for name in ("timestamp.json", "snapshot.json", "targets.json", "agent.json"):
        for torn in (b"", b'{"signa'):
            (world.state / "tuf" / "image" / name).write_bytes(torn)
            accepted(world, new)
    with tampered(world.image, "timestamp.json", forge_lower(world)):
        refused(world, "metadataRollback")
    accepted(world, new)
