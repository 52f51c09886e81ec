"""ttys, cameras, sound and displays as pyudev and pyserial see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.stacks.conftest import FarError, device

Start = Callable[..., Any]
BY_PATH = "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1.1:1.0-port0"
NEWLAND_ASK = b"~\x010000#QRYSYS*;\x03"


def test_a_line_behind_an_adapter_is_found_by_its_place_and_answers(plug: Start, far: Start) -> None:
    side = far(plug(device("one", "scanner", "1-1.1"), device("two", "scanner", "1-1.2")))
    lines = side.sightings("serial")
    assert [(one[1], one[2], one[3], one[4]) for one in lines] == [
        ("/dev/ttyUSB0", 0x1A86, 0x7523, "1-1.1"),
        ("/dev/ttyUSB1", 0x1A86, 0x7523, "1-1.2"),  # the same ids: only the place tells them apart
    ]
    port = side("open_serial", path="/dev/ttyUSB1")
    side("write", port=port, data=NEWLAND_ASK.hex())
    data = b""
    while not data.endswith(b"\x03"):
        piece = bytes.fromhex(side("read", port=port, timeout_s=2.0)[0])
        assert piece, data
        data += piece
    assert b"NLS-FM430" in data


def test_a_line_by_its_link_is_the_same_line(plug: Start, far: Start) -> None:
    side = far(plug(device("one", "scanner", "1-1.1")))
    side("open_serial", path=BY_PATH)
    with pytest.raises(FarError, match="PortBusy"):
        side("open_serial", path="/dev/ttyUSB0")


def test_a_line_that_is_pulled_is_gone_and_comes_back(plug: Start, far: Start) -> None:
    bench = plug(device("one", "scanner", "1-1.1"))
    side = far(bench)
    port = side("open_serial", path="/dev/ttyUSB0")
    bench.do("fault", "one", "unplug")
    side.until_places(set())
    with pytest.raises(FarError, match="PortGone"):
        side("read", port=port, timeout_s=2.0)
    bench.do("clear", "one", "unplug")
    side.until_nodes("serial", [("/dev/ttyUSB1", "1-1.1")])  # as on a kernel while the old node is held open
    port = side("open_serial", path=BY_PATH)
    side("write", port=port, data=NEWLAND_ASK.hex())
    assert side("read", port=port, timeout_s=2.0)[0]


def test_a_forgotten_line_does_not_exist(plug: Start, far: Start) -> None:
    side = far(plug(device("one", "scanner", "1-1.1")))
    with pytest.raises(FarError, match="PortGone"):
        side("open_serial", path="/dev/ttyUSB7")


CAMERA = "/devices/pci0000:00/0000:00:14.0/usb1/1-3"
CAMERA_RECORDS = [
    "\n".join(lines) + "\n\n"
    for lines in (
        [f"P: {CAMERA}", "E: DEVTYPE=usb_device", "E: SUBSYSTEM=usb", "A: idVendor=0bda", "A: idProduct=5830", "A: bDeviceClass=ef", "A: speed=480"],
        [f"P: {CAMERA}/1-3:1.0", "E: DEVTYPE=usb_interface", "E: SUBSYSTEM=usb", "A: bInterfaceClass=0e"],
        [f"P: {CAMERA}/1-3:1.0/video4linux/video0", "N: video0", "E: DEVNAME=/dev/video0", "E: SUBSYSTEM=video4linux", "E: ID_V4L_VERSION=2",
         "E: ID_V4L_CAPABILITIES=:capture:"],
        [f"P: {CAMERA}/1-3:1.0/video4linux/video1", "N: video1", "E: DEVNAME=/dev/video1", "E: SUBSYSTEM=video4linux", "E: ID_V4L_VERSION=2",
         "E: ID_V4L_CAPABILITIES=:"],
    )
]  # fmt: skip
"""One sensor makes two nodes; the second carries metadata only."""


def test_devices_that_are_only_seen_come_and_go(plug: Start, far: Start) -> None:
    bench = plug(
        device("face", "camera", "1-1.1"), device("screen", "display", "-"), device("touch", "touch-screen", "1-1.2"),
        device("mic", "microphone", "1-1.3"), device("voice", "speaker", "-"),
    )  # fmt: skip
    side = far(bench)
    seen = {(one[0], one[1]) for one in side.sightings() if one[0] != "usb"}
    touch, screen = ("input", "/dev/input/event90"), ("display", "card0-HDMI-A-1")
    sound = {("sound", "/dev/snd/pcmC1D0c"), ("sound", "/dev/snd/pcmC0D0p")}
    assert seen == {("video", "/dev/video0"), ("video", "/dev/video1"), screen, touch, *sound}
    bench.do("fault", "face", "head-missing")
    side.until_nodes("video", [("/dev/video0", "1-1.1")])
    bench.do("fault", "screen", "unplug")
    side.until_nodes("display", [])
    bench.do("fault", "voice", "unplug")
    side.until_nodes("sound", [("/dev/snd/pcmC1D0c", "1-1.3")])
    bench.do("clear", "screen", "unplug")
    side.until_nodes("display", [("card0-HDMI-A-1", None)])


def test_a_camera_is_present_by_its_node_that_captures(plug: Start, far: Start) -> None:
    side = far(plug(device("one", "scanner", "1-1.1"), extras=CAMERA_RECORDS))
    assert [(one[1], one[4]) for one in side.sightings("video")] == [("/dev/video0", "1-3")]


HEADSET = "/devices/pci0000:00/0000:00:14.0/usb1/1-4"
BOARD = "/devices/pci0000:00/0000:00:1f.3"
SCREENS = "/devices/pci0000:00/0000:00:02.0/drm/card0"
SEEN_RECORDS = [
    "\n".join(lines) + "\n\n"
    for lines in (
        [f"P: {HEADSET}", "E: DEVTYPE=usb_device", "E: SUBSYSTEM=usb", "A: idVendor=0d8c", "A: idProduct=0014", "A: bDeviceClass=00", "A: speed=12"],
        [f"P: {HEADSET}/1-4:1.0/sound/card1/pcmC1D0c", "N: snd/pcmC1D0c", "E: DEVNAME=/dev/snd/pcmC1D0c", "E: SUBSYSTEM=sound"],
        [f"P: {HEADSET}/1-4:1.0/sound/card1/pcmC1D0p", "N: snd/pcmC1D0p", "E: DEVNAME=/dev/snd/pcmC1D0p", "E: SUBSYSTEM=sound"],
        [f"P: {BOARD}/sound/card0/pcmC0D3p", "N: snd/pcmC0D3p", "E: DEVNAME=/dev/snd/pcmC0D3p", "E: SUBSYSTEM=sound"],
        [f"P: {BOARD}/sound/card0/controlC0", "N: snd/controlC0", "E: DEVNAME=/dev/snd/controlC0", "E: SUBSYSTEM=sound"],
        [f"P: {SCREENS}", "E: SUBSYSTEM=drm", "E: DEVTYPE=drm_minor"],
        [f"P: {SCREENS}/card0-HDMI-A-1", "E: SUBSYSTEM=drm", "E: DEVTYPE=drm_connector", "A: status=connected"],
        [f"P: {SCREENS}/card0-DP-1", "E: SUBSYSTEM=drm", "E: DEVTYPE=drm_connector", "A: status=disconnected"],
    )
]  # fmt: skip


def test_sound_by_direction_and_screens_by_their_connectors(plug: Start, far: Start) -> None:
    side = far(plug(device("one", "scanner", "1-1.1"), extras=SEEN_RECORDS))
    assert {(one[1], one[4]) for one in side.sightings("sound")} == {
        ("/dev/snd/pcmC0D3p", None),
        ("/dev/snd/pcmC1D0c", "1-4"),
        ("/dev/snd/pcmC1D0p", "1-4"),
    }
    assert [one[1] for one in side.sightings("display")] == ["card0-HDMI-A-1"]
