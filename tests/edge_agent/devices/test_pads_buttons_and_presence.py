"""Evaluators, buttons, window screens, scanners and seen devices under the whole device side, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.config import DeviceEntry
from edge_agent.discovery import make_plan
from edge_agent.transports.base import Sighting
from protocols.canon.words import DeviceState, SuggestedAction
from protocols.contract.records import Device, Fault, Queue, Rating
from protocols.profile.options.rating import Heartbeat
from protocols.profile.schema import Kind
from simulators.models.base import Model
from simulators.models.callpad import CallPadBus
from simulators.models.keys import EmergencyButton, HelpButton
from simulators.models.rating import COUNTED_FORM, THREE_KEYS, PadForm, RatingPad
from simulators.models.scanner import HONEYWELL_IDENTITY, SerialScanner
from simulators.ports.slots import CH340, Slot
from tests.edge_agent.devices.bench import PROFILES, Bench, in_virtual_time, inventory
from tests.edge_agent.devices.test_every_fault import BUILD


def line(name: str, model: Model, profile: str | None = None) -> Slot:
    return Slot(name, model, "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340, profile=profile)


def key(name: str, model: Model) -> Slot:
    return Slot(name, model, "input", "/dev/input/event3", "1-1.3")


async def ready(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.states()) and set(bench.states().values()) == {"online"})


def levels(bench: Bench) -> list[int]:
    return [rating.level for rating in bench.records.of(Rating)]


# ------------------------------------------------------------------------------------------------------------------------ evaluators


@pytest.mark.parametrize(
    ("profile", "form", "pressed"),
    [
        ("evaluator-serial-byte", PadForm(), [5, 4, 3, 2, 1]),
        ("evaluator-serial-frame", PadForm(framed=True), [5, 4, 3, 2, 1]),
        ("evaluator-serial-three", THREE_KEYS, [5, 3, 1]),
    ],
)
def test_every_pad_tells_the_same_scale(profile: str, form: PadForm, pressed: list[int]) -> None:
    async def story() -> None:
        async with Bench(line("evaluator", RatingPad(form=form), profile)) as bench:
            await ready(bench)
            for count, level in enumerate(pressed, 1):
                bench.terminal.press("evaluator", "rate", str(level))
                await bench.until(lambda count=count: len(levels(bench)) == count)  # type: ignore[misc]
                await asyncio.sleep(2)
            assert levels(bench) == pressed
            bench.terminal.press("evaluator", "ask")
            await asyncio.sleep(7.5)
            assert len(levels(bench)) == len(pressed), "the pad waits for the citizen"
            await bench.until(lambda: levels(bench)[-1] == 0)
            assert bench.records.of(Fault) == []
            assert bench.device("evaluator").limited, "it cannot be asked whether it lives"

    in_virtual_time(story())


def test_noise_is_no_rating() -> None:
    async def story() -> None:
        async with Bench(line("evaluator", RatingPad())) as bench:
            await ready(bench)
            bench.terminal.set("evaluator", "noise")
            await bench.until_open("EVA.UNKNOWN_KEYS")
            await asyncio.sleep(120)
            assert levels(bench) == []

    in_virtual_time(story())


def test_another_model_of_pad_is_noticed_by_its_codes() -> None:
    async def story() -> None:
        async with Bench(line("evaluator", RatingPad())) as bench:
            await ready(bench)
            bench.terminal.set("evaluator", "unknown-keys")
            for _ in range(4):
                bench.terminal.press("evaluator", "rate", "5")
                await asyncio.sleep(3)
            opened = await bench.until_open("EVA.UNKNOWN_KEYS")
            assert opened.evidence is not None
            assert opened.evidence.reply == b"\x61"
            assert levels(bench) == []

    in_virtual_time(story())


def asked_pad() -> dict[str, object]:
    """A profile of a maker who documents a question about the pad's state."""
    plain = PROFILES["evaluator-serial-frame"]
    assert plain.rating is not None
    options = msgspec.structs.replace(
        plain.rating, length="single", checksum="sum8", heartbeat=Heartbeat(send="aa 01 f0 f0 55", reply="^aa01f1f155")
    )
    return {**PROFILES, plain.id: msgspec.structs.replace(plain, rating=options)}


