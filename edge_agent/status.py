"""Owns the answer to "what works?": the document for the kiosk application's out-of-service page and for `edge-agent doctor`.

Plain values and pure rules; whoever knows devices and faults passes them in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from protocols.canon.faults import FAULTS
from protocols.canon.words import Severity
from protocols.contract.records import Device, Fault, Sighting

Service = Literal["usable", "partial", "unusable"]
Closed = Literal["locked", "updating", "restarting"]
"""Why no session can begin: an operator's lock, an update that was promised a quiet terminal, a restart that has begun."""

_STOPS_SERVICE = frozenset({Severity.P1, Severity.P2})
_APPLICATION = "APP."


class FaultStatus(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    severity: Severity
    since_ms: int
    zh: str
    en: str
    hint_zh: str
    hint_en: str


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One place of the inventory. `works` is False while a P1 or P2 fault of it is open."""

    slot: str
    family: str
    mandatory: bool
    works: bool
    device: str
    paper: str
    toner: str
    media: str
    cover: str
    profile: str | None
    port: str | None
    faults: tuple[FaultStatus, ...]
    claimable: bool = False
    """The kiosk application can have the device through the agent (owner API)."""
    claimed_by: str | None = None
    """The application that has it now."""
    lifetime: int | None = None
    """Jobs, reads or pages at this place since ever, over all units that were here."""
    units: int = 1


class UnknownDevice(msgspec.Struct, frozen=True, kw_only=True):
    """Hardware without a profile."""

    bus: str
    port: str
    vid: int | None
    pid: int | None


class UplinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    connected: bool
    reason: str
    waiting_batches: int
    acknowledged: bool
    """False: connected, but the server has not acknowledged anything for minutes."""


class LockStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's message for the screen."""

    zh: str
    en: str
    since_ms: int


class StatusDocument(msgspec.Struct, frozen=True, kw_only=True):
    terminal: str
    agent: str
    service: Service
    idle: bool
    slots: tuple[SlotStatus, ...]
    faults: tuple[FaultStatus, ...]
    """Of the terminal itself: network, host, application."""
    unknown: tuple[UnknownDevice, ...]
    uplink: UplinkStatus
    closed: Closed | None = None
    """Why no session can begin now, whatever works."""
    lock: LockStatus | None = None


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one slot: its place in the inventory and its last state, if any was seen yet."""

    slot: str
    family: str
    mandatory: bool
    state: Device | None
    lifetime: int | None = None
    units: int = 1


def service(faults: Iterable[Fault], *, locked: bool) -> Service:
    """Unusable: locked by an operator, or an open P1 or P2 fault of a mandatory slot or of the application.

    Partial: any other of P1 to P3 on a device or the application.
    """
    worst: Service = "unusable" if locked else "usable"
    for fault in faults:
        of_application = fault.slot is None and fault.code.startswith(_APPLICATION)
        if fault.severity in _STOPS_SERVICE and (of_application or (fault.slot is not None and fault.mandatory)):
            return "unusable"
        if worst == "usable" and fault.severity is not Severity.P4 and (of_application or fault.slot is not None):
            worst = "partial"
    return worst


def document(
    *,
    terminal: str,
    agent: str,
    idle: bool,
    slots: Iterable[SlotView],
    faults: Iterable[Fault],
    sightings: Iterable[Sighting],
    uplink: UplinkStatus,
    closed: Closed | None = None,
    lock: LockStatus | None = None,
    claimable: frozenset[str] = frozenset(),
    claimed: Mapping[str, str] | None = None,
) -> StatusDocument:
    """Put together what each part knows. A locked terminal serves nobody, whatever its devices can do."""
    open_faults = tuple(faults)
    return StatusDocument(
        terminal=terminal,
        agent=agent,
        service=service(open_faults, locked=lock is not None),
        idle=idle,
        slots=tuple(
            msgspec.structs.replace(
                _slot(view, open_faults), claimable=view.slot in claimable, claimed_by=(claimed or {}).get(view.slot)
            )
            for view in slots
        ),
        faults=tuple(_fault(fault) for fault in open_faults if fault.slot is None),
        unknown=tuple(UnknownDevice(bus=one.bus, port=one.port, vid=one.vid, pid=one.pid) for one in sightings if one.present),
        uplink=uplink,
        closed=closed,
        lock=lock,
    )


def _slot(view: SlotView, faults: tuple[Fault, ...]) -> SlotStatus:
    own = tuple(fault for fault in faults if fault.slot == view.slot)
    state = view.state
    return SlotStatus(
        slot=view.slot,
        family=view.family,
        mandatory=view.mandatory,
        works=not any(fault.severity in _STOPS_SERVICE for fault in own),
        device=state.device if state else "unknown",
        paper=state.paper if state else "unknown",
        toner=state.toner if state else "unknown",
        media=state.media if state else "unknown",
        cover=state.cover if state else "unknown",
        profile=state.profile if state else None,
        port=state.port if state else None,
        faults=tuple(_fault(fault) for fault in own),
        lifetime=view.lifetime,
        units=view.units,
    )


def _fault(fault: Fault) -> FaultStatus:
    kind = FAULTS.get(fault.code)
    return FaultStatus(
        code=fault.code,
        severity=fault.severity,
        since_ms=fault.since_ms,
        zh=kind.zh if kind else fault.code,
        en=kind.en if kind else fault.code,
        hint_zh=kind.hint_zh if kind else "",
        hint_en=kind.hint_en if kind else "",
    )
