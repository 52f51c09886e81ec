"""Faults and actions by name: every model knows the line faults, every named fault changes what the host sees, and clearing undoes it."""

from __future__ import annotations

import random

import pytest

from edge_agent.transports import base
from firmware_profiles import read_all
from protocols.profile.match import match_profile
from protocols.profile.schema import Kind, parse_all
from simulators import scripts
from simulators.catalogue import DEVICE_TYPES
from simulators.errors import ScriptError, UnknownName
from simulators.models.base import LINE_FAULTS, Model
from simulators.models.callpad import CallPadBus
from simulators.models.keys import DOWN, EV_KEY, REPEAT, UP, EvaluatorPad, HidScanner, KeyDevice, Keypad
from simulators.models.presence import SeenDevice
from simulators.models.sdt import SdtReader
from simulators.ports.pipe import PortKit
from simulators.terminal import TYPES, VirtualTerminal, build_terminal

STATUS = bytes.fromhex("aaaaaa9669000311ffed")
ANSWER = bytes.fromhex("aaaaaa9669000400009094")


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def reader() -> SdtReader:
    return SdtReader()


def answer(model: Model, now: float, wait_s: float = 1.0) -> bytes:
    model.feed(STATUS, now)
    return model.take(now + wait_s, 999)


@pytest.mark.parametrize("kind", DEVICE_TYPES)
def test_every_fault_has_help_and_can_be_set_and_cleared(kind: str) -> None:
    model = DEVICE_TYPES[kind].make(1, None)
    # What is only seen has no line that could be silent or garbled.
    assert ({"unplug"} if isinstance(model, SeenDevice) else set(LINE_FAULTS)) <= set(model.fault_help)
    for name, text in model.fault_help.items():
        assert text, name
        model.set(name, 10.0)
        model.advance(11.0)
        model.clear(name, 12.0)
        assert name not in model.active_faults
        assert model.plugged


@pytest.mark.parametrize("kind", DEVICE_TYPES)
def test_unknown_names_are_answered_with_the_known_ones(kind: str) -> None:
    model = DEVICE_TYPES[kind].make(1, None)
    with pytest.raises(UnknownName, match="Known: .*unplug"):
        model.set("paper-gone", 1.0)
    with pytest.raises(UnknownName, match="paper-gone"):
        model.act("paper-gone", 1.0)


@pytest.mark.parametrize("kind", DEVICE_TYPES)
def test_nothing_is_due_for_ever_in_the_past(kind: str) -> None:
    """A transport sleeps until `next_due`: after looking, that must lie ahead, or it would spin."""
    for name in DEVICE_TYPES[kind].make(1, None).fault_help:
        model = DEVICE_TYPES[kind].make(1, None)
        model.set(name, 10.0)
        for now in (10.0, 10.5, 60.0, 4000.0):
            for endpoint in (0, *(model.usb.endpoints_in if model.usb else ())):
                model.take(now, 1 << 20, endpoint=endpoint)
            if isinstance(model, KeyDevice):
                model.take_events(now)
            due = model.next_due()
            assert due is None or due > now, name


def test_silence_unplug_and_replug(reader: SdtReader) -> None:
    assert answer(reader, 1.0) == ANSWER
    reader.silence(2.0)
    assert answer(reader, 2.0) == b""
    reader.clear("silence", 3.0)
    assert answer(reader, 4.0) == ANSWER
    reader.unplug(5.0)
    assert not reader.plugged
    assert answer(reader, 5.0) == b""
    reader.replug(6.0)
    assert answer(reader, 7.0) == ANSWER


def test_unplug_in_the_middle_of_an_answer(reader: SdtReader) -> None:
    reader.act("place-card", 0.0)
    first = b""
    for query in ("aaaaaa9669000320 0122", "aaaaaa9669000320 0221", "aaaaaa9669000330 0132"):
        reader.feed(bytes.fromhex(query), 10.0)
        first = reader.take(10.8, 64)
    reader.unplug(10.8)
    assert len(first) == 64
    assert reader.take(20.0, 9999) == b""


def test_corrupt_next_spoils_so_many_answers(reader: SdtReader) -> None:
    reader.corrupt_next(2)
    answers = [answer(reader, float(at)) for at in (1, 2, 3)]
    assert [found == ANSWER for found in answers] == [False, False, True]
    assert all(len(found) == len(ANSWER) for found in answers)


def test_stall_holds_pending_answers(reader: SdtReader) -> None:
    reader.feed(STATUS, 1.0)
    reader.stall(5.0, 1.0)
    assert reader.take(5.9, 99) == b""
    assert reader.take(6.1, 99) == ANSWER


def test_garbage(reader: SdtReader) -> None:
    reader.garbage(7, 1.0)
    assert len(reader.take(1.0, 99)) == 7
    reader.set("garbage", 2.0)
    noisy = answer(reader, 2.0)
    assert noisy.endswith(ANSWER)
    assert len(noisy) > len(ANSWER)


def test_brown_out_comes_and_goes(reader: SdtReader) -> None:
    reader.set("brown-out", 0.0)
    seen = [answer(reader, float(at), 0.5) == ANSWER for at in range(1, 11)]
    assert seen == [False, True, True, True, False, False, True, True, True, False]


