"""A bench for the device side: simulated devices on pipes, the real monitor, and a loop whose time runs as fast as the work allows."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import edge_agent.transports.base as ports
import firmware_profiles
from edge_agent.config import DeviceEntry
from edge_agent.monitor import Monitor
from protocols.canon.words import Ownership
from protocols.contract.records import Body, ClockQuality, Consumable, Device, Fault, Queue, Rating, Sighting, encode_record
from protocols.profile.schema import Profile, parse_all
from simulators.conformance.watch import LoopClock
from simulators.ports.pipe import PortKit
from simulators.ports.slots import Slot
from simulators.terminal import VirtualTerminal
from simulators.virtual_time import in_virtual_time

B = TypeVar("B", bound=Body)

PROFILES: dict[str, Profile] = parse_all(firmware_profiles.read_all())
KIT = PortKit.of(ports)


class Records:
    """A recorder that checks every body against its schema, as the outbox does."""

    def __init__(self) -> None:
        self.bodies: list[Body] = []
        self.urgent: list[Body] = []
        self.encoded = bytearray()
        self.refuse_with: Exception | None = None

    def capture(self, body: Body, *, urgent: bool = False) -> None:
        if self.refuse_with is not None:
            raise self.refuse_with
        self.encoded += encode_record(body, wall_ms=0, quality=ClockQuality.SYNCED, boot_ms=0)
        self.bodies.append(body)
        if urgent:
            self.urgent.append(body)

    def of(self, kind: type[B], slot: str | None = None) -> list[B]:
        return [body for body in self.bodies if isinstance(body, kind) and slot in (None, getattr(body, "slot", None))]

    def open_codes(self) -> set[str]:
        """Codes of faults that were opened and not closed, after the records alone."""
        found: dict[bytes, str] = {}
        for fault in self.of(Fault):
            if fault.change == "open":
                found[fault.id] = fault.code
            else:
                del found[fault.id]
        return set(found.values())


class Memory:
    """A store in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


def inventory(terminal: VirtualTerminal, *, ownership: Ownership = Ownership.OWNER) -> list[DeviceEntry]:
    """An installer's list of the simulated devices; profiles only where the hardware does not say what it is."""
    names = {"laser-printer": "a4-printer", "door": "contacts"}
    entries = []
    for place in terminal.ports():
        family = place.get("family") or place["kind"]
        entries.append(
            DeviceEntry(
                slot=place["slot"],
                family=names.get(family, family),
                profile=place.get("profile"),
                port=place["port"],
                address=place.get("address"),
                ownership=ownership,
                mandatory=place.get("mandatory", True),
            )
        )
    return entries


class Bench:
    """One terminal under the monitor."""

    def __init__(
        self,
        *slots: Slot,
        entries: Sequence[DeviceEntry] | None = None,
        ownership: Ownership = Ownership.OWNER,
        memory: Memory | None = None,
        lease_free: Callable[[], bool] = lambda: True,
        opener: Any = None,
        discoverer: Any = None,
        profiles: dict[str, Profile] | None = None,
        port_holders: Callable[[str], int] | None = None,
        on_state: Callable[[Device], None] = lambda _: None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.terminal = VirtualTerminal("kiosk", slots, clock=loop.time)
        self.records = Records()
        self.memory = memory or Memory()
        self.clock = LoopClock()
        numbers = itertools.count(random.Random(len(self.memory.values)).randrange(1 << 32))
        self.monitor = Monitor(
            clock=self.clock,
            discoverer=discoverer or self.terminal.discoverer(KIT),
            opener=opener or self.terminal.opener(KIT),
            recorder=self.records,
            store=self.memory,
            profiles=PROFILES if profiles is None else profiles,
            inventory=inventory(self.terminal, ownership=ownership) if entries is None else entries,
            new_id=lambda: next(numbers).to_bytes(8, "big"),
            rng=random.Random(1),
            lease_free=lease_free,
            port_holders=port_holders,
            on_state=on_state,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Bench:
        self._task = asyncio.create_task(self.monitor.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        (ended,) = await asyncio.gather(self._task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError), ended

    async def until(self, true: Callable[[], bool], *, within_s: float = 60.0) -> float:
        """Wait for something to become true; returns the seconds it took."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        while not true():
            assert loop.time() - start_s < within_s, (
                f"not within {within_s} s; open: {self.records.open_codes()}, {self.states()}"
            )
            assert self._task is None or not self._task.done(), self._task
            await asyncio.sleep(0.02 if within_s <= 60 else 0.5)
        return loop.time() - start_s

    async def until_open(self, code: str, *, within_s: float = 60.0) -> Fault:
        await self.until(lambda: code in self.records.open_codes(), within_s=within_s)
        return next(fault for fault in reversed(self.records.of(Fault)) if fault.code == code)

    async def until_state(self, slot: str, device: str, *, within_s: float = 60.0) -> Device:
        await self.until(lambda: self.states().get(slot) == device, within_s=within_s)
        return next(view.state for view in self.monitor.slot_views() if view.slot == slot and view.state is not None)

    def states(self) -> dict[str, str]:
        return {view.slot: view.state.device.value for view in self.monitor.slot_views() if view.state is not None}

    def device(self, slot: str) -> Device:
        return self.records.of(Device, slot)[-1]


__all__ = [
    "KIT", "PROFILES", "Bench", "Consumable", "Device", "Fault", "LoopClock", "Memory", "Queue", "Rating", "Records", "Sighting", "Slot",
    "in_virtual_time", "inventory",
]  # fmt: skip
