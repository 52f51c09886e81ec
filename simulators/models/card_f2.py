"""Card reader or dispenser of the F2 protocol. Written from the tables of CRT-591-M001 communication protocol 1.0 and QU-TK-F3 protocol 1.03."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from simulators.models.base import UsbIdentity
from simulators.models.card_mechanism import (
    COMMON_ACTIONS,
    COMMON_FAULTS,
    FEED_S,
    LOW_BELOW,
    MOVE_S,
    STOCK_FAULTS,
    CardMechanism,
    ChipCard,
    Place,
)
from simulators.models.checksums import xor8

ACK, NAK, EOT = b"\x06", b"\x15", b"\x04"
MAX_FRAME_BYTES = 1024
EntryStyle = Literal["30-permits", "30-prohibits"]

JAM, SENSOR, TOO_LONG, POSITION, PULLED, SOLENOID, MOVED_BY_HAND = b"10", b"12", b"13", b"16", b"40", b"41", b"45"
MOTOR, NOT_ACTIVATED, NOT_ACTIVE, EMPTY, BIN_FULL, NOT_INITIALISED = b"51", b"61", b"65", b"A0", b"A1", b"B0"
BAD_COMMAND, BAD_PARAMETER = b"00", b"01"


class F2CardUnit(CardMechanism):
    """`stacker` None: a reader without one. `entry` is what command 33 30 means.

    `eject_goes_to_bin`: what command 32 39 did on one unit in the field.
    """

    kind: ClassVar[str] = "card-dispenser"
    profile: ClassVar[str | None] = "crt-591"
    own_faults: ClassVar[Mapping[str, str]] = {
        "jam": "a card is jammed in the path (error 10)",
        **STOCK_FAULTS,
        "bin-full": "the bin of captured cards is full; clearing it empties it",
        "motor": "the motor does not turn (error 51)",
        "sensor": "a light barrier is dead (error 12)",
        "shutter": "the shutter's magnet does not pull (error 41)",
        "double-card": "two cards stuck together came out of the stacker (error 13)",
        "power-cycled": "the unit lost power and was not initialised since (error B0); clearing it: the application resets it",
        "lost-ack": "frames are taken and not acknowledged",
        **COMMON_FAULTS,
    }
    own_actions: ClassVar[Mapping[str, str]] = COMMON_ACTIONS

    def __init__(
        self,
        *,
        baud: int = 9600,
        latency_s: float = 0.01,
        seed: int = 0,
        usb: UsbIdentity | None = None,
        address: int = 0,
        stacker: int | None = 150,
        stacker_capacity: int = 150,
        bin_capacity: int = 30,
        entry: EntryStyle = "30-permits",
        eject_goes_to_bin: bool = False,
        negative_head: bytes = b"N",
        firmware: str = "CRT-591-V1.00",
    ) -> None:
        super().__init__(
            latency_s=latency_s,
            baud=baud,
            seed=seed,
            usb=usb,
            stacker=stacker,
            stacker_capacity=stacker_capacity,
            bin_capacity=bin_capacity,
        )
        self.address = address
        self.entry_open = False
        self.initialised = True
        self.chip_active = False
        self._entry = entry
        self._eject_goes_to_bin = eject_goes_to_bin
        self._negative_head = negative_head
        self._firmware = firmware.encode("ascii")
        self._latched = b""
        self._last_result = b""

    def forget(self) -> None:
        super().forget()
        self.initialised = self.entry_open = self.chip_active = False
        self._latched = b""
        self._last_result = b""

    def initialise(self) -> None:
        self.initialised = True
        self._latched = b""
        self.entry_open = self.chip_active = False

    # ------------------------------------------------------------------ frames

    def _next(self, now: float) -> bool:
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != 0xF2:
            control = bytes(buffer[:1])
            del buffer[:1]
            if control == NAK and self._last_result and not self.is_moving:
                self._send(self._last_result, now)
            elif control == EOT:
                self.emit(EOT, now)
            return True
        if len(buffer) < 4:
            return False
        length = buffer[2] << 8 | buffer[3]
        if not 3 <= length <= MAX_FRAME_BYTES:
            del buffer[:1]
            return True
        size = length + 6
        if len(buffer) < size:
            return False
        frame = bytes(buffer[:size])
        if frame[-2] != 0x03 or xor8(frame[:-1]) != frame[-1]:
            del buffer[:1]
            if frame[-2] == 0x03:
                del buffer[: size - 1]
                self.emit(NAK, now)
            return True
        del buffer[:size]
        if frame[1] == self.address and frame[4] == 0x43 and not self.is_moving:
            self._command(frame[5:6], frame[6:7], frame[7:-2], now)
        return True

    def _command(self, group: bytes, parameter: bytes, data: bytes, now: float) -> None:
        if self.has("nak"):
            self.emit(NAK, now)
            return
        if not self.has("lost-ack"):
            self.emit(ACK, now)
        self._last_result = b""
        words = group + parameter
        if group == b"0":
            self._reset(words, now)
        elif not self.initialised:
            self._fail(words, NOT_INITIALISED, now)
        elif group == b"1":
            self._status(words, now)
        elif group == b"2":
            self._move(words, now)
        elif group == b"3":
            self._set_entry(words, now)
        elif group == b"Q":
            self._chip(words, data, now)
        elif words in (b"\xa20", b"\xa30", b"\xa40", b"\xa50"):
            text = {b"\xa20": b"000001", b"\xa30": b"RS00120100", b"\xa40": self._firmware, b"\xa50": b"%03d" % self.bin_cards}
            self._done(words, now, text[words])
        else:
            self._fail(words, BAD_COMMAND, now)

    # ------------------------------------------------------------------ commands

    def _reset(self, words: bytes, now: float) -> None:
        if words[1:] not in (b"0", b"1", b"3", b"4", b"5", b"7"):
            self._fail(words, BAD_PARAMETER, now)
            return

        def finish(at: float) -> None:
            self.initialise()
            if self._broken():
                self._fail(words, self._broken(), at)
                return
            if self.place != "none" and words[1:] in (b"0", b"4"):
                self.place = "gate"
            elif self.place != "none" and words[1:] in (b"1", b"5"):
                if self.is_bin_full:
                    self._fail(words, BIN_FULL, at)
                    return
                self.capture()
            self._done(words, at, self._firmware)

        self.run_motor(now, MOVE_S, finish)

    def _status(self, words: bytes, now: float) -> None:
        error = self._broken() or self._latched
        if words == b"10" and error:
            self._fail(words, error, now)
        elif words == b"10":
            self._done(words, now)
        elif words == b"11":
            barriers = {"none": b"00000000", "gate": b"11000000", "inside": b"00110000"}[self.place]
            self._done(words, now, barriers)
        else:
            self._fail(words, BAD_PARAMETER, now)

    def _broken(self) -> bytes:
        for fault, error in (
            ("jam", JAM),
            ("double-card", TOO_LONG),
            ("motor", MOTOR),
            ("sensor", SENSOR),
            ("shutter", SOLENOID),
        ):
            if self.has(fault):
                return error
        return b""

    def _move(self, words: bytes, now: float) -> None:
        target: Place | None = {b"20": "gate", b"21": "inside", b"22": "inside"}.get(words)  # type: ignore[assignment]
        if target is None and words not in (b"23", b"29"):
            self._fail(words, BAD_PARAMETER, now)
        elif self._broken():
            self._stall(words, self._broken(), now)
        elif target is not None and self.place == "none":
            self._feed(words, target, now)
        elif target is None and self.place == "none":
            self._fail(words, POSITION, now)
        elif words == b"23" and self.is_bin_full:
            self._fail(words, BIN_FULL, now)
        else:
            self.run_motor(now, MOVE_S, lambda at: self._arrive(words, target, at))

    def _stall(self, words: bytes, error: bytes, now: float) -> None:
        """The motor tries and gives up."""

        def finish(at: float) -> None:
            self._latched = error
            self._fail(words, error, at)

        self.run_motor(now, MOVE_S, finish)

    def _feed(self, words: bytes, target: Place, now: float) -> None:
        if not self.stacker:
            self._fail(words, EMPTY, now)
            return

        def finish(at: float) -> None:
            self.feed_to(target)
            self.card = ChipCard()
            self._done(words, at)

        self.run_motor(now, FEED_S, finish)

    def _arrive(self, words: bytes, target: Place | None, at: float) -> None:
        if self.pulled:
            self.put_out()
            self._latched = b""
            self._fail(words, PULLED if words == b"23" else MOVED_BY_HAND, at)
            return
        self.chip_active = False
        if target is not None:
            self.place = target
        elif words == b"23" or self._eject_goes_to_bin:
            self.capture()
        else:
            self.put_out()
        self._done(words, at)

    def _set_entry(self, words: bytes, now: float) -> None:
        permits = {"30-permits": {b"30": True, b"31": False}, "30-prohibits": {b"30": False, b"31": True, b"32": True}}
        wanted = permits[self._entry].get(words)
        if wanted is None:
            self._fail(words, BAD_PARAMETER, now)
            return
        self.entry_open = wanted
        self._done(words, now)

    def insert(self, card: ChipCard, now: float) -> None:
        """With the entry open the unit draws the card in to where it is read."""
        if not self.entry_open or self.place != "none" or self.is_moving or not self.initialised:
            return
        self.card = card
        self.place = "gate"

        def finish(at: float) -> None:
            if self.pulled:
                self.put_out()
            else:
                self.place = "inside"

        self.run_motor(now, MOVE_S, finish)

    def _chip(self, words: bytes, data: bytes, now: float) -> None:
        if words in (b"Q0", b"Q8"):
            self.chip_active = self.place == "inside"
            if self.chip_active:
                self._done(words, now, b"0" + self.card.answer_to_reset())
            else:
                self._fail(words, NOT_ACTIVATED, now)
        elif words == b"Q1":
            self.chip_active = False
            self._done(words, now)
        elif words == b"Q2":
            self._done(words, now, b"1" if self.chip_active else b"0")
        elif words in (b"Q3", b"Q4", b"Q9"):
            if self.chip_active and self.place == "inside":
                self._done(words, now, self.card.answer(data))
            else:
                self._fail(words, NOT_ACTIVE, now)
        else:
            self._fail(words, BAD_PARAMETER, now)

    # ------------------------------------------------------------------ results

    def _done(self, words: bytes, now: float, data: bytes = b"") -> None:
        card = {"none": b"0", "gate": b"1", "inside": b"2"}[self.place]
        stock = b"0" if not self.stacker else b"1" if self.stacker < LOW_BELOW else b"2"
        full = b"1" if self.is_bin_full else b"0"
        self._result(b"P" + words + card + stock + full + data, now)

    def _fail(self, words: bytes, error: bytes, now: float) -> None:
        self._result(self._negative_head + words + error, now)

    def _result(self, text: bytes, now: float) -> None:
        frame = bytes((0xF2, self.address)) + len(text).to_bytes(2, "big") + text + b"\x03"
        self._last_result = frame + bytes((xor8(frame),))
        self._send(self._last_result, now)

    def _send(self, frame: bytes, now: float) -> None:
        if not self.has("lost-answer"):
            self.emit(frame, now)


class F2CardReader(F2CardUnit):
    """The same mechanism without a stacker."""

    kind: ClassVar[str] = "card-reader"
    profile: ClassVar[str | None] = "crt-310-f2"
    own_faults: ClassVar[Mapping[str, str]] = {
        name: text for name, text in F2CardUnit.own_faults.items() if name not in (*STOCK_FAULTS, "double-card", "bin-full")
    }

    def __init__(self, *, baud: int = 9600, latency_s: float = 0.01, seed: int = 0, firmware: str = "CRT-310-V2.00") -> None:
        super().__init__(baud=baud, latency_s=latency_s, seed=seed, stacker=None, firmware=firmware, entry="30-prohibits")
