"""The bench process: a terminal's devices in a umockdev testbed, for programs that run unchanged under LD_PRELOAD=libumockdev-preload.so.0.

    LD_PRELOAD=libumockdev-preload.so.0 python3 -m simulators.ports.umockdev_bench DIR kiosk        (started by `kiosk-sim terminal kiosk --umockdev`)

Needs the system's Python with python3-gi and gir1.2-umockdev-1.0; of this project only what is plain Python. DIR gets `bench.json` when everything
is plugged in (the variables for other programs, and what is where) and the control socket of `simulators.control`. Three kinds of devices:
USB devices (usbfs), keyboards (evdev) and byte lines, which become ttys behind their USB adapter, with udev's names and properties.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from simulators.catalogue import DEVICE_TYPES
from simulators.control import ControlServer
from simulators.models.base import Endpoint, Model, UsbIdentity
from simulators.models.escpos import USB_SNBC, EscposPrinter
from simulators.models.keys import KeyDevice
from simulators.models.laser import LaserPrinter
from simulators.models.sdt import USB_SPLIT, USB_WHOLE, SdtReader
from simulators.models.ups import USB_CYPRESS, Ups
from simulators.ports.slots import CH340, Bus, Slot
from simulators.ports.umockdev_input import InputNode
from simulators.ports.umockdev_usb import UsbNode
from simulators.ports.usb_raw import Lie, RawDevice
from simulators.terminal import Ticker, VirtualTerminal, build_terminal

READY_FILE = "bench.json"
PUMP_EVERY_S = 0.002
EVENTS_MAX, EVENTS_WITHIN_S = 4, 0.3
"""A listener that lets events settle for 0.2 s keeps up with this."""
FIRST_ADDRESS = 2
CONTROLLER = "/devices/pci0000:00/0000:00:14.0"
ROOT_HUB = f"{CONTROLLER}/usb1"
HUB = UsbIdentity(0x05E3, 0x0608, (Endpoint(0x81, 1, 3),), interface_class=9, product="USB2.0 Hub", device_class=9)

USB_FORMS: Mapping[str, Callable[[int], Model]] = {
    "sdt-split": lambda seed: SdtReader(usb=USB_SPLIT, seed=seed),
    "sdt-whole": lambda seed: SdtReader(usb=USB_WHOLE, seed=seed),
    "escpos-usb": lambda seed: EscposPrinter(usb=USB_SNBC, maker="SNBC", model_name="BTP-R880", firmware="FV1.040", seed=seed),
    "pjl-usb": lambda seed: LaserPrinter(seed=seed),
    "ups-usb": lambda seed: Ups(usb=USB_CYPRESS, seed=seed),
}
"""Devices on USB, besides those of the catalogue."""

SEEN: Mapping[str, tuple[Bus, str]] = {
    "camera": ("video", "/dev/video0"),
    "display": ("display", "card0-HDMI-A-1"),
    "touch-screen": ("input", "/dev/input/event90"),
    "microphone": ("sound", "/dev/snd/pcmC1D0c"),
    "speaker": ("sound", "/dev/snd/pcmC0D0p"),
}
"""Devices that are only seen, and where."""


def slots_of(wanted: Sequence[Mapping[str, Any]]) -> list[Slot]:
    """Slots for `[{"slot": …, "type": …, "at": "1-1.2"}, …]`; the type is one of the catalogue's or of USB_FORMS."""
    slots = []
    ttys = inputs = 0
    for number, one in enumerate(wanted):
        kind, place = str(one["type"]), str(one["at"])
        model = USB_FORMS[kind](number) if kind in USB_FORMS else DEVICE_TYPES[kind].make(number, None)
        if isinstance(model, KeyDevice):
            slots.append(Slot(one["slot"], model, "input", f"/dev/input/event{inputs + 3}", place))
            inputs += 1
        elif kind in SEEN:
            bus, path = SEEN[kind]
            slots.append(Slot(one["slot"], model, bus, path, None if bus == "display" or model.usb is None else place))
        elif model.usb is not None and model.usb.interface_class != CDC_DATA and kind not in LINES:
            slots.append(Slot(one["slot"], model, "usb", place, place))
        else:
            own = model.usb is not None
            node = "ttyACM" if own else "ttyUSB"
            slots.append(Slot(one["slot"], model, "serial", f"/dev/{node}{ttys}", place, adapter=model.usb if own else CH340))
            ttys += 1
    return slots


