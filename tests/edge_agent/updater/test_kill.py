"""kill -9 at each system call that changes the disk, of installer, launcher, downloader, trust and artifacts: afterwards what is there is whole, and
the step goes on to its end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_agent import launcher
from edge_agent.updater import handover, install
from edge_agent.updater.layout import Layout, SeatState
from tests.edge_agent.attacks import mirror as mirrors
from tests.edge_agent.attacks.world import World
from tests.edge_agent.updater import fetching, steps
from tests.edge_agent.updater.places import NEW, NEW_NAME, OLD_NAME, begin, factory, running, stage
from tests.support import cut_off
from tests.support.packages import tiny

pytestmark = pytest.mark.spec("U-302")


def nothing(layout: Layout) -> None:
    NEW.write(layout.images)


def half_unpacked(layout: Layout) -> None:
    """Remains of two runs that were cut off before: they are removed in the step."""
    NEW.write(layout.images)
    shutil.copytree(layout.tree(OLD_NAME), layout.part(NEW_NAME))
    shutil.copytree(layout.tree(OLD_NAME), layout.tree(NEW_NAME))
    (layout.tree(NEW_NAME) / "lib/part1.txt").unlink()


def on_trial(layout: Layout) -> None:
    """An older version is there that goes at the end."""
    install.commit(layout, begin(layout, tiny("1.0.5")))
    install.commit(layout, begin(layout, tiny("1.0.6")))
    begin(layout)
    running(layout)


def with_many_tries(layout: Layout) -> None:
    install.begin_trial(layout, stage(layout), "ab" * 16, tries=9)


def used_up(layout: Layout) -> None:
    begin(layout)
    for _ in range(install.MAX_TRIES):
        running(layout)


def factory_only(layout: Layout) -> None:
    """State and link were lost."""
    (layout.root / "state.json").unlink()
    (layout.root / "current").unlink()


def seat(layout: Layout) -> SeatState:
    return layout.state().seat("agent")


CASES: dict[str, tuple[str, Callable[[Layout], object], Callable[[Layout], bool]]] = {
    "install": ("stage_and_begin", nothing, lambda at: running(at) == NEW_NAME),
    "install again": ("stage_and_begin", half_unpacked, lambda at: running(at) == NEW_NAME),
    "confirm": (
        "commit_and_clean",
        on_trial,
        lambda at: running(at) == NEW_NAME and seat(at).trial is None and not at.complete("1.0.5"),
    ),
    "go back": (
        "roll_back_and_clean",
        on_trial,
        lambda at: running(at) == seat(at).good != NEW_NAME and seat(at).verdict is not None,
    ),
    "count": ("count", with_many_tries, lambda at: running(at) == NEW_NAME),
    "count, used up": ("count", used_up, lambda at: running(at) == OLD_NAME and seat(at).verdict is not None),
    "count, state lost": ("count", factory_only, lambda at: running(at) == OLD_NAME),
    "ended": ("ended", begin, lambda at: running(at) == NEW_NAME),
}
NEEDING_ROOM = frozenset({
    "openat", "creat", "write", "pwrite64", "writev", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "mkdir", "mkdirat", "symlink",
    "symlinkat", "link", "linkat",
})  # fmt: skip
SHARES = 2
"""Of the calls of a whole update, so that two workers can take them."""
LEAST = {
    "install": 30,
    "install again": 40,
    "confirm": 15,
    "go back": 15,
    "count": 4,
    "count, used up": 6,
    "count, state lost": 6,
    "ended": 4,
}
"""So many calls at least, or the enumeration itself is broken."""


@pytest.fixture
def ram(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a kill loses nothing that was written, so waiting for a disk would prove nothing."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=shm, prefix="kf-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def zygote() -> Iterator[cut_off.Zygote]:
    with cut_off.zygote("tests.edge_agent.updater.steps") as one:
        yield one


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_each_call_that_changes_the_disk(ram: Path, case: str, zygote: cut_off.Zygote) -> None:
    step, prepare, well = CASES[case]
    template = factory(ram / "template")
    prepare(template)
    root = ram / "root"

    def fresh() -> Layout:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template.root, root, symlinks=True)
        return Layout(root)

    layout = fresh()
    found = zygote.points(step, root, ram / "calls.txt")
    assert len(found) >= LEAST[case], [str(point) for point in found]
    assert well(layout), "the step itself, not cut off"
    for point in found:
        layout = fresh()
        zygote.kill_at(point, step, root)
        name = launcher.count(root)
        assert name is not None and layout.complete(name) and layout.pointed("agent") == name, str(point)
        if step != "stage_and_begin" or seat(layout).trial is None:
            steps.STEPS[step](root)
        assert well(layout), str(point)
        layout.clean()
        assert not [path for path in layout.versions.iterdir() if not layout.complete(path.name)], f"remains after {point}"


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_whole_update_killed_at_each_call_goes_on_to_its_end(ram: Path, zygote: cut_off.Zygote, share: int) -> None:
    """Updater, installer and everything that they keep, from the desired state to the cleaned end: however often it is begun, it ends there."""
    template, place = ram / "template", ram / "place"
    steps.lay_place(template)
    layout = laid_again(template, place)
    ours = points_of_the_updater(zygote, place, ram / "calls.txt")
    assert len(ours) >= 150
    assert told(place)[-1] == "committed" and running(layout) == NEW_NAME
    for point in ours[share::SHARES]:
        layout = laid_again(template, place)
        zygote.kill_at(point, "whole_update", place)
        name = launcher.count(layout.root)
        assert name is not None and layout.complete(name) and layout.pointed("agent") == name, str(point)
        steps.whole_update(place)
        assert running(layout) == NEW_NAME, str(point)
        assert seat(layout).trial is None and seat(layout).good == NEW_NAME, str(point)
        assert told(place)[-1] == "committed", str(point)


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_a_whole_update_with_a_full_disk_at_each_call_goes_on_to_its_end(ram: Path, zygote: cut_off.Zygote, share: int) -> None:
    """Each call that needs room fails once: a whole version runs, and the update ends by itself, if need be after the next start."""
    template, place = ram / "template", ram / "place"
    steps.lay_place(template)
    laid_again(template, place)
    ours = [point for point in points_of_the_updater(zygote, place, ram / "calls.txt") if point.name in NEEDING_ROOM]
    assert len(ours) >= 100
    for point in ours[share::SHARES]:
        layout = laid_again(template, place)
        zygote.fail_at(point, "whole_update", place)
        name = launcher.count(layout.root)
        assert name is not None and layout.complete(name) and layout.pointed("agent") == name, str(point)
        if told(place)[-1:] != ["committed"]:
            steps.whole_update(place)
        assert told(place)[-1] == "committed" and running(layout) == NEW_NAME, str(point)
        assert seat(layout).trial is None and seat(layout).good == NEW_NAME, str(point)


def laid_again(template: Path, place: Path) -> Layout:
    """The terminal as it was before the update."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place, symlinks=True)
    return Layout(place / "root")


