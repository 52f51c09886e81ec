"""How a unit's firmware is read and changed."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from msgspec import Meta

from protocols.privacy import MakerText
from protocols.profile.places import SerialTransport, UsbId
from protocols.profile.tables import Byte, HexText, Millis, Table, Version, check_pattern


class KnownBad(Table, frozen=True, kw_only=True):
    version: Version
    reason: MakerText


FlashMethod = Literal["xmodem", "xmodem-1k", "ymodem", "usb-dfu"]
"""Methods by which the agent itself writes firmware."""


SERIAL_METHODS = frozenset({"xmodem", "xmodem-1k", "ymodem"})


FLASH_METHODS = SERIAL_METHODS | {"usb-dfu"}


NAMED_GROUPS = ("part", "version")


class Exchange(Table, frozen=True, kw_only=True):
    """One question and the form of its answer. Without `send` the device speaks by itself (a boot loader's banner)."""

    send: HexText | None = None
    reply: Annotated[str, Meta(pattern=r"^\^", max_length=320)] | None = None
    """Regular expression over the reply's hex digits, lower case without blanks. A group named `part` or `version` holds ASCII text."""
    within_ms: Millis = 1000

    def __post_init__(self) -> None:
        if self.send is None and self.reply is None:
            raise ValueError("needs send, reply or both")
        check_pattern(self.reply, "reply")
        strange = self.groups() - set(NAMED_GROUPS)
        if strange:
            raise ValueError(f"reply: group {min(strange)!r} is neither part nor version")

    def groups(self) -> set[str]:
        return set() if self.reply is None else set(re.compile(self.reply).groupindex)

    def fits(self, reply: bytes) -> bool:
        return self.reply is None or re.match(self.reply, reply.hex()) is not None

    def text(self, reply: bytes, group: Literal["part", "version"]) -> str | None:
        """What the group of that name holds, as ASCII without blanks and zero bytes around it; None if the reply does not fit or is no text."""
        found = None if self.reply is None else re.match(self.reply, reply.hex())
        digits = found.groupdict().get(group) if found else None
        try:
            return None if not digits else bytes.fromhex(digits).decode("ascii").strip(" \x00\r\n\t")
        except (ValueError, UnicodeDecodeError):
            return None


class DfuOptions(Table, frozen=True, kw_only=True):
    """Where a USB DFU boot loader stores the image (USB DFU 1.1; `address` for the DfuSe form of ST, AN3156)."""

    alt: Byte = 0
    address: Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)] | None = None
    reset: bool = True
    """The boot loader starts the new firmware after a USB reset; otherwise by itself."""


class Firmware(Table, frozen=True, kw_only=True):
    """How the unit's firmware is read and changed. A version that is neither good nor bad is unknown.

    Of the methods the agent itself does xmodem, xmodem-1k, ymodem and usb-dfu; for the others a person comes.
    """

    method: Literal["none", "vendor-tool", "setup-code"] | FlashMethod = "none"
    version_query: HexText | None = None
    version_format: Literal["plain", "triplet", "pair", "number", "date"] = "plain"
    known_good: Annotated[tuple[Version, ...], Meta(max_length=64)] = ()
    known_bad: Annotated[tuple[KnownBad, ...], Meta(max_length=64)] = ()
    min_current_version: Version | None = None
    bootloader: UsbId | None = None
    """USB ids of the unit while its boot loader runs, where they change: the unit is then plugged in anew at the same USB port."""
    part_number: Version | None = None
    """What the unit must call itself, so that nothing is written into another one."""
    enter: Exchange | None = None
    """Makes the running firmware start its boot loader. Left out for usb-dfu: dfu-util detaches by the standard's own request."""
    identify: Exchange | None = None
    """How a serial boot loader shows that it is there: a banner or an answer, with a group `part` where it names the part number."""
    start: Exchange | None = None
    """What makes the boot loader wait for the file, where it does not wait from the beginning."""
    part: Exchange | None = None
    """Asks the running firmware for its part number (group `part`)."""
    version: Exchange | None = None
    """Asks the running firmware for its version (group `version`): before, and to read back afterwards."""
    line: SerialTransport | None = None
    """Line settings of the boot loader, where they differ from the transport's."""
    pad: Byte = 0x1A
    """Fills the last XMODEM block; YMODEM tells the true length."""
    dfu: DfuOptions | None = None
    install_duration_s: Annotated[int, Meta(ge=1, le=7200)] | None = None
    """The longest that transfer and storing may take."""
    replug_timeout_s: Annotated[int, Meta(ge=1, le=600)] | None = None
    """The longest until the unit is back: as its boot loader, and with its new firmware."""

    def __post_init__(self) -> None:
        both = set(self.known_good) & {bad.version for bad in self.known_bad}
        if both:
            raise ValueError(f"version {min(both)} is both good and bad")
        if self.method in FLASH_METHODS:
            self._check_flash()
        else:
            stray = [name for name in _OF_FLASHING if getattr(self, name) is not None]
            if stray:
                raise ValueError(f"{stray[0]} has no effect with method {self.method}")

    def verdict(self, version: str) -> Literal["good", "bad", "unknown"]:
        if any(bad.version == version for bad in self.known_bad):
            return "bad"
        return "good" if version in self.known_good else "unknown"

    @property
    def flashable(self) -> bool:
        """The agent can write it."""
        return self.method in FLASH_METHODS

    def _check_flash(self) -> None:
        needed: tuple[str, ...] = ("bootloader",) if self.method == "usb-dfu" else ("enter", "identify")
        needed += ("part_number", "version", "install_duration_s", "replug_timeout_s")
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(
                f"{self.method} needs {' and '.join((', '.join(missing[:-1]), missing[-1]) if missing[1:] else missing)}"
            )
        foreign = ("start", "identify", "line") if self.method == "usb-dfu" else ("dfu",)
        stray = [name for name in foreign if getattr(self, name) is not None]
        if stray:
            raise ValueError(f"{stray[0]} does not belong to method {self.method}")
        for name, group in (("version", "version"), ("part", "part")):
            exchange: Exchange | None = getattr(self, name)
            if exchange is not None and group not in exchange.groups():
                raise ValueError(f"{name}: the reply needs a group named {group}")
        if self.enter is not None and self.enter.send is None:
            raise ValueError("enter: needs send")
        names_part = self.part is not None or (self.identify is not None and "part" in self.identify.groups())
        if not names_part:
            raise ValueError("the part number is asked nowhere: part, or a group part in identify")


_OF_FLASHING = ("part_number", "enter", "identify", "start", "part", "version", "line", "dfu")
