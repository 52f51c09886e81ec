from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from edge_agent import launcher
from edge_agent.updater import install
from edge_agent.updater.archive import BadArchive
from edge_agent.updater.errors import NotTrusted, Unavailable
from edge_agent.updater.install import SelfTestLimits
from edge_agent.updater.layout import Layout, name_of
from tests.edge_agent.updater.places import NEW, NEW_NAME, OLD, OLD_NAME, begin, factory, running, stage
from tests.support.packages import Package, entry, tar, tiny

pytestmark = pytest.mark.spec("U-302 U-305")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return factory(tmp_path / "root")


def test_the_first_version_is_factory_and_good_for_both_seats(layout: Layout) -> None:
    state = layout.state()
    assert state.factory == state.seat("agent").good == state.seat("updater").good == OLD_NAME
    assert running(layout) == OLD_NAME
    assert layout.pointed("updater") == OLD_NAME
    assert layout.installed() == OLD.about


def test_laying_out_again_changes_nothing(layout: Layout, tmp_path: Path) -> None:
    begin(layout)
    install.commit(layout, NEW_NAME)
    factory(layout.root)
    assert layout.state().factory == OLD_NAME
    assert running(layout) == NEW_NAME


def test_a_trial_runs_and_becomes_good(layout: Layout) -> None:
    assert begin(layout) == NEW_NAME
    assert running(layout) == NEW_NAME
    assert layout.state().seat("agent").good == OLD_NAME
    assert install.commit(layout, NEW_NAME)
    own = layout.state().seat("agent")
    assert (own.good, own.previous, own.trial) == (NEW_NAME, OLD_NAME, None)
    assert install.commit(layout, NEW_NAME), "said twice, done once"


def test_a_trial_that_is_started_too_often_gives_way(layout: Layout) -> None:
    begin(layout)
    assert [running(layout) for _ in range(install.MAX_TRIES)] == [NEW_NAME] * install.MAX_TRIES
    launcher.ended(layout.root, "agent", "hung")
    assert running(layout) == OLD_NAME
    verdict = layout.state().seat("agent").verdict
    assert verdict is not None
    assert (verdict.name, verdict.reason, verdict.tries, verdict.bundle) == (NEW_NAME, "hung", install.MAX_TRIES, "ab" * 16)
    assert not install.commit(layout, NEW_NAME), "too late"
    assert running(layout) == OLD_NAME


def test_a_trial_can_be_taken_back(layout: Layout) -> None:
    begin(layout)
    install.roll_back(layout, NEW_NAME, "peripheralLost")
    assert running(layout) == OLD_NAME
    verdict = layout.state().seat("agent").verdict
    assert verdict is not None and verdict.reason == "peripheralLost"


def test_what_was_confirmed_cannot_be_taken_back_by_a_late_word(layout: Layout) -> None:
    begin(layout)
    install.commit(layout, NEW_NAME)
    install.roll_back(layout, NEW_NAME, "noConfirmation")
    assert running(layout) == NEW_NAME


@pytest.mark.parametrize("harm", ["missing file", "shorter file", "file for link", "no mark", "spoiled mark", "gone"])
def test_a_tree_that_is_not_whole_is_never_started(layout: Layout, harm: str) -> None:
    import shutil

    tree = layout.tree(begin(layout))
    if harm == "missing file":
        (tree / "lib/part1.txt").unlink()
    elif harm == "shorter file":
        os.truncate(tree / "bin/edge-agent", 3)
    elif harm == "file for link":
        (tree / "lib/current.txt").unlink()
        (tree / "lib/current.txt").write_text("x")
    elif harm == "no mark":
        (tree / ".complete").unlink()
    elif harm == "spoiled mark":
        (tree / ".complete").write_bytes(b'{"files": [')
    else:
        shutil.rmtree(tree)
    assert running(layout) == OLD_NAME
    verdict = layout.state().seat("agent").verdict
    assert verdict is not None and verdict.reason == "interrupted"
    assert begin(layout) == NEW_NAME, "staged again, it may be tried again"
    assert running(layout) == NEW_NAME


def test_when_the_good_version_is_damaged_the_one_before_runs_then_the_factory(layout: Layout) -> None:
    third = tiny("1.2.0", release=3)
    for package in (NEW, third):
        install.commit(layout, begin(layout, package))
    layout.clean()
    (layout.tree(name_of("1.2.0", third.sha256)) / "bin/edge-agent").unlink()
    assert running(layout) == NEW_NAME
    (layout.tree(NEW_NAME) / "bin/edge-agent").unlink()
    assert running(layout) == OLD_NAME


@pytest.mark.parametrize("spoiled", [b"", b"{", b"[]", b'{"seats": {"agent": 1}}', b"\xff" * 100, None])
def test_a_spoiled_state_leaves_what_runs_running(layout: Layout, spoiled: bytes | None) -> None:
    install.commit(layout, begin(layout))
    path = layout.root / "state.json"
    if spoiled is None:
        path.unlink()
    else:
        path.write_bytes(spoiled)
    assert running(layout) == NEW_NAME
    assert layout.state().seat("agent").good == NEW_NAME


