"""What open pages must be told when one look at the fleet follows another. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from fleet_server.console import listing
from fleet_server.console.fleet import Fleet
from fleet_server.console.needs import Need, needs
from protocols.canon.faults import FAULTS


@dataclass(slots=True)
class News:
    """Collected until it may be sent."""

    rows: set[str] = field(default_factory=set)
    """Terminals whose list row or fault rows look different."""
    touched: set[str] = field(default_factory=set)
    """Terminals about which anything was stored."""
    ages: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    """Terminal → (last report, last seen)."""
    alarms: list[dict[str, Any]] = field(default_factory=list)
    counts: bool = False
    platform: bool = False
    orders: bool = False
    """Something was asked, decided or told about an order."""

    def add(self, other: News) -> None:
        self.rows |= other.rows
        self.touched |= other.touched
        self.ages.update(other.ages)
        self.alarms += other.alarms
        self.counts = self.counts or other.counts
        self.platform = self.platform or other.platform
        self.orders = self.orders or other.orders


@dataclass(frozen=True, slots=True)
class Look:
    """A fleet with what is derived from it for comparing."""

    fleet: Fleet
    summary: tuple[Any, ...]
    needed: frozenset[tuple[str, str, str | None]]

    @classmethod
    def at(cls, fleet: Fleet) -> Look:
        rows = needs(fleet.terminals, fleet.at_ms)
        by_state = listing.counts(fleet.terminals)
        cases = sum(terminal.cases_today for terminal in fleet.terminals)
        open_faults = sum(len(terminal.faults) for terminal in fleet.terminals)
        return cls(fleet, (tuple(sorted(by_state.by_state.items())), cases, open_faults), frozenset(_keys(rows)))


def news(old: Look, new: Look, touched: Iterable[str]) -> News:
    """Compare two looks; rows that did not change are the same objects."""
    found = News(touched=set(touched))
    before, after = old.fleet.by_id, new.fleet.by_id
    for terminal, row in after.items():
        was = before.get(terminal)
        if was is row:
            continue
        if was is None or was != row:
            found.rows.add(terminal)
            if was is None or was.state is not row.state or was.faults != row.faults:
                found.touched.add(terminal)
            known = {fault.id for fault in was.faults} if was else set()
            found.alarms += [
                _alarm(row.label, fault.code) for fault in row.faults if fault.id not in known and fault.severity in {"P1", "P2"}
            ]
        found.ages[terminal] = (row.last_report_ms, row.last_seen_ms)
    found.rows |= before.keys() - after.keys()
    found.rows |= {terminal for terminal, _, _ in old.needed ^ new.needed}
    found.platform = old.fleet.platform != new.fleet.platform
    found.counts = old.summary != new.summary or old.needed != new.needed or found.platform
    return found


def _keys(rows: Iterable[Need]) -> Iterable[tuple[str, str, str | None]]:
    for row in rows:
        for fault in (row.fault, *row.also):
            yield fault.terminal, fault.id, fault.claimed_by


def _alarm(label: str, code: str) -> dict[str, Any]:
    kind = FAULTS.get(code)
    return {"label": label, "zh": kind.zh if kind else code, "en": kind.en if kind else code}
