"""Whole agents on simulated ports: start and end, restarts, keys, failures of a part, and 400 of them in one loop."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edge_agent import doctor, identity
from edge_agent.cli import load_profiles
from edge_agent.errors import KeyRefused
from edge_agent.sd_notify import Notifier
from edge_agent.signing import FileKeyStore
from edge_agent.spool import AlreadyRunning
from edge_agent.status import StatusDocument
from edge_agent.supervisor import Agent
from protocols.contract import certs, records
from protocols.contract.records import Body, Boot, ClockQuality, Fault, Host, Key, Notice, Serviceability, Session, Stop
from protocols.profile.schema import Profile
from simulators.terminal import VirtualTerminal, build_terminal
from tests.edge_agent.small_agent import BOOT, Home, OffsetClock
from tests.support.waiting import until


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return load_profiles(None)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.remove()


def one_printer() -> VirtualTerminal:
    return build_terminal("call-pads", windows=1, seed=3)


@asynccontextmanager
async def running(agent: Agent, *, crash: bool = False) -> AsyncIterator[asyncio.Task[None]]:
    """The agent at work. `crash`: at the end it is cut off instead of stopped."""
    task = asyncio.ensure_future(agent.run())
    started = asyncio.ensure_future(agent.started.wait())
    await asyncio.wait({task, started}, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if task.done():
        await task
    try:
        yield task
    finally:
        if crash:
            task.cancel()
        else:
            agent.stop()
        with suppress(asyncio.CancelledError):
            async with asyncio.timeout(20):
                await task


def kinds(bodies: list[Body]) -> list[str]:
    return [records.KIND_OF[type(body)] for body in bodies]


def of(home: Home, kind: type[Any]) -> list[Any]:
    return [body for body in home.bodies() if isinstance(body, kind)]


async def test_from_boot_record_to_stop_record(home: Home, profiles: dict[str, Profile]) -> None:
    simulated = one_printer()
    agent = home.agent(simulated, profiles)
    async with running(agent):
        await until(lambda: _online(agent, "receipt-printer"), "the printer is online")
    bodies = home.bodies()
    assert isinstance(bodies[0], Boot)
    assert (bodies[0].previous, bodies[0].same_boot) == ("none", False)
    assert [body for body in bodies if not isinstance(body, Host | Serviceability)][-1] == Stop(reason="shutdown")
    assert {"clock", "device", "host"} <= set(kinds(bodies))
    assert of(home, Notice) == []


def _online(agent: Agent, slot: str) -> bool:
    return any(one.slot == slot and one.device == "online" for one in agent.status().slots)


@pytest.mark.parametrize(
    ("crash", "boot_id", "previous", "same_boot", "notices"),
    [
        (False, BOOT, "clean", True, []),
        (True, BOOT, "unclean", True, []),
        (False, bytes(16), "clean", False, []),
        (True, bytes(16), "unclean", False, ["unexpectedReboot"]),
    ],
)
async def test_how_the_last_run_ended_is_told(
    home: Home, profiles: dict[str, Profile], crash: bool, boot_id: bytes, previous: str, same_boot: bool, notices: list[str]
) -> None:
    async with running(home.agent(one_printer(), profiles), crash=crash):
        pass
    async with running(home.agent(one_printer(), profiles, boot_id=boot_id)):
        if notices:
            await until(lambda: [fault.code for fault in of(home, Fault)] == ["PWR.UNEXPECTED_REBOOT"], "the reboot is a fault")
    second = of(home, Boot)[1]
    assert (second.previous, second.same_boot) == (previous, same_boot)
    assert [notice.code for notice in of(home, Notice)] == notices


async def test_a_fault_of_a_device_reaches_record_status_and_doctor(home: Home, profiles: dict[str, Profile]) -> None:
    simulated = one_printer()
    agent = home.agent(simulated, profiles)
    async with running(agent):
        await until(lambda: _online(agent, "receipt-printer"), "the printer is online")
        simulated.set("receipt-printer", "paper-out")
        await until(lambda: any(fault.code == "PRN.PAPER_OUT" for fault in of(home, Fault)), "paper out is recorded")
        document = await asyncio.to_thread(doctor.ask_agent, str(home.socket_path))
        assert isinstance(document, StatusDocument)
        assert document.service == "unusable"
        text = doctor.render(list(doctor.of_running(document, "zh")))
        assert "凭条打印机缺纸" in text
        assert "cannot serve the public" in text
        assert doctor.exit_code(doctor.of_running(document, "en")) == doctor.TROUBLE


async def test_session_over_the_socket_is_a_record(home: Home, profiles: dict[str, Profile]) -> None:
    agent = home.agent(one_printer(), profiles)
    async with running(agent):
        await until(home.socket_path.exists, "the local API listens")
        began = await asyncio.to_thread(post, home, "/v1/sessions", {"client_id": str(uuid.uuid4()), "item": "tax.invoice"})
        assert not agent.status().idle
        done = await asyncio.to_thread(post, home, f"/v1/sessions/{began['session']}/end", {"outcome": "success"})
        assert done["recorded"] is True
        assert [body.outcome for body in of(home, Session)] == ["success"]
        refill = {"client_id": str(uuid.uuid4()), "slot": "receipt-printer", "item": "toner", "quantity": 1}
        assert (await asyncio.to_thread(post, home, "/v1/refills", refill))["error"] == "refill"


def post(home: Home, path: str, body: dict[str, Any]) -> dict[str, Any]:
    connection = doctor._SocketConnection(str(home.socket_path))
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


async def test_one_agent_per_state_directory(home: Home, profiles: dict[str, Profile]) -> None:
    async with running(home.agent(one_printer(), profiles)):
        with pytest.raises(AlreadyRunning, match="another agent is running"):
            await home.agent(one_printer(), profiles).run()


async def test_damaged_spool_is_set_aside_and_told(home: Home, profiles: dict[str, Profile]) -> None:
    async with running(home.agent(one_printer(), profiles)):
        pass
    (home.state_dir / "outbox.db").write_bytes(b"not a database" * 1000)
    for suffix in ("-wal", "-shm"):
        (home.state_dir / f"outbox.db{suffix}").unlink(missing_ok=True)
    async with running(home.agent(one_printer(), profiles)):
        pass
    assert [notice.code for notice in of(home, Notice)] == ["spoolLost"]
    assert [path.read_bytes()[:14] for path in home.state_dir.glob("outbox.db.damaged-*")] == [b"not a database"]


async def test_spool_of_another_key_is_refused(home: Home, profiles: dict[str, Profile]) -> None:
    async with running(home.agent(one_printer(), profiles)):
        pass
    (home.identity_dir / "record.key").unlink()
    with pytest.raises(KeyRefused, match="another record key"):
        await home.agent(one_printer(), profiles).run()


class TestRotation:
    """The old key's last record names the new one; a crash at any step is finished at the next start."""

    def certify(self, home: Home) -> bytes:
        keys = FileKeyStore(home.identity_dir)
        following = keys.next_record_key()
        cert = certs.RecordKeyCert(
            terminal=home.terminal, kid=following.kid, public_key=following.public_key, generation=2, issued_ms=0
        )
        raw = certs.seal_record_key_cert(cert, home.root, "testfleet")
        (home.identity_dir / identity.NEXT_RECORD_KEY_CERTIFICATE_FILE).write_bytes(raw)
        return following.kid

    async def test_at_start(self, home: Home, profiles: dict[str, Profile]) -> None:
        old = home.keys.record_key().kid
        async with running(home.agent(one_printer(), profiles)):
            pass
        new = self.certify(home)
        async with running(home.agent(one_printer(), profiles)):
            pass
        rows = list(home.signed_records())
        at = next(index for index, (_, record) in enumerate(rows) if record.kind == "key")
        assert records.body_of(rows[at][1]) == Key(kid=new, generation=2)
        assert {kid for kid, _ in rows[: at + 1]} == {old}
        assert {kid for kid, _ in rows[at + 1 :]} == {new}
        assert FileKeyStore(home.identity_dir).record_key().kid == new
        assert not (home.identity_dir / identity.NEXT_RECORD_KEY_CERTIFICATE_FILE).exists()
        async with running(home.agent(one_printer(), profiles)):
            pass

    async def test_cut_off_before_the_files_were_exchanged(self, home: Home, profiles: dict[str, Profile]) -> None:
        async with running(home.agent(one_printer(), profiles)):
            pass
        old_key = (home.identity_dir / "record.key").read_bytes()
        new = self.certify(home)
        next_key = (home.identity_dir / "record.next.key").read_bytes()
        next_cert = (home.identity_dir / identity.NEXT_RECORD_KEY_CERTIFICATE_FILE).read_bytes()
        async with running(home.agent(one_printer(), profiles)):
            pass
        for name, raw in (
            ("record.key", old_key),
            ("record.next.key", next_key),
            (identity.NEXT_RECORD_KEY_CERTIFICATE_FILE, next_cert),
        ):
            (home.identity_dir / name).write_bytes(raw)
            (home.identity_dir / name).chmod(0o600)
        async with running(home.agent(one_printer(), profiles)):
            pass
        assert FileKeyStore(home.identity_dir).record_key().kid == new
        assert len(of(home, Key)) == 1

    async def test_forged_certificate_changes_nothing(self, home: Home, profiles: dict[str, Profile]) -> None:
        old = home.keys.record_key().kid
        self.certify(home)
        path = home.identity_dir / identity.NEXT_RECORD_KEY_CERTIFICATE_FILE
        raw = path.read_bytes()
        path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        async with running(home.agent(one_printer(), profiles)):
            pass
        assert {kid for kid, _ in home.signed_records()} == {old}
        assert not path.exists()


