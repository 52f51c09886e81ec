"""Card dispenser with two-letter commands, with and without an address. Written from QU-CD-720M/820M manual 3.19 and CRT-541 specification 1.0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from simulators.models.card_mechanism import (
    COMMON_ACTIONS,
    COMMON_FAULTS,
    FEED_S,
    LOW_BELOW,
    MOVE_S,
    STOCK_FAULTS,
    CardMechanism,
)
from simulators.models.checksums import xor8

ACK, NAK, ENQ = b"\x06", b"\x15", b"\x05"


class _Dispenser(CardMechanism):
    kind: ClassVar[str] = "card-dispenser"

    def _send(self, text: bytes, now: float) -> None:
        if not self.has("lost-answer"):
            frame = b"\x02" + text + b"\x03"
            self.emit(frame + bytes((xor8(frame),)), now)

    @property
    def _is_low(self) -> bool:
        return bool(self.stacker) and (self.stacker or 0) < LOW_BELOW


class D1801Dispenser(_Dispenser):
    """The simple form: a command waits for ENQ, then the board acts; RF and PB tell how it is."""

    profile: ClassVar[str | None] = "qu-cd-720m"

    own_faults: ClassVar[Mapping[str, str]] = {
        "dispense-failed": "the last card could not be dispensed (state 200)",
        "jam": "a card is jammed (state 020)",
        "bin-full": "the bin of captured cards is full (state 100); clearing it empties it",
        **STOCK_FAULTS,
        "not-ready": "the board is not ready (state 001)",
        "lost-ack": "frames are taken and not acknowledged, so nothing is carried out",
        **COMMON_FAULTS,
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        name: text for name, text in COMMON_ACTIONS.items() if name in ("take-card", "refill", "empty-bin")
    }

    def __init__(
        self,
        *,
        baud: int = 9600,
        latency_s: float = 0.01,
        seed: int = 0,
        stacker: int = 200,
        stacker_capacity: int = 200,
        bin_capacity: int = 20,
        version: bytes = b"319",
    ) -> None:
        super().__init__(
            baud=baud,
            latency_s=latency_s,
            seed=seed,
            stacker=stacker,
            stacker_capacity=stacker_capacity,
            bin_capacity=bin_capacity,
        )
        self._version = version
        self._pending = b""
        self._doing = b""
        self._was_taken = self._was_captured = False

    def forget(self) -> None:
        super().forget()
        self._pending = self._doing = b""
        self._was_taken = self._was_captured = False

    def put_out(self) -> None:
        super().put_out()
        self._was_taken = True

    def _next(self, now: float) -> bool:
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != 0x02:
            byte = buffer.pop(0)
            if byte == ENQ[0] and self._pending:
                command, self._pending = self._pending, b""
                self._run(command, now)
            return True
        if len(buffer) < 5:
            return False
        frame = bytes(buffer[:5])
        if frame[3] != 0x03:
            del buffer[:1]
            return True
        del buffer[:5]
        if xor8(frame[:-1]) != frame[-1] or self.has("nak"):
            self.emit(NAK, now)
            return True
        self._pending = frame[1:3]
        if not self.has("lost-ack"):
            self.emit(ACK, now)
        return True

    def _run(self, command: bytes, now: float) -> None:
        if command == b"RF":
            self._send(b"SF" + self._state(), now)
        elif command == b"PB":
            self._send(b"PB" + self._flags(), now)
        elif command == b"PC":
            self._was_taken = self._was_captured = False
            self._send(b"PC" + self._flags(), now)
        elif command == b"GV":
            self._send(b"GV" + self._version, now)
        elif self.is_moving or self.has("not-ready"):
            return
        elif command == b"DC" and self.place == "inside":
            self._start(command, now, MOVE_S)
        elif command == b"DC" and self.place == "none" and self.stacker:
            self._start(command, now, FEED_S)
        elif command == b"ST" or (command == b"CP" and self.place != "none" and not self.is_bin_full):
            self._start(command, now, MOVE_S)

    def _start(self, command: bytes, now: float, seconds: float) -> None:
        self._doing = command

        def finish(at: float) -> None:
            self._doing = b""
            if self.has("jam") or self.has("dispense-failed"):
                return
            if self.pulled and self.place != "none":
                self.put_out()
            elif command == b"DC" and self.place == "none":
                self.feed_to("gate")
            elif command == b"DC":
                self.place = "gate"
            elif self.place != "none":
                self.capture()
                self._was_captured = True

        self.run_motor(now, seconds, finish)

    def _state(self) -> bytes:
        """The first that holds, in the manual's order."""
        for holds, word in (
            (self.has("dispense-failed"), b"200"),
            (self.has("jam"), b"020"),
            (self.is_bin_full, b"100"),
            (self._doing == b"DC", b"800"),
            (bool(self._doing), b"400"),
            (self.place == "gate", b"004"),
            (self.place == "inside", b"002"),
            (not self.stacker, b"008"),
            (self._is_low, b"010"),
        ):
            if holds:
                return word
        return b"001" if self.has("not-ready") else b"000"

    def _flags(self) -> bytes:
        ready = not self._doing and not any(self.has(fault) for fault in ("jam", "dispense-failed", "not-ready"))
        first = (
            self.is_bin_full
            | self.has("dispense-failed") << 1
            | (self._doing in (b"CP", b"ST")) << 2
            | (self._doing == b"DC") << 3
        )
        second = self._is_low | self.has("jam") << 1 | self._was_captured << 2 | self._was_taken << 3
        third = ready | (self.place == "inside") << 1 | (self.place == "gate") << 2 | (not self.stacker) << 3
        return bytes(0x30 | nibble for nibble in (first, second, third))


