"""A4 printers that speak PJL."""

from __future__ import annotations

from protocols.profile.tables import Table


class PjlOptions(Table, frozen=True, kw_only=True):
    unsolicited: bool = True
    page_count: bool = True
