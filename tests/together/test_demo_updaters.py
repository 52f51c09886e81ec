"""Updates of terminals whose agents share a process: the updater of a kiosk against a real pair of repositories, and the agent that follows it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from edge_agent import identity
from edge_agent.cli import load_profiles
from edge_agent.clock import SystemClock, read_boot_id
from edge_agent.updater.errors import NotTrusted
from edge_agent.updater.handover import AgentSide
from edge_agent.updater.install import SelfTestLimits
from edge_agent.updater.layout import Layout
from edge_agent.version import AGENT_VERSION
from protocols.contract import certs, orders
from protocols.contract.orders import Desired
from protocols.contract.records import Stop, Update, Versions
from protocols.profile.schema import Profile
from tests.demo import installed, seat, updaters
from tests.demo.city import Member, make_city
from tests.demo.past import Past
from tests.demo.resident import Resident, Shared
from tests.demo.seat import FirstStarts
from tests.demo.setup import Places, Setup
from tests.demo.updaters import OTHERS_AT_ONCE, TRANSFERS_AT_ONCE, SelfTests, SharedFiles, Updaters
from tests.edge_agent.small_agent import FACTS, Home
from tests.support import packages
from tests.support.packages import Package
from tests.support.tuf_repo import TufRepo, now_ms
from tests.support.updating import ARCH, OrderKey, UpdateServer
from tests.support.waiting import until

SETUP = Setup(
    terminals=6,
    own_processes=0,
    days=2,
    speed=30,
    seed=1,
    until_ms=now_ms(),
    web_port=1,
    enrolment_port=1,
    mqtt_port=1,
    password="not-a-secret",
)


def works(version: str) -> Package:
    """Its program says that it is well, as an agent does, and goes on."""
    said = json.dumps({"boot_id": "0" * 32, "boot_ms": 1, "version": version, "pid": "$$", "idle": True}).replace('"$$"', "'$$'")
    folder = """$(sed -n 's/^requests_dir = "\\(.*\\)"$/\\1/p' "$3")"""
    return packages.tiny(version, release=2, run=f"echo '{said}' > \"{folder}/health.json\"; exec sleep 600")


def crashes(version: str) -> Package:
    return packages.tiny(version, release=2, run="exit 3")


@dataclass
class House:
    """Some terminals of one process, their updaters, and the server that both know."""

    places: Places
    homes: list[Home]
    residents: list[Resident]
    server: UpdateServer
    updaters: Updaters

    def release(self, package: Package) -> str:
        path = f"agent/kiosk-{package.version}.tar"
        self.server.repo.release(
            "agent", path, package.raw, version=package.version, release=package.release, arch=ARCH,
            unpacked_bytes=len(package.raw), unpacked_files=50,
        )  # fmt: skip
        return path

    def want(self, path: str) -> None:
        """Let each terminal's agent hand over what an operator asked for."""
        for home in self.homes:
            key = OrderKey()
            cert = certs.OrderKeyCert(kid=key.kid, public_key=key.public, issued_ms=now_ms())
            bundle = self.server.repo.assign(home.terminal, {"agent": path}, probation_s=60)
            desired = Desired(counter=1, issued_ms=now_ms(), by="maker", approved_by="checker", bundle=bundle)
            handover = self.places.handover(home.terminal)
            side = AgentSide(handover / "requests", handover / "updates")
            side.write_order_keys([certs.seal_order_key_cert(cert, home.root, home.who.fleet)])
            side.write_desired(orders.seal_desired(desired, key, home.who.fleet, home.terminal))

    def told(self, home: Home) -> list[tuple[str, str]]:
        return [(body.state, body.reason) for body in home.bodies() if isinstance(body, Update)]

    async def all_told(self, *end: str) -> None:
        ended = f"all told {end}"
        try:  # all on one disk: what is synced waits for everybody's writing
            await until(lambda: all(end in self.told(home) for home in self.homes), ended, timeout_s=180)
        except AssertionError as err:
            seen = [
                (self.told(home), Layout(self.places.versions(home.terminal)).state().seat("agent"), work.work)
                for home, work in zip(self.homes, self.updaters.services(), strict=True)
            ]
            raise AssertionError(f"{err}: {seen}") from None


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return load_profiles(None)


