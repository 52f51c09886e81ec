"""`python -m tests.demo.fleet ROOT`: the process in which most terminals of the demo live, each with a real agent; also the people at all terminals.

Started by `tests.demo`, after every terminal has its identity. Ends on SIGTERM: agents say goodbye, spools stay.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_agent import host
from edge_agent.cli import load_profiles
from edge_agent.clock import SystemClock, read_boot_id
from tests.demo import installed, progress
from tests.demo.applications import OwnApplication, OwnDevices, RemoteDevices, SocketApplication
from tests.demo.city import City, Member
from tests.demo.life import Counted, Life, Place, Weather
from tests.demo.loading import Entry, Loader
from tests.demo.processes import end_with_parent
from tests.demo.relay import Relay
from tests.demo.resident import Resident, Shared
from tests.demo.seat import FirstStarts
from tests.demo.setup import Places, Setup, load, server_settings

log = logging.getLogger(__name__)

STATUS_EVERY_S: Final = 0.5
STARTS_A_SECOND: Final = 80
"""Agents are started one after the other, so that the first are on the console while the last still connect."""
CUT_PRONE: Final = 6
CUT_PRONE_OF: Final = 60
"""Terminals behind a relay whose network breaks now and then, each at another site; one of so many terminals at most."""


class Fleet:
    """All residents of this process."""

    def __init__(self, places: Places, setup: Setup) -> None:
        self._places, self._setup = places, setup
        self._city: City = setup.city()
        self._shared = Shared(
            places=places,
            setup=setup,
            profiles=load_profiles(None),
            facts=host.facts(),
            boot_id=read_boot_id(),
            base_clock=SystemClock(),
            starts=FirstStarts(installed.factory_name(places)),
        )
        self._residents: list[Resident] = []
        self._relays: dict[str, Relay] = {}
        self._counted = Counted()
        self._loader: Loader | None = None
        self._lag_s = 0.0
        self._choice = random.Random(setup.seed)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._tell()), loop.create_task(self._watch_lag())]
        try:
            await self._start_residents()
            tasks += [loop.create_task(self._life().run()), loop.create_task(self._weather().run())]
            self._loader = Loader(self._entries(), self._setup.days + 1)
            tasks.append(loop.create_task(self._loader.run()))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_residents()

    # ------------------------------------------------------------------ agents

    async def _start_residents(self) -> None:
        cut_prone = 0 if self._setup.calm else min(CUT_PRONE, len(self._city.pipes) // CUT_PRONE_OF)
        for relayed in _one_of_each_zone(self._city.pipes)[:cut_prone]:
            relay = Relay(("127.0.0.1", self._setup.mqtt_port))
            await relay.start()
            self._relays[relayed.id] = relay
        for member in self._city.pipes:
            relay_of = self._relays.get(member.id)
            port = relay_of.port if relay_of is not None else self._setup.mqtt_port
            resident = Resident(member, self._shared, mqtt_port=port)
            resident.start()
            self._residents.append(resident)
            await asyncio.sleep(1 / STARTS_A_SECOND)
        for resident in self._residents:
            await resident.started()

    async def _stop_residents(self) -> None:
        """All together: each waits a moment for the server to hear its last words."""
        await asyncio.gather(*(resident.stop() for resident in self._residents), return_exceptions=True)
        await self._shared.starts.close()

    # ------------------------------------------------------------------ past, people, weather

    def _entries(self) -> list[Entry]:
        """First those whose network will break soon."""
        return [
            Entry(resident.member.id, resident.past, resident.depth, resident.connected)
            for resident in sorted(self._residents, key=lambda one: one.member.id not in self._relays)
            if self._setup.days
        ]

    def _life(self) -> Life:
        here = [
            Place(
                resident.member,
                OwnApplication(resident.service),
                OwnDevices(resident.devices),
                _slots(resident.member, self._places),
            )
            for resident in self._residents
        ]
        elsewhere = [
            Place(
                member,
                SocketApplication(self._places.agent_socket(member.id)),
                RemoteDevices(self._places.terminal_ports(member.id)),
                _slots(member, self._places),
            )
            for member in self._city.processes
        ]
        return Life([*here, *elsewhere], self._setup.speed, random.Random(self._choice.random()), self._counted)

    def _weather(self) -> Weather:
        devices = {resident.member.id: resident.devices for resident in self._residents}
        return Weather(devices, self._relays, random.Random(self._choice.random()), self._counted)

    # ------------------------------------------------------------------ telling

    async def _tell(self) -> None:
        run_dir = server_settings(self._places, self._setup).layout.run
        while True:
            status = self._status()
            progress.write(self._places.status, status)
            progress.tell_console(run_dir, status.days, status.days_total)
            await asyncio.sleep(STATUS_EVERY_S)

    def _status(self) -> progress.Status:
        running = [resident.agent for resident in self._residents if resident.runs]
        past = self._loader.progress if self._loader is not None else None
        planned = len(self._city.pipes) * (self._setup.days + 1) if self._setup.days else 0
        lag_ms, self._lag_s = round(self._lag_s * 1000), 0.0
        return progress.Status(
            at_ms=time.time_ns() // 1_000_000,
            terminals=len(running),
            connected=sum(agent.connected for agent in running),
            waiting=sum(agent.outbox.depth() for agent in running),
            days=past.days if past else 0,
            days_total=past.days_total if past else planned,
            records=past.records if past else 0,
            past_s=((past.ended_s or time.monotonic()) - past.began_s) if past else 0.0,
            past_done=past is not None and past.done,
            cases=self._counted.cases,
            keys=self._counted.keys,
            ratings=self._counted.ratings,
            faults=self._counted.faults,
            cuts=self._counted.cuts,
            loop_lag_ms=lag_ms,
        )

    async def _watch_lag(self) -> None:
        while True:
            due_s = time.monotonic() + 0.05
            await asyncio.sleep(0.05)
            self._lag_s = max(self._lag_s, time.monotonic() - due_s)


def _one_of_each_zone(members: Sequence[Member]) -> list[Member]:
    """A kiosk of each 24-hour zone: always open, so that silence counts at any hour, and beside others that go on working."""
    found: dict[str, Member] = {}
    for member in members:
        if member.plan.kind == "kiosk" and member.plan.site.kind == "zone24":
            found.setdefault(member.plan.site.code, member)
    return list(found.values())


def _slots(member: Member, places: Places) -> frozenset[str]:
    return frozenset(row["slot"] for row in member.inventory(places.terminal_ports(member.id)))


async def main(root: Path) -> None:
    places = Places(root)
    setup = load(places)
    if setup is None:
        raise SystemExit(f"{places.file} is missing; `python -m tests.demo` makes it")
    fleet = asyncio.create_task(Fleet(places, setup).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, fleet.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await fleet


if __name__ == "__main__":
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(main(Path(sys.argv[1])))
