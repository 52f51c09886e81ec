"""Owner mode in a whole agent: what orders, locks and the status say while an application has a device."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import doctor, sessions
from edge_agent.supervisor import Agent
from protocols.contract.orders import Lock, SelfTest
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import HidScanner
from simulators.ports.slots import Slot
from simulators.terminal import VirtualTerminal
from tests.edge_agent.devices.bench import PROFILES
from tests.edge_agent.orders.test_agent import Here, ended, ends
from tests.edge_agent.owner.peer import Peer, connect
from tests.edge_agent.small_agent import Home, inventory
from tests.edge_agent.test_supervisor import post, running
from tests.support.waiting import until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.remove()


def terminal() -> VirtualTerminal:
    scanner = Slot("scanner", HidScanner(), "input", "/dev/input/event3", "1-1.4")
    printer = Slot("receipt-printer", EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880"), "usb", "1-1.2", "1-1.2")
    return VirtualTerminal("kiosk", [scanner, printer])


def slot_of(agent: Agent, name: str) -> Any:
    return next(one for one in agent.status().slots if one.slot == name)


async def holder_of(home: Home, agent: Agent, slot: str) -> Peer:
    await until(lambda: slot_of(agent, slot).device == "online" and home.socket_path.exists(), f"{slot} is online")
    peer = await connect(home.socket_path, slot)
    done = await peer.completion("KioskFleet.Claim", 1, {"application": "hall-kiosk", "leaseS": 120})
    assert done["header"]["completionCode"] == "success", done
    return peer


async def scan(simulated: VirtualTerminal, agent: Agent) -> None:
    """Hold a code in front of the scanner until it is read: what was there before the command does not count."""
    assert agent._owner is not None
    async with asyncio.timeout(20):
        while agent._owner.busy:
            simulated.press("scanner", "scan", "HELLO-1")
            await asyncio.sleep(0.3)


@pytest.mark.spec("D-302, D-401")
async def test_the_status_document_says_what_can_be_claimed_and_who_has_it(home: Home) -> None:
    simulated = terminal()
    agent = home.agent(simulated, PROFILES, config=home.config(devices=inventory(simulated)))
    async with running(agent):
        await until(lambda: slot_of(agent, "scanner").claimable, "the scanner can be claimed")
        assert slot_of(agent, "scanner").claimed_by is None
        peer = await holder_of(home, agent, "scanner")
        try:
            assert slot_of(agent, "scanner").claimed_by == "hall-kiosk"
            asked = await asyncio.to_thread(doctor.ask_agent, str(home.socket_path))
            assert not isinstance(asked, str)
            assert "claimed by hall-kiosk" in doctor.render(list(doctor.of_running(asked, "en")))
        finally:
            peer.cut()
        await until(lambda: slot_of(agent, "scanner").claimed_by is None, "with the connection the claim ends")


@pytest.mark.spec("D-407")
async def test_an_order_that_would_disturb_waits_for_the_command_and_a_claimed_device_prints_for_its_holder_only(
    home: Home,
) -> None:
    simulated = terminal()
    model: Any = simulated.model("receipt-printer")
    agent, office = home.agent(simulated, PROFILES, config=home.config(devices=inventory(simulated))), Here(home)
    async with running(agent):
        office.greet(agent)
        await until(lambda: slot_of(agent, "receipt-printer").device == "online", "the printer is online")
        scanner = await holder_of(home, agent, "scanner")
        printer = await holder_of(home, agent, "receipt-printer")
        try:
            scanner.command("BarcodeReader.Read", 2, {})
            await until(lambda: agent._owner is not None and agent._owner.busy, "the scanner waits for a code")
            order = office.ask(agent, SelfTest(slot="receipt-printer", test="print"))
            await until(lambda: ends(home, order)[-1:] == [("waiting", "session")], "the order waits")
            assert not agent._quiet  # nor would an update or a flash begin
            await scan(simulated, agent)
            assert await ended(home, order) == ("failed", "inUse")
            assert model.cuts == 0
            printer.cut()
            await until(lambda: slot_of(agent, "receipt-printer").claimed_by is None, "the printer is free")
            assert await ended(home, office.ask(agent, SelfTest(slot="receipt-printer", test="print"))) == ("done", "none")
            assert model.cuts == 1
        finally:
            scanner.cut()
            printer.cut()


@pytest.mark.spec("D-405")
async def test_a_session_that_has_begun_keeps_its_devices_when_the_terminal_is_locked(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = terminal()
    agent = home.agent(simulated, PROFILES, config=home.config(devices=inventory(simulated)))
    async with running(agent):
        peer = await holder_of(home, agent, "scanner")
        other = await connect(home.socket_path, "receipt-printer")
        try:
            await until(lambda: slot_of(agent, "receipt-printer").claimable, "the printer can be claimed")
            begin = {"client_id": "5f0c1d2e-7a6b-4c3d-9e8f-a1b2c3d4e5f6", "item": "tax.invoice"}
            session = (await asyncio.to_thread(post, home, "/v1/sessions", begin))["session"]
            monkeypatch.setattr(type(agent._desired), "lock", Lock(zh="维护中", since_ms=0))
            refused = await other.completion("KioskFleet.Claim", 1)
            assert refused["payload"]["errorCode"] == "locked"
            peer.command("BarcodeReader.Read", 2, {})
            await until(lambda: agent._owner is not None and agent._owner.busy, "the scanner still serves the citizen")
            await scan(simulated, agent)
            assert slot_of(agent, "scanner").claimed_by == "hall-kiosk"
            await asyncio.to_thread(post, home, f"/v1/sessions/{session}/end", {"outcome": "success"})
            await until(lambda: slot_of(agent, "scanner").claimed_by is None, "the claim is taken back")
        finally:
            peer.cut()
            other.cut()


@pytest.mark.spec("D-411")
async def test_a_session_that_goes_on_and_on_holds_nothing_off(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated = terminal()
    model: Any = simulated.model("receipt-printer")
    agent, office = home.agent(simulated, PROFILES, config=home.config(devices=inventory(simulated))), Here(home)
    async with running(agent):
        office.greet(agent)
        peer = await holder_of(home, agent, "scanner")
        try:
            await until(lambda: slot_of(agent, "receipt-printer").device == "online", "the printer is online")
            begin = {"client_id": "5f0c1d2e-7a6b-4c3d-9e8f-a1b2c3d4e5f6", "item": "tax.invoice"}
            session = (await asyncio.to_thread(post, home, "/v1/sessions", begin))["session"]
            order = office.ask(agent, SelfTest(slot="receipt-printer", test="print"))
            await until(lambda: ends(home, order)[-1:] == [("waiting", "session")], "the order waits for the citizen")
            assert not agent._quiet
            monkeypatch.setattr(sessions, "STUCK_AFTER_MS", 0)  # an hour has passed
            await asyncio.to_thread(post, home, f"/v1/sessions/{session}/renew", {})
            assert agent._quiet  # an update or a flash would begin
            office.ask(agent, SelfTest(slot="receipt-printer"))  # whoever comes next makes it look again at once
            assert await ended(home, order) == ("done", "none")
            assert model.cuts == 1
            assert not agent.status().idle
            monkeypatch.setattr(type(agent._desired), "lock", Lock(zh="维护中", since_ms=0))
            await until(lambda: slot_of(agent, "scanner").claimed_by is None, "a lock takes the claim back")
            await asyncio.to_thread(post, home, f"/v1/sessions/{session}/end", {"outcome": "success"})
        finally:
            peer.cut()
