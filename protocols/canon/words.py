"""Canonical state words, after XFS4IoT (CWA 17852): `unknown` (we could not tell) is never `notSupported` (there is nothing to tell)."""

from __future__ import annotations

from enum import StrEnum


class DeviceState(StrEnum):
    """What a device can do at all (XFS4IoT Common.Status `device`, plus our neutral `inUse`)."""

    ONLINE = "online"
    OFFLINE = "offline"
    POWER_OFF = "powerOff"
    NO_DEVICE = "noDevice"
    HARDWARE_ERROR = "hardwareError"
    USER_ERROR = "userError"
    BUSY = "deviceBusy"
    STARTING = "starting"
    IN_USE = "inUse"
    """Another program holds the port: neutral, never a fault."""
    UNKNOWN = "unknown"


class PaperState(StrEnum):
    """XFS4IoT Printer.Status `paper`."""

    FULL = "full"
    LOW = "low"
    OUT = "out"
    JAMMED = "jammed"
    UNKNOWN = "unknown"
    NOT_SUPPORTED = "notSupported"


class TonerState(StrEnum):
    """XFS4IoT Printer.Status `toner`."""

    FULL = "full"
    LOW = "low"
    OUT = "out"
    UNKNOWN = "unknown"
    NOT_SUPPORTED = "notSupported"


class MediaState(StrEnum):
    """XFS4IoT media position words."""

    PRESENT = "present"
    NOT_PRESENT = "notPresent"
    JAMMED = "jammed"
    ENTERING = "entering"
    RETRACTED = "retracted"
    LATCHED = "latched"
    UNKNOWN = "unknown"
    NOT_SUPPORTED = "notSupported"


class CoverState(StrEnum):
    """A cover, door or lid (XFS4IoT Auxiliaries words)."""

    CLOSED = "closed"
    OPEN = "open"
    TAMPERED = "tampered"
    UNKNOWN = "unknown"
    NOT_SUPPORTED = "notSupported"


class SuggestedAction(StrEnum):
    """What a person or the software should do next (XFS4IoT error `action`)."""

    NONE = "none"
    RESET = "reset"
    SOFTWARE_ERROR = "softwareError"
    CONFIGURATION = "configuration"
    CLEAR = "clear"
    MAINTENANCE = "maintenance"
    SUSPEND = "suspend"


class Ownership(StrEnum):
    """Who holds the port (architecture decision: per device)."""

    OBSERVER = "observer"
    OWNER = "owner"
    IDLE_PROBER = "idleProber"


class Severity(StrEnum):
    """P1 critical, P2 major, P3 minor, P4 notice."""

    P1 = "P1"
    P2 = "P2"
    P3 = "P3"
    P4 = "P4"


class TerminalType(StrEnum):
    KIOSK = "kiosk"
    CALL_PAD_SET = "callPadSet"
    EVALUATOR = "evaluator"
    BOOTH = "booth"
    DESK = "desk"
    VAN = "van"
