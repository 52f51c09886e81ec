"""Devices and terminals for programs and tests that block: each behind a port of its own, faults by name, and waits with an end.

    with Kit(folder) as kit:
        printer = kit.pty("escpos")           # or a profile's id: kit.pty("receipt-printer-serial")
        line = serial.Serial(str(printer.path), 38400, timeout=1)
        printer.set("paper-out")

The pytest plugin hands out one `Kit` for each test. Asynchronous code on virtual time uses `pipe` and `simulators.virtual_time`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulators import scripts
from simulators.catalogue import DEVICE_TYPES
from simulators.errors import SimulatorError, unknown
from simulators.models.base import Model
from simulators.ports.pipe import PipeDiscoverer, PipeOpener, PortKit
from simulators.ports.pty import ThreadPty
from simulators.ports.slots import Slot
from simulators.serving import on_ptys
from simulators.terminal import VirtualTerminal, build_terminal

if TYPE_CHECKING:
    from protocols.profile.schema import Profile

WITHIN_S = 10.0
LOOK_EVERY_S = 0.005


class Late(SimulatorError, AssertionError):
    """Something did not become true in time."""


def wait_for(true: Callable[[], bool], what: str, *, within_s: float = WITHIN_S) -> None:
    """Return as soon as `true()`; Late, with `what` was waited for, after `within_s`."""
    end_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() >= end_s:
            raise Late(f"not within {within_s:g} s: {what}")
        time.sleep(LOOK_EVERY_S)


class Steered:
    """What all handles have: faults and deeds by name, for one device or for a terminal's (`set("receipt-printer", "paper-out")`)."""

    def __init__(self, terminal: VirtualTerminal, only: str | None) -> None:
        self.terminal = terminal
        self._only = only

    def set(self, *words: str, for_s: float | None = None) -> None:
        """Start a fault: its name, behind the device's name where there are several."""
        self.terminal.do(["fault", *self._named(words)], for_s=for_s)

    def clear(self, *words: str) -> None:
        self.terminal.do(["clear", *self._named(words)])

    def press(self, *words: str) -> None:
        """Something a person does: `press("scan", "HELLO")`."""
        self.terminal.do(["press", *self._named(words)])

    def play(self, script: str | Path) -> None:
        """A fault script, as text or as a file. Its time begins now."""
        self.terminal.play(scripts.load(script) if isinstance(script, Path) else scripts.parse(script))

    def faults(self) -> dict[str, list[str]]:
        """What is set now."""
        return self.terminal.faults()

    def _named(self, words: tuple[str, ...]) -> tuple[str, ...]:
        return words if self._only is None else (self._only, *words)


class Device(Steered):
    """One device behind a port. `path` is the tty; `backend` is what pyusb takes."""

    def __init__(
        self,
        slot: Slot,
        terminal: VirtualTerminal,
        *,
        path: Path | None = None,
        backend: Any = None,
        profile: Profile | None = None,
    ) -> None:
        super().__init__(terminal, slot.name)
        self.profile = profile
        self.slot = slot
        self.model: Model = slot.model
        self._path = path
        self._backend = backend

    @property
    def path(self) -> Path:
        assert self._path is not None, "this device is not on a pty"
        return self._path

    @property
    def backend(self) -> Any:
        assert self._backend is not None, "this device is not on USB"
        return self._backend

    def wait_asked(self, times: int = 1, *, within_s: float = WITHIN_S) -> None:
        """Until the host has written so many times since this call."""
        wanted = self.model.frames_in + times
        wait_for(lambda: self.model.frames_in >= wanted, f"{times} questions to the {self.slot.name}", within_s=within_s)

    def wait_plugged(self, plugged: bool = True, *, within_s: float = WITHIN_S) -> None:
        """Until the port is there, or is gone."""

        def is_so() -> bool:
            there = self.model.plugged if self._path is None else self._path.exists()
            return there is plugged

        wait_for(is_so, f"the {self.slot.name} {'plugged in' if plugged else 'unplugged'}", within_s=within_s)


class Terminal(Steered):
    """A whole terminal, its serial devices on ptys below `folder`."""

    def __init__(self, terminal: VirtualTerminal, folder: Path) -> None:
        super().__init__(terminal, None)
        self.folder = folder

    def ports(self) -> list[dict[str, Any]]:
        """What is where, as `ports.json` has it."""
        return [entry for entry in self.terminal.ports() if entry["bus"] == "serial"]

    def path(self, device: str) -> Path:
        return Path(self.terminal.slots[device].path)

    def model(self, device: str) -> Model:
        return self.terminal.model(device)

    def wait_fault(self, device: str, fault: str, *, there: bool = True, within_s: float = WITHIN_S) -> None:
        """Until a script has set a fault, or has ended it."""
        wait_for(
            lambda: (fault in self.faults().get(device, [])) is there,
            f"{device} {fault} {'set' if there else 'over'}",
            within_s=within_s,
        )


