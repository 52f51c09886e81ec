"""The real device side of the agent on virtual terminals: every type comes up healthy, and a fault set by name is the fault it reports."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from edge_agent.clock import SystemClock
from edge_agent.config import DeviceEntry
from edge_agent.monitor import Monitor
from edge_agent.transports import base
from firmware_profiles import read_all
from protocols.canon.words import DeviceState
from protocols.contract import records
from protocols.profile.schema import parse_all
from simulators.models.escpos import EscposPrinter
from simulators.models.laser import USB_PANTUM
from simulators.ports.pipe import PortKit
from simulators.terminal import TYPES, VirtualTerminal, build_terminal

KIT = PortKit.of(base)
PROFILES = parse_all(read_all())
ENTRY_KEYS = ("slot", "family", "profile", "port", "address", "mandatory")


@dataclass
class Notebook:
    """Takes what the monitor captures, and keeps what it wants kept."""

    bodies: list[records.Body] = field(default_factory=list)
    kept: dict[str, bytes] = field(default_factory=dict)

    def capture(self, body: records.Body, *, urgent: bool = False) -> None:
        self.bodies.append(body)

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: str, value: bytes) -> None:
        self.kept[key] = value


@asynccontextmanager
async def watched(terminal: VirtualTerminal) -> AsyncIterator[tuple[Monitor, Notebook]]:
    notes = Notebook()
    monitor = Monitor(
        clock=SystemClock(),
        discoverer=terminal.discoverer(KIT),
        opener=terminal.opener(KIT),
        recorder=notes,
        store=notes,
        profiles=PROFILES,
        inventory=[DeviceEntry(**{key: entry[key] for key in ENTRY_KEYS if key in entry}) for entry in terminal.ports()],
        new_id=lambda: os.urandom(8),
        rng=random.Random(1),
    )
    async with asyncio.TaskGroup() as group:  # a monitor that fails ends the test at once
        running = group.create_task(monitor.run())
        try:
            yield monitor, notes
        finally:
            running.cancel()


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


def all_online(monitor: Monitor) -> bool:
    views = monitor.slot_views()
    return all(view.state is not None and view.state.device is DeviceState.ONLINE for view in views)


@pytest.mark.parametrize("kind", TYPES)
async def test_a_healthy_terminal_is_healthy(kind: str) -> None:
    for seed in (1, 2):
        terminal = build_terminal(kind, seed=seed, windows=4)
        async with watched(terminal) as (monitor, _):
            await until(lambda: all_online(monitor))
            assert monitor.open_faults() == []
            assert monitor.unknown_devices() == ()


@pytest.mark.slow
async def test_faults_by_name_are_the_faults_reported() -> None:
    expected = {
        ("receipt-printer", "paper-out"): "PRN.PAPER_OUT",
        ("laser-printer", "jam"): "LSR.JAM",
        ("id-reader", "unplug"): "IDR.UNPLUGGED",
        ("door", "door-open"): "ENV.DOOR_OPEN",
    }
    seed = next(seed for seed in range(20) if build_terminal("booth", seed=seed).model("laser-printer").usb is not USB_PANTUM)
    terminal = build_terminal("booth", seed=seed)
    async with watched(terminal) as (monitor, notes):
        await until(lambda: all_online(monitor))
        for device, fault in expected:
            terminal.set(device, fault)
        await until(lambda: {fault.code for fault in monitor.open_faults()} >= set(expected.values()))
        for device, fault in expected:
            terminal.clear(device, fault)
        await until(lambda: not monitor.open_faults())
        ends = {(body.code, body.change) for body in notes.bodies if isinstance(body, records.Fault)}
        assert ends >= {(code, change) for code in expected.values() for change in ("open", "clear")}


async def test_keys_of_pads_and_evaluators_arrive_once() -> None:
    hall, kiosk = build_terminal("call-pads", seed=3, windows=4), build_terminal("kiosk", seed=3)
    async with watched(hall) as (hall_monitor, hall_notes), watched(kiosk) as (kiosk_monitor, kiosk_notes):
        await until(lambda: all_online(hall_monitor) and all_online(kiosk_monitor))
        hall.press("call-pad 3", "call-next")
        hall.press("call-pad 2", "drop")
        hall.press("call-pad 4", "rate", "4")
        kiosk.press("evaluator", "rate", "5")

        def heard() -> set[tuple[str, str | int]]:
            bodies = hall_notes.bodies + kiosk_notes.bodies
            keys: set[tuple[str, str | int]] = {(body.slot, body.action) for body in bodies if isinstance(body, records.Queue)}
            return keys | {(body.slot or "", body.level) for body in bodies if isinstance(body, records.Rating)}

        wanted = {("call-pad-3", "callNext"), ("call-pad-2", "drop"), ("call-pad-4", 4), ("evaluator", 5)}
        await until(lambda: heard() >= wanted)
        # Longer than an unacknowledged pad would need to repeat itself.
        bus = hall.model("call-pad")
        await until(lambda: bus.mechanism_due() is None)
        bodies = hall_notes.bodies + kiosk_notes.bodies
        assert sum(isinstance(body, records.Queue | records.Rating) for body in bodies) == len(wanted)


async def test_planted_card_content_reaches_no_record() -> None:
    terminal = build_terminal("kiosk", seed=1)
    terminal.press("id-reader", "place-card", "PLANTED")
    terminal.press("scanner", "scan", "PLANTED")
    async with watched(terminal) as (monitor, notes):
        await until(lambda: all_online(monitor))
        terminal.press("scanner", "scan", "PLANTED")
        terminal.press("keypad", "type", "330702")
        terminal.set("receipt-printer", "paper-out")
        await until(lambda: any(isinstance(body, records.Fault) for body in notes.bodies))
        text = repr(notes.bodies) + repr(notes.kept)
        assert "PLANTED" not in text
        assert "330702" not in text
        assert isinstance(terminal.model("receipt-printer"), EscposPrinter)
