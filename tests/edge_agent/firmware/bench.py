"""A bench for flashing: a unit with a boot loader on a pipe or a pty, the real monitor, the real service, and the updater's drop as files."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config import DeviceEntry
from edge_agent.dropped import Dropped
from edge_agent.firmware.flasher import Flasher
from edge_agent.firmware.journal import Journal
from edge_agent.firmware.service import FirmwareService
from edge_agent.monitor import Monitor
from protocols.contract.records import Update
from protocols.profile.schema import Profile, parse_profile
from simulators.models.base import UsbIdentity
from simulators.models.flash_unit import FlashSlot, FlashUnit
from simulators.terminal import VirtualTerminal
from tests.edge_agent.devices.bench import KIT, LoopClock, Memory, Records

APP = UsbIdentity(0x1234, 0x0001, (), product="Flash unit")
BOOT = UsbIdentity(0x1234, 0x00DF, (), product="Flash unit boot loader")

UNIT = """
schema = 1
id = "acme-fu100"
family = "scanner-serial"
kind = "scanner"
display_name = "Acme FU-100"
grade = "expected"
source = "the simulator's flash unit"

[[match]]
bus = "serial"
by_slot = true

[transport.serial]
baud = 115200

[scanner]
terminators = ["cr"]

[firmware]
method = "xmodem"
part_number = "FU-100"
install_duration_s = 30
replug_timeout_s = 3
pad = 0x00

[firmware.enter]
send = "1b 42 0d"
reply = "^06"

[firmware.identify]
send = "3f 0d"
reply = "^424f4f5420(?P<part>([0-9a-f]{2})+?)0d0a"
within_ms = 150

[firmware.start]
send = "4c 0d"
reply = "^4f4b0d0a"

[firmware.part]
send = "1b 50 0d"
reply = "^50(?P<part>([0-9a-f]{2})+?)0d0a"
within_ms = 150

[firmware.version]
send = "1b 56 0d"
reply = "^56(?P<version>([0-9a-f]{2})+?)0d0a"
within_ms = 150
"""


def profile(method: str = "xmodem", *, boot: bool = False, replace: dict[str, str] | None = None) -> Profile:
    text = UNIT.replace('method = "xmodem"', f'method = "{method}"')
    if boot:
        text = text.replace("pad = 0x00", f"pad = 0x00\nbootloader = {{ vid = {BOOT.vid}, pid = {BOOT.pid} }}")
    for old, new in (replace or {}).items():
        text = text.replace(old, new)
    return parse_profile(text.encode(), "acme-fu100")


class FlashBench:
    """One terminal with units; `slots` are `flash-1`, `flash-2` … in the order given."""

    def __init__(
        self,
        folder: Path,
        *units: FlashUnit,
        profile: Profile,
        memory: Memory | None = None,
        opener: Any = None,
        discoverer: Any = None,
        places: tuple[str, ...] = (),
        dfu_run: Any = None,
    ) -> None:
        self.units = units
        self.folder = folder
        self.updates, self.requests = folder / "updates", folder / "requests"
        self.slots = [
            FlashSlot(f"flash-{n}", unit, "serial", (places or tuple(f"/dev/ttyACM{i}" for i in range(9)))[n - 1], f"1-1.{n}", APP,
                      clock=time.monotonic)
            for n, unit in enumerate(units, start=1)
        ]  # fmt: skip
        for slot in self.slots:
            slot.adapter = APP
        self.terminal = VirtualTerminal("kiosk", self.slots, clock=time.monotonic)
        self.records, self.memory, self.clock = Records(), memory or Memory(), LoopClock()
        self.profile = profile
        self.granted = True
        ports = discoverer or self.terminal.discoverer(KIT), opener or self.terminal.opener(KIT)
        numbers = itertools.count(1)
        self.monitor = Monitor(
            clock=self.clock,
            discoverer=ports[0],
            opener=ports[1],
            recorder=self.records,
            store=self.memory,
            profiles={profile.id: profile},
            inventory=[
                DeviceEntry(slot=slot.name, family="scanner", port=slot.usb_path, profile=profile.id) for slot in self.slots
            ],
            new_id=lambda: next(numbers).to_bytes(8, "big"),
            rng=random.Random(1),
        )
        kwargs = {} if dfu_run is None else {"dfu_run": dfu_run}
        self.service = FirmwareService(
            updates_dir=self.updates,
            requests_dir=self.requests,
            journal=Journal(self.memory),
            devices=self.monitor,
            profiles=lambda: {profile.id: profile},
            flasher=Flasher(discoverer=ports[0], opener=ports[1], **kwargs),
            recorder=self.records,
            clock=self.clock,
            may_flash=lambda: self.granted,
            retry_after_s=0.05,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FlashBench:
        self._task = asyncio.create_task(self.monitor.run())
        await self.until(lambda: all(self.monitor.whereabouts(slot.name)[1] for slot in self.slots))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, true: Callable[[], bool], within_s: float = 10.0) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        while not true():
            assert loop.time() < until_s, "not in time"
            await asyncio.sleep(0.01)

    def drop(self, image: bytes, version: str, *, slot: str = "flash-1", **changes: Any) -> Dropped:
        return put_drop(self.updates, image, version, slot=slot, **{"hardware": (self.profile.id,), **changes})

    def told(self, slot: str = "flash-1") -> list[tuple[str, str]]:
        """States and reasons of the slot's update records, without repeats."""
        pairs = [(body.state, body.reason) for body in self.records.of(Update) if body.component == f"firmware/{slot}"]
        return [pair for pair, _ in itertools.groupby(pairs)]


def put_drop(updates: Path, image: bytes, version: str, *, slot: str, **changes: Any) -> Dropped:
    """What the updater leaves: the file, then `want.json`."""
    fields: dict[str, Any] = {
        "component": f"firmware/{slot}",
        "version": version,
        "release": 1,
        "path": "image.bin",
        "sha256": hashlib.sha256(image).hexdigest(),
        "length": len(image),
    }
    drop = Dropped(**(fields | changes))
    folder = updates / f"firmware/{slot}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.bin").write_bytes(image)
    (folder / "want.json").write_bytes(msgspec.json.encode(drop))
    return drop