CDC_DATA = 0x0A
LINES = frozenset({"gps"})
"""On USB, and a tty all the same."""


@dataclass
class _Plugged:
    """What a slot has in the testbed now."""

    sysfs: list[str]
    nodes: list[str]
    usb: UsbNode | None
    look: tuple[int, int]
    input: InputNode | None = None
    tty_fd: int | None = None
    links: list[str] = field(default_factory=list)
    """Below /dev."""


@dataclass
class Bench:
    """A terminal in a testbed. `library` is gi's UMockdev."""

    library: Any
    terminal: VirtualTerminal
    lies: Mapping[str, Lie] = field(default_factory=dict)
    forbidden: frozenset[str] = frozenset()
    """Slots whose node may not be opened."""
    extras: Sequence[str] = ()
    """More devices, as umockdev records: a camera, a sound card, a display."""

    def __post_init__(self) -> None:
        self.testbed = self.library.Testbed.new()
        self._plugged: dict[str, _Plugged] = {}
        self._handlers: list[Any] = []
        self._address = FIRST_ADDRESS
        self._next_input = 3
        self._next_tty: dict[str, int] = {}
        """umockdev takes no node twice. A kernel gives the next number as well while somebody holds the old one open."""
        self._hubs: set[str] = set()
        self._told: list[float] = []
        self._running = False

    @property
    def environment(self) -> dict[str, str]:
        """What another program needs to see the devices."""
        return {"LD_PRELOAD": PRELOAD, "UMOCKDEV_DIR": str(self.testbed.get_root_dir())}

    def start(self) -> None:
        self._hub = RawDevice(Model(usb=HUB), HUB, self.terminal.clock)
        self._add(usb_record(ROOT_HUB, self._hub, "usb1", address=1))
        for slot in self.terminal.slots.values():
            self._plug(slot)
        for text in self.extras:
            self.testbed.add_from_string(text)
        self._running = True

    # ------------------------------------------------------------------ hot plug

    def follow(self) -> None:
        """Bring the testbed to what the models say: cables pulled and put back."""
        left = [
            slot
            for name, plugged in self._plugged.items()
            if not (slot := self.terminal.slots[name]).model.plugged or plugged.look != _look(slot.model)
        ]
        for slot in left:
            self._unplug(slot)
        if left:
            # A kernel tells of a removal when it is done; umockdev can only tell before. Whoever looked in between looks again.
            self._tell(ROOT_HUB, "change")
        for slot in self.terminal.slots.values():
            if slot.model.plugged and slot.name not in self._plugged:
                self._plug(slot)

    def pump(self) -> None:
        """Move bytes and keys between models and nodes."""
        for name, plugged in list(self._plugged.items()):
            slot = self.terminal.slots[name]
            if plugged.input is not None:
                plugged.input.pump()
            elif plugged.tty_fd is not None:
                self._pump_line(slot, plugged.tty_fd)
            else:
                slot.model.next_due()

    def _pump_line(self, slot: Slot, fd: int) -> None:
        now = self.terminal.clock()
        try:
            while data := os.read(fd, 4096):
                slot.model.feed(data, now)
        except BlockingIOError:
            pass
        except OSError as err:
            if err.errno != errno.EIO:  # nobody has the line open
                raise
        if out := slot.model.take(now, 4096):
            try:
                os.write(fd, out)
            except BlockingIOError:
                return  # nobody reads: the adapter's buffer is full and the rest is lost

    def _plug(self, slot: Slot) -> None:
        """What the kernel and udev would show. A service (PC/SC, IPP) is no device: it is not here."""
        if slot.bus in SERVICES:
            return
        if slot.usb_path is None:
            path, record = _seen_record(slot, "")
            self._add(record)
            self._plugged[slot.name] = _Plugged([path], [], None, _look(slot.model))
            return
        identity = slot.adapter or slot.model.usb
        assert identity is not None, f"{slot.name} is nothing on USB"
        self._plug_hubs(slot.usb_path)
        is_line = slot.bus == "serial"
        raw = RawDevice(slot.model, identity, self.terminal.clock, on_line=is_line, lie=self.lies.get(slot.name))
        node = UsbNode(raw, is_busy=lambda: slot.model.has("in-use"))
        if is_line:
            node.driver = "cdc_acm" if "ACM" in slot.path else "ch341"
        self._address += 1
        path = sysfs_path(slot.usb_path)
        dev = f"/dev/bus/usb/001/{self._address:03d}"
        plugged = _Plugged([path], [dev], node, _look(slot.model))
        self._attach(dev, node)
        self._add(usb_record(path, raw, slot.usb_path, address=self._address))
        self._settle_node(slot, dev)
        for number, interface in enumerate(raw.interfaces):
            child = f"{path}/{slot.usb_path}:1.{number}"
            self._add(interface_record(child, number, interface.triple, node.driver))
            plugged.sysfs.append(child)
        if isinstance(slot.model, KeyDevice):
            self._plug_keys(slot, plugged, identity)
        elif is_line:
            self._plug_tty(slot, plugged, identity)
        elif slot.bus != "usb":
            for head in range(_look(slot.model)[0]):
                child, record = _seen_record(slot, plugged.sysfs[1], head)
                self._add(record)
                plugged.sysfs.append(child)
        self._plugged[slot.name] = plugged

    def _plug_keys(self, slot: Slot, plugged: _Plugged, identity: UsbIdentity) -> None:
        assert isinstance(slot.model, KeyDevice)
        number, self._next_input = self._next_input, self._next_input + 1
        node = InputNode(slot.model, identity, str(slot.usb_path), self.terminal.clock)
        dev = f"/dev/input/event{number}"
        parent = f"{plugged.sysfs[-1]}/input/input{number}"
        self._attach(dev, node)
        self._add(
            f"P: {parent}\nE: SUBSYSTEM=input\nE: ID_INPUT=1\nE: ID_INPUT_KEY=1\nE: ID_INPUT_KEYBOARD=1\n"
            f"A: name={identity.product}\nA: capabilities/ev=120013\n"
        )
        path = f"{parent}/event{number}"
        self._add(
            f"P: {path}\nN: input/event{number}\nE: DEVNAME={dev}\nE: SUBSYSTEM=input\nE: ID_BUS=usb\nE: ID_INPUT=1\nE: ID_INPUT_KEY=1\n"
            f"E: ID_INPUT_KEYBOARD=1\nE: MAJOR=13\nE: MINOR={64 + number}\nA: dev=13:{64 + number}\n"
        )
        node.opened(self.testbed.get_dev_fd(dev))
        self._settle_node(slot, dev)
        plugged.input = node
        plugged.nodes.append(dev)
        plugged.sysfs += [parent, path]

    def _plug_tty(self, slot: Slot, plugged: _Plugged, identity: UsbIdentity) -> None:
        kind = "ttyACM" if "ACM" in slot.path else "ttyUSB"
        minor = self._next_tty.get(kind, 0)
        self._next_tty[kind] = minor + 1
        name = f"{kind}{minor}"
        path = f"{plugged.sysfs[-1]}/tty/{name}" if kind == "ttyACM" else f"{plugged.sysfs[-1]}/{name}/tty/{name}"
        by_path = f"serial/by-path/pci-0000:00:14.0-usb-0:{str(slot.usb_path).partition('-')[2]}:1.0-port0"
        by_id = f"serial/by-id/usb-{identity.vid:04x}_{identity.product.replace(' ', '_')}-if00-port0"
        self._add(
            f"P: {path}\nN: {name}\nS: {by_path}\nS: {by_id}\nE: DEVNAME=/dev/{name}\nE: DEVLINKS=/dev/{by_path} /dev/{by_id}\n"
            f"E: SUBSYSTEM=tty\nE: ID_BUS=usb\nE: ID_VENDOR_ID={identity.vid:04x}\nE: ID_MODEL_ID={identity.pid:04x}\n"
            f"E: MAJOR=188\nE: MINOR={minor}\nA: dev=188:{minor}\nL: device=../../../\n"
        )
        fd = self.testbed.get_dev_fd(f"/dev/{name}")
        os.set_blocking(fd, False)
        plugged.tty_fd = fd
        plugged.nodes.append(f"/dev/{name}")
        plugged.links = [by_path, by_id]
        plugged.sysfs.append(path)

    def _plug_hubs(self, place: str) -> None:
        """Every hub between the root and `place`."""
        bus, _, ports = place.partition("-")
        parts = ports.split(".")
        for depth in range(1, len(parts)):
            hub = f"{bus}-{'.'.join(parts[:depth])}"
            if hub not in self._hubs:
                self._hubs.add(hub)
                self._address += 1
                self._add(usb_record(sysfs_path(hub), self._hub, hub, address=self._address))

    def _unplug(self, slot: Slot) -> None:
        """Children first, each with its event, as the kernel does."""
        plugged = self._plugged.pop(slot.name)
        if plugged.usb is not None:
            plugged.usb.unplugged()
        if plugged.input is not None:
            plugged.input.gone = True
        notes = list(self._notes_of(plugged))
        for path in reversed(plugged.sysfs):
            self._tell(path, "remove")
            self.testbed.remove_device(f"/sys{path}")
        for dev in plugged.nodes:
            if not dev.startswith("/dev/tty"):
                self.testbed.detach_ioctl(dev)
        if plugged.tty_fd is not None:
            os.close(plugged.tty_fd)  # hangs up on whoever has the line open
        for note in notes:
            note.unlink(missing_ok=True)

    def _notes_of(self, plugged: _Plugged) -> Iterator[Path]:
        """What umockdev keeps about nodes that left; it ends the process when it finds that again."""
        folder = Path(f"{self.testbed.get_root_dir()}/dev")
        for node in (folder / dev.removeprefix("/dev/") for dev in plugged.nodes):
            if node.is_symlink():
                yield folder / ".ptymap" / str(node.readlink()).replace("/", "_")
        yield from (folder / link for link in plugged.links)

    # ------------------------------------------------------------------ private

    def _attach(self, dev: str, node: UsbNode | InputNode) -> None:
        handler = self.library.IoctlBase()
        handler.connect("handle-ioctl", lambda _, client: node.handle(client))
        self._handlers.append(handler)
        self.testbed.attach_ioctl(dev, handler)

    def _settle_node(self, slot: Slot, dev: str) -> None:
        """A node belongs to everybody, or to nobody where no udev rule gave it away."""
        Path(f"{self.testbed.get_root_dir()}{dev}").chmod(0 if slot.name in self.forbidden else 0o666)

    def _add(self, record: str) -> None:
        self._pace()
        self.testbed.add_from_string(record + "\n")

    def _tell(self, path: str, action: str) -> None:
        self._pace()
        self.testbed.uevent(f"/sys{path}", action)

    def _pace(self) -> None:
        """umockdev ends the process when a listener's queue is full, which holds ten events (net.unix.max_dgram_qlen)."""
        now = time.monotonic()
        self._told = [then for then in self._told if now - then < EVENTS_WITHIN_S]
        if len(self._told) >= EVENTS_MAX and self._running:
            time.sleep(EVENTS_WITHIN_S - (now - self._told[0]))
        self._told.append(time.monotonic())


