"""Resident-ID reader with an SDT module (GA/T 467), on a serial line or on USB in both transfer forms seen in the field.

Written from the module vendors' command tables. A card can be laid on the reader; its content is synthetic and marked, so that a test can search
for it everywhere it must not be. Order is mandatory (search, select, read), and after a good read the card must leave the field before it is
found again, as with the real module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from simulators.errors import unknown
from simulators.models.base import Endpoint, Model, UsbIdentity
from simulators.models.checksums import xor8

PREAMBLE = b"\xaa\xaa\xaa\x96\x69"
HEADER_BYTES = 7
MAX_FRAME_BYTES = 256
PACKET_BYTES, PACKET_S = 64, 0.0005
FRAME_TIMEOUT_S = 2.0
"""A frame that is not finished after this time is forgotten."""

OK, FOUND, NO_CARD, SELECT_FAILED = 0x90, 0x9F, 0x80, 0x81
BAD_CHECKSUM, BAD_LENGTH, BAD_COMMAND = 0x10, 0x11, 0x21
READ_FAILED, NO_ITEM, SELF_TEST_FAILED, NOT_AUTHORISED, UNKNOWN_CARD = 0x41, 0x91, 0x60, 0x66, 0x40

BAUD_BY_PARAMETER: Mapping[int, int] = {0: 115200, 1: 57600, 2: 38400, 3: 19200, 4: 9600}
SEARCH_S, SELECT_S, READ_S = 0.08, 0.06, 0.7

SAM_NUMBER = bytes.fromhex("05000100250233014e61bc00b17f3905")
"""Module number of the synthetic example `05.01-20120101-0012345678-0087654321`: two u16, then three u32, little-endian."""

USB_SPLIT = UsbIdentity(
    0x0400,
    0xC35A,
    (Endpoint(0x02), Endpoint(0x81), Endpoint(0x06), Endpoint(0x85)),
    manufacturer="SDT",
    product="USB Second ID Reader",
)
"""Header on 02/81, body on 06/85."""
USB_WHOLE = UsbIdentity(0x0400, 0xC35A, (Endpoint(0x02), Endpoint(0x81)), manufacturer="SDT", product="USB Second ID Reader")
"""Whole frames on one bulk pair, in packets of 64 bytes."""
USB_WHOLE_AND_INTERRUPT = UsbIdentity(
    0x0400,
    0xC35A,
    (Endpoint(0x03, 8, transfer=3), Endpoint(0x83, 8, transfer=3), Endpoint(0x02), Endpoint(0x81)),
    manufacturer="SDT",
    product="USB Second ID Reader",
)
"""As before, beside a pair of interrupt pipes that nobody uses: four pipes, and yet whole frames."""


Form = Literal["citizen", "permit", "foreigner"]
"""Resident's card; permit of a resident of Hong Kong, Macau or Taiwan (type mark J); permanent residence card of a foreigner (I)."""


@dataclass(frozen=True)
class SyntheticCard:
    """A card that belongs to nobody. `marker` stands in every text field and must never be found outside the reader."""

    marker: str = "TESTMARK"
    item_number: bytes = field(default=b"\x00" * 4, repr=False)
    card_serial: bytes = field(default=b"\x00" * 8, repr=False)
    has_fingerprint: bool = False
    form: Form = "citizen"

    def text_block(self) -> bytes:
        """The 256-byte text area: UTF-16LE, fixed fields, padded with spaces."""
        if self.form == "permit":
            fields: tuple[tuple[str, int], ...] = (
                (self.marker, 15), ("9", 1), ("", 2), ("19000101", 8), (f"地址{self.marker}", 35), (f"81{self.marker}".ljust(18, "0"), 18),
                (f"机关{self.marker}", 15), ("20000101", 8), ("20100101", 8), ("H00000000", 9), ("01", 2), ("", 3), ("J", 1), ("", 3),
            )  # fmt: skip
        elif self.form == "foreigner":
            fields = (
                (f"{self.marker}, TEST", 60), ("9", 1), (f"ZZZ{self.marker}"[:15], 15), ("ZZZ", 3), (self.marker, 15), ("20000101", 8),
                ("20100101", 8), ("19000101", 8), ("01", 2), ("0000", 4), ("I", 1), ("", 3),
            )  # fmt: skip
        else:
            fields = self._citizen()
        return "".join(text[:width].ljust(width) for text, width in fields).encode("utf-16-le")

    def _citizen(self) -> tuple[tuple[str, int], ...]:
        return (
            (self.marker, 15), ("9", 1), ("97", 2), ("19000101", 8), (f"地址{self.marker}", 35), (f"00{self.marker}".ljust(18, "0"), 18),
            (f"机关{self.marker}", 15), ("20000101", 8), ("长期", 8), ("", 18),
        )  # fmt: skip

    def photo(self) -> bytes:
        return (self.marker.encode("ascii", "replace") * 1024)[:1024]

    def fingerprint(self) -> bytes:
        return (b"FP" + self.marker.encode("ascii", "replace")).ljust(1024, b"\x00")[:1024]


