"""USB smart-card readers (CCID)."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table


class CcidOptions(Table, frozen=True, kw_only=True):
    contact: Literal["contact", "contactless"] = "contact"
    """How a card meets the reader; what a card that stays means, and what a missing one may mean, depends on it."""
    slots: Annotated[int, Meta(ge=1, le=8)] = 1
    """Card slots behind the one interface. The first is for citizens' cards; further ones hold security modules that stay in."""
    notices: bool = True
    """The unit tells insertions on its interrupt pipe. Without, it is asked only."""
    stuck_after_s: Annotated[int, Meta(ge=600, le=172_800)] = 7_200
    """A card that lies in the first slot so long without a break was left behind or is jammed."""
