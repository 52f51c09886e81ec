from __future__ import annotations

import asyncio
import dataclasses

import msgspec

from edge_agent.config import DeviceEntry
from edge_agent.discovery import Plan, ProbeTask, make_plan, probe, sighting_body
from edge_agent.transports.base import PortBusy, Sighting
from protocols.canon.words import Ownership
from tests.edge_agent.devices.bench import PROFILES, in_virtual_time

CH340 = (0x1A86, 0x7523)


def tty(place: str, path: str = "/dev/ttyUSB0", ids: tuple[int, int] = CH340) -> Sighting:
    return Sighting("serial", path, *ids, usb_path=place)


def entry(slot: str, family: str, port: str | None = None, **more: object) -> DeviceEntry:
    return DeviceEntry(slot=slot, family=family, port=port, **more)  # type: ignore[arg-type]


def bound(plan: Plan) -> dict[str, str]:
    return {slot.slot: slot.profile.id for binding in plan.bindings for slot in binding.slots}


SNBC = Sighting("usb", "1-1.3", 0x154F, 0x154F, usb_path="1-1.3")


def test_a_usb_device_is_bound_by_its_place_and_known_by_its_ids() -> None:
    plan = make_plan([SNBC], [entry("receipt-printer", "receipt-printer", "1-1.3")], PROFILES)
    assert bound(plan) == {"receipt-printer": "snbc-btp"}
    assert plan.bindings[0].ownership is Ownership.OWNER


def test_nothing_at_the_place_is_absent_whatever_is_plugged_elsewhere() -> None:
    plan = make_plan([SNBC], [entry("receipt-printer", "receipt-printer", "1-1.4")], PROFILES)
    assert [missing.slot for missing in plan.absent] == ["receipt-printer"]
    assert plan.bindings == ()
    assert plan.unknown == ()  # it has a profile, it is just not in the inventory


def test_a_slot_without_a_place_takes_the_first_free_device_that_says_what_it_is() -> None:
    slots = [entry("receipt-printer", "receipt-printer"), entry("id-reader", "id-reader")]
    reader = Sighting("usb", "1-1.1", 0x0400, 0xC35A, usb_path="1-1.1")
    plan = make_plan([SNBC, reader, tty("1-1.9")], slots, PROFILES)
    assert bound(plan) == {"receipt-printer": "snbc-btp", "id-reader": "sdt-usb"}


def test_a_bare_adapter_is_never_guessed_at() -> None:
    plan = make_plan([tty("1-1.9")], [entry("id-reader", "id-reader")], PROFILES)
    assert plan.bindings == ()
    assert plan.probes == ()
    assert [missing.slot for missing in plan.absent] == ["id-reader"]
    assert [sighting.place for sighting in plan.unknown] == ["1-1.9"]


def test_unknown_hardware_is_reported_once_whatever_its_buses() -> None:
    stranger = [
        Sighting("usb", "1-1.7", 0xDEAD, 0xBEEF, usb_path="1-1.7"),
        Sighting("input", "/dev/input/event9", 0xDEAD, 0xBEEF, usb_path="1-1.7"),
    ]
    (unknown,) = make_plan(stranger, [], PROFILES).unknown
    body = sighting_body(unknown)
    assert body is not None
    assert (body.bus, body.port, body.vid, body.pid, body.present) == ("input", "1-1.7", 0xDEAD, 0xBEEF, True)


def test_a_place_that_a_record_cannot_name_is_left_out() -> None:
    assert sighting_body(Sighting("serial", "/tmp/test-1234567890/tty")) is None


def test_the_inventory_may_name_a_profile_for_a_line_that_says_nothing() -> None:
    slots = [entry("receipt-printer", "receipt-printer", "/dev/kf/printer", profile="receipt-printer-serial")]
    plan = make_plan([Sighting("serial", "/dev/kf/printer")], slots, PROFILES)
    assert bound(plan) == {"receipt-printer": "receipt-printer-serial"}
    assert plan.probes == ()


def test_a_named_profile_does_not_bend_to_another_device() -> None:
    slots = [entry("receipt-printer", "receipt-printer", "1-1.3", profile="epson-tm-t20")]
    plan = make_plan([SNBC], slots, PROFILES)
    assert plan.bindings == ()
    ((unclear, reason),) = plan.unclear
    assert unclear.slot == "receipt-printer"
    assert reason == "no profile fits what is plugged in there"


def test_profiles_and_families_that_do_not_exist_are_said_so() -> None:
    slots = [entry("receipt-printer", "receipt-printer", "1-1.3", profile="acme-9"), entry("locker", "locker", "1-1.4")]
    reasons = {unclear.slot: reason for unclear, reason in make_plan([SNBC], slots, PROFILES).unclear}
    assert reasons == {"receipt-printer": "there is no profile acme-9", "locker": "no driver knows the family locker"}


def test_a_listed_serial_port_is_asked_and_the_answer_is_kept() -> None:
    slots = [entry("receipt-printer", "receipt-printer", "1-1.3")]
    here = [tty("1-1.3")]
    (task,) = make_plan(here, slots, PROFILES).probes
    assert {candidate.profile.kind.value for candidate in task.asked} == {"receipt-printer"}
    answered = {("1-1.3", "receipt-printer"): "epson-tm-t88"}
    plan = make_plan(here, slots, PROFILES, answered=answered)
    assert bound(plan) == {"receipt-printer": "epson-tm-t88"}
    assert plan.probes == ()


