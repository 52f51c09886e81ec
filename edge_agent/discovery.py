"""From what is plugged in and what the inventory says to who is bound where. The plan is pure; only `probe` touches a port.

A slot is bound to a place: the USB port path, or a device path of the configuration. Adapter ids bind nothing, they are the same on every adapter.
Hardware without a profile is reported and left alone. A question is sent only to a port that the inventory names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import msgspec

from edge_agent.config import DeviceEntry
from edge_agent.devices.base import SlotBinding
from edge_agent.devices.factory import SHARED
from edge_agent.devices.guard import guarded
from edge_agent.transports.base import BytePort, PortError, PortOpener, Sighting, SpeedPort
from protocols.canon.words import Ownership
from protocols.contract import records
from protocols.profile.match import AmbiguousMatch, Candidate, candidates, match_profile, probe_fits, probes
from protocols.profile.places import VideoMatch, bus_of
from protocols.profile.schema import Family, Kind, Profile
from protocols.profile.tables import hex_bytes

log = logging.getLogger(__name__)

PROBE_WRITE_S = 1.0
PROBE_READ_BYTES = 512
PROBE_MAX_BYTES = 4096
CLOSE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Binding:
    """A port with the slots behind it; more than one only on a bus."""

    sighting: Sighting
    slots: tuple[SlotBinding, ...]
    ownership: Ownership
    switched: bool = False
    """A setup code turned the device into another kind (another product id at the same place)."""


@dataclass(frozen=True, slots=True)
class ProbeTask:
    """A serial port of the inventory whose device has to be asked who it is, most specific question first."""

    sighting: Sighting
    slot: str
    asked: tuple[Candidate, ...]
    otherwise: str | None
    """Profile that the inventory's word alone gives, if nothing answers."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Every slot of the inventory is in `bindings`, `probes`, `absent` or `unclear`."""

    bindings: tuple[Binding, ...] = ()
    probes: tuple[ProbeTask, ...] = ()
    absent: tuple[DeviceEntry, ...] = ()
    unclear: tuple[tuple[DeviceEntry, str], ...] = ()
    """Something is there, and a sentence says why it cannot be bound."""
    unknown: tuple[Sighting, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    entry: DeviceEntry
    sighting: Sighting
    profile: Profile
    switched: bool = False


def make_plan(
    sightings: Sequence[Sighting],
    inventory: Sequence[DeviceEntry],
    profiles: Mapping[str, Profile],
    *,
    answered: Mapping[tuple[str, str], str | None] | None = None,
    remembered: Mapping[str, str] | None = None,
) -> Plan:
    """Decide. `answered`: results of probes by (place, slot). `remembered`: profile of each slot's last binding, to notice a switched mode."""
    planner = _Planner(sightings, profiles, answered or {}, remembered or {})
    # Slots with a place first: those without take what is left.
    for entry in sorted(inventory, key=lambda entry: entry.port is None):
        planner.place(entry)
    return planner.plan(inventory)


class _Planner:
    """One run of `make_plan`."""

    def __init__(
        self,
        sightings: Sequence[Sighting],
        profiles: Mapping[str, Profile],
        answered: Mapping[tuple[str, str], str | None],
        remembered: Mapping[str, str],
    ) -> None:
        self._sightings = sightings
        self._profiles = profiles
        self._answered = answered
        self._remembered = remembered
        self._found: list[_Found] = []
        self._probes: list[ProbeTask] = []
        self._absent: list[DeviceEntry] = []
        self._unclear: list[tuple[DeviceEntry, str]] = []
        self._places: set[str] = set()
        self._heard: set[str] = set()
        """Sound nodes that are taken: the two directions of one card are two devices at one place."""

    def place(self, entry: DeviceEntry) -> None:
        if entry.family not in _KINDS:
            self._unclear.append((entry, f"no driver knows the family {entry.family}"))
            return
        if entry.port is None:
            self._place_anywhere(entry, Kind(entry.family))
            return
        here = [sighting for sighting in self._sightings if entry.port in (sighting.usb_path, sighting.path)]
        if not here:
            self._absent.append(entry)
            return
        self._places.add(here[0].place)
        self._place_at(entry, Kind(entry.family), here)

    def plan(self, inventory: Sequence[DeviceEntry]) -> Plan:
        order = {entry.slot: index for index, entry in enumerate(inventory)}
        groups: dict[tuple[str, str], list[_Found]] = {}
        for found in sorted(self._found, key=lambda found: order[found.entry.slot]):
            shared = found.profile.family in SHARED
            key = (found.sighting.path, found.profile.family if shared else found.entry.slot)
            groups.setdefault(key, []).append(found)
        return Plan(
            bindings=tuple(_binding(group) for group in groups.values()),
            probes=tuple(self._probes),
            absent=tuple(sorted(self._absent, key=lambda entry: order[entry.slot])),
            unclear=tuple(self._unclear),
            unknown=tuple(self._strangers()),
        )

    def _place_anywhere(self, entry: DeviceEntry, kind: Kind) -> None:
        """A slot without a place takes the first unbound device that identifies itself; a bare serial port never does."""
        for sighting in sorted(self._sightings, key=lambda sighting: (sighting.place, sighting.path)):
            if (sighting.path in self._heard) if sighting.bus == "sound" else (sighting.place in self._places):
                continue
            profile = self._self_identified(sighting, kind, entry.profile)
            if profile is not None:
                self._heard.add(sighting.path)
                self._places.add(sighting.place)
                self._found.append(_Found(entry, sighting, profile, self._is_switched(entry, sighting, profile)))
                return
        self._absent.append(entry)

    def _self_identified(self, sighting: Sighting, kind: Kind, pinned: str | None) -> Profile | None:
        pool = self._pool(pinned)
        fits = [one for one in candidates(sighting, pool, kind=kind) if one.specificity >= _IDENTIFIES]
        with suppress(AmbiguousMatch):
            return match_profile(sighting, [one.profile for one in fits], kind=kind)
        return None

    def _place_at(self, entry: DeviceEntry, kind: Kind, here: Sequence[Sighting]) -> None:
        if entry.profile is not None and entry.profile not in self._profiles:
            self._unclear.append((entry, f"there is no profile {entry.profile}"))
            return
        reason = "no profile fits what is plugged in there"
        for sighting in here:
            try:
                profile = self._profile_at(entry, kind, sighting)
            except AmbiguousMatch as err:
                reason = str(err)
                continue
            if profile is not None:
                self._heard.add(sighting.path)
                self._found.append(_Found(entry, sighting, profile, self._is_switched(entry, sighting, profile)))
                return
            if self._probes and self._probes[-1].slot == entry.slot:
                return
        if entry.profile is not None and (switched := self._switched(entry, here)) is not None:
            self._found.append(switched)
            return
        self._unclear.append((entry, reason))

    def _profile_at(self, entry: DeviceEntry, kind: Kind, sighting: Sighting) -> Profile | None:
        if entry.profile is not None:
            profile = self._profiles[entry.profile]
            return profile if _pinned_fits(profile, sighting) else None
        ways = candidates(sighting, self._profiles.values(), kind=kind)
        sure = match_profile(sighting, self._profiles.values(), kind=kind) if any(one.probe is None for one in ways) else None
        asked = probes(sighting, self._profiles.values(), kind=kind)
        if not asked or (sure is not None and {one.profile.id for one in ways} == {sure.id}):
            return sure
        key = (sighting.place, entry.slot)
        if key in self._answered:
            told = self._answered[key]
            return sure if told is None else self._profiles.get(told, sure)
        self._probes.append(ProbeTask(sighting, entry.slot, asked, None if sure is None else sure.id))
        return None

    def _is_switched(self, entry: DeviceEntry, sighting: Sighting, profile: Profile) -> bool:
        """Whether the slot's former profile knows this identity as another mode of the same unit."""
        former = self._profiles.get(entry.profile or self._remembered.get(entry.slot, ""))
        return former is not None and former.id != profile.id and _is_other_mode(former, sighting)

    def _switched(self, entry: DeviceEntry, here: Sequence[Sighting]) -> _Found | None:
        """A pinned unit that comes back in another mode is watched by the profile of that mode, or by presence alone.

        A scanner that is another kind of scanner now was switched as well, where its own profile does not list the modes.
        """
        pinned = self._profiles[entry.profile or ""]
        for sighting in here:
            other = self._self_identified(sighting, pinned.kind, None)
            if _is_other_mode(pinned, sighting) or (pinned.kind is Kind.SCANNER and other is not None):
                return _Found(entry, sighting, other or pinned, switched=True)
        return None

    def _pool(self, pinned: str | None) -> Iterable[Profile]:
        if pinned is None:
            return self._profiles.values()
        return [self._profiles[pinned]] if pinned in self._profiles else []

    def _strangers(self) -> Iterable[Sighting]:
        """Devices outside the inventory that no profile knows; one sighting for each, the most telling bus."""
        by_place: dict[str, Sighting] = {}
        for sighting in self._sightings:
            if sighting.place not in self._places and sighting.bus not in _NEVER_STRANGE:
                known = by_place.get(sighting.place)
                if known is None or known.bus == "usb":
                    by_place[sighting.place] = sighting
        for place, sighting in by_place.items():
            siblings = [other for other in self._sightings if other.place == place and other.bus not in _NEVER_STRANGE]
            if not any(self._is_known(other) for other in siblings):
                yield sighting

    def _is_known(self, sighting: Sighting) -> bool:
        return any(one.specificity >= _IDENTIFIES for one in candidates(sighting, self._profiles.values()))


_KINDS = frozenset(kind.value for kind in Kind)
_IDENTIFIES = 40
"""Specificity from which a rule names the device itself and not just an adapter (`protocols.profile.match`)."""
_NEVER_STRANGE = frozenset({"sound", "display", "ipp"})
"""Buses whose nodes are no hardware of their own: a sound node's USB device is reported as such."""
_TOLD: Mapping[str, Literal["usb", "serial", "input", "video"]] = {
    "usb": "usb",
    "serial": "serial",
    "pipe": "serial",
    "input": "input",
    "video": "video",
}
"""Words of a sighting's record; other nodes are told by what they hang on."""
_SEEN_ONLY = frozenset({"video", "sound", "display"})
_RESTRICTION = {Ownership.OBSERVER: 0, Ownership.IDLE_PROBER: 1, Ownership.OWNER: 2}


def _binding(group: Sequence[_Found]) -> Binding:
    slots = tuple(
        SlotBinding(slot=found.entry.slot, profile=found.profile, address=found.entry.address, mandatory=found.entry.mandatory)
        for found in group
    )
    asked = [own for found in group for own in (found.entry.ownership, found.profile.ownership)]
    ownership = min(asked, key=lambda own: _RESTRICTION[own])
    first = group[0]
    strange_mode = first.switched and not candidates(first.sighting, [first.profile], kind=first.profile.kind)
    if first.profile.family is Family.PRESENCE or first.sighting.bus in _SEEN_ONLY or strange_mode:
        ownership = Ownership.OBSERVER
    return Binding(first.sighting, slots, ownership, any(found.switched for found in group))


def _pinned_fits(profile: Profile, sighting: Sighting) -> bool:
    """The inventory names the profile: a port it can be spoken to on is enough where the bus tells nothing, else the ids must fit."""
    if sighting.bus == "ipp" and any(bus_of(rule) == "ipp" for rule in profile.match):
        return True
    if sighting.bus in ("serial", "pipe") and any(bus_of(rule) == "serial" for rule in profile.match):
        return True
    if sighting.bus == "video" and any(isinstance(rule, VideoMatch) and rule.by_name for rule in profile.match):
        return True
    return bool(candidates(sighting, [profile], kind=profile.kind))


def _is_other_mode(profile: Profile, sighting: Sighting) -> bool:
    modes = profile.scanner.other_mode if profile.scanner else ()
    return any((mode.vid, mode.pid) == (sighting.vid, sighting.pid) for mode in modes)


def sighting_body(sighting: Sighting, *, present: bool = True) -> records.Sighting | None:
    """The record of unknown hardware; None for a place or a kind of node that a record cannot carry."""
    bus = _TOLD.get(sighting.bus)
    if bus is None:
        return None
    body = records.Sighting(bus=bus, port=sighting.place, vid=sighting.vid, pid=sighting.pid, present=present)
    try:
        return msgspec.convert(msgspec.to_builtins(body), records.Sighting)
    except msgspec.ValidationError:
        log.warning("unknown hardware at a place whose name cannot be reported")
        return None


def port_word(place: str | None) -> str | None:
    """A place as records carry it; None where its name does not fit (a test's path with a long number)."""
    try:
        return None if place is None else msgspec.convert(place, records.PortPath)
    except msgspec.ValidationError:
        return None


async def probe(task: ProbeTask, opener: PortOpener) -> str | None:
    """Ask the device at the port; the id of the first profile whose question it answers, None if it answers none.

    Raises PortError if the port cannot be asked at all (busy, gone). What was read is dropped.
    """
    for candidate in task.asked:
        port = await opener.open(task.sighting, candidate.profile)
        try:
            if isinstance(port, BytePort) and await _answers(port, candidate):
                return candidate.profile.id
        finally:
            with suppress(PortError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await port.close()
    return None


async def _answers(raw_port: BytePort, candidate: Candidate) -> bool:
    port = guarded(raw_port)
    question = candidate.probe
    assert question is not None
    assert isinstance(port, BytePort)
    speeds: Sequence[int | None] = question.bauds if question.bauds and isinstance(port, SpeedPort) else (None,)
    for baud in speeds:
        if baud is not None and isinstance(port, SpeedPort):
            await port.set_baud(baud)
        enquiry = question.after_ack
        await port.write(hex_bytes(question.send), timeout_s=PROBE_WRITE_S)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + question.within_ms / 1000
        reply = b""
        while len(reply) < PROBE_MAX_BYTES and (left_s := deadline_s - loop.time()) > 0:
            reply += await port.read(max_bytes=PROBE_READ_BYTES, timeout_s=left_s)
            if probe_fits(question, reply):
                return True
            if enquiry is not None and reply.startswith(b"\x06"):
                await port.write(hex_bytes(enquiry), timeout_s=PROBE_WRITE_S)
                enquiry = None
    return False
