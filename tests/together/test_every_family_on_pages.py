"""One terminal with a device of every family, a fault in each: all of them are on the console's list under their codes, in both languages."""

from __future__ import annotations

import asyncio
import csv
import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

import firmware_profiles
from edge_agent.clock import SystemClock, read_boot_id
from edge_agent.config import Config
from edge_agent.supervisor import Agent
from edge_agent.transports import base
from protocols.canon.faults import FAULTS
from protocols.profile.schema import FAULT_FAMILY, parse_all
from simulators.ports.pipe import PortKit
from simulators.terminal import VirtualTerminal
from tests.edge_agent.devices.test_every_fault import BUILD
from tests.edge_agent.small_agent import FACTS, CalmProbe, inventory
from tests.support.processes import Processes
from tests.support.server import RunningServer
from tests.support.waiting import until
from tests.together.road import Enrolled, enrolled

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(180)]

TERMINAL, PASSWORD = "kf-0001", "river-stone-4711"
STORY: tuple[tuple[str, str, str], ...] = (
    ("reader-split", "sam-failure", "IDR.SELF_TEST"),
    ("ccid-contact", "hardware-error", "CRD.SELF_TEST"),
    ("card-f2", "stacker-empty", "CRD.STACKER_EMPTY"),
    ("card-stx", "voltage", "CRD.POWER"),
    ("card-d1801", "bin-full", "CRD.BIN_FULL"),
    ("pcsc", "service-stopped", "CRD.OPEN_FAIL"),
    ("receipt-serial", "paper-out", "PRN.PAPER_OUT"),
    ("presenter-usb", "presenter-jam", "PRN.JAM"),
    ("star-usb", "head-up", "PRN.HEAD_UP"),
    ("laser", "toner-empty", "LSR.TONER_EMPTY"),
    ("ipp", "door-open", "LSR.COVER_OPEN"),
    ("scanner-keys", "mode-switched", "SCN.MODE_CHANGED"),
    ("scanner-honeywell", "silence", "SCN.OPEN_FAIL"),
    ("keypad", "stuck-key", "KPD.STUCK_KEY"),
    ("evaluator-bytes", "stuck-key", "EVA.STUCK_KEY"),
    ("help-button", "unplug", "BTN.UNPLUGGED"),
    ("emergency-button", "pressed", "BTN.EMERGENCY"),
    ("hall", "window-screen-2 silence", "LED.NO_REPLY"),
    ("hall", "3 silence", "CAL.NO_REPLY"),
    ("face-camera", "head-missing", "CAM.HEAD_MISSING"),
    ("document-camera", "unplug", "DOC.UNPLUGGED"),
    ("display", "unplug", "DSP.NO_SIGNAL"),
    ("touch-screen", "unplug", "TCH.UNPLUGGED"),
    ("microphone", "unplug", "AUD.NO_MIC"),
    ("speaker", "unplug", "AUD.NO_SPEAKER"),
    ("fingerprint", "unplug", "FPR.UNPLUGGED"),
    ("signature-pad", "unplug", "SIG.UNPLUGGED"),
    ("modem", "unplug", "NET.UNPLUGGED"),
    ("sensors", "door smoke", "ENV.SMOKE"),
    ("ups-serial", "ups-failed", "PWR.UPS_FAILED"),
    ("gps-serial", "unplug", "GPS.UNPLUGGED"),
)
"""Form of `test_every_fault.BUILD`, what happens to it, what shall be read. Where a code waits a minute, the agent's clock is moved."""


class MovedClock(SystemClock):
    """The machine's wall clock; the time since boot can be moved on, for faults that wait a minute before they are told."""

    moved_ms = 0

    def boot_ms(self) -> int:
        return super().boot_ms() + self.moved_ms


def test_the_story_has_every_family_that_a_device_can_raise() -> None:
    assert {code.partition(".")[0] for _, _, code in STORY} == set(FAULT_FAMILY.values())


