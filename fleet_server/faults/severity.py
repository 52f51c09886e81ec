"""Owns what a fault means for the public. Pure: derived from code, severity and the inventory's mandatory mark, never typed by a person."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from protocols.canon.words import Severity


class Impact(StrEnum):
    """Words of the console's impact column."""

    NO_SERVICE = "noService"
    SOME_ITEMS = "some"
    NONE = "none"


def impact(code: str, severity: str, *, slot: str | None, mandatory: bool) -> Impact:
    """No service: P1 or P2 of a mandatory peripheral or of the kiosk application, or no contact. No impact: P4.

    What concerns the host or its uplink (no slot) hampers, but the terminal still serves.
    """
    if severity == Severity.P4:
        return Impact.NONE
    if severity in {Severity.P1, Severity.P2} and (
        code.startswith("APP.") or code == "NET.OFFLINE" or (mandatory and slot is not None)
    ):
        return Impact.NO_SERVICE
    return Impact.SOME_ITEMS


_DANGER: Final = frozenset({
    "BTN.EMERGENCY", "BTN.HELP", "ENV.DOOR_OPEN", "ENV.SMOKE", "ENV.TAMPER", "ENV.TEMP", "ENV.WATER", "HOST.TEMP_HIGH",
})  # fmt: skip


def is_danger(code: str) -> bool:
    """Whether it says that somebody calls for help, or that the machine, its place or its identity is at risk: whether or not it serves anybody."""
    return code in _DANGER or code.startswith("SEC.")


def worst(severities: Iterable[str]) -> str | None:
    """P1 before P2 before P3 before P4."""
    return min(severities, default=None)
