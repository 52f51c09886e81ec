"""A publication killed at each call that changes the disk: terminals never see anything they must refuse, and the next writer goes on.

The calls are enumerated, not sampled: a run without a kill counts them, then each is the last in a process of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tuf.ngclient import FetcherInterface, Updater

from fleet_server.updates import ceremony, director, drafts, duty, intake
from fleet_server.updates.ceremony import Change
from fleet_server.updates.layout import UpdatesLayout
from fleet_server.updates.repository import Updates
from protocols.contract.artifacts import ImageCustom
from tests.support.killed import in_child
from tests.support.tuf_repo import TufRepo, now_ms


class Disk(FetcherInterface):
    """A client's transport that reads the published files themselves: hundreds of states are looked at."""

    def __init__(self, public: Path) -> None:
        self._public = public

    def _fetch(self, url: str) -> Iterator[bytes]:
        from tuf.api.exceptions import DownloadHTTPError

        path = self._public / url.removeprefix("disk:/")
        if not path.is_file():
            raise DownloadHTTPError("not there", 404)
        yield path.read_bytes()


def look(layout: UpdatesLayout, folder: Path, repository: str, root: str, paths: list[str]) -> dict[str, bytes | None]:
    """What a terminal finds that starts anew from what it remembers; raises what the client raises."""
    for name in ("metadata", "targets"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    base = f"disk:/{repository}/"
    updater = Updater(
        str(folder / "metadata"),
        f"{base}metadata/",
        str(folder / "targets"),
        f"{base}targets/",
        Disk(layout.public),
        bootstrap=root.encode(),
    )
    updater.refresh()
    found: dict[str, bytes | None] = {}
    for path in paths:
        target = updater.get_targetinfo(path)
        if target is None or repository == "director":
            found[path] = None if target is None else target.hashes["sha256"].encode()
        else:
            found[path] = Path(updater.download_target(target)).read_bytes()
    return found


Scene = tuple[Callable[[Updates], object], str, list[str]]


def release(repo: TufRepo) -> Scene:
    return (
        lambda updates: intake.add_online(updates, "content", "content/birth/2.tar", b"new", _content(2), now_ms=now_ms()),
        "image",
        ["content/birth/1.tar", "content/birth/2.tar"],
    )


def assignment(repo: TufRepo) -> Scene:
    wanted = [director.Assignment(bundle="b" * 32, component="content/birth", target="content/birth/1.tar")]
    return (
        lambda updates: director.set_assignments(updates, {f"kiosk-{n}": wanted for n in range(1, 4)}, now_ms=now_ms()),
        "director",
        ["kiosk-1/content/birth"],
    )


def renewal(repo: TufRepo) -> Scene:
    later = now_ms() + 30 * 86_400_000
    return lambda updates: duty.keep_fresh(updates.layout, later), "image", ["content/birth/1.tar"]


def new_timestamp_key(repo: TufRepo) -> Scene:
    return _signed(repo, "image", "timestamp", Change(), ("root",))


def new_snapshot_key(repo: TufRepo) -> Scene:
    return _signed(repo, "image", "snapshot", Change(), ("root",))


def new_directors_key(repo: TufRepo) -> Scene:
    return _signed(repo, "director", "targets", Change(), ("root",))


def new_targets_keys(repo: TufRepo) -> Scene:
    """Old and new targets keys sign, so every step fits both roots."""
    new = repo.offline["firmware"]
    change = Change(add=tuple(signer.public_key for signer in new))
    return _signed(repo, "image", "targets", change, ("root", "targets"), extra=new)


def lost_targets_keys(repo: TufRepo) -> Scene:
    """The old targets keys are lost: only the new ones sign."""
    old, new = repo.offline["targets"], repo.offline["firmware"]
    change = Change(add=tuple(signer.public_key for signer in new), remove=tuple(signer.public_key.keyid for signer in old))
    repo.offline["targets"] = new
    return _signed(repo, "image", "targets", change, ("root", "targets"))


def new_terminals_key(repo: TufRepo) -> Scene:
    return (
        lambda updates: ceremony.rotate(updates, "director", "terminals", Change(), now_ms=now_ms()),
        "director",
        ["kiosk-1/content/birth"],
    )


def _signed(repo: TufRepo, name: str, role: str, change: Change, roles: tuple[str, ...], extra: list[Any] | None = None) -> Scene:
    ceremony.rotate(repo.updates, name, role, change, now_ms=now_ms())
    for waiting in drafts.pending(repo.updates.layout):
        for signer in [
            *repo.offline[waiting.role if waiting.role in roles else "root"],
            *(extra or [] if waiting.role != "root" else []),
        ]:
            waiting.sign(signer)
        drafts.save(repo.updates.layout, waiting)
    paths = ["content/birth/1.tar"] if name == "image" else ["kiosk-1/content/birth"]
    return lambda updates: ceremony.publish(updates, now_ms=now_ms()), name, paths


def _content(release: int) -> ImageCustom:
    return ImageCustom(component="content", version=str(release), release=release, name="birth")


SCENES = [
    release,
    assignment,
    renewal,
    new_timestamp_key,
    new_snapshot_key,
    new_directors_key,
    new_targets_keys,
    lost_targets_keys,
    new_terminals_key,
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_killed_at_each_call(scene: Callable[[TufRepo], Scene], tmp_path: Path) -> None:
    repo = TufRepo.create(tmp_path / "origin", terminals=["kiosk-1", "kiosk-2"])
    intake.add_online(repo.updates, "content", "content/birth/1.tar", b"old", _content(1), now_ms=now_ms())
    roots = repo.roots
    work, name, paths = scene(repo)
    origin = tmp_path / "origin" / "updates"
    remembered = tmp_path / "remembered"
    before = look(UpdatesLayout(origin), remembered, name, roots[name], paths)

    def copied(label: str) -> tuple[Updates, Path]:
        shutil.copytree(origin, tmp_path / label / "updates")
        shutil.copytree(remembered, tmp_path / label / "terminal")
        return Updates(UpdatesLayout(tmp_path / label / "updates")), tmp_path / label / "terminal"

    updates, terminal = copied("whole")
    calls = in_child(lambda: work(updates), None)
    after = look(updates.layout, terminal, name, roots[name], paths)
    assert calls > 8, "the calls are not counted"
    for die_at in range(1, calls + 1):
        updates, terminal = copied(f"cut-{die_at}")
        died = in_child(lambda die_at=die_at, updates=updates: work(updates), die_at)  # type: ignore[misc]
        assert died == -1, f"call {die_at} was not reached"
        # Only where no timestamp can fit both roots may terminals have to wait until the next holder of the lock has finished.
        if scene is not lost_targets_keys or not updates.layout.journal.exists():
            assert look(updates.layout, terminal, name, roots[name], paths) in (before, after), f"after {die_at} calls"
        later = now_ms() + 31 * 86_400_000 if scene is renewal else now_ms()
        duty.keep_fresh(updates.layout, later)
        assert look(updates.layout, terminal, name, roots[name], paths) in (before, after), f"{die_at}, recovered"
        work(updates)
        duty.keep_fresh(updates.layout, later)
        assert look(updates.layout, terminal, name, roots[name], paths) == after, f"{die_at}, done again"
        shutil.rmtree(tmp_path / f"cut-{die_at}")
