"""Bytes of evaluators, menu scanners, window screens and buttons, as the manuals and pads on sale have them."""

from __future__ import annotations

import pytest

from simulators.errors import UnknownName
from simulators.models.callpad import FIRST_SCREEN, CallPadBus
from simulators.models.keys import EmergencyButton, HelpButton, HidScanner
from simulators.models.presence import USB_FACE_CAMERA, Camera, Display, Microphone, SeenDevice
from simulators.models.rating import COUNTED_FORM, FRAME_FORM, THREE_KEYS, RatingPad
from simulators.models.scanner import HONEYWELL_IDENTITY, SerialScanner
from simulators.ports.slots import Slot


def h(text: str) -> bytes:
    return bytes.fromhex(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("pad", "level", "raw"),
    [
        (RatingPad(), "5", "01"),
        (RatingPad(), "1", "05"),
        (RatingPad(form=FRAME_FORM), "4", "aa 02 55"),
        (RatingPad(form=COUNTED_FORM), "3", "aa 01 03 03 55"),
        (RatingPad(form=THREE_KEYS), "3", "02"),
    ],
)
def test_a_face_is_pressed(pad: RatingPad, level: str, raw: str) -> None:
    pad.act("rate", 1.0, level)
    assert pad.take(2.0, 99) == h(raw)


def test_nobody_rates_within_eight_seconds() -> None:
    """SLE300: 5 when the time is over."""
    pad = RatingPad(form=THREE_KEYS)
    pad.act("ask", 10.0)
    assert pad.take(17.9, 99) == b""
    assert pad.take(18.2, 99) == h("05")
    pad.act("ask", 20.0)
    pad.act("rate", 22.0, "5")
    assert pad.take(40.0, 99) == h("01"), "rated in time, so nothing is over"


@pytest.mark.parametrize("level", ["0", "6", "2", "best"])
def test_a_face_that_is_not_there(level: str) -> None:
    with pytest.raises(UnknownName, match="levels 5, 3, 1"):
        RatingPad(form=THREE_KEYS).act("rate", 1.0, level)


def menu_scanner() -> SerialScanner:
    return SerialScanner(engine="honeywell", baud=115200, identity=HONEYWELL_IDENTITY, continuous=False)


def test_menu_commands() -> None:
    unit = menu_scanner()
    for asked, said in (
        ("REVINF.", HONEYWELL_IDENTITY + "REVINF\x06."),
        ("cbrena?.", "CBRENA1\x06."),
        ("CBRENA0.", "CBRENA0\x06."),
        ("CBRENA?!", "CBRENA0\x06!"),
        ("X.", "X\x05."),
    ):
        unit.feed(b"\x16M\r" + asked.encode(), 1.0)
        assert unit.take(9.0, 999) == said.encode(), asked


def test_the_trigger_of_a_menu_scanner() -> None:
    unit = menu_scanner()
    unit.act("scan", 1.0, "HELLO")
    assert unit.take(2.0, 99) == b""
    unit.feed(h("16 54 0d"), 3.0)
    unit.act("scan", 3.5, "HELLO")
    assert unit.take(4.0, 99) == b"HELLO\r"
    unit.feed(h("16 54 0d 16 55 0d"), 5.0)
    unit.act("scan", 5.5, "HELLO")
    assert unit.take(6.0, 99) == b""


def test_a_window_screen_answers_its_poll_and_shows_what_it_is_told() -> None:
    bus = CallPadBus(addresses=(1,), screens=2)
    assert sorted(bus.units) == ["1", "window-screen-1", "window-screen-2"]
    bus.feed(h("ff 68 02 02 68 66 01 67 16"), 1.0)
    assert bus.take(2.0, 99) == h("ff 68 02 02 68 66 01 67 16")
    bus.feed(h("ff 68 05 05 68 66 02 30 34 32 fe 16"), 3.0)
    assert bus.pads[FIRST_SCREEN + 1].display == "042"
    with pytest.raises(UnknownName):
        bus.press(FIRST_SCREEN, "call-next", 4.0)
    assert bus.units["window-screen-1"].action_help == {}


def test_longer_frames_suffer_more_from_a_missing_termination() -> None:
    bus = CallPadBus(addresses=(1,))
    bus.set("no-termination", 0.0)

    def spoiled(frame: bytes) -> int:
        count = 0
        for at in range(400):
            bus.feed(frame, float(at))
            count += bus.take(at + 0.9, 99) != frame
        return count

    assert 80 < spoiled(h("ff 68 02 02 68 01 01 02 16")) < spoiled(h("ff 68 05 05 68 01 02 30 34 32 99 16")) < 250


def test_a_mushroom_button_stays_down() -> None:
    button = EmergencyButton()
    button.set("pressed", 1.0)
    events = button.take_events(3.0)
    assert [event.value for event in events if event.type == 1][:2] == [1, 2]
    assert button.pressed_keys(3.0) == {68}
    button.clear("pressed", 4.0)
    button.take_events(4.5)
    assert button.pressed_keys(4.5) == frozenset()
    short = HelpButton()
    short.act("press", 1.0)
    assert [event.value for event in short.take_events(2.0) if event.type == 1] == [1, 0]


def test_a_scanner_in_hid_pos_mode_keeps_only_its_usb_id() -> None:
    slot = Slot("scanner", HidScanner(), "input", "/dev/input/event3", "1-1.3")
    slot.model.set("hid-pos", 1.0)
    found = slot.found()
    assert found is not None
    assert (found.bus, found.vid, found.pid, found.usb_path) == ("usb", 0x1EAB, 0x1D10, "1-1.3")
    slot.model.set("unplug", 2.0)
    assert slot.found() is None


def test_what_is_only_seen_is_seen_with_its_particulars() -> None:
    camera = Slot("face-camera", Camera(heads=2), "video", "/dev/video0", "1-2")
    found = camera.found()
    assert found is not None
    assert (found.vid, found.heads, found.mbps) == (USB_FACE_CAMERA.vid, 2, 480)
    camera.model.set("head-missing", 1.0)
    camera.model.set("low-speed", 1.0)
    found = camera.found()
    assert found is not None
    assert (found.heads, found.mbps) == (1, 12)
    for model, role in ((Microphone(), "capture"), (Display(), None)):
        seen = Slot("x", model, "sound", "/dev/x").found()
        assert seen is not None
        assert seen.role == role
    assert set(SeenDevice("modem").fault_help) == {"unplug"}