def _look(model: Model) -> tuple[int, int]:
    """What of a device that is only seen can change: nodes that deliver pictures, and Mbit/s."""
    return getattr(model, "heads", 1), getattr(model, "mbps", None) or 480


def _seen_record(slot: Slot, parent: str, head: int = 0) -> tuple[str, str]:
    """Path and record of a node that nobody opens: video, sound, a touch screen, a connector. The node itself is not made."""
    name = slot.path.rsplit("/", 1)[-1]
    if slot.bus == "display":
        path = f"{GRAPHICS}/{name.partition('-')[0]}/{name}"
        return path, f"P: {path}\nE: SUBSYSTEM=drm\nA: status=connected\\n\n"
    if slot.bus == "video":
        number = int(name.removeprefix("video") or 0) + head
        path, more = (
            f"{parent}/video4linux/video{number}",
            f"E: DEVNAME=/dev/video{number}\nE: ID_V4L_VERSION=2\nE: ID_V4L_CAPABILITIES=:capture:\n",
        )
        return path, f"P: {path}\nE: SUBSYSTEM=video4linux\n{more}"
    if slot.bus == "sound":
        path = f"{parent or SOUND}/sound/{name}"
        return path, f"P: {path}\nE: SUBSYSTEM=sound\nE: DEVNAME={slot.path}\n"
    path = f"{parent}/input/{name}"
    return path, f"P: {path}\nE: SUBSYSTEM=input\nE: DEVNAME={slot.path}\nE: ID_INPUT=1\nE: ID_INPUT_TOUCHSCREEN=1\n"


