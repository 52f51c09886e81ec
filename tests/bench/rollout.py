"""Rows: a release through a small demo, from the second person's approval to the last terminal on it, and memory of updaters and agents."""

from __future__ import annotations

import tempfile
import threading
import time
from pathlib import Path

import msgspec

from tests.bench.machine import memory_of
from tests.bench.table import Row
from tests.demo.cut_off import process_with
from tests.support.city import POLICY, City, running_city
from tests.support.waiting import wait_until

LOOK_EVERY_S = 0.5


class Watch(threading.Thread):
    """The highest resident memory, MiB, of each process that `who` names; processes come and go."""

    def __init__(self, city: City) -> None:
        super().__init__()
        self._city, self._over = city, threading.Event()
        self.updaters: list[float] = []
        self.agents: list[float] = []

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        for terminal in self._city.updated():
            for found, pid in (
                (self.updaters, process_with(self._city.places.updater_config(terminal))),
                (self.agents, process_with(self._city.places.config(terminal))),
            ):
                if pid is not None:
                    try:
                        found.append(memory_of(pid).resident)
                    except OSError:
                        continue  # it has just ended

    def end(self) -> None:
        self._over.set()
        self.join()


def rows(*, terminals: int) -> list[Row]:
    policy = msgspec.structs.replace(
        POLICY, failure_count=terminals, failure_first=terminals, hall_percent=100.0, starts_per_minute=1000
    )
    with (
        tempfile.TemporaryDirectory(prefix="kf-bench-") as folder,
        running_city(Path(folder), terminals=terminals + 2, own_processes=terminals) as city,
    ):
        release = city.release("good", "0.2.0")
        before = Watch(city)
        before.look()
        watch = Watch(city)
        watch.start()
        rollout = city.roll_out(release, policy)
        began_s = time.monotonic()
        wait_until(lambda: city.state(rollout) == "finished", "the rollout", timeout_s=120 + 30 * terminals)
        took_s = time.monotonic() - began_s
        watch.end()
        succeeded = [state for _, state, _ in city.members(rollout)].count("succeeded")
    return [
        Row(
            what=f"Rollout: approved to all {terminals} terminals on the new version",
            ours=took_s,
            unit="s",
            notes=(
                f"{succeeded} of {terminals} succeeded; one canary first, its probation and soak included",
                "launcher, agent and updater of each terminal are processes of their own on the same two cores as the server",
            ),
        ),
        Row(
            what="Updater memory, highest of all",
            ours=max(watch.updaters),
            unit="MiB",
            notes=(f"{max(before.updaters):.0f} MiB before",),
        ),
        Row(
            what="Agent memory meanwhile, highest of all",
            ours=max(watch.agents),
            unit="MiB",
            beside="before",
            peer=max(before.agents),
        ),
    ]
