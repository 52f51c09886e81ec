"""The owner API's services on simulated devices, in virtual time: what is answered, who has a device, and what its driver sees of it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from edge_agent.config import DeviceEntry
from edge_agent.devices.base import SlotBinding
from edge_agent.owner import service as owner_service
from edge_agent.owner.base import CommandFailed, Request, Tell
from edge_agent.transports.base import Port, PortStalled
from protocols.canon.words import Ownership
from protocols.contract.records import Counters
from simulators.models.keys import HidScanner, Keypad
from simulators.models.presence import Camera
from simulators.models.scanner import SerialScanner
from simulators.ports.slots import Slot
from tests.edge_agent.devices.bench import Bench, in_virtual_time
from tests.edge_agent.owner.talk import BASE, Desk, Talker, code_of

READ, ENTRY = "BarcodeReader.Read", "Keyboard.DataEntry"
DIGITS: dict[str, dict[str, bool]] = {
    name: {} for name in ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
}
KEYS = DIGITS | {"enter": {"terminate": True}, "cancel": {"terminate": True}, "backspace": {}, "clear": {}}


def hid_scanner() -> Slot:
    return Slot("scanner", HidScanner(), "input", "/dev/input/event3", "1-1.4")


def keypad() -> Slot:
    return Slot("keypad", Keypad(), "input", "/dev/input/event4", "1-1.5")


def on_a_desk(*slots: Slot, test: Callable[[Desk], Awaitable[None]], ownership: Ownership = Ownership.OWNER) -> None:
    """Run `test` when every device has been seen."""

    async def work() -> None:
        bench = Bench(*slots, ownership=ownership, entries=entries_of(slots, ownership))
        async with bench, Desk(bench) as desk:
            await bench.until(lambda: len(bench.states()) == len(slots))
            await test(desk)

    in_virtual_time(work())


def entries_of(slots: tuple[Slot, ...], ownership: Ownership) -> list[DeviceEntry] | None:
    return (
        None
        if ownership is Ownership.OWNER
        else [DeviceEntry(slot=slot.name, family=slot.model.kind, port=slot.place, ownership=ownership) for slot in slots]
    )


def data_of(message: dict[str, Any]) -> bytes:
    (read,) = message["payload"]["readOutput"]
    return base64.b64decode(read["barcodeData"])


# ------------------------------------------------------------------------------------------------------------------------- messages


@pytest.mark.spec("D-201, D-202")
def test_what_is_no_command_is_acknowledged_so_and_nothing_follows() -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        head = {"type": "command", "name": "Common.Status", "requestId": 1, "version": "2.0"}
        bad: list[tuple[Any, str]] = [
            ("{", "invalidMessage"),
            ("[]", "invalidMessage"),
            ("[" * 5000, "invalidMessage"),
            (json.dumps({"header": head | {"type": "event"}}), "invalidMessage"),
            (json.dumps({"header": head | {"name": "no name"}}), "invalidMessage"),
            (json.dumps({"header": head | {"version": "two"}}), "invalidMessage"),
            (json.dumps({"header": head, "payload": [1]}), "invalidMessage"),
            (json.dumps({"header": head | {"requestId": 0}}), "invalidRequestID"),
            (json.dumps({"header": head | {"requestId": "1"}}), "invalidRequestID"),
            (json.dumps({"header": {k: v for k, v in head.items() if k != "requestId"}}), "invalidRequestID"),
        ]
        for text, status in bad:
            one.messages.clear()
            one.line.receive(text)
            await asyncio.sleep(0.1)
            assert [(m["header"]["type"], m["header"]["status"]) for m in one.messages] == [("acknowledge", status)], text

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-202")
def test_a_request_id_in_use_and_a_fifth_request_are_not_queued() -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        await one.claim()
        first = [one.post(READ, {}, timeout_ms=60_000, request_id=number) for number in (10, 11, 12, 13)]
        one.post(READ, {}, request_id=13)
        one.post(READ, {}, request_id=14)
        refusals = [m["header"]["status"] for m in one.messages if m["header"]["type"] == "acknowledge"][-2:]
        assert refusals == ["invalidRequestID", "tooManyRequests"]
        assert code_of(await one.ask("Common.Cancel", {"requestIds": first}, request_id=99)) == "success"  # always has room

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-203, D-204, D-205, D-208")
@pytest.mark.parametrize(
    ("name", "payload", "version", "code"),
    [
        ("Common.Status", {"surprise": "SECRETWORD"}, None, "invalidData"),
        ("KioskFleet.Claim", {"leaseS": 1}, None, "invalidData"),
        ("KioskFleet.Claim", {"application": "SECRETWORD"}, None, "invalidData"),
        (READ, {"symbologies": "SECRETWORD"}, None, "invalidData"),
        ("Common.Status", None, "7.0", "unsupportedCommand"),
        ("CardReader.Move", {}, None, "unsupportedCommand"),
        ("Vendor.Surprise", {"secret": "SECRETWORD"}, None, "invalidCommand"),
        (READ, {}, None, "sequenceError"),
    ],
)
def test_a_command_that_is_not_done_says_why_and_repeats_nothing(name: str, payload: Any, version: str | None, code: str) -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        done = await one.ask(name, payload, version=version)
        assert code_of(done) == code
        assert done["header"]["errorDescription"]
        assert b"SECRETWORD" not in one.raw

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-206")
def test_cancel_ends_commands_at_work_and_queued_and_those_that_have_not_begun() -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        await one.claim()
        at_work, queued = one.post(READ, {}), one.post(READ, {})
        await asyncio.sleep(1)
        fresh = one.post(READ, {})
        done = await one.ask("Common.Cancel", {"requestIds": [at_work, queued, fresh]})
        assert code_of(done) == "success"
        for number in (at_work, queued, fresh):
            assert code_of(await one.answer(number)) == "canceled"
        assert code_of(await one.ask("Common.Cancel")) == "noMatchingRequestIDs"
        assert not desk.service.busy
        number = one.post(READ, {})
        await asyncio.sleep(0.2)
        desk.bench.terminal.press("scanner", "scan", "AFTER-CANCEL")
        assert data_of(await one.answer(number)) == b"AFTER-CANCEL"

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-206")
def test_nobody_cancels_what_another_connection_asked_for() -> None:
    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner"), desk.connect("scanner", "other")
        await one.claim()
        number = one.post(READ, {})
        await asyncio.sleep(1)
        assert code_of(await two.ask("Common.Cancel", {"requestIds": [number]})) == "noMatchingRequestIDs"
        assert not one.completions(number)

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-207")
@pytest.mark.parametrize(("timeout_ms", "seconds"), [(1500, 1.5), (0, 120), (600_000, 120)])
def test_a_command_ends_when_its_time_runs_out(timeout_ms: int, seconds: float) -> None:
    async def test(desk: Desk) -> None:
        one, loop = desk.connect("scanner"), asyncio.get_running_loop()
        await one.claim()
        began_s = loop.time()
        assert code_of(await one.ask(READ, {}, timeout_ms=timeout_ms)) == "timeOut"
        assert loop.time() - began_s == pytest.approx(seconds, abs=1.0)

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-207")
def test_the_time_of_a_command_runs_while_it_waits_its_turn_and_it_is_then_not_done(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []

    async def serve(port: Port, request: Request) -> Mapping[str, Any]:
        begun.append(request.timeout_s)
        await asyncio.sleep(10)
        return {}

    async def test(desk: Desk) -> None:
        one, loop = desk.connect("scanner"), asyncio.get_running_loop()
        await one.claim()
        began_s = loop.time()
        first, second, third = (one.post(READ, {}, timeout_ms=ms) for ms in (60_000, 3_000, 60_000))
        assert code_of(await one.answer(second)) == "timeOut"
        assert loop.time() - began_s == pytest.approx(3.0, abs=0.2)
        assert code_of(await one.answer(first)) == "success"
        assert code_of(await one.answer(third)) == "success"
        assert begun == [pytest.approx(60, abs=2), pytest.approx(50, abs=3)]
        assert not desk.service.busy

    served_by(monkeypatch, serve)
    on_a_desk(hid_scanner(), test=test)


# ------------------------------------------------------------------------------------------------------------------------- services


@pytest.mark.spec("D-101, D-301")
def test_the_publisher_lists_each_service_and_no_service_is_where_none_is() -> None:
    async def test(desk: Desk) -> None:
        publisher = desk.connect(None)
        listed = (await publisher.ask("ServicePublisher.GetServices"))["payload"]["services"]
        assert listed == [{"serviceURI": f"{BASE}/scanner"}, {"serviceURI": f"{BASE}/keypad"}]
        assert desk.service.open("surprise", name=None, base=BASE, send=lambda _: None) is None
        assert code_of(await publisher.ask("Common.Status")) == "unsupportedCommand"

    on_a_desk(hid_scanner(), keypad(), test=test)


@pytest.mark.spec("D-302, D-304")
def test_the_status_and_its_changes_are_told_without_a_claim() -> None:
    async def work() -> None:
        desk: Desk | None = None
        bench = Bench(hid_scanner(), on_state=lambda body: desk.service.on_state(body) if desk else None)
        async with bench, Desk(bench) as started:
            desk = started
            early = (await desk.connect("scanner").ask("Common.Status"))["payload"]
            assert (early["common"]["device"], early["barcodeReader"]["scanner"]) == ("starting", "unknown")
            await bench.until_state("scanner", "online")
            one, two = desk.connect("scanner"), desk.connect("scanner", "other")
            await two.claim()
            status = (await one.ask("Common.Status"))["payload"]
            assert (status["common"]["device"], status["barcodeReader"]["scanner"]) == ("online", "on")
            assert status["kioskFleet"] == {"claimable": True, "claimedBy": "other", "mine": False}
            assert (await two.ask("Common.Status"))["payload"]["kioskFleet"]["mine"]
            bench.terminal.set("scanner", "unplug")
            await bench.until_state("scanner", "noDevice")
            for line in (one, two):
                assert line.events("Common.StatusChangedEvent")[-1]["common"]["device"] == "noDevice"

    in_virtual_time(work())


@pytest.mark.spec("D-303")
def test_capabilities_are_those_of_this_device() -> None:
    async def test(desk: Desk) -> None:
        payload = (await desk.connect("keypad").ask("Common.Capabilities"))["payload"]
        commands = {name for interface in payload["interfaces"] for name in interface["commands"]}
        assert commands >= {"Common.Status", ENTRY, "KioskFleet.Claim"}
        assert READ not in commands
        assert not any("Pin" in name for name in commands)
        assert payload["keyboard"]["autoBeep"]["activeAvailable"] is False
        assert payload["common"]["deviceInformation"][0]["serialNumber"] is None

    on_a_desk(keypad(), test=test)


# --------------------------------------------------------------------------------------------------------------------------- claims


@pytest.mark.spec("D-401, D-402")
def test_one_connection_has_a_device_and_a_second_hears_the_applications_name() -> None:
    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner", "hall-kiosk"), desk.connect("scanner", None)
        await one.claim(application="not-my-name")
        refused = await two.ask("KioskFleet.Claim", {"application": "native-tool"})
        assert refused["payload"] == {"errorCode": "claimed", "claimedBy": "hall-kiosk"}
        assert code_of(await two.ask(READ, {})) == "sequenceError"
        assert code_of(await two.ask("KioskFleet.Release")) == "notClaimed"
        assert code_of(await one.ask("KioskFleet.Release")) == "success"
        await two.claim(application="native-tool")
        assert dict(desk.service.claimed()) == {"scanner": "native-tool"}
        assert code_of(await one.ask(READ, {})) == "sequenceError"

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-403")
def test_a_lease_that_is_not_renewed_ends_and_a_command_keeps_it() -> None:
    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner"), desk.connect("scanner", "other")
        await one.claim(leaseS=10)
        for _ in range(3):
            await asyncio.sleep(8)
            assert code_of(await one.ask("KioskFleet.Renew")) == "success"
        assert code_of(await one.ask(READ, {}, timeout_ms=60_000)) == "timeOut"  # longer than the lease
        assert code_of(await two.ask("KioskFleet.Claim")) == "claimed"
        await asyncio.sleep(11)
        assert one.events("KioskFleet.ClaimLostEvent") == [{"reason": "lease"}]
        assert code_of(await one.ask(READ, {})) == "sequenceError"
        await two.claim()

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-404")
def test_with_the_connection_the_device_is_free_after_its_command_has_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[float] = []

    async def slow_end(port: Port, request: Request) -> Mapping[str, Any]:
        try:
            await asyncio.sleep(request.timeout_s)
        finally:
            await asyncio.sleep(1.0)
            ended.append(asyncio.get_running_loop().time())
        return {}

    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner"), desk.connect("scanner", "other")
        await one.claim()
        one.post(READ, {})
        await asyncio.sleep(1)
        closing = asyncio.create_task(one.line.close())
        await asyncio.sleep(0.5)
        assert code_of(await two.ask("KioskFleet.Claim")) == "claimed"
        await closing
        await two.claim()
        assert ended
        count = len(one.messages)
        await asyncio.sleep(5)
        assert len(one.messages) == count

    served_by(monkeypatch, slow_end)
    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-405")
@pytest.mark.parametrize("why", ["locked", "updating", "restarting"])
def test_a_closed_terminal_gives_no_claim_and_takes_claims_back_when_nobody_is_served(why: Any) -> None:
    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner"), desk.connect("keypad")
        await one.claim(leaseS=120)
        number = one.post(READ, {}, timeout_ms=20_000)
        desk.closed, desk.idle = why, False
        await asyncio.sleep(5)
        assert code_of(await two.ask("KioskFleet.Claim")) == why
        assert not one.events("KioskFleet.ClaimLostEvent")  # the citizen is still served
        desk.idle = True
        await asyncio.sleep(5)
        assert not one.events("KioskFleet.ClaimLostEvent")  # the command is still at the device
        assert code_of(await one.answer(number)) == "timeOut"
        await asyncio.sleep(1)
        assert one.events("KioskFleet.ClaimLostEvent") == [{"reason": why}]
        desk.closed = None
        await two.claim()

    on_a_desk(hid_scanner(), keypad(), test=test)


def always_something_to_do(one: Talker, until: Callable[[], bool]) -> asyncio.Task[None]:
    """An application that has the next command ready before the last one is over."""

    async def work() -> None:
        while not until():
            one.post(READ, {}, timeout_ms=30_000)
            await asyncio.sleep(10)

    return asyncio.create_task(work())


@pytest.mark.spec("D-405")
def test_an_application_that_always_has_a_next_command_does_not_outlive_a_lock() -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        await one.claim(leaseS=120)

        def lost() -> bool:
            return bool(one.events("KioskFleet.ClaimLostEvent"))

        working = always_something_to_do(one, lost)
        await asyncio.sleep(60)
        desk.closed = "locked"
        async with asyncio.timeout(200):
            while not lost():
                await asyncio.sleep(1)
        await working
        assert one.events("KioskFleet.ClaimLostEvent") == [{"reason": "locked"}]

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-407", "D-410")
def test_an_update_that_waited_long_enough_goes_before_the_next_command() -> None:
    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner"), desk.connect("scanner")
        await one.claim(leaseS=120)

        def lost() -> bool:
            return bool(one.events("KioskFleet.ClaimLostEvent"))

        working = always_something_to_do(one, lost)
        await asyncio.sleep(1_000)
        assert not lost()  # nobody waits
        began_s = asyncio.get_running_loop().time()
        while not desk.service.make_way():
            assert asyncio.get_running_loop().time() - began_s < 500
            if asyncio.get_running_loop().time() - began_s < 290:
                assert not lost()
            await asyncio.sleep(1)
            if desk.service.closed() is not None and not desk.service.busy:
                assert code_of(await two.ask("KioskFleet.Claim")) == "updating"
        await asyncio.sleep(1)
        await two.claim()  # it had its turn, or was given up
        await working

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-406")
def test_a_device_of_another_owner_cannot_be_claimed() -> None:
    async def test(desk: Desk) -> None:
        assert code_of(await desk.connect("scanner").ask("KioskFleet.Claim")) == "notClaimable"
        assert desk.service.claimable() == frozenset()

    on_a_desk(hid_scanner(), ownership=Ownership.OBSERVER, test=test)


@pytest.mark.spec("D-406")
def test_a_device_that_is_not_there_cannot_be_claimed() -> None:
    async def test(desk: Desk) -> None:
        desk.bench.terminal.set("scanner", "unplug")
        await desk.bench.until_state("scanner", "noDevice")
        assert code_of(await desk.connect("scanner").ask("KioskFleet.Claim")) == "notClaimable"

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-407")
def test_self_tests_are_refused_while_a_citizen_is_served_or_another_has_the_device() -> None:
    async def test(desk: Desk) -> None:
        one, two = desk.connect("scanner"), desk.connect("scanner", "other")
        assert (await one.ask("KioskFleet.SelfTest", {"test": "query"}))["payload"]["result"] == "ok"
        assert code_of(await one.ask("KioskFleet.SelfTest", {"test": "print"})) == "notTestable"
        desk.idle = False
        for test_name in ("read", "beep", "print"):
            assert code_of(await one.ask("KioskFleet.SelfTest", {"test": test_name})) == "session"
        desk.idle = True
        await two.claim()
        assert code_of(await one.ask("KioskFleet.SelfTest", {"test": "beep"})) == "claimed"

    on_a_desk(hid_scanner(), test=test)


# -------------------------------------------------------------------------------------------------------------------------- devices


Serve = Callable[[Port, Request], Awaitable[Mapping[str, Any]]]


def served_by(monkeypatch: pytest.MonkeyPatch, serve: Serve) -> list[object]:
    """Every device is served by this instead; returns the servers that were made."""
    made: list[object] = []

    class Served:
        commands = frozenset({READ, ENTRY})

        def __init__(self) -> None:
            made.append(self)

        def capabilities(self, bound: SlotBinding) -> Mapping[str, Any]:
            return {}

        async def serve(self, port: Port, bound: SlotBinding, request: Request, tell: Tell) -> Mapping[str, Any]:
            return await serve(port, request)

    monkeypatch.setattr(owner_service, "server_for", lambda bound: Served())
    return made


def test_tests_without_end_make_no_more_looks_than_a_device_bears() -> None:
    async def test(desk: Desk) -> None:
        looks: list[object] = []
        seen = desk.bench.monitor._book.observe

        def note(binding: Any, observation: Any) -> None:
            looks.append(observation)
            seen(binding, observation)

        desk.bench.monitor._book.observe = note  # type: ignore[method-assign]
        lines = [desk.connect("keypad") for _ in range(4)]

        async def hammer(one: Talker) -> None:
            while True:
                await one.ask("KioskFleet.SelfTest", {"test": "query"})

        tasks = [asyncio.create_task(hammer(one)) for one in lines]
        await asyncio.sleep(30)
        for task in tasks:
            task.cancel()
        for one in lines:
            await one.line.close()
        assert 20 < len(looks) < 30 / 0.3 + 5

    on_a_desk(keypad(), test=test)


@pytest.mark.spec("D-501")
def test_commands_come_one_after_the_other_between_looks_and_looks_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    async def serve(port: Port, request: Request) -> Mapping[str, Any]:
        log.append("in")
        await asyncio.sleep(0.7)
        log.append("out")
        return {}

    async def test(desk: Desk) -> None:
        model = desk.bench.terminal.model("scanner")
        assert isinstance(model, SerialScanner)
        heard = model.on_bytes

        def hear(data: bytes, now: float) -> None:
            log.append("look")
            heard(data, now)

        monkeypatch.setattr(model, "on_bytes", hear)
        one = desk.connect("scanner")
        await one.claim()
        for _ in range(5):
            numbers = [one.post(READ, {}) for _ in range(4)]
            for number in numbers:
                assert code_of(await one.answer(number)) == "success"
        assert log.count("in") == 20
        for index, word in enumerate(log):
            if word == "in":
                assert log[index + 1] == "out"  # neither a look nor another command came in between
        assert log.count("look") >= 10  # a look soon after each command

    served_by(monkeypatch, serve)
    on_a_desk(Slot("scanner", SerialScanner(), "serial", "/dev/ttyUSB0", "1-1.4"), test=test)


@pytest.mark.spec("D-502, D-503")
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_command_that_hangs_is_ended_and_the_device_is_watched_again(monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    calls: list[str] = []

    async def serve(port: Port, request: Request) -> Mapping[str, Any]:
        calls.append(request.name)
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if not stubborn:
                    raise
                stubborn_tasks.append(asyncio.current_task())
                if len(stubborn_tasks) > 1:
                    raise

    stubborn_tasks: list[Any] = []

    async def test(desk: Desk) -> None:
        one, other = desk.connect("scanner"), desk.connect("keypad")
        await one.claim()
        await other.claim()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        assert code_of(await one.ask(READ, {}, timeout_ms=1000)) == "timeOut"
        assert loop.time() - began_s < 10
        assert calls == [READ]
        assert (await one.ask("KioskFleet.SelfTest", {"test": "query"}))["payload"]["result"] == "ok"
        assert desk.bench.states() == {"scanner": "online", "keypad": "online"}
        for task in stubborn_tasks:
            task.cancel()

    served_by(monkeypatch, serve)
    on_a_desk(hid_scanner(), keypad(), test=test)


@pytest.mark.spec("D-502, D-504")
def test_what_a_command_fails_with_is_one_word_and_it_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[tuple[Exception, str]] = [
        (CommandFailed("mediaJam"), "mediaJam"),
        (CommandFailed("userError", plain=True), "userError"),
        (CommandFailed("timeout", plain=True), "timeOut"),
        (CommandFailed("surprise", plain=True), "internalError"),
        (PortStalled("the port does not take"), "hardwareError"),
        (ValueError("PLANTED-999999190001019990"), "internalError"),
    ]
    calls: list[int] = []

    async def serve(port: Port, request: Request) -> Mapping[str, Any]:
        calls.append(1)
        raise failures[len(calls) - 1][0]

    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        await one.claim()
        for _, word in failures:
            assert code_of(await one.ask(READ, {})) == word
        assert len(calls) == len(failures)
        assert b"PLANTED" not in one.raw
        assert desk.bench.states() == {"scanner": "online"}

    served_by(monkeypatch, serve)
    on_a_desk(hid_scanner(), test=test)
    assert "PLANTED" not in caplog.text
    assert "ValueError" in " ".join(str(record.__dict__) for record in caplog.records)


@pytest.mark.spec("D-502")
def test_a_device_that_goes_away_ends_its_command_and_everything_that_waits_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    async def serve(port: Port, request: Request) -> Mapping[str, Any]:
        calls.append(request.name)
        await port.read_events(timeout_s=60)  # type: ignore[union-attr]  # keys
        return {}

    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        await one.claim()
        numbers = [one.post(READ, {}), one.post(READ, {})]
        await asyncio.sleep(1)
        desk.bench.terminal.set("scanner", "unplug")
        for number in numbers:
            assert code_of(await one.answer(number)) == "deviceNotReady"
        await desk.bench.until_open("SCN.UNPLUGGED")
        desk.bench.terminal.clear("scanner", "unplug")
        await desk.bench.until_state("scanner", "online")
        assert calls == [READ]  # neither the one that was cut off nor the one behind it is done later

    served_by(monkeypatch, serve)
    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-504")
def test_each_claim_has_a_server_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(port: Port, request: Request) -> Mapping[str, Any]:
        return {}

    made = served_by(monkeypatch, serve)

    async def test(desk: Desk) -> None:
        users: list[object] = []
        one = desk.connect("scanner")
        for _ in range(2):
            await one.claim()
            await one.ask(READ, {})
            await one.ask(READ, {})
            served = one.line._served
            assert served is not None
            users.append(served.server)
            await one.ask("KioskFleet.Release")
            assert one.line._served is None
        assert users[0] is not users[1]
        assert all(user in made for user in users)

    on_a_desk(hid_scanner(), test=test)


@pytest.mark.spec("D-505, D-507, D-508")
@pytest.mark.parametrize("line", [False, True], ids=["keyboard", "line"])
def test_a_code_is_read_once_it_is_asked_for(line: bool) -> None:
    slot = Slot("scanner", SerialScanner(), "serial", "/dev/ttyUSB0", "1-1.4") if line else hid_scanner()

    async def test(desk: Desk) -> None:
        one = desk.connect("scanner")
        await one.claim()
        desk.bench.terminal.press("scanner", "scan", "THE-ONE-BEFORE")
        number = one.post(READ, {}, timeout_ms=30_000)
        await asyncio.sleep(2)
        assert not one.completions(number)
        desk.bench.terminal.press("scanner", "scan", "Ab-1234:/?x=[1]")
        done = await one.answer(number)
        assert data_of(done) == b"Ab-1234:/?x=[1]"
        desk.bench.terminal.set("scanner", "missing-suffix")
        number = one.post(READ, {}, timeout_ms=30_000)
        await asyncio.sleep(2)
        desk.bench.terminal.press("scanner", "scan", "HALF")
        assert code_of(await one.answer(number)) == "barcodeInvalid"
        await asyncio.sleep(1)
        counters = next(body for body in desk.bench.monitor.close_span(0, 1) if isinstance(body, Counters))
        counted = counters.slots[0]
        assert (counted.ok >= 1, counted.failed) == (True, 1)
        assert b"Ab-1234" not in desk.bench.records.encoded

    on_a_desk(slot, test=test)


@pytest.mark.spec("D-506, D-507")
def test_keys_are_told_as_they_are_pressed_and_given_in_order() -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("keypad")
        await one.claim()
        desk.bench.terminal.press("keypad", "press", "9")  # the citizen before
        number = one.post(ENTRY, {"maxLen": 8, "autoEnd": False, "activeKeys": KEYS}, timeout_ms=30_000)
        await asyncio.sleep(2)
        for key in "12\b34":
            desk.bench.terminal.press("keypad", "press", key)
            await asyncio.sleep(0.5)
        desk.bench.terminal.press("keypad", "press", "\n")
        payload = (await one.answer(number))["payload"]
        assert payload["keys"] == 3
        assert [key["digit"] for key in payload["pinKeys"]] == ["one", "three", "four", "enter"]
        assert payload["completion"] == "enter"
        assert [event["digit"] for event in one.events("Keyboard.KeyEvent")] == [
            "one",
            "two",
            "backspace",
            "three",
            "four",
            "enter",
        ]
        assert one.events("Keyboard.EnterDataEvent")

    on_a_desk(keypad(), test=test)


@pytest.mark.spec("D-506")
def test_an_entry_ends_by_itself_by_cancel_or_not_at_all() -> None:
    async def test(desk: Desk) -> None:
        one = desk.connect("keypad")
        await one.claim()
        number = one.post(ENTRY, {"maxLen": 2, "autoEnd": True, "activeKeys": DIGITS}, timeout_ms=30_000)
        await asyncio.sleep(1)
        desk.bench.terminal.press("keypad", "press", "4")
        desk.bench.terminal.press("keypad", "press", "2")
        payload = (await one.answer(number))["payload"]
        assert (payload["completion"], payload["pinKeys"][-1]) == ("auto", {"completion": "auto", "digit": "two"})
        number = one.post(ENTRY, {"maxLen": 2, "activeKeys": KEYS}, timeout_ms=30_000)
        await asyncio.sleep(1)
        desk.bench.terminal.press("keypad", "press", "\x1b")
        assert (await one.answer(number))["payload"]["completion"] == "cancel"
        number = one.post(ENTRY, {"maxLen": 2, "activeKeys": KEYS}, timeout_ms=30_000)
        await asyncio.sleep(1)
        desk.bench.terminal.set("keypad", "dropped")
        assert code_of(await one.answer(number)) == "hardwareError"
        for keys, word in (({}, "noActivekeys"), (DIGITS, "noActivekeys"), ({"fdk01": {}}, "keyNotSupported")):
            assert code_of(await one.ask(ENTRY, {"maxLen": 4, "activeKeys": keys})) == word

    on_a_desk(keypad(), test=test)


def _talkers(desk: Desk, slot: str, count: int) -> list[Talker]:
    return [desk.connect(slot) for _ in range(count)]


@pytest.mark.spec("D-504")
def test_what_is_read_goes_to_the_holder_and_to_no_other_connection() -> None:
    async def test(desk: Desk) -> None:
        others = [*_talkers(desk, "scanner", 3), desk.connect("keypad", "other"), desk.connect(None)]
        one = desk.connect("scanner")
        await one.claim()
        number = one.post(READ, {})
        await asyncio.sleep(1)
        desk.bench.terminal.press("scanner", "scan", "PLANTED-CODE-1")
        assert data_of(await one.answer(number)) == b"PLANTED-CODE-1"
        for other in others:
            await other.ask("Common.Cancel")
            assert b"PLANTED" not in other.raw
            assert base64.b64encode(b"PLANTED-CODE-1") not in other.raw

    on_a_desk(hid_scanner(), keypad(), test=test)


@pytest.mark.spec("D-509")
def test_a_camera_is_there_or_not_and_nothing_takes_a_picture() -> None:
    slot = Slot("face-camera", Camera(), "video", "/dev/video0", "1-1.6")

    async def test(desk: Desk) -> None:
        one = desk.connect("face-camera")
        status = (await one.ask("Common.Status"))["payload"]
        assert status["camera"]["cameras"] == {"person": "ok"}
        assert status["kioskFleet"]["claimable"] is False
        assert code_of(await one.ask("KioskFleet.Claim")) == "notClaimable"
        assert code_of(await one.ask("Camera.TakePicture", {})) == "invalidCommand"
        capabilities = (await one.ask("Common.Capabilities"))["payload"]
        assert not any(name.startswith("Camera.") for part in capabilities["interfaces"] for name in part["commands"])
        assert desk.service.claimable() == frozenset()
        desk.bench.terminal.set("face-camera", "unplug")
        await desk.bench.until_state("face-camera", "noDevice")
        assert (await one.ask("Common.Status"))["payload"]["camera"]["cameras"] == {"person": "inop"}

    on_a_desk(slot, test=test)


@pytest.mark.spec("D-503, D-505")
def test_a_scanner_that_never_stops_talking_ends_the_command_and_nothing_else() -> None:
    async def test(desk: Desk) -> None:
        model = desk.bench.terminal.model("scanner")
        one, other = desk.connect("scanner"), desk.connect("keypad")
        await one.claim(leaseS=120)
        await other.claim()
        number = one.post(READ, {}, timeout_ms=60_000)
        await asyncio.sleep(2)
        model.emit(b"x" * 2_000_000, desk.bench.terminal.clock())
        assert code_of(await one.answer(number)) == "barcodeInvalid"
        assert code_of(await one.ask(READ, {}, timeout_ms=5_000)) in ("barcodeInvalid", "timeOut")
        assert code_of(await other.ask("Keyboard.GetLayout")) == "success"
        await asyncio.sleep(600)
        assert desk.bench.states()["scanner"] in ("online", "hardwareError", "offline")
        desk.bench.terminal.press("keypad", "press", "1")
        assert (await other.ask("Common.Status"))["payload"]["common"]["device"] == "online"

    on_a_desk(Slot("scanner", SerialScanner(), "serial", "/dev/ttyUSB0", "1-1.4"), keypad(), test=test)
