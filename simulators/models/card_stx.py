"""Card reader of the older CREATOR protocol (CRT-310 before F2). Written from the tables that public drivers of it carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.card_mechanism import COMMON_ACTIONS, COMMON_FAULTS, MOVE_S, CardMechanism, ChipCard, Place
from simulators.models.checksums import xor8

ACK, NAK, ENQ, EOT = 0x06, 0x15, 0x05, 0x04
TOO_LONG, TOO_SHORT, FRONT_HELD, CONTACTS, NONE = b"\x46", b"\x47", b"\x49", b"\x4b", b"\x4e"
BAD_COMMAND, BAD_PARAMETER, VOLTAGE, ABNORMAL, BACKUP = 0, 1, 5, 6, 7


class StxCardReader(CardMechanism):
    """Motor reader: cards enter at the front, leave at the front or, captured, at the rear."""

    kind: ClassVar[str] = "card-reader"
    profile: ClassVar[str | None] = "crt-310-old"
    own_faults: ClassVar[Mapping[str, str]] = {
        "short-card": "a short or abnormal card is stuck inside (position 47)",
        "long-card": "two cards, or one too long, are stuck inside (position 46)",
        "abnormal-card": "the reader refuses everything for an abnormal card (error 06)",
        "voltage": "the supply voltage is out of range (error 05)",
        "backup-power": "main power is lost, the backup runs (error 07)",
        "lost-ack": "frames are taken and not acknowledged, so nothing is carried out",
        **COMMON_FAULTS,
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        name: text for name, text in COMMON_ACTIONS.items() if name in ("insert-card", "take-card")
    }

    def __init__(self, *, baud: int = 9600, latency_s: float = 0.01, seed: int = 0, firmware: str = "CRT-310-V1.30") -> None:
        super().__init__(latency_s=latency_s, baud=baud, seed=seed, stacker=None, stacker_capacity=0, bin_capacity=1_000_000)
        self._firmware = firmware.encode("ascii")
        self._pending = b""
        self._last_result = b""

    def forget(self) -> None:
        super().forget()
        self._pending = b""
        self._last_result = b""

    def insert(self, card: ChipCard, now: float) -> None:
        """Entry is always open at the front: the card is drawn in."""
        if self.place != "none" or self.is_moving:
            return
        self.card = card
        self.place = "gate"
        self.run_motor(now, MOVE_S, lambda at: self._stop_at("inside"))

    # ------------------------------------------------------------------ frames

    def _next(self, now: float) -> bool:
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != 0x02:
            self._control(buffer.pop(0), now)
            return True
        if len(buffer) < 3:
            return False
        size = (buffer[1] << 8 | buffer[2]) + 5
        if not 7 <= size <= 519:
            del buffer[:1]
            return True
        if len(buffer) < size:
            return False
        frame = bytes(buffer[:size])
        sound = frame[-2] == 0x03 and xor8(frame[:-1]) == frame[-1]
        del buffer[: size if frame[-2] == 0x03 else 1]
        if self.is_moving:
            return True
        if not sound or self.has("nak"):
            self._byte(NAK, now)
        else:
            self._pending = frame[3:-2]
            if not self.has("lost-ack"):
                self._byte(ACK, now)
        return True

    def _control(self, byte: int, now: float) -> None:
        if byte == ENQ and self._pending and not self.is_moving:
            command, self._pending = self._pending, b""
            self._last_result = b""
            self._run(command[:2], now)
        elif byte == NAK and self._last_result and not self.is_moving:
            self._send(self._last_result, now)
        elif byte == EOT:
            self._pending = b""

    def _run(self, words: bytes, now: float) -> None:
        error = {"voltage": VOLTAGE, "backup-power": BACKUP, "abnormal-card": ABNORMAL}
        found = next((code for fault, code in error.items() if self.has(fault)), None)
        if found is not None:
            self._fail(words, found, now)
        elif words[:1] == b"0" and words[1:] in (b"0", b"1", b"2"):
            self.run_motor(now, MOVE_S, lambda at: self._reset(words, at))
        elif words == b"10":
            self._result(words + self._position() + b"\x49\x4a", now)
        elif words == b"1/":
            barriers = {"none": b"00000", "gate": b"10000", "inside": b"01110"}[self.place]
            self._result(words + barriers + b"00", now)
        elif words[:1] == b"2":
            self._move(words, now)
        else:
            self._fail(words, BAD_PARAMETER if words[:1] in (b"0", b"1") else BAD_COMMAND, now)

    def _position(self) -> bytes:
        if self.has("short-card"):
            return TOO_SHORT
        if self.has("long-card"):
            return TOO_LONG
        return {"none": NONE, "gate": FRONT_HELD, "inside": CONTACTS}[self.place]

    def _reset(self, words: bytes, at: float) -> None:
        if self.place != "none" and words == b"01":
            self.place = "gate"
        elif self.place != "none" and words == b"02":
            self.capture()
        self._result(words + self._firmware, at)

    def _move(self, words: bytes, now: float) -> None:
        if words[1:] not in (b"0", b"/", b".", b"1", b"2", b"3", b"4"):
            self._fail(words, BAD_PARAMETER, now)
        elif self.place == "none":
            self._result(words + b"E", now)
        else:
            self.run_motor(now, MOVE_S, lambda at: self._arrive(words, at))

    def _arrive(self, words: bytes, at: float) -> None:
        if self.has("short-card") or self.has("long-card"):
            self._result(words + b"N", at)
        elif self.pulled:
            self.put_out()
            self._result(words + b"N", at)
        else:
            if words in (b"20", b"24"):
                self.put_out()
            elif words == b"23":
                self.capture()
            else:
                self._stop_at("gate" if words == b"21" else "inside")
            self._result(words + b"Y", at)

    def _stop_at(self, place: Place) -> None:
        if self.pulled:
            self.put_out()
        else:
            self.place = place

    # ------------------------------------------------------------------ results

    def _fail(self, words: bytes, error: int, now: float) -> None:
        self._result(b"\x4e" + words[:1] + bytes((error,)), now)

    def _result(self, text: bytes, now: float) -> None:
        frame = b"\x02" + len(text).to_bytes(2, "big") + text + b"\x03"
        self._last_result = frame + bytes((xor8(frame),))
        self._send(self._last_result, now)

    def _send(self, frame: bytes, now: float) -> None:
        if not self.has("lost-answer"):
            self.emit(frame, now)

    def _byte(self, byte: int, now: float) -> None:
        self.emit(bytes((byte,)), now)
