"""Messages of the owner API: header and words of XFS4IoT (CWA 17852:2025, part 1), the payloads that its commands may have, and our own few.

Pure: text in, values out. What was sent is never repeated in an error; a description is one of the sentences here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

OWN = "KioskFleet"
"""Interface of what the standard leaves to the service: sharing a device, and tests of it."""
CLAIM, RENEW, RELEASE, SELF_TEST = f"{OWN}.Claim", f"{OWN}.Renew", f"{OWN}.Release", f"{OWN}.SelfTest"
CLAIM_LOST = f"{OWN}.ClaimLostEvent"
STATUS, CAPABILITIES, CANCEL = "Common.Status", "Common.Capabilities", "Common.Cancel"
STATUS_CHANGED = "Common.StatusChangedEvent"
GET_SERVICES = "ServicePublisher.GetServices"

AT_ONCE = frozenset({STATUS, CAPABILITIES, CANCEL, GET_SERVICES, CLAIM, RENEW, RELEASE})
"""Commands that wait for no device, so they are taken however many others are queued."""

LEASE_DEFAULT_S, LEASE_MAX_S = 30, 120

Name = Annotated[str, Meta(pattern=r"^[A-Z][A-Za-z]{1,31}\.[A-Z][A-Za-z0-9]{1,47}\Z", max_length=80)]
Base64 = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]*={0,2}\Z")]
Unit = Annotated[str, Meta(pattern=r"^(exit|transport|unit[0-9A-Za-z]+)\Z", max_length=32)]
MediaControl = Annotated[str, Meta(pattern=r"^[a-z][0-9A-Za-z]{1,31}\Z")]

CompletionCode = Literal[
    "success", "commandErrorCode", "canceled", "deviceNotReady", "hardwareError", "internalError", "invalidCommand", "timeOut",
    "unsupportedCommand", "invalidData", "userError", "unsupportedData", "sequenceError",
]  # fmt: skip
Refused = Literal["invalidMessage", "invalidRequestID", "tooManyRequests"]

DESCRIPTIONS: Mapping[str, str] = {
    "commandErrorCode": "The command ended with the errorCode of the payload.",
    "canceled": "The command was cancelled.",
    "deviceNotReady": "The device is not there, or another program holds it.",
    "hardwareError": "The device does not do what it was told, or lost something on the way.",
    "internalError": "The agent failed; nothing can be said about the device.",
    "invalidCommand": "This service has no such command.",
    "timeOut": "The time of the command ran out.",
    "unsupportedCommand": "This device does not take the command, or not in this version.",
    "invalidData": "The payload is not as the command's schema says.",
    "userError": "The person at the device has to do something.",
    "unsupportedData": "The device cannot do what the payload asks for.",
    "sequenceError": "The device must be claimed on this connection first.",
}
CODES = frozenset(DESCRIPTIONS) | {"success"}


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A checked command; its payload is only known to be an object. `timeout_ms` 0: as long as the service lets it."""

    name: str
    request_id: int
    version: str
    timeout_ms: int
    payload: Mapping[str, Any]

    def __repr__(self) -> str:
        """Without the payload: it may hold what is printed."""
        return f"Command(name={self.name!r}, request_id={self.request_id})"


