"""The demo's parts alone: the city, the past on its way into a spool, the pace of loading, the cut network."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from edge_agent import config as configuration
from edge_agent.cli import load_profiles
from edge_agent.clock import SystemClock
from edge_agent.outbox import Outbox
from edge_agent.version import AGENT_VERSION
from protocols.contract import envelope as cose
from protocols.contract import records
from protocols.contract.batch import BATCH_CONTEXT, read_batch
from protocols.contract.limits import ENVELOPE_MAX_BYTES
from protocols.contract.orders import Restart
from simulators.history import inventory_of, recorded_past
from simulators.models.callpad import CallPadBus, PadDialect, frame
from simulators.workdays import MINUTE_MS, day_of, midnight_ms
from tests.demo import installed
from tests.demo.applications import NotNow, SocketApplication
from tests.demo.city import City, Member, area_rows, make_city, site_rows
from tests.demo.enrolling import config_text
from tests.demo.life import _targets
from tests.demo.loading import ROAD_LEAST, ROAD_MOST, Entry, Loader, Pace
from tests.demo.past import Past, TimeMachine
from tests.demo.relay import Relay
from tests.demo.resident import Resident, Shared
from tests.demo.runner import Demo, DemoFailed, Wishes, only_one
from tests.demo.seat import FirstStarts
from tests.demo.setup import Places, Setup, free_port, load, save, server_settings, settings_file
from tests.edge_agent.orders.test_agent import Here, ended
from tests.edge_agent.small_agent import FACTS, Home
from tests.support import packages
from tests.support.contract import MemoryKey
from tests.support.waiting import until

UNTIL_MS = midnight_ms(date(2026, 11, 20)) + 10 * 3_600_000
"""Ten in the morning of a Friday."""
BOOT_ID = b"l" * 16


def a_setup(**more: object) -> Setup:
    plain = {
        "terminals": 400,
        "own_processes": 20,
        "days": 12,
        "speed": 30,
        "seed": 1,
        "until_ms": UNTIL_MS,
        "web_port": 8080,
        "enrolment_port": 8443,
        "mqtt_port": 8883,
        "password": "not-a-secret",
    }
    return Setup(**(plain | more))  # type: ignore[arg-type]  # the members by name


@pytest.fixture(scope="module")
def city() -> City:
    return make_city()


# ---------------------------------------------------------------------------------------------------------------------------- city


def test_the_city_has_four_hundred_terminals_and_twenty_processes(city: City) -> None:
    kinds = Counter(member.plan.kind for member in city.members)
    assert kinds == {"kiosk": 350, "call-pads": 30, "booth": 10, "desk": 9, "van": 1}
    assert Counter(member.plan.kind for member in city.processes) == {
        "kiosk": 14,
        "call-pads": 3,
        "booth": 1,
        "desk": 1,
        "van": 1,
    }
    assert len({member.id for member in city.members}) == 400


def test_terminals_with_processes_of_their_own_stand_all_over_the_city(city: City) -> None:
    assert len({member.plan.site.division for member in city.processes}) >= 7
    assert city.members[: len(city.processes)] == city.processes, "their past is prepared first"


def test_a_small_city_keeps_every_kind() -> None:
    small = make_city(terminals=6, own_processes=2)
    assert {member.plan.kind for member in small.members} == {"kiosk", "call-pads", "booth", "desk", "van"}
    assert len(small.processes) == 2
    assert "receipt-printer" in small.processes[0].terminal(Path("/t")).slots


def test_every_site_has_its_area_and_every_terminal_its_site(city: City) -> None:
    areas = {row["code"] for row in area_rows()}
    sites = {row["code"]: row for row in site_rows(city.sites())}
    assert all(row["area"] in areas for row in sites.values())
    assert all(member.plan.site.code in sites for member in city.members)


def test_an_agent_of_its_own_reads_the_file_that_the_demo_writes(city: City, tmp_path: Path) -> None:
    places = Places(Path("/tmp/kf-demo"))
    for member in city.processes:
        config = configuration.parse(config_text(places, a_setup(), member).encode(), "agent.toml")
        assert [device.slot for device in config.devices] == [
            row["slot"] for row in member.inventory(places.terminal_ports(member.id))
        ]
        assert config.mqtt.port == 8883
        assert config.items


def test_ports_and_sockets_fit_however_long_the_folder_is(city: City) -> None:
    places = Places(Path("/" + "long-folder-name/" * 12))
    for member in city.processes:
        assert len(str(places.agent_socket(member.id))) <= 107
        assert all(len(row["port"]) <= 96 for row in member.inventory(places.terminal_ports(member.id)))


def test_a_command_beside_the_demo_reads_the_settings_of_the_demo(tmp_path: Path) -> None:
    from fleet_server.settings import load as load_settings

    places, setup = Places(tmp_path), a_setup()
    places.server.mkdir()
    (places.server / "fleet.toml").write_text(settings_file(setup), encoding="utf-8")
    assert load_settings({}, data_dir=places.server) == server_settings(places, setup)


def test_the_setup_is_kept_and_private(tmp_path: Path) -> None:
    save(Places(tmp_path), a_setup())
    assert load(Places(tmp_path)) == a_setup()
    assert (tmp_path / "demo.json").stat().st_mode & 0o077 == 0


def test_a_taken_port_is_passed_over() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) > port


def test_without_mosquitto_the_first_word_is_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet_server.broker.mosquitto.SEARCH_PATH", str(tmp_path))
    demo = Demo(Wishes(root=tmp_path / "demo"))
    with pytest.raises(DemoFailed, match="apt-get install mosquitto"):
        demo.start()
    assert not (tmp_path / "demo").exists()


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    places = Places(tmp_path / "demo")
    with only_one(places), pytest.raises(DemoFailed, match="another demo"), only_one(places):
        pass


def test_a_setup_of_another_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"terminals": 3}')
    with pytest.raises(DemoFailed, match="--fresh"):
        Demo(Wishes(root=tmp_path, embedded_broker=True)).start()


# ---------------------------------------------------------------------------------------------------------------------------- past


@dataclass
class Spool:
    path: Path
    key: MemoryKey
    clock: TimeMachine
    outbox: Outbox

    @classmethod
    def make(cls, path: Path, member: Member) -> Spool:
        key, clock = MemoryKey(b"k" * 32), TimeMachine(SystemClock())
        outbox = Outbox(path, key, "demo", member.id, clock, durable=False)
        outbox.start_stream(BOOT_ID)
        return cls(path, key, clock, outbox)

    def past(self, member: Member, setup: Setup) -> Past:
        past = Past(member, setup, self.outbox, self.clock, BOOT_ID, os_name="Debian GNU/Linux 12")
        past.skip_known()
        return past

    def records(self) -> list[records.Record]:
        """Everything sealed, in the order of sealing."""
        with closing(sqlite3.connect(self.path)) as db:
            envelopes = [bytes(row[0]) for row in db.execute("SELECT envelope FROM batch ORDER BY seq")]
        found = []
        for raw in envelopes:
            envelope = cose.parse(raw, ENVELOPE_MAX_BYTES)
            opened = cose.verify(envelope, self.key.verifier, BATCH_CONTEXT, "demo", self.outbox.terminal)
            found += [records.decode_record(item) for item in read_batch(opened).records]
        return found

    def streams(self) -> list[tuple[int, int]]:
        """(boot number, batches) of each stream."""
        with closing(sqlite3.connect(self.path)) as db:
            return [(row[0], row[1]) for row in db.execute("SELECT boot_no, head_no FROM stream ORDER BY seq")]


@pytest.fixture
def kiosk(city: City) -> Member:
    return next(member for member in city.pipes if member.plan.kind == "kiosk" and member.plan.cases_per_day > 1)


def test_the_past_is_captured_as_it_is_told_and_the_present_goes_on_behind_it(tmp_path: Path, kiosk: Member) -> None:
    setup = a_setup()
    spool = Spool.make(tmp_path / "spool.db", kiosk)
    before_ms = spool.clock.wall_ms()
    spool.outbox.capture(records.Notice(code="recordsRefused"))
    past = spool.past(kiosk, setup)
    while past.next_day() is not None:
        spool.outbox.capture(records.Notice(code="recordsRefused"))  # life goes on between two days
    spool.outbox.seal()

    told = [
        (told.at_ms, records.KIND_OF[type(told.body)])
        for day in recorded_past(kiosk.plan, inventory_of(kiosk.plan), day_of(UNTIL_MS) - timedelta(days=12), UNTIL_MS, 12)
        for told in day.told
    ]
    sealed = spool.records()
    old = [(record.wall_ms, record.kind) for record in sealed if record.wall_ms <= UNTIL_MS and record.kind != "boot"]
    assert sorted(old) == sorted(told)
    assert {record.wall_ms >= before_ms for record in sealed if record.kind == "notice"} == {True}
    assert [boot_no for boot_no, _ in spool.streams()] == [1, 2, 3]
    assert past.finished


def test_a_past_that_was_interrupted_goes_on_where_it_was(tmp_path: Path, kiosk: Member) -> None:
    setup = a_setup()
    spool = Spool.make(tmp_path / "spool.db", kiosk)
    whole = Spool.make(tmp_path / "whole.db", kiosk)
    first = spool.past(kiosk, setup)
    for _ in range(5):
        first.next_day()
    spool.outbox.close(clean=False)

    again = Outbox(spool.path, spool.key, "demo", kiosk.id, spool.clock, durable=False)
    again.start_stream(BOOT_ID)
    spool.outbox = again
    second = Past(kiosk, setup, again, spool.clock, BOOT_ID, os_name="Debian GNU/Linux 12")
    assert second.skip_known() == 5
    for past in (second, whole.past(kiosk, setup)):
        while past.next_day() is not None:
            pass
    for one in (spool, whole):
        one.outbox.seal()
    plain = [
        [(record.wall_ms, record.kind, repr(record.value)) for record in one.records() if record.kind != "boot"]
        for one in (spool, whole)
    ]
    assert sorted(plain[0]) == sorted(plain[1])
    assert Past(kiosk, setup, again, spool.clock, BOOT_ID, os_name="x").skip_known() == 13, "all of it is known now"


@pytest.mark.parametrize("hour", [0, 3, 10, 23])
def test_no_fault_of_the_past_stays_open_and_nothing_lies_in_the_future(city: City, hour: int) -> None:
    until_ms = midnight_ms(date(2026, 11, 20)) + hour * 3_600_000
    faults = 0
    for member in city.members[::8]:
        open_ids: set[bytes] = set()
        for day in recorded_past(member.plan, inventory_of(member.plan), date(2026, 10, 20), until_ms, 31):
            assert all(told.at_ms <= until_ms for told in day.told)
            assert [told.at_ms for told in day.told] == sorted(told.at_ms for told in day.told)
            for told in day.told:
                if isinstance(told.body, records.Fault):
                    faults += 1
                    (open_ids.add if told.body.change == "open" else open_ids.remove)(told.body.id)
        assert not open_ids
    assert faults > 20


# ------------------------------------------------------------------------------------------------------------------------- loading


def _through(server_per_s: float, base_s: float, seconds: float) -> list[int]:
    """The pace's limits against a server that takes so many a second after a time that nothing shortens."""
    pace, limits = Pace(), []
    for tick in range(int(seconds * 20)):
        now_s = 100 + tick / 20
        pace.took(now_s, max(base_s, pace.limit / server_per_s))
        pace.step(now_s)
        limits.append(pace.limit)
    return limits


