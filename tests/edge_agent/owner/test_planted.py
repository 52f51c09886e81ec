"""What devices say of a citizen arrives at the application that has them, and nowhere else: every family that can be claimed, through the whole
agent, with its disk, its log, its status and what `edge-agent doctor` prints looked through."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import doctor
from edge_agent.logs import FieldFormatter
from edge_agent.owner import factory
from protocols.profile.schema import Family, Kind
from simulators.models.card_f2 import F2CardReader
from simulators.models.card_mechanism import ChipCard
from simulators.models.ccid import CcidReader
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import HidScanner, Keypad
from simulators.models.laser import USB_LJ2650, LaserPrinter
from simulators.models.scanner import SerialScanner
from simulators.models.sdt import SdtReader, SyntheticCard
from simulators.ports.slots import CH340, CP2102, Slot
from simulators.terminal import VirtualTerminal
from tests.edge_agent.devices.bench import PROFILES
from tests.edge_agent.owner.peer import Peer, connect
from tests.edge_agent.small_agent import Home, inventory
from tests.together.needles import DIGITS, NAME, NUMBER, TEXT, Search

CODES = {
    str(number): name
    for number, name in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
}
KEYS: dict[str, dict[str, bool]] = {name: {} for name in CODES.values()} | {"enter": {"terminate": True}}
READ_BINARY = base64.b64encode(bytes.fromhex("00b0000040")).decode()


def b64(data: str) -> bytes:
    return base64.b64decode(data)


@dataclass
class Case:
    """A device, what the application asks of it, what a citizen does meanwhile, and what must come of it."""

    slot: Slot
    families: tuple[Family, ...]
    steps: list[tuple[str, Any]]
    act: Callable[[VirtualTerminal, str], None]
    found: Callable[[dict[str, Any]], bool]
    heard: bytearray = field(default_factory=bytearray)
    speaks: bool = True
    """Its answers carry something of the citizen; a printer's do not."""


def typed(payload: dict[str, Any]) -> bool:
    return [key["digit"] for key in payload["pinKeys"]] == [*(CODES[digit] for digit in DIGITS), "enter"]


def scanned(payload: dict[str, Any]) -> bool:
    return b64(payload["readOutput"][0]["barcodeData"]) == TEXT.encode()


def read_person(payload: dict[str, Any]) -> bool:
    return NAME in json.dumps(payload["kioskFleet"]["residentCard"]["fields"], ensure_ascii=False)


def read_chip(payload: dict[str, Any]) -> bool:
    return TEXT.encode() in b64(payload["chipData"])


def lay_card(terminal: VirtualTerminal, slot: str) -> None:
    model = terminal.model(slot)
    assert isinstance(model, SdtReader)
    model.place_card(SyntheticCard(NAME))


def insert_chip(terminal: VirtualTerminal, slot: str) -> None:
    terminal.press(slot, "insert-card", TEXT)


def insert_card(terminal: VirtualTerminal, slot: str) -> None:
    model = terminal.model(slot)
    assert isinstance(model, F2CardReader)
    model.insert(ChipCard(TEXT), terminal.clock())


def nothing(terminal: VirtualTerminal, slot: str) -> None:
    pass