class MessageRefused(Exception):
    """Not a command that can be queued. `answer` is the acknowledgement to send."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("a message was refused")
        self.answer = answer


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["command"]
    name: Name
    requestId: Annotated[int, Meta(ge=1, le=2**31 - 1)]  # noqa: N815 -- the standard's spelling
    version: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,3}\.(0|[1-9][0-9]{0,3})\Z", max_length=9)]
    timeout: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    header: _Header
    payload: dict[str, Any] | None = None


class _LooseHeader(msgspec.Struct, frozen=True, kw_only=True):
    name: Name = "Common.Acknowledge"
    requestId: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None  # noqa: N815 -- the standard's spelling


class _LooseMessage(msgspec.Struct, frozen=True, kw_only=True):
    header: _LooseHeader


def parse(text: str, in_use: frozenset[int] | set[int], *, room: bool) -> Command:
    """A command whose id is none of `in_use`. Raises MessageRefused."""
    try:
        message = msgspec.json.decode(text, type=_Message)
    except (msgspec.DecodeError, RecursionError):
        raise MessageRefused(_refusal(text)) from None
    head = message.header
    if head.requestId in in_use:
        raise MessageRefused(acknowledge(head.name, head.requestId, head.version, "invalidRequestID"))
    if not room and head.name not in AT_ONCE:
        raise MessageRefused(acknowledge(head.name, head.requestId, head.version, "tooManyRequests"))
    return Command(
        name=head.name,
        request_id=head.requestId,
        version=head.version,
        timeout_ms=head.timeout or 0,
        payload=message.payload or {},
    )


def _refusal(text: str) -> bytes:
    """Which of the two refusals it is, as far as the header can be read."""
    try:
        head = msgspec.json.decode(text, type=_LooseMessage).header
    except msgspec.ValidationError as err:
        status: Refused = "invalidRequestID" if str(err).endswith("`$.header.requestId`") else "invalidMessage"
        return acknowledge("Common.Acknowledge", None, "1.0", status)
    except (msgspec.DecodeError, RecursionError):
        return acknowledge("Common.Acknowledge", None, "1.0", "invalidMessage")
    return acknowledge(head.name, head.requestId, "1.0", "invalidRequestID" if head.requestId is None else "invalidMessage")


def acknowledge(name: str, request_id: int | None, version: str, status: Refused | None = None) -> bytes:
    head = {"type": "acknowledge", "name": name, "requestId": request_id, "version": version, "status": status}
    return msgspec.json.encode({"header": head})


def completion(command: Command, code: CompletionCode, payload: Mapping[str, Any] | None = None) -> bytes:
    head = {
        "type": "completion",
        "name": command.name,
        "requestId": command.request_id,
        "version": command.version,
        "completionCode": code,
        "errorDescription": DESCRIPTIONS.get(code),
    }
    return msgspec.json.encode({"header": head, "payload": payload})


def event(name: str, payload: Mapping[str, Any] | None, command: Command | None = None) -> bytes:
    """An event of a command, or an unsolicited one."""
    solicited = command is not None and name not in UNSOLICITED
    head = {
        "type": "event" if solicited else "unsolicited",
        "name": name,
        "requestId": command.request_id if solicited and command is not None else None,
        "version": version_of(name),
    }
    return msgspec.json.encode({"header": head, "payload": payload})


UNSOLICITED = frozenset({
    STATUS_CHANGED, CLAIM_LOST, "Common.ErrorEvent", "CardReader.CardActionEvent", "CardReader.MediaDetectedEvent",
    "CardReader.MediaRemovedEvent", "Printer.MediaAutoRetractedEvent", "Printer.MediaDetectedEvent", "Printer.MediaInsertedUnsolicitedEvent",
    "Printer.MediaPresentedUnsolicitedEvent", "Printer.MediaTakenEvent", "Printer.PaperThresholdEvent", "Printer.RetractBinStatusEvent",
    "Printer.RetractBinThresholdEvent", "Printer.TonerThresholdEvent",
})  # fmt: skip
"""Events that belong to no command, whenever they happen."""

_MAJOR_3 = frozenset({
    "Common.StatusChangedEvent", "CardReader.WriteRawData", "Printer.ControlMedia", "Printer.GetQueryMedia", "Printer.MediaExtents",
    "Printer.PrintForm", "Printer.PrintNative", "Printer.PrintRaw", "Printer.ReadForm", "Printer.ReadImage", "Printer.Reset",
    "Printer.RetractMedia", "Printer.MediaAutoRetractedEvent", "Printer.MediaDetectedEvent", "CardReader.ChipIO", "Keyboard.LayoutEvent",
})  # fmt: skip


def version_of(name: str) -> str:
    """The version of a message that is spoken here, after the 2025 edition."""
    if name.startswith(f"{OWN}."):
        return "1.0"
    return "3.0" if name in _MAJOR_3 else "2.0"


def takes_version(name: str, version: str) -> bool:
    """The same major version; a command of the 2.x editions is understood where the 3.0 one only added to it."""
    major = version.partition(".")[0]
    return major == version_of(name).partition(".")[0] or (major == "2" and name in _MAJOR_3)


# ------------------------------------------------------------------------------------------------------------------------ payloads


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class _Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    request_ids: tuple[Annotated[int, Meta(ge=1)], ...] | None = None


class _Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """`application`: how a native program calls itself; a browser application is called as its token is."""

    application: Annotated[str, Meta(pattern=r"^[a-z0-9-]{1,32}\Z")] | None = None
    lease_s: Annotated[int, Meta(ge=5, le=LEASE_MAX_S)] = LEASE_DEFAULT_S


class _SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    test: Literal["query", "print", "read", "beep"] = "query"


class _BarcodeRead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    symbologies: dict[str, bool | None] | None = None


class _ActiveKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    terminate: bool | None = None


class _DataEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    max_len: Annotated[int, Meta(ge=0, le=64)] | None = None
    auto_end: bool | None = None
    active_keys: Annotated[dict[str, _ActiveKey | None], Meta(max_length=64)] | None = None


class _Move(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    from_: Unit | None = None
    to: Unit | None = None


class _ReadRawData(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    track1: bool | None = None
    track2: bool | None = None
    track3: bool | None = None
    chip: bool | None = None
    security: bool | None = None
    flux_inactive: bool | None = None
    watermark: bool | None = None
    memory_chip: bool | None = None
    track1_front: bool | None = None
    front_image: bool | None = None
    back_image: bool | None = None
    track1_jis: bool | None = msgspec.field(default=None, name="track1JIS")
    track3_jis: bool | None = msgspec.field(default=None, name="track3JIS")
    ddi: bool | None = None
    fingerprint: bool | None = None
    """Our own: of a resident's card, the stored fingerprint as well."""


