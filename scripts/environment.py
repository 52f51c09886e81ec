"""The Python environment: `.venv`, made from locks/ with hashes, and made again only when something it was made from has changed.

Packages come from wherever pip is configured to look. Source-only packages are built with the pinned setuptools of locks/build.txt and
`--no-build-isolation`: an isolated build would fetch build tools that no hash covers.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from scripts import say, system_packages

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "made-from.sha256"
BUILD_LOCK = ROOT / "locks" / "build.txt"
LOCK = ROOT / "locks" / "dev.txt"


def fingerprint() -> str:
    """What the environment depends on: locks, the package's own metadata, the interpreter."""
    digest = hashlib.sha256()
    for path in (BUILD_LOCK, LOCK):
        digest.update(path.read_bytes())
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = (settings["build-system"], settings["project"], settings["tool"]["setuptools"], sys.version_info[:2], str(ROOT))
    digest.update(repr(parts).encode())
    return digest.hexdigest()


def ensure() -> None:
    """Bring `.venv` to the state of the lock. Does nothing, in a few milliseconds, when it is there already."""
    wanted = fingerprint()
    if _usable() and STAMP.is_file() and STAMP.read_text(encoding="ascii").strip() == wanted:
        return
    system_packages.ensure(["python"])
    if not _usable():
        say.step(f"Making the Python environment in .venv (Python {sys.version_info.major}.{sys.version_info.minor})")
        _do([sys.executable, "-m", "venv", "--clear", VENV])
    count = len(re.findall(r"^[a-z0-9].*==", LOCK.read_text(encoding="utf-8"), re.MULTILINE))
    say.step(f"Installing {count} Python packages from locks/dev.txt, each checked against its hash")
    pip: list[str | Path] = [VENV / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    _do([*pip, "--require-hashes", "-r", BUILD_LOCK])
    _do([*pip, "--require-hashes", "--no-deps", "--no-build-isolation", "-r", LOCK], of=count)
    _do([*pip, "--no-deps", "--no-build-isolation", "--editable", ROOT])
    STAMP.write_text(wanted + "\n", encoding="ascii")


def _usable() -> bool:
    python = VENV / "bin" / "python"
    if not python.exists():
        return False
    ask = [str(python), "-c", "import sys, pip; print(*sys.version_info[:2])"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=False)
    return answer.returncode == 0 and answer.stdout.split() == [str(part) for part in sys.version_info[:2]]


def _do(command: list[str | Path], *, of: int = 0) -> None:
    seen = 0

    def progress(line: str) -> str | None:
        nonlocal seen
        if line.startswith(("Collecting", "Requirement already satisfied")):
            seen += 1
            return f"package {seen} of {of}: {line.split()[1]}" if of else line
        return "building and unpacking" if line.startswith(("Building wheel", "Installing collected")) else None

    # A `user = true` in somebody's pip settings would make every installation into an environment fail.
    settings = {**os.environ, "PIP_USER": "0", "PYTHONUNBUFFERED": "1"}
    if say.run(command, log=ROOT / ".venv.log", progress=progress, env=settings, cwd=ROOT) != 0:
        say.stop("The Python environment could not be made; the reason is above and in .venv.log. `make clean` starts afresh.")


if __name__ == "__main__":
    ensure()