def test_pads_of_one_port_are_one_binding_with_their_addresses() -> None:
    slots = [entry(f"call-pad-{n}", "call-pad", "1-1.5", address=n, profile="call-pad-ft12") for n in (1, 2, 3)]
    (binding,) = make_plan([tty("1-1.5")], slots, PROFILES).bindings
    assert [(pad.slot, pad.address) for pad in binding.slots] == [("call-pad-1", 1), ("call-pad-2", 2), ("call-pad-3", 3)]


def test_a_renumbered_adapter_keeps_its_slot() -> None:
    slots = [entry("id-reader", "id-reader", "1-1.1", profile="sdt-serial")]
    first = make_plan([tty("1-1.1", "/dev/ttyUSB0")], slots, PROFILES)
    second = make_plan([tty("1-1.1", "/dev/ttyUSB1"), tty("1-1.2", "/dev/ttyUSB0")], slots, PROFILES)
    assert bound(first) == bound(second) == {"id-reader": "sdt-serial"}
    assert second.bindings[0].sighting.path == "/dev/ttyUSB1"


def test_a_switched_scanner_is_recognised_at_its_place() -> None:
    keyboard = Sighting("input", "/dev/input/event3", 0x1EAB, 0x1D03, usb_path="1-1.4")
    switched = Sighting("serial", "/dev/ttyACM0", 0x1EAB, 0x1D06, usb_path="1-1.4")
    slots = [entry("scanner", "scanner", "1-1.4")]
    before = make_plan([keyboard], slots, PROFILES)
    assert not before.bindings[0].switched
    remembered = bound(before)
    after = make_plan([switched], slots, PROFILES, remembered=remembered)
    assert bound(after) == {"scanner": "newland-fm430-serial"}
    assert after.bindings[0].switched
    pinned = [entry("scanner", "scanner", "1-1.4", profile="newland-fm430-keyboard")]
    assert make_plan([switched], pinned, PROFILES).bindings[0].switched
    assert not make_plan([keyboard], pinned, PROFILES, remembered=remembered).bindings[0].switched


def test_the_stricter_of_inventory_and_profile_decides_who_owns() -> None:
    slots = [entry("receipt-printer", "receipt-printer", "1-1.3", ownership=Ownership.OBSERVER)]
    assert make_plan([SNBC], slots, PROFILES).bindings[0].ownership is Ownership.OBSERVER
    profiles = {**PROFILES, "snbc-btp": msgspec.structs.replace(PROFILES["snbc-btp"], ownership=Ownership.IDLE_PROBER)}
    slots = [entry("receipt-printer", "receipt-printer", "1-1.3")]
    assert make_plan([SNBC], slots, profiles).bindings[0].ownership is Ownership.IDLE_PROBER


def test_two_profiles_that_fit_alike_are_named_and_nothing_is_bound() -> None:
    double = msgspec.structs.replace(PROFILES["snbc-btp"], id="snbc-copy")
    plan = make_plan([SNBC], [entry("receipt-printer", "receipt-printer", "1-1.3")], {**PROFILES, "snbc-copy": double})
    ((_, reason),) = plan.unclear
    assert "snbc-btp and snbc-copy" in reason


class _Line:
    """A serial line whose device answers one question at one speed."""

    def __init__(self, question: bytes, answer: bytes, baud: int) -> None:
        self.question, self.answer, self.baud = question, answer, baud
        self.line_baud = 0
        self.asked: list[bytes] = []
        self.pending = b""
        self.closed = 0

    async def write(self, data: bytes, *, timeout_s: float) -> None:
        self.asked.append(data)
        if data == self.question and self.line_baud == self.baud:
            self.pending += self.answer

    async def read(self, *, max_bytes: int, timeout_s: float) -> bytes:
        if not self.pending:
            await asyncio.sleep(timeout_s)
        taken, self.pending = self.pending[:max_bytes], self.pending[max_bytes:]
        return taken

    async def set_baud(self, baud: int) -> None:
        self.line_baud = baud

    async def close(self) -> None:
        self.closed += 1


class _Opener:
    def __init__(self, line: _Line) -> None:
        self.line = line

    async def open(self, sighting: object, profile: object) -> _Line:
        return self.line


def _task() -> ProbeTask:
    (task,) = make_plan([tty("1-1.3")], [entry("receipt-printer", "receipt-printer", "1-1.3")], PROFILES).probes
    return task


def test_probing_tries_the_speeds_and_believes_only_a_fitting_answer() -> None:
    line = _Line(bytes.fromhex("1d4943"), b"_TM-T88V\x00", 9600)
    assert in_virtual_time(probe(_task(), _Opener(line))) == "epson-tm-t88"
    assert line.closed >= 1


def test_a_silent_or_talkative_stranger_is_not_recognised() -> None:
    silent = _Line(b"", b"", 0)
    assert in_virtual_time(probe(_task(), _Opener(silent))) is None
    noisy = _Line(bytes.fromhex("1d4943"), b"\x00\xff" * 5000, 9600)
    assert in_virtual_time(probe(_task(), _Opener(noisy))) is None
    assert all(len(question) <= 32 for question in silent.asked)


def test_a_busy_port_is_the_callers_to_know() -> None:
    class Busy:
        async def open(self, sighting: object, profile: object) -> _Line:
            raise PortBusy("/dev/ttyUSB0")

    try:
        in_virtual_time(probe(_task(), Busy()))
    except PortBusy:
        return
    raise AssertionError("a busy port was taken for a silent one")


def test_sightings_are_plain_values() -> None:
    assert dataclasses.replace(SNBC) == SNBC
    assert hash(SNBC) == hash(dataclasses.replace(SNBC))
