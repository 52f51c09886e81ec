"""What is cut off: one step of the updater or launcher in a process of its own, `python -m tests.edge_agent.updater.steps <step> <root>`.

All imports are done before the line `READY` is written (to a descriptor that strace shows), so that calls of the step itself can be told apart.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_agent import launcher
from edge_agent.updater import install
from edge_agent.updater.layout import Layout
from tests.edge_agent.updater import places

READY = "the step begins"


def stage_and_begin(layout: Layout) -> None:
    places.begin(layout)


def commit_and_clean(layout: Layout) -> None:
    install.commit(layout, places.NEW_NAME)
    layout.clean()


def roll_back_and_clean(layout: Layout) -> None:
    install.roll_back(layout, places.NEW_NAME, "memory")
    layout.clean()


def count(layout: Layout) -> None:
    launcher.count(layout.root)


def ended(layout: Layout) -> None:
    launcher.ended(layout.root, "agent", "crashed")


STEPS = {step.__name__: step for step in (stage_and_begin, commit_and_clean, roll_back_and_clean, count, ended)}


def main() -> None:
    step, layout = STEPS[sys.argv[1]], Layout(Path(sys.argv[2]))
    os.write(2, READY.encode())
    step(layout)


if __name__ == "__main__":
    main()