async def test_summaries_at_the_end_of_a_span_and_clock_steps(home: Home, profiles: dict[str, Profile]) -> None:
    clock = OffsetClock(ClockQuality.UNSET)
    clock.wall_at_boot_ms = 0
    clock.skipped_ms = -clock.boot_ms() % 900_000 + 60_000  # a minute into a span, however long this machine has been up
    agent = home.agent(one_printer(), profiles, clock=clock)
    async with running(agent):
        assert [notice.code for notice in await until(lambda: of(home, Notice), "1970 is noticed")] == ["clockWentBack"]
        for _ in range(20):
            clock.skipped_ms += 45_000
            agent._house.tick()
        told = len(of(home, Host))
        assert told in (1, 2), "a quarter hour of the wall clock ended, or the span was long enough"
        assert all(body.observed_s * 1000 <= body.to_ms - body.from_ms for body in of(home, Serviceability))
        assert 300 <= sum(body.usable_s for body in of(home, Serviceability)) <= 900
        clock.wall_at_boot_ms, clock.clock_quality = 1_790_000_000_000, ClockQuality.SYNCED
        agent._house.tick()
        steps = of(home, records.Clock)
        assert [step.quality for step in steps] == ["synced"]
        assert steps[0].step_ms == 1_790_000_000_000
        agent._house.learn_server_time(clock.wall_ms() + 90_000_000)
    again = home.agent(one_printer(), profiles, clock=clock)
    async with running(again):
        assert again._house.trusted_now_ms() > clock.wall_ms(), "the floor is kept"


