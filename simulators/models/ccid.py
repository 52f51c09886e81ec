"""USB smart-card reader (CCID, revision 1.1), contact or contactless, with a synthetic card.

Written from the class specification: messages on the bulk pipes, notices on the interrupt pipe, the class descriptor. The card's content is marked,
so that a test can search for it everywhere it must not be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from simulators.models.base import Endpoint, Model, UsbIdentity

Level = Literal["apdu", "extended", "tpdu"]

BULK_OUT, BULK_IN, INTERRUPT_IN = 0x01, 0x82, 0x83
HEADER_BYTES = 10
MAX_MESSAGE_BYTES = 271
MAX_EXTENDED_BYTES = 65_544 + HEADER_BYTES
MUTE, HARDWARE, SLOT_BUSY, BAD_COMMAND, BAD_SLOT, BAD_LENGTH = 0xFE, 0xFB, 0xE0, 0x00, 5, 1
POWER_S, EXCHANGE_S, STATUS_S, MUTE_S = 0.04, 0.02, 0.002, 0.6
EXTENSION_S = 0.3
"""A card that works long: the reader asks for more time so often."""
EXTENSIONS = 3
FLUTTER_S = 1.5
_LEVEL_BITS: Mapping[Level, int] = {"tpdu": 0x00010000, "apdu": 0x00020000, "extended": 0x00040000}


def class_descriptor(*, slots: int = 1, level: Level = "apdu", protocols: int = 3) -> bytes:
    """54 bytes (table 5.1-1): version 1.1, all voltages, automatic parameters."""
    longest = MAX_EXTENDED_BYTES if level == "extended" else MAX_MESSAGE_BYTES
    parts = (
        (0x36, 1), (0x21, 1), (0x0110, 2), (slots - 1, 1), (7, 1), (protocols, 4), (4000, 4), (4000, 4), (0, 1), (10753, 4), (344_086, 4), (0, 1),
        (254, 4), (0, 4), (0, 4), (0x000000BA | _LEVEL_BITS[level], 4), (longest, 4), (0xFF, 1), (0xFF, 1), (0, 2), (0, 1), (1, 1),
    )  # fmt: skip
    return b"".join(value.to_bytes(size, "little") for value, size in parts)


def _identity(vid: int, pid: int, maker: str, product: str, *, level: Level, slots: int = 1, notices: bool = True) -> UsbIdentity:
    pipes = (Endpoint(BULK_OUT), Endpoint(BULK_IN))
    return UsbIdentity(
        vid,
        pid,
        (Endpoint(INTERRUPT_IN, 8, transfer=3), *pipes) if notices else pipes,
        interface_class=0x0B,
        manufacturer=maker,
        product=product,
        class_descriptors=(class_descriptor(slots=slots, level=level),),
    )


USB_R502 = _identity(0x096E, 0x060D, "Feitian", "R502 Contactless Reader", level="extended")
USB_ACR39U = _identity(0x072F, 0xB100, "ACS", "ACR39U ICC Reader", level="tpdu")
USB_ACR122U = replace(_identity(0x072F, 0x2200, "ACS", "ACR122U PICC Interface", level="apdu"), kernel_driver="pn533_usb")
"""The kernel's NFC driver takes it at plug-in."""
USB_AU9540 = _identity(0x058F, 0x9540, "Generic", "EMV Smartcard Reader", level="tpdu")
USB_TWO_SLOTS = _identity(0x163C, 0x0A03, "Watchdata", "USB CCID Reader", level="apdu", slots=2)
USB_NO_NOTICES = _identity(0x04E6, 0x5116, "SCM", "SCR3310", level="tpdu", notices=False)


@dataclass(frozen=True)
class SyntheticChip:
    """A chip that belongs to nobody. `marker` stands in its answer to reset and in its file."""

    marker: str = field(default="TESTMARK", repr=False)

    @property
    def atr(self) -> bytes:
        """T=0 with the marker as historical bytes."""
        history = self.marker.encode("ascii", "replace")[:15]
        return bytes((0x3B, 0x60 | len(history), 0x00, 0x00)) + history

    @property
    def uid(self) -> bytes:
        return self.marker.encode("ascii", "replace")[:4].ljust(4, b"\x00")

    def answer(self, apdu: bytes, *, contactless: bool) -> bytes:
        """Response with its status words."""
        if len(apdu) < 4:
            return b"\x67\x00"
        if apdu[:4] == b"\xff\xca\x00\x00":
            return self.uid + b"\x90\x00" if contactless else b"\x6a\x81"
        if apdu[1] == 0xA4:
            return b"\x90\x00"
        if apdu[1] == 0xB0:
            return self.marker.encode("ascii", "replace") * 4 + b"\x90\x00"
        return b"\x6d\x00"


