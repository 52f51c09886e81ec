"""Devices that are keyboards to the kernel: numeric keypad, evaluator pad, keyboard-mode scanner. They produce input events with due times.

Event numbers are those of the kernel's input-event-codes.h. Which keys are pressed passes through; only their number is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from simulators.errors import UnknownName, unknown
from simulators.models.base import Endpoint, Model, UsbIdentity

EV_SYN, EV_KEY, EV_MSC = 0x00, 0x01, 0x04
SYN_REPORT, SYN_DROPPED, MSC_SCAN = 0x00, 0x03, 0x04
UP, DOWN, REPEAT = 0, 1, 2

KEY_ENTER, KEY_LEFTSHIFT, KEY_BACKSPACE, KEY_ESC, KEY_TAB, KEY_KPENTER = 28, 42, 14, 1, 15, 96

_PLAIN: Mapping[str, int] = {
    **dict(zip("1234567890", range(2, 12), strict=True)),
    **dict(zip("qwertyuiop", range(16, 26), strict=True)),
    **dict(zip("asdfghjkl", range(30, 39), strict=True)),
    **dict(zip("zxcvbnm", range(44, 51), strict=True)),
    "-": 12, "=": 13, "[": 26, "]": 27, ";": 39, "'": 40, "`": 41, "\\": 43, ",": 51, ".": 52, "/": 53, " ": 57, "\n": KEY_ENTER, "\t": KEY_TAB,
}  # fmt: skip
_SHIFTED: Mapping[str, str] = dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./", strict=True))
_KEYPAD: Mapping[str, int] = {
    "7": 71, "8": 72, "9": 73, "4": 75, "5": 76, "6": 77, "1": 79, "2": 80, "3": 81, "0": 82, ".": 83, "-": 74, "+": 78, "*": 55, "/": 98,
    "\n": KEY_KPENTER, "\b": KEY_BACKSPACE, "\x1b": KEY_ESC,
}  # fmt: skip

REPEAT_DELAY_S, REPEAT_PERIOD_S = 0.25, 0.033
"""The kernel's default autorepeat."""
MAX_WAITING = 4096

_INTERRUPT_IN = (Endpoint(0x81, 8, 3),)
USB_KEYPAD = UsbIdentity(0x1A2C, 0x0E24, _INTERRUPT_IN, 3, 1, 1, "SEM", "USB Keypad", kernel_driver="usbhid")
USB_EVALUATOR = UsbIdentity(0x5131, 0x2007, _INTERRUPT_IN, 3, 1, 1, "MSR", "Evaluator Pad", kernel_driver="usbhid")
USB_SCANNER_HID = UsbIdentity(
    0x1EAB, 0x1D03, _INTERRUPT_IN, 3, 1, 1, "Newland Auto-ID", "NLS-FM430 HID KBW", kernel_driver="usbhid"
)
USB_SCANNER_HID_POS = UsbIdentity(
    0x1EAB,
    0x1D10,
    (Endpoint(0x81, 64, 3), Endpoint(0x02, 64, 3)),
    3,
    0,
    0,
    "Newland Auto-ID",
    "NLS-FM430 HID POS",
    kernel_driver="usbhid",
)


@dataclass(frozen=True)
class KeyEvent:
    """One `struct input_event` without its time stamp; `due` is when the kernel would deliver it."""

    due: float
    type: int
    code: int
    value: int


