"""What a device uses up."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table


class Consumable(Table, frozen=True, kw_only=True):
    name: Literal["paper", "roll", "toner", "drum", "ribbon", "cards", "booklets", "labels"]
    unit: Literal["sheet", "mm", "percent", "piece"]
    capacity: Annotated[int, Meta(ge=1, le=10_000_000)]
    counts: Literal["pages", "printed-length-mm", "jobs", "sensor"]
    per_job: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Units that one job takes on average, where only jobs can be counted."""
    warn_below_pct: Annotated[int, Meta(ge=1, le=99)] = 15

    def __post_init__(self) -> None:
        if (self.counts == "jobs") != (self.per_job is not None):
            raise ValueError('per_job belongs to counts = "jobs" and only there')