def test_clean_keeps_new_previous_and_factory(layout: Layout) -> None:
    package = [tiny(f"1.{at}.0", release=at) for at in range(1, 5)]
    names = [name_of(one.version, one.sha256) for one in package]
    for one in package:
        install.commit(layout, begin(layout, one))
        layout.clean()
    (layout.versions / "9.9-abc.part").mkdir()
    (layout.versions / "9.8-abc.trash").mkdir()
    (layout.root / ".state.json.new").write_bytes(b"")
    layout.clean()
    assert {path.name for path in layout.versions.iterdir()} == {OLD_NAME, names[-2], names[-1]}
    assert {path.stem for path in layout.images.iterdir()} == {package[-2].sha256, package[-1].sha256}
    assert not list(layout.root.glob(".*.new"))


def test_clean_removes_nothing_while_nothing_is_known(layout: Layout) -> None:
    begin(layout)
    (layout.root / "state.json").write_bytes(b"spoiled")
    layout.clean()
    assert {path.name for path in layout.versions.iterdir()} == {OLD_NAME, NEW_NAME}


def test_a_state_that_cannot_be_read_is_not_replaced(layout: Layout) -> None:
    """A disk that fails for a moment must not make the terminal forget what is good."""
    begin(layout)
    path = layout.root / "state.json"
    kept = path.read_bytes()
    path.unlink()
    path.mkdir()  # reading it fails, as on a failing disk
    assert launcher.count(layout.root) == NEW_NAME
    with pytest.raises(OSError):
        install.commit(layout, NEW_NAME)
    path.rmdir()
    path.write_bytes(kept)
    assert layout.state().seat("agent").good == OLD_NAME


def test_remains_of_an_unfinished_step_are_replaced(layout: Layout) -> None:
    part = layout.part(NEW_NAME)
    (part / "bin").mkdir(parents=True)
    (part / "bin/edge-agent").write_text("half")
    torn = layout.tree(NEW_NAME)
    torn.mkdir()
    assert stage(layout) == NEW_NAME
    assert layout.complete(NEW_NAME)
    assert not part.exists()


def test_a_bad_archive_leaves_nothing_behind(layout: Layout) -> None:
    raw = tar([entry("bin/edge-agent", b"#!/bin/sh\n", mode=0o755), entry("../evil")])
    with pytest.raises(BadArchive):
        stage(layout, Package(raw, "1.1.0"))
    assert [path.name for path in layout.versions.iterdir()] == [OLD_NAME]


@pytest.mark.parametrize("mode", [None, 0o644])
def test_a_package_without_its_program_is_refused(layout: Layout, mode: int | None) -> None:
    entries = [entry("lib/x", b"1")] if mode is None else [entry("bin/edge-agent", b"#!/bin/sh\n", mode=mode)]
    with pytest.raises(BadArchive, match="bin/edge-agent"):
        stage(layout, Package(tar(entries), "1.1.0"))


def test_preflight_knows_the_disk(layout: Layout) -> None:
    install.preflight(layout, 1000, 10)
    with pytest.raises(Unavailable) as full:
        install.preflight(layout, 1 << 60, 10)
    assert full.value.reason == "noSpace"


SELFTESTS = {
    "crashes": ("exit 3", "ended with 3"),
    "is killed": ("kill -9 $$", "ended with"),
    "says nothing": ("true", "did not say"),
    "says no JSON": ("echo hello", "did not say"),
    "is another version": ("""echo '{"version": "6.6.6"}'""", "another version"),
    "hangs": ("sleep 60", "longer than"),
    "eats memory": ("exec python3 -c 'x = bytearray(3 << 30); print(1)'", "ended with"),
}


@pytest.mark.parametrize("name", SELFTESTS)
def test_a_self_test_that_fails_says_how(layout: Layout, name: str) -> None:
    script, words = SELFTESTS[name]
    tree = layout.tree(stage(layout, tiny("1.1.0", selftest=script)))
    limits = SelfTestLimits(timeout_s=1.0 if name == "hangs" else 60.0, memory_mib=512)
    began_s = time.monotonic()
    with pytest.raises(NotTrusted, match=words) as refused:
        install.self_test(tree, "1.1.0", limits)
    assert refused.value.reason == "selfTest"
    assert time.monotonic() - began_s < 50


def test_a_self_test_that_passes(layout: Layout) -> None:
    install.self_test(layout.tree(stage(layout)), "1.1.0", SelfTestLimits())


def test_a_self_test_leaves_no_process(layout: Layout) -> None:
    tree = layout.tree(stage(layout, tiny("1.1.0", selftest="""sleep 611 & echo '{"version": "1.1.0"}'""")))
    install.self_test(tree, "1.1.0", SelfTestLimits(timeout_s=5))
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 611" not in found


def test_a_full_disk_gives_up_its_reserve_to_go_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first write fails for want of space, as long as the reserve is there."""
    import errno

    begin(layout)
    real = launcher._replace

    def full(root: Path, name: str, body: bytes) -> None:
        if (root / launcher.RESERVE).exists():
            raise OSError(errno.ENOSPC, "full")
        real(root, name, body)

    monkeypatch.setattr(launcher, "_replace", full)
    install.roll_back(layout, NEW_NAME, "memory")
    assert running(layout) == OLD_NAME
    assert not (layout.root / launcher.RESERVE).exists()
    layout.keep_reserve()
    assert (layout.root / launcher.RESERVE).stat().st_size > 0


def test_names_are_plain_whatever_the_version_says() -> None:
    name = name_of("1.0 (b/c):d~1", "f" * 64)
    assert name == "1.0__b_c__d_1-ffffffffffff"
