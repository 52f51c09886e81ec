"""Where the unit to be checked is: on this machine, or a device model in this process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import edge_agent.transports.base as ports
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.udev import UdevDiscoverer
from protocols.profile.schema import Profile
from simulators.conformance.watch import Target
from simulators.errors import SimulatorError
from simulators.models.base import Model
from simulators.models.callpad import CallPadBus
from simulators.models.modbus import ModbusBus
from simulators.ports.pipe import PortKit
from simulators.ports.pty import AsyncPty
from simulators.standins import slot_for
from simulators.terminal import VirtualTerminal

KIT = PortKit.of(ports)


def on_this_machine(place: str, address: int | None) -> Target:
    """A path below /dev, or a place in the USB tree such as 1-1.4."""
    if not place.startswith("/"):
        discoverer = UdevDiscoverer.of_system()
        if not any(place == sighting.usb_path for sighting in discoverer.sightings()):
            raise SimulatorError(f"There is no USB device at {place}. /sys/bus/usb/devices lists the places.")
        return Target(SystemOpener(), discoverer, place, address)
    return Target(SystemOpener(), UdevDiscoverer.of_system([place]), place, address)


def in_memory(profile: Profile, *, model: Model | None = None, address: int | None = None) -> tuple[Target, Model]:
    """The profile's device model, or this one, on a pipe and on the running loop's time."""
    slot = slot_for(profile, model=model)
    terminal = VirtualTerminal("bench", [slot], clock=asyncio.get_running_loop().time)
    unit = _address(slot.model) if address is None else address
    return Target(terminal.opener(KIT), terminal.discoverer(KIT), slot.place, unit, True), slot.model


def on_a_pty(
    profile: Profile, link: Path, *, model: Model | None = None, address: int | None = None
) -> tuple[Target, Model, AsyncPty]:
    """The same behind a pseudo-terminal, opened through the system like a real line."""
    model = slot_for(profile, model=model).model
    pty = AsyncPty(model, link)
    unit = _address(model) if address is None else address
    return Target(SystemOpener(), UdevDiscoverer([str(link)], extra_every_s=0.05), str(link), unit, True), model, pty


def _address(model: Model) -> int | None:
    """The first unit of a bus."""
    if isinstance(model, CallPadBus):
        return min(model.pads)
    return min(module.address for module in model.modules.values()) if isinstance(model, ModbusBus) else None