class _ChipIo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    chip_data: Base64
    chip_protocol: (
        Literal["chipT0", "chipT1", "chipProtocolNotRequired", "chipTypeAPart3", "chipTypeAPart4", "chipTypeB", "chipTypeNFC"]
        | None
    ) = None


class _ChipPower(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    chip_power: Literal["cold", "warm", "off"]


class _CardReset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    to: Literal["exit", "retain", "currentPosition", "auto"] | None = None
    storage_id: Unit | None = None


class _MediaControl(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    move: MediaControl | None = None
    perforate: bool | None = None
    cut: bool | None = None
    skip: bool | None = None
    flush: bool | None = None
    partial_cut: bool | None = None
    alarm: bool | None = None
    turn_page: Literal["forward", "backward"] | None = None
    turn_media: bool | None = None
    stamp: bool | None = None
    rotate180: bool | None = None


class _PrintRaw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    data: Base64
    input_data: Literal["no", "yes"] | None = None


class _PrintNative(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    data: Base64
    media_control: _MediaControl | None = None
    paper_source: Annotated[str, Meta(pattern=r"^[a-zA-Z][a-zA-Z0-9]{0,31}\Z")] | None = None


class _ControlMedia(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    media_control: _MediaControl


class _PrinterMedia(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    media_control: MediaControl | None = None


_PAYLOADS: Mapping[str, type[msgspec.Struct]] = {
    STATUS: _Nothing,
    CAPABILITIES: _Nothing,
    CANCEL: _Cancel,
    GET_SERVICES: _Nothing,
    CLAIM: _Claim,
    RENEW: _Nothing,
    RELEASE: _Nothing,
    SELF_TEST: _SelfTest,
    "BarcodeReader.Read": _BarcodeRead,
    "BarcodeReader.Reset": _Nothing,
    "Keyboard.DataEntry": _DataEntry,
    "Keyboard.GetLayout": msgspec.defstruct("_GetLayout", [("entryMode", str | None, None)], forbid_unknown_fields=True),
    "CardReader.Move": _Move,
    "CardReader.ReadRawData": _ReadRawData,
    "CardReader.ChipIO": _ChipIo,
    "CardReader.ChipPower": _ChipPower,
    "CardReader.Reset": _CardReset,
    "CardReader.QueryIFMIdentifier": _Nothing,
    "Printer.PrintRaw": _PrintRaw,
    "Printer.PrintNative": _PrintNative,
    "Printer.ControlMedia": _ControlMedia,
    "Printer.Reset": _PrinterMedia,
    "Printer.RetractMedia": _PrinterMedia,
}
PAYLOAD_NAMES = frozenset(_PAYLOADS)


class PayloadRefused(Exception):
    """The payload is not as the command's schema says; what it held is not told."""


def check(command: Command) -> Any:
    """The payload as its struct, or as it is for a command without a schema here. Raises PayloadRefused."""
    kind = _PAYLOADS.get(command.name)
    if kind is None:
        return command.payload
    try:
        return msgspec.convert(command.payload, kind)
    except msgspec.ValidationError:
        raise PayloadRefused from None
