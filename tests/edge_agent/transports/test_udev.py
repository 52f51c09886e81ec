from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from edge_agent.transports.base import Sighting
from edge_agent.transports.udev import UdevDiscoverer


class FakeDevice:
    """The part of pyudev.Device that discovery reads."""

    def __init__(
        self,
        sys_name: str,
        *,
        node: str | None = None,
        attributes: dict[str, bytes] | None = None,
        properties: dict[str, str] | None = None,
        parent: FakeDevice | None = None,
    ) -> None:
        self.sys_name = sys_name
        self.device_node = node
        self.attributes = attributes or {}
        self.properties = properties or {}
        self._parent = parent

    def find_parent(self, subsystem: str, device_type: str) -> FakeDevice | None:
        assert (subsystem, device_type) == ("usb", "usb_device")
        return self._parent


class FakeContext:
    def __init__(self, devices: dict[str, list[FakeDevice]]) -> None:
        self._devices = devices

    def list_devices(self, *, subsystem: str, **_: Any) -> list[FakeDevice]:
        return self._devices.get(subsystem, [])


class Discoverer(UdevDiscoverer):
    def __init__(self, extra: list[str], devices: dict[str, list[FakeDevice]]) -> None:
        super().__init__(extra, extra_every_s=0.01)
        self._context = FakeContext(devices)


HUB = FakeDevice("1-1", attributes={"idVendor": b"05e3", "idProduct": b"0608", "bDeviceClass": b"09"})
ADAPTER = FakeDevice(
    "1-1.4", attributes={"idVendor": b"1a86", "idProduct": b"7523", "bDeviceClass": b"ff", "product": b"USB Serial\n"}
)
SCANNER = FakeDevice("1-1.2", attributes={"idVendor": b"1eab", "idProduct": b"0c03", "bDeviceClass": b"00"})
CAMERA = FakeDevice("1-1.3", attributes={"idVendor": b"0bda", "idProduct": b"5830", "bDeviceClass": b"ef"})


def test_devices_nodes_and_their_place_in_the_usb_tree() -> None:
    found = Discoverer(
        [],
        {
            "usb": [HUB, ADAPTER, SCANNER, CAMERA],
            "tty": [
                FakeDevice("ttyUSB0", node="/dev/ttyUSB0", parent=ADAPTER),
                FakeDevice("ttyS0", node="/dev/ttyS0"),
            ],
            "input": [
                FakeDevice(
                    "event5", node="/dev/input/event5", parent=SCANNER, properties={"ID_INPUT": "1", "ID_INPUT_KEYBOARD": "1"}
                ),
                FakeDevice("event6", node="/dev/input/event6", parent=SCANNER, properties={"ID_INPUT": "1"}),
                FakeDevice("event0", node="/dev/input/event0"),
                FakeDevice("mouse0", node="/dev/input/mouse0", parent=SCANNER),
            ],
            "video4linux": [
                FakeDevice(
                    "video0",
                    node="/dev/video0",
                    parent=CAMERA,
                    properties={"ID_V4L_VERSION": "2", "ID_V4L_CAPABILITIES": ":capture:"},
                ),
                FakeDevice(
                    "video1", node="/dev/video1", parent=CAMERA, properties={"ID_V4L_VERSION": "2", "ID_V4L_CAPABILITIES": ":"}
                ),
            ],
        },
    ).sightings()

    assert [(s.bus, s.path, s.usb_path) for s in found] == [
        ("usb", "1-1.4", "1-1.4"),
        ("usb", "1-1.2", "1-1.2"),
        ("usb", "1-1.3", "1-1.3"),
        ("serial", "/dev/ttyUSB0", "1-1.4"),
        ("input", "/dev/input/event5", "1-1.2"),
        ("video", "/dev/video0", "1-1.3"),
    ]
    assert found[0] == Sighting("usb", "1-1.4", 0x1A86, 0x7523, None, "USB Serial", "1-1.4")


V4L = {"ID_V4L_VERSION": "2", "ID_V4L_CAPABILITIES": ":capture:"}


def test_a_camera_tells_its_heads_and_its_speed() -> None:
    dual = FakeDevice("1-2", attributes={"idVendor": b"05a3", "idProduct": b"9331", "bDeviceClass": b"ef", "speed": b"12\n"})
    odd = FakeDevice("1-3", attributes={"idVendor": b"05a3", "idProduct": b"9331", "bDeviceClass": b"ef", "speed": b"fast"})
    nodes = [
        FakeDevice("video0", node="/dev/video0", parent=dual, properties=V4L),
        FakeDevice("video1", node="/dev/video1", parent=dual, properties=V4L | {"ID_V4L_CAPABILITIES": ":"}),
        FakeDevice("video2", node="/dev/video2", parent=dual, properties=V4L),
        FakeDevice("video4", node="/dev/video4", parent=odd, properties=V4L),
    ]
    found = Discoverer([], {"video4linux": nodes}).sightings()
    assert [(one.path, one.heads, one.mbps) for one in found] == [
        ("/dev/video0", 2, 12),
        ("/dev/video2", 2, 12),
        ("/dev/video4", 1, None),
    ]


