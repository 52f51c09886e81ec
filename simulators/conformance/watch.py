"""The agent's monitor on one unit, with memory in place of the outbox."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from edge_agent.config import DeviceEntry
from edge_agent.monitor import Monitor
from edge_agent.transports.base import Discoverer, PortOpener
from protocols.canon.words import Ownership
from protocols.contract.records import Body, ClockQuality, Device, Fault, encode_record
from protocols.profile.schema import Profile
from simulators.conformance.tap import Tap, TappedOpener

LOOK_EVERY_S = 0.02
_AGENT_LOG = logging.getLogger("edge_agent")
WALL_OFFSET_MS = 1_790_000_000_000
"""Records need a calendar time; which one does not matter here."""


class LoopClock:
    """The agent's clock on the running loop's time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def boot_ms(self) -> int:
        return round(self._loop.time() * 1000)

    def wall_ms(self) -> int:
        return self.boot_ms() + WALL_OFFSET_MS

    def quality(self) -> ClockQuality:
        return ClockQuality.SYNCED


class Records:
    """A recorder that refuses what the contract refuses."""

    def __init__(self) -> None:
        self.bodies: list[Body] = []

    def capture(self, body: Body, *, urgent: bool = False) -> None:
        encode_record(body, wall_ms=0, quality=ClockQuality.SYNCED, boot_ms=0)
        self.bodies.append(body)

    def devices(self) -> list[Device]:
        return [body for body in self.bodies if isinstance(body, Device)]

    def open_codes(self) -> set[str]:
        """Codes of faults that were opened and not closed."""
        found: dict[bytes, str] = {}
        for body in self.bodies:
            if isinstance(body, Fault):
                if body.change == "open":
                    found[body.id] = body.code
                else:
                    found.pop(body.id, None)
        return set(found.values())


class _Memory:
    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self._values[key] = value


class _Crashes(logging.Handler):
    """What the monitor says when a driver failed: which error, and where. It never says what with."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = getattr(record, "error", "")
        said = f"{record.getMessage()} ({error} at {getattr(record, 'at', 'an unknown place')})" if error else record.getMessage()
        if said not in self.seen:
            self.seen.append(said)


@dataclass(frozen=True)
class Target:
    """Where the unit is and how it is reached."""

    opener: PortOpener
    discoverer: Discoverer
    port: str
    address: int | None = None
    simulated: bool = False


class Watch:
    """`async with Watch(profile, target) as watch`: the unit is watched until the end of the block."""

    def __init__(self, profile: Profile, target: Target, *, every_s: float | None = None) -> None:
        """`every_s`: asked at least so often, so that a few dozen questions do not take minutes."""
        self.profile = _at_pace(profile, every_s)
        self.target = target
        self.slot = "unit"
        self.tap = Tap()
        self.records = Records()
        numbers = itertools.count(1)
        self._monitor = Monitor(
            clock=LoopClock(),
            discoverer=target.discoverer,
            opener=TappedOpener(target.opener, self.tap),
            recorder=self.records,
            store=_Memory(),
            profiles={profile.id: self.profile},
            inventory=[self._entry()],
            new_id=lambda: next(numbers).to_bytes(8, "big"),
            rng=random.Random(1),
        )
        self._task: asyncio.Task[None] | None = None
        self._crashes = _Crashes()

    @property
    def crashes(self) -> list[str]:
        """Errors of the agent's own, each once."""
        return self._crashes.seen

    async def __aenter__(self) -> Watch:
        _AGENT_LOG.addHandler(self._crashes)
        self._task = asyncio.create_task(self._monitor.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        _AGENT_LOG.removeHandler(self._crashes)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def state(self) -> Device | None:
        return next((view.state for view in self._monitor.slot_views() if view.slot == self.slot), None)

    async def until(self, true: Callable[[], bool], *, within_s: float) -> bool:
        """Whether it became true in time. Ends early if the monitor died."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + within_s
        while not true():
            if loop.time() >= end_s or self._task is None or self._task.done():
                return False
            await asyncio.sleep(LOOK_EVERY_S)
        return True

    def _entry(self) -> DeviceEntry:
        return DeviceEntry(
            slot=self.slot,
            family=self.profile.kind.value,
            profile=self.profile.id,
            port=self.target.port,
            address=self.target.address,
            ownership=Ownership.OWNER,
            mandatory=True,
        )


def _at_pace(profile: Profile, every_s: float | None) -> Profile:
    poll = profile.poll
    if poll is None or every_s is None or poll.every_s <= every_s:
        return profile
    return msgspec.structs.replace(profile, poll=msgspec.structs.replace(poll, every_s=every_s))


def with_profile(profiles: Mapping[str, Profile], profile: Profile) -> dict[str, Profile]:
    """The shipped profiles and this one, which takes the place of one that is called the same."""
    return {**profiles, profile.id: profile}