@pytest.fixture(scope="module")
def members() -> list[Member]:
    return [member for member in make_city(terminals=12, own_processes=0).pipes if member.plan.kind == "call-pads"][:1] + [
        member for member in make_city(terminals=12, own_processes=0).pipes if member.plan.kind == "kiosk"
    ][:1]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, value in (
        (installed, "STEADY_S", 0.3),
        (seat, "WATCHED_S", 0.3),
        (seat, "SWITCH_EVERY_S", 0.05),
        (updaters, "WORKING_EVERY_S", 0.05),
        (updaters, "ROUND_EVERY_S", 0.02),
    ):
        monkeypatch.setattr(module, name, value)


@asynccontextmanager
async def house(folder: Path, members: list[Member], profiles: dict[str, Profile]) -> AsyncIterator[House]:
    places = Places(folder)
    server = UpdateServer(TufRepo.create(folder / "server", terminals=[member.id for member in members]), folder)
    server.start()
    factory = works(AGENT_VERSION).write(folder)
    installed.lay_out_factory(places, factory, AGENT_VERSION)
    homes = []
    for member in members:
        home = Home(folder / "agents" / member.id, member.id)
        identity.save(home.identity_dir, msgspec.structs.replace(home.who, server_url=server.url))
        (home.identity_dir / identity.CA_FILE).write_text(server.ca.pem, "ascii")
        for name, file in identity.UPDATE_ROOT_FILES.items():
            (home.identity_dir / file).write_text(server.repo.roots[name], "utf-8")
        installed.join(places, member.id)
        homes.append(home)
    starts = FirstStarts(installed.factory_name(places))
    shared = Shared(places, SETUP, profiles, FACTS, read_boot_id(), SystemClock(), starts)
    residents = [Resident(member, shared, mqtt_port=1) for member in members]
    stop, tests, files = threading.Event(), SelfTests(), SharedFiles()
    seats = [updaters.Seat(places.updater_config(one.id), places.process_table(one.id), tests, files) for one in members]
    made = House(places, homes, residents, server, Updaters(seats))
    thread = threading.Thread(target=made.updaters.run, args=(stop,))
    try:
        for resident in residents:
            resident.start()
            await resident.started()
        thread.start()
        yield made
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)
        await asyncio.gather(*(resident.stop() for resident in residents))
        await starts.close()
        server.stop()
        for home in homes:
            home.remove()


@pytest.mark.spec("U-104")
@pytest.mark.usefixtures("quick")
async def test_every_terminal_of_the_process_comes_to_the_new_version(
    tmp_path: Path, members: list[Member], profiles: dict[str, Profile]
) -> None:
    async with house(tmp_path, members, profiles) as made:
        before = [resident.agent for resident in made.residents]
        package = works("0.2.0")
        made.want(made.release(package))
        await made.all_told("committed", "none")
        for home, resident, first in zip(made.homes, made.residents, before, strict=True):
            states = [state for state, _ in made.told(home)]
            assert [*dict.fromkeys(states)] == [
                "pending", "downloading", "verifying", "staged", "waiting", "installing", "probation", "committed",
            ]  # fmt: skip
            assert resident.agent is not first, "an agent of the new version runs"
            assert resident.agent.status().agent == "0.2.0"
            assert [body.reason for body in home.bodies() if isinstance(body, Stop)] == ["update"]
            installed_last = [body for body in home.bodies() if isinstance(body, Versions)][-1].installed[0]
            assert (installed_last.version, installed_last.sha256) == ("0.2.0", bytes.fromhex(package.sha256))
        # Each unpacked it for itself; what is the same in all of them lies on the disk once.
        layouts = [Layout(made.places.versions(home.terminal)) for home in made.homes]
        part = Path("versions") / (layouts[0].state().seat("agent").good or "") / "lib" / "part0.txt"
        await until(lambda: len({(layout.root / part).stat().st_ino for layout in layouts}) == 1, "the files are shared")
        assert all(layout.complete(part.parts[1]) for layout in layouts)