SERVICES = ("pcsc", "ipp", "pipe")
GRAPHICS = "/devices/pci0000:00/0000:00:02.0/drm"
SOUND = "/devices/pci0000:00/0000:00:1f.3"
PRELOAD = "libumockdev-preload.so.0"


def sysfs_path(place: str) -> str:
    """`1-1.4` → …/usb1/1-1/1-1.4."""
    bus, _, ports = place.partition("-")
    parts = ports.split(".")
    chain = "/".join(f"{bus}-{'.'.join(parts[: depth + 1])}" for depth in range(len(parts)))
    return f"{CONTROLLER}/usb{bus}/{chain}"


def usb_record(path: str, raw: RawDevice, place: str, *, address: int) -> str:
    """A USB device for `add_from_string`, with the attributes that libusb and the agent read."""
    who = raw.identity
    device = raw.device_descriptor()
    kinds = "".join(f":{a:02x}{b:02x}{c:02x}" for a, b, c in (interface.triple for interface in raw.interfaces)) + ":"
    properties = {
        "DEVNAME": f"/dev/bus/usb/001/{address:03d}",
        "DEVTYPE": "usb_device",
        "SUBSYSTEM": "usb",
        "BUSNUM": "001",
        "DEVNUM": f"{address:03d}",
        "PRODUCT": f"{who.vid:x}/{who.pid:x}/{who.bcd_device:x}",
        "ID_VENDOR_ID": f"{who.vid:04x}",
        "ID_MODEL_ID": f"{who.pid:04x}",
        "ID_USB_INTERFACES": kinds,
        "MAJOR": "189",
        "MINOR": str(address - 1),
    }
    attributes = {
        "dev": f"189:{address - 1}",
        "busnum": "1",
        "devnum": str(address),
        "devpath": place.partition("-")[2] or "0",
        "speed": str(_look(raw.model)[1]),
        "bConfigurationValue": "1",
        "bNumConfigurations": "1",
        "bDeviceClass": f"{device[4]:02x}",
        "bcdDevice": f"{who.bcd_device:04x}",
        "idVendor": f"{who.vid:04x}",
        "idProduct": f"{who.pid:04x}",
    }
    attributes |= {
        key: text for key, text in (("manufacturer", who.manufacturer), ("product", who.product), ("serial", who.serial)) if text
    }
    lines = [f"P: {path}", f"N: bus/usb/001/{address:03d}"]
    lines += [f"E: {key}={text}" for key, text in properties.items()]
    lines += [f"A: {key}={text}\\n" for key, text in attributes.items()]
    lines.append(f"H: descriptors={(device + raw.configuration_descriptor()).hex().upper()}")
    return "\n".join(lines) + "\n"


