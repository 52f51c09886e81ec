"""The programs behind the Makefile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import assets, checks, environment, say, system_packages
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="tests.protocols.codecs.test_escpos" name="a" time="1.5"/>
<testcase classname="tests.protocols.test_x.TestIt" name="b" time="0.5"><failure message="no"/></testcase>
<testcase classname="tests.edge_agent.test_y" name="c" time="2.0"><skipped/></testcase>
<testcase classname="tests.test_top" name="d" time="0.25"><error message="no"/></testcase>
</testsuite></testsuites>"""


def executable(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without anything, whose apt-get is a script; its log is apt.log in the folder returned."""
    need = system_packages.Need((tmp_path / "installed").exists, "mosquitto-of-tests", "as the broker")
    monkeypatch.setattr(system_packages, "NEEDS", {"broker": (need,)})
    monkeypatch.setattr(system_packages, "SEARCH_PATH", str(tmp_path))
    monkeypatch.setattr(system_packages, "_as_root", lambda: ["env"])
    executable(tmp_path / "apt-cache", "echo 'Candidate: 2.0'")
    return tmp_path


class TestSystemPackages:
    def test_nothing_is_touched_that_is_there(self, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (machine / "installed").touch()
        system_packages.ensure(["broker"])
        assert capsys.readouterr().out == ""

    def test_what_is_missing_is_installed_without_asking(self, machine: Path, capsys: pytest.CaptureFixture[str]) -> None:
        executable(machine / "apt-get", f'echo "$@" >> {machine}/apt.log; touch {machine}/installed')
        system_packages.ensure(["broker"])
        assert (machine / "apt.log").read_text(encoding="utf-8") == "install --yes --no-install-recommends mosquitto-of-tests\n"
        assert "mosquitto-of-tests as the broker" in capsys.readouterr().out

    def test_lists_are_read_first_where_apt_does_not_know_the_package(self, machine: Path) -> None:
        executable(machine / "apt-cache", "echo 'Candidate: (none)'")
        executable(machine / "apt-get", f'echo "$1" >> {machine}/apt.log; [ "$1" = install ] && touch {machine}/installed')
        system_packages.ensure(["broker"])
        assert (machine / "apt.log").read_text(encoding="utf-8").split() == ["update", "install"]

    def test_stale_lists_are_renewed_once(self, machine: Path) -> None:
        executable(
            machine / "apt-get",
            f'echo "$1" >> {machine}/apt.log; case "$1" in update) touch {machine}/fresh;; '
            f"*) [ -e {machine}/fresh ] && touch {machine}/installed;; esac",
        )
        system_packages.ensure(["broker"])
        assert (machine / "apt.log").read_text(encoding="utf-8").split() == ["install", "update", "install"]

    @pytest.mark.parametrize("why", ["no apt-get", "no root", "apt-get fails"])
    def test_where_it_is_impossible_one_sentence_names_the_package(
        self, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], why: str
    ) -> None:
        if why != "no apt-get":
            executable(machine / "apt-get", "echo no; exit 100")
        if why == "no root":
            monkeypatch.setattr(system_packages, "_as_root", lambda: None)
        with pytest.raises(SystemExit) as stopped:
            system_packages.ensure(["broker"])
        assert stopped.value.code == 1
        last = capsys.readouterr().err.strip().splitlines()[-1]
        assert "mosquitto-of-tests" in last
        assert "lease " in last  # "Please run …", "please install …"


class TestEnvironment:
    def test_the_fingerprint_follows_the_lock(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        before = environment.fingerprint()
        assert environment.fingerprint() == before
        lock = tmp_path / "dev.txt"
        lock.write_text(environment.LOCK.read_text(encoding="utf-8") + "# newer\n", encoding="utf-8")
        monkeypatch.setattr(environment, "LOCK", lock)
        assert environment.fingerprint() != before

    def test_find_python_takes_a_new_enough_one(self, tmp_path: Path) -> None:
        executable(tmp_path / "python3.11", "exit 1")  # there, but too old or broken
        executable(tmp_path / "python3", "exit 0")
        sh = shutil.which("sh")
        assert sh is not None
        asked = subprocess.run(
            [sh, "scripts/find-python"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        assert asked.stdout.strip() == str(tmp_path / "python3")

    def test_make_without_a_target_explains_itself(self) -> None:
        if shutil.which("make") is None:
            pytest.skip("an installed package is tested without make")
        asked = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert "make demo" in asked.stdout
        assert "make test" in asked.stdout


class TestAssets:
    def test_each_file_that_is_used_is_there_with_its_licence(self) -> None:
        if not assets.VENDOR.is_dir():
            pytest.skip("`make check` runs without the front-end packages")
        for package, files in assets.USED.items():
            assert (assets.VENDOR / f"{package}.LICENSE.txt").stat().st_size > 0
            for name in files.values():
                assert (assets.VENDOR / name).stat().st_size > 1000


class TestRun:
    def test_a_long_step_shows_that_it_lives(self, tmp_path: Path) -> None:
        """The child ends only after its progress was shown, so nothing here depends on speed."""
        gate, shown = tmp_path / "gate", tmp_path / "shown"
        child = "import pathlib, sys, time\nprint('half way', flush=True)\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"
        parent = (
            "import sys; from pathlib import Path; from scripts import say; say.LOG_LINE_EVERY_S = 0.05\n"
            "say.run([sys.executable, '-c', sys.argv[1], sys.argv[2]], log=Path(sys.argv[3]), progress=lambda line: line)"
        )
        with (
            shown.open("wb") as output,
            subprocess.Popen([sys.executable, "-c", parent, child, gate, tmp_path / "log"], cwd=ROOT, stdout=output) as running,
        ):
            wait_until(lambda: "s half way" in shown.read_text(encoding="utf-8"), "a line of progress")
            gate.touch()
            assert running.wait(20) == 0
        assert (tmp_path / "log").read_text(encoding="utf-8") == "half way\n"

    def test_a_failure_shows_the_end_of_the_log(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code = say.run(
            [sys.executable, "-c", "print('disk on fire'); raise SystemExit(4)"], log=tmp_path / "log", env=dict(os.environ)
        )
        assert code == 4
        assert "disk on fire" in capsys.readouterr().err


def test_the_closing_line_sums_up_all_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.xml"
    report.write_text(JUNIT, encoding="utf-8")
    tally = checks.Tally()
    tally.add(report)
    tally.add(tmp_path / "never-written.xml")
    assert tally.seconds == {"protocols": 2.0, "edge_agent": 2.0, "(top)": 0.25}
    checks.show(tally, 0.0)
    assert capsys.readouterr().out.splitlines()[-1] == "1 passed, 2 failed, 1 skipped"