@pytest.mark.parametrize(
    ("fault", "code"),
    [("silence", "EVA.NO_REPLY"), ("garbage", "EVA.BUS_CRC"), ("bad-checksum", "EVA.BUS_CRC"), ("stuck-key", "EVA.STUCK_KEY")],
)
def test_a_pad_that_can_be_asked(fault: str, code: str) -> None:
    async def story() -> None:
        slot = line("evaluator", RatingPad(form=COUNTED_FORM), "evaluator-serial-frame")
        async with Bench(slot, profiles=asked_pad()) as bench:  # type: ignore[arg-type]
            await ready(bench)
            assert not bench.device("evaluator").limited
            bench.terminal.press("evaluator", "rate", "4")
            await bench.until(lambda: levels(bench) == [4])
            bench.terminal.set("evaluator", fault)
            for _ in range(5):
                bench.terminal.press("evaluator", "rate", "3")
                await asyncio.sleep(40)
            await bench.until_open(code, within_s=120)
            assert bench.records.open_codes() == {code}

    in_virtual_time(story())


# --------------------------------------------------------------------------------------------------------------------------- buttons


def test_a_call_for_help_is_told_at_once_and_taken_back_by_itself() -> None:
    async def story() -> None:
        async with Bench(key("help-button", HelpButton())) as bench:
            await ready(bench)
            bench.terminal.press("help-button", "press")
            opened = await bench.until_open("BTN.HELP", within_s=2)
            assert opened in bench.records.urgent
            await asyncio.sleep(45)
            assert bench.records.open_codes() == {"BTN.HELP"}, "short as it was, somebody must see it"
            await bench.until(lambda: not bench.records.open_codes(), within_s=120)
            assert bench.records.of(Rating) == []

    in_virtual_time(story())


def test_a_latched_emergency_button_is_pressed_not_stuck() -> None:
    async def story() -> None:
        async with Bench(key("emergency-button", EmergencyButton())) as bench:
            await ready(bench)
            bench.terminal.set("emergency-button", "pressed")
            opened = await bench.until_open("BTN.EMERGENCY", within_s=2)
            assert opened.severity == "P1"
            await asyncio.sleep(300)
            assert bench.records.open_codes() == {"BTN.EMERGENCY"}
            assert len(bench.records.of(Fault)) == 1
            bench.terminal.clear("emergency-button", "pressed")
            await bench.until(lambda: not bench.records.open_codes(), within_s=200)

    in_virtual_time(story())


def test_a_button_that_was_pressed_before_the_agent_started() -> None:
    async def story() -> None:
        button = EmergencyButton()
        async with Bench(key("emergency-button", button)) as bench:
            bench.terminal.set("emergency-button", "pressed")
            await bench.until_open("BTN.EMERGENCY", within_s=40)

    in_virtual_time(story())


# --------------------------------------------------------------------------------------------------------------------------- the bus


def echoing_bus(*, declared: bool) -> tuple[Slot, dict[str, object]]:
    profile = PROFILES["call-pad-ft12"]
    assert profile.transport.serial is not None
    transport = msgspec.structs.replace(
        profile.transport, serial=msgspec.structs.replace(profile.transport.serial, local_echo=declared)
    )
    changed = msgspec.structs.replace(profile, transport=transport)
    return line("call-pad", CallPadBus(addresses=(1, 2, 3))), {**PROFILES, profile.id: changed}


@pytest.mark.parametrize("declared", [False, True])
def test_an_adapter_that_hears_itself_hides_no_dead_pad(declared: bool) -> None:
    """An idle pad answers with the frame that was sent; so does the adapter."""

    async def story() -> None:
        slot, profiles = echoing_bus(declared=declared)
        async with Bench(slot, profiles=profiles) as bench:  # type: ignore[arg-type]
            bench.terminal.set("call-pad", "echo")
            bench.terminal.set("call-pad 2", "silence")
            opened = await bench.until_open("CAL.NO_REPLY")
            assert opened.slot == "call-pad-2"
            await bench.until(
                lambda: bench.states().get("call-pad-1") == "online" and bench.states().get("call-pad-3") == "online"
            )
            assert bench.records.open_codes() == ({"CAL.NO_REPLY"} if declared else {"CAL.NO_REPLY", "CAL.BUS_ECHO"})
            bench.terminal.press("call-pad 3", "call-next")
            await bench.until(lambda: len(bench.records.of(Queue)) == 1)
            await asyncio.sleep(5)
            assert len(bench.records.of(Queue)) == 1, "its echo is no second key"

    in_virtual_time(story())


