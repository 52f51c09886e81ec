"""Which faults need a person now, in which order, and what belongs together. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fleet_server.console.model import OFFLINE_CODE, SEVERITY_RANK, FaultNow, Place, TerminalNow
from fleet_server.terminals.state import StateCode

OFFLINE_WAIT_MS: Final = 10 * 60_000
"""A terminal that is silent for less may come back by itself."""
GROUP_FROM: Final = 5
"""So many terminals of one site with one fault are one cause."""


@dataclass(frozen=True, slots=True)
class Need:
    """One row: a fault of one terminal, or one of many terminals of a site (`also` holds the other terminals' faults)."""

    fault: FaultNow
    terminal: TerminalNow
    also: tuple[FaultNow, ...] = ()

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
    wanted = [
        Need(fault, terminal) for terminal in terminals for fault in terminal.faults if needs_person(terminal, fault, now_ms)
    ]
    rows = _grouped(wanted)
    rows.sort(key=_order)
    return rows


def needs_person(terminal: TerminalNow, fault: FaultNow, now_ms: int) -> bool:
    """P1 to P3, not muted, not in maintenance, not while the platform itself is blind; offline only in opening hours and after ten minutes."""
    if fault.severity == "P4" or fault.false_alarm or fault.muted(now_ms):
        return False
    if terminal.state in {StateCode.MAINTENANCE, StateCode.NOT_ENROLLED}:
        return False
    if fault.code == OFFLINE_CODE:
        return terminal.state is StateCode.OFFLINE and now_ms - fault.since_ms >= OFFLINE_WAIT_MS
    return not (terminal.state is StateCode.UNKNOWN and fault.source == "platform")


def _grouped(rows: list[Need]) -> list[Need]:
    together: dict[tuple[str, str], list[Need]] = defaultdict(list)
    for row in rows:
        together[row.terminal.place.code, row.fault.code].append(row)
    result: list[Need] = []
    for (site, _), members in together.items():
        if site and len({member.terminal.id for member in members}) >= GROUP_FROM:
            members.sort(key=_order)
            first = members[0]
            result.append(Need(first.fault, first.terminal, tuple(member.fault for member in members[1:])))
        else:
            result.extend(members)
    return result


def _order(row: Need) -> tuple[int, bool, int]:
    claimed = row.fault.claimed_by is not None and all(fault.claimed_by for fault in row.also)
    return (SEVERITY_RANK.get(row.fault.severity, 9), claimed, row.since_ms)
