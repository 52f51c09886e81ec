"""`python -m tests.demo.ahead ROOT TERMINAL…`: puts the past of terminals into their spools before their agents start, and says so for each.

For terminals whose agent is a process of its own: a spool has one owner, and there it will be the agent.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from edge_agent import host, identity, spool
from edge_agent.clock import SystemClock, read_boot_id
from edge_agent.signing import FileKeyStore
from tests.demo.past import Past, TimeMachine
from tests.demo.processes import end_with_parent
from tests.demo.setup import Places, load

READY: Final = "ready"


def main(root: Path, terminals: list[str]) -> None:
    places = Places(root)
    setup = load(places)
    if setup is None:
        raise SystemExit(f"{places.file} is missing; `python -m tests.demo` makes it")
    members = {member.id: member for member in setup.city().processes}
    os_name = host.facts().os
    for terminal in terminals:
        days, records = 0, 0
        if setup.days:
            clock, folder = TimeMachine(SystemClock()), places.identity(terminal)
            with spool.only_one(places.state(terminal)):
                opened = spool.open_spool(
                    places.state(terminal), FileKeyStore(folder), identity.load(folder), clock, durable=False
                )
                past = Past(members[terminal], setup, opened.outbox, clock, read_boot_id(), os_name=os_name, continues=False)
                past.skip_known()
                while (told := past.next_day()) is not None:
                    days, records = days + 1, records + told
                opened.outbox.close(clean=True)
        print(READY, terminal, days, records, flush=True)


if __name__ == "__main__":
    end_with_parent()
    os.nice(5)
    main(Path(sys.argv[1]), sys.argv[2:])
