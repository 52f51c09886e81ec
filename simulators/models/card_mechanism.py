"""What is inside a motorised card unit, whatever it speaks: stacker, path, gate, bin, and hands that reach in.

`motions` counts what the motor really did. It is the number that a test compares with what an application ordered: a card that came out twice is a
card given away.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from simulators.models.base import Model, UsbIdentity

Place = Literal["none", "gate", "inside"]

MOVE_S, FEED_S = 1.2, 1.6
"""About what a belt of 0.3 m/s needs for the path, and with the stacker's wheel."""
LOW_BELOW = 10
FRAME_TIMEOUT_S = 1.0
"""After so long a pause a frame begins anew."""


@dataclass(frozen=True)
class ChipCard:
    """A card that belongs to nobody. `marker` stands in everything it says and must never be found where no card belongs."""

    marker: str = "TESTMARK"
    atr: bytes = field(default=b"\x3b\x68\x00\x00", repr=False)

    def answer_to_reset(self) -> bytes:
        return self.atr + self.marker.encode("ascii", "replace")[:8]

    def answer(self, command: bytes) -> bytes:
        """`SELECT` and anything else: the marker and a good status word."""
        return self.marker.encode("ascii", "replace") + b"\x90\x00"


class CardMechanism(Model):
    """Base of the card units. Subclasses speak; `_run` is called for what moves and `_said` sends unless a fault swallows it."""

    def __init__(
        self,
        *,
        latency_s: float,
        baud: int,
        seed: int,
        usb: UsbIdentity | None = None,
        stacker: int | None,
        stacker_capacity: int,
        bin_capacity: int,
    ) -> None:
        super().__init__(latency_s=latency_s, baud=baud, usb=usb, seed=seed)
        self.stacker = stacker
        self.stacker_capacity = stacker_capacity
        self.bin_cards = 0
        self.bin_capacity = bin_capacity
        self.place: Place = "none"
        self.card = ChipCard()
        self.motions = 0
        self.dispensed = 0
        self.captured = 0
        self.taken = 0
        self.pulled = False
        """A hand took the card while the motor ran."""
        self._finish: Callable[[float], None] | None = None
        self._finish_at = 0.0
        self._buffer = bytearray()
        self._last_byte_at = 0.0

    # ------------------------------------------------------------------ the line

    def on_bytes(self, data: bytes, now: float) -> None:
        if now - self._last_byte_at > FRAME_TIMEOUT_S:
            self._buffer.clear()
        self._last_byte_at = now
        self._buffer += data
        while self._next(now):
            pass

    @abstractmethod
    def _next(self, now: float) -> bool:
        """Deal with the first byte or frame of the buffer; False when more bytes are needed."""

    # ------------------------------------------------------------------ the motor

    @property
    def is_moving(self) -> bool:
        return self._finish is not None

    @property
    def is_bin_full(self) -> bool:
        return self.bin_cards >= self.bin_capacity

    def run_motor(self, now: float, seconds: float, finish: Callable[[float], None]) -> None:
        """Turn the motor; `finish` is called with the moment at which it stops."""
        self.motions += 1
        self.pulled = False
        self._finish, self._finish_at = finish, now + seconds

    def mechanism_due(self) -> float | None:
        return self._finish_at if self._finish is not None else None

    def run_mechanism(self, now: float) -> None:
        if self._finish is not None and self._finish_at <= now:
            finish, self._finish = self._finish, None
            finish(now)

    def on_power_cycle(self, now: float) -> None:
        if self.has("unplug"):
            return  # the pulled cable carries data; the motor's supply is another one
        self._finish = None
        self.forget()

    def forget(self) -> None:
        """What is lost with the power."""
        self._buffer.clear()

    # ------------------------------------------------------------------ what happens to cards

    def feed_to(self, place: Place) -> None:
        assert self.stacker
        self.stacker -= 1
        self.dispensed += 1
        self.place = place

    def capture(self) -> None:
        self.place = "none"
        self.bin_cards += 1
        self.captured += 1

    def put_out(self) -> None:
        self.place = "none"
        self.taken += 1

    # ------------------------------------------------------------------ hands

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name in ("stacker-empty", "stacker-low") and self.stacker is not None:
            few = 0 if name == "stacker-empty" else LOW_BELOW - 1
            self.stacker = few if active else self.stacker_capacity
        elif name == "bin-full":
            self.bin_cards = self.bin_capacity if active else 0
        elif name == "card-left":
            self.place = "gate" if active else "none"
        elif name == "power-cycled":
            if active:
                self.on_power_cycle(now)
            else:
                self.initialise()

    def initialise(self) -> None:
        """The kiosk application reset the unit."""

    def on_action(self, name: str, now: float, *args: str) -> None:
        if name == "insert-card":
            self.insert(ChipCard(args[0] if args else "TESTMARK"), now)
        elif name == "take-card":
            self.take_card()
        elif name == "refill" and self.stacker is not None:
            more = int(args[0]) if args and args[0].isdecimal() else self.stacker_capacity
            self.stacker = min(self.stacker_capacity, self.stacker + more)
            self._faults -= {"stacker-empty", "stacker-low"}
        elif name == "empty-bin":
            self.bin_cards = 0
            self._faults.discard("bin-full")
        elif name == "initialise":
            self._faults.discard("power-cycled")
            self.initialise()

    def insert(self, card: ChipCard, now: float) -> None:
        """A person puts a card in; a unit that takes none leaves it where it is."""

    def take_card(self) -> None:
        """Somebody pulls the card out of the mouth, or out of the path while the motor runs."""
        if self.is_moving:
            self.pulled = True
        elif self.place == "gate":
            self.put_out()
            self._faults.discard("card-left")


STOCK_FAULTS = {
    "stacker-empty": "no card is left to dispense; clearing it refills",
    "stacker-low": "few cards are left; clearing it refills",
}
COMMON_FAULTS = {
    "card-left": "a card stays in the mouth; clearing it: somebody takes it",
    "lost-answer": "commands are carried out and no result is sent",
    "nak": "every frame is answered NAK, as behind a noisy wire",
}
COMMON_ACTIONS = {
    "insert-card": "a person puts a card in (argument: its marker)",
    "take-card": "a person takes the card, or pulls at it while it moves",
    "refill": "put cards into the stacker (argument: how many)",
    "empty-bin": "empty the bin of captured cards",
    "initialise": "the kiosk application resets the unit",
}