class CcidReader(Model):
    """A reader with one slot for cards, and one for a security module where its descriptor says two."""

    kind: ClassVar[str] = "card-reader"
    own_faults: ClassVar[Mapping[str, str]] = {
        "card-mute": "a card in the slot does not answer (dirty contacts, upside down)",
        "card-stuck": "a card lies in the slot and does not come out",
        "hardware-error": "the reader switched the slot off to protect itself (over-current)",
        "hang": "the firmware hangs: descriptors are readable, questions go unanswered until a reset",
        "dead-firmware": "the firmware hangs and a reset does not help",
        "usb-halt": "the endpoints stall until the host clears the halt",
        "slow-card": "the card asks for more time again and again",
        "antenna": "the antenna is broken: no card is ever found",
        "contact-flutter": "a card makes and breaks contact without end",
        "module-missing": "the security module is not in its slot",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "insert-card": "put a synthetic card into the slot or on the reader",
        "remove-card": "take the card out",
    }

    def __init__(
        self, *, usb: UsbIdentity = USB_R502, contactless: bool = True, latency_s: float = STATUS_S, seed: int = 0
    ) -> None:
        super().__init__(latency_s=latency_s, usb=usb, seed=seed)
        raw = usb.class_descriptors[0]
        self.slots = raw[4] + 1
        self.level: Level = next(level for level, bit in _LEVEL_BITS.items() if int.from_bytes(raw[40:44], "little") & bit)
        self.contactless = contactless
        self.chip: SyntheticChip | None = None
        self.powered = [False] * self.slots
        self.exchanges = 0
        self._buffer = bytearray()
        self._hung = False
        self._flutter_at: float | None = None
        self._flutter_on = False
        self._waiting = b""

    # ------------------------------------------------------------------ people and faults

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "insert-card":
            self.insert(SyntheticChip(args[0] if args else "TESTMARK"), now)
        elif name == "remove-card" and not self.has("card-stuck"):
            self.remove(now)

    def insert(self, chip: SyntheticChip, now: float) -> None:
        self.chip = chip
        self.powered[0] = False
        self._notify_slots(now)

    def remove(self, now: float) -> None:
        self.chip = None
        self.powered[0] = False
        self._notify_slots(now)

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "card-stuck":
            self.insert(SyntheticChip(), now) if active else self.remove(now)
        elif name in ("antenna", "module-missing"):
            self._notify_slots(now)
        elif name == "hardware-error" and active:
            self.powered = [False] * self.slots
            self._notice(bytes((0x51, 0x00, 0x00, 0x01)), now)
        elif name in ("hang", "dead-firmware"):
            self._hung = active
        elif name == "usb-halt":
            self.halted = active
        elif name == "contact-flutter":
            self._flutter_at = now if active else None
            self._flutter_on = False
            self._notify_slots(now)

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()
        self._waiting = b""
        self.powered = [False] * self.slots
        self._hung = self.has("dead-firmware")

    def mechanism_due(self) -> float | None:
        return self._flutter_at

    def run_mechanism(self, now: float) -> None:
        if self._flutter_at is not None:
            self._flutter_at = now + FLUTTER_S
            self._flutter_on = not self._flutter_on
            self._notify_slots(now)

    # ------------------------------------------------------------------ what the host sees

    def present(self, slot: int) -> bool:
        if slot > 0:
            return not self.has("module-missing")
        if self.has("contact-flutter"):
            return self._flutter_on
        return self.chip is not None and not self.has("antenna")

    def on_control(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, now: float
    ) -> bytes | None:
        if (request_type, request) == (0x21, 0x01):
            return b""
        if (request_type, request) == (0xA1, 0x02):
            return (4000).to_bytes(4, "little")[:length]
        if (request_type, request) == (0xA1, 0x03):
            return (10753).to_bytes(4, "little")[:length]
        return None

    def on_endpoint(self, endpoint: int, data: bytes, now: float) -> None:
        if endpoint != BULK_OUT or self._hung:
            return
        self._buffer += data
        while len(self._buffer) >= HEADER_BYTES:
            length = int.from_bytes(self._buffer[1:5], "little")
            if length > MAX_EXTENDED_BYTES:
                self._buffer.clear()
                return
            if len(self._buffer) < HEADER_BYTES + length:
                return
            message = bytes(self._buffer[: HEADER_BYTES + length])
            del self._buffer[: HEADER_BYTES + length]
            self._run(message, now)

    def _run(self, message: bytes, now: float) -> None:
        kind, slot, sequence, data = message[0], message[5], message[6], message[HEADER_BYTES:]
        if slot >= self.slots:
            self._fail(0x81, slot, sequence, BAD_SLOT, now)
        elif self.has("hardware-error") and kind != 0x63:
            self._fail(0x80 if kind in (0x62, 0x6F) else 0x81, slot, sequence, HARDWARE, now)
        elif kind in (0x65, 0x72):
            self._say(0x81, slot, sequence, b"", now)
        elif kind == 0x63:
            self.powered[slot] = False
            self._say(0x81, slot, sequence, b"", now)
        elif kind == 0x62:
            self._power_on(slot, sequence, now)
        elif kind == 0x6F:
            self._exchange(slot, sequence, data, now)
        elif kind in (0x6C, 0x61, 0x6D):
            parameters = data[:5] if kind == 0x61 and len(data) >= 5 else bytes((0x11, 0x00, 0x00, 0x0A, 0x00))
            self._say(0x82, slot, sequence, parameters, now)
        else:
            self._fail(0x81, slot, sequence, BAD_COMMAND, now)

    def _power_on(self, slot: int, sequence: int, now: float) -> None:
        if not self.present(slot) or self.has("card-mute"):
            self._fail(0x80, slot, sequence, MUTE, now, delay_s=MUTE_S if self.present(slot) else STATUS_S)
            return
        self.powered[slot] = True
        self._waiting = b""
        self._say(0x80, slot, sequence, (self.chip or SyntheticChip("MODULE")).atr, now, delay_s=POWER_S)

    def _exchange(self, slot: int, sequence: int, data: bytes, now: float) -> None:
        self.exchanges += 1
        if not self.present(slot) or not self.powered[slot] or self.has("card-mute"):
            self._fail(0x80, slot, sequence, MUTE, now, delay_s=MUTE_S if self.has("card-mute") else STATUS_S)
            return
        delay_s = EXCHANGE_S
        if self.has("slow-card"):
            for _ in range(EXTENSIONS):
                self._message(0x80, slot, sequence, 0x80, 0x02, b"", now, delay_s)
                delay_s += EXTENSION_S
        self._say(0x80, slot, sequence, self._respond(data), now, delay_s=delay_s)

    def _respond(self, data: bytes) -> bytes:
        chip = self.chip or SyntheticChip("MODULE")
        if self.level != "tpdu":
            return chip.answer(data, contactless=self.contactless)
        if len(data) >= 5 and data[1] == 0xC0:  # GET RESPONSE of T=0
            part, self._waiting = self._waiting[: data[4] or 256], self._waiting[data[4] or 256 :]
            return part + (bytes((0x61, min(255, len(self._waiting)))) if self._waiting else b"\x90\x00")
        answer = chip.answer(data, contactless=self.contactless)
        body, words = answer[:-2], answer[-2:]
        if not body:
            return words
        if len(data) > 5:  # sent data: the response waits to be fetched
            self._waiting = body
            return bytes((0x61, len(body)))
        wanted = data[4] if len(data) == 5 else 0
        return body[: wanted or 256] + words if wanted in (0, len(body)) or wanted < len(body) else bytes((0x6C, len(body)))

    # ------------------------------------------------------------------ messages

    def _status(self, slot: int) -> int:
        return 2 if not self.present(slot) else 0 if self.powered[slot] else 1

    def _say(self, kind: int, slot: int, sequence: int, data: bytes, now: float, *, delay_s: float | None = None) -> None:
        self._message(kind, slot, sequence, self._status(slot), 0, data, now, delay_s)

    def _fail(self, kind: int, slot: int, sequence: int, error: int, now: float, *, delay_s: float | None = None) -> None:
        icc = 2 if slot >= self.slots else self._status(slot)
        self._message(kind, slot, sequence, 0x40 | icc, error, b"", now, delay_s)

    def _message(
        self, kind: int, slot: int, sequence: int, status: int, error: int, data: bytes, now: float, delay_s: float | None
    ) -> None:
        header = bytes((kind,)) + len(data).to_bytes(4, "little") + bytes((slot, sequence, status, error, 0))
        self.emit(header + data, now, delay_s=delay_s, endpoint=BULK_IN)

    def _notify_slots(self, now: float) -> None:
        bits = 0
        for slot in range(self.slots):
            bits |= (int(self.present(slot)) | (2 if slot == 0 else 0)) << 2 * slot
        self._notice(bytes((0x50, bits)), now)

    def _notice(self, packet: bytes, now: float) -> None:
        if self.usb is not None and INTERRUPT_IN in self.usb.endpoints_in and not self._hung:
            self.emit(packet, now, delay_s=0.0, endpoint=INTERRUPT_IN)
