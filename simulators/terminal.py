"""A virtual terminal: named devices in their places, an agenda of what will happen to them, and the ports an agent finds them by.

The same terminal serves an agent in this process (`opener`, `discoverer`) or agents in processes of their own (ptys in a directory, see `serve`).
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from simulators.errors import UnknownName, unknown
from simulators.models.base import Controllable, Model, UsbIdentity
from simulators.models.callpad import CallPadBus
from simulators.models.card_d1801 import D1801Dispenser
from simulators.models.card_f2 import F2CardReader, F2CardUnit
from simulators.models.ccid import USB_ACR39U, USB_R502, CcidReader
from simulators.models.escpos import USB_POS58, USB_SNBC, EscposPrinter
from simulators.models.gps import USB_UBLOX, USB_UBLOX8, GpsReceiver
from simulators.models.ipp import IppPrinter
from simulators.models.keys import EmergencyButton, EvaluatorPad, HelpButton, HidScanner, KeyDevice, Keypad
from simulators.models.laser import USB_LJ2650, USB_PANTUM, LaserPrinter
from simulators.models.modbus import ClimateModule, DoorModule, ModbusBus
from simulators.models.presence import (
    USB_DOCUMENT_CAMERA,
    USB_FINGERPRINT,
    USB_MODEM,
    USB_ROOM_CAMERA,
    USB_SIGNATURE_PAD,
    Camera,
    Display,
    Microphone,
    SeenDevice,
    Speaker,
    TouchScreen,
)
from simulators.models.rating import RatingPad
from simulators.models.scanner import USB_NEWLAND_CDC, SerialScanner
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, SdtReader
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.pipe import PipeDiscoverer, PipeOpener, PortKit
from simulators.ports.slots import CH340, CP2102, FT232, Bus, Slot
from simulators.scripts import Step

TYPES: Mapping[str, str] = {
    "kiosk": "integrated self-service kiosk: ID reader, A4 and receipt printer, scanner, keypad, evaluator",
    "zone": "kiosk of a 24-hour zone: the same, with door, smoke, water and climate sensors",
    "call-pads": "queue hall: ticket printer and call pads with evaluators on one RS-485 bus",
    "booth": "remote-assist booth: ID reader, A4 and receipt printer, scanner, evaluator, door and climate sensors",
    "desk": "unattended desk: ID reader, A4 printer, scanner, evaluator, door and climate sensors",
    "evaluator": "evaluation tablet at a window: its touch screen, and what hangs on it: ID reader, cameras, signature pad",
    "van": "service van: ID reader, A4 printer, scan gun, climate sensor",
}
ALIASES: Mapping[str, str] = {"a4-printer": "laser-printer", "printer": "receipt-printer", "ticket-printer": "receipt-printer"}
SERIAL_PROFILES: Mapping[str, str] = {
    "id-reader": "sdt-serial",
    "receipt-printer": "receipt-printer-serial",
    "scanner": "newland-uart",
    "call-pad": "call-pad-ft12",
    "climate": "xy-md02",
    "contacts": "di-module-8",
    "ups": "megatec-serial",
    "gps": "nmea-serial",
    "evaluator": "evaluator-serial-byte",
    "window-screen": "window-screen-ft12",
}
"""Profile of each kind of device behind a plain serial line."""
OPTIONAL = frozenset({"keypad", "evaluator"})
"""Devices without which the terminal still serves the public."""


@dataclass(order=True)
class _Appointment:
    at: float
    order: int
    run: Callable[[float], None] = field(compare=False)


class VirtualTerminal:
    """Devices by name and a clock. `advance` must be called when `next_due` says so; `Ticker` does that on an event loop."""

    def __init__(self, kind: str, slots: Iterable[Slot], *, name: str = "", clock: Callable[[], float] = time.monotonic) -> None:
        self.kind = kind
        self.name = name or kind
        self.clock = clock
        self.slots: dict[str, Slot] = {slot.name: slot for slot in slots}
        self._agenda: list[_Appointment] = []
        self._order = itertools.count()
        self.on_agenda: Callable[[], None] = lambda: None
        """Called when something was put on the agenda."""

    # ------------------------------------------------------------------ for agents in this process

    def opener(self, kit: PortKit | None = None) -> PipeOpener:
        return PipeOpener(self.slots.values(), kit, self.clock)

    def discoverer(self, kit: PortKit | None = None) -> PipeDiscoverer:
        return PipeDiscoverer(self.slots.values(), kit)

    def model(self, name: str) -> Model:
        return self._slot(name).model

    # ------------------------------------------------------------------ remote control by name

    def set(self, device: str, fault: str, *, for_s: float | None = None) -> None:
        """Start a fault, for a while if `for_s` is given. `device` may name a unit: `call-pad 3`, `call-pad-3`, `door`."""
        self._set(device.split(), fault, for_s, self.clock())

    def clear(self, device: str, fault: str) -> None:
        target, _ = self._resolve(device.split())
        target.clear(fault, self.clock())

    def press(self, device: str, action: str, *args: str) -> None:
        """A person acts on a device: `press("call-pad 3", "call-next")`, `press("scanner", "scan", "HELLO")`."""
        target, _ = self._resolve(device.split())
        target.act(action, self.clock(), *args)

    def do(self, words: Sequence[str], *, for_s: float | None = None) -> None:
        """A whole command: `fault DEVICE [UNIT] FAULT`, `clear …`, `press DEVICE [UNIT] ACTION [ARGUMENT…]`."""
        self._do(words, for_s, self.clock())

    def play(self, steps: Iterable[Step]) -> int:
        """Put a script on the agenda, its time zero being now. UnknownName at once if it names what is not there."""
        steps = tuple(steps)
        for step in steps:
            self._check(step.words)
        start = self.clock()
        for step in steps:
            self._appoint(start + step.at_s, self._runner(step, start + step.at_s))
        return len(steps)

    def stop_script(self) -> None:
        """Forget everything on the agenda; faults that are set stay set."""
        self._agenda.clear()

    def faults(self) -> dict[str, list[str]]:
        """Faults that are set now, by device and unit."""
        active = {name: sorted(slot.model.active_faults) for name, slot in self.slots.items()}
        for name, slot in self.slots.items():
            active |= {_unit_name(name, unit): sorted(part.active_faults) for unit, part in slot.model.units.items()}
        return {name: faults for name, faults in active.items() if faults}

    def help(self) -> dict[str, dict[str, Mapping[str, str]]]:
        """Fault and action names with one line of help, by device and unit."""
        listing: dict[str, dict[str, Mapping[str, str]]] = {}
        for name, slot in self.slots.items():
            parts: dict[str, Controllable] = {name: slot.model}
            parts |= {_unit_name(name, unit): part for unit, part in slot.model.units.items()}
            for part_name, part in parts.items():
                listing[part_name] = {"faults": part.fault_help, "actions": part.action_help}
        return listing

    # ------------------------------------------------------------------ time

    def advance(self, now: float) -> None:
        """Run what is due."""
        while self._agenda and self._agenda[0].at <= now:
            heapq.heappop(self._agenda).run(now)

    def next_due(self) -> float | None:
        return self._agenda[0].at if self._agenda else None

    # ------------------------------------------------------------------ description for agents in other processes

    def ports(self) -> list[dict[str, Any]]:
        """Where each device is, as plain data: one entry per inventory place, several on a shared bus.

        `profile` is named only where the hardware cannot say itself what it is (a plain serial line).
        """
        entries: list[dict[str, Any]] = []
        for slot in self.slots.values():
            if isinstance(slot.model, CallPadBus):
                for address, pad in sorted(slot.model.pads.items()):
                    name = pad.unit if pad.is_screen else f"{slot.name}-{address}"
                    entries.append(_place(slot, "window-screen" if pad.is_screen else "call-pad", name, address))
            elif isinstance(slot.model, ModbusBus):
                entries += [_place(slot, module.kind, module.name, module.address) for module in slot.model.modules.values()]
            else:
                entries.append(_place(slot, slot.model.kind, slot.name))
        return entries

    # ------------------------------------------------------------------ private

    def _set(self, words: Sequence[str], fault: str, for_s: float | None, now: float) -> None:
        target, _ = self._resolve(words)
        target.set(fault, now)
        if for_s is not None:
            self._appoint(now + for_s, lambda later: target.clear(fault, later))

    def _do(self, words: Sequence[str], for_s: float | None, now: float) -> None:
        verb, target, rest = self._check(words)
        if verb == "fault":
            target.set(rest[0], now)
            if for_s is not None:
                self._appoint(now + for_s, lambda later: target.clear(rest[0], later))
        elif verb == "clear":
            target.clear(rest[0], now)
        else:
            target.act(rest[0], now, *rest[1:])

    def _check(self, words: Sequence[str]) -> tuple[str, Controllable, list[str]]:
        if len(words) < 3 or words[0] not in ("fault", "clear", "press", "do"):
            raise UnknownName(f"“{' '.join(words)}” is not a command such as: fault receipt-printer paper-out.")
        target, rest = self._resolve(words[1:])
        if not rest:
            raise UnknownName(f"“{' '.join(words)}” does not say what should happen.")
        known = target.fault_help if words[0] in ("fault", "clear") else target.action_help
        if rest[0] not in known:
            raise unknown("fault" if words[0] in ("fault", "clear") else "action", rest[0], list(known))
        return words[0], target, rest

    def _resolve(self, words: Sequence[str]) -> tuple[Controllable, list[str]]:
        """The device or unit that `words` start with, and what is left of them."""
        if not words:
            raise UnknownName("No device was named.")
        first, rest = ALIASES.get(words[0], words[0]), list(words[1:])
        if first in self.slots:
            model = self.slots[first].model
            if rest and rest[0] in model.units:
                return model.units[rest[0]], rest[1:]
            return model, rest
        for name, slot in self.slots.items():
            for unit, part in slot.model.units.items():
                if first in (f"{name}-{unit}", unit) and not first.isdecimal():
                    return part, rest
        raise unknown(f"device in this {self.kind}", words[0], list(self.help()))

    def _slot(self, name: str) -> Slot:
        slot = self.slots.get(ALIASES.get(name, name))
        if slot is None:
            raise unknown(f"device in this {self.kind}", name, list(self.slots))
        return slot

    def _runner(self, step: Step, at: float) -> Callable[[float], None]:
        def run(now: float) -> None:
            self._do(step.words, step.for_s, now)
            if step.every_s is not None:
                following = max(at + step.every_s, now - step.every_s)
                self._appoint(following, self._runner(step, following))

        return run

    def _appoint(self, at: float, run: Callable[[float], None]) -> None:
        heapq.heappush(self._agenda, _Appointment(at, next(self._order), run))
        self.on_agenda()


class Ticker:
    """Runs the agendas of terminals on the running loop: one timer each, none while an agenda is empty."""

    def __init__(self, terminals: Iterable[VirtualTerminal]) -> None:
        self._loop = asyncio.get_running_loop()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._terminals = list(terminals)
        for terminal in self._terminals:
            terminal.on_agenda = self._follow(terminal)
            terminal.on_agenda()

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.on_agenda = lambda: None
        for timer in self._timers.values():
            timer.cancel()

    def _follow(self, terminal: VirtualTerminal) -> Callable[[], None]:
        key = id(terminal)

        def arm() -> None:
            if key in self._timers:
                self._timers.pop(key).cancel()
            due = terminal.next_due()
            if due is not None:
                self._timers[key] = self._loop.call_later(max(0.0, due - terminal.clock()), fire)

        def fire() -> None:
            self._timers.pop(key, None)
            terminal.advance(terminal.clock())
            arm()

        return arm


# ---------------------------------------------------------------------------------------------------------------------- inventories


def build_terminal(
    kind: str,
    *,
    name: str = "",
    seed: int = 0,
    serial_only: bool = False,
    windows: int | None = None,
    climate: bool | None = None,
    whole: bool = False,
    epoch_s: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> VirtualTerminal:
    """A terminal of type `kind` with the usual inventory; models and connections vary with `seed`.

    `serial_only`: every device speaks over a byte line (for ptys); keyboards and the A4 printer, whose status needs USB requests, are left out.
    `windows`: call pads on the bus. `climate`: a kiosk has door and climate sensors, as in 24-hour zones. `whole`: all that stands in such a
    terminal, cameras, screens, sound, card readers, buttons, supply and position too; the devices without it keep their places and models.
    `epoch_s`: wall time at the clock's zero, for devices that tell the time.
    """
    if kind not in TYPES:
        raise unknown("terminal type", kind, list(TYPES))
    choice = random.Random(f"terminal {'kiosk' if kind == 'zone' else kind} {name} {seed}")
    if windows is None:
        windows = choice.randint(4, 8)
    if climate is None:
        climate = kind != "kiosk" or choice.random() < 0.15
    builder = _Builder(seed, serial_only, choice)
    {
        "kiosk": lambda: builder.kiosk(climate=bool(climate)),
        "zone": lambda: builder.kiosk(climate=True, watched=True),
        "call-pads": lambda: builder.call_pads(windows, screens=windows if whole else 0),
        "booth": builder.booth,
        "desk": builder.desk,
        "evaluator": builder.evaluator,
        "van": builder.van,
    }[kind]()
    if whole:
        _Rest(builder, random.Random(f"rest {kind} {name} {seed}"), epoch_s).of(kind)
    return VirtualTerminal(kind, builder.slots, name=name, clock=clock)


class _Builder:
    """Puts devices behind one USB hub, in the order in which they are added."""

    def __init__(self, seed: int, serial_only: bool, choice: random.Random) -> None:
        self.slots: list[Slot] = []
        self.seed = seed
        self.serial_only = serial_only
        self._choice = choice
        self._ports = itertools.count(1)
        self._ttys = itertools.count()
        self._inputs = itertools.count(3)

    def kiosk(self, *, climate: bool, watched: bool = False) -> None:
        """`watched`: nobody is there at night but the sensors, so that without them the room may not be open."""
        self.id_reader()
        self.laser_printer()
        self.receipt_printer()
        self.scanner(keyboard=self._choice.random() < 0.5)
        self.keys(Keypad(seed=self.seed), "keypad")
        self.keys(EvaluatorPad(seed=self.seed), "evaluator")
        if climate:
            self.sensors(mandatory=watched)

    def call_pads(self, windows: int, *, screens: int = 0) -> None:
        self.receipt_printer()
        self.serial("call-pad", CallPadBus(addresses=tuple(range(1, windows + 1)), screens=screens, seed=self.seed))

    def booth(self) -> None:
        self.id_reader()
        self.laser_printer()
        self.receipt_printer(mandatory=False)
        self.scanner(keyboard=False, mandatory=False)
        self.keys(EvaluatorPad(seed=self.seed), "evaluator")
        self.sensors()

    def desk(self) -> None:
        self.id_reader()
        self.laser_printer()
        self.scanner(keyboard=True)
        self.keys(EvaluatorPad(seed=self.seed), "evaluator")
        self.sensors()

    def evaluator(self) -> None:
        self.id_reader(mandatory=False)

    def van(self) -> None:
        self.id_reader()
        self.laser_printer()
        self.scanner(keyboard=True)
        self.sensors(door=False)

    # ------------------------------------------------------------------ single devices

    def id_reader(self, *, mandatory: bool = True) -> None:
        form = None if self.serial_only else self._choice.choice((USB_SPLIT, USB_SPLIT, USB_WHOLE, None))
        if form is None:
            self.serial("id-reader", SdtReader(seed=self.seed), mandatory=mandatory)
        else:
            self.usb("id-reader", SdtReader(usb=form, seed=self.seed), mandatory=mandatory)

    def laser_printer(self) -> None:
        pages = self._choice.randrange(200, 60_000)
        if self.serial_only:
            return
        if self._choice.random() < 0.7:
            self.usb("laser-printer", LaserPrinter(usb=USB_LJ2650, page_count=pages, seed=self.seed))
        else:
            host_based = LaserPrinter(
                usb=USB_PANTUM, maker="Pantum", model_name="P2000 series", page_count=pages, pjl=False, seed=self.seed
            )
            self.usb("laser-printer", host_based)

    def receipt_printer(self, *, mandatory: bool = True) -> None:
        form = None if self.serial_only else self._choice.choice((USB_SNBC, USB_POS58, None))
        if form is None:
            self.serial("receipt-printer", EscposPrinter(seed=self.seed), mandatory=mandatory)
        elif form is USB_SNBC:
            printer = EscposPrinter(usb=form, maker="SNBC", model_name="BTP-R880", firmware="FV1.040", seed=self.seed)
            self.usb("receipt-printer", printer, mandatory=mandatory)
        else:
            plain = EscposPrinter(
                usb=form,
                maker="STMicroelectronics",
                model_name="POS58",
                roll_mm=30_000,
                has_near_end_sensor=False,
                has_text_ids=False,
                has_process_id=False,
                constant_port_status=0x18,
                seed=self.seed,
            )
            self.usb("receipt-printer", plain, mandatory=mandatory)

    def scanner(self, *, keyboard: bool, mandatory: bool = True) -> None:
        if keyboard and not self.serial_only:
            self.keys(HidScanner(seed=self.seed), "scanner", mandatory=mandatory)
        elif not self.serial_only and self._choice.random() < 0.5:
            model = SerialScanner(rs232=False, seed=self.seed)
            self.serial("scanner", model, mandatory=mandatory, adapter=USB_NEWLAND_CDC, node="ttyACM")
        else:
            self.serial("scanner", SerialScanner(seed=self.seed), mandatory=mandatory)

    def sensors(self, *, door: bool = True, mandatory: bool = False) -> None:
        temperature_tenths = self._choice.randrange(215, 285)
        climate = ClimateModule(1, temperature_tenths=temperature_tenths, humidity_tenths=self._choice.randrange(420, 620))
        modules = (climate, DoorModule(2)) if door else (climate,)
        self.serial("sensors", ModbusBus(*modules, seed=self.seed), mandatory=mandatory)

    def keys(self, model: KeyDevice, name: str, *, mandatory: bool | None = None) -> None:
        if self.serial_only:
            return
        wanted = name not in OPTIONAL if mandatory is None else mandatory
        path = f"/dev/input/event{next(self._inputs)}"
        self.slots.append(Slot(name, model, "input", path, self._port(), mandatory=wanted))

    def serial(
        self,
        name: str,
        model: Model,
        *,
        mandatory: bool | None = None,
        adapter: UsbIdentity | None = None,
        node: str = "ttyUSB",
    ) -> None:
        """A tty. Without an `adapter` of its own the device hangs on one of the usual bridge chips."""
        wanted = name not in OPTIONAL if mandatory is None else mandatory
        bridge = adapter or self._choice.choice((CH340, CH340, CP2102, FT232))
        path = f"/dev/{node}{next(self._ttys)}"
        self.slots.append(Slot(name, model, "serial", path, self._port(), adapter=bridge, mandatory=wanted))

    def usb(self, name: str, model: Model, *, mandatory: bool = True) -> None:
        if self.serial_only:
            return
        place = self._port()
        self.slots.append(Slot(name, model, "usb", place, place, mandatory=mandatory))

    def seen(
        self,
        name: str,
        model: SeenDevice,
        bus: Bus,
        path: str,
        *,
        on_usb: bool = True,
        mandatory: bool = True,
        profile: str | None = None,
    ) -> None:
        """A device that is only looked at; on pseudo terminals nobody can see it."""
        if not self.serial_only:
            place = self._port() if on_usb else None
            path = path if bus != "usb" else str(place)
            self.slots.append(Slot(name, model, bus, path, place, mandatory=mandatory, profile=profile))

    def _port(self) -> str:
        return f"1-1.{next(self._ports)}"


class _Rest:
    """What completes a terminal: devices that are only seen, and those whose families came later. They are added behind the others."""

    def __init__(self, builder: _Builder, choice: random.Random, epoch_s: float | None) -> None:
        self._add = builder
        self._choice = choice
        self._epoch_s = epoch_s
        self._seed = builder.seed
        self._videos = itertools.count()

    def of(self, kind: str) -> None:
        {
            "kiosk": self._kiosk,
            "zone": self._zone,
            "call-pads": self._hall,
            "booth": self._booth,
            "desk": self._desk,
            "evaluator": self._evaluator,
            "van": self._van,
        }[kind]()

    def _kiosk(self) -> None:
        self._front()
        self._camera("face-camera")
        self._document_camera(mandatory=False)
        self._readers()
        self._signature_pad(mandatory=False)
        self._sound(mandatory=False)
        self._help(mandatory=False)
        self._ups()
        self._card_unit("card-reader-2", F2CardReader(seed=self._seed))

    def _zone(self) -> None:
        self._kiosk()
        self._emergency()
        self._camera("room-camera")
        self._card_unit("card-dispenser", F2CardUnit(seed=self._seed))
        self._network_printer("laser-printer-2")

    def _hall(self) -> None:
        self._add.seen("display", Display(seed=self._seed), "display", "card0-HDMI-A-1", on_usb=False)
        self._speaker(mandatory=True)
        for number in (1, 2):
            self._add.serial(f"evaluator-{number}", RatingPad(seed=self._seed + number), mandatory=False, adapter=CH340)
        self._ups(mandatory=False)
        self._add.id_reader(mandatory=False)
        self._add.scanner(keyboard=False, mandatory=False)

    def _booth(self) -> None:
        self._front()
        self._camera("face-camera", heads=2)
        self._document_camera()
        self._readers()
        self._signature_pad()
        self._sound()
        self._emergency()
        self._camera("room-camera", mandatory=False)
        self._ups(mandatory=False)

    def _desk(self) -> None:
        self._front()
        self._camera("face-camera", mandatory=False)
        self._readers()
        self._signature_pad(mandatory=False)
        self._sound(mandatory=False)
        self._help()
        self._emergency()
        self._ups(mandatory=False)
        self._card_unit("card-dispenser", D1801Dispenser(seed=self._seed))
        self._add.receipt_printer(mandatory=False)
        self._document_camera(mandatory=False)
        self._camera("room-camera", mandatory=False)

    def _evaluator(self) -> None:
        self._front()
        self._camera("face-camera", mandatory=False)
        self._readers()
        self._signature_pad(mandatory=False)
        self._speaker(mandatory=False)

    def _van(self) -> None:
        self._front()
        self._camera("face-camera")
        self._document_camera()
        self._readers()
        self._speaker(mandatory=False)
        self._ups()
        adapter = USB_UBLOX8 if self._choice.random() < 0.5 else CH340
        baud = None if adapter is USB_UBLOX8 and not self._add.serial_only else 9600
        receiver = GpsReceiver(baud=baud, epoch_s=self._epoch_s, seed=self._seed)
        self._add.serial("gps", receiver, adapter=adapter, node="ttyACM" if adapter is USB_UBLOX8 else "ttyUSB")
        self._add.seen("modem", SeenDevice("modem", usb=USB_MODEM, seed=self._seed), "usb", "")
        self._add.receipt_printer(mandatory=False)
        self._signature_pad(mandatory=False)
        self._microphone(mandatory=False)
        self._help(mandatory=False)

    # ------------------------------------------------------------------ groups

    def _front(self) -> None:
        """What a citizen touches and looks at."""
        self._add.seen("touch-screen", TouchScreen(seed=self._seed), "input", "/dev/input/event1")
        self._add.seen("display", Display(seed=self._seed), "display", "card0-HDMI-A-1", on_usb=False)

    def _camera(self, name: str, *, heads: int = 1, mandatory: bool = True) -> None:
        camera = Camera(heads=heads, seed=self._seed) if heads > 1 else Camera(usb=USB_ROOM_CAMERA, seed=self._seed)
        profile = "camera-uvc-dual" if heads > 1 else None
        self._add.seen(name, camera, "video", self._video(), mandatory=mandatory, profile=profile)

    def _document_camera(self, *, mandatory: bool = True) -> None:
        camera = Camera("document-camera", usb=USB_DOCUMENT_CAMERA, seed=self._seed)
        self._add.seen("document-camera", camera, "video", self._video(), mandatory=mandatory)

    def _readers(self) -> None:
        finger = SeenDevice("fingerprint-reader", usb=USB_FINGERPRINT, seed=self._seed)
        self._add.seen("fingerprint-reader", finger, "usb", "", mandatory=False)
        contactless = self._choice.random() < 0.5
        reader = CcidReader(usb=USB_R502 if contactless else USB_ACR39U, contactless=contactless, seed=self._seed)
        self._add.usb("card-reader", reader, mandatory=False)

    def _network_printer(self, name: str) -> None:
        """An A4 printer on the terminal's own network, which answers IPP about itself."""
        if not self._add.serial_only:
            uri = f"ipp://127.0.0.1:{60_000 + self._choice.randrange(5_000)}/ipp/print"
            self._add.slots.append(Slot(name, IppPrinter(uri=uri, seed=self._seed), "ipp", uri, mandatory=False))

    def _card_unit(self, name: str, model: Model) -> None:
        """A motorised reader, or a dispenser of social-security cards."""
        self._add.serial(name, model, mandatory=False, adapter=self._choice.choice((CH340, CP2102)))

    def _signature_pad(self, *, mandatory: bool = True) -> None:
        pad = SeenDevice("signature-pad", usb=USB_SIGNATURE_PAD, seed=self._seed)
        self._add.seen("signature-pad", pad, "usb", "", mandatory=mandatory)

    def _sound(self, *, mandatory: bool = True) -> None:
        self._microphone(mandatory=mandatory)
        self._speaker(mandatory=mandatory)

    def _microphone(self, *, mandatory: bool) -> None:
        self._add.seen("microphone", Microphone(seed=self._seed), "sound", "/dev/snd/pcmC1D0c", mandatory=mandatory)

    def _speaker(self, *, mandatory: bool) -> None:
        self._add.seen("speaker", Speaker(seed=self._seed), "sound", "/dev/snd/pcmC0D0p", on_usb=False, mandatory=mandatory)

    def _help(self, *, mandatory: bool = True) -> None:
        self._add.keys(HelpButton(seed=self._seed), "help-button", mandatory=mandatory)

    def _emergency(self) -> None:
        self._add.keys(EmergencyButton(seed=self._seed), "emergency-button", mandatory=True)

    def _ups(self, *, mandatory: bool = True) -> None:
        if not self._add.serial_only and self._choice.random() < 0.4:
            self._add.usb("ups", Ups(usb=USB_CYPRESS, per_cell=True, seed=self._seed), mandatory=mandatory)
        else:
            self._add.serial("ups", Ups(seed=self._seed), mandatory=mandatory, adapter=self._choice.choice((CH340, FT232)))

    def _video(self) -> str:
        return f"/dev/video{2 * next(self._videos)}"


def _place(slot: Slot, kind: str, name: str, address: int | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"slot": name, "family": kind, "bus": slot.bus, "port": slot.place, "mandatory": slot.mandatory}
    if slot.model.baud is not None:
        entry["baud"] = slot.model.baud
    if address is not None:
        entry["address"] = address
    if slot.profile is not None:
        entry["profile"] = slot.profile
    elif slot.bus == "serial" and slot.adapter not in (USB_NEWLAND_CDC, *USB_UBLOX):
        entry["profile"] = slot.model.profile or SERIAL_PROFILES[kind]
    return entry


def _unit_name(device: str, unit: str) -> str:
    return f"{device}-{unit}"