def interface_record(path: str, number: int, triple: tuple[int, int, int], driver: str | None) -> str:
    lines = [
        f"P: {path}",
        "E: DEVTYPE=usb_interface",
        "E: SUBSYSTEM=usb",
        f"E: INTERFACE={triple[0]}/{triple[1]}/{triple[2]}",
        f"A: bInterfaceNumber={number:02x}",
        f"A: bInterfaceClass={triple[0]:02x}",
        f"A: bInterfaceSubClass={triple[1]:02x}",
        f"A: bInterfaceProtocol={triple[2]:02x}",
    ]
    if driver:
        lines.append(f"E: DRIVER={driver}")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------------------ the process


@dataclass(frozen=True)
class Wanted:
    """The JSON that says what to build: `{"terminal": "kiosk", "seed": 1}` or `{"devices": [{"slot", "type", "at", "lie"?, "forbidden"?}]}`."""

    terminal: VirtualTerminal
    lies: Mapping[str, Lie]
    forbidden: frozenset[str]
    extras: tuple[str, ...]

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Wanted:
        devices = tree.get("devices", ())
        if "terminal" in tree:
            terminal = build_terminal(
                tree["terminal"],
                name=tree.get("name", ""),
                seed=tree.get("seed", 0),
                windows=tree.get("windows"),
                whole=tree.get("whole", True),
            )
        else:
            terminal = VirtualTerminal("bench", slots_of(devices))
        return cls(
            terminal,
            {one["slot"]: one["lie"] for one in devices if "lie" in one},
            frozenset(one["slot"] for one in devices if one.get("forbidden")),
            tuple(tree.get("extras", ())),
        )


