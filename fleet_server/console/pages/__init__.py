"""Controllers: read the address, ask, render. They hold no rules."""

from __future__ import annotations

from fleet_server.console.pages import (
    account,
    calendar,
    enrol,
    evidence,
    fault_actions,
    faults,
    figures,
    figures_behind,
    figures_published,
    figures_report,
    map,
    notifications,
    overview,
    sites,
    system,
    terminal,
    terminals,
    thresholds,
    wall,
    wallboards,
)

HANDLERS = [
    *account.HANDLERS,
    *overview.HANDLERS,
    *terminals.HANDLERS,
    *enrol.HANDLERS,
    *terminal.HANDLERS,
    *faults.HANDLERS,
    *fault_actions.HANDLERS,
    *evidence.HANDLERS,
    *system.HANDLERS,
    *notifications.HANDLERS,
    *figures.HANDLERS,
    *figures_behind.HANDLERS,
    *figures_published.HANDLERS,
    *figures_report.HANDLERS,
    *sites.HANDLERS,
    *calendar.HANDLERS,
    *thresholds.HANDLERS,
    *map.HANDLERS,
    *wall.HANDLERS,
    *wallboards.HANDLERS,
]
