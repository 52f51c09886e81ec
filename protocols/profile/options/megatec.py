"""UPSes that speak Megatec's Q1 protocol."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from protocols.profile.tables import Table


class MegatecOptions(Table, frozen=True, kw_only=True):
    battery_nominal_tenths: Annotated[int, Meta(ge=20, le=10_000)] | None = None
    """Nominal voltage of the pack, for a unit that does not answer `F`. Without either nothing is said about a worn battery."""
    overload_above_pct: Annotated[int, Meta(ge=1, le=200)] = 100
    worn_below_mv_per_cell: Annotated[int, Meta(ge=1500, le=2300)] = 2130
    """On the charger and below a full cell's resting voltage. Chosen: makers of sealed lead batteries state 2.13-2.15 V at rest and hold them at
    2.25-2.30 V per cell."""
