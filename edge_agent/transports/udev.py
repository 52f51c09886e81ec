"""What is plugged in, by udev, and the paths that the configuration adds (a real UART, a by-path link, a pseudo terminal).

Nothing is opened here. Where udev is absent (a container, a test) only the added paths are seen, by looking whether they exist.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.transports.base import Bus, Sighting

log = logging.getLogger(__name__)

SETTLE_S = 0.2
"""One plug makes a dozen events within about 100 ms (device, interface, driver, node); they are taken as one change."""
EXTRA_EVERY_S = 1.0
HUB_CLASS = "09"
PCSC_SOCKET_SUFFIX = "pcscd.comm"
"""The socket of a PC/SC service (pcsc-lite) is called so wherever it lies."""


class UdevDiscoverer:
    """Sightings of USB devices (hubs left out), of tty, input and video nodes behind USB, of touch screens, sound nodes and connected screens
    wherever they hang, plus `extra_paths` that exist."""

    def __init__(self, extra_paths: Iterable[str] = (), *, context: Any = None, extra_every_s: float = EXTRA_EVERY_S) -> None:
        """`context` is a pyudev.Context, None for a machine without udev."""
        self._extra = tuple(extra_paths)
        self._context = context
        self._every_s = extra_every_s
        self._monitor = None if context is None else _start_monitor(context)
        self._extra_seen = self._extra_state()

    @classmethod
    def of_system(cls, extra_paths: Iterable[str] = ()) -> UdevDiscoverer:
        return cls(extra_paths, context=system_context())

    def sightings(self) -> Sequence[Sighting]:
        self._extra_seen = self._extra_state()
        found = [] if self._context is None else list(_enumerate(self._context))
        by_node = {str(Path(sighting.path).resolve()): sighting for sighting in found if sighting.bus != "usb"}
        for path, identity in self._extra_seen.items():
            if identity is None and _bus_of(path) not in ("pcsc", "ipp"):
                continue  # a service that is not there is watched too: that it comes back, and that it is away
            known = by_node.get(str(Path(path).resolve()))
            if known is not None and known in found:
                found[found.index(known)] = replace(known, path=path)
            elif known is None:
                found.append(Sighting(bus=_bus_of(path), path=path))
        return found

    async def changes(self) -> None:
        """Returns after a hot-plug event has settled, or when an added path came or went."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        fd = None if self._monitor is None else self._monitor.fileno()
        if fd is not None:
            loop.add_reader(fd, event.set)
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._every_s if self._extra else None):
                        await event.wait()
                if event.is_set():
                    await asyncio.sleep(SETTLE_S)
                    self._drain()
                    return
                if self._extra_state() != self._extra_seen:
                    return
        finally:
            if fd is not None:
                loop.remove_reader(fd)

    def _drain(self) -> None:
        monitor = self._monitor
        try:
            while monitor is not None and monitor.poll(timeout=0) is not None:
                pass
        except OSError:
            log.debug("udev events were lost; everything is read again")

    def _extra_state(self) -> dict[str, tuple[int, int] | None]:
        """Device and inode behind each added path: a pseudo terminal that came back has another one."""
        return {path: _identity(path) for path in self._extra}


def system_context() -> Any:
    """pyudev's context, or None (with one log line) where libudev is missing."""
    try:
        import pyudev

        return pyudev.Context()
    except (ImportError, OSError):
        log.info("no udev on this machine: only configured ports are watched")
        return None


def _start_monitor(context: Any) -> Any:
    import pyudev

    try:
        monitor = pyudev.Monitor.from_netlink(context)
        for subsystem in ("usb", "tty", "input", "video4linux", "sound", "drm"):
            monitor.filter_by(subsystem)
        monitor.start()
    except OSError:
        log.warning("udev's hot-plug events cannot be received")
        return None
    return monitor


def _enumerate(context: Any) -> Iterator[Sighting]:
    for device in context.list_devices(subsystem="usb", DEVTYPE="usb_device"):
        if _text(device, "bDeviceClass") != HUB_CLASS:
            yield Sighting("usb", device.sys_name, **_usb_identity(device))
    yield from _nodes(context, "tty", "serial")
    yield from _inputs(context)
    yield from _videos(context)
    yield from _sounds(context)
    yield from _displays(context)


