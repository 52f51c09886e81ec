"""Owns the question whether a terminal is locked: its own newest word on what it holds, not what somebody has asked for."""

from __future__ import annotations

from typing import Final

IS_LOCKED: Final = (
    "coalesce((SELECT d.locked FROM desired_report d WHERE d.terminal = t.id AND d.disputed = 0 AND d.state <> 'refused'"
    " ORDER BY d.counter DESC, d.at_ms DESC, d.id DESC LIMIT 1), 0)"
)
"""An SQL expression over a row `t` of `terminal`."""
