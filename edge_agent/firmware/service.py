"""Flashes what the updater has verified: one unit at a time, while nobody is served, at most three attempts, and every step is told.

Specification: U-301, U-306 to U-308. The agent holds the ports, so it does the flashing; what may be flashed was decided by the updater.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent import dropped
from edge_agent.clock import Clock
from edge_agent.dropped import Dropped, DropRefused
from edge_agent.faults import Condition
from edge_agent.firmware.errors import FlashFailed
from edge_agent.firmware.flasher import Flasher, Job
from edge_agent.firmware.journal import Entry, Journal
from edge_agent.outbox.errors import OutboxError
from edge_agent.transports.base import PortBusy
from protocols.contract.records import Body, Update, UpdateReason, UpdateState
from protocols.profile.schema import Profile

log = logging.getLogger(__name__)

IMAGE_MAX_BYTES = 16 * 1024 * 1024
"""Images of the peripherals in question have 30 KB to 4 MB."""
TRIES_MAX = 3
RETRY_AFTER_S = 5.0
LOOK_EVERY_S = 5.0
TELL_EVERY_MS = 60_000
FAULT = "APP.FIRMWARE_FAILED"
PREFIX = "firmware/"


class Recorder(Protocol):
    def capture(self, body: Body, *, urgent: bool = False) -> None: ...


class Devices(Protocol):
    """The monitor, as far as flashing needs it."""

    def claim(self, slot: str) -> AbstractAsyncContextManager[None]: ...
    def whereabouts(self, slot: str) -> tuple[str | None, Profile | None]: ...
    def observe_terminal(self, conditions: Iterable[Condition], *, judged: frozenset[str]) -> None: ...


class FirmwareService:
    """`run` until cancelled. `may_flash`: the updater's grant holds and no citizen is served; asked again before each attempt."""

    def __init__(
        self,
        *,
        updates_dir: Path,
        requests_dir: Path,
        journal: Journal,
        devices: Devices,
        profiles: Callable[[], dict[str, Profile]],
        flasher: Flasher,
        recorder: Recorder,
        clock: Clock,
        may_flash: Callable[[], bool],
        retry_after_s: float = RETRY_AFTER_S,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._updates_dir, self._requests_dir, self._journal = updates_dir, requests_dir, journal
        self._devices, self._profiles, self._flasher = devices, profiles, flasher
        self._recorder, self._clock, self._may_flash = recorder, clock, may_flash
        self._retry_after_s, self._look_every_s = retry_after_s, look_every_s
        self._told: dict[str, tuple[UpdateState, UpdateReason]] = {}
        self.busy_with: str | None = None
        """Slot that is being flashed, for the status and for who wants to restart the host."""

    async def run(self) -> None:
        while True:
            await self.step()
            await asyncio.sleep(self._look_every_s)

    async def step(self) -> None:
        """Look at everything that was handed over once, and do the first that may be done. Raises only OutboxError."""
        drops = [drop for drop in dropped.find(self._updates_dir) if drop.component.startswith(PREFIX)]
        self._tell_fault()
        open_drops = []
        for drop in drops:
            entry = self._journal.get(_slot(drop))
            if entry is None or entry.sha256 != drop.sha256 or entry.version != drop.version:
                entry = self._journal.put(_slot(drop), Entry(sha256=drop.sha256, version=drop.version))
            if entry.ended:
                self._answer(drop, entry)
            else:
                open_drops.append((drop, entry))
        # A unit without firmware first: it is of no use to anybody until it is done.
        open_drops.sort(key=lambda pair: pair[1].phase != "writing")
        for index, (drop, _) in enumerate(open_drops):
            if not self._may_flash():
                self._tell(drop, "waiting", "inUse")
            elif index == 0:
                for other, _ in open_drops[1:]:
                    self._tell(other, "waiting", "otherFirmware")
                await self._install(drop)

    # ------------------------------------------------------------------------------------------------------------ one component

    async def _install(self, drop: Dropped) -> None:
        slot = _slot(drop)
        self.busy_with = slot
        try:
            while (entry := self._entry(slot)).tries < TRIES_MAX and not entry.ended:
                if not self._may_flash():
                    self._tell(drop, "waiting", "inUse")
                    return
                if not await self._attempt(drop):
                    return
                if not self._entry(slot).ended:
                    await asyncio.sleep(self._retry_after_s)
            entry = self._entry(slot)
            if not entry.ended:
                reason: UpdateReason = "interrupted" if entry.reason == "none" else entry.reason
                entry = self._end(drop, entry, "failed", reason)
            self._answer(drop, entry)
        finally:
            self.busy_with = None
            self._tell_fault()

    async def _attempt(self, drop: Dropped) -> bool:
        """One attempt; False if it has to wait for something. The journal knows how it went."""
        slot = _slot(drop)
        entry = self._entry(slot)
        try:
            job, entry = self._prepare(drop, entry)
        except DropRefused as err:
            self._end(drop, entry, "refused", err.reason)
            return True
        except FlashFailed as err:
            return self._failed(drop, entry, err)

        def writing() -> None:
            self._journal.put(slot, msgspec.structs.replace(self._entry(slot), phase="writing"))

        self._tell(drop, "installing", "none")
        try:
            async with self._devices.claim(slot):
                entry = self._journal.put(slot, msgspec.structs.replace(entry, tries=entry.tries + 1))
                how = await self._flasher.flash(job, on_writing=writing, progress=self._progress(drop))
        except PortBusy:
            self._tell(drop, "waiting", "inUse")
            return False
        except FlashFailed as err:
            return self._failed(drop, self._entry(slot), err)
        log.info("firmware installed" if how == "written" else "firmware was there already", extra={"slot": slot})
        self._end(drop, self._entry(slot), "committed", "none")
        return True

    def _prepare(self, drop: Dropped, entry: Entry) -> tuple[Job, Entry]:
        """The image, hashed again, and the unit it is for. Raises DropRefused, FlashFailed."""
        slot = _slot(drop)
        place, profile = self._devices.whereabouts(slot)
        if entry.phase == "writing":
            # What is there now is a boot loader; what it was is in the journal.
            place, profile = entry.place or place, self._profiles().get(entry.profile or "") or profile
        if profile is None or place is None:
            raise FlashFailed("bootloader", f"{slot}: no unit with a profile is there")
        if profile.id not in drop.hardware:
            raise DropRefused("wrongHardware", f"{slot}: the image is not for {profile.id}")
        if not profile.firmware.flashable:
            raise DropRefused("wrongHardware", f"{slot}: {profile.id} names no method that the agent can do")
        image = dropped.read(self._updates_dir, drop, max_bytes=IMAGE_MAX_BYTES)
        if entry.phase != "writing":
            entry = self._journal.put(_slot(drop), msgspec.structs.replace(entry, place=place, profile=profile.id))
        job = Job(
            slot=slot,
            place=place,
            profile=profile,
            version=drop.version,
            image=image,
            min_from=drop.min_from,
            part_checked=entry.phase == "writing",
        )
        return job, entry

    def _failed(self, drop: Dropped, entry: Entry, err: FlashFailed) -> bool:
        """Whether the attempt is over. `inUse` is no attempt: it waits."""
        slot = _slot(drop)
        if err.reason == "inUse":
            self._journal.put(slot, msgspec.structs.replace(entry, tries=max(0, entry.tries - 1)))
            self._tell(drop, "waiting", "inUse")
            return False
        log.warning("firmware was not installed", extra={"slot": slot, "reason": str(err), "attempt": entry.tries})
        tries = max(entry.tries, 1)
        if err.final or tries >= TRIES_MAX:
            self._end(drop, msgspec.structs.replace(entry, tries=tries), "failed", err.reason)
        elif entry.tries == 0:
            # It failed before the claim: nothing answers to that name now. Look again later, without using up an attempt.
            self._tell(drop, "waiting", err.reason)
            return False
        else:
            self._journal.put(slot, msgspec.structs.replace(entry, reason=err.reason))
            self._tell(drop, "installing", err.reason)
        return True

    def _end(self, drop: Dropped, entry: Entry, phase: str, reason: UpdateReason) -> Entry:
        ended = msgspec.structs.replace(entry, phase=phase, reason=reason, since_ms=self._clock.wall_ms())
        self._journal.put(_slot(drop), ended)
        self._tell(drop, phase, reason)  # type: ignore[arg-type]  # the ends of an entry are states of the record
        return ended

    def _entry(self, slot: str) -> Entry:
        entry = self._journal.get(slot)
        assert entry is not None, "made by step"
        return entry

    # ------------------------------------------------------------------------------------------------------------------- telling

    def _tell(self, drop: Dropped, state: UpdateState, reason: UpdateReason, *, done: int = 0) -> None:
        if done == 0 and self._told.get(drop.component) == (state, reason):
            return
        self._told[drop.component] = (state, reason)
        entry = self._entry(_slot(drop))
        body = Update(
            bundle=bytes.fromhex(drop.bundle),
            rollout=bytes.fromhex(drop.rollout),
            component=drop.component,
            state=state,
            reason=reason,
            since_ms=self._clock.wall_ms(),
            to_version=drop.version,
            bytes_done=done,
            bytes_total=drop.length,
            tries=entry.tries,
        )
        try:
            self._recorder.capture(body)
        except OutboxError:
            log.warning("no space for an update record", extra={"slot": _slot(drop)})

    def _progress(self, drop: Dropped) -> Callable[[int], None]:
        """At most one record a minute while blocks arrive."""
        told_ms = self._clock.boot_ms()

        def tell(done: int) -> None:
            nonlocal told_ms
            if self._clock.boot_ms() - told_ms >= TELL_EVERY_MS:
                told_ms = self._clock.boot_ms()
                self._tell(drop, "installing", "none", done=done)

        return tell

    def _answer(self, drop: Dropped, entry: Entry) -> None:
        if entry.answered:
            return
        told = dropped.Answer(
            component=drop.component,
            version=drop.version,
            sha256=drop.sha256,
            state=entry.phase,  # type: ignore[arg-type]  # only what has ended is answered
            reason=entry.reason,
        )
        try:
            dropped.answer(self._requests_dir, told)
        except OSError:
            log.warning("the updater cannot be told", extra={"slot": _slot(drop)})
            return
        self._journal.put(_slot(drop), msgspec.structs.replace(entry, answered=True))

    def _tell_fault(self) -> None:
        """A failed update is a fault of the terminal until the next order for that slot."""
        with contextlib.suppress(OutboxError):
            conditions = [Condition(FAULT)] if self._journal.failed() else []
            self._devices.observe_terminal(conditions, judged=frozenset({FAULT}))


def _slot(drop: Dropped) -> str:
    return drop.component.removeprefix(PREFIX)
