"""Names under which styles, shapes and words know a state."""

from __future__ import annotations

from typing import Final

from fleet_server.terminals.state import StateCode

LOOK: Final[dict[StateCode, str]] = {
    StateCode.NOT_ENROLLED: "notEnrolled",
    StateCode.MAINTENANCE: "maintenance",
    StateCode.UNKNOWN: "unknown",
    StateCode.CLOSED: "closed",
    StateCode.OFFLINE: "offline",
    StateCode.SUSPECT: "suspect",
    StateCode.UNUSABLE: "unusable",
    StateCode.PARTIAL: "partial",
    StateCode.NORMAL: "normal",
}
