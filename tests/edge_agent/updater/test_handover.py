"""The files between agent and updater: what one side writes the other reads, and what a stranger writes stops nobody."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.updater import handover
from edge_agent.updater.handover import (
    AgentSide,
    Applied,
    AppliedOne,
    Apply,
    Artifact,
    Grant,
    Health,
    UpdaterSide,
    Want,
)
from protocols.contract.records import Update, Versions

ID = "ab" * 16
WALL = 1_800_000_000_000


@pytest.fixture
def sides(tmp_path: Path) -> tuple[AgentSide, UpdaterSide]:
    for name in ("requests", "updates"):
        (tmp_path / name).mkdir()
    return AgentSide(tmp_path / "requests", tmp_path / "updates"), UpdaterSide(tmp_path / "requests", tmp_path / "updates")


def health(progress: int = 0) -> Health:
    return Health(boot_id=ID, boot_ms=5, version="1.0.0", pid=7, idle=True, devices={"scanner": "online"}, progress=progress)


def update(state: str = "downloading", **more: int) -> Update:
    return Update(bundle=bytes(16), rollout=bytes(16), component="agent", state=state, since_ms=WALL, to_version="1.1.0", **more)  # type: ignore[arg-type]


def test_what_one_side_writes_the_other_reads(sides: tuple[AgentSide, UpdaterSide]) -> None:
    agent, updater = sides
    agent.write_desired(b"signed")
    agent.write_order_keys([b"one", b"two"])
    agent.write_health(health())
    agent.write_grant(grant := Grant(want=ID, boot_id=ID, until_boot_ms=9))
    agent.write_applied(applied := Applied(id=ID, results=(AppliedOne(component="profiles", state="done", version="2"),)))
    updater.write_want(want := Want(id=ID, bundle=ID, what="install", seconds=60))
    artifact = Artifact(component="profiles", version="2", release=2, sha256="0" * 64, length=5, hardware=("sdt-serial",))
    updater.write_apply(apply := Apply(id=ID, bundle=ID, artifacts=(artifact,)))
    assert (updater.desired(), updater.order_keys(), updater.health()) == (b"signed", (b"one", b"two"), health())
    assert (updater.grant(), updater.applied(), agent.want(), agent.apply(), updater.asked()) == (
        grant,
        applied,
        want,
        apply,
        apply,
    )
    agent.write_grant(None)
    updater.write_want(None)
    assert (updater.grant(), agent.want(), updater.wanted()) == (None, None, False)


def test_files_can_be_read_by_the_group_whatever_the_umask_is(tmp_path: Path, sides: tuple[AgentSide, UpdaterSide]) -> None:
    before = os.umask(0o077)
    try:
        sides[0].write_health(health())
        sides[0].write_grant(Grant(want=ID, boot_id=ID, until_boot_ms=9))
        sides[1].tell(WALL, update())
    finally:
        os.umask(before)
    for path in (*(tmp_path / "requests").iterdir(), *(tmp_path / "updates").iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, path


def test_progress_is_numbered_and_dropped_once_captured(sides: tuple[AgentSide, UpdaterSide]) -> None:
    agent, updater = sides
    updater.tell(WALL, update("pending"), update("downloading"))
    updater.tell(WALL, Versions(installed=()))
    assert [line.n for line in agent.told_after(0)] == [1, 2, 3]
    assert [line.n for line in agent.told_after(2)] == [3]
    agent.write_health(health(progress=2))
    updater.tell(WALL, update("committed"))
    assert [line.n for line in agent.told_after(0)] == [3, 4]


def test_when_the_progress_file_is_lost_numbers_go_on(tmp_path: Path, sides: tuple[AgentSide, UpdaterSide]) -> None:
    agent, updater = sides
    updater.tell(WALL, update(), update())
    agent.write_health(health(progress=2))
    (tmp_path / "updates" / "progress.ndjson").unlink()
    updater.tell(WALL, update("committed"))
    assert [(line.n, line.update.state) for line in agent.told_after(2) if line.update] == [(3, "committed")]


def test_an_agent_that_claims_absurd_numbers_cannot_use_them_up(sides: tuple[AgentSide, UpdaterSide]) -> None:
    agent, updater = sides
    agent.write_health(health(progress=2**53 - 1))
    updater.tell(WALL, update())
    assert [line.n for line in agent.told_after(0)] == [1]


def test_when_nobody_reads_ends_are_kept_and_bytes_on_the_way_are_dropped(
    tmp_path: Path, sides: tuple[AgentSide, UpdaterSide]
) -> None:
    agent, updater = sides
    updater.tell(WALL, update("rolledBack"))
    for at in range(30):
        updater.tell(WALL, *(update("downloading", bytes_done=at) for _ in range(40)))
    updater.tell(WALL, update("committed"))
    states = [line.update.state for line in agent.told_after(0) if line.update]
    assert len(states) == handover.PROGRESS_KEPT
    assert (states[0], states[-1]) == ("rolledBack", "committed")
    assert (tmp_path / "updates" / "progress.ndjson").stat().st_size < handover.PROGRESS_MAX_BYTES


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def holding(content: bytes, mode: int = 0o640) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(content)
        path.chmod(mode)

    return make


HOSTILE: dict[str, Callable[[Path], None]] = {
    "a pipe that nobody writes": os.mkfifo,
    "a link": make_link,
    "a directory": Path.mkdir,
    "a terabyte of nothing": make_large,
    "nesting": holding(b"[" * 60_000),
    "not JSON": holding(b"\xff\xfe"),
    "another shape": holding(b'{"id": 5}'),
    "empty": Path.touch,
    "closed": holding(b"{}", 0),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("what", HOSTILE)
def test_what_a_stranger_leaves_reads_as_nothing(tmp_path: Path, sides: tuple[AgentSide, UpdaterSide], what: str) -> None:
    agent, updater = sides
    for folder, names in (
        ("requests", ("order-keys.json", "health.json", "grant.json", "applied.json")),
        ("updates", ("want.json", "apply.json", "progress.ndjson")),
    ):
        for name in names:
            HOSTILE[what](tmp_path / folder / name)
    assert updater.order_keys() == () and updater.health() is None and updater.grant() is None and updater.applied() is None
    assert agent.want() is None and agent.apply() is None and agent.told_after(0) == ()


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_any_bytes_are_no_progress_or_a_line(raw: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "progress.ndjson"
        path.write_bytes(raw + b"\n" + b'{"n": 3, "wall_ms": 1, "versions": {"installed": []}}\n')
        numbers = [line.n for line in handover.read_progress(path)]
    assert numbers == sorted(set(numbers))
