"""What is plugged into the virtual machine: one device for each kernel driver and each way of claiming."""

from __future__ import annotations

from dataclasses import dataclass

from simulators.models.base import UsbIdentity
from simulators.models.callpad import CallPadBus, PadDialect
from simulators.models.ccid import CcidReader
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import EvaluatorPad, Keypad
from simulators.models.laser import LaserPrinter
from simulators.models.scanner import USB_NEWLAND_CDC, SerialScanner
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, SdtReader
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.slots import Slot

CDC_BRIDGE = UsbIdentity(0x0483, 0x5740, (), interface_class=0x0A, manufacturer="STMicroelectronics", product="Virtual COM Port")
"""A serial line behind a microcontroller: cdc-acm takes every line setting, parity as well."""


@dataclass(frozen=True)
class Placed:
    slot: Slot
    identity: UsbIdentity
    family: str
    profile: str | None = None
    address: int | None = None


def slots() -> list[Placed]:
    """In the order in which they are plugged in."""
    receipt = EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880", firmware="FV1.040")
    reader = CcidReader()
    assert reader.usb is not None
    ups = Ups(usb=USB_CYPRESS)
    pads = CallPadBus(addresses=(1,), dialect=PadDialect(polled=True, lead_byte=False))
    found = [
        Placed(Slot("id-reader", SdtReader(usb=USB_SPLIT), "usb", ""), USB_SPLIT, "id-reader"),
        Placed(Slot("receipt-printer", receipt, "usb", ""), USB_SNBC, "receipt-printer"),
        Placed(Slot("laser-printer", LaserPrinter(), "usb", ""), LaserPrinter().usb or USB_SNBC, "a4-printer"),
        Placed(Slot("keypad", keypad := Keypad(), "input", ""), keypad.usb or USB_SNBC, "keypad"),
        Placed(Slot("evaluator", pad := EvaluatorPad(), "input", ""), pad.usb or USB_SNBC, "evaluator"),
        Placed(Slot("scanner", SerialScanner(rs232=False), "serial", "", adapter=USB_NEWLAND_CDC), USB_NEWLAND_CDC, "scanner"),
        Placed(Slot("call-pad", pads, "serial", "", adapter=CDC_BRIDGE), CDC_BRIDGE, "call-pad", "call-pad-ft12-bare", 1),
        Placed(Slot("id-reader-2", SdtReader(usb=USB_WHOLE), "usb", ""), USB_WHOLE, "id-reader"),
        Placed(Slot("card-reader", reader, "usb", ""), reader.usb, "card-reader"),
        Placed(Slot("ups", ups, "usb", ""), USB_CYPRESS, "ups"),
    ]  # fmt: skip
    for number, one in enumerate(found, 1):
        one.slot.path = one.slot.usb_path = f"1-{number}"
    return found
