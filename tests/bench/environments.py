"""Environments of the benchmark's own, kept below `build/` (git-ignored): a kiosk's, with the edge extra and nothing else, and the peer's."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from scripts import say
from tests.support.processes import ROOT

FOLDER = ROOT / "build" / "bench"
OWN_PACKAGES = ("protocols", "firmware_profiles", "edge_agent")
PEER = "thingsboard-gateway"
PEER_VERSION = "3.8.5"


class NoEnvironment(Exception):
    """An environment could not be made; the message says why."""


def kiosk() -> Path:
    """The interpreter of an environment with exactly what a kiosk installs."""
    lock, build = ROOT / "locks" / "edge.txt", ROOT / "locks" / "build.txt"
    made_from = hashlib.sha256(lock.read_bytes() + build.read_bytes()).hexdigest()
    hashed = ["--require-hashes", "--no-build-isolation", "--no-deps"]
    python = _environment("kiosk", made_from, ["--require-hashes", "-r", str(build)], [*hashed, "-r", str(lock)])
    _install_agent(python)
    return python


def peer() -> Path:
    """The interpreter of an environment with the peer."""
    return _environment("peer", PEER_VERSION, [f"{PEER}=={PEER_VERSION}"])


def _install_agent(python: Path) -> None:
    """Our own packages as an installation leaves them: copied, and compiled, because compiling at each start costs memory and time."""
    packages = site_packages(python)
    for name in OWN_PACKAGES:
        shutil.rmtree(packages / name, ignore_errors=True)
        shutil.copytree(ROOT / name, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
    _run([str(python), "-m", "compileall", "-q", str(packages)])


def site_packages(python: Path) -> Path:
    return python.parents[1] / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def _environment(name: str, made_from: str, *installs: list[str]) -> Path:
    folder = FOLDER / f"{name}-py{sys.version_info.major}.{sys.version_info.minor}"
    python, stamp = folder / "bin" / "python", folder / "made-from"
    if stamp.is_file() and stamp.read_text("ascii") == made_from:
        return python
    say.step(f"Making the benchmark's environment {folder.relative_to(ROOT)}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    for arguments in installs:
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", *arguments])
    stamp.write_text(made_from, "ascii")
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise NoEnvironment(f"{' '.join(command[:5])} … ended with {done.returncode}: {done.stdout.strip()[-500:]}")