def test_the_road_is_as_full_as_the_server_is_fast() -> None:
    fast, slow = _through(600, 0.02, 20)[-100:], _through(100, 0.02, 20)[-100:]
    assert 80 <= sum(fast) / len(fast) <= 220, "a fraction of a second of work lies on the road"
    assert ROAD_LEAST <= sum(slow) / len(slow) <= 100


def test_a_road_that_is_slow_by_itself_is_filled_all_the_same() -> None:
    assert min(_through(600, 0.5, 20)[-100:]) > 200, "half a second to and fro on a busy machine, but room for 600 a second"


class Waiting:
    """A terminal whose batches are acknowledged after a while."""

    def __init__(self, days: int, seen: list[int]) -> None:
        self.left, self.depth, self._seen = days, 0, seen

    def skip_known(self) -> int:
        return 0

    def next_day(self) -> int | None:
        if self.left == 0:
            return None
        self.left -= 1
        self.depth += 2
        self._seen.append(self.depth)
        asyncio.get_running_loop().call_later(0.02, self._acknowledge)
        return 3

    def _acknowledge(self) -> None:
        self.depth -= 2


async def test_loading_ends_when_everything_is_acknowledged_and_never_overfills_the_road() -> None:
    seen: list[int] = []
    sources = [Waiting(30, seen) for _ in range(9)]
    entries = [Entry(str(n), lambda s=source: s, lambda s=source: s.depth) for n, source in enumerate(sources)]  # type: ignore[misc]
    loader = Loader(entries, 30)
    running = asyncio.create_task(loader.run())
    most = 0
    while not running.done():
        most = max(most, sum(source.depth for source in sources))
        await asyncio.sleep(0)
    await running
    assert loader.progress.days == 270
    assert loader.progress.records == 810
    assert loader.progress.terminals == 9
    assert all(source.left == 0 and source.depth == 0 for source in sources)
    assert most <= ROAD_MOST + 2


