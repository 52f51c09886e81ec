"""kill -9 at each system call of installer and launcher that changes the disk: afterwards a complete version starts, and the step goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent import launcher
from edge_agent.updater import install
from edge_agent.updater.layout import Layout, SeatState
from tests.edge_agent.updater import steps
from tests.edge_agent.updater.places import NEW, NEW_NAME, OLD_NAME, begin, factory, running, stage
from tests.support import cut_off
from tests.support.packages import tiny


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


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_at_each_call_that_changes_the_disk(tmp_path: Path, case: str) -> None:
    step, prepare, well = CASES[case]
    template = factory(tmp_path / "template")
    prepare(template)
    root = tmp_path / "root"

    def fresh() -> Layout:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(template.root, root, symlinks=True)
        return Layout(root)

    command = cut_off.python("tests.edge_agent.updater.steps", step, root)
    layout = fresh()
    found = cut_off.points(command, root, steps.READY, tmp_path / "calls.txt")
    assert len(found) >= LEAST[case], [str(point) for point in found]
    assert well(layout), "the step itself, not cut off"
    for point in found:
        layout = fresh()
        cut_off.kill_at(point, command)
        name = launcher.count(root)
        assert name is not None and layout.complete(name) and layout.pointed("agent") == name, str(point)
        if step != "stage_and_begin" or seat(layout).trial is None:
            steps.STEPS[step](layout)
        assert well(layout), str(point)
        layout.clean()
        assert not [path for path in layout.versions.iterdir() if not layout.complete(path.name)], f"remains after {point}"


def test_a_stage_that_is_repeated_after_each_kill_ends(tmp_path: Path) -> None:
    """Kills that follow one another at the same place do not pile up remains."""
    layout = factory(tmp_path / "root")
    nothing(layout)
    command = cut_off.python("tests.edge_agent.updater.steps", "stage_and_begin", layout.root)
    found = cut_off.points(command, layout.root, steps.READY, tmp_path / "calls.txt")
    shutil.rmtree(layout.root)
    layout = factory(tmp_path / "root")
    nothing(layout)
    half = found[len(found) // 2]
    for _ in range(3):
        cut_off.kill_at(half, command)
        assert running(layout) == OLD_NAME
    assert stage(layout) == NEW_NAME
    assert {path.name for path in layout.versions.iterdir()} == {OLD_NAME, NEW_NAME}
