"""What drivers share: the observation they return, the shape the monitor runs, and the codes of a lost link.

A driver knows neither faults (debouncing is not its business) nor records; it says what it saw and which bytes said so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

from edge_agent.clock import ClockReading
from edge_agent.faults import Condition
from protocols.canon.faults import FAULTS
from protocols.canon.words import CoverState, DeviceState, MediaState, PaperState, SuggestedAction, TonerState
from protocols.codecs.common import PrinterReading
from protocols.contract.records import Evidence, Quantity, Queue, Rating
from protocols.privacy import maker_word
from protocols.profile.schema import FAULT_FAMILY, Kind, Profile

RETRY_S = 1.0
"""After a missed answer the next question comes soon: three misses are noticed in seconds, whatever the poll interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotBinding:
    """A slot of the inventory, bound to a port by discovery."""

    slot: str
    profile: Profile
    address: int | None = None
    mandatory: bool = False

    def code(self, tail: str) -> str:
        return self.profile.fault_code(tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the device did since the last observation. `unit_total` is a counter the unit keeps itself."""

    ok: int = 0
    failed: int = 0
    unit_total: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """One reading, tenths of a degree Celsius, of a percent or of a volt."""

    quantity: Quantity
    tenths: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a receiver is, coarse (WGS-84, units of 0.0001 degrees north and east): the driver has rounded it."""

    lat_e4: int = field(repr=False)
    lon_e4: int = field(repr=False)
    fix: Literal["poor", "gps", "dgps", "rtk"]
    satellites: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at one slot.

    `judged`: codes this look can speak about beside those it saw; None means all of the slot. With `holds_state` only the conditions count: the
    look was no answer, and one missed answer is not yet a changed state.
    """

    slot: str
    device: DeviceState = DeviceState.UNKNOWN
    paper: PaperState = PaperState.NOT_SUPPORTED
    toner: TonerState = TonerState.NOT_SUPPORTED
    cards: PaperState = PaperState.NOT_SUPPORTED
    """How full a stacker of cards is: `full`, `low`, `out`. No word of the device record; it tells the level of the consumable."""
    media: MediaState = MediaState.NOT_SUPPORTED
    cover: CoverState = CoverState.NOT_SUPPORTED
    action: SuggestedAction = SuggestedAction.NONE
    holds_state: bool = False
    limited: bool = False
    evidence: Evidence | None = None
    conditions: tuple[Condition, ...] = ()
    judged: frozenset[str] | None = None
    tally: Tally | None = None
    toner_percent: int | None = None
    """Where the device measures it."""
    measured: tuple[Measured, ...] = ()
    events: tuple[Queue | Rating, ...] = ()
    place: Place | None = None
    firmware: str | None = None
    asset: str | None = None


def poll_interval_s(bound: SlotBinding, usual_s: float, *, soon: bool = False) -> float:
    """Until the next look: the profile's interval, else `usual_s`. `soon`: something has to be asked again, so no longer than RETRY_S."""
    every_s = bound.profile.poll.every_s if bound.profile.poll else usual_s
    return min(every_s, RETRY_S) if soon else every_s


class Driver(Protocol):
    """One port, one task. All methods may raise PortError; no wait is without a timeout."""

    @property
    def poll_every_s(self) -> float:
        """Until the next `poll`; shorter while an answer is missing."""
        ...

    @property
    def poll_budget_s(self) -> float:
        """The longest that one `poll` can honestly take."""
        ...

    async def poll(self, now: ClockReading) -> list[Observation]: ...
    async def listen(self, timeout_s: float) -> list[Observation]:
        """What the device says by itself: returns at the first thing worth telling, or after `timeout_s`."""
        ...

    async def stop(self) -> None:
        """Take back settings that were made for watching; called before the port is closed, also after an error."""
        ...


@runtime_checkable
class Testable(Protocol):
    """A driver whose device can do something that a person on site sees or hears, when an order asks for it."""

    @property
    def tests(self) -> frozenset[str]: ...
    async def test(self, test: str) -> bool:
        """Do it; whether the device says that it was done. Within seconds."""
        ...


@runtime_checkable
class TestableUnits(Protocol):
    """The same for a driver of several devices, each by its slot."""

    def tests_of(self, slot: str) -> frozenset[str]: ...
    async def test_unit(self, slot: str, test: str) -> bool: ...


@runtime_checkable
class Scheduled(Protocol):
    """A driver of several devices that are not all asked at each poll."""

    def due_now(self, slot: str) -> None:
        """The next poll asks this one."""
        ...


@dataclass(frozen=True, slots=True)
class LinkCodes:
    """Fault codes of a device that cannot be spoken to, each the nearest that its family has."""

    silent: str
    unplugged: str
    cannot_open: str

    @property
    def all(self) -> frozenset[str]:
        return frozenset({self.silent, self.unplugged, self.cannot_open})


def link_codes(kind: Kind) -> LinkCodes:
    if kind in _PLAIN_LINKS:
        return LinkCodes(silent=_PLAIN_LINKS[kind], unplugged=_PLAIN_LINKS[kind], cannot_open=_PLAIN_LINKS[kind])
    family = FAULT_FAMILY[kind]
    return LinkCodes(
        silent=_first(family, "OFFLINE", "NO_REPLY", "OPEN_FAIL", "UNPLUGGED"),
        unplugged=_first(family, "UNPLUGGED", "NO_REPLY"),
        cannot_open=_first(family, "OPEN_FAIL", "NO_REPLY", "UNPLUGGED"),
    )


_PLAIN_LINKS = {
    Kind.DISPLAY: "DSP.NO_SIGNAL",
    Kind.MICROPHONE: "AUD.NO_MIC",
    Kind.SPEAKER: "AUD.NO_SPEAKER",
    Kind.MODEM: "NET.UNPLUGGED",
}
"""Only seen, never spoken to: there is one way to be missing."""


def _first(family: str, *tails: str) -> str:
    return next(code for tail in tails if (code := f"{family}.{tail}") in FAULTS)


def silent(bound: SlotBinding, misses: int, evidence: Evidence | None) -> Observation:
    """No answer. The state changes when the profile's number of misses is reached; what the device had before is not judged."""
    codes = link_codes(bound.profile.kind)
    needed = 3 if bound.profile.poll is None else bound.profile.poll.offline_after_misses
    return replace(
        unseen(bound.slot, bound.profile.kind, DeviceState.OFFLINE),
        action=SuggestedAction.MAINTENANCE,
        holds_state=misses < needed,
        evidence=evidence,
        conditions=(Condition(codes.silent, evidence, count=needed),),
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """Words for the parts that a kind of device has, while nothing can be told of them; the rest stays `notSupported`."""

    paper: PaperState = PaperState.NOT_SUPPORTED
    toner: TonerState = TonerState.NOT_SUPPORTED
    cover: CoverState = CoverState.NOT_SUPPORTED
    media: MediaState = MediaState.NOT_SUPPORTED


_UNKNOWN_PARTS = {
    Kind.RECEIPT_PRINTER: Parts(paper=PaperState.UNKNOWN, cover=CoverState.UNKNOWN),
    Kind.A4_PRINTER: Parts(paper=PaperState.UNKNOWN, toner=TonerState.UNKNOWN, cover=CoverState.UNKNOWN),
    Kind.CONTACTS: Parts(cover=CoverState.UNKNOWN),
    Kind.CARD_READER: Parts(media=MediaState.UNKNOWN),
    Kind.CARD_DISPENSER: Parts(media=MediaState.UNKNOWN),
}


def unseen(slot: str, kind: Kind, device: DeviceState) -> Observation:
    """A state in which the device cannot say anything about its parts; only the link's codes are judged."""
    parts = _UNKNOWN_PARTS.get(kind, Parts())
    return Observation(
        slot=slot,
        device=device,
        paper=parts.paper,
        toner=parts.toner,
        media=parts.media,
        cover=parts.cover,
        judged=link_codes(kind).all,
    )


def printer_observation(
    bound: SlotBinding, reading: PrinterReading, evidence: Evidence, *, judged: frozenset[str] | None, firmware: str | None = None
) -> Observation:
    """A printer codec's reading as an observation."""
    return Observation(
        slot=bound.slot,
        device=reading.device,
        paper=reading.paper,
        toner=reading.toner,
        cover=reading.cover,
        action=action_for(reading),
        evidence=evidence,
        conditions=tuple(Condition(bound.code(tail), evidence) for tail in reading.conditions),
        judged=judged,
        firmware=firmware,
    )


def action_for(reading: PrinterReading) -> SuggestedAction:
    """XFS4IoT's advice: clear what a person on site can clear, maintenance for what needs a tool."""
    if {"HARDWARE", "CUTTER"} & set(reading.conditions):
        return SuggestedAction.MAINTENANCE
    if {"JAM", "COVER_OPEN", "PAPER_OUT", "PRINT_ERROR", "TONER_EMPTY", "OFFLINE"} & set(reading.conditions):
        return SuggestedAction.CLEAR
    return SuggestedAction.NONE


def judged_tails(bound: SlotBinding, *tails: str) -> frozenset[str]:
    """The link's codes and these; tails that the family does not have are left out."""
    known = {code for tail in tails if (code := bound.code(tail)) in FAULTS}
    return link_codes(bound.profile.kind).all | known


_FORMATS = {
    "triplet": re.compile(r"[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}"),
    "pair": re.compile(r"[0-9]{1,4}\.[0-9]{1,4}"),
    "number": re.compile(r"[0-9]{1,8}"),
    "date": re.compile(r"20[0-9]{2}[-./]?[0-9]{2}[-./]?[0-9]{2}"),
}


def version_of(text: str, form: str = "plain") -> str | None:
    """The firmware version in a maker's text, as a record accepts it; None if there is none of that form."""
    word = maker_word(text)
    if form in _FORMATS:
        found = _FORMATS[form].search(word)
        word = found.group() if found else ""
    return word or None
