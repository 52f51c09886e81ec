"""`make tuf-conformance`: run the public conformance suite for TUF clients against `edge-agent tuf-client`.

The suite (github.com/theupdateframework/tuf-conformance) is fetched at one pinned commit, whose hash git checks with everything in it, and kept
below build/. It is no part of this repository and nothing else needs it: `make test` proves the same properties with tests of our own.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from scripts import say, system_packages

ROOT = Path(__file__).resolve().parent.parent
SUITE = "https://github.com/theupdateframework/tuf-conformance"
COMMIT = "eec841c186f81f2d9d8d30460c7e7deefa615f9e"
"""August 2026, after version 2.4.0."""
KEPT = ROOT / "build" / "tuf-conformance"


def fetch(source: str) -> Path:
    """The suite at the pinned commit, from the kept copy or from `source`. Ends with one sentence where that is impossible."""
    folder = KEPT / COMMIT
    if (folder / "tuf_conformance").is_dir():
        return folder
    if shutil.which("git") is None:
        say.stop("git is needed to fetch the conformance suite: apt-get install git")
    say.step(f"Fetching the conformance suite at {COMMIT[:12]} from {source}")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as work:
        log = KEPT / "fetch.log"
        for command in (
            ["git", "init", "--quiet", work],
            ["git", "-C", work, "fetch", "--quiet", "--depth", "1", source, COMMIT],
            ["git", "-C", work, "fsck", "--strict", "--no-dangling"],
            ["git", "-C", work, "checkout", "--quiet", "--detach", COMMIT],
        ):
            if say.run(command, log=log) != 0:
                say.stop(
                    f"The conformance suite could not be fetched from {source}, so it was not run. With a copy of it within reach:"
                    ' make tuf-conformance ARGS="--from <git address or folder>"'
                )
        head = subprocess.run(["git", "-C", work, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        if head != COMMIT:
            say.stop(f"{source} gave commit {head} instead of {COMMIT}; it was not run.")
        shutil.rmtree(Path(work) / ".git")
        shutil.copytree(work, folder)
    return folder


def run(suite: Path, more: list[str]) -> int:
    client = Path(sys.executable).parent / "edge-agent"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(suite), "-p", "no:cacheprovider"]
        command += [f"--junit-xml={report}", "--entrypoint", f"{client} tuf-client", *more, str(suite / "tuf_conformance")]
        code = subprocess.run(command, cwd=suite, check=False).returncode
        cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
    missed = [case for case in cases if any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))]
    print(f"\nTUF conformance suite {COMMIT[:12]}: {len(cases) - len(missed)} of {len(cases)} passed", flush=True)
    return code if code or cases else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="make tuf-conformance")
    parser.add_argument(
        "--from", dest="source", default=SUITE, help="another place to fetch the suite from (default: %(default)s)"
    )
    asked, more = parser.parse_known_args()
    system_packages.ensure(["tuf-conformance"])
    return run(fetch(asked.source), more)


if __name__ == "__main__":
    sys.exit(main())