class Crt541Dispenser(_Dispenser):
    """The addressed form: a command is acknowledged with the address and carried out at once."""

    profile: ClassVar[str | None] = "crt-541"

    own_faults: ClassVar[Mapping[str, str]] = {
        "dispense-failed": "dispensing fails (work state 4)",
        **STOCK_FAULTS,
        "lost-ack": "frames are carried out and not acknowledged",
        "lost-answer": COMMON_FAULTS["lost-answer"],
        "nak": COMMON_FAULTS["nak"],
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        name: text for name, text in COMMON_ACTIONS.items() if name in ("take-card", "refill")
    }

    def __init__(
        self,
        *,
        baud: int = 9600,
        latency_s: float = 0.01,
        seed: int = 0,
        address: int = 0,
        stacker: int = 170,
        stacker_capacity: int = 170,
    ) -> None:
        super().__init__(
            baud=baud, latency_s=latency_s, seed=seed, stacker=stacker, stacker_capacity=stacker_capacity, bin_capacity=1
        )
        self._address = b"%02d" % address
        self._told_once = b""

    def forget(self) -> None:
        super().forget()
        self._told_once = b""

    def _next(self, now: float) -> bool:
        buffer = self._buffer
        if not buffer:
            return False
        if buffer[0] != 0x02:
            del buffer[:1]
            return True
        if len(buffer) < 7:
            return False
        frame = bytes(buffer[:7])
        if frame[5] != 0x03:
            del buffer[:1]
            return True
        del buffer[:7]
        if frame[1:3] != self._address:
            return True
        if xor8(frame[:-1]) != frame[-1] or self.has("nak"):
            self.emit(NAK + self._address, now)
            return True
        if not self.has("lost-ack"):
            self.emit(ACK + self._address, now)
        self._run(frame[3:5], now)
        return True

    def _run(self, command: bytes, now: float) -> None:
        if command == b"AP":
            self._send(self._address + self._work() + (b"2" if not self.stacker else b"1" if self._is_low else b"0"), now)
        elif command == b"DC":
            if self.is_moving or not self.stacker or self.place == "gate":
                self._told_once = b"6"
            else:
                self.run_motor(now, FEED_S, self._dispensed)
        elif command == b"RS" and not self.is_moving:
            self.run_motor(now, MOVE_S, lambda at: None)

    def _dispensed(self, at: float) -> None:
        if not self.has("dispense-failed"):
            self.feed_to("gate")
            self._told_once = b"3"

    def _work(self) -> bytes:
        if self.has("dispense-failed"):
            return b"4"
        if self.is_moving:
            return b"1"
        told, self._told_once = self._told_once, b""
        return told or b"0"
