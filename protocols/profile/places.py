"""Where a device is found and how its port is opened: the `match`, `transport` and `poll` tables."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from protocols.profile.tables import Byte, HexText, Millis, Regex, Table, Word16, check_pattern


class UsbId(Table, frozen=True, kw_only=True):
    vid: Word16
    pid: Word16


class UsbMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="usb"):
    """A USB device. Without `pid` the product text must tell the model."""

    vid: Word16
    pid: Word16 | None = None
    serial: Regex | None = None
    product: Regex | None = None

    def __post_init__(self) -> None:
        if self.pid is None and self.product is None:
            raise ValueError("needs pid or product")
        check_pattern(self.serial, "serial")
        check_pattern(self.product, "product")


class Probe(Table, frozen=True, kw_only=True):
    """A harmless question that only this family answers. Sent only to a port that the terminal's inventory lists."""

    send: HexText
    reply: Annotated[str, Meta(pattern=r"^\^", max_length=160)]
    """Regular expression over the reply's hex digits, lower case without blanks."""
    within_ms: Millis
    bauds: Annotated[tuple[Annotated[int, Meta(ge=300, le=921600)], ...], Meta(max_length=8)] = ()
    """Speeds to try in order; empty: the transport's."""
    after_ack: HexText | None = None
    """Sent once when the reply begins with 06: devices that hold their answer back until they are asked for it (ENQ, 05)."""

    def __post_init__(self) -> None:
        check_pattern(self.reply, "reply")


class SerialMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="serial"):
    """A serial port. An adapter identifies nobody, so the device is asked (`probe`) or the inventory decides (the others)."""

    adapters: Annotated[tuple[UsbId, ...], Meta(max_length=16)] = ()
    """Empty: any serial port."""
    probe: Probe | None = None
    by_slot: bool = False
    """Only where the inventory names this kind at this port."""
    by_name: bool = False
    """Only where the inventory names this very profile."""

    def __post_init__(self) -> None:
        if (self.probe is not None) + self.by_slot + self.by_name != 1:
            raise ValueError("needs one of probe, by_slot and by_name")


class CdcMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="cdc"):
    """A serial port whose USB ids are the device's own (CDC-ACM), so they identify it."""

    vid: Word16
    pid: Word16


class InputMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="input"):
    """An evdev node, by ids or by name."""

    vid: Word16 | None = None
    pid: Word16 | None = None
    product: Regex | None = None
    touch: bool = False
    """A touch screen, as the system classes it; other rules never fit one."""

    def __post_init__(self) -> None:
        if not self.touch and self.product is None and (self.vid is None or self.pid is None):
            raise ValueError("needs vid and pid, or product")
        check_pattern(self.product, "product")


class VideoMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="video"):
    """A node that delivers pictures. Without ids the inventory decides."""

    vid: Word16 | None = None
    pid: Word16 | None = None
    by_slot: bool = False
    """Any camera, where the inventory names this kind at this port."""
    by_name: bool = False
    """Any camera, where the inventory names this very profile."""

    def __post_init__(self) -> None:
        if (self.vid is None) != (self.pid is None) or (self.vid is not None) + self.by_slot + self.by_name != 1:
            raise ValueError("needs vid and pid, by_slot or by_name")


class SoundMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="sound"):
    """One direction of a sound card."""

    role: Literal["capture", "playback"]
    vid: Word16 | None = None
    pid: Word16 | None = None
    product: Regex | None = None

    def __post_init__(self) -> None:
        check_pattern(self.product, "product")


class DisplayMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="display"):
    """A connector of the graphics card that has a screen behind it."""

    connector: Regex = "^card[0-9]+-"
    """Over its name, such as `card0-HDMI-A-1`."""

    def __post_init__(self) -> None:
        check_pattern(self.connector, "connector")


class IppMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="ipp"):
    """A printer's own IPP service, at the address that the inventory names."""

    by_name: bool = False
    """Only where the inventory names this very profile."""


class PcscMatch(Table, frozen=True, kw_only=True, tag_field="bus", tag="pcsc"):
    """The PC/SC service of the machine, at the socket that the inventory names. Which of its readers is meant stands in the `pcsc` table."""


Match = UsbMatch | SerialMatch | CdcMatch | InputMatch | VideoMatch | SoundMatch | DisplayMatch | PcscMatch | IppMatch


class UsbTransport(Table, frozen=True, kw_only=True):
    """Which interface to claim. What is not named is taken from the descriptors."""

    interface: Byte | None = None
    alternate: Byte | None = None
    interface_class: Byte | None = None
    out_endpoint: Byte | None = None
    in_endpoint: Byte | None = None
    detach_kernel_driver: bool = True
    read_timeout_ms: Millis = 500


class SerialTransport(Table, frozen=True, kw_only=True):
    baud: Annotated[int, Meta(ge=300, le=921600)]
    data_bits: Literal[7, 8] = 8
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    flow_control: Literal["none", "rtscts", "dsrdtr", "xonxoff"] = "none"
    dtr: Literal["high", "low"] | None = None
    rts: Literal["high", "low"] | None = None
    """Where the cable takes its power from these lines."""
    local_echo: bool = False
    """The adapter hears itself."""
    read_timeout_ms: Millis = 500


class InputTransport(Table, frozen=True, kw_only=True):
    grab: bool = False
    """Take the keys away from the desktop. Only where the kiosk application reads them through the agent."""


class Transport(Table, frozen=True, kw_only=True):
    """One table per bus that a match names."""

    usb: UsbTransport | None = None
    serial: SerialTransport | None = None
    input: InputTransport | None = None


class Poll(Table, frozen=True, kw_only=True):
    every_s: Annotated[float, Meta(ge=0.05, le=3600)]
    offline_after_misses: Annotated[int, Meta(ge=1, le=100)] = 3
    wake_timeout_ms: Millis | None = None
    """A sleeping device may take this long for its first answer."""


def bus_of(rule: Match) -> str:
    return str(rule.__struct_config__.tag)
