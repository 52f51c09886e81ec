"""Code scanners, as keyboards and on a line."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Table, Word16


class OtherMode(Table, frozen=True, kw_only=True):
    """The same unit after a setup code switched its interface."""

    vid: Word16
    pid: Word16
    mode: Literal["keyboard", "serial", "hid-pos"]


class ScannerOptions(Table, frozen=True, kw_only=True):
    terminators: Annotated[
        tuple[Literal["enter", "kpEnter", "tab", "cr", "lf", "etx"], ...], Meta(min_length=1, max_length=6)
    ] = ("enter",)
    """What ends a code as the unit is set up here; others count as a lost suffix."""
    dialect: Literal["unified", "zone", "honeywell", "none"] = "none"
    """How a unit in serial mode is asked: Newland unified commands, the older engines' zone reads, Honeywell menu commands, or not at all."""
    other_mode: Annotated[tuple[OtherMode, ...], Meta(max_length=16)] = ()
