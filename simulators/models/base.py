"""What every simulated device has: an output queue with due times, the remote control, and fault names a person would type.

A transport calls `feed` with what the host wrote and `take` with how much the host wants to read; `next_due` says when to look again. Faults of
the line (silence, garbage, a cut cable) live here, faults of the mechanism in each model. Models are not asyncio objects: the same one runs behind
a pty, a pyusb backend and an in-memory pipe. `lock` is held by every public call, so a fault may be set from another thread.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from simulators.errors import unknown

LINE_FAULTS: Mapping[str, str] = {
    "unplug": "the cable is pulled; clearing it plugs the device in again",
    "silence": "the device stays connected and answers nothing",
    "garbage": "noise before every answer",
    "corrupt": "one bit of every answer is flipped",
    "stall": "every answer comes 30 s late",
    "brown-out": "weak supply: runs 3 s, dies for 2 s and forgets its settings, again and again",
    "in-use": "another program holds the port, opening it is refused",
    "refused": "the system refuses to open the port: a line setting it cannot do, no rights, no libusb",
}
"""Faults that every device has, because they happen to the line and the supply."""

BROWN_OUT_PERIOD_S = 5.0
BROWN_OUT_DARK_S = 2.0
"""Chosen: longer than any answer time-out here (the dark part is noticed), shorter than three polls."""
STALL_S = 30.0
PACE_BYTES = 32
"""A paced serial answer is delivered in pieces of this size, so that frames arrive cut and an unplug can hit one in the middle."""
MAX_WAITING_PIECES = 2048
BITS_PER_BYTE = 10
"""8N1: start bit, eight data bits, stop bit."""


class Controllable(Protocol):
    """What a fault script may act on: a device, or one unit of a bus."""

    @property
    def fault_help(self) -> Mapping[str, str]: ...
    @property
    def action_help(self) -> Mapping[str, str]: ...
    @property
    def active_faults(self) -> frozenset[str]: ...
    def set(self, name: str, now: float) -> None: ...
    def clear(self, name: str, now: float) -> None: ...
    def act(self, name: str, now: float, *args: str) -> None: ...


@dataclass(frozen=True)
class Endpoint:
    """One USB endpoint. `transfer` is the descriptor's type: 2 bulk, 3 interrupt."""

    address: int
    max_packet: int = 64
    transfer: int = 2


@dataclass(frozen=True)
class UsbIdentity:
    """What a USB device says about itself before anybody talks to it."""

    vid: int
    pid: int
    endpoints: tuple[Endpoint, ...]
    interface_class: int = 0xFF
    interface_subclass: int = 0
    interface_protocol: int = 0
    manufacturer: str = ""
    product: str = ""
    serial: str = ""
    device_class: int = 0
    bcd_device: int = 0x0100
    kernel_driver: str | None = None
    """Driver the kernel binds at plug-in; it must be detached before the interface can be claimed."""

    class_descriptors: tuple[bytes, ...] = ()
    """Descriptors of the interface's class, each with length and type in front."""

    @property
    def bulk_out(self) -> tuple[int, ...]:
        return tuple(e.address for e in self.endpoints if e.transfer == 2 and not e.address & 0x80)

    @property
    def bulk_in(self) -> tuple[int, ...]:
        return tuple(e.address for e in self.endpoints if e.transfer == 2 and e.address & 0x80)

    @property
    def interrupt_in(self) -> tuple[int, ...]:
        return tuple(e.address for e in self.endpoints if e.transfer == 3 and e.address & 0x80)

    @property
    def endpoints_out(self) -> tuple[int, ...]:
        return tuple(e.address for e in self.endpoints if not e.address & 0x80)

    @property
    def endpoints_in(self) -> tuple[int, ...]:
        return tuple(e.address for e in self.endpoints if e.address & 0x80)


@dataclass(order=True)
class _Pending:
    due: float
    data: bytes = field(compare=False)