def whole_terminal() -> tuple[VirtualTerminal, list[list[str]]]:
    """All the devices, each on a socket of the computer's own, and the words that break each."""
    slots = {}
    words = []
    for number, (form, fault, _) in enumerate(STORY, 1):
        if form not in slots:
            slot = slots[form] = BUILD[form]()
            if not slot.model.units:  # units have names of their own
                slot.name = f"{slot.model.kind.replace('a4', 'laser')}-{number}"
            if slot.usb_path is not None:
                slot.usb_path = f"{number}-1"
            if slot.bus in ("serial", "input", "video", "sound"):
                slot.path = f"{slot.path}-{number}"
            elif slot.bus == "usb":
                slot.path = f"{number}-1"
        words.append(fault.split() if fault.startswith(("window-", "door ")) else [slots[form].name, *fault.split()])
    return VirtualTerminal("kiosk", slots.values()), words


@asynccontextmanager
async def running_agent(me: Enrolled, devices: VirtualTerminal, clock: MovedClock) -> AsyncIterator[Agent]:
    kit = PortKit.of(base)
    tree = {
        "schema": 1,
        "identity_dir": str(me.folder / "identity"),
        "state_dir": str(me.folder / "state"),
        "server": {"url": me.who.server_url},
        "devices": inventory(devices),
    }
    agent = Agent(
        config=msgspec.convert(tree, Config),
        who=me.who,
        clock=clock,
        boot_id=read_boot_id(),
        keys=me.keys,
        opener=devices.opener(kit),
        discoverer=devices.discoverer(kit),
        profiles=parse_all(firmware_profiles.read_all()),
        probe=CalmProbe(),
        facts=FACTS,
        local_api=False,
        rng=random.Random(1),
    )
    task = asyncio.create_task(agent.run())
    try:
        await agent.started.wait()
        yield agent
    finally:
        agent.stop()
        await task


def online(agent: Agent) -> list[str]:
    return [slot.slot for slot in agent.status().slots if slot.device == "online"]


async def listed(server: RunningServer, language: str) -> dict[str, tuple[str, str]]:
    """What somebody reads and exports: code → the sentence of its row and the page's text around it."""
    async with httpx.AsyncClient(base_url=server.web_url, timeout=30) as browser:
        form = {"name": f"reader-{language}", "password": PASSWORD, "next": "/", "lang": language}
        answer = await browser.post("/login", data=form, headers={"Origin": server.web_url})
        assert answer.status_code == 303, answer.text[:300]
        page = (await browser.get("/faults")).text
        file = (await browser.get("/faults.csv")).content.decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(file)))
    return {row[2]: (row[1], page) for row in rows[1:]}


async def test_a_fault_of_each_family_is_on_the_list_under_its_code(tmp_path: Path, processes: Processes) -> None:
    server = RunningServer(tmp_path / "server", processes)
    server.init()
    for language in ("zh", "en"):
        server.add_account(f"reader-{language}", PASSWORD, lang=language)
    server.start()
    devices, words = whole_terminal()
    wanted = {code for _, _, code in STORY}
    clock = MovedClock()
    me = await asyncio.to_thread(enrolled, server, tmp_path, TERMINAL)

    def at_server() -> set[str]:
        return {code for (code,) in server.rows("SELECT code FROM fault WHERE source = 'terminal' AND cleared_ms IS NULL")}

    async with running_agent(me, devices, clock) as agent:
        expected = {str(entry["slot"]) for entry in devices.ports()}
        await until(lambda: set(online(agent)) == expected, "all is online", timeout_s=60)
        assert at_server() == set()
        for each in words:
            devices.do(["fault", *each])
        at_once = {code for code in wanted if FAULTS[code].debounce_s < 60}
        await until(lambda: at_server() >= at_once, "those that wait for nothing are at the server", timeout_s=60)
        clock.moved_ms += 61_000
        await until(lambda: at_server() >= wanted, "all are at the server", timeout_s=60)
        for language in ("zh", "en"):
            found = await listed(server, language)
            for code in wanted:
                sentence, page = found[code]
                kind = FAULTS[code]
                assert (kind.zh if language == "zh" else kind.en) in sentence
                assert code in page
    server.stop()
