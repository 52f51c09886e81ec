"""Call pads of service windows: several on one RS-485 pair, each with its address, some with an evaluator attached; window screens beside them.

Frames are FT1.2 long frames with a lead byte, `FF 68 L L 68 ADDR FUNCTION DATA… SUM 16` (the one published call-pad specification; framing after
IEC 60870-5-1). Vendors differ in function numbers, so they are data here. A pad repeats every frame that is meant for it, unchanged: that echo is
the acknowledgement, in both directions. A pad that is not polled sends an unacknowledged key again. The display shows the last three digits of a
ticket number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from simulators.errors import UnknownName, unknown
from simulators.models.base import Controllable, Model
from simulators.models.checksums import sum8

LEAD, START, END = 0xFF, 0x68, 0x16
MAX_BODY = 64
REPEAT_AFTER_S = 0.5
MAX_REPEATS = 2
MAX_WAITING_KEYS = 8
"""A polled pad keeps so many keys; older ones are lost."""
EVALUATE_WAIT_S = 8.0
"""An asked evaluator gives up after this time and reports 0."""
BROADCAST = 0xFF

KEYS: Mapping[str, tuple[int, ...]] = {
    "call-next": (0x0C,),
    "recall": (0x0D,),
    "evaluate": (0x0B,),
    "cancel": (0x0E,),
    "confirm": (0x0F,),
    "one-metre": (0x11,),
    "pause": (0x12,),
    "transfer": (0x13,),
    "drop": (0x06, 0x0F),
    "hold": (0x00, 0x0F),
    "call-back": (0x03, 0x0F),
    **{f"digit-{digit}": (digit,) for digit in range(10)},
}
"""Key codes by the name of what the clerk does; three actions are a digit followed by confirm."""


@dataclass(frozen=True)
class PadDialect:
    """Function numbers, which differ by vendor. `polled`: keys wait for the master's poll (a frame without data) instead of being sent at once."""

    key: int = 0x01
    display: int = 0x02
    poll: int = 0x01
    rating: int = 0x11
    polled: bool = False
    lead_byte: bool = True


def frame(address: int, function: int, data: bytes, *, lead_byte: bool = True) -> bytes:
    body = bytes((address, function)) + data
    head = bytes((START, len(body), len(body), START))
    return (bytes((LEAD,)) if lead_byte else b"") + head + body + bytes((sum8(body), END))


@dataclass
class _Sent:
    raw: bytes
    repeat_at: float
    repeats_left: int = MAX_REPEATS


SPOILED_PER_BYTE = 0.04
"""Without termination: a poll's echo of nine bytes is spoiled three times in ten, a display frame of twelve four times."""
FIRST_SCREEN = 101
"""Window screens have addresses of their own, a hundred above their window."""


@dataclass
class CallPad:
    """One pad on the bus. Its remote control is its own; the bus carries its bytes."""

    address: int
    bus: CallPadBus = field(repr=False)
    has_evaluator: bool = True
    display: str = ""
    keys_pressed: int = 0
    brown_out_since: float = 0.0
    rating_deadline: float | None = None
    waiting_keys: list[bytes] = field(default_factory=list, repr=False)
    unanswered: list[_Sent] = field(default_factory=list, repr=False)
    acknowledged: tuple[bytes, float] | None = field(default=None, repr=False)
    """The frame that the host acknowledged last, and when."""
    is_screen: bool = False
    """A window screen: shows what it is told, has no keys and no evaluator."""
    _faults: set[str] = field(default_factory=set)

    FAULTS: ClassVar[Mapping[str, str]] = {
        "silence": "this pad answers nothing",
        "unplug": "this pad is off the bus",
        "brown-out": "this pad answers for 3 s, then is dead for 2 s",
        "stuck-key": "call-next is stuck and sent every half second",
        "address-conflict": "a second pad has the same address: only noise from it",
        "corrupt": "checksum errors from this pad: missing termination",
    }
    ACTIONS: ClassVar[Mapping[str, str]] = {
        **{name: f"press {name}" for name in KEYS},
        "rate": "a citizen rates at this pad's evaluator, 5 best: rate 5",
    }

    @property
    def fault_help(self) -> Mapping[str, str]:
        return {name: text for name, text in self.FAULTS.items() if not (self.is_screen and name == "stuck-key")}

    @property
    def action_help(self) -> Mapping[str, str]:
        return {} if self.is_screen else self.ACTIONS

    @property
    def active_faults(self) -> frozenset[str]:
        return frozenset(self._faults)

    @property
    def unit(self) -> str:
        """Name on the bus: the pad's address, `window-screen-2` for the screen of the second window."""
        return f"window-screen-{self.address - FIRST_SCREEN + 1}" if self.is_screen else str(self.address)

    def set(self, name: str, now: float) -> None:
        self.bus.change_pad(self, name, True, now)

    def clear(self, name: str, now: float) -> None:
        self.bus.change_pad(self, name, False, now)

    def act(self, name: str, now: float, *args: str) -> None:
        self.bus.press(self.address, name, now, *args)

    def has(self, fault: str) -> bool:
        return fault in self._faults

    def remember(self, fault: str, active: bool, now: float) -> None:
        (self._faults.add if active else self._faults.discard)(fault)
        self.brown_out_since = now

    def has_acknowledged(self, raw: bytes, now: float) -> bool:
        """A second acknowledgement, of a frame that was repeated while the first was under way: no command, so no echo."""
        return self.acknowledged is not None and self.acknowledged[0] == raw and now - self.acknowledged[1] < 2 * REPEAT_AFTER_S

    def is_dead(self, now: float) -> bool:
        dark = self.has("brown-out") and (now - self.brown_out_since) % 5.0 < 2.0
        return dark or self.has("silence") or self.has("unplug")