def cases() -> list[Case]:
    chip_io = [
        ("CardReader.ChipPower", {"chipPower": "cold"}),
        ("CardReader.ChipIO", {"chipProtocol": "chipT0", "chipData": READ_BINARY}),
    ]
    return [
        Case(
            Slot("scanner", HidScanner(), "input", "/dev/input/event3", "1-1.1"),
            (Family.SCANNER_KEYBOARD,),
            [("BarcodeReader.Read", {})],
            lambda terminal, slot: terminal.press(slot, "scan", TEXT),
            scanned,
        ),
        Case(
            Slot("scanner-2", SerialScanner(), "serial", "/dev/ttyUSB0", "1-1.2", adapter=CH340),
            (Family.SCANNER_SERIAL,),
            [("BarcodeReader.Read", {})],
            lambda terminal, slot: terminal.press(slot, "scan", TEXT),
            scanned,
        ),
        Case(
            Slot("keypad", Keypad(), "input", "/dev/input/event4", "1-1.3"),
            (Family.KEYS,),
            [("Keyboard.DataEntry", {"maxLen": 20, "autoEnd": False, "activeKeys": KEYS})],
            lambda terminal, slot: terminal.press(slot, "type", DIGITS),
            typed,
        ),
        Case(
            Slot("id-reader", SdtReader(), "serial", "/dev/ttyUSB1", "1-1.4", adapter=CP2102),
            (Family.SDT,),
            [("CardReader.ReadRawData", {"chip": True})],
            lay_card,
            read_person,
        ),
        Case(
            Slot("card-reader", CcidReader(), "usb", "1-1.5", "1-1.5"),
            (Family.CCID,),
            [
                ("CardReader.ReadRawData", {"chip": True}),
                ("CardReader.ChipIO", {"chipProtocol": "chipTypeAPart4", "chipData": READ_BINARY}),
            ],
            insert_chip,
            read_chip,
        ),
        Case(
            Slot("card-reader-2", F2CardReader(), "serial", "/dev/ttyUSB2", "1-1.6", adapter=CH340),
            (Family.CARD_F2,),
            [("CardReader.ReadRawData", {"chip": True}), *chip_io],
            insert_card,
            read_chip,
        ),
        Case(
            Slot("receipt-printer", EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880"), "usb", "1-1.7", "1-1.7"),
            (Family.ESCPOS,),
            [("Printer.PrintRaw", {"data": base64.b64encode(f"{TEXT}\n{NUMBER}\n".encode()).decode()})],
            nothing,
            lambda payload: payload is not None,
            speaks=False,
        ),
        Case(
            Slot("laser-printer", LaserPrinter(usb=USB_LJ2650, page_count=100), "usb", "1-1.8", "1-1.8"),
            (Family.PJL,),
            [("Printer.PrintRaw", {"data": base64.b64encode(f"{TEXT} {NAME}\f".encode()).decode()})],
            nothing,
            lambda payload: payload is not None,
            speaks=False,
        ),
    ]


MOTION_ONLY = frozenset({Family.CARD_STX, Family.CARD_D1801})
"""Families whose commands bring nothing of a person: where a card is and no more."""


def test_every_family_that_can_be_claimed_has_its_case() -> None:
    """A family that gets a server without a case here is found."""
    from edge_agent.devices.base import SlotBinding

    served = {
        profile.family
        for profile in PROFILES.values()
        if (server := factory.server_for(SlotBinding(slot="x", profile=profile))) is not None and server.commands
    }
    covered = {family for case in cases() for family in case.families} | {Family.USB_PRINTER} | MOTION_ONLY
    assert served <= covered
    for profile in PROFILES.values():  # what is asked often says the same as what is loaded
        server = factory.server_for(SlotBinding(slot="x", profile=profile))
        assert factory.has_commands(profile) == (server is not None and bool(server.commands)), profile.id
    assert Kind.CAMERA not in {profile.kind for profile in PROFILES.values() if profile.family in served}


async def run_case(case: Case, terminal: VirtualTerminal, socket_path: Path) -> None:
    holder = await connect(socket_path, case.slot.name)
    try:
        async with asyncio.timeout(20):
            number = 1
            while True:
                done = await holder.completion("KioskFleet.Claim", number, {"application": "hall-kiosk", "leaseS": 60})
                number += 1
                if done["header"]["completionCode"] == "success":
                    break
                assert done["payload"]["errorCode"] == "notClaimable", done  # not seen yet
                await asyncio.sleep(0.05)
        acted = False
        for name, payload in case.steps:
            number += 1
            waiting = asyncio.ensure_future(holder.completion(name, number, payload))
            if not acted:
                await asyncio.sleep(0.3)
                case.act(terminal, case.slot.name)
                acted = True
            done = await waiting
            assert done["header"]["completionCode"] == "success", (case.slot.name, done["header"])
        assert case.found(done["payload"]), case.slot.name
        # Wrong on purpose: the same marks where they do not belong, and an end in the middle of a command.
        for bad in ({"chipData": NUMBER}, {NUMBER: TEXT}, {"data": f"{NUMBER}%"}):
            number += 1
            assert (await holder.completion(case.steps[-1][0], number, bad))["header"]["completionCode"] != "success"
        holder.send(NUMBER)
        holder.command(f"Surprise.{TEXT.replace('-', '')}", number + 1, {"person": NAME})
        holder.command(case.steps[0][0], number + 2, case.steps[0][1])
        await asyncio.sleep(0.2)
    finally:
        case.heard += holder.heard
        holder.cut()


@pytest.mark.slow
@pytest.mark.spec("D-504")
async def test_content_arrives_at_the_holder_and_is_found_nowhere_else(tmp_path: Path) -> None:
    home, those = Home(tmp_path), cases()
    terminal = VirtualTerminal("kiosk", [case.slot for case in those])
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FieldFormatter("%(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    said: list[bytes] = []
    strangers: list[Peer] = []
    agent = home.agent(terminal, PROFILES, config=home.config(devices=inventory(terminal)))
    running = asyncio.create_task(agent.run())
    try:
        async with asyncio.timeout(60):
            await agent.started.wait()
            while agent._owner is None or not home.socket_path.exists():
                await asyncio.sleep(0.01)
            strangers = [await connect(home.socket_path, case.slot.name) for case in those] + [
                await connect(home.socket_path, None)
            ]
            await asyncio.gather(*(run_case(case, terminal, home.socket_path) for case in those))
            status = agent.status()
            said.append(msgspec.json.encode(status))
            said += [
                doctor.render(list(doctor.of_running(status, "en"))).encode(),
                doctor.render(list(doctor.of_running(status, "zh"))).encode(),
            ]
            for peer in strangers:
                name = "ServicePublisher.GetServices" if peer is strangers[-1] else "Common.Status"
                await peer.completion(name, 1)
                said.append(bytes(peer.heard))
            while agent._owner.claimed():
                await asyncio.sleep(0.01)
    finally:
        for peer in strangers:
            peer.cut()
        agent.stop()
        await asyncio.gather(running, return_exceptions=True)
        root.removeHandler(handler)
        root.setLevel(level)
        home.remove()
    codes = [Keypad.layout[digit] for digit in DIGITS]
    words = json.dumps([CODES[digit] for digit in DIGITS])[1:-1].encode()
    search = Search(
        (NAME, NUMBER, TEXT, DIGITS), {bytes(codes): "key codes", str(codes)[1:-1].encode(): "key codes", words: "key words"}
    )
    findings, size = search.in_tree(tmp_path)
    assert size > 10_000
    log = stream.getvalue().encode()
    assert b"agent started" in log
    findings += search.in_bytes("the log", log)
    for number, document in enumerate(said):
        assert document
        findings += search.in_bytes(f"document {number}", document)
    assert not findings, "\n".join(sorted(set(findings)))
    for case in those:  # the same search finds it where it belongs
        if case.speaks and case.slot.name != "keypad":
            assert search.in_bytes("the holder's connection", bytes(case.heard)), case.slot.name
