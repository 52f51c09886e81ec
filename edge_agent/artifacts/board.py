"""Puts together what the agent does with verified artifacts, for the supervisor: stores, installers, desk, and the span of proof of play."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from edge_agent.artifacts.catalogue import CatalogueInstaller, offered
from edge_agent.artifacts.desk import Desk, Installer
from edge_agent.artifacts.profiles import ProfilesInstaller
from edge_agent.clock import Clock
from edge_agent.config import ItemEntry
from edge_agent.content.plays import KEY as PLAYS_KEY
from edge_agent.content.plays import PlayBook
from edge_agent.content.shelf import Shelf
from edge_agent.firmware.flasher import Flasher
from edge_agent.firmware.installer import Devices, FirmwareInstaller
from edge_agent.firmware.journal import Journal
from edge_agent.outbox.errors import CaptureRefused, OutboxError
from edge_agent.transports.base import Discoverer, PortOpener
from edge_agent.updater.handover import AgentSide
from protocols.contract import records
from protocols.packages.catalogue import Catalogue, Item
from protocols.profile.schema import Profile

log = logging.getLogger(__name__)


class Ledger(Protocol):
    def capture(self, body: records.Body, *, urgent: bool = False, memory: Mapping[str, bytes] | None = None) -> None: ...


class Memory(Protocol):
    def get(self, key: str) -> bytes | None: ...
    def put(self, key: str, value: bytes) -> None: ...


class Board:
    """`profiles` are what counts now; `load` before the devices are watched, `run` as a part of the agent."""

    def __init__(
        self,
        *,
        side: AgentSide,
        state_dir: Path,
        memory: Memory,
        ledger: Ledger,
        clock: Clock,
        discoverer: Discoverer,
        opener: PortOpener,
        shipped: Mapping[str, Profile],
        own: Mapping[str, Profile],
        pinned: Callable[[], frozenset[str]],
        listed: Callable[[], tuple[ItemEntry, ...]],
        devices: Callable[[], Devices],
        may_flash: Callable[[], bool],
        trusted_now_ms: Callable[[], int | None],
        connected: Callable[[], bool],
        span_s: Callable[[], int],
        on_profiles: Callable[[], None],
        on_items: Callable[[], None],
    ) -> None:
        self._ledger, self._clock, self._listed, self._span_s = ledger, clock, listed, span_s
        self._on_profiles, self._on_items = on_profiles, on_items
        self.profiles: dict[str, Profile] = {**shipped, **own}
        self.catalogue: Catalogue | None = None
        folder = side.artifacts
        self._sets = ProfilesInstaller(
            artifacts_dir=folder,
            folder=state_dir / "profiles",
            shipped=shipped,
            own=own,
            pinned=pinned,
            on_change=self._take_profiles,
        )
        self._catalogues = CatalogueInstaller(
            artifacts_dir=folder, folder=state_dir / "catalogue", on_change=self._take_catalogue
        )
        self.shelf = Shelf(state_dir / "content", artifacts_dir=folder, now_ms=trusted_now_ms, connected=connected)
        self.book = PlayBook(memory, clock.wall_ms())
        self.firmware = FirmwareInstaller(
            artifacts_dir=folder,
            journal=Journal(memory),
            devices=devices,
            profiles=lambda: self.profiles,
            flasher=Flasher(discoverer=discoverer, opener=opener),
            may_flash=may_flash,
        )
        installers: dict[str, Installer] = {
            "profiles": self._sets,
            "catalogue": self._catalogues,
            "content": self.shelf,
            "firmware": self.firmware,
        }
        self._desk = Desk(side, installers)

    @property
    def busy(self) -> bool:
        """A unit is being flashed: no session may begin, nothing may restart."""
        return self.firmware.busy_with is not None

    def load(self) -> None:
        """What an earlier run installed. Never raises: what cannot be used is logged and left out."""
        try:
            self.profiles = self._sets.load()
            self.catalogue = self._catalogues.load()
            self.shelf.load()
        except OSError as err:
            log.error("installed artifacts cannot be read", extra={"kind": type(err).__name__})

    def items(self) -> tuple[Item, ...]:
        return offered(self._listed(), self.catalogue)

    async def run(self) -> None:
        self.firmware.tell_fault()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._desk.run())
            group.create_task(self._close_spans())

    def close_span(self) -> None:
        """Counts of what was shown become records, and a new span begins."""
        now_ms = self._clock.wall_ms()
        bodies = self.book.peek(now_ms)
        try:
            for body in bodies[:-1]:
                self._ledger.capture(body)
            if bodies:
                self._ledger.capture(bodies[-1], memory={PLAYS_KEY: self.book.fresh(now_ms)})
        except CaptureRefused:
            log.error("counts of shown pages do not fit a record")
        except OutboxError:
            return  # they are told with the next span
        self.book.begin(now_ms)

    async def _close_spans(self) -> None:
        while True:
            span_ms = self._span_s() * 1000
            await asyncio.sleep((span_ms - self._clock.wall_ms() % span_ms) / 1000 + 0.05)
            self.close_span()

    def _take_profiles(self, profiles: dict[str, Profile]) -> None:
        self.profiles = profiles
        self._on_profiles()

    def _take_catalogue(self, catalogue: Catalogue | None) -> None:
        self.catalogue = catalogue
        self._on_items()