async def test_pressure_joins_summaries(home: Home, profiles: dict[str, Profile]) -> None:
    from edge_agent.outbox import OutboxLimits

    clock = OffsetClock()
    agent = home.agent(one_printer(), profiles, clock=clock, limits=OutboxLimits(max_bytes=16_384), durable=False)
    async with running(agent):
        while agent._outbox.pressure <= 0.5:
            clock.skipped_ms += 900_000
            agent._house.tick()
            agent._recorder.seal()
        clock.skipped_ms += 900_000
        agent._house.tick()
        told = len(of(home, Host))
        assert "summariesThinned" in [notice.code for notice in of(home, Notice)]
        for _ in range(8):
            clock.skipped_ms += 900_000
            agent._house.tick()
        assert len(of(home, Host)) - told <= 3, "in two hours there are at most the ends of three whole hours"


async def test_a_part_that_fails_is_started_again(
    home: Home, profiles: dict[str, Profile], caplog: pytest.LogCaptureFixture
) -> None:
    simulated = one_printer()
    agent = home.agent(simulated, profiles)
    tick = Agent._keep_house
    failures: list[int] = []

    async def failing(self: Agent) -> None:
        if len(failures) < 2:
            failures.append(1)
            raise RuntimeError("330102199001011235")
        await tick(self)

    agent._keep_house = failing.__get__(agent)  # type: ignore[method-assign]
    async with running(agent):
        await until(lambda: len(failures) == 2 and of(home, records.Clock), "housekeeping works after two failures")
        assert await until(lambda: _online(agent, "receipt-printer"), "the devices never noticed")
    assert "a part failed and starts again" in caplog.text
    assert "330102199001011235" not in caplog.text, "an error's text may hold what a device sent"