def test_sound_cards_by_direction_and_screens_by_connector() -> None:
    headset = FakeDevice("1-4", attributes={"idVendor": b"0d8c", "idProduct": b"0014", "bDeviceClass": b"00"})
    found = Discoverer(
        [],
        {
            "sound": [
                FakeDevice("card0"),
                FakeDevice("controlC0", node="/dev/snd/controlC0"),
                FakeDevice("pcmC0D3p", node="/dev/snd/pcmC0D3p"),
                FakeDevice("pcmC0D0p", node="/dev/snd/pcmC0D0p"),
                FakeDevice("pcmC1D0c", node="/dev/snd/pcmC1D0c", parent=headset),
                FakeDevice("pcmC1D0p", node="/dev/snd/pcmC1D0p", parent=headset),
                FakeDevice("pcmC2D0c"),
            ],
            "drm": [
                FakeDevice("card0"),
                FakeDevice("renderD128"),
                FakeDevice("card0-HDMI-A-1", attributes={"status": b"connected\n"}),
                FakeDevice("card0-DP-1", attributes={"status": b"disconnected\n"}),
                FakeDevice("card0-Writeback-1", attributes={"status": b"unknown\n"}),
            ],
        },
    ).sightings()
    assert [(one.bus, one.path, one.role, one.usb_path) for one in found] == [
        ("sound", "/dev/snd/pcmC0D0p", "playback", None),
        ("sound", "/dev/snd/pcmC1D0c", "capture", "1-4"),
        ("sound", "/dev/snd/pcmC1D0p", "playback", "1-4"),
        ("display", "card0-HDMI-A-1", None, None),
    ]


def test_a_touch_screen_is_seen_on_any_bus() -> None:
    touch = {"ID_INPUT": "1", "ID_INPUT_TOUCHSCREEN": "1"}
    found = Discoverer(
        [],
        {
            "input": [
                FakeDevice("event1", node="/dev/input/event1", parent=SCANNER, properties=touch),
                FakeDevice("event2", node="/dev/input/event2", properties=touch),
                FakeDevice("event3", node="/dev/input/event3", properties={"ID_INPUT": "1", "ID_INPUT_KEYBOARD": "1"}),
            ]
        },
    ).sightings()
    assert [(one.path, one.role, one.usb_path) for one in found] == [
        ("/dev/input/event1", "touch", "1-1.2"),
        ("/dev/input/event2", "touch", None),
    ]


def test_spoiled_descriptors_do_not_hide_a_device() -> None:
    odd = FakeDevice("1-2", attributes={"idVendor": b"zz", "product": b"\xff\xfe"})
    (found,) = Discoverer([], {"usb": [odd]}).sightings()
    assert (found.vid, found.pid, found.usb_path) == (None, None, "1-2")


def test_added_paths_are_seen_when_they_exist_and_carry_what_udev_knows(tmp_path: Path) -> None:
    (tmp_path / "pad-bus").write_bytes(b"")
    node = tmp_path / "ttyUSB0"
    node.write_bytes(b"")
    (tmp_path / "by-path").symlink_to(node)
    extra = [str(tmp_path / "pad-bus"), str(tmp_path / "by-path"), str(tmp_path / "absent")]
    found = Discoverer(extra, {"tty": [FakeDevice("ttyUSB0", node=str(node), parent=ADAPTER)]}).sightings()
    assert [(s.bus, s.path, s.usb_path) for s in found] == [
        ("serial", extra[1], "1-1.4"),
        ("serial", extra[0], None),
    ]


async def test_without_udev_added_paths_come_and_go(tmp_path: Path) -> None:
    link = tmp_path / "printer"
    discoverer = UdevDiscoverer([str(link)], context=None, extra_every_s=0.01)
    assert discoverer.sightings() == []

    async def next_change() -> list[str]:
        async with asyncio.timeout(5):
            await discoverer.changes()
        return [sighting.path for sighting in discoverer.sightings()]

    link.symlink_to("/dev/null")
    assert await next_change() == [str(link)]
    link.unlink()
    assert await next_change() == []
    link.symlink_to("/dev/null")
    assert await next_change() == [str(link)]
    # Replugged between two looks: the same name, another device behind it.
    link.unlink()
    link.symlink_to("/dev/zero")
    assert await next_change() == [str(link)]
