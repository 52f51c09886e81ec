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

from edge_agent.artifacts.desk import Desk
from edge_agent.config import DeviceEntry
from edge_agent.firmware.flasher import Flasher
from edge_agent.firmware.installer import FirmwareInstaller
from edge_agent.firmware.journal import Journal
from edge_agent.monitor import Monitor
from edge_agent.updater.handover import AgentSide, Applied, AppliedOne, Apply, Artifact, UpdaterSide
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
        self.requests.mkdir(parents=True, exist_ok=True)
        (self.updates / "artifacts").mkdir(parents=True, exist_ok=True)
        self.updater = UpdaterSide(self.requests, self.updates)
        self.journal = Journal(self.memory)
        self.installer = FirmwareInstaller(
            artifacts_dir=self.updates / "artifacts",
            journal=self.journal,
            devices=lambda: self.monitor,
            profiles=lambda: {profile.id: profile},
            flasher=Flasher(discoverer=ports[0], opener=ports[1], **kwargs),
            may_flash=lambda: self.granted,
            retry_after_s=0.05,
        )
        self.side = Telling(self.requests, self.updates)
        self.service = Desk(self.side, {"firmware": self.installer})
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

    def drop(self, image: bytes, version: str, *slots: str, **changes: Any) -> None:
        """What the updater leaves: the file, then `apply.json`."""
        sha256 = hashlib.sha256(image).hexdigest()
        (self.updates / "artifacts" / sha256).write_bytes(image)
        fields: dict[str, Any] = {"version": version, "release": 1, "sha256": sha256, "length": len(image)}
        fields |= {"hardware": (self.profile.id,), **changes}
        artifacts = tuple(Artifact(component=f"firmware/{slot}", **fields) for slot in slots or ("flash-1",))
        self.updater.write_apply(Apply(id=random.randbytes(16).hex(), bundle="ab" * 16, artifacts=artifacts))

    def told(self, slot: str = "flash-1") -> list[tuple[str, str]]:
        """States and reasons that the updater was told of the slot, without repeats."""
        ones = [one for applied in self.side.told for one in applied.results if one.component == f"firmware/{slot}"]
        return [pair for pair, _ in itertools.groupby((one.state, one.reason) for one in ones)]

    def end(self, slot: str = "flash-1") -> AppliedOne:
        applied = self.updater.applied()
        assert applied is not None
        return next(one for one in applied.results if one.component == f"firmware/{slot}")

    def tries(self, slot: str = "flash-1") -> int:
        entry = self.journal.get(slot)
        assert entry is not None
        return entry.tries


class Telling(AgentSide):
    """The agent's end, and all that it ever told."""

    def __init__(self, requests: Path, updates: Path) -> None:
        super().__init__(requests, updates)
        self.told: list[Applied] = []

    def write_applied(self, applied: Applied | None) -> None:
        if applied is not None:
            self.told.append(applied)
        super().write_applied(applied)