async def test_full_disk_while_running_is_waited_out(
    home: Home, profiles: dict[str, Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_agent.outbox import Outbox, OutboxFull

    agent = home.agent(one_printer(), profiles)
    async with running(agent):
        await until(lambda: _online(agent, "receipt-printer"), "the printer is online")

        def no_space(*_: Any, **__: Any) -> None:
            raise OutboxFull("no space for the spool")

        with monkeypatch.context() as full:
            full.setattr(Outbox, "capture_many", no_space)
            full.setattr(Outbox, "put", no_space)
            agent._house.tick()
        agent._house.tick()
    assert of(home, Stop) == [Stop(reason="shutdown")]


async def test_watchdog_is_fed_only_while_the_agent_moves(home: Home, profiles: dict[str, Profile]) -> None:
    said: list[str] = []

    class Listener(Notifier):
        def _send(self, state: str) -> None:
            said.append(state)

    clock = OffsetClock()
    agent = home.agent(one_printer(), profiles, clock=clock, notifier=Listener("x", watchdog_s=0.03))
    async with running(agent):
        await until(lambda: said.count("WATCHDOG=1") >= 2, "the watchdog is fed")
        clock.skipped_ms += 31_000  # as if no tick had come for so long
        fed = said.count("WATCHDOG=1")
        await until(lambda: clock.boot_ms() - agent._ticked_ms > 31_100, "time passes")
        assert said.count("WATCHDOG=1") <= fed + 1
    assert said[0] == "READY=1"
    assert said[-1] == "STOPPING=1"


@pytest.mark.slow
async def test_four_hundred_agents_in_one_loop(tmp_path: Path, profiles: dict[str, Profile]) -> None:
    homes = [Home(tmp_path / f"{number:03}", f"kiosk-{number:04}") for number in range(400)]
    agents = []
    for number, each in enumerate(homes):
        agents.append(each.agent(build_terminal("desk", seed=number), profiles, durable=False))
    tasks = [asyncio.ensure_future(agent.run()) for agent in agents]
    try:
        for agent in agents:
            await asyncio.wait_for(agent.started.wait(), 60)
        await until(
            lambda: all(any(slot.device == "online" for slot in agent.status().slots) for agent in agents),
            "every terminal has a device online",
            timeout_s=60,
        )
        began_s = time.process_time()  # of this process, whatever else the machine does
        await asyncio.sleep(0)
        assert time.process_time() - began_s < 1.0, "the loop is not held up"
    finally:
        for agent in agents:
            agent.stop()
        await asyncio.gather(*tasks)
        for each in homes:
            each.remove()
    for each in homes[::50]:
        assert of(each, Stop) == [Stop(reason="shutdown")]
