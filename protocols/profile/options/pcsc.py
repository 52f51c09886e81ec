"""Smart-card readers that the machine's PC/SC service owns."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocols.profile.tables import Regex, Table, check_pattern


class PcscOptions(Table, frozen=True, kw_only=True):
    reader: Regex = "^"
    """Which of the service's readers: a pattern over the name that the service gives it. The inventory's `address` picks among several, from 0."""
    stuck_after_s: Annotated[int, Meta(ge=600, le=172_800)] = 7_200
    """A card that stays in the reader so long without a break was left behind or is jammed."""

    def __post_init__(self) -> None:
        check_pattern(self.reader, "reader")