class Kit:
    """Starts devices and terminals, and ends them all with itself. `folder` holds the ptys' links."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ending: list[Callable[[], None]] = []
        self._numbers = itertools.count(1)

    def __enter__(self) -> Kit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        while self._ending:
            self._ending.pop()()

    def pty(self, what: str | Path | Model, *, baud: int | None = None, seed: int = 0) -> Device:
        """A serial device behind a pseudo-terminal: a type (`kiosk-sim faults` lists them), a profile's id, its TOML file, or a model of your own."""
        slot = self._slot(what, baud, seed)
        if slot.model.usb is not None:
            raise SimulatorError(f"“{what}” is a USB device: kit.usb(…).")
        path = self._folder / f"{slot.name}-{next(self._numbers)}"
        slot = Slot(slot.name, slot.model, "serial", str(path))
        device = Device(slot, self._terminal([slot]), path=path)
        pty = ThreadPty(slot.model, path)
        self._ending.append(pty.close)
        return device

    def usb(self, what: str | Path | Model, *, seed: int = 0) -> Device:
        """A device on a simulated USB bus; `device.backend` is for `usb.core.find(backend=…)` and for python-escpos."""
        from simulators.ports.usb_backend import SimulatedUsbBackend

        slot = self._slot(what, None, seed)
        if slot.model.usb is None:
            raise SimulatorError(f"“{what}” is no USB device: kit.pty(…).")
        slot = Slot(slot.name, slot.model, "usb", "1-1.2", "1-1.2")
        return Device(slot, self._terminal([slot]), backend=SimulatedUsbBackend([slot]))

    def pipe(
        self, what: str | Path | Model, *, profile: str | Path | None = None, kit: PortKit | None = None, seed: int = 0
    ) -> tuple[Device, PipeOpener, PipeDiscoverer]:
        """(device, opener, discoverer) in memory, on the running loop's time: for asynchronous code, also in virtual time.

        `profile` (an id or a file) becomes `device.profile`, which the opener takes the line speed from.
        """
        from simulators.files import load_profile

        slot = self._slot(what, None, seed)
        terminal = VirtualTerminal("bench", [slot], clock=asyncio.get_running_loop().time)
        device = Device(slot, terminal, profile=load_profile(str(profile))[1] if profile else None)
        return device, terminal.opener(kit), terminal.discoverer(kit)

    def terminal(self, kind: str, *, seed: int = 0, windows: int | None = None) -> Terminal:
        """A terminal by type (kiosk, call-pads, zone, booth, desk, evaluator, van) with its serial devices."""
        folder = self._folder / f"{kind}-{next(self._numbers)}"
        terminal = on_ptys(build_terminal(kind, seed=seed, serial_only=True, windows=windows), folder)
        for slot in terminal.slots.values():
            path = Path(slot.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._ending.append(ThreadPty(slot.model, path).close)
        self._ending.append(Agenda(terminal).close)
        return Terminal(terminal, folder)

    def _terminal(self, slots: list[Slot]) -> VirtualTerminal:
        terminal = VirtualTerminal("bench", slots)
        self._ending.append(Agenda(terminal).close)
        return terminal

    def _slot(self, what: str | Path | Model, baud: int | None, seed: int) -> Slot:
        if isinstance(what, Model):
            return Slot(what.kind, what, "usb" if what.usb else "serial", "-")
        word = str(what)
        if word in DEVICE_TYPES:
            model = DEVICE_TYPES[word].make(seed, baud)
            return Slot(word, model, "usb" if model.usb else "serial", "-")
        return self._by_profile(word, seed)

    @staticmethod
    def _by_profile(word: str, seed: int) -> Slot:
        from simulators.files import load_profile
        from simulators.standins import slot_for

        try:
            profile = load_profile(word)[1]
        except SimulatorError:
            if word.endswith(".toml"):
                raise
            raise unknown("device type or profile", word, list(DEVICE_TYPES)) from None
        return slot_for(profile, seed=seed)


class Agenda:
    """Runs a terminal's agenda (faults that end, scripts) in a thread, which sleeps while there is nothing to do."""

    def __init__(self, terminal: VirtualTerminal) -> None:
        self._terminal = terminal
        self._changed = threading.Condition()
        self._over = False
        self._thread: threading.Thread | None = None
        terminal.on_agenda = self._wake

    def _wake(self) -> None:
        with self._changed:
            if self._thread is None:  # most devices never get a script
                self._thread = threading.Thread(target=self._run, name="agenda", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._over:
                    return
                due = self._terminal.next_due()
                wait_s = None if due is None else due - self._terminal.clock()
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
            self._terminal.advance(self._terminal.clock())

    def close(self) -> None:
        self._terminal.on_agenda = lambda: None
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
