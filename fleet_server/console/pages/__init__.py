"""Controllers: read the address, ask, render. They hold no rules."""

from __future__ import annotations

from fleet_server.console.pages import account, enrol, evidence, faults, map, overview, system, terminal, terminals

HANDLERS = [
    *account.HANDLERS,
    *overview.HANDLERS,
    *terminals.HANDLERS,
    *enrol.HANDLERS,
    *terminal.HANDLERS,
    *faults.HANDLERS,
    *evidence.HANDLERS,
    *system.HANDLERS,
    *map.HANDLERS,
]