def test_an_adapter_that_is_replaced_makes_no_bus_dead() -> None:
    """What was its echo is now what the pads say."""

    async def story() -> None:
        async with Bench(line("call-pad", CallPadBus(addresses=(1, 2, 3)))) as bench:
            await ready(bench)
            bench.terminal.set("call-pad", "echo")
            await bench.until_open("CAL.BUS_ECHO", within_s=90)
            await asyncio.sleep(30)
            bench.terminal.clear("call-pad", "echo")
            await asyncio.sleep(300)
            assert {fault.code for fault in bench.records.of(Fault)} == {"CAL.BUS_ECHO"}
            assert bench.records.open_codes() == set()
            assert set(bench.states().values()) == {"online"}

    in_virtual_time(story())


def test_a_weak_supply_is_told_from_a_dead_pad() -> None:
    async def story() -> None:
        async with Bench(line("call-pad", CallPadBus(addresses=(1, 2, 3)))) as bench:
            await ready(bench)
            bench.terminal.set("call-pad 2", "brown-out")
            opened = await bench.until_open("CAL.TIMEOUT_RATE")
            assert opened.slot == "call-pad-2"
            await asyncio.sleep(60)
            flaps = [fault for fault in bench.records.of(Fault, "call-pad-2") if fault.code == "CAL.NO_REPLY"]
            assert len(flaps) <= 6, "one fault that stays, not one for each silence"
            bench.terminal.clear("call-pad 2", "brown-out")
            bench.terminal.set("call-pad 2", "silence")
            await bench.until_open("CAL.NO_REPLY", within_s=120)
            assert {fault.slot for fault in bench.records.of(Fault)} == {"call-pad-2"}

    in_virtual_time(story())


def test_a_window_screen_has_no_keys() -> None:
    """Frames of a screen's address are no queue events and no stuck key, however many come."""

    async def story() -> None:
        bus = CallPadBus(addresses=(1, 2), screens=2)
        async with Bench(line("call-pad", bus)) as bench:
            await ready(bench)
            assert set(bench.states()) == {"call-pad-1", "call-pad-2", "window-screen-1", "window-screen-2"}
            assert bench.device("window-screen-2").profile == "window-screen-ft12"
            for _ in range(30):
                bus.emit(bytes.fromhex("ff68030368 65010c 72 16".replace(" ", "")), asyncio.get_running_loop().time())
                bus.notify()
                await asyncio.sleep(0.3)
            assert bench.records.of(Queue) == []
            assert bench.records.of(Fault) == []
            bench.terminal.press("call-pad 1", "call-next")
            await bench.until(lambda: len(bench.records.of(Queue)) == 1)

    in_virtual_time(story())


def test_units_of_one_bus_share_its_framing() -> None:
    async def story() -> None:
        screens = PROFILES["window-screen-ft12"]
        assert screens.callpad is not None
        other = msgspec.structs.replace(screens, callpad=msgspec.structs.replace(screens.callpad, checksum="xor8"))
        slot = line("call-pad", CallPadBus(addresses=(1,), screens=1))
        async with Bench(slot, profiles={**PROFILES, other.id: other}) as bench:
            await bench.until_state("call-pad-1", "offline")
            assert bench.device("call-pad-1").action == "configuration"

    in_virtual_time(story())


# -------------------------------------------------------------------------------------------------------------------------- scanners


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def honeywell() -> Slot:
    model = SerialScanner(engine="honeywell", baud=115200, identity=HONEYWELL_IDENTITY)
    return line("scanner", model, "honeywell-serial")