@pytest.mark.spec("U-305")
@pytest.mark.usefixtures("quick")
async def test_a_release_whose_program_ends_is_taken_back_everywhere(
    tmp_path: Path, members: list[Member], profiles: dict[str, Profile]
) -> None:
    async with house(tmp_path, members[:1], profiles) as made:
        before = made.residents[0].agent
        made.want(made.release(crashes("0.3.0")))
        await made.all_told("rolledBack", "crashed")
        resident, layout = made.residents[0], Layout(made.places.versions(made.homes[0].terminal))
        assert resident.agent is not before
        assert resident.agent.status().agent == AGENT_VERSION
        verdict = layout.state().seat("agent").verdict
        assert verdict is not None
        assert (verdict.reason, verdict.tries) == ("crashed", 3)
        assert layout.pointed("agent") == installed.factory_name(made.places)


async def test_a_program_is_started_once_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seat, "WATCHED_S", 0.1)
    home = Home(tmp_path / "home")
    program = tmp_path / "0.2.0-x" / "bin" / "edge-agent"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho started >> {tmp_path}/starts\nexit 1\n")
    program.chmod(0o755)
    starts = FirstStarts("factory")
    found = await asyncio.gather(*(starts.look(program.parents[1], home.identity_dir) for _ in range(5)))
    home.remove()
    assert {one.reason for one in found} == {"crashed"}
    assert (tmp_path / "starts").read_text() == "started\n"


async def test_an_agent_whose_past_comes_in_promises_no_quiet(
    tmp_path: Path, members: list[Member], profiles: dict[str, Profile]
) -> None:
    async with house(tmp_path, members[:1], profiles) as made:
        resident = made.residents[0]
        past: Past = resident.past()
        assert not resident.agent._may_disturb()
        assert not resident.agent._quiet, "it does not even say that nobody is here, or it would seem not to answer"
        while past.next_day() is not None:
            pass
        assert resident.agent._may_disturb()
        assert resident.agent._quiet


def test_a_self_test_that_passed_is_not_repeated_and_one_that_failed_is(tmp_path: Path) -> None:
    counted = tmp_path / "runs"
    program = tmp_path / "0.2.0-x" / "bin" / "edge-agent"
    program.parent.mkdir(parents=True)
    tests = SelfTests()

    def run(said: str) -> None:
        program.write_text(f"#!/bin/sh\necho run >> {counted}\n{said}\n")
        program.chmod(0o755)
        tests(program.parents[1], "0.2.0", SelfTestLimits())

    for _ in range(2):
        with pytest.raises(NotTrusted):
            run("exit 1")
    for _ in range(3):
        run("""echo '{"version": "0.2.0"}'""")
    assert counted.read_text().count("run") == 3


class Busy(updaters.Seat):
    """An updater in the middle of `state`, or about to begin it."""

    def __init__(self, state: str, looked: list[str]) -> None:
        self._state, self._looked, self._began = state, looked, False

    @property
    def begins(self) -> str:
        return "" if self._began else self._state

    @property
    def working(self) -> str:
        return self._state if self._began else ""

    def due(self, now_s: float) -> bool:
        return True

    def look(self, now_s: float) -> None:
        if not self._began:
            self._looked.append(self._state)
        self._began = True


def test_only_so_many_work_at_once() -> None:
    looked: list[str] = []
    states = ("downloading", "verifying", "pending")
    crowd = Updaters(Busy(state, looked) for state in states for _ in range(200))
    for _ in range(3):
        crowd.round(time.monotonic())
    assert Counter(looked) == {"downloading": TRANSFERS_AT_ONCE, "verifying": OTHERS_AT_ONCE}