_FORMS: Mapping[str, Form] = {"citizen": "citizen", "permit": "permit", "foreigner": "foreigner"}


class SdtReader(Model):
    """ID reader. `usb` decides the transfer form: four endpoints split frames, two carry them whole, None is a serial line."""

    kind: ClassVar[str] = "id-reader"
    own_faults: ClassVar[Mapping[str, str]] = {
        "sam-failure": "the security module fails its self-test (status 60 on every command)",
        "sam-unlicensed": "the security module is not authorised (status 66 on every command)",
        "sam-dead": "the security module has no power: no answer, USB still there",
        "antenna": "no card is ever found although the module is well",
        "select-failed": "cards are found, selecting fails (status 81)",
        "read-failed": "cards are selected, reading fails (status 41)",
        "old-sam": "newer documents are not recognised (status 40)",
        "line-noise": "the module sees spoiled frames (status 10)",
        "wrong-baud": "somebody set the module to 9600 baud",
        "usb-halt": "the endpoints stall until the host clears the halt",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "place-card": "lay a synthetic card on the reader (its marker, then citizen, permit or foreigner)",
        "remove-card": "take the card away",
    }

    def __init__(
        self,
        *,
        usb: UsbIdentity | None = None,
        baud: int = 115200,
        latency_s: float = 0.004,
        seed: int = 0,
        sam_number: bytes = SAM_NUMBER,
    ) -> None:
        super().__init__(latency_s=latency_s, baud=None if usb else baud, usb=usb, seed=seed)
        self.card: SyntheticCard | None = None
        self.reads = 0
        self._sam_number = sam_number
        self._buffer = bytearray()
        self._last_byte_at = 0.0
        self._stage = "idle"

    # ------------------------------------------------------------------ host side

    @property
    def split(self) -> bool:
        return self.usb is not None and len(self.usb.bulk_in) >= 2

    def on_bytes(self, data: bytes, now: float) -> None:
        if now - self._last_byte_at > FRAME_TIMEOUT_S:
            self._buffer.clear()
        self._last_byte_at = now
        self._buffer += data
        while self._next_frame(now):
            pass

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()
        self._stage = "idle"

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "wrong-baud" and self.usb is None:
            self.baud = 9600 if active else 115200
        elif name == "usb-halt":
            self.halted = active

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "place-card":
            form = _FORMS.get(args[1] if len(args) > 1 else "citizen")
            if form is None:
                raise unknown("kind of card", args[1], list(_FORMS))
            self.place_card(SyntheticCard(args[0] if args else "TESTMARK", form=form))
        elif name == "remove-card":
            self.remove_card()

    def place_card(self, card: SyntheticCard) -> None:
        self.card = card
        self._stage = "idle"

    def remove_card(self) -> None:
        self.card = None
        self._stage = "idle"

    # ------------------------------------------------------------------ frames

    def _next_frame(self, now: float) -> bool:
        start = self._buffer.find(b"\xaa\x96\x69")
        if start < 0:
            del self._buffer[: max(0, len(self._buffer) - 4)]
            return False
        if len(self._buffer) < start + 5:
            return False
        length = int.from_bytes(self._buffer[start + 3 : start + 5], "big")
        if length < 3 or length > MAX_FRAME_BYTES:
            del self._buffer[: start + 5]
            self._answer(BAD_LENGTH, b"", now)
            return True
        end = start + 5 + length
        if len(self._buffer) < end:
            return False
        frame = bytes(self._buffer[start + 3 : end])
        del self._buffer[:end]
        if xor8(frame[:-1]) != frame[-1] or self.has("line-noise"):
            self._answer(BAD_CHECKSUM, b"", now)
        else:
            self._run(frame[2], frame[3], frame[4:-1], now)
        return True

    def _run(self, command: int, parameter: int, data: bytes, now: float) -> None:
        if self.has("sam-dead"):
            return
        broken = SELF_TEST_FAILED if self.has("sam-failure") else NOT_AUTHORISED if self.has("sam-unlicensed") else None
        if broken is not None:
            self._answer(broken, b"", now)
        elif (command, parameter) == (0x10, 0xFF):
            self._stage = "idle"
            self._answer(OK, b"", now)
        elif (command, parameter) == (0x11, 0xFF):
            self._answer(OK, b"", now)
        elif (command, parameter) == (0x12, 0xFF):
            self._answer(OK, self._sam_number, now)
        elif (command, parameter) == (0x20, 0x01):
            self._search(now)
        elif (command, parameter) == (0x20, 0x02):
            self._select(now)
        elif command == 0x30 and parameter in (0x01, 0x10, 0x03, 0x05):
            self._read(parameter, now)
        elif command == 0x60 and parameter in BAUD_BY_PARAMETER:
            self._set_speed(parameter, now)
        elif (command, parameter) == (0x61, 0xFF) and len(data) == 1:
            self._answer(OK, b"", now)
        else:
            self._answer(BAD_COMMAND, b"", now)

    def _search(self, now: float) -> None:
        card = self.card
        if card is None or self._stage == "read" or self.has("antenna"):
            self._answer(NO_CARD, b"", now, delay_s=SEARCH_S)
            return
        self._stage = "found"
        self._answer(FOUND, card.item_number, now, delay_s=SEARCH_S)

    def _select(self, now: float) -> None:
        card = self.card
        if card is None or self._stage not in ("found", "selected") or self.has("select-failed"):
            self._answer(SELECT_FAILED, b"", now, delay_s=SELECT_S)
            return
        self._stage = "selected"
        self._answer(OK, card.card_serial, now, delay_s=SELECT_S)

    def _read(self, parameter: int, now: float) -> None:
        card = self.card
        if card is None or self._stage != "selected" or self.has("read-failed"):
            self._answer(READ_FAILED, b"", now, delay_s=READ_S / 2)
        elif self.has("old-sam"):
            self._answer(UNKNOWN_CARD, b"", now, delay_s=READ_S / 2)
        elif parameter == 0x03:
            self._answer(NO_ITEM, b"", now, delay_s=READ_S / 4)
        elif parameter == 0x05:
            self._answer(OK, card.item_number + card.card_serial + b"\x00" * 16, now, delay_s=READ_S / 4)
        else:
            self._stage = "read"
            self.reads += 1
            self._answer(OK, _content(card, with_fingerprint=parameter == 0x10), now, delay_s=READ_S)

    def _emit_whole(self, frame: bytes, now: float, delay_s: float | None) -> None:
        """A line paces its bytes; a bulk pipe delivers packets, a little apart, so that a long answer takes many reads."""
        if self.usb is None:
            self.emit(frame, now, delay_s=delay_s)
            return
        due_s = self.latency_s if delay_s is None else delay_s
        for number, packet in enumerate(_packets(frame)):
            self.emit(packet, now, delay_s=due_s + number * PACKET_S, endpoint=self.usb.bulk_in[0])

    def _set_speed(self, parameter: int, now: float) -> None:
        """The answer still comes at the old speed."""
        self._answer(OK, b"", now)
        if self.usb is None:
            self.baud = BAUD_BY_PARAMETER[parameter]

    def _answer(self, status: int, data: bytes, now: float, *, delay_s: float | None = None) -> None:
        body = b"\x00\x00" + bytes((status,)) + data
        length = (len(body) + 1).to_bytes(2, "big")
        check = bytes((xor8(length + body),))
        if not self.split or self.usb is None:
            self._emit_whole(PREAMBLE + length + body + check, now, delay_s)
            return
        header_in, body_in = self.usb.endpoints_in[:2]
        self.emit(PREAMBLE + length, now, delay_s=delay_s, endpoint=header_in)
        self.emit(body + check, now, delay_s=delay_s, endpoint=body_in)


def _packets(data: bytes) -> list[bytes]:
    return [data[at : at + PACKET_BYTES] for at in range(0, len(data), PACKET_BYTES)]


def _content(card: SyntheticCard, *, with_fingerprint: bool) -> bytes:
    """Lengths, then text and photo, then (command 30 10) fingerprint: 1295, 1297 or 2321 bytes as a whole frame."""
    text, photo = card.text_block(), card.photo()
    lengths = len(text).to_bytes(2, "big") + len(photo).to_bytes(2, "big")
    if not with_fingerprint:
        return lengths + text + photo
    fingerprint = card.fingerprint() if card.has_fingerprint else b""
    return lengths + len(fingerprint).to_bytes(2, "big") + text + photo + fingerprint
