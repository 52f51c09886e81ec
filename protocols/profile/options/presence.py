"""Devices that are watched without being opened."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table


class PresenceOptions(Table, frozen=True, kw_only=True):
    """What the system says about the device beside that it is there."""

    heads: Annotated[int, Meta(ge=1, le=4)] = 1
    """Capture nodes of a whole unit: two for a camera with a visible and an infrared head. Fewer: a head is missing."""
    least_mbps: Literal[12, 480, 5000] | None = None
    """USB speed below which the device cannot do its work: a camera that fell back to 12 Mbit/s has too little bandwidth for its pictures."""