class Model:
    """One simulated device. Subclasses implement `on_bytes` and call `emit`."""

    kind: ClassVar[str] = "device"
    own_faults: ClassVar[Mapping[str, str]] = {}
    own_actions: ClassVar[Mapping[str, str]] = {}
    profile: ClassVar[str | None] = None
    """What an installer names for it on a plain serial line, where models of one kind differ."""

    def __init__(
        self, *, latency_s: float = 0.003, baud: int | None = None, usb: UsbIdentity | None = None, seed: int = 0
    ) -> None:
        self.latency_s = latency_s
        self.baud = baud
        self.usb = usb
        self.plugged = True
        self.lock = threading.RLock()
        self.frames_in = 0
        self.halted = False
        """A USB endpoint is stalled until the host clears the halt."""
        self._random = random.Random(seed)
        self._queues: dict[int, deque[_Pending]] = {}
        self._faults: set[str] = set()
        self._listeners: list[Callable[[], None]] = []
        self._corrupt_left = 0
        self._stalled_until = 0.0
        self._brown_out_since = 0.0
        self._brown_out_seen = 0.0
        self._dark = False

    # ------------------------------------------------------------------ what a transport calls

    def feed(self, data: bytes, now: float, *, endpoint: int = 0, line_baud: int | None = None) -> None:
        """The host wrote `data`. `line_baud`: the speed the host set, None where the transport has none."""
        with self.lock:
            self.advance(now)
            if not self.plugged or self.is_mute:
                return
            self.frames_in += 1
            if self.is_wrong_speed(line_baud):
                data = self._garbled(data)
            self.on_endpoint(endpoint, data, now)

    def take(self, now: float, max_bytes: int, *, endpoint: int = 0, line_baud: int | None = None) -> bytes:
        """Up to `max_bytes` that are due on `endpoint`; b"" if nothing is."""
        with self.lock:
            self.advance(now)
            queue = self._queues.get(endpoint)
            if not queue:
                return b""
            out = bytearray()
            while queue and queue[0].due <= now and len(out) < max_bytes:
                room = max_bytes - len(out)
                first = queue[0]
                if len(first.data) <= room:
                    out += first.data
                    queue.popleft()
                else:
                    out += first.data[:room]
                    first.data = first.data[room:]
            return self._garbled(bytes(out)) if out and self.is_wrong_speed(line_baud) else bytes(out)

    def next_due(self, *, endpoint: int | None = None) -> float | None:
        """Monotonic time at which output is due or the mechanism moves on; None if nothing will happen by itself."""
        with self.lock:
            times = [self.output_due(endpoint)]
            if self.has("brown-out"):
                times.append(self._next_brown_out_change())
            if self.plugged and not self.is_mute:
                times.append(self.mechanism_due())
            return min((time for time in times if time is not None), default=None)

    def control(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, now: float
    ) -> bytes | None:
        """A USB control transfer for the interface; None means the device stalls it."""
        with self.lock:
            self.advance(now)
            return None if self.is_mute else self.on_control(request_type, request, value, index, length, data, now)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` when output or plug state changes by itself; returns the way to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    def usb_reset(self, now: float) -> None:
        """The host resets the device: what it had to say is gone, as are its volatile settings."""
        with self.lock:
            self.advance(now)
            self.halted = False
            self.drop_output()
            self.on_power_cycle(now)

    # ------------------------------------------------------------------ remote control

    @property
    def fault_help(self) -> Mapping[str, str]:
        return {**LINE_FAULTS, **self.own_faults}

    @property
    def action_help(self) -> Mapping[str, str]:
        return self.own_actions

    @property
    def active_faults(self) -> frozenset[str]:
        return frozenset(self._faults)

    @property
    def units(self) -> Mapping[str, Controllable]:
        """Parts of a bus that can be faulted alone, by the name behind the device's own (`3` in `call-pad 3`)."""
        return {}

    def set(self, name: str, now: float) -> None:
        """Start fault `name`; UnknownName if this device has none of that name. Setting it twice changes nothing."""
        with self.lock:
            if name not in self.fault_help:
                raise unknown(f"fault of {self.kind}", name, list(self.fault_help))
            if name in self._faults:
                return
            self.advance(now)
            self._faults.add(name)
            self._line_fault_set(name, now)
            if name in self.own_faults:
                self.on_fault(name, True, now)
        self.notify()

    def clear(self, name: str, now: float) -> None:
        """End fault `name` and whatever state it stands for (clearing `paper-out` refills)."""
        with self.lock:
            if name not in self.fault_help:
                raise unknown(f"fault of {self.kind}", name, list(self.fault_help))
            was_set = name in self._faults
            self.advance(now)
            self._faults.discard(name)
            if was_set:
                self._line_fault_clear(name)
            if name in self.own_faults:
                self.on_fault(name, False, now)
        self.notify()

    def act(self, name: str, now: float, *args: str) -> None:
        """A person does something at the device: presses a key, refills, lays a card. UnknownName if the device cannot do that."""
        with self.lock:
            if name not in self.action_help:
                raise unknown(f"action of {self.kind}", name, list(self.action_help))
            self.advance(now)
            if self.plugged and not self.is_mute:
                self.on_action(name, now, *args)
        self.notify()

    def silence(self, now: float) -> None:
        self.set("silence", now)

    def unplug(self, now: float) -> None:
        self.set("unplug", now)

    def replug(self, now: float) -> None:
        self.clear("unplug", now)

    def corrupt_next(self, answers: int) -> None:
        """Flip one bit in each of the next `answers` answers."""
        with self.lock:
            self._corrupt_left = answers

    def stall(self, seconds: float, now: float) -> None:
        """Hold every answer, pending ones included, until `seconds` from now."""
        with self.lock:
            self._stalled_until = now + seconds
            for queue in self._queues.values():
                for pending in queue:
                    pending.due = max(pending.due, self._stalled_until)
        self.notify()

    def garbage(self, size_bytes: int, now: float, *, endpoint: int = 0) -> None:
        """Send `size_bytes` of noise right now."""
        with self.lock:
            self._queue(endpoint, self._random.randbytes(size_bytes), now)
        self.notify()

    # ------------------------------------------------------------------ what a model implements

    def on_bytes(self, data: bytes, now: float) -> None:
        """Bytes from the host, in order, cut anywhere."""

    def takes(self, size_bytes: int) -> int:
        """How many of so many bytes a USB device takes now; it holds the host off (NAK) until it takes the rest."""
        return size_bytes

    def on_endpoint(self, endpoint: int, data: bytes, now: float) -> None:
        self.on_bytes(data, now)

    def on_control(
        self, request_type: int, request: int, value: int, index: int, length: int, data: bytes, now: float
    ) -> bytes | None:
        return None

    def on_fault(self, name: str, active: bool, now: float) -> None:
        """One of `own_faults` starts or ends."""

    def on_action(self, name: str, now: float, *args: str) -> None:
        """One of `own_actions` happens."""

    def on_power_cycle(self, now: float) -> None:
        """Volatile settings are lost."""

    def run_mechanism(self, now: float) -> None:
        """Do what the device does by itself up to `now`."""

    def mechanism_due(self) -> float | None:
        """When `run_mechanism` has something to do; asked only while the device has power."""
        return None

    def output_due(self, endpoint: int | None) -> float | None:
        queues = self._queues.values() if endpoint is None else filter(None, (self._queues.get(endpoint),))
        return min((queue[0].due for queue in queues if queue), default=None)

    # ------------------------------------------------------------------ helpers for models

    @property
    def is_mute(self) -> bool:
        return "silence" in self._faults or self._dark

    def has(self, fault: str) -> bool:
        return fault in self._faults

    def emit(self, data: bytes, now: float, *, delay_s: float | None = None, endpoint: int | None = None) -> None:
        """Queue one answer. It keeps its place behind earlier ones and, on a serial line, takes the time its bytes need."""
        if not self.plugged or self.is_mute or not data:
            return
        if endpoint is None:
            endpoint = self.usb.endpoints_in[0] if self.usb is not None else 0
        if self._corrupt_left > 0 or self.has("corrupt"):
            self._corrupt_left = max(0, self._corrupt_left - 1)
            data = self._with_one_bit_flipped(data)
        if self.has("garbage"):
            data = self._random.randbytes(self._random.randint(1, 6)) + data
        due = max(now + (self.latency_s if delay_s is None else delay_s), self._stalled_until)
        if self.has("stall"):
            due += STALL_S
        if self.baud is None or self.usb is not None:
            self._queue(endpoint, data, due)
            return
        for start in range(0, len(data), PACE_BYTES):
            piece = data[start : start + PACE_BYTES]
            due += len(piece) * BITS_PER_BYTE / self.baud
            self._queue(endpoint, piece, due)

    def drop_output(self) -> None:
        """Forget what was not delivered yet."""
        self._queues.clear()

    def advance(self, now: float) -> None:
        """Let time pass up to `now`: supply, then mechanism."""
        if self.has("brown-out"):
            self._brown_out_seen = now
            dark = (now - self._brown_out_since) % BROWN_OUT_PERIOD_S < BROWN_OUT_DARK_S
            if dark and not self._dark:
                self.drop_output()
                self.on_power_cycle(now)
            self._dark = dark
        if self.plugged and not self.is_mute:
            self._catch_up(now)

    def notify(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def is_wrong_speed(self, line_baud: int | None) -> bool:
        return line_baud is not None and self.baud is not None and line_baud != self.baud

    # ------------------------------------------------------------------ private

    def _catch_up(self, now: float) -> None:
        """Run the mechanism at each moment it asked for, so that a late look finds what an early one would have."""
        due = self.mechanism_due()
        while due is not None and due <= now:
            self.run_mechanism(due)
            following = self.mechanism_due()
            due = following if following is None or following > due else None

    def _next_brown_out_change(self) -> float:
        periods, phase = divmod(self._brown_out_seen - self._brown_out_since, BROWN_OUT_PERIOD_S)
        change = BROWN_OUT_DARK_S if phase < BROWN_OUT_DARK_S else BROWN_OUT_PERIOD_S
        return self._brown_out_since + periods * BROWN_OUT_PERIOD_S + change

    def _queue(self, endpoint: int, data: bytes, due: float) -> None:
        queue = self._queues.setdefault(endpoint, deque())
        if queue:
            due = max(due, queue[-1].due)
        if len(queue) >= MAX_WAITING_PIECES:
            return  # nobody reads; a device does not remember for ever either
        queue.append(_Pending(due, data))

    def _line_fault_set(self, name: str, now: float) -> None:
        if name == "unplug":
            self.plugged = False
            self.drop_output()
            self.halted = False
            self.on_power_cycle(now)
        elif name == "silence":
            self.drop_output()
        elif name == "brown-out":
            self._brown_out_since = now
            self._dark = False
            self.advance(now)

    def _line_fault_clear(self, name: str) -> None:
        if name == "unplug":
            self.plugged = True
        elif name == "brown-out":
            self._dark = False

    def _with_one_bit_flipped(self, data: bytes) -> bytes:
        position = self._random.randrange(len(data))
        spoiled = bytearray(data)
        spoiled[position] ^= 1 << self._random.randrange(8)
        return bytes(spoiled)

    def _garbled(self, data: bytes) -> bytes:
        """What the wrong speed makes of bytes: about as many, none of them meaning anything."""
        return bytes((byte * 7 + 0x5B) & 0xFF | 0x80 for byte in data)
