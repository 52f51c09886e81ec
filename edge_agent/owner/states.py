"""How a slot's state reads in the words of XFS4IoT's status payloads. Pure; nothing of content is in a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protocols.canon.words import DeviceState, MediaState, PaperState, TonerState
from protocols.contract.records import Device
from protocols.profile.schema import Kind

_DEVICE: Mapping[DeviceState, str] = {DeviceState.IN_USE: "deviceBusy", DeviceState.UNKNOWN: "offline"}
"""The standard has no word for either; all others are its own."""
_INTERFACES: Mapping[str, str] = {
    Kind.RECEIPT_PRINTER: "Printer",
    Kind.A4_PRINTER: "Printer",
    Kind.ID_READER: "CardReader",
    Kind.CARD_READER: "CardReader",
    Kind.CARD_DISPENSER: "CardReader",
    Kind.SCANNER: "BarcodeReader",
    Kind.KEYPAD: "Keyboard",
    Kind.CAMERA: "Camera",
    Kind.DOCUMENT_CAMERA: "Camera",
}


def interface_of(family: str) -> str | None:
    """The interface of an inventory entry's kind; None for devices that are watched only."""
    return _INTERFACES.get(family)


def status(family: str, state: Device | None) -> dict[str, Any]:
    """`Common.Status` of one device. Before the first look it is starting."""
    word = "starting" if state is None else _DEVICE.get(state.device, state.device.value)
    common = {
        "device": word,
        "devicePosition": None,
        "powerSaveRecoveryTime": None,
        "antiFraudModule": None,
        "exchange": None,
        "endToEndSecurity": None,
        "persistentDataStore": None,
    }
    interface = interface_of(family)
    if interface is None:
        return {"common": common}
    return {"common": common, interface[0].lower() + interface[1:]: _PARTS[interface](state)}


def _printer(state: Device | None) -> dict[str, Any]:
    return {
        "media": _known(MediaState.UNKNOWN if state is None else state.media),
        "paper": {"upper": _known(PaperState.UNKNOWN if state is None else state.paper)},
        "toner": _known(TonerState.UNKNOWN if state is None else state.toner),
    }


def _card_reader(state: Device | None) -> dict[str, Any]:
    return {"media": _known(MediaState.UNKNOWN if state is None else state.media), "security": None, "chipPower": None}


def _barcode_reader(state: Device | None) -> dict[str, Any]:
    return {"scanner": _by_health(state, "on", "inoperative")}


def _keyboard(_state: Device | None) -> dict[str, Any]:
    return {"autoBeepMode": {"activeAvailable": False, "inactiveAvailable": False}}


def _camera(state: Device | None) -> dict[str, Any]:
    return {"media": None, "cameras": {"person": _by_health(state, "ok", "inop")}, "pictures": None}


_PARTS = {
    "Printer": _printer,
    "CardReader": _card_reader,
    "BarcodeReader": _barcode_reader,
    "Keyboard": _keyboard,
    "Camera": _camera,
}
_WELL = frozenset({DeviceState.ONLINE, DeviceState.BUSY, DeviceState.IN_USE})
_UNKNOWN = frozenset({DeviceState.UNKNOWN, DeviceState.STARTING})


def _by_health(state: Device | None, well: str, ill: str) -> str:
    if state is None or state.device in _UNKNOWN:
        return "unknown"
    return well if state.device in _WELL else ill


def _known(word: MediaState | PaperState | TonerState) -> str | None:
    """A part that the device does not have is null in the standard."""
    return None if word.value == "notSupported" else word.value
