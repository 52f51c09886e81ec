"""Position receivers that send NMEA 0183."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table


class NmeaOptions(Table, frozen=True, kw_only=True):
    bauds: Annotated[tuple[Literal[4800, 9600, 19200, 38400, 57600, 115200], ...], Meta(max_length=6)] = ()
    """Speeds to listen at in turn while nothing is understood; empty: only the transport's."""
    poor_above_hdop_tenths: Annotated[int, Meta(ge=10, le=500)] = 50
