"""Readers behind a PC/SC service, under the monitor and on the transport alone: service, reader and card are three things."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent import doctor
from edge_agent.config import Config, DeviceEntry, ServerTable
from edge_agent.transports import pcsc as transport
from edge_agent.transports.base import PortGone, PortRefused, ReaderPort
from edge_agent.transports.openers import SystemOpener
from edge_agent.transports.pcsc import PcscPort, open_pcsc
from edge_agent.transports.udev import UdevDiscoverer
from protocols.canon.words import MediaState, Ownership
from protocols.codecs import pcsc
from protocols.contract.records import Device, Fault
from protocols.profile.options.pcsc import PcscOptions
from simulators.models.pcsc import PcscService
from simulators.ports.slots import Slot
from tests.edge_agent.devices.bench import PROFILES, Bench, in_virtual_time

SOCKET = "/run/pcscd/pcscd.comm"


def slot(model: PcscService | None = None) -> Slot:
    return Slot("card-reader", model or PcscService(), "pcsc", SOCKET)


def story(tell: Callable[[Bench], Any], **more: Any) -> Bench:
    benches: list[Bench] = []

    async def work() -> None:
        bench = Bench(slot(), **more)
        benches.append(bench)
        async with bench:
            await bench.until(lambda: bool(bench.states()))
            await tell(bench)

    in_virtual_time(work())
    return benches[0]


def key(device: Device) -> str:
    assert device.evidence is not None
    return pcsc.explain(b"", device.evidence.reply)[0].key


@pytest.mark.parametrize("ownership", list(Ownership))
def test_cards_come_and_go_whoever_owns_the_reader(ownership: Ownership) -> None:
    async def tell(bench: Bench) -> None:
        assert bench.device("card-reader").owner is Ownership.OBSERVER
        for action, media in (("insert-card", MediaState.PRESENT), ("remove-card", MediaState.NOT_PRESENT)):
            bench.terminal.press("card-reader", action)
            await bench.until(lambda media=media: bench.device("card-reader").media is media, within_s=5)  # type: ignore[misc]
        assert bench.records.of(Fault) == []

    story(tell, ownership=ownership)


def test_service_reader_and_other_programs_are_told_apart() -> None:
    async def tell(bench: Bench) -> None:
        terminal = bench.terminal
        terminal.set("card-reader", "service-stopped")
        await bench.until_state("card-reader", "offline")
        assert (key(bench.device("card-reader")), bench.device("card-reader").action.value) == ("pcsc.no_service", "reset")
        terminal.clear("card-reader", "service-stopped")
        await bench.until_state("card-reader", "online")
        terminal.set("card-reader", "reader-gone")
        await bench.until_state("card-reader", "noDevice")
        assert key(bench.device("card-reader")) == "pcsc.no_readers"
        terminal.clear("card-reader", "reader-gone")
        await bench.until_state("card-reader", "online")
        await bench.until(lambda: not bench.records.open_codes())
        known = len(bench.records.of(Fault))
        terminal.set("card-reader", "reader-busy")
        await bench.until_state("card-reader", "inUse")
        await asyncio.sleep(600)
        assert len(bench.records.of(Fault)) == known

    story(tell)


def test_a_card_for_hours_and_cards_that_do_not_answer() -> None:
    async def tell(bench: Bench) -> None:
        bench.terminal.set("card-reader", "card-stuck")
        await bench.until_open("CRD.CARD_STUCK", within_s=7300)
        bench.terminal.clear("card-reader", "card-stuck")
        await bench.until(lambda: not bench.records.open_codes())
        bench.terminal.set("card-reader", "card-mute")
        for _ in range(6):
            bench.terminal.press("card-reader", "insert-card")
            await asyncio.sleep(20)
            bench.terminal.press("card-reader", "remove-card")
            await asyncio.sleep(20)
        assert bench.records.open_codes() == {"CRD.READ_FAIL_RATE"}

    story(tell)


def test_several_readers_behind_one_service() -> None:
    class Two(PcscService):
        def snapshot(self) -> tuple[int, tuple[tuple[str, int], ...]]:
            return 0, (("ACS ACR39U 00 00", 0x10), ("Feitian R502 01 00", 0x0001_0020), ("Feitian R502 02 00", 0x10))

    feitian = msgspec.structs.replace(PROFILES["pcsc-reader"], id="pcsc-feitian", pcsc=PcscOptions(reader="^Feitian"))

    async def work() -> None:
        entries = [
            DeviceEntry(slot="first", family="card-reader", profile="pcsc-feitian", port=SOCKET),
            DeviceEntry(slot="second", family="card-reader", profile="pcsc-feitian", port=SOCKET, address=1),
            DeviceEntry(slot="third", family="card-reader", profile="pcsc-feitian", port=SOCKET, address=2),
        ]
        async with Bench(slot(Two()), entries=entries, profiles=PROFILES | {"pcsc-feitian": feitian}) as bench:
            await bench.until(lambda: len(bench.states()) == 3)
            assert bench.states() == {"first": "online", "second": "online", "third": "noDevice"}
            assert [bench.device(name).media.value for name in ("first", "second")] == ["present", "notPresent"]
            assert (await bench.until_open("CRD.UNPLUGGED")).slot == "third"

    in_virtual_time(work())


class Api:
    """What smartcard.scard is to the transport. `states` None: the service is not there."""

    SCARD_SCOPE_SYSTEM = 2

    def __init__(self) -> None:
        self.states: dict[str, int] | None = {"Reader 00 00": 0x10}
        self.code = 0
        self.contexts = self.released = 0
        self.go = threading.Event()
        self.go.set()
        self.calls: list[str] = []

    def SCardEstablishContext(self, scope: int) -> tuple[int, int]:  # noqa: N802 -- the library's name
        self.calls.append("establish")
        self.contexts += 1
        return (0 if self.states is not None else 0x8010001D - (1 << 32)), self.contexts

    def SCardReleaseContext(self, context: int) -> int:  # noqa: N802 -- the library's name
        self.released += 1
        return 0

    def SCardListReaders(self, context: int, groups: list[str]) -> tuple[int, list[str]]:  # noqa: N802 -- the library's name
        self.go.wait(10)
        if self.code or self.states is None:
            return (self.code or 0x8010001D) - (1 << 32), []
        return (0, list(self.states)) if self.states else (0x8010002E - (1 << 32), [])

    def SCardGetStatusChange(  # noqa: N802 -- the library's name
        self, context: int, timeout_ms: int, known: list[tuple[str, int]]
    ) -> tuple[int, list[tuple[str, int, list[int]]]]:
        self.go.wait(10)
        if self.states is None:
            return 0x80100013 - (1 << 32), []
        now: list[tuple[str, int, list[int]]] = [(name, self.states.get(name, 0x0E), []) for name, _ in known]
        changed = any(
            state & ~2 != was & ~2 for (_, state, _), (name, was) in zip(now, known, strict=True) if name in self.states
        )
        return (0 if changed or timeout_ms == 0 else 0x8010000A - (1 << 32)), now


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def port(api: Api, tmp_path: Path) -> PcscPort:
    (tmp_path / "pcscd.comm").touch()
    return PcscPort(api, str(tmp_path / "pcscd.comm"))


async def test_a_look_at_all_readers(port: PcscPort, api: Api) -> None:
    assert isinstance(port, ReaderPort)
    seen = await port.look(timeout_s=1)
    assert (seen.code, seen.states) == (0, (("Reader 00 00", 0x10),))
    assert not await port.changed(timeout_s=0.01)
    api.states = {"Reader 00 00": 0x0001_0022}
    assert await port.changed(timeout_s=1)
    await port.look(timeout_s=1)
    api.states = {}
    assert (await port.look(timeout_s=1)).states == ()
    await port.close()
    assert (api.contexts, api.released) == (1, 1)
    with pytest.raises(PortGone):
        await port.look(timeout_s=1)


async def test_a_service_that_ends_is_an_answer_and_its_return_needs_a_new_context(port: PcscPort, api: Api) -> None:
    await port.look(timeout_s=1)
    api.states = None
    assert await port.changed(timeout_s=1)
    assert (await port.look(timeout_s=1)).code == pcsc.NO_SERVICE
    api.states = {"Reader 00 00": 0x10}
    assert (await port.look(timeout_s=1)).code == pcsc.SUCCESS
    assert api.contexts - api.released == 2  # one refused, one held
    await port.close()


async def test_without_the_socket_the_library_is_not_even_called(tmp_path: Path, api: Api) -> None:
    port = PcscPort(api, str(tmp_path / "none" / "pcscd.comm"))
    assert (await port.look(timeout_s=1)).code == pcsc.NO_SERVICE
    assert api.calls == []
    await port.close()


async def test_a_call_that_does_not_come_back_is_told_and_not_queued_behind(port: PcscPort, api: Api) -> None:
    api.go.clear()
    assert [(await port.look(timeout_s=0.05)).code for _ in range(3)] == [pcsc.STALLED] * 3
    api.go.set()
    assert (await port.look(timeout_s=5)).code == pcsc.SUCCESS
    await port.close()


async def test_a_second_socket_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(transport.SOCKET_NAME, "/run/pcscd/pcscd.comm")
    with pytest.raises(PortRefused, match="PCSCLITE_CSOCK_NAME"):
        open_pcsc(str(tmp_path / "pcscd.comm"))


async def test_without_pyscard_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(transport.SOCKET_NAME, raising=False)
    monkeypatch.setitem(__import__("sys").modules, "smartcard", None)
    with pytest.raises(PortRefused, match="extra pcsc"):
        open_pcsc(transport.DEFAULT_SOCKET)


async def test_a_named_service_is_sighted_whether_it_runs_or_not(tmp_path: Path) -> None:
    path = str(tmp_path / "pcscd.comm")
    (found,) = UdevDiscoverer([path]).sightings()
    assert (found.bus, found.path) == ("pcsc", path)
    with pytest.raises(PortRefused):
        await SystemOpener().open(found, PROFILES["pcsc-reader"])  # this process's library uses another socket


def test_the_doctor_says_what_is_missing(tmp_path: Path) -> None:
    path = str(tmp_path / "pcscd.comm")
    sightings = UdevDiscoverer([path]).sightings()
    entry = DeviceEntry(slot="card-reader", family="card-reader", profile="pcsc-reader", port=path)
    config = Config(schema=1, server=ServerTable(url="https://fleet.example"), devices=(entry,))
    (line,) = doctor.of_hardware(config, sightings, PROFILES)
    assert (line.level, line.what) == ("bad", "card-reader")
    assert "pcsc-reader" in line.text
    assert "pcscd" in line.text
    Path(path).touch()
    (line,) = doctor.of_hardware(config, sightings, PROFILES)
    assert line.level == "ok"
