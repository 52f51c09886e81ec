"""`python -m tests.demo.release good|bad VERSION`: builds a release of the agent as it stands here, signs it, and says what to do with the pack.

`bad` is a real release too, with a defect that its own self-test does not find: it ends a moment after its start.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts import release as builder
from scripts.say import note, step, stop
from tests.demo import releases, setup
from tests.demo.setup import Places

START_OF_RUN: Final = "    async def run(self) -> None:\n"
DEFECT: Final = START_OF_RUN + '        raise RuntimeError("a defect that shows only when the agent runs")\n'


def build(places: Places, version: str, *, alter: Callable[[Path], None] = lambda tree: None) -> Path:
    """A pack, signed as the next release."""
    places.images.mkdir(parents=True, exist_ok=True)
    places.releases.mkdir(parents=True, exist_ok=True)
    image = places.images / builder.file_name(version)
    with tempfile.TemporaryDirectory(dir=places.images, prefix=".tree-") as folder:
        tree = Path(folder) / "tree"
        builder.make_tree(tree, version, with_interpreter=False, bytecode=True, alter=alter)
        builder.pack(tree, image)
    pack = places.releases / f"agent-{version}.kfpack"
    releases.sign(places, image, version, pack)
    return pack


def break_it(tree: Path) -> None:
    source = tree / "lib" / "app" / "edge_agent" / "supervisor.py"
    text = source.read_text("utf-8")
    broken = text.replace(START_OF_RUN, DEFECT, 1)
    if broken == text:
        raise releases.ReleaseDeskError("the place for the defect was not found")
    source.write_text(broken, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.demo.release", description="A release for the running demo.")
    parser.add_argument("kind", choices=["good", "bad"])
    parser.add_argument("version")
    parser.add_argument("--dir", type=Path, default=Path("var/demo"), help="of the demo (default: %(default)s)")
    asked = parser.parse_args()
    places = Places(asked.dir.absolute())
    known = setup.load(places)
    if known is None:
        stop(f"There is no demo in {asked.dir}: start it with `make demo`.")
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}", asked.version):
        stop("A version looks like 0.2.0.")
    step(f"building and signing release {asked.version}")
    try:
        pack = build(places, asked.version, **({"alter": break_it} if asked.kind == "bad" else {}))
    except releases.ReleaseDeskError as err:
        stop(str(err))
    note(f"{pack.relative_to(Path.cwd()) if pack.is_relative_to(Path.cwd()) else pack}")
    note(
        f"Upload it at http://127.0.0.1:{known.web_port}/updates/releases, then ask for a rollout at http://127.0.0.1:{known.web_port}/updates/new"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
