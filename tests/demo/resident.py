"""One terminal whose agent lives in the fleet process, on pipes instead of wires; the agent's code is the one that runs on a kiosk.

Which version it is, its launcher's stand-in says (`tests.demo.seat`); its updater lives in another process (`tests.demo.updaters`).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from edge_agent import config as configuration
from edge_agent import identity
from edge_agent.clock import Clock
from edge_agent.config import Config
from edge_agent.host import HostFacts, HostProbe, HostSample
from edge_agent.local_api import KioskService
from edge_agent.outbox import Outbox, OutboxLimits, Recorder
from edge_agent.signing import FileKeyStore
from edge_agent.supervisor import Agent
from edge_agent.transports import base
from edge_agent.version import AGENT_VERSION
from protocols.profile.schema import Profile
from simulators.ports.pipe import PortKit
from simulators.terminal import VirtualTerminal
from tests.demo.city import Member, item_rows
from tests.demo.past import Past, TimeMachine
from tests.demo.seat import FirstStarts, Seat
from tests.demo.setup import Places, Setup

log = logging.getLogger(__name__)

KIT: Final = PortKit.of(base)
SPOOL_BYTES: Final = 64 * 1024 * 1024
KEEP_ACKED_S: Final = 3600
"""Spools of simulated terminals may be thrown away; an hour is enough for a broker that was stopped."""
MIB_OF_A_KIOSK: Final = 7812
TALK_EVERY_S: Final = 2.0
AGAIN_S: Final = 0.2
"""Where nothing can start."""


class OpenAgent(Agent):
    """An agent whose inner parts the demo may reach: to bring in a past, and to act as the kiosk application without a socket."""

    def __init__(self, *, may_restart: Callable[[], bool], **agent: Any) -> None:
        """`may_restart`: while it says no, this agent has no time for updates and restarts. `agent`: of an Agent."""
        super().__init__(**agent)
        self._may_restart = may_restart

    @property
    def outbox(self) -> Outbox:
        return self._outbox

    @property
    def recorder(self) -> Recorder:
        return self._recorder

    def service(self) -> KioskService:
        return self._service

    @property
    def connected(self) -> bool:
        return self._uplink is not None and self._uplink.connected

    @property
    def open_fault_count(self) -> int:
        return len(self._monitor.open_faults())

    @property
    def _quiet(self) -> bool:
        return self._may_restart() and super()._quiet

    def _may_disturb(self) -> bool:
        return self._may_restart() and super()._may_disturb()

    async def _talk_to_updater(self) -> None:
        """Half as often as on a kiosk: this process has hundreds of agents."""
        assert self._link is not None
        while True:
            self._link.tick()
            await asyncio.sleep(TALK_EVERY_S)


class PlainHost:
    """Health of a computer that has little to do."""

    def __init__(self, seed: int, clock: Clock) -> None:
        self._choice, self._clock = random.Random(seed), clock
        self._total = 0
        self._busy = 0
        self._up_s = self._choice.randrange(86_400, 40 * 86_400)
        self._began_ms = clock.boot_ms()

    def sample(self) -> HostSample:
        self._total += 3000
        self._busy += self._choice.randrange(90, 600)
        return HostSample(
            cpu_busy=self._busy,
            cpu_total=self._total,
            mem_total_mib=MIB_OF_A_KIOSK,
            mem_free_mib=self._choice.randrange(3800, 5600),
            disk_total_mib=118_000,
            disk_free_mib=self._choice.randrange(60_000, 90_000),
            temp_c=self._choice.randrange(38, 55),
            uptime_s=self._up_s + (self._clock.boot_ms() - self._began_ms) // 1000,
            agent_rss_kib=self._choice.randrange(34_000, 41_000),
        )


@dataclass(frozen=True)
class Shared:
    """What all residents of a process have in common."""

    places: Places
    setup: Setup
    profiles: Mapping[str, Profile]
    facts: HostFacts
    boot_id: bytes
    base_clock: Clock
    starts: FirstStarts


class Resident:
    """Owns one agent and its simulated devices."""

    def __init__(self, member: Member, shared: Shared, *, mqtt_port: int) -> None:
        self.member = member
        self.devices: VirtualTerminal = member.terminal(shared.places.terminal_ports(member.id))
        self.clock = TimeMachine(shared.base_clock)
        self._shared, self._mqtt_port = shared, mqtt_port
        self._seat = Seat(shared.places, member.id, shared.starts)
        self._past: Past | None = None
        self._runs = asyncio.Event()
        self.agent = self._make_agent(AGENT_VERSION)
        self._task: asyncio.Task[None] | None = None

    def _make_agent(self, version: str) -> OpenAgent:
        member, shared = self.member, self._shared
        folder = shared.places.identity(member.id)
        return OpenAgent(
            may_restart=lambda: self._past is None or self._past.finished,
            version=version,
            config=self._config(self._mqtt_port),
            who=identity.load(folder),
            clock=self.clock,
            boot_id=shared.boot_id,
            keys=FileKeyStore(folder),
            opener=self.devices.opener(KIT),
            discoverer=self.devices.discoverer(KIT),
            profiles=shared.profiles,
            probe=self._probe(),
            facts=shared.facts,
            local_api=False,
            limits=OutboxLimits(max_bytes=SPOOL_BYTES, keep_acked_s=KEEP_ACKED_S),
            durable=False,
            rng=random.Random(member.plan.seed),
        )

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self.member.id)

    async def started(self) -> None:
        """Returns when the agent records; raises what kept it from it."""
        assert self._task is not None
        waiting = asyncio.create_task(self._runs.wait())
        await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._task

    async def stop(self) -> None:
        if self._task is None:
            return
        if self.runs:
            self.agent.stop()
        else:
            self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def runs(self) -> bool:
        """Not before its first start, and not between two while it is found out how a version starts."""
        return self._runs.is_set()

    def depth(self) -> int:
        """Batches that the server has not acknowledged."""
        return self.agent.outbox.depth() if self.runs else 0

    def connected(self) -> bool:
        return self.runs and self.agent.connected

    def service(self) -> KioskService:
        return self.agent.service()

    def past(self) -> Past:
        """Until it is in, nothing restarts this agent: what is half told would end in the next stream."""
        self._past = Past(
            self.member,
            self._shared.setup,
            self.agent.outbox,
            self.clock,
            self._shared.boot_id,
            os_name=self._shared.facts.os,
            recorder=self.agent.recorder,
        )
        return self._past

    async def _run(self) -> None:
        try:
            await self._run_version()
            while self.agent.stop_reason in ("restart", "update"):  # as its service manager would
                await self._run_version()
        except Exception:
            log.exception("the agent of %s ended", self.member.id)
            raise

    async def _run_version(self) -> None:
        """Run what the launcher would start, until it ends."""
        while (start := self._seat.begin()) is None:
            await self._seat.prepare()
            await asyncio.sleep(AGAIN_S)
        self.agent = self._make_agent(start.version)
        watching = asyncio.create_task(self._watch_switch(self.agent))
        self._runs.set()
        try:
            await self.agent.run()
        finally:
            self._runs.clear()
            watching.cancel()

    async def _watch_switch(self, agent: OpenAgent) -> None:
        """Begun before the agent is, so that no switch is missed."""
        await self._seat.switched()
        agent.stop("update")

    def _config(self, mqtt_port: int) -> Config:
        places, member = self._shared.places, self.member
        handover = places.handover(member.id)
        tree = {
            "schema": 1,
            "identity_dir": str(places.identity(member.id)),
            "state_dir": str(places.state(member.id)),
            "server": {"url": f"https://127.0.0.1:{self._shared.setup.enrolment_port}"},
            "mqtt": {"host": "127.0.0.1", "port": mqtt_port},
            "updater": {"requests_dir": str(handover / "requests"), "updates_dir": str(handover / "updates")},
            "items": item_rows(),
        }
        config = msgspec.convert(tree, Config)
        return configuration.with_desired(config, configuration.desired_state(identity.load_desired(places.identity(member.id))))

    def _probe(self) -> HostProbe:
        return PlainHost(self.member.plan.seed, self.clock)
