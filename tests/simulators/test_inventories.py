"""Whole terminals: every device of every type is found, watched by its profile, and shown by `edge-agent doctor` with profile and state."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent import doctor, status
from edge_agent.devices.base import link_codes
from protocols.canon.faults import fault
from protocols.contract.records import Device
from protocols.profile.schema import Kind
from simulators.conformance.watch import WALL_OFFSET_MS
from simulators.terminal import TYPES, VirtualTerminal, build_terminal
from tests.edge_agent.devices.bench import Bench, in_virtual_time

COLUMNS = ("kiosk", "zone", "booth", "desk", "call-pads", "evaluator", "van")
CELLS = {
    "touch-screen":       "M M M M - M M",
    "display":            "M M M M M M M",
    "id-reader":          "M M M M o o M",
    "laser-printer":      "M M M M - - M",
    "receipt-printer":    "M M o o M - o",
    "scanner":            "M M o M o - M",
    "face-camera":        "M M M o - o M",
    "document-camera":    "o o M o - - M",
    "fingerprint-reader": "o o o o - o o",
    "card-reader":        "o o o o - o o",
    "card-dispenser":     "- o - o - - -",
    "signature-pad":      "o o M o - o o",
    "microphone":         "o o M o - - o",
    "speaker":            "o o M o M o o",
    "help-button":        "o o - M - - o",
    "emergency-button":   "- M M M - - -",
    "room-camera":        "- M o o - - -",
    "door":               "? M o o - - -",
    "climate":            "? M o o - - o",
    "ups":                "M M o o o - M",
    "gps":                "- - - - - - M",
    "modem":              "- - - - - - M",
    "keypad":             "o o - - - - -",
    "evaluator":          "o o o o o - -",
    "call-pad":           "- - - - M - -",
    "window-screen":      "- - - - M - -",
}  # fmt: skip
"""What stands in each type of terminal, as tenders and site rules ask. M: it is not intact without; o: it still serves; ?: some have it."""


def whole(kind: str, seed: int = 1) -> VirtualTerminal:
    return build_terminal(kind, seed=seed, windows=6, whole=True, epoch_s=WALL_OFFSET_MS / 1000)


def document_of(bench: Bench) -> status.StatusDocument:
    """What the agent's local API would say."""
    return status.document(
        terminal="kiosk-0007",
        agent="1.0.0",
        idle=True,
        slots=bench.monitor.slot_views(),
        faults=bench.monitor.open_faults(),
        sightings=bench.monitor.unknown_devices(),
        uplink=status.UplinkStatus(connected=True, reason="connected", waiting_batches=0, acknowledged=True),
    )


def test_the_table_has_every_type() -> None:
    assert set(COLUMNS) == set(TYPES)


@pytest.mark.parametrize("place", CELLS)
def test_what_belongs_to_a_terminal_is_there_and_counts(place: str) -> None:
    for kind, cell in zip(COLUMNS, CELLS[place].split(), strict=True):
        for seed in range(6):
            found = [entry for entry in whole(kind, seed).ports() if str(entry["slot"]).rstrip("-0123456789") == place]
            marks = {"M" if entry["mandatory"] else "o" for entry in found} or {"-"}
            assert cell in marks or (cell == "?" and "M" not in marks), (kind, seed, marks)
            assert cell != "o" or marks == {"o"}, (kind, seed)


@pytest.mark.parametrize("kind", TYPES)
def test_nothing_stands_in_a_terminal_that_the_table_does_not_name(kind: str) -> None:
    for seed in range(6):
        assert {str(entry["slot"]).rstrip("-0123456789") for entry in whole(kind, seed).ports()} <= CELLS.keys()


@pytest.mark.parametrize("kind", TYPES)
def test_what_completes_a_terminal_moves_nothing(kind: str) -> None:
    """Old places, models and ids stay: the past of the demo's city belongs to them."""
    for seed in range(6):
        core = build_terminal(kind, seed=seed, windows=6).ports()
        grown = whole(kind, seed).ports()
        assert [entry for entry in grown if entry in core] == core


@pytest.mark.parametrize("kind", TYPES)
def test_doctor_lists_every_device_with_profile_and_state(kind: str) -> None:
    async def story() -> None:
        terminal = whole(kind)
        async with Bench(*terminal.slots.values()) as bench:
            expected = {str(entry["slot"]) for entry in terminal.ports()}
            await bench.until(
                lambda: bench.states().keys() == expected and set(bench.states().values()) == {"online"}, within_s=120
            )
            assert bench.records.open_codes() == set()
            assert bench.monitor.unknown_devices() == ()
            assert all(device.profile for device in bench.records.of(Device))
            text = doctor.render(list(doctor.of_running(document_of(bench), "en")))
            for entry in terminal.ports():
                (line,) = [line for line in text.splitlines() if line.split()[1] == entry["slot"]]
                assert line.startswith("ok")
                assert f" {entry['family']} " in line
                assert "no profile" not in line
                assert str(entry.get("profile", "")) in line
                assert "online" in line
            assert max(map(len, text.splitlines())) <= 160

    in_virtual_time(story())


@pytest.mark.parametrize("kind", ["kiosk", "call-pads", "booth", "desk", "evaluator", "van"])
def test_every_device_that_is_pulled_is_missed(kind: str) -> None:
    async def story() -> None:
        terminal = whole(kind, seed=2)
        async with Bench(*terminal.slots.values()) as bench:
            expected = {str(entry["slot"]) for entry in terminal.ports()}
            await bench.until(
                lambda: bench.states().keys() == expected and set(bench.states().values()) == {"online"}, within_s=120
            )
            for name in terminal.slots:
                bench.terminal.set(name, "unplug")
            codes = {link_codes(Kind(str(entry["family"]))).unplugged for entry in terminal.ports()}
            # Of several units behind one port the first speaks for all.
            shared = {"LED.NO_REPLY", "CAL.UNPLUGGED"} if kind == "call-pads" else set()
            missed = codes - shared | ({"CAL.BUS_DOWN"} if shared else set())
            await bench.until(lambda: bench.records.open_codes() >= missed, within_s=600)
            assert all(fault(code).zh for code in missed)
            for name in terminal.slots:
                bench.terminal.clear(name, "unplug")
            await bench.until(lambda: not bench.records.open_codes(), within_s=3600)
            await bench.until(lambda: set(bench.states().values()) == {"online"}, within_s=120)
            await asyncio.sleep(1)

    in_virtual_time(story())
