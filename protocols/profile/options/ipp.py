"""A4 printers by their own IPP service."""

from __future__ import annotations

from protocols.profile.tables import Millis, Table


class IppOptions(Table, frozen=True, kw_only=True):
    answer_timeout_ms: Millis = 3000
    page_count: bool = True
    """`printer-impressions-completed` counts pages."""