class CallPadBus(Model):
    """The RS-485 pair with its pads, as the control box sees it through its adapter."""

    kind: ClassVar[str] = "call-pad"
    own_faults: ClassVar[Mapping[str, str]] = {
        "bus-cut": "the pair is cut behind the adapter: all pads silent",
        "wires-swapped": "A and B are swapped: constant framing errors",
        "echo": "the adapter returns every byte the host sends",
        "noise": "one frame in three is spoiled",
        "no-termination": "the terminating resistor is missing: the longer a frame, the likelier it is spoiled",
    }

    def __init__(
        self,
        *,
        addresses: tuple[int, ...] = (1, 2, 3, 4),
        screens: int = 0,
        dialect: PadDialect | None = None,
        baud: int = 9600,
        latency_s: float = 0.02,
        seed: int = 0,
    ) -> None:
        super().__init__(latency_s=latency_s, baud=baud, seed=seed)
        self.dialect = dialect or PadDialect()
        self.pads = {address: CallPad(address, self) for address in addresses}
        for address in range(FIRST_SCREEN, FIRST_SCREEN + screens):
            self.pads[address] = CallPad(address, self, has_evaluator=False, is_screen=True)
        self._buffer = bytearray()
        self._stuck_at: dict[int, float] = {}

    @property
    def units(self) -> Mapping[str, Controllable]:
        return {pad.unit: pad for pad in self.pads.values()}

    # ------------------------------------------------------------------ remote control of one pad

    def change_pad(self, pad: CallPad, fault: str, active: bool, now: float) -> None:
        with self.lock:
            if fault not in pad.fault_help:
                raise unknown("fault of a call pad", fault, list(pad.fault_help))
            pad.remember(fault, active, now)
            if fault == "stuck-key":
                self._stuck_at.pop(pad.address, None)
                if active:
                    self._stuck_at[pad.address] = now
        self.notify()

    def press(self, address: int, action: str, now: float, *args: str) -> None:
        """A clerk presses a key, or a citizen rates; UnknownName for a pad or key that is not there."""
        with self.lock:
            pad = self.pads.get(address)
            if pad is None or pad.is_screen:
                raise unknown("call pad", str(address), [known.unit for known in self.pads.values() if not known.is_screen])
            if action == "rate":
                self._rate(pad, args[0] if args else "5", now)
            elif action in KEYS:
                pad.keys_pressed += 1
                for code in KEYS[action]:
                    self._send_key(pad, bytes((code,)), now)
            else:
                raise unknown("call pad key", action, [*KEYS, "rate"])
        self.notify()

    def _rate(self, pad: CallPad, level: str, now: float) -> None:
        if level not in ("0", "1", "2", "3", "4", "5"):
            raise UnknownName(f"A rating is a level from 5 (best) to 1, or 0 for none; not “{level}”.")
        pad.rating_deadline = None
        self._send(pad, self.dialect.rating, bytes((int(level),)), now)

    # ------------------------------------------------------------------ host side

    def on_bytes(self, data: bytes, now: float) -> None:
        if self.has("echo"):
            self.emit(data, now, delay_s=0.0)
        if self.has("wires-swapped"):
            self.emit(self._random.randbytes(min(8, len(data))), now)
            return
        if self.has("bus-cut"):
            return
        self._buffer += data
        while self._next_frame(now):
            pass

    def on_power_cycle(self, now: float) -> None:
        self._buffer.clear()
        for pad in self.pads.values():
            pad.unanswered.clear()
            pad.waiting_keys.clear()
            pad.display = ""

    def _next_frame(self, now: float) -> bool:
        start = self._buffer.find(START)
        if start < 0:
            self._buffer.clear()
            return False
        del self._buffer[:start]
        if len(self._buffer) < 4:
            return False
        length = self._buffer[1]
        if self._buffer[2] != length or self._buffer[3] != START or not 2 <= length <= MAX_BODY:
            del self._buffer[0]
            return True
        end = 4 + length + 2
        if len(self._buffer) < end:
            return False
        body, check, tail = bytes(self._buffer[4 : 4 + length]), self._buffer[4 + length], self._buffer[end - 1]
        if sum8(body) != check or tail != END:
            del self._buffer[0]
            return True
        del self._buffer[:end]
        self._deliver(body, now)
        return True

    def _deliver(self, body: bytes, now: float) -> None:
        address, function, data = body[0], body[1], body[2:]
        targets = (
            list(self.pads.values()) if address == BROADCAST else [pad for pad in self.pads.values() if pad.address == address]
        )
        raw = frame(address, function, data, lead_byte=self.dialect.lead_byte)
        for pad in targets:
            if pad.is_dead(now):
                continue
            before = len(pad.unanswered)
            pad.unanswered = [sent for sent in pad.unanswered if sent.raw != raw]
            if len(pad.unanswered) < before:
                pad.acknowledged = raw, now
                continue
            if address == BROADCAST or pad.has_acknowledged(raw, now):
                continue
            self._obey(pad, function, data, raw, now)

    def _obey(self, pad: CallPad, function: int, data: bytes, raw: bytes, now: float) -> None:
        if self.dialect.polled and function == self.dialect.poll and not data and pad.waiting_keys:
            news = pad.waiting_keys.pop(0)
            pad.unanswered = [_Sent(news, float("inf"))]
            self._put(pad, news, now)
            return
        if function == self.dialect.display:
            pad.display = "".join(chr(byte) for byte in data if 0x30 <= byte <= 0x39)[-3:]
        elif function == self.dialect.rating and pad.has_evaluator:
            pad.rating_deadline = now + EVALUATE_WAIT_S
        self._put(pad, raw, now)

    # ------------------------------------------------------------------ pad side

    def _send_key(self, pad: CallPad, code: bytes, now: float) -> None:
        self._send(pad, self.dialect.key, code, now)

    def _send(self, pad: CallPad, function: int, data: bytes, now: float) -> None:
        if pad.is_dead(now) or self.has("bus-cut"):
            return
        raw = frame(pad.address, function, data, lead_byte=self.dialect.lead_byte)
        if self.dialect.polled:
            pad.waiting_keys = [*pad.waiting_keys, raw][-MAX_WAITING_KEYS:]
            return
        pad.unanswered.append(_Sent(raw, now + REPEAT_AFTER_S))
        self._put(pad, raw, now)

    def _put(self, pad: CallPad, raw: bytes, now: float) -> None:
        if pad.has("address-conflict"):
            raw = self._random.randbytes(len(raw))
        elif pad.has("corrupt") or ((share := self._share_spoiled(len(raw))) and self._random.random() < share):
            raw = raw[:-2] + bytes((raw[-2] ^ 0x5A, raw[-1]))
        self.emit(raw, now)

    def _share_spoiled(self, size_bytes: int) -> float:
        if self.has("noise"):
            return 1 / 3
        return 1 - (1 - SPOILED_PER_BYTE) ** size_bytes if self.has("no-termination") else 0.0

    def run_mechanism(self, now: float) -> None:
        for address, due in list(self._stuck_at.items()):
            if now >= due:
                self._stuck_at[address] = now + 0.5
                pad = self.pads[address]
                pad.unanswered.clear()
                self._send_key(pad, bytes(KEYS["call-next"]), now)
        for pad in self.pads.values():
            if pad.rating_deadline is not None and now >= pad.rating_deadline:
                pad.rating_deadline = None
                self._send(pad, self.dialect.rating, b"\x00", now)
            for sent in list(pad.unanswered):
                if now >= sent.repeat_at:
                    self._repeat(pad, sent, now)

    def _repeat(self, pad: CallPad, sent: _Sent, now: float) -> None:
        if sent.repeats_left == 0 or pad.is_dead(now):
            pad.unanswered.remove(sent)
            return
        sent.repeats_left -= 1
        sent.repeat_at = now + REPEAT_AFTER_S
        self._put(pad, sent.raw, now)

    def mechanism_due(self) -> float | None:
        due = list(self._stuck_at.values())
        for pad in self.pads.values():
            due += [sent.repeat_at for sent in pad.unanswered]
            if pad.rating_deadline is not None:
                due.append(pad.rating_deadline)
        return min(due) if due else None
