"""Which driver a profile's family means. The only list of families and drivers."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.clock import Clock
from edge_agent.devices.base import Driver, SlotBinding
from edge_agent.transports.base import AskPort, BytePort, KeyPort, Port, PortRefused, ReaderPort, UsbPort
from protocols.profile.schema import Family

SHARED = frozenset({Family.CALLPAD, Family.MODBUS, Family.PCSC})
"""Families whose slots share a port."""


def make_driver(port: Port, slots: Sequence[SlotBinding], clock: Clock, *, stays: bool) -> Driver:
    """The driver of the slots' family. `stays`: the port is held, so settings for watching may be made. PortRefused for a port of the wrong shape."""
    first = slots[0]
    family = first.profile.family
    if isinstance(port, KeyPort):
        if family is Family.SCANNER_KEYBOARD:
            from edge_agent.devices.scanner import KeyboardScanner

            return KeyboardScanner(port, first, clock)
        if family is Family.KEYS:
            from edge_agent.devices.keypad import Keypad

            return Keypad(port, first, clock)
    elif isinstance(port, ReaderPort):
        if family is Family.PCSC:
            from edge_agent.devices.pcsc_readers import PcscReaders

            return PcscReaders(port, slots, clock)
    elif isinstance(port, AskPort):
        if family is Family.IPP:
            from edge_agent.devices.ipp_printer import IppPrinter

            return IppPrinter(port, first)
    elif isinstance(port, UsbPort) and family is Family.CCID:
        from edge_agent.devices.ccid_reader import CcidReader

        return CcidReader(port, first, clock)
    elif isinstance(port, UsbPort) and family is Family.USB_PRINTER:
        from edge_agent.devices.a4_printer import A4Printer

        return A4Printer(port, first, push=stays)
    elif isinstance(port, BytePort):
        driver = _byte_driver(port, slots, clock, stays=stays)
        if driver is not None:
            return driver
    raise PortRefused(f"profile {first.profile.id}: family {family} cannot use this kind of port")


def _byte_driver(port: BytePort, slots: Sequence[SlotBinding], clock: Clock, *, stays: bool) -> Driver | None:
    first = slots[0]
    match first.profile.family:
        case Family.ESCPOS:
            if first.profile.escpos is not None and first.profile.escpos.dialect == "star":
                from edge_agent.devices.star_printer import StarPrinter

                return StarPrinter(port, first, push=stays)
            from edge_agent.devices.receipt_printer import ReceiptPrinter

            return ReceiptPrinter(port, first, push=stays)
        case Family.PJL:
            from edge_agent.devices.a4_printer import A4Printer

            return A4Printer(port, first, push=stays)
        case Family.SDT:
            from edge_agent.devices.id_reader import IdReader

            return IdReader(port, first)
        case Family.SCANNER_SERIAL:
            from edge_agent.devices.scanner import SerialScanner

            return SerialScanner(port, first, clock)
        case Family.CARD_F2 | Family.CARD_STX | Family.CARD_D1801:
            from edge_agent.devices.card_unit import CardUnit

            return CardUnit(port, first)
        case Family.CALLPAD:
            from edge_agent.devices.call_pad import CallPadBus

            return CallPadBus(port, slots, clock)
        case Family.RATING_SERIAL:
            from edge_agent.devices.rating_pad import RatingPad

            return RatingPad(port, first, clock)
        case Family.MODBUS:
            from edge_agent.devices.modbus_bus import ModbusBus

            return ModbusBus(port, slots)
        case Family.MEGATEC:
            from edge_agent.devices.ups import Ups

            return Ups(port, first)
        case Family.NMEA:
            from edge_agent.devices.gps import Gps

            return Gps(port, first)
    return None