class KeyDevice(Model):
    """A keyboard-like device."""

    kind: ClassVar[str] = "keypad"
    own_faults: ClassVar[Mapping[str, str]] = {
        "stuck-key": "one key stays down and repeats without end",
        "dropped": "the next event is SYN_DROPPED: the kernel's queue ran over",
    }
    own_actions: ClassVar[Mapping[str, str]] = {
        "type": "type digits and press Enter: type 2468",
        "press": "press one key down and up: press 5",
    }
    layout: ClassVar[Mapping[str, int]] = _KEYPAD
    gap_s: ClassVar[float] = 0.18
    """Between two keys of a person."""
    stuck_code: ClassVar[int] = 76

    def __init__(self, *, usb: UsbIdentity | None = USB_KEYPAD, seed: int = 0) -> None:
        super().__init__(usb=usb, latency_s=0.0, seed=seed)
        self.keys_pressed = 0
        self._events: deque[KeyEvent] = deque()
        self._down: set[int] = set()
        self._next_repeat = 0.0
        self._quiet_until = 0.0

    # ------------------------------------------------------------------ what a transport calls

    def take_events(self, now: float) -> list[KeyEvent]:
        """Events that are due; the set of pressed keys follows what was taken."""
        with self.lock:
            self.advance(now)
            out: list[KeyEvent] = []
            while self._events and self._events[0].due <= now:
                event = self._events.popleft()
                out.append(event)
                if event.type == EV_KEY:
                    (self._down.discard if event.value == UP else self._down.add)(event.code)
            return out

    def pressed_keys(self, now: float) -> frozenset[int]:
        with self.lock:
            self.advance(now)
            return frozenset(self._down)

    def output_due(self, endpoint: int | None) -> float | None:
        return self._events[0].due if self._events else None

    def mechanism_due(self) -> float | None:
        return self._next_repeat if self.has("stuck-key") else None

    def drop_output(self) -> None:
        self._events.clear()
        self._down.clear()

    # ------------------------------------------------------------------ behaviour

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "stuck-key" and active:
            self._push(now, self.stuck_code, DOWN)
            self._next_repeat = now + REPEAT_DELAY_S
        elif name == "stuck-key":
            self._push(now, self.stuck_code, UP)
        elif name == "dropped" and active:
            self._faults.discard("dropped")
            self._events.clear()
            self._events.append(KeyEvent(now, EV_SYN, SYN_DROPPED, 0))
            self._events.append(KeyEvent(now, EV_SYN, SYN_REPORT, 0))

    def on_power_cycle(self, now: float) -> None:
        self.drop_output()

    def run_mechanism(self, now: float) -> None:
        while self.has("stuck-key") and now >= self._next_repeat:
            if len(self._events) < MAX_WAITING:
                self._push(self._next_repeat, self.stuck_code, REPEAT)
            self._next_repeat = max(self._next_repeat, now - 1.0) + REPEAT_PERIOD_S

    def on_action(self, name: str, now: float, *args: str) -> None:
        text = args[0] if args else ""
        self.type_text(text + "\n" if name == "type" else text, now)

    def type_text(self, text: str, now: float) -> None:
        """Key presses for `text`, one after another; UnknownName for a character this device has no key for."""
        at = max(now, self._quiet_until)
        for character in text:
            code, shifted = self._code_of(character)
            if shifted:
                self._push(at, KEY_LEFTSHIFT, DOWN)
            self._push(at, code, DOWN)
            self._push(at + self.gap_s / 3, code, UP)
            if shifted:
                self._push(at + self.gap_s / 3, KEY_LEFTSHIFT, UP)
            self.keys_pressed += 1
            at += self.gap_s
        self._quiet_until = at

    def _code_of(self, character: str) -> tuple[int, bool]:
        if character in self.layout:
            return self.layout[character], False
        if self.layout is _PLAIN:
            if character in _SHIFTED:
                return _PLAIN[_SHIFTED[character]], True
            if character.lower() in _PLAIN:
                return _PLAIN[character.lower()], True
        raise unknown(f"key of {self.kind}", character, [repr(key)[1:-1] for key in self.layout])

    def _push(self, due: float, code: int, value: int) -> None:
        if not self.plugged or self.is_mute:
            return
        if value != REPEAT:
            self._events.append(KeyEvent(due, EV_MSC, MSC_SCAN, 0x70000 + code))
        self._events.append(KeyEvent(due, EV_KEY, code, value))
        self._events.append(KeyEvent(due, EV_SYN, SYN_REPORT, 0))


class Keypad(KeyDevice):
    """Numeric keypad (digits, point, signs, Enter)."""


class EvaluatorPad(KeyDevice):
    """Five keys; the first is "very satisfied" (level 5), as on most pads. `best_first=False` is the other order."""

    kind: ClassVar[str] = "evaluator"
    own_actions: ClassVar[Mapping[str, str]] = {"rate": "press a satisfaction key, 5 best: rate 5"}
    layout: ClassVar[Mapping[str, int]] = {str(level): _PLAIN[str(level)] for level in range(1, 6)}
    stuck_code: ClassVar[int] = 2

    def __init__(self, *, usb: UsbIdentity | None = USB_EVALUATOR, seed: int = 0, best_first: bool = True) -> None:
        super().__init__(usb=usb, seed=seed)
        self._best_first = best_first

    def on_action(self, name: str, now: float, *args: str) -> None:
        level = args[0] if args else "5"
        if level not in self.layout:
            raise UnknownName(f"A rating is a level from 5 (best) to 1, not “{level}”.")
        self.type_text(str(6 - int(level)) if self._best_first else level, now)