def test_same_seed_same_noise() -> None:
    noise = []
    for _ in range(2):
        model = SdtReader(seed=5)
        model.garbage(20, 0.0)
        noise.append(model.take(1.0, 99))
    assert noise[0] == noise[1]


GOOD_QUERIES = {
    "escpos": b"\x10\x04\x01",
    "pjl": b"\x1b%-12345X@PJL\r\n@PJL INFO STATUS\r\n\x1b%-12345X",
    "sdt": STATUS,
    "scanner": b"\x7e\x010000@QRYSYS;\x03",
    "scanner-em": bytes.fromhex("7e0007010002 01abcd"),
    "callpad": bytes.fromhex("ff6802026801010216"),
    "modbus": bytes.fromhex("010400010002200b"),
    "card-f2": bytes.fromhex("f200000343313003b0"),
    "card-stx": bytes.fromhex("02000231300302"),
    "card-d1801": bytes.fromhex("0252460315"),
    "card-541": bytes.fromhex("02303041500310"),
}


@pytest.mark.parametrize("kind", GOOD_QUERIES)
@pytest.mark.parametrize("seed", range(20))
def test_noise_never_breaks_a_model(kind: str, seed: int) -> None:
    """Whatever was on the line: nothing is raised, buffers stay small, and after a pause a sound query is answered."""
    noise = random.Random(seed)
    model, now = DEVICE_TYPES[kind].make(seed, None), 10.0
    for _ in range(60):
        model.feed(noise.randbytes(noise.randint(1, 80)), now)
        now += noise.choice((0.001, 0.1, 3.0))
        model.take(now, 1 << 16)
    answered = b""
    for _ in range(4):  # the first query may complete a frame that the noise began
        now += 60.0
        model.feed(GOOD_QUERIES[kind], now)
        answered = model.take(now + 30.0, 1 << 16)
    assert answered


class TestKeys:
    def test_digits_are_pressed_and_released_in_order(self) -> None:
        pad = Keypad()
        pad.act("type", 1.0, "12")
        keys = [(event.code, event.value) for event in pad.take_events(5.0) if event.type == EV_KEY]
        assert keys == [(79, DOWN), (79, UP), (80, DOWN), (80, UP), (96, DOWN), (96, UP)]
        assert pad.pressed_keys(5.0) == frozenset()

    def test_keys_take_a_persons_time_and_a_scanner_takes_none(self) -> None:
        pad, scanner = Keypad(), HidScanner()
        pad.act("type", 1.0, "2468")
        scanner.act("scan", 1.0, "Ab-1")
        assert len(pad.take_events(1.1)) < len(scanner.take_events(1.1))
        codes = [event.code for event in scanner.take_events(2.0)]
        assert codes == []

    def test_stuck_key_repeats_until_freed(self) -> None:
        pad = EvaluatorPad()
        pad.set("stuck-key", 1.0)
        events = [event for event in pad.take_events(3.0) if event.type == EV_KEY]
        assert events[0].value == DOWN
        assert len(events) > 40
        assert all(event.value == REPEAT for event in events[1:])
        assert pad.pressed_keys(3.0)
        pad.clear("stuck-key", 4.0)
        assert [event.value for event in pad.take_events(5.0) if event.type == EV_KEY][-1] == UP
        assert not pad.pressed_keys(5.0)

    def test_dropped_queue(self) -> None:
        pad = Keypad()
        pad.act("type", 1.0, "123")
        pad.set("dropped", 1.0)
        assert [(event.type, event.code) for event in pad.take_events(9.0)] == [(0, 3), (0, 0)]

    def test_a_key_that_is_not_there(self) -> None:
        with pytest.raises(UnknownName, match="level from 5"):
            EvaluatorPad().act("rate", 1.0, "7")


