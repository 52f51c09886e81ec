"""Which server a device gets. The only list of families and servers; each is loaded when its first device is claimed."""

from __future__ import annotations

from edge_agent.devices.base import SlotBinding
from edge_agent.owner.base import Server
from protocols.profile.schema import Family, Kind, Profile

SERVED = frozenset({
    Family.CARD_D1801, Family.CARD_F2, Family.CARD_STX, Family.CCID, Family.ESCPOS, Family.PJL, Family.SCANNER_KEYBOARD, Family.SCANNER_SERIAL,
    Family.SDT, Family.USB_PRINTER,
})  # fmt: skip
"""Families whose every device has commands; keys only where they are a keypad."""


def has_commands(profile: Profile) -> bool:
    """Whether there is something to claim; asked often, so no server is loaded for it."""
    return profile.family in SERVED or (profile.family is Family.KEYS and profile.kind is Kind.KEYPAD)


def server_for(bound: SlotBinding) -> Server | None:
    """A fresh server for one claim, without any memory of the claim before; None for devices that are watched only."""
    profile = bound.profile
    if profile.kind in (Kind.CAMERA, Kind.DOCUMENT_CAMERA):
        from edge_agent.owner.camera import Camera

        return Camera()
    match profile.family:
        case Family.CARD_F2 | Family.CARD_STX | Family.CARD_D1801:
            from edge_agent.owner.card_unit import CardUnitServer

            return CardUnitServer(profile)
        case Family.SDT:
            from edge_agent.owner.id_reader import IdReader

            return IdReader()
        case Family.ESCPOS | Family.PJL | Family.USB_PRINTER:
            from edge_agent.owner.printer import PrinterServer

            return PrinterServer(profile)
        case Family.CCID:
            from edge_agent.owner.smart_card import SmartCard

            return SmartCard()
        case Family.SCANNER_KEYBOARD | Family.SCANNER_SERIAL:
            from edge_agent.owner.barcode_reader import BarcodeReader

            return BarcodeReader()
        case Family.KEYS if profile.kind is Kind.KEYPAD:
            from edge_agent.owner.keyboard import Keyboard

            return Keyboard()
    return None
