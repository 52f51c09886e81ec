"""Whoever does with their hands what no program can: pull a plug, open a cover, put paper in. A person, nobody, or the device model."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from protocols.canon.faults import FAULTS
from protocols.profile.schema import Profile
from simulators.models.base import Controllable, Model


@dataclass(frozen=True)
class Deed:
    """Something to do. `fault` is the device model's word for it; `begin` False takes it back."""

    fault: str
    text: str
    begin: bool = True


class Hands(Protocol):
    async def do(self, deed: Deed) -> bool:
        """True when it is done; False if nobody can or wants to."""
        ...


class Nobody:
    """`--unattended`: what needs a person is skipped."""

    async def do(self, deed: Deed) -> bool:
        return False


class Person:
    """Asks at the terminal."""

    async def do(self, deed: Deed) -> bool:
        sys.stderr.write(f"\n  >> {deed.text}\n     Enter when it is done, s to skip: ")
        sys.stderr.flush()
        answer = await asyncio.to_thread(sys.stdin.readline)
        return bool(answer) and not answer.strip().lower().startswith("s")


class ModelHands:
    """Does it to a device model, or to the unit of a bus that knows it."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._loop = asyncio.get_running_loop()

    async def do(self, deed: Deed) -> bool:
        target = self._knowing(deed.fault)
        if target is None:
            return False
        (target.set if deed.begin else target.clear)(deed.fault, self._loop.time())
        return True

    def _knowing(self, fault: str) -> Controllable | None:
        parts: list[Controllable] = [self._model, *self._model.units.values()]
        return next((part for part in parts if fault in part.fault_help), None)


@dataclass(frozen=True)
class Provoked:
    """A fault that a person can make without a tool."""

    code: str
    begin: Deed
    end: Deed


_DEEDS: Mapping[str, tuple[str, str, str]] = {
    "PAPER_OUT": ("paper-out", "Take the paper out.", "Put the paper back and close everything."),
    "COVER_OPEN": ("cover-open", "Open the cover.", "Close the cover."),
    "DOOR_OPEN": ("door-open", "Open the cabinet door.", "Close the cabinet door."),
    "TAMPER": ("tamper", "Interrupt the tamper loop.", "Close the tamper loop."),
    "WATER": ("water", "Wet the water sensor.", "Dry the water sensor."),
    "STACKER_EMPTY": ("stacker-empty", "Take all cards out of the stacker.", "Put the cards back."),
    "MAINS_LOST": ("mains-lost", "Take the mains away from the contact.", "Give the mains back."),
    "ON_BATTERY": ("mains-lost", "Pull the mains plug of the UPS.", "Plug the mains in again."),
    "EMERGENCY": ("emergency", "Press the emergency button.", "Release the emergency button."),
}
"""Tail of a fault code: the model's word, what to ask for, what to ask for afterwards."""


def provocations(profile: Profile) -> list[Provoked]:
    """What a person can make a unit of this profile say."""
    found = []
    for tail, (fault, begin, end) in _DEEDS.items():
        code = _MAINS if tail == "MAINS_LOST" else profile.fault_code(tail)
        if code in FAULTS and _can_tell(profile, tail):
            found.append(Provoked(code, Deed(fault, begin), Deed(fault, end, begin=False)))
    return found


_MAINS = "PWR.MAINS_LOST"


def _can_tell(profile: Profile, tail: str) -> bool:
    """Whether the profile says that its units have the sensor: contacts are wired one by one, and a limited model shows paper at most."""
    if profile.modbus is not None:
        return tail in {_CONTACT_TAILS[entry.name] for entry in profile.modbus.input if entry.name in _CONTACT_TAILS}
    return tail != "MAINS_LOST" and not (profile.limited and tail != "PAPER_OUT")


_CONTACT_TAILS: Mapping[str, str] = {"door": "DOOR_OPEN", "tamper": "TAMPER", "water": "WATER", "mains": "MAINS_LOST"}
