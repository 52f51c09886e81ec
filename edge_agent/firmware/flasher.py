"""One attempt to give one unit another firmware: who is it, into its boot loader, the image, back again, what does it say now.

Nothing is written before the unit has said the right part number. Every wait has an end, and every end has a word.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from edge_agent.firmware import dfu
from edge_agent.firmware.errors import FlashFailed
from edge_agent.firmware.transfer import Progress, send_file
from edge_agent.transports.base import BytePort, Discoverer, PortBusy, PortError, PortOpener, Sighting
from protocols.profile.firmware import SERIAL_METHODS, DfuOptions, Exchange, Firmware, FlashMethod
from protocols.profile.schema import Profile
from protocols.profile.tables import hex_bytes

LOOK_EVERY_S = 0.2
OPEN_WITHIN_S = 6.0
"""A driver that was told to let go may still be asking."""
REPLY_MAX_BYTES = 4096
WRITE_WITHIN_S = 2.0
CLOSE_WITHIN_S = 5.0

Mode = Literal["application", "bootloader"]


@dataclass(frozen=True, slots=True)
class Job:
    """`part_checked`: the unit said its part number in an earlier attempt that was cut off, and may be unable to say it now."""

    slot: str
    place: str
    profile: Profile
    version: str
    image: bytes
    min_from: str | None = None
    part_checked: bool = False


DfuRun = Callable[[dfu.DfuJob, Progress], Awaitable[None]]


async def _run_dfu(job: dfu.DfuJob, progress: Progress) -> None:
    await dfu.flash(job, progress=progress)


class Flasher:
    """Hands for one unit at a time. `on_writing` is called, and has to have made it last, before the first byte that cannot be taken back."""

    def __init__(self, *, discoverer: Discoverer, opener: PortOpener, dfu_run: DfuRun = _run_dfu) -> None:
        self._discoverer, self._opener, self._dfu_run = discoverer, opener, dfu_run

    async def flash(
        self, job: Job, *, on_writing: Callable[[], None] = lambda: None, progress: Progress = lambda _: None
    ) -> Literal["written", "already"]:
        """Raises FlashFailed. `already`: the unit runs that version, nothing was written."""
        try:
            return await self._flash(job, on_writing, progress)
        except PortBusy as err:
            raise FlashFailed("inUse", str(err)) from err
        except PortError as err:
            raise FlashFailed("transfer", str(err)) from err

    async def _flash(self, job: Job, on_writing: Callable[[], None], progress: Progress) -> Literal["written", "already"]:
        rules = job.profile.firmware
        mode = await self._mode(job)
        if mode == "application":
            version = await self._check(job)
            if version == job.version:
                return "already"
        elif not job.part_checked and not _asks_part_in_bootloader(rules):
            raise FlashFailed("wrongPart", "the unit is in its boot loader and cannot say which part it is", final=True)
        if rules.method in SERIAL_METHODS:
            await self._write_serial(job, mode, on_writing, progress)
        else:
            await self._write_dfu(job, mode, on_writing, progress)
        await self._read_back(job)
        return "written"

    # ------------------------------------------------------------------------------------------------------------ who is there

    async def _mode(self, job: Job) -> Mode:
        """What runs in the unit. Raises FlashFailed (`bootloader`) if nothing answers there."""
        rules = job.profile.firmware
        sighting = await self._await_sighting(job, lambda _: True, "bootloader")
        if rules.bootloader is not None:
            return "bootloader" if _is(sighting, rules) else "application"
        assert rules.version is not None
        if await self._said(job, rules.version, sighting) is not None:
            return "application"
        if await self._enter_answered(job, sighting):
            return "bootloader"
        raise FlashFailed("bootloader", "neither the unit nor its boot loader answers")

    async def _enter_answered(self, job: Job, sighting: Sighting) -> bool:
        assert job.profile.firmware.identify is not None
        return await self._said(job, job.profile.firmware.identify, sighting, boot=True) is not None

    async def _check(self, job: Job) -> str:
        """Part number and version of the running firmware. Raises FlashFailed."""
        rules = job.profile.firmware
        sighting = await self._await_sighting(job, lambda one: not _is(one, rules), "bootloader")
        if rules.part is not None:
            reply = await self._said(job, rules.part, sighting)
            _same_part(rules, None if reply is None else rules.part.text(reply, "part"))
        assert rules.version is not None
        reply = await self._said(job, rules.version, sighting)
        version = None if reply is None else rules.version.text(reply, "version")
        if version is None:
            raise FlashFailed("readBack", "the unit does not say its version")
        if any(least is not None and _older(version, least) for least in (job.min_from, rules.min_current_version)):
            raise FlashFailed("wrongHardware", "the unit's firmware is older than this update can start from", final=True)
        return version

    # ---------------------------------------------------------------------------------------------------------------- writing

    async def _write_serial(self, job: Job, mode: Mode, on_writing: Callable[[], None], progress: Progress) -> None:
        rules = job.profile.firmware
        assert rules.identify is not None
        assert rules.install_duration_s is not None
        port: BytePort | None = None
        try:
            if mode == "application":
                assert rules.enter is not None
                sighting = await self._await_sighting(job, lambda one: not _is(one, rules), "bootloader")
                port = await self._open(sighting, job.profile)
                try:
                    await _ask(port, rules.enter)
                except PortError:
                    if rules.bootloader is None:
                        raise
                if rules.bootloader is not None or rules.line is not None:
                    await _close(port)
                    port = None
            identity, port = await self._identified(job, port)
            if "part" in rules.identify.groups():
                _same_part(rules, rules.identify.text(identity, "part"))
            if rules.start is not None and await _ask(port, rules.start) is None:
                raise FlashFailed("bootloader", "the boot loader does not begin to receive")
            on_writing()
            await send_file(
                port,
                cast("FlashMethod", rules.method),
                job.image,
                pad=rules.pad,
                timeout_s=rules.install_duration_s,
                progress=progress,
            )
        finally:
            if port is not None:
                await _close(port)

    async def _identified(self, job: Job, port: BytePort | None) -> tuple[bytes, BytePort]:
        """The boot loader's answer and the open port. Tries until the unit had time to come back."""
        rules = job.profile.firmware
        assert rules.identify is not None
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (rules.replug_timeout_s or 1)
        while True:
            try:
                if port is None:
                    sighting = await self._await_sighting(
                        job, lambda one: rules.bootloader is None or _is(one, rules), "bootloader", until_s=until_s
                    )
                    port = await self._open(sighting, _boot_profile(job.profile))
                identity = await _ask(port, rules.identify)
                if identity is not None:
                    return identity, port
            except PortError:
                if port is not None:
                    await _close(port)
                port = None
            if loop.time() >= until_s:
                if port is not None:
                    await _close(port)
                raise FlashFailed("bootloader", "the boot loader did not show itself in time")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _write_dfu(self, job: Job, mode: Mode, on_writing: Callable[[], None], progress: Progress) -> None:
        rules = job.profile.firmware
        assert rules.bootloader is not None
        assert rules.install_duration_s is not None
        sighting = await self._await_sighting(job, lambda _: True, "bootloader")
        if mode == "application" and rules.enter is not None:
            port = await self._open(sighting, job.profile)
            try:
                with suppress(PortError):  # it may be gone before it answers
                    await _ask(port, rules.enter)
            finally:
                await _close(port)
            sighting = await self._await_sighting(job, lambda one: _is(one, rules), "bootloader")
        if sighting.usb_path is None:
            raise FlashFailed("bootloader", "the unit's USB port is not known", final=True)
        runtime = None
        if not _is(sighting, rules):
            if sighting.vid is None or sighting.pid is None:
                raise FlashFailed("bootloader", "the unit's USB ids are not known", final=True)
            runtime = msgspec.structs.replace(rules.bootloader, vid=sighting.vid, pid=sighting.pid)
        on_writing()
        await self._dfu_run(
            dfu.DfuJob(
                usb_path=sighting.usb_path,
                runtime=runtime,
                bootloader=rules.bootloader,
                options=rules.dfu or DfuOptions(),
                image=job.image,
                timeout_s=rules.install_duration_s,
            ),
            progress,
        )

    async def _read_back(self, job: Job) -> None:
        """Version and part number of what runs now. Raises FlashFailed (`readBack`)."""
        rules = job.profile.firmware
        assert rules.version is not None
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (rules.replug_timeout_s or 1)
        said: str | None = None
        while said is None:
            try:
                sighting = await self._await_sighting(job, lambda one: not _is(one, rules), "readBack", until_s=until_s)
                reply = await self._said(job, rules.version, sighting)
                said = None if reply is None else rules.version.text(reply, "version")
            except PortError:
                said = None
            if said is None and loop.time() >= until_s:
                raise FlashFailed("readBack", "the unit did not come back with its firmware")
            if said is None:
                await asyncio.sleep(LOOK_EVERY_S)
        if said != job.version:
            raise FlashFailed("readBack", "the unit says another version than was written")
        if rules.part is not None:
            sighting = await self._await_sighting(job, lambda one: not _is(one, rules), "readBack")
            reply = await self._said(job, rules.part, sighting)
            if reply is None or rules.part.text(reply, "part") != rules.part_number:
                raise FlashFailed("readBack", "the unit says another part number than before")

    # ----------------------------------------------------------------------------------------------------------------- ports

    async def _await_sighting(
        self,
        job: Job,
        fits: Callable[[Sighting], bool],
        reason: Literal["bootloader", "readBack"],
        *,
        until_s: float | None = None,
    ) -> Sighting:
        """What is plugged in at the unit's place, by USB port path: adapters and boot loaders have other ids, the port stays."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + (job.profile.firmware.replug_timeout_s or 1) if until_s is None else until_s
        while True:
            with suppress(OSError, PortError):
                here = [one for one in self._discoverer.sightings() if job.place in (one.usb_path, one.path)]
                usable = [one for one in here if _usable(one, job.profile) and fits(one)]
                if usable:
                    return usable[0]
            if loop.time() >= until_s:
                raise FlashFailed(reason, "the unit did not come back at its port in time")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _open(self, sighting: Sighting, profile: Profile) -> BytePort:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + OPEN_WITHIN_S
        while True:
            try:
                async with asyncio.timeout(OPEN_WITHIN_S):
                    port = await self._opener.open(sighting, profile)
            except PortBusy:
                if loop.time() >= until_s:
                    raise
            except TimeoutError:
                raise FlashFailed("transfer", "the port does not open") from None
            else:
                if isinstance(port, BytePort):
                    return port
                await port.close()
                raise FlashFailed("bootloader", "the profile names no port that carries bytes", final=True)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _said(self, job: Job, exchange: Exchange, sighting: Sighting, *, boot: bool = False) -> bytes | None:
        """Open, ask once more if nothing came, close. None if no answer fits."""
        port = await self._open(sighting, _boot_profile(job.profile) if boot else job.profile)
        try:
            for _ in range(2):
                reply = await _ask(port, exchange)
                if reply is not None:
                    return reply
            return None
        finally:
            await _close(port)


async def _ask(port: BytePort, exchange: Exchange) -> bytes | None:
    """The answer that fits; None if none did in time. An exchange without reply is answered by silence. Raises PortError."""
    loop = asyncio.get_running_loop()
    if exchange.send is not None:
        while await port.read(max_bytes=REPLY_MAX_BYTES, timeout_s=0):
            pass
        await port.write(hex_bytes(exchange.send), timeout_s=WRITE_WITHIN_S)
    if exchange.reply is None:
        return b""
    reply, until_s = b"", loop.time() + exchange.within_ms / 1000
    while len(reply) < REPLY_MAX_BYTES and (left_s := until_s - loop.time()) > 0:
        reply += await port.read(max_bytes=REPLY_MAX_BYTES - len(reply), timeout_s=left_s)
        if exchange.fits(reply):
            return reply
    return None


async def _close(port: BytePort) -> None:
    with suppress(PortError, OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await port.close()


def _is(sighting: Sighting, rules: Firmware) -> bool:
    return rules.bootloader is not None and (sighting.vid, sighting.pid) == (rules.bootloader.vid, rules.bootloader.pid)


def _usable(sighting: Sighting, profile: Profile) -> bool:
    """A port on which the profile, or its boot loader, can be spoken to."""
    if _is(sighting, profile.firmware):
        return sighting.bus in ("serial", "pipe") or profile.firmware.method == "usb-dfu"
    transport = profile.transport
    return (sighting.bus in ("serial", "pipe") and transport.serial is not None) or (
        sighting.bus == "usb" and transport.usb is not None
    )


def _boot_profile(profile: Profile) -> Profile:
    """The profile with the boot loader's line settings."""
    if profile.firmware.line is None:
        return profile
    return msgspec.structs.replace(profile, transport=msgspec.structs.replace(profile.transport, serial=profile.firmware.line))


def _asks_part_in_bootloader(rules: Firmware) -> bool:
    return rules.identify is not None and "part" in rules.identify.groups()


def _same_part(rules: Firmware, said: str | None) -> None:
    if said != rules.part_number:
        raise FlashFailed("wrongPart", "the unit does not say the part number that its profile names", final=True)


def _older(version: str, least: str) -> bool:
    """By the numbers in it, in order; a version without numbers is older than any with."""
    return tuple(map(int, re.findall(r"\d+", version))) < tuple(map(int, re.findall(r"\d+", least)))
