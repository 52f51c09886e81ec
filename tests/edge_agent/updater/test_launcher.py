from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent import launcher
from edge_agent.updater import install
from edge_agent.updater.layout import Layout, name_of
from tests.edge_agent.updater.places import begin, factory
from tests.support.packages import tiny
from tests.support.processes import Processes
from tests.support.waiting import wait_until

pytestmark = pytest.mark.spec("U-305")

SOURCE = Path(launcher.__file__)
NAMES = ["a", "b", "c"]

seats = st.fixed_dictionaries(
    {},
    optional={
        "good": st.sampled_from([*NAMES, None, 7]),
        "previous": st.sampled_from([*NAMES, None]),
        "trial": st.one_of(
            st.none(),
            st.just("nonsense"),
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.sampled_from([*NAMES, None, 1]),
                    "tries": st.sampled_from([0, 1, 3, 9, "x", None]),
                    "max": st.sampled_from([3, 1, None]),
                    "ends": st.sampled_from([[], ["hung"], ["crashed", "memory"], None, [1]]),
                },
            ),
        ),
    },
)


@settings(max_examples=300)
@given(seats, st.sampled_from([*NAMES, None]), st.frozensets(st.sampled_from(NAMES)))
def test_whatever_the_state_says_a_complete_version_starts_if_there_is_one(
    own: dict[str, Any], factory: Any, whole: frozenset[str]
) -> None:
    state = {"format": 1, "factory": factory, "seats": {"agent": own}}
    name: str | None = None
    for _ in range(6):
        name, state = launcher.decide(state, "agent", lambda one: one in whole, NAMES)
        assert (name in whole) if whole else (name is None)
    if whole:
        assert state["seats"]["agent"]["trial"] is None, "no trial lasts for ever"
        assert launcher.decide(state, "agent", lambda one: one in whole, NAMES) == (name, state), "and then it stays"


@settings(max_examples=100)
@given(st.integers(1, 6), st.lists(st.sampled_from(["crashed", "hung", "memory"]), max_size=8))
def test_a_trial_has_exactly_its_tries(most: int, ends: list[str]) -> None:
    state: dict[str, Any] = {
        "factory": "a",
        "seats": {"agent": {"good": "a", "trial": {"name": "b", "tries": 0, "max": most, "ends": []}}},
    }
    started = []
    for at in range(most + 2):
        name, state = launcher.decide(state, "agent", lambda _: True, NAMES)
        started.append(name)
        if at < len(ends):
            state = launcher.end(state, "agent", ends[at])
    assert started == ["b"] * most + ["a", "a"]
    told = ends[:most]
    assert state["seats"]["agent"]["verdict"]["reason"] == (told[-1] if told else "crashed")


def test_the_other_seat_is_left_alone() -> None:
    state = {
        "factory": "a",
        "seats": {"agent": {"good": "a"}, "updater": {"good": "a", "trial": {"name": "b", "tries": 0, "max": 3}}},
    }
    assert launcher.decide(state, "agent", lambda _: True, NAMES)[1]["seats"]["updater"] == state["seats"]["updater"]  # type: ignore[index]
    assert launcher.decide(state, "updater", lambda _: True, NAMES)[0] == "b"


def test_it_needs_the_standard_library_only_and_no_other_module_of_ours() -> None:
    tree = ast.parse(SOURCE.read_text("utf-8"))
    found = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    found |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} <= set(sys.stdlib_module_names)


def test_a_copy_of_the_file_alone_works(tmp_path: Path) -> None:
    layout = factory(tmp_path / "root")
    copy = tmp_path / "launcher.py"
    copy.write_bytes(SOURCE.read_bytes())
    begin(layout)
    command = [sys.executable, "-I", "-S", str(copy), "count", "--root", str(layout.root)]
    subprocess.run(command, check=True, cwd="/")
    trial = layout.state().seat("agent").trial
    assert trial is not None and trial.tries == 1
    said = {**os.environ, "SERVICE_RESULT": "watchdog"}
    subprocess.run([*command[:4], "ended", "--root", str(layout.root)], check=True, env=said)
    trial = layout.state().seat("agent").trial
    assert trial is not None and trial.ends == ("hung",)


def test_no_version_at_all_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert launcher.main(["count", "--root", str(tmp_path)]) == 1
    assert "no complete version" in capfd.readouterr().err