def test_a_menu_scanner_tells_its_revision_and_no_code(logged: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def story() -> None:
        async with Bench(honeywell()) as bench:
            await ready(bench)
            assert bench.device("scanner").firmware == "16345"
            for _ in range(40):
                bench.terminal.press("scanner", "scan", "PLANTED-330702199001011235")
                await asyncio.sleep(7)
            assert bench.records.of(Fault) == []
            left = bytes(bench.records.encoded) + b"".join(bench.memory.values.values())
            text = repr(bench.records.bodies) + logged.text + repr([vars(record) for record in logged.records])
            assert b"PLANTED" not in left
            assert b"330702" not in left
            assert "PLANTED" not in text
            assert "330702" not in text

    in_virtual_time(story())


def test_noise_on_the_cable_is_its_own_fault(logged: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with Bench(line("scanner", SerialScanner())) as bench:
            await ready(bench)
            bench.terminal.set("scanner", "cable-noise")
            for _ in range(5):
                bench.terminal.press("scanner", "scan", "PLANTED-6901234567892")
                await asyncio.sleep(5)
            await bench.until_open("SCN.LINK_NOISE")
            assert bench.records.open_codes() == {"SCN.LINK_NOISE"}, "the suffix is there"
            bench.terminal.clear("scanner", "cable-noise")
            for _ in range(12):
                bench.terminal.press("scanner", "scan", "6901234567892")
                await asyncio.sleep(5)
            await bench.until(lambda: not bench.records.open_codes(), within_s=1800)
            assert "PLANTED" not in logged.text

    in_virtual_time(story())


def test_a_missing_suffix_has_its_code_and_noise_does_not_hide_it() -> None:
    async def story() -> None:
        async with Bench(honeywell()) as bench:
            await ready(bench)
            bench.terminal.set("scanner", "missing-suffix")
            for _ in range(4):
                bench.terminal.press("scanner", "scan", "6901234567892")
                await asyncio.sleep(5)
            await bench.until_open("SCN.NO_SUFFIX")
            assert bench.records.open_codes() == {"SCN.NO_SUFFIX"}

    in_virtual_time(story())


@pytest.mark.parametrize("form", ["scanner-keys", "scanner-serial", "scanner-honeywell", "scanner-em"])
def test_a_stuck_trigger_is_told_once_while_it_lasts(form: str) -> None:
    """Reads without end between polls that find the scanner well: one change of its state, one fault; then one of each back."""

    async def story() -> None:
        slot = BUILD[form]()
        async with Bench(slot) as bench:
            await bench.until_state("scanner", "online")
            before = len(bench.records.bodies)
            bench.terminal.set("scanner", "stuck-trigger")
            await bench.until_open("SCN.STUCK")
            until = len(bench.records.bodies)
            assert until - before <= 3, "the first reads may still look like codes without an end"
            await asyncio.sleep(1800)
            assert bench.records.bodies[until:] == []
            bench.terminal.clear("scanner", "stuck-trigger")
            await bench.until(lambda: not bench.records.open_codes(), within_s=600)
            await asyncio.sleep(600)
            assert [type(body) for body in bench.records.bodies[until:]] in ([Device, Fault], [Fault, Device])
            assert bench.device("scanner").action == SuggestedAction.NONE

    in_virtual_time(story())


@pytest.mark.parametrize("dead", [(), ("1",)], ids=["all-answer", "the-first-is-dead"])
def test_noise_on_the_pads_bus_is_one_fault(dead: tuple[str, ...]) -> None:
    """It stands at the first slot, also when that pad has died."""

    async def story() -> None:
        async with Bench(BUILD["pads"]()) as bench:
            await bench.until(lambda: bool(bench.states()) and set(bench.states().values()) == {"online"})
            for unit in dead:
                bench.terminal.do(["fault", "call-pad", unit, "silence"])
            bench.terminal.do(["fault", "call-pad", "noise"])
            await bench.until_open("CAL.BUS_CRC", within_s=1200)
            await asyncio.sleep(900)
            noise = [fault for fault in bench.records.of(Fault) if fault.code == "CAL.BUS_CRC"]
            assert [(fault.slot, fault.change) for fault in noise] == [("call-pad-1", "open")]

    in_virtual_time(story())


# -------------------------------------------------------------------------------------------------------------------- seen, not opened


def entry(slot: str, family: str, port: str | None = None, profile: str | None = None) -> DeviceEntry:
    return DeviceEntry(slot=slot, family=family, port=port, profile=profile)


HEADSET = {"vid": 0x0D8C, "pid": 0x0014, "usb_path": "1-4"}
SPEAKERPHONE = (
    Sighting("usb", "1-4", **HEADSET),  # type: ignore[arg-type]
    Sighting("sound", "/dev/snd/pcmC1D0c", role="capture", **HEADSET),  # type: ignore[arg-type]
    Sighting("sound", "/dev/snd/pcmC1D0p", role="playback", **HEADSET),  # type: ignore[arg-type]
)


@pytest.mark.parametrize("port", [None, "1-4"])
def test_both_directions_of_one_sound_card_are_two_devices(port: str | None) -> None:
    plan = make_plan(SPEAKERPHONE, [entry("microphone", "microphone", port), entry("speaker", "speaker", port)], PROFILES)
    assert [(one.slots[0].slot, one.sighting.path) for one in plan.bindings] == [
        ("microphone", "/dev/snd/pcmC1D0c"),
        ("speaker", "/dev/snd/pcmC1D0p"),
    ]
    assert (plan.absent, plan.unclear, plan.unknown) == ((), (), ())


def test_strange_sound_and_screens_are_reported_as_what_they_hang_on() -> None:
    screen = Sighting("display", "card0-DP-2")
    plan = make_plan((*SPEAKERPHONE, screen), [], PROFILES)
    assert [(one.bus, one.place) for one in plan.unknown] == [("usb", "1-4")], (
        "records know no bus for a node, but the hardware is told"
    )


def test_two_microphones_take_two_cards() -> None:
    other = Sighting("sound", "/dev/snd/pcmC0D0c", role="capture")
    slots = [entry("microphone-1", "microphone"), entry("microphone-2", "microphone"), entry("microphone-3", "microphone")]
    plan = make_plan((*SPEAKERPHONE, other), slots, PROFILES)
    assert len({one.sighting.path for one in plan.bindings}) == 2
    assert [absent.slot for absent in plan.absent] == ["microphone-3"]


def test_a_camera_is_a_camera_only_where_the_inventory_says_so() -> None:
    camera = Sighting("video", "/dev/video0", vid=0x1BCF, pid=0x2B97, usb_path="1-2", heads=1, mbps=480)
    assert make_plan([camera], [], PROFILES).unknown == (camera,)
    nowhere = make_plan([camera], [entry("face-camera", "camera")], PROFILES)
    assert [absent.slot for absent in nowhere.absent] == ["face-camera"], (
        "which of two cameras it is, nobody can tell without its place"
    )
    for family in ("camera", "document-camera"):
        (bound,) = make_plan([camera], [entry("face-camera", family, "1-2")], PROFILES).bindings
        assert bound.slots[0].profile.kind is Kind(family)


def test_a_touch_screen_is_no_keypad() -> None:
    touch = Sighting("input", "/dev/input/event1", vid=0x1A2C, pid=0x0E24, product="USB Keypad", usb_path="1-3", role="touch")
    plan = make_plan([touch], [entry("keypad", "keypad", "1-3")], PROFILES)
    assert plan.bindings == ()
    (bound,) = make_plan([touch], [entry("touch-screen", "touch-screen")], PROFILES).bindings
    assert bound.ownership == "observer"


def test_an_inventory_of_seen_devices_opens_nothing() -> None:
    """Presence is all: the opener of this bench would fail the test."""

    class Closed:
        async def open(self, sighting: object, profile: object) -> object:
            raise AssertionError("nothing here may be opened")

    async def story() -> None:
        from simulators.terminal import build_terminal

        kinds = {
            "touch-screen",
            "display",
            "camera",
            "document-camera",
            "fingerprint-reader",
            "signature-pad",
            "microphone",
            "speaker",
            "modem",
        }
        for kind in ("booth", "van"):
            slots = [slot for slot in build_terminal(kind, seed=1, whole=True).slots.values() if slot.model.kind in kinds]
            async with Bench(*slots, opener=Closed()) as bench:
                names = {slot.name for slot in slots}
                await bench.until(lambda bench=bench, names=names: bench.states().keys() == names)  # type: ignore[misc]
                await asyncio.sleep(600)
                assert set(bench.states().values()) == {DeviceState.ONLINE.value}
                assert len(bench.records.of(Device)) == len(slots)
                assert len(inventory(bench.terminal)) == len(slots)

    in_virtual_time(story())


@pytest.mark.parametrize("model", [HelpButton(), EmergencyButton()], ids=["help", "emergency"])
def test_a_button_is_tried_without_calling_anybody(model: HelpButton) -> None:
    """An order asks somebody on site to press it: that it works is the answer, and no alarm is raised."""

    async def story() -> None:
        async with Bench(key(model.kind, model)) as bench:
            await ready(bench)
            tried = asyncio.create_task(bench.monitor.test(model.kind, "read"))
            await asyncio.sleep(3)
            bench.terminal.press(model.kind, "press")
            assert await tried == "ok"
            await asyncio.sleep(30)
            assert bench.records.of(Fault) == []

    in_virtual_time(story())


def test_a_button_that_stays_down_after_the_try_calls() -> None:
    async def story() -> None:
        async with Bench(key("emergency-button", EmergencyButton())) as bench:
            await ready(bench)
            tried = asyncio.create_task(bench.monitor.test("emergency-button", "read"))
            await asyncio.sleep(3)
            bench.terminal.set("emergency-button", "pressed")
            assert await tried == "ok"
            await bench.until_open("BTN.EMERGENCY", within_s=60)

    in_virtual_time(story())


def test_one_pad_of_a_bus_is_tried_and_the_others_go_on() -> None:
    async def story() -> None:
        async with Bench(line("call-pad", CallPadBus(addresses=(1, 2), screens=1))) as bench:
            await ready(bench)
            assert not bench.monitor.can_test("window-screen-1", "read")
            assert not bench.monitor.can_test("call-pad-1", "print")
            tried = asyncio.create_task(bench.monitor.test("call-pad-1", "read"))
            await asyncio.sleep(2)
            bench.terminal.press("call-pad 2", "recall")
            await asyncio.sleep(2)
            assert not tried.done(), "it was another pad"
            bench.terminal.press("call-pad 1", "call-next")
            assert await tried == "ok"
            await bench.until(lambda: bool(bench.records.of(Queue)))
            await asyncio.sleep(3)
            assert [(one.slot, one.action) for one in bench.records.of(Queue)] == [("call-pad-2", "recall")]

    in_virtual_time(story())


# -------------------------------------------------------------------------------------------------------------------------- hostility


class Flood(Model):
    """Sends without end, whatever the host does."""

    def __init__(self, piece: bytes) -> None:
        super().__init__(baud=None)
        self._piece = piece
        self._next_s = 0.0

    def run_mechanism(self, now: float) -> None:
        if now >= self._next_s:
            self._next_s = max(self._next_s, now - 1.0) + 0.05
            self.emit(self._piece, now)

    def mechanism_due(self) -> float | None:
        return self._next_s


@pytest.mark.parametrize(
    ("kind", "profile", "piece"),
    [
        ("scanner", "honeywell-serial", b"Product Name:" + b"A" * 4000),
        ("scanner", "newland-uart", b"7" * 4000),
        ("evaluator", "evaluator-serial-byte", bytes(range(256)) * 8),
        ("evaluator", "evaluator-serial-frame", b"\xaa" * 2048),
        ("call-pad", "call-pad-ft12", b"\xff\x68\x40\x40\x68" * 400),
    ],
)
def test_an_endless_stream_costs_its_own_slot_only(kind: str, profile: str, piece: bytes) -> None:
    """A minute of it is some megabytes; the button beside it works, and nothing is rated or called."""

    async def story() -> None:
        flood = Slot("other", Flood(piece), "serial", "/dev/ttyUSB0", "1-1.1", adapter=CH340)
        devices = [
            DeviceEntry(slot="other", family=kind, profile=profile, port="1-1.1", address=1 if kind == "call-pad" else None),
            DeviceEntry(slot="help-button", family="help-button", port="1-1.3"),
        ]
        async with Bench(flood, key("help-button", HelpButton()), entries=devices) as bench:
            await bench.until_state("help-button", "online")
            await asyncio.sleep(60)
            bench.terminal.press("help-button", "press")
            await bench.until_open("BTN.HELP", within_s=5)
            assert bench.records.of(Rating) == []
            assert bench.records.of(Queue) == []
            assert bench.states()["other"] != "online" or bench.records.of(Fault, "other"), "the trouble is told"
            assert len(bench.records.bodies) < 40, "and told once, not all the time"

    in_virtual_time(story())
