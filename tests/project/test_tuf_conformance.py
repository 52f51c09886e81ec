"""`make tuf-conformance` takes the suite at one commit only, from wherever it is fetched."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts import tuf_conformance


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that looks like the suite, with two commits; the first one is pinned."""
    made = tmp_path / "suite"
    (made / "tuf_conformance").mkdir(parents=True)
    (made / "tuf_conformance" / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--entrypoint', required=True)\n"
    )
    test = made / "tuf_conformance" / "test_a.py"
    test.write_text(
        "def test_a(request):\n    assert request.config.getoption('--entrypoint').endswith('edge-agent tuf-client')\n"
    )
    git(made, "init", "--quiet")
    git(made, "config", "uploadpack.allowAnySHA1InWant", "true")
    git(made, "add", ".")
    git(made, "commit", "--quiet", "-m", "one")
    monkeypatch.setattr(tuf_conformance, "COMMIT", git(made, "rev-parse", "HEAD"))
    monkeypatch.setattr(tuf_conformance, "KEPT", tmp_path / "kept")
    test.write_text("def test_a():\n    raise AssertionError('not the pinned one')\n")
    git(made, "commit", "--quiet", "-a", "-m", "two")
    return made


def test_the_pinned_commit_is_fetched_once_and_run(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = tuf_conformance.fetch(str(suite))
    assert tuf_conformance.run(kept, []) == 0
    assert "1 of 1 passed" in capfd.readouterr().out
    assert tuf_conformance.fetch("/nowhere") == kept


def test_a_suite_that_fails_is_told_as_failed(suite: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kept = tuf_conformance.fetch(str(suite))
    (kept / "tuf_conformance" / "test_a.py").write_text("def test_a():\n    assert False\n\ndef test_b():\n    pass\n")
    assert tuf_conformance.run(kept, []) == 1
    assert "1 of 2 passed" in capfd.readouterr().out


@pytest.mark.parametrize("commit", ["0" * 40, "HEAD"])
def test_another_commit_is_not_run(
    suite: Path, commit: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tuf_conformance, "COMMIT", commit)
    with pytest.raises(SystemExit):
        tuf_conformance.fetch(str(suite))
    assert "not run" in capsys.readouterr().err
    assert not (tuf_conformance.KEPT / commit).exists()


def test_no_network_is_said_clearly(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        tuf_conformance.fetch("/nowhere/at/all")
    assert "could not be fetched from /nowhere/at/all, so it was not run" in capsys.readouterr().err
