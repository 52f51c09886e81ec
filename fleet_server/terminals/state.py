"""Owns which of the nine states a terminal is in, why, since when, and how states add up. Pure; takes `now`.

The table is read from the top, the first line that fits decides: not enrolled, in maintenance or locked, platform blind, closed, offline, no contact,
no service, partly usable, normal. Retired terminals have a state outside the table and count nowhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from fleet_server.faults.severity import Impact, impact
from protocols.canon.words import Severity


class StateCode(StrEnum):
    """States in the order in which they are tried."""

    NOT_ENROLLED = "NOT_ENROLLED"
    MAINTENANCE = "MAINTENANCE"
    UNKNOWN = "UNKNOWN"
    CLOSED = "CLOSED"
    OFFLINE = "OFFLINE"
    SUSPECT = "SUSPECT"
    UNUSABLE = "UNUSABLE"
    PARTIAL = "PARTIAL"
    NORMAL = "NORMAL"
    RETIRED = "RETIRED"
    """Taken out of service: outside the table and all counts."""


WORST_FIRST = (
    StateCode.UNUSABLE,
    StateCode.OFFLINE,
    StateCode.PARTIAL,
    StateCode.SUSPECT,
    StateCode.UNKNOWN,
    StateCode.MAINTENANCE,
    StateCode.CLOSED,
    StateCode.NOT_ENROLLED,
    StateCode.NORMAL,
)
"""Order of a list that puts what needs a person on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFault:
    """An open, undisputed fault."""

    code: str
    severity: str
    mandatory: bool
    slot: str | None
    since_ms: int
    key: str = ""

    @property
    def impact(self) -> Impact:
        return impact(self.code, self.severity, slot=self.slot, mandatory=self.mandatory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """The open presence interval."""

    state: str
    """`online`, `suspect`, `offline`, `stopped` or `unknown`, as the presence watch writes them."""
    cause: str
    from_ms: int
    last_seen_ms: int | None


@dataclass(frozen=True, slots=True)
class Reason:
    """A sentence of the catalogue and its parameters; pages never glue sentences."""

    key: str
    params: Mapping[str, object] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class State:
    code: StateCode
    since_ms: int | None
    """None where nothing has happened yet."""
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """What the register says about a terminal."""

    created_ms: int
    enrolled_ms: int | None
    revoked_ms: int | None = None
    maintenance_until_ms: int | None = None
    maintenance_reason: str | None = None
    maintenance_by: str | None = None
    locked: bool = False
    """By an order that the terminal confirmed: it serves nobody, as planned."""


def terminal_state(
    terminal: Registered,
    contact: Contact | None,
    faults: Iterable[OpenFault],
    *,
    is_open: bool,
    platform_blind: bool,
    now_ms: int,
) -> State:
    """The one state of a terminal at `now_ms`. `contact` is None before the watch has judged it; `is_open`: inside the site's opening hours.

    `platform_blind` is true while the platform as a whole hears nobody (broker or ingest down).
    """
    if terminal.revoked_ms is not None:
        return State(StateCode.RETIRED, terminal.revoked_ms, Reason("state.retired"))
    if terminal.enrolled_ms is None:
        return State(StateCode.NOT_ENROLLED, terminal.created_ms, Reason("state.notEnrolled"))
    until_ms = terminal.maintenance_until_ms
    if until_ms is not None and now_ms < until_ms:
        params = {"until_ms": until_ms, "reason": terminal.maintenance_reason or "", "by": terminal.maintenance_by or ""}
        return State(StateCode.MAINTENANCE, None, Reason("state.maintenance", params))
    if terminal.locked:
        return State(StateCode.MAINTENANCE, None, Reason("state.locked"))
    silent = _silence(contact, terminal.enrolled_ms, is_open=is_open, platform_blind=platform_blind)
    return silent if silent is not None else _by_faults(list(faults))


def _silence(contact: Contact | None, enrolled_ms: int, *, is_open: bool, platform_blind: bool) -> State | None:
    if contact is None:
        contact = Contact(state="suspect", cause="neverSeen", from_ms=enrolled_ms, last_seen_ms=None)
    params = {"from_ms": contact.from_ms, "last_seen_ms": contact.last_seen_ms}
    if platform_blind or contact.state == "unknown":
        return State(StateCode.UNKNOWN, contact.from_ms, Reason("state.unknown", params))
    if contact.state == "online":
        return None
    since_ms = contact.from_ms if contact.last_seen_ms is None else min(contact.from_ms, contact.last_seen_ms)
    if not is_open:
        return State(StateCode.CLOSED, since_ms, Reason("state.closed", params))
    if contact.state == "suspect":
        keys = {"neverSeen": "state.suspect.neverSeen", "broken": "state.suspect.broken"}
        return State(StateCode.SUSPECT, since_ms, Reason(keys.get(contact.cause, "state.suspect.silence"), params))
    keys = {"neverSeen": "state.offline.neverSeen", "site": "state.offline.site", "announced": "state.offline.stopped"}
    return State(StateCode.OFFLINE, since_ms, Reason(keys.get(contact.cause, "state.offline.silence"), params))


def _by_faults(faults: list[OpenFault]) -> State:
    for code, effect, key in (
        (StateCode.UNUSABLE, Impact.NO_SERVICE, "state.unusable"),
        (StateCode.PARTIAL, Impact.SOME_ITEMS, "state.partial"),
    ):
        hit = sorted((fault for fault in faults if fault.impact is effect), key=lambda fault: (fault.severity, fault.since_ms))
        if hit:
            first = hit[0]
            params = {
                "code": first.code,
                "slot": first.slot,
                "since_ms": first.since_ms,
                "fault": first.key,
                "more": len(hit) - 1,
            }
            return State(code, min(fault.since_ms for fault in hit), Reason(key, params))
    notices = sum(fault.severity == Severity.P4 for fault in faults)
    return State(StateCode.NORMAL, None, Reason("state.normal.notices" if notices else "state.normal", {"count": notices}))


# Counting -------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counts:
    """How many terminals are in each state. The sums hold by construction: they are computed from the nine."""

    by_state: Mapping[StateCode, int]

    def of(self, code: StateCode) -> int:
        return self.by_state.get(code, 0)

    @property
    def total(self) -> int:
        return self.online + self.of(StateCode.OFFLINE) + self.out_of_play

    @property
    def out_of_play(self) -> int:
        """Closed, in maintenance, not enrolled, unknown: neither online nor offline."""
        return sum(self.of(code) for code in (StateCode.CLOSED, StateCode.MAINTENANCE, StateCode.NOT_ENROLLED, StateCode.UNKNOWN))

    @property
    def online(self) -> int:
        return self.of(StateCode.NORMAL) + self.abnormal + self.of(StateCode.SUSPECT)

    @property
    def abnormal(self) -> int:
        return self.of(StateCode.UNUSABLE) + self.of(StateCode.PARTIAL)

    @property
    def expected(self) -> int:
        """Denominator of the online rate: online and offline."""
        return self.online + self.of(StateCode.OFFLINE)


def count_states(codes: Iterable[StateCode]) -> Counts:
    """Counts without retired terminals."""
    counted = Counter(codes)
    del counted[StateCode.RETIRED]
    return Counts(MappingProxyType(dict(counted)))
