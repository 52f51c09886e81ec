"""Motorised card readers and card dispensers: what differs between models that speak one protocol, and where the sources differ."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table

Baud = Annotated[int, Meta(ge=300, le=921600)]


class CardOptions(Table, frozen=True, kw_only=True):
    """One table for the three families; each takes what it has."""

    bauds: Annotated[tuple[Baud, ...], Meta(max_length=8)] = ()
    """Speeds to try in order while the unit is silent; empty: only the transport's."""
    address: Annotated[int, Meta(ge=0, le=15)] = 0
    """DIP switches of F2 and addressed units. The inventory's address, where it names one, comes first."""
    stacker: bool = False
    """It has a stacker to dispense from, and says how full it is."""
    bin_sensor: bool = False
    """It says when the bin of captured cards is full."""
    chip: bool = False
    """It has contacts for chip cards (F2)."""
    present: Literal["hold", "eject"] = "hold"
    """How a card is handed out: held in the mouth, or pushed out. On one F2 unit `eject` sent the card into the bin, `hold` presented it."""
    reading_position: Literal["contacts", "antenna"] = "contacts"
    entry: Literal["none", "30-permits", "30-prohibits"] = "none"
    """F2 command 33 with parameter 30: the M001 document permits insertion, the R02 unit and a CRT-310 driver prohibit it (and 32 permits)."""
    form: Literal["simple", "addressed"] = "simple"
    """D1801: two-letter commands alone, or with an address (CRT-540/541)."""
    status: Literal["state", "flags"] = "state"
    """D1801: ask for the first state (RF, every board) or for all flags at once (PB)."""
    low_means_empty: bool = False
    """D1801: state 010 is a low stacker in one document and an empty one in a driver of a sibling."""
    card_left_s: Annotated[int, Meta(ge=10, le=3600)] = 60
    """A card that stays in the mouth so long was forgotten."""
    path_barriers: Annotated[tuple[Annotated[int, Meta(ge=1, le=10)], ...], Meta(max_length=10)] = ()
    """Light barriers S1… of the card path, from the unit's drawing: one that stays covered while no card is told is dirty or broken."""