USB_HELP_BUTTON = UsbIdentity(0x8808, 0x6611, _INTERRUPT_IN, 3, 1, 1, "", "Help Button", kernel_driver="usbhid")
USB_EMERGENCY_BUTTON = UsbIdentity(0x8808, 0x6612, _INTERRUPT_IN, 3, 1, 1, "", "Emergency Button", kernel_driver="usbhid")
KEY_F9, KEY_F10 = 67, 68


class HelpButton(KeyDevice):
    """A push button behind a keyboard encoder."""

    kind: ClassVar[str] = "help-button"
    own_actions: ClassVar[Mapping[str, str]] = {"press": "somebody presses it and lets go"}
    layout: ClassVar[Mapping[str, int]] = {"help": KEY_F9}
    stuck_code: ClassVar[int] = KEY_F9

    def __init__(self, *, usb: UsbIdentity | None = USB_HELP_BUTTON, seed: int = 0) -> None:
        super().__init__(usb=usb, seed=seed)

    def on_action(self, name: str, now: float, *args: str) -> None:
        at = max(now, self._quiet_until)
        self._push(at, self.stuck_code, DOWN)
        self._push(at + 0.2, self.stuck_code, UP)
        self.keys_pressed += 1
        self._quiet_until = at + 0.4


class EmergencyButton(HelpButton):
    """A mushroom button that latches: pressed, it stays down until somebody turns it. The kernel repeats its key meanwhile."""

    kind: ClassVar[str] = "emergency-button"
    own_faults: ClassVar[Mapping[str, str]] = {
        "pressed": "the button is pressed and latched; clearing it releases the button",
        "dropped": KeyDevice.own_faults["dropped"],
    }
    own_actions: ClassVar[Mapping[str, str]] = {"press": "somebody presses a button that does not latch and lets go"}
    layout: ClassVar[Mapping[str, int]] = {"emergency": KEY_F10}
    stuck_code: ClassVar[int] = KEY_F10

    def __init__(self, *, usb: UsbIdentity | None = USB_EMERGENCY_BUTTON, seed: int = 0) -> None:
        super().__init__(usb=usb, seed=seed)

    def on_fault(self, name: str, active: bool, now: float) -> None:
        super().on_fault("stuck-key" if name == "pressed" else name, active, now)

    def has(self, fault: str) -> bool:
        return super().has("pressed" if fault == "stuck-key" else fault)


class HidScanner(KeyDevice):
    """Scanner in keyboard mode: a burst of keys a few milliseconds apart, closed by Enter."""

    kind: ClassVar[str] = "scanner"
    own_faults: ClassVar[Mapping[str, str]] = {
        **KeyDevice.own_faults,
        "missing-suffix": "codes come without the closing Enter, as after a factory-reset code",
        "stuck-trigger": "the trigger is stuck: endless partial reads",
        "mode-switched": "a set-up code turned it into a serial unit: the keyboard disappears",
        "hid-pos": "a set-up code turned it to HID POS: neither keys nor a serial port are left",
    }
    own_actions: ClassVar[Mapping[str, str]] = {"scan": "hold a code in front of it: scan HELLO-001"}
    layout: ClassVar[Mapping[str, int]] = _PLAIN
    gap_s: ClassVar[float] = 0.004
    stuck_code: ClassVar[int] = 30

    def __init__(self, *, usb: UsbIdentity | None = USB_SCANNER_HID, seed: int = 0) -> None:
        super().__init__(usb=usb, seed=seed)
        self._next_partial = 0.0

    def on_action(self, name: str, now: float, *args: str) -> None:
        self.type_text(" ".join(args) + ("" if self.has("missing-suffix") else "\n"), now)

    def on_fault(self, name: str, active: bool, now: float) -> None:
        if name == "stuck-trigger":
            self._next_partial = now
        elif name in ("mode-switched", "hid-pos"):
            self.plugged = not active
            self.on_power_cycle(now)
        else:
            super().on_fault(name, active, now)

    def run_mechanism(self, now: float) -> None:
        super().run_mechanism(now)
        while self.has("stuck-trigger") and now >= self._next_partial:
            self._next_partial = max(self._next_partial, now - 1.0) + 0.4
            if len(self._events) < MAX_WAITING:
                self.type_text("88", now)

    def mechanism_due(self) -> float | None:
        due = super().mechanism_due()
        if self.has("stuck-trigger"):
            return self._next_partial if due is None else min(due, self._next_partial)
        return due
