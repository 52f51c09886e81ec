"""Rows: a release through the demo, from the second person's approval to the last terminal on it, and memory of updaters and agents meanwhile."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

import msgspec

from fleet_server.rollouts.rules import Step
from tests.bench.machine import cpu_s, memory_of
from tests.bench.table import Row
from tests.demo.setup import load
from tests.support.city import POLICY, City, running_city
from tests.support.waiting import wait_until

LOOK_EVERY_S = 1.0
OWN_PROCESSES = 4
"""Terminals whose launcher, agent and updater are processes of their own, as on a kiosk; the others share a process of agents and one of updaters."""
WAVES = (Step(percent=10), Step(percent=100))


class Watch(threading.Thread):
    """The highest resident memory, MiB, of each kind of process; processes come and go."""

    def __init__(self, city: City) -> None:
        super().__init__()
        self._over = threading.Event()
        places = city.places
        own = load(places).city().processes  # type: ignore[union-attr]  # it runs
        self._kinds = {str(places.updater_config(one.id)): "updater" for one in own}
        self._kinds |= {str(places.config(one.id)): "agent" for one in own}
        self._kinds |= {"tests.demo.updaters": "updaters", "tests.demo.fleet": "agents"}
        self._root = str(places.root)
        self.highest: defaultdict[str, float] = defaultdict(float)
        self.cpu_s: defaultdict[str, float] = defaultdict(float)

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

    def look(self) -> None:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                if any(word.endswith("launcher.py") for word in words):
                    continue
                kind = next((self._kinds[word] for word in words if word in self._kinds), None)
                if kind is None or not any(word.startswith(self._root) for word in words):
                    continue
                self.highest[kind] = max(self.highest[kind], memory_of(int(folder.name)).resident)
                self.cpu_s[kind] = max(self.cpu_s[kind], cpu_s(int(folder.name)))
            except OSError:
                continue  # it has just ended

    def end(self) -> None:
        self._over.set()
        self.join()


def rows(*, terminals: int) -> list[Row]:
    policy = msgspec.structs.replace(
        POLICY,
        canary=2,
        steps=WAVES,
        failure_count=terminals,
        failure_first=terminals,
        hall_percent=100.0,
        starts_per_minute=1000,
        probation_s=1800,
    )
    own = min(OWN_PROCESSES, terminals - 1)
    with (
        tempfile.TemporaryDirectory(prefix="kf-bench-") as folder,
        running_city(Path(folder), terminals=terminals, own_processes=own, calm=True, within_s=900) as city,
    ):
        release = city.release("good", "0.2.0")
        before = Watch(city)
        before.look()
        watch = Watch(city)
        watch.start()
        rollout = city.roll_out(release, policy, tag="")
        began_s = time.monotonic()
        wait_until(lambda: city.state(rollout) == "finished", "the rollout", timeout_s=300 + 5 * terminals)
        took_s = time.monotonic() - began_s
        watch.end()
        members = city.members(rollout)
        waves = [
            f"wave {wave}: {count} in {(ended - started) / 1000:.0f} s"
            for wave, count, started, ended in city.query(
                "SELECT wave, count(*), min(started_ms), max(ended_ms) FROM rollout_member WHERE rollout = ? GROUP BY wave",
                rollout,
            )
        ]
        size_mb = city.query("SELECT max(length) FROM release WHERE id = ?", release)[0][0] / 1e6
    succeeded = [state for _, state, _ in members].count("succeeded")
    spent = {kind: watch.cpu_s[kind] - before.cpu_s[kind] for kind in ("updaters", "agents")}
    each = f"of the shared updaters {spent['updaters'] / terminals:.2f} s a terminal, of the shared agents {spent['agents'] / terminals:.2f} s"
    return [
        Row(
            what=f"Rollout: approved to all {terminals} terminals on the new version",
            ours=took_s,
            unit="s",
            notes=(
                f"{succeeded} of {len(members)} succeeded; {'; '.join(waves)} (wave 0: canaries; each with its probation of at least 5 s)",
                f"a release of {size_mb:.1f} MB, fetched, verified and unpacked by each terminal for itself, all on one disk",
                f"processor time {each}",
            ),
        ),
        *(
            Row(what=what, ours=watch.highest[kind], unit="MiB", beside="before", peer=before.highest[kind], notes=notes)
            for what, kind, notes in (
                ("Updater memory, highest of those with a process", "updater", ()),
                ("Agent memory meanwhile, highest of those with a process", "agent", ()),
                (f"Memory of the process with {terminals - own} updaters", "updaters", ()),
                (f"Memory of the process with {terminals - own} agents and all their devices", "agents", ()),
            )
        ),
    ]
