"""`make release`: the same input gives the same bytes, and what comes out starts anywhere with nothing but what it carries."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edge_agent.updater import archive, install
from edge_agent.updater.install import SelfTestLimits
from edge_agent.updater.layout import About
from scripts import release

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_small_release_is_the_same_each_time(tmp_path: Path) -> None:
    one, two = (release.build(tmp_path / name, "9.8.7", with_interpreter=False) for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.name.startswith("kiosk-fleet-agent-9.8.7-")
    with tarfile.open(one) as tar:
        members = tar.getmembers()
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]  # it is a file
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}
    assert manifest["version"] == "9.8.7"
    assert "lib/app/edge_agent/launcher.py" in manifest["files"]
    assert any(name.endswith(".pyc") for name in manifest["files"])
    assert not any("fleet_server" in name or "simulators" in name for name in manifest["files"])


@pytest.mark.slow
def test_byte_code_names_no_place_of_the_builder(tmp_path: Path) -> None:
    path = release.build(tmp_path, "9.8.7", with_interpreter=False)
    with tarfile.open(path) as tar:
        for member in tar.getmembers():
            if member.name.endswith(".pyc"):
                content = tar.extractfile(member)
                assert content is not None and str(tmp_path).encode() not in content.read(), member.name


@pytest.mark.slow
@pytest.mark.serial
def test_a_whole_release_starts_with_what_it_carries(tmp_path: Path) -> None:
    path = release.build(tmp_path / "out", "9.8.7")
    about = release.summary(path)
    with archive.open_image(path) as image:
        name = install.lay_out(tmp_path / "root", image, About(version="9.8.7", release=1, sha256=str(about["sha256"])))
    tree = tmp_path / "root" / "versions" / name
    path.unlink()
    install.self_test(tree, "9.8.7", SelfTestLimits())
    asked = (
        "import sys, ssl, sqlite3, cryptography, msgspec, tuf, zstandard, json;"
        "print(json.dumps([sys.prefix, *(m.__file__ for m in (ssl, sqlite3, cryptography, msgspec, tuf, zstandard))]))"
    )
    start = (tree / "lib" / "start.py").read_text().split("from edge_agent")[0]
    probe = tree / "lib" / "probe.py"
    probe.write_text(start + asked)
    environment = {"PATH": "/nonexistent", "LD_LIBRARY_PATH": str(tree / "python" / "solib")}
    done = subprocess.run(
        [tree / "python" / "bin" / "python3", "-I", "-B", "-S", probe],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        cwd="/",
    )
    for place in json.loads(done.stdout):
        assert Path(place).is_relative_to(tree), f"{place} is not of the release"


def test_the_command_says_what_a_version_may_be(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.release", "--version", "../evil", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "letters, digits" in done.stderr
    assert not list(tmp_path.iterdir())