def points_of_the_updater(zygote: cut_off.Zygote, place: Path, log: Path) -> list[cut_off.Point]:
    """Calls of a whole update, without those of what stands for the agent, the server and the kernel."""
    strange = tuple(f"{place}/{name}" for name in ("requests", "proc", "server"))
    return [point for point in zygote.points("whole_update", place, log) if not any(name in point.shown for name in strange)]


def told(place: Path) -> list[str]:
    lines = handover.read_progress(place / "updates" / "progress.ndjson")
    return [line.update.state for line in lines if line.update is not None]


def test_a_stage_that_is_cut_off_again_and_again_leaves_no_remains(ram: Path, zygote: cut_off.Zygote) -> None:
    """Kills that follow one another at the same place do not pile up."""
    layout = factory(ram / "root")
    nothing(layout)
    found = zygote.points("stage_and_begin", layout.root, ram / "calls.txt")
    shutil.rmtree(layout.root)
    layout = factory(ram / "root")
    nothing(layout)
    for _ in range(3):
        zygote.kill_at(found[len(found) // 2], "stage_and_begin", layout.root)
        assert running(layout) == OLD_NAME
    assert stage(layout) == NEW_NAME
    assert {path.name for path in layout.versions.iterdir()} == {OLD_NAME, NEW_NAME}


# -------------------------------------------------------------------------------------------------------------- from the network to the disk


def spoiled(data: bytes) -> bytes:
    return bytes((data[0] ^ 1,)) + data[1:]


PARTS: dict[str, tuple[bytes, int] | None] = {
    "from nothing": None,
    "longer than its ledger": (fetching.IMAGE[:20_000] + bytes(9_000), 16_384),
    "spoiled where it was kept": (spoiled(fetching.IMAGE[:32_768]), 32_768),
}
LEAST_OF_A_TRANSFER = {"from nothing": 45, "longer than its ledger": 35, "spoiled where it was kept": 70}


@pytest.mark.slow
@pytest.mark.spec("U-201")
@pytest.mark.parametrize("case", PARTS)
def test_a_transfer_killed_at_each_call_ends_with_the_signed_file(ram: Path, zygote: cut_off.Zygote, case: str) -> None:
    """What its ledger vouches for is on the disk at every moment, is what the next run goes on from, and the end is the signed file alone."""
    place, laid = ram / "place", PARTS[case]
    downloads, name = place / "downloads", fetching.SHA256.hex()
    resumed_from = set()
    with mirrors.running() as mirror:
        mirror.files["/image"] = fetching.IMAGE

        def fresh() -> None:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            (place / "url").write_text(mirror.url, "ascii")
            if laid is not None:
                fetching.lay_part(place, *laid)

        fresh()
        found = zygote.points("download", place, ram / "calls.txt")
        assert len(found) >= LEAST_OF_A_TRANSFER[case], [str(point) for point in found]
        assert (downloads / name).read_bytes() == fetching.IMAGE, "the step itself, not cut off"
        for point in found:
            fresh()
            zygote.kill_at(point, "download", place)
            done, safe, kept = (downloads / name).exists(), fetching.vouched(place), b""
            if done:
                assert (downloads / name).read_bytes() == fetching.IMAGE, f"a file that is not whole has the name of one: {point}"
            elif safe:
                kept = (downloads / f"{name}.part").read_bytes()[:safe]
                before = b"" if laid is None else laid[0][: laid[1]]
                goes_on = before + fetching.IMAGE[len(before) :]
                assert kept in (fetching.IMAGE[:safe], goes_on[:safe]), f"the ledger vouches for what is not there: {point}"
            mirror.requests.clear()
            fetching.download(place)
            assert (downloads / name).read_bytes() == fetching.IMAGE, str(point)
            asked = [wanted for _, wanted in mirror.requests]
            if done:
                assert asked == [], str(point)
            elif safe == len(fetching.IMAGE):
                assert asked == ([] if kept == fetching.IMAGE else [None]), str(point)
            else:
                assert asked[0] == (f"bytes={safe}-" if safe else None), str(point)
                resumed_from.add(safe)
    assert len(resumed_from) >= 3, "cut at several stretches"


@pytest.mark.slow
@pytest.mark.spec("U-107 U-108")
def test_what_was_signed_is_never_forgotten_by_a_kill(
    ram: Path, zygote: cut_off.Zygote, caplog: pytest.LogCaptureFixture
) -> None:
    """Counters, time floor and metadata: at each call every number is the old or the new one, in a whole file, and the next run reaches the new."""
    caplog.set_level("WARNING", "tuf")  # python-tuf tells a lot, a hundred times
    template, place = ram / "template", ram / "place"
    with mirrors.running() as mirror:
        (ram / "world").mkdir()
        world = World(ram / "world", mirror)
        world.units = None
        world.order(world.release(1))
        fetching.lay_given(template, world)
        fetching.look_and_remember(template)
        world.pass_days(1, publish=False)
        world.director.rotate("timestamp")
        world.order(world.release(2))
        fetching.lay_given(template, world)
        before = fetching.remembered(template)

        def fresh() -> None:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(template, place, symlinks=True)

        fresh()
        found = zygote.points("look_and_remember", place, ram / "calls.txt")
        after = fetching.remembered(place)
        assert len(found) >= 85, [str(point) for point in found]
        assert all(after[name] >= number for name, number in before.items())
        risen = {name for name, number in after.items() if number > before.get(name, -1)}
        assert risen >= {"desired", "floor", "release of agent"}
        assert risen >= {f"{repo}/{role}.json" for repo in ("director", "image") for role in ("timestamp", "snapshot")}
        assert "director/root_history/2.root.json" in risen
        for point in found:
            fresh()
            zygote.kill_at(point, "look_and_remember", place)
            cut = fetching.remembered(place)
            assert not [name for name, number in before.items() if cut.get(name, -1) < number], str(point)
            fetching.look_and_remember(place)
            assert fetching.remembered(place) == after, str(point)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "version", "least"), [("use_content", fetching.shown, 20), ("use_profiles", fetching.in_use, 10)]
)
def test_artifacts_killed_at_each_call_leave_a_whole_version_in_use(
    ram: Path, zygote: cut_off.Zygote, step: str, version: Callable[[Path], str | None], least: int
) -> None:
    template, place = ram / "template", ram / "place"
    fetching.lay_artifacts(template)
    assert version(template) == "1.0"

    def fresh() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)

    fresh()
    found = zygote.points(step, place, ram / "calls.txt")
    assert len(found) >= least, [str(point) for point in found]
    assert version(place) == "1.1"
    seen = set()
    for point in found:
        fresh()
        zygote.kill_at(point, step, place)
        seen.add(version(place))
        fetching.STEPS[step](place)
        assert version(place) == "1.1", str(point)
        assert {path.name for path in place.glob("content/*/*") if path.is_dir()} <= fetching.KEPT_TREES, f"remains after {point}"
    assert seen == {"1.0", "1.1"}, "each moment has one of both"
