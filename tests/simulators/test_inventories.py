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

ROWS = {
    "kiosk": {
        "id-reader", "a4-printer", "receipt-printer", "scanner", "keypad", "evaluator", "touch-screen", "display", "camera", "document-camera",
        "fingerprint-reader", "card-reader", "signature-pad", "microphone", "speaker", "help-button", "ups",
    },
    "zone": {
        "id-reader", "a4-printer", "receipt-printer", "scanner", "touch-screen", "display", "camera", "emergency-button", "contacts", "climate",
        "ups", "card-dispenser",
    },
    "call-pads": {"receipt-printer", "call-pad", "window-screen", "evaluator", "display", "speaker", "ups"},
    "booth": {
        "id-reader", "a4-printer", "receipt-printer", "scanner", "touch-screen", "display", "camera", "document-camera", "card-reader",
        "signature-pad", "microphone", "speaker", "emergency-button", "contacts", "climate", "ups",
    },
    "desk": {
        "id-reader", "a4-printer", "scanner", "touch-screen", "display", "camera", "microphone", "speaker", "help-button", "contacts", "ups",
    },
    "van": {"id-reader", "a4-printer", "scanner", "touch-screen", "camera", "document-camera", "climate", "ups", "gps", "modem"},
}  # fmt: skip
"""Kinds of device that stand in each type of terminal."""
MUST = {
    "touch-screen": {"kiosk", "zone", "booth", "desk", "van"},
    "id-reader": {"kiosk", "zone", "booth", "desk", "van"},
    "laser-printer": {"kiosk", "zone", "booth", "desk", "van"},
    "receipt-printer": {"kiosk", "zone", "call-pads"},
    "scanner": {"kiosk", "zone", "desk", "van"},
    "face-camera": {"kiosk", "zone", "booth", "van"},
    "document-camera": {"booth", "van"},
    "signature-pad": {"booth"},
    "microphone": {"booth", "desk"},
    "speaker": {"booth", "desk"},
    "emergency-button": {"zone", "booth", "desk"},
    "room-camera": {"zone"},
    "ups": {"kiosk", "zone", "van"},
    "gps": {"van"},
    "modem": {"van"},
    "window-screen": {"call-pads"},
    "display": {"call-pads"},
    "call-pad": {"call-pads"},
}
"""Places without which a terminal of these types is not intact, as tenders and site rules for such terminals ask for."""


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


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_has_its_rows(kind: str) -> None:
    for seed in range(6):
        assert {str(entry["family"]) for entry in whole(kind, seed).ports()} >= ROWS[kind]


@pytest.mark.parametrize("place", MUST)
def test_what_a_terminal_must_have_is_there_and_counts(place: str) -> None:
    for kind in MUST[place]:
        for seed in range(6):
            found = [entry for entry in whole(kind, seed).ports() if str(entry["slot"]).rstrip("-0123456789") == place]
            assert any(entry["mandatory"] for entry in found), kind


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


@pytest.mark.parametrize("kind", ["kiosk", "call-pads", "booth", "desk", "van"])
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