class TestTerminal:
    @pytest.mark.parametrize("kind", TYPES)
    def test_types_have_their_inventory(self, kind: str) -> None:
        terminal = build_terminal(kind, seed=3)
        wanted = {
            "kiosk": {"id-reader", "laser-printer", "receipt-printer", "scanner", "keypad", "evaluator"},
            "zone": {"id-reader", "laser-printer", "receipt-printer", "scanner", "keypad", "evaluator", "sensors"},
            "call-pads": {"receipt-printer", "call-pad"},
            "booth": {"id-reader", "laser-printer", "receipt-printer", "scanner", "evaluator", "sensors"},
            "desk": {"id-reader", "laser-printer", "scanner", "evaluator", "sensors"},
            "evaluator": {"id-reader"},
            "van": {"id-reader", "laser-printer", "scanner", "sensors"},
        }[kind]
        assert wanted <= set(terminal.slots)
        places = [slot.place for slot in terminal.slots.values()]
        assert len(set(places)) == len(places)

    def test_same_seed_same_terminal(self) -> None:
        assert build_terminal("kiosk", seed=4, name="x").ports() == build_terminal("kiosk", seed=4, name="x").ports()
        assert len({str(build_terminal("kiosk", seed=seed).ports()) for seed in range(8)}) > 1

    @pytest.mark.parametrize("name", ["call-pad 3", "call-pad-3"])
    def test_units_by_either_name(self, name: str) -> None:
        terminal = build_terminal("call-pads", windows=4)
        terminal.set(name, "silence")
        assert terminal.faults() == {"call-pad-3": ["silence"]}
        terminal.clear(name, "silence")
        assert terminal.faults() == {}

    def test_press_reaches_the_pad(self) -> None:
        terminal = build_terminal("call-pads", windows=4)
        terminal.do(["press", "call-pad", "3", "call-next"])
        bus = terminal.model("call-pad")
        assert isinstance(bus, CallPadBus)
        assert bus.pads[3].keys_pressed == 1

    def test_sensor_modules_by_name(self) -> None:
        terminal = build_terminal("desk")
        terminal.set("door", "door-open")
        assert terminal.faults() == {"sensors-2": ["door-open"], "sensors-door": ["door-open"]}

    def test_names_that_are_not_there(self) -> None:
        terminal = build_terminal("kiosk")
        for words, message in (
            (["fault", "recipt-printer", "paper-out"], "device in this kiosk"),
            (["fault", "receipt-printer", "paper"], "fault"),
            (["press", "call-pad", "1", "call-next"], "device"),
            (["explode", "receipt-printer", "paper-out"], "not a command"),
        ):
            with pytest.raises(UnknownName, match=message):
                terminal.do(words)

    def test_ports_description_names_every_place_on_a_bus(self) -> None:
        ports = build_terminal("call-pads", windows=4).ports()
        pads = [entry for entry in ports if entry["family"] == "call-pad"]
        assert [entry["slot"] for entry in pads] == ["call-pad-1", "call-pad-2", "call-pad-3", "call-pad-4"]
        assert len({entry["port"] for entry in pads}) == 1

    def test_timed_fault_and_script(self) -> None:
        clock = Hands()
        terminal = VirtualTerminal("kiosk", build_terminal("kiosk", seed=1).slots.values(), clock=clock)
        terminal.set("receipt-printer", "paper-out", for_s=30)
        terminal.play(scripts.parse("at 3s id-reader silence for 5s\nevery 10s from 5s press receipt-printer feed\n"))
        log = []
        for clock.now in (1000.0, 1003.0, 1007.9, 1008.0, 1029.9, 1030.0):
            terminal.advance(clock.now)
            log.append(terminal.faults())
        paper, silent = {"receipt-printer": ["paper-out"]}, {"id-reader": ["silence"]}
        assert log == [paper, paper | silent, paper | silent, paper, paper, {}]
        assert terminal.next_due() == 1035.0, "the repeating step goes on"

    def test_a_script_that_names_nonsense_changes_nothing(self) -> None:
        terminal = build_terminal("kiosk")
        with pytest.raises(UnknownName):
            terminal.play(scripts.parse("at 0s receipt-printer paper-out\nat 1s receipt-printer nonsense"))
        assert terminal.next_due() is None


class TestScripts:
    def test_both_forms_say_the_same(self) -> None:
        lines = scripts.parse("# demo\nat 500ms for 2m receipt-printer paper-out # comment\n\nat 1s clear scanner unplug\n")
        toml = scripts.parse_toml(
            '[[step]]\nat = "500ms"\nfor = "2m"\ndo = "receipt-printer paper-out"\n[[step]]\nat = 1\ndo = "clear scanner unplug"\n'
        )
        assert lines == toml
        assert lines[0].for_s == 120.0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("at 3s receipt-printer", "Line 1: a step names"),
            ("\nat three receipt-printer paper-out", "Line 2: “three” is not a duration"),
            ("soon receipt-printer paper-out", "starts with “at”"),
            ("at", "a time behind “at” is missing"),
            ("at 1s press scanner scan X for 3s", "“for” belongs to faults"),
            ("every 1ms press scanner scan X", "at least 50ms"),
        ],
    )
    def test_mistakes_are_named_with_their_line(self, text: str, message: str) -> None:
        with pytest.raises(ScriptError, match=message):
            scripts.parse(text)

    @pytest.mark.parametrize("text", ["[[step]]\nwhen = 1", "[other]\na=1", "x", '[[step]]\ndo = "a b"'])
    def test_bad_toml(self, text: str) -> None:
        with pytest.raises(ScriptError):
            scripts.parse_toml(text)


class TestProfiles:
    """The identities that simulated terminals show are ones the shipped profiles know."""

    @pytest.mark.parametrize("kind", TYPES)
    def test_every_device_finds_its_profile(self, kind: str) -> None:
        profiles = list(parse_all(read_all()).values())
        by_id = {profile.id: profile for profile in profiles}
        for seed in range(12):
            terminal = build_terminal(kind, seed=seed)
            found = {sighting.usb_path: sighting for sighting in terminal.discoverer(PortKit.of(base)).sightings()}
            for entry in terminal.ports():
                wanted = Kind(entry["family"])
                named = entry.get("profile")
                profile = by_id[named] if named else match_profile(found[entry["port"]], profiles)
                assert profile is not None, entry
                assert profile.kind is wanted, entry