async def test_a_terminal_without_network_does_not_hold_up_the_others() -> None:
    seen: list[int] = []
    away = Waiting(30, seen)
    away.depth = 10 * ROAD_MOST
    is_there = asyncio.Event()
    others = [Waiting(30, seen) for _ in range(3)]
    entries = [Entry("away", lambda: away, lambda: away.depth, is_there.is_set)]
    entries += [Entry(str(n), lambda s=source: s, lambda s=source: s.depth) for n, source in enumerate(others)]  # type: ignore[misc]
    running = asyncio.create_task(Loader(entries, 30).run())
    await until(lambda: not any(source.left or source.depth for source in others), "the others are through")
    assert away.left == 30
    is_there.set()
    away.depth = 0
    await running
    assert away.left == 0


# ------------------------------------------------------------------------------------------------------------------------- network


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(100):
            writer.write(data)
    writer.close()


async def test_a_cut_relay_breaks_what_is_open_and_what_is_new_until_it_is_mended() -> None:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0)
    relay = Relay(("127.0.0.1", server.sockets[0].getsockname()[1]))
    await relay.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"

    await relay.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()

    relay.mend()
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    writer.close()
    await relay.stop()
    server.close()


async def test_an_agent_that_does_not_run_is_not_now(tmp_path: Path) -> None:
    with pytest.raises(NotNow):
        await SocketApplication(tmp_path / "nobody.sock").service()


