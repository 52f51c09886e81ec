"""A child process that captures and seals, and says on its output what the outbox has confirmed: killed or cut off at any moment."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_agent.outbox import Outbox
from tests.support.contract import BOOT_ID, FLEET, RECORD, TERMINAL, StepClock, notice


def main() -> None:
    outbox = Outbox(Path(sys.argv[1]), RECORD, FLEET, TERMINAL, StepClock())
    outbox.start_stream(BOOT_ID)
    number = int(sys.argv[2])
    while True:
        number += 1
        outbox.capture(notice(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if number % 7 == 0:
            outbox.seal()


if __name__ == "__main__":
    main()
