"""Flashes what the updater has verified: one unit at a time, while nobody is served, at most three attempts. Specification: U-301, U-306, U-308.

The agent holds the ports, so it does the flashing; what may be flashed was decided by the updater, which also tells how it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent.artifacts import verified
from edge_agent.artifacts.desk import Tell
from edge_agent.artifacts.verified import ArtifactRefused
from edge_agent.faults import Condition
from edge_agent.firmware.errors import FlashFailed
from edge_agent.firmware.flasher import Flasher, Job
from edge_agent.firmware.journal import Entry, Journal, Phase
from edge_agent.outbox.errors import OutboxError
from edge_agent.transports.base import PortBusy
from edge_agent.updater.handover import AppliedOne, Artifact
from protocols.contract.records import UpdateReason
from protocols.profile.schema import Profile

log = logging.getLogger(__name__)

IMAGE_MAX_BYTES = 16 * 1024 * 1024
"""Images of the peripherals in question have 30 KB to 4 MB."""
TRIES_MAX = 3
RETRY_AFTER_S = 5.0
FAULT = "APP.FIRMWARE_FAILED"


class Devices(Protocol):
    """The monitor, as far as flashing needs it."""

    def claim(self, slot: str) -> AbstractAsyncContextManager[None]: ...
    def whereabouts(self, slot: str) -> tuple[str | None, Profile | None]: ...
    def observe_terminal(self, conditions: Iterable[Condition], *, judged: frozenset[str]) -> None: ...


class FirmwareInstaller:
    """`may_flash`: no citizen is served and none can begin; asked again before each attempt. `busy`: no session may begin meanwhile."""

    def __init__(
        self,
        *,
        artifacts_dir: Path,
        journal: Journal,
        devices: Callable[[], Devices],
        profiles: Callable[[], Mapping[str, Profile]],
        flasher: Flasher,
        may_flash: Callable[[], bool],
        on_progress: Callable[[str, int, int], None] = lambda slot, done, total: None,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self._dir, self._journal, self._devices = artifacts_dir, journal, devices
        self._profiles, self._flasher, self._may_flash = profiles, flasher, may_flash
        self._on_progress, self._retry_after_s = on_progress, retry_after_s
        self.busy_with: str | None = None
        """Slot that is being flashed."""

    def tell_fault(self) -> None:
        """A failed update is a fault of the terminal until the next order for that slot. Called at start and after each end."""
        with contextlib.suppress(OutboxError):
            conditions = [Condition(FAULT)] if self._journal.failed() else []
            self._devices().observe_terminal(conditions, judged=frozenset({FAULT}))

    async def install(self, artifact: Artifact, tell: Tell) -> AppliedOne:
        """To the end, or `waiting` if it has to. Raises OutboxError if the journal cannot be kept; then nothing was begun."""
        slot = _slot(artifact)
        entry = self._journal.get(slot)
        if entry is None or (entry.sha256, entry.version) != (artifact.sha256, artifact.version):
            entry = self._journal.put(slot, Entry(sha256=artifact.sha256, version=artifact.version))
        if self.busy_with is not None:
            return _answer(artifact, "waiting", "otherFirmware")
        self.busy_with = slot
        try:
            while not (entry := self._entry(slot)).ended:
                if entry.tries >= TRIES_MAX:
                    self._end(slot, "failed", "interrupted" if entry.reason == "none" else entry.reason)
                elif not self._may_flash():
                    return _answer(artifact, "waiting", "inUse")
                elif (waits := await self._attempt(artifact, tell)) is not None:
                    return _answer(artifact, "waiting", waits)
                elif not self._entry(slot).ended:
                    await asyncio.sleep(self._retry_after_s)
        finally:
            self.busy_with = None
            self.tell_fault()
        if entry.phase == "committed":
            return AppliedOne(component=artifact.component, state="done", version=artifact.version)
        return _answer(artifact, "failed", entry.reason)

    async def revert(self, artifact: Artifact) -> AppliedOne:
        """Firmware is not taken back by itself: the older image is another order. What runs is told by the device's own record."""
        return AppliedOne(component=artifact.component, state="done")

    # ------------------------------------------------------------------------------------------------------------- one attempt

    async def _attempt(self, artifact: Artifact, tell: Tell) -> UpdateReason | None:
        """What it has to wait for; None when the attempt is over, and the journal knows how."""
        slot = _slot(artifact)
        entry = self._entry(slot)
        try:
            job = self._prepare(artifact, entry)
        except ArtifactRefused as err:
            log.error("firmware was refused", extra={"slot": slot, "reason": str(err)})
            self._end(slot, "refused", err.reason)
            return None
        except FlashFailed as err:
            return err.reason  # nothing with a profile is there now
        tell("installing", entry.reason)

        def writing() -> None:
            self._journal.put(slot, msgspec.structs.replace(self._entry(slot), phase="writing"))

        try:
            async with self._devices().claim(slot):
                entry = self._journal.put(slot, msgspec.structs.replace(self._entry(slot), tries=entry.tries + 1))
                how = await self._flasher.flash(
                    job, on_writing=writing, progress=lambda done: self._on_progress(slot, done, artifact.length)
                )
        except PortBusy:
            return "inUse"
        except FlashFailed as err:
            return self._failed(slot, err)
        log.info("firmware installed" if how == "written" else "firmware was there already", extra={"slot": slot})
        self._end(slot, "committed", "none")
        return None

    def _prepare(self, artifact: Artifact, entry: Entry) -> Job:
        """The image, hashed again, and the unit it is for. Raises ArtifactRefused, FlashFailed."""
        slot = _slot(artifact)
        place, profile = self._devices().whereabouts(slot)
        if entry.phase == "writing":
            # What is there now is a boot loader; what it was is in the journal.
            place, profile = entry.place or place, self._profiles().get(entry.profile or "") or profile
        if profile is None or place is None:
            raise FlashFailed("bootloader", f"{slot}: no unit with a profile is there")
        if profile.id not in artifact.hardware:
            raise ArtifactRefused("wrongHardware", f"{slot}: the image is not for {profile.id}")
        if not profile.firmware.flashable:
            raise ArtifactRefused("wrongHardware", f"{slot}: {profile.id} names no method that the agent can do")
        image = verified.read(self._dir, artifact, max_bytes=IMAGE_MAX_BYTES)
        if entry.phase != "writing":
            self._journal.put(slot, msgspec.structs.replace(entry, place=place, profile=profile.id))
        return Job(
            slot=slot,
            place=place,
            profile=profile,
            version=artifact.version,
            image=image,
            min_from=artifact.min_from,
            part_checked=entry.phase == "writing",
        )

    def _failed(self, slot: str, err: FlashFailed) -> UpdateReason | None:
        entry = self._entry(slot)
        if err.reason == "inUse":
            self._journal.put(slot, msgspec.structs.replace(entry, tries=entry.tries - 1))
            return "inUse"
        log.warning("firmware was not installed", extra={"slot": slot, "reason": str(err), "attempt": entry.tries})
        if err.final or entry.tries >= TRIES_MAX:
            self._end(slot, "failed", err.reason)
        else:
            self._journal.put(slot, msgspec.structs.replace(entry, reason=err.reason))
        return None

    def _end(self, slot: str, phase: Phase, reason: UpdateReason) -> None:
        self._journal.put(slot, msgspec.structs.replace(self._entry(slot), phase=phase, reason=reason))

    def _entry(self, slot: str) -> Entry:
        entry = self._journal.get(slot)
        assert entry is not None, "made by install"
        return entry


def _slot(artifact: Artifact) -> str:
    return artifact.component.partition("/")[2]


def _answer(artifact: Artifact, state: str, reason: UpdateReason) -> AppliedOne:
    return AppliedOne(component=artifact.component, state=state, reason=reason)  # type: ignore[arg-type]  # waiting or failed