def _inputs(context: Any) -> Iterator[Sighting]:
    for device in context.list_devices(subsystem="input"):
        if not device.sys_name.startswith("event") or not device.device_node:
            continue
        parent = device.find_parent("usb", "usb_device")
        identity = {} if parent is None else _usb_identity(parent)
        if _property(device, "ID_INPUT_TOUCHSCREEN", default="") == "1":
            yield Sighting("input", device.device_node, role="touch", **identity)
        # udev's own verdict keeps out mice; without its database every event node behind USB counts.
        elif parent is not None and _property(device, "ID_INPUT_KEYBOARD", default="1") == "1":
            yield Sighting("input", device.device_node, **identity)


def _videos(context: Any) -> Iterator[Sighting]:
    """Nodes that deliver pictures; the other node of the same sensor delivers metadata only. Each knows how many its device has, and its speed."""
    nodes = [
        (sighting, device)
        for sighting, device in _usb_nodes(context, "video4linux", "video")
        if ":capture:" in _property(device, "ID_V4L_CAPABILITIES", default=":capture:")
    ]
    heads = Counter(sighting.usb_path for sighting, _ in nodes)
    for sighting, device in nodes:
        speed = _text(device.find_parent("usb", "usb_device"), "speed")
        yield replace(sighting, heads=heads[sighting.usb_path], mbps=_whole(speed))


def _sounds(context: Any) -> Iterator[Sighting]:
    """The first node of each card for each direction: which of several outputs has a loudspeaker behind it, no system knows."""
    found: dict[tuple[str, str], tuple[int, Any]] = {}
    for device in context.list_devices(subsystem="sound"):
        named = _PCM.fullmatch(device.sys_name)
        if named is None or not device.device_node:
            continue
        card, number, direction = named[1], int(named[2]), named[3]
        if (card, direction) not in found or number < found[card, direction][0]:
            found[card, direction] = number, device
    for (_, direction), (_, device) in sorted(found.items(), key=lambda item: item[0]):
        parent = device.find_parent("usb", "usb_device")
        identity = {} if parent is None else _usb_identity(parent)
        yield Sighting("sound", device.device_node, role="capture" if direction == "c" else "playback", **identity)


def _displays(context: Any) -> Iterator[Sighting]:
    """Connectors that say that a screen is connected. Its own serial number and name are left where they are."""
    for device in context.list_devices(subsystem="drm"):
        if _CONNECTOR.match(device.sys_name) and _text(device, "status") == "connected":
            yield Sighting("display", device.sys_name)


_PCM = re.compile(r"pcmC([0-9]+)D([0-9]+)([pc])")
"""ALSA's names: card, device, playback or capture."""
_CONNECTOR = re.compile(r"card[0-9]+-")


def _whole(text: str | None) -> int | None:
    """sysfs writes 1.5 for the slowest USB speed."""
    try:
        return None if text is None else int(float(text))
    except (ValueError, OverflowError):
        return None


def _nodes(context: Any, subsystem: str, bus: Bus) -> Iterator[Sighting]:
    for sighting, _ in _usb_nodes(context, subsystem, bus):
        yield sighting


def _usb_nodes(context: Any, subsystem: str, bus: Bus) -> Iterator[tuple[Sighting, Any]]:
    """Nodes with a USB device above them; the kernel lists built-in UARTs by the dozen whether they exist or not."""
    for device in context.list_devices(subsystem=subsystem):
        parent = device.find_parent("usb", "usb_device")
        if parent is not None and device.device_node:
            yield Sighting(bus, device.device_node, **_usb_identity(parent)), device


def _usb_identity(device: Any) -> dict[str, Any]:
    return {
        "vid": _hex(device, "idVendor"),
        "pid": _hex(device, "idProduct"),
        "serial": _text(device, "serial"),
        "product": _text(device, "product"),
        "usb_path": device.sys_name,
    }


def _text(device: Any, attribute: str) -> str | None:
    try:
        raw: bytes | None = device.attributes.get(attribute)
    except (KeyError, OSError):
        return None
    return None if raw is None else raw.decode("ascii", "replace").strip()


def _hex(device: Any, attribute: str) -> int | None:
    text = _text(device, attribute)
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None


def _property(device: Any, name: str, *, default: str) -> str:
    """`default` only where udev's database has nothing at all about the device's class."""
    properties = device.properties
    if name in properties:
        return str(properties[name])
    return default if "ID_INPUT" not in properties and "ID_V4L_VERSION" not in properties else ""


def _bus_of(path: str) -> Bus:
    if path.startswith("ipp://"):
        return "ipp"
    if path.endswith(PCSC_SOCKET_SUFFIX):
        return "pcsc"
    resolved = str(Path(path).resolve())
    if resolved.startswith("/dev/input/"):
        return "input"
    return "video" if resolved.startswith("/dev/video") else "serial"


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
