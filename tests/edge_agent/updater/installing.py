"""Installs version after version on a disk that may lose power: `python -m tests.edge_agent.updater.installing <root> <from>`.

Says what is on the disk for good, one line each: `trial N`, `good N`, `lost N` (its tries were used up), `back N`. Every third version is taken
back instead of confirmed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edge_agent import launcher
from edge_agent.updater import install
from edge_agent.updater.layout import Layout
from tests.edge_agent.updater import places
from tests.support.packages import Package, tiny


def package(number: int) -> Package:
    return tiny(f"2.{number}", release=number, files=12, padding=20_000)


def say(word: str, number: int) -> None:
    print(word, number, flush=True)


def main() -> None:
    layout, number = Layout(Path(sys.argv[1])), int(sys.argv[2])
    while True:
        new = package(number)
        name = places.begin(layout, new)
        say("trial", number)
        launcher.count(layout.root)
        if number % 3:
            # After two cuts in one trial the launcher has counted four starts and given it up: then there is nothing to confirm.
            say("good" if install.commit(layout, name) else "lost", number)
        else:
            install.roll_back(layout, name, "memory")
            say("back", number)
        layout.clean()
        number += 1


if __name__ == "__main__":
    main()