# ------------------------------------------------------------------------------------------------------------------------- devices


async def test_an_agent_that_an_order_restarts_is_started_again(tmp_path: Path, kiosk: Member) -> None:
    places = Places(tmp_path)
    home = Home(tmp_path / "agents" / kiosk.id, kiosk.id)
    office = Here(home)
    clock = SystemClock()
    installed.lay_out_factory(places, packages.tiny(AGENT_VERSION).write(tmp_path), AGENT_VERSION)
    installed.join(places, kiosk.id)
    starts = FirstStarts(installed.factory_name(places))
    shared = Shared(places, a_setup(), load_profiles(None), FACTS, BOOT_ID, clock, starts)
    resident = Resident(kiosk, shared, mqtt_port=1)
    resident.start()
    try:
        await resident.started()
        first = resident.agent
        office.greet(first)
        order = office.ask(first, Restart(what="agent"))
        assert await ended(home, order) == ("done", "none")
        assert resident.agent is not first
        assert resident.service().idle
    finally:
        await resident.stop()
        home.remove()


def test_every_trouble_that_a_device_can_play_finds_its_devices(city: City) -> None:
    from simulators.traffic import TROUBLES

    terminals = [
        next(member for member in city.pipes if member.plan.kind == kind).terminal(Path("/t"))
        for kind in ("kiosk", "call-pads", "booth")
    ]
    playable = {trouble.code for trouble in TROUBLES if trouble.simulated_as}
    assert {trouble.code for trouble in TROUBLES for terminal in terminals if _targets(terminal, trouble)} == playable


def test_a_pad_does_not_answer_the_second_acknowledgement_of_a_repeated_key() -> None:
    bus = CallPadBus(addresses=(1,))
    bus.pads[1].act("call-next", 0.0)
    key = bus.take(0.1, 100)
    repeated = bus.take(0.7, 100)
    assert key == repeated == frame(1, PadDialect().key, key[7:8])
    bus.feed(key, 0.75)
    bus.feed(repeated, 0.8)
    assert bus.take(1.9, 100) == b"", "an echo of it would be acknowledged again, for ever"


def test_a_minute_in_the_past_is_a_minute_of_the_boot_clock() -> None:
    clock = TimeMachine(SystemClock())
    with clock.past(UNTIL_MS, began_ms=UNTIL_MS - MINUTE_MS):
        assert (clock.wall_ms(), clock.boot_ms()) == (UNTIL_MS, MINUTE_MS)
        clock.stand_at(UNTIL_MS + 5)
        assert clock.boot_ms() == MINUTE_MS + 5
    assert clock.wall_ms() > UNTIL_MS or clock.wall_ms() > 1_700_000_000_000