def test_root_works_as_the_owner_of_the_root(tmp_path: Path) -> None:
    """What it writes belongs to the updater's user, and a directory that this user may not enter stays closed."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    shared = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    try:
        shared.chmod(0o755)
        layout = factory(shared / "root")
        begin(layout)
        copy = shared / "launcher.py"
        copy.write_bytes(SOURCE.read_bytes())
        subprocess.run(["chown", "-R", "65534:65534", str(layout.root)], check=True)
        python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
        subprocess.run([python, "-I", str(copy), "count", "--root", str(layout.root)], check=True)
        assert (layout.root / "state.json").stat().st_uid == 65534
    finally:
        subprocess.run(["rm", "-rf", str(shared)], check=True)


# ------------------------------------------------------------------------------------------------------- the loop, real processes


class Running:
    """A launcher in its loop over `root`."""

    def __init__(self, processes: Processes, layout: Layout, *more: str) -> None:
        quick = ["--poll-s", "0.02", "--backoff-s", "0.05", "--backoff-max-s", "0.1", "--stop-s", "2"]
        self.layout = layout
        self.child = processes.start_python("-I", str(SOURCE), "run", "--root", str(layout.root), *quick, *more, "--", "run")

    def wait_for_verdict(self) -> str:
        def found() -> str | None:
            verdict = self.layout.state().seat("agent").verdict
            return verdict.reason if verdict else None

        return str(wait_until(found, "a verdict"))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    # The old version says that it runs, and beats.
    script = f"while :; do echo $$ >{tmp_path}/old; date +%N >{tmp_path}/beat; sleep 0.05; done"
    return factory(tmp_path / "root", tiny("1.0.0", run=script))


@pytest.fixture
def processes(tmp_path: Path) -> Any:
    found = Processes(tmp_path)
    yield found
    found.end_all()


def old_runs(tmp_path: Path) -> bool:
    (tmp_path / "old").unlink(missing_ok=True)
    return bool(wait_until((tmp_path / "old").exists, "the old version running"))


BAD: dict[str, tuple[str, str]] = {
    "crashes at start": ("exit 1", "crashed"),
    "ends at once, content": ("exit 0", "crashed"),
    "is killed by a signal": ("kill -SEGV $$", "crashed"),
    "never beats": ("exec sleep 600", "hung"),
    "ignores SIGTERM and hangs": ("trap '' TERM; while :; do sleep 1; done", "hung"),
    "eats memory": (f"exec {sys.executable} -c 'x = bytearray(300 << 20); import time; time.sleep(600)'", "memory"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_version_gives_way_to_the_old_one(tmp_path: Path, layout: Layout, processes: Processes, how: str) -> None:
    script, reason = BAD[how]
    begin(layout, tiny("1.1.0", run=script))
    hang = "0.4" if reason == "hung" else "20"
    loop = Running(
        processes, layout, "--heartbeat", str(tmp_path / "beat"), "--hang-s", hang, "--start-s", hang, "--rss-mib", "200"
    )
    assert loop.wait_for_verdict() == reason
    assert old_runs(tmp_path)
    assert loop.child.running


def test_a_good_version_goes_on_and_a_switch_starts_the_next(tmp_path: Path, layout: Layout, processes: Processes) -> None:
    loop = Running(processes, layout)
    assert old_runs(tmp_path)
    new = tiny("1.1.0", run=f"trap 'exit 0' TERM; while :; do : >{tmp_path}/new; sleep 0.05; done")
    name = begin(layout, new)
    layout.restart_agent()
    wait_until((tmp_path / "new").exists, "the new version running")
    assert install.commit(layout, name)
    assert loop.child.running
    assert layout.state().seat("agent").verdict is None


def test_the_end_of_the_launcher_ends_its_process(tmp_path: Path, layout: Layout, processes: Processes) -> None:
    loop = Running(processes, layout)
    assert old_runs(tmp_path)
    pid = int((tmp_path / "old").read_text())
    loop.child.popen.send_signal(signal.SIGTERM)
    assert loop.child.popen.wait(10) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_version_that_crashes_later_is_started_again_and_keeps_its_place(
    tmp_path: Path, layout: Layout, processes: Processes
) -> None:
    package = tiny("1.1.0", run=f"echo x >>{tmp_path}/starts; exit 1")
    install.commit(layout, begin(layout, package))
    loop = Running(processes, layout)
    starts = tmp_path / "starts"
    wait_until(lambda: starts.exists() and len(starts.read_text().split()) >= 5, "five starts")
    assert loop.child.running
    assert layout.state().seat("agent").good == name_of("1.1.0", package.sha256)


def test_on_a_disk_that_cannot_be_written_it_starts_what_is_there(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    begin(layout)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(launcher, "write_state", refuse)
    assert launcher.count(layout.root) is not None


def test_the_state_file_is_readable_json_for_the_person_at_the_terminal(layout: Layout) -> None:
    assert json.loads((layout.root / "state.json").read_text())["seats"]["agent"]["good"] == layout.state().factory
