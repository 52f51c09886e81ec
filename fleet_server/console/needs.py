"""What needs a person now, in which order, and what belongs together: faults, consumables that run out, streams in dispute. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from fleet_server.console.model import (
    DISPUTE_CODE,
    NOTICE,
    OFFLINE_CODE,
    SEVERITY_RANK,
    SUPPLY_CODE,
    FaultNow,
    Place,
    SupplyNow,
    TerminalNow,
)
from fleet_server.terminals.state import StateCode

DAY_MS: Final = 86_400_000
IDENTITY: Final = "SEC."
"""Alarms about identity and signature concern the record, not the service: they stay in maintenance and while the platform is blind."""


@dataclass(frozen=True, slots=True)
class Need:
    """One row: a fault of one terminal, or one of many terminals of a site (`also` holds the other terminals' faults).

    Where no fault is behind it (`kind` says so), `fault` is a notice with a name for lists; `supply` tells the rest.
    """

    fault: FaultNow
    terminal: TerminalNow
    also: tuple[FaultNow, ...] = ()
    kind: Literal["fault", "supply", "dispute"] = "fault"
    supply: SupplyNow | None = None

    @property
    def size(self) -> int:
        return 1 + len(self.also)

    @property
    def place(self) -> Place:
        return self.terminal.place

    @property
    def since_ms(self) -> int:
        return min(self.fault.since_ms, *(fault.since_ms for fault in self.also)) if self.also else self.fault.since_ms


def needs(terminals: Iterable[TerminalNow], now_ms: int) -> list[Need]:
    """Severity first, unclaimed first, longest first."""
    wanted: list[Need] = []
    notices: list[Need] = []
    for terminal in terminals:
        wanted += [Need(fault, terminal) for fault in terminal.faults if needs_person(terminal, fault, now_ms)]
        if terminal.supplies:
            notices += [_supply_row(terminal, supply) for supply in terminal.supplies if runs_out(terminal, supply, now_ms)]
        if terminal.disputed_ms is not None and all(fault.code != "SEC.CLONE" for fault in terminal.faults):
            notices.append(_dispute_row(terminal, terminal.disputed_ms))
    rows = _grouped(wanted) + notices
    rows.sort(key=_order)
    return rows


def needs_person(terminal: TerminalNow, fault: FaultNow, now_ms: int) -> bool:
    """P1 to P3, not muted, not in maintenance, not while the platform itself is blind; offline only in opening hours and after a while."""
    if fault.severity == "P4" or fault.false_alarm or fault.muted(now_ms):
        return False
    if fault.code.startswith(IDENTITY):
        return True
    if terminal.state in {StateCode.MAINTENANCE, StateCode.NOT_ENROLLED}:
        return False
    if fault.code == OFFLINE_CODE:
        # A terminal that is silent for less may come back by itself.
        return terminal.state is StateCode.OFFLINE and now_ms - fault.since_ms >= terminal.limits.presence.alarm_ms
    return not (terminal.state is StateCode.UNKNOWN and fault.source == "platform")


def runs_out(terminal: TerminalNow, supply: SupplyNow, now_ms: int) -> bool:
    """Whether it lasts no longer than the threshold; of a slot that has a fault the fault says more."""
    if supply.empty_ms - now_ms > terminal.limits.warn_days * DAY_MS:
        return False
    if terminal.state in {StateCode.MAINTENANCE, StateCode.NOT_ENROLLED}:
        return False
    return all(fault.slot != supply.slot or fault.severity == "P4" for fault in terminal.faults)


def _supply_row(terminal: TerminalNow, supply: SupplyNow) -> Need:
    below_ms = supply.empty_ms - round(terminal.limits.warn_days * DAY_MS)
    key = f"supply:{terminal.id}:{supply.slot}:{supply.item}"
    return Need(_notice(key, terminal, SUPPLY_CODE, "P4", supply.slot, below_ms), terminal, kind="supply", supply=supply)


def _dispute_row(terminal: TerminalNow, since_ms: int) -> Need:
    return Need(_notice(f"dispute:{terminal.id}", terminal, DISPUTE_CODE, "P1", None, since_ms), terminal, kind="dispute")


def _notice(key: str, terminal: TerminalNow, code: str, severity: str, slot: str | None, since_ms: int) -> FaultNow:
    return FaultNow(
        id=key,
        terminal=terminal.id,
        slot=slot,
        code=code,
        severity=severity,
        mandatory=False,
        since_ms=since_ms,
        opened_ms=since_ms,
        source=NOTICE,
    )


def _grouped(rows: list[Need]) -> list[Need]:
    together: dict[tuple[str, str], list[Need]] = defaultdict(list)
    for row in rows:
        together[row.terminal.place.code, row.fault.code].append(row)
    result: list[Need] = []
    for (site, _), members in together.items():
        if site and len({member.terminal.id for member in members}) >= members[0].terminal.limits.site_many:
            members.sort(key=_order)
            first = members[0]
            result.append(Need(first.fault, first.terminal, tuple(member.fault for member in members[1:])))
        else:
            result.extend(members)
    return result


def _order(row: Need) -> tuple[int, bool, int]:
    claimed = row.fault.claimed_by is not None and all(fault.claimed_by for fault in row.also)
    return (SEVERITY_RANK.get(row.fault.severity, 9), claimed, row.since_ms)