def main(arguments: Sequence[str]) -> int:
    directory, text = Path(arguments[0]), arguments[1]
    gi = import_module("gi")  # of the system's Python: no environment has it
    gi.require_version("UMockdev", "1.0")
    umockdev = import_module("gi.repository.UMockdev")

    if "libumockdev-preload" not in Path("/proc/self/maps").read_text():  # in_mock_environment() of 0.17 says no either way
        sys.stderr.write("Start this under LD_PRELOAD=libumockdev-preload.so.0 (umockdev-wrapper).\n")
        return 2
    wanted = Wanted.of(json.loads(text))
    bench = Bench(umockdev, wanted.terminal, wanted.lies, wanted.forbidden, wanted.extras)
    try:
        bench.start()
        asyncio.run(_serve(bench, directory))
    finally:
        shutil.rmtree(bench.testbed.get_root_dir(), ignore_errors=True)
    return 0


async def _serve(bench: Bench, directory: Path) -> None:
    control = ControlServer(bench.terminal, directory)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, control.stopped.set)
    ticker = Ticker([bench.terminal])
    await control.start()
    ready = directory / READY_FILE
    ports = bench.terminal.ports()
    ready.with_suffix(".new").write_text(json.dumps({"schema": 1, "environment": bench.environment, "ports": ports}, indent=2))
    ready.with_suffix(".new").replace(ready)
    try:
        while not control.stopped.is_set():
            bench.follow()
            bench.pump()
            await asyncio.sleep(PUMP_EVERY_S)
    finally:
        ready.unlink(missing_ok=True)
        ticker.close()
        await control.close()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
