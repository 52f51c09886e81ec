"""Orders and desired states at a whole agent on simulated ports: what an operator asks for happens, and what happens is on record."""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import doctor
from edge_agent.cli import load_profiles
from edge_agent.monitor import Monitor
from edge_agent.orders.desired import TRIAL_MS
from edge_agent.supervisor import Agent
from edge_agent.version import AGENT_VERSION
from protocols.contract import certs, orders, records
from protocols.contract.orders import Configuration, Lock, PullLogs, Restart, SelfTest
from protocols.contract.records import ClockQuality, Desired, Installed, Order, Serviceability, Stop, Update, Versions
from protocols.profile.schema import Profile
from tests.edge_agent.orders.office import Office
from tests.edge_agent.small_agent import Home, OffsetClock, inventory
from tests.edge_agent.test_supervisor import of, one_printer, post, running
from tests.protocols.contract import make_order_vectors as order_vectors
from tests.support.contract import ORDERS
from tests.support.waiting import until

FAR_MS = 4_000_000_000_000


@pytest.fixture(scope="module")
def profiles() -> dict[str, Profile]:
    return load_profiles(None)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    yield made
    made.remove()


class Here(Office):
    """The office of one home's fleet."""

    def __init__(self, home: Home) -> None:
        super().__init__(ORDERS, home.who.fleet, home.terminal)
        cert = certs.OrderKeyCert(kid=ORDERS.kid, public_key=ORDERS.public, issued_ms=0)
        self.certificate = certs.seal_order_key_cert(cert, home.root, home.who.fleet)

    def greet(self, agent: Agent) -> None:
        agent._inbox.connected()
        agent._inbox.keys((self.certificate,))

    def ask(self, agent: Agent, body: orders.OrderBody, **changes: Any) -> bytes:
        order = self.make(body, expires_ms=FAR_MS, **changes)
        agent._inbox.order(self.seal(order))
        return order.id


@pytest.fixture
def office(home: Home) -> Here:
    return Here(home)


def ends(home: Home, order: bytes) -> list[tuple[str, str]]:
    return [(body.state, body.reason) for body in of(home, Order) if body.id == order]


async def ended(home: Home, order: bytes) -> tuple[str, str]:
    await until(
        lambda: ends(home, order) and ends(home, order)[-1][0] not in {"received", "waiting", "running"}, "the order has ended"
    )
    return ends(home, order)[-1]


async def online(agent: Agent, slot: str = "receipt-printer") -> None:
    await until(lambda: any(one.slot == slot and one.device == "online" for one in agent.status().slots), f"{slot} is online")


def begin(item: str = "tax.invoice") -> dict[str, str]:
    return {"client_id": str(uuid.uuid4()), "item": item}


class TestSelfTest:
    async def test_every_family_can_be_asked(self, home: Home, profiles: dict[str, Profile]) -> None:
        from simulators.terminal import build_terminal

        simulated = build_terminal("booth", seed=3)
        agent, office = home.agent(simulated, profiles), Here(home)
        async with running(agent):
            office.greet(agent)
            slots = [one.slot for one in agent.status().slots]
            for slot in slots:
                await online(agent, slot)
            asked = {slot: office.ask(agent, SelfTest(slot=slot)) for slot in slots}
            for slot, order in asked.items():
                assert await ended(home, order) == ("done", "none"), slot

    async def test_a_device_in_trouble_and_one_that_is_gone(self, home: Home, office: Here, profiles: dict[str, Profile]) -> None:
        simulated = one_printer()
        agent = home.agent(simulated, profiles)
        async with running(agent):
            office.greet(agent)
            await online(agent)
            simulated.set("receipt-printer", "paper-out")
            assert await ended(home, office.ask(agent, SelfTest(slot="receipt-printer"))) == ("failed", "device")
            simulated.clear("receipt-printer", "paper-out")
            assert await ended(home, office.ask(agent, SelfTest(slot="receipt-printer"))) == ("done", "none")
            simulated.set("receipt-printer", "unplug")
            await until(lambda: agent.status().slots[0].device == "noDevice", "it is gone")
            assert await ended(home, office.ask(agent, SelfTest(slot="receipt-printer"))) == ("failed", "device")

    async def test_a_slip_is_printed_when_nobody_is_served(self, home: Home, office: Here, profiles: dict[str, Profile]) -> None:
        simulated = one_printer()
        model: Any = simulated.model("receipt-printer")
        agent = home.agent(simulated, profiles)
        async with running(agent):
            office.greet(agent)
            await online(agent)
            session = (await asyncio.to_thread(post, home, "/v1/sessions", begin()))["session"]
            order = office.ask(agent, SelfTest(slot="receipt-printer", test="print"))
            await until(lambda: ends(home, order)[-1] == ("waiting", "session"), "it waits for the citizen")
            assert (model.lines_printed, model.cuts) == (0, 0)
            await asyncio.to_thread(post, home, f"/v1/sessions/{session}/end", {"outcome": "success"})
            assert await ended(home, order) == ("done", "none")
            assert (model.lines_printed, model.cuts) == (10, 1)
            refused = office.ask(agent, SelfTest(slot="receipt-printer", test="beep"))
            assert await ended(home, refused) == ("refused", "unsupported")

    async def test_nothing_is_printed_on_a_port_that_another_program_keeps(
        self, home: Home, office: Here, profiles: dict[str, Profile]
    ) -> None:
        devices = [entry | {"ownership": "observer"} for entry in inventory(one_printer()) if entry["slot"] == "receipt-printer"]
        agent = home.agent(one_printer(), profiles, config=home.config(devices=devices))
        async with running(agent):
            office.greet(agent)
            await online(agent)
            order = office.ask(agent, SelfTest(slot="receipt-printer", test="print"))
            assert await ended(home, order) == ("refused", "unsupported")
            assert await ended(home, office.ask(agent, SelfTest(slot="receipt-printer"))) == ("done", "none")

    async def test_a_slip_on_a_printer_that_is_gone_or_without_paper(
        self, home: Home, office: Here, profiles: dict[str, Profile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edge_agent.devices.receipt_printer.PRINT_TIMEOUT_S", 0.5)
        simulated = one_printer()
        agent = home.agent(simulated, profiles)
        async with running(agent):
            office.greet(agent)
            await online(agent)
            simulated.set("receipt-printer", "paper-out")
            order = office.ask(agent, SelfTest(slot="receipt-printer", test="print"))
            assert await ended(home, order) == ("failed", "device")
            simulated.set("receipt-printer", "unplug")
            await until(lambda: agent.status().slots[0].device == "noDevice", "it is gone")
            order = office.ask(agent, SelfTest(slot="receipt-printer", test="print"))
            assert await ended(home, order) == ("failed", "device")


class TestRestart:
    async def test_of_the_agent(self, home: Home, office: Here, profiles: dict[str, Profile]) -> None:
        agent = home.agent(one_printer(), profiles)
        async with running(agent) as task:
            office.greet(agent)
            order = office.ask(agent, Restart(what="agent"))
            await until(task.done, "the agent ends")
            assert agent.stop_reason == "restart"
        assert of(home, Stop) == [Stop(reason="restart")]
        async with running(home.agent(one_printer(), profiles)):
            assert await ended(home, order) == ("done", "none")

    async def test_of_the_application_by_the_hook(self, home: Home, office: Here, profiles: dict[str, Profile]) -> None:
        mark = home.folder / "restarted"
        hooks = {"restart_application": [sys.executable, "-c", f"open({str(mark)!r}, 'a').write('x')"]}
        config = home.config(devices=inventory(one_printer()), hooks=hooks)
        agent = home.agent(one_printer(), profiles, config=config)
        async with running(agent):
            office.greet(agent)
            assert await ended(home, office.ask(agent, Restart(what="application"))) == ("done", "none")
            assert mark.read_text() == "x"
            host = office.ask(agent, Restart(what="host"), approved_by="wu")
            assert await ended(home, host) == ("refused", "noHook")

    async def test_while_the_host_goes_down_no_session_begins(
        self, home: Home, office: Here, profiles: dict[str, Profile]
    ) -> None:
        hooks = {"restart_host": [sys.executable, "-c", "pass"]}
        config = home.config(devices=inventory(one_printer()), hooks=hooks)
        agent = home.agent(one_printer(), profiles, config=config)
        async with running(agent):
            office.greet(agent)
            await until(home.socket_path.exists, "the local API listens")
            order = office.ask(agent, Restart(what="host"), approved_by="wu")
            await until(lambda: agent.status().closed == "restarting", "it says so")
            assert (await asyncio.to_thread(post, home, "/v1/sessions", begin()))["error"] == "restarting"
        async with running(home.agent(one_printer(), profiles, boot_id=bytes(16))):
            assert await ended(home, order) == ("done", "none")


async def test_expiry_is_judged_by_what_the_server_said_where_the_clock_is_wrong(
    home: Home, office: Here, profiles: dict[str, Profile]
) -> None:
    for wall_ms in (0, 4_070_908_800_000):  # 1970 and 2099
        clock = OffsetClock(ClockQuality.UNSET)
        clock.wall_at_boot_ms = wall_ms
        agent = home.agent(one_printer(), profiles, clock=clock)
        async with running(agent):
            office.greet(agent)
            now_ms = 1_800_000_000_000
            agent._house.learn_server_time(now_ms)
            expired = office.make(SelfTest(slot="receipt-printer"), expires_ms=now_ms)
            agent._inbox.order(office.seal(expired))
            assert ends(home, expired.id) == [("refused", "expired")]
            fresh = office.make(SelfTest(slot="receipt-printer"), expires_ms=now_ms + 60_000)
            agent._inbox.order(office.seal(fresh))
            assert (await ended(home, fresh.id))[0] != "expired"


class TestLock:
    async def test_locked_time_is_told_as_time_without_service(
        self, home: Home, office: Here, profiles: dict[str, Profile]
    ) -> None:
        clock = OffsetClock(ClockQuality.SYNCED)
        agent = home.agent(one_printer(), profiles, clock=clock)
        async with running(agent):
            office.greet(agent)
            for lock, steps in ((None, 2), (Lock(zh="设备停用", since_ms=7), 4), (None, 2)):
                agent._inbox.desired(office.desired(lock=lock, approved_by=None))
                agent._house.tick()
                for _ in range(steps):
                    clock.skipped_ms += 45_000
                    agent._house.tick()
        told = of(home, Serviceability)
        assert 180 <= sum(body.unusable_s for body in told) < 225
        assert sum(body.observed_s for body in told) >= 360

    @pytest.mark.spec("O-305")
    async def test_no_session_begins_and_the_screen_says_why(
        self, home: Home, office: Here, profiles: dict[str, Profile]
    ) -> None:
        lock = Lock(zh="设备停用，请到三楼", en="Please go to floor 3", since_ms=7)
        agent = home.agent(one_printer(), profiles)
        async with running(agent):
            office.greet(agent)
            await until(home.socket_path.exists, "the local API listens")
            asked = begin()
            open_one = (await asyncio.to_thread(post, home, "/v1/sessions", asked))["session"]
            agent._inbox.desired(office.desired(lock=lock, approved_by=None))
            assert (await asyncio.to_thread(post, home, "/v1/sessions", begin()))["error"] == "locked"
            assert (await asyncio.to_thread(post, home, "/v1/sessions", asked))["session"] == open_one, "not cut off"
            done = await asyncio.to_thread(post, home, f"/v1/sessions/{open_one}/end", {"outcome": "success"})
            assert done["recorded"] is True
        agent = home.agent(one_printer(), profiles, boot_id=bytes(16))
        async with running(agent):
            await until(home.socket_path.exists, "the local API listens")
            document = await asyncio.to_thread(doctor.ask_agent, str(home.socket_path))
            assert not isinstance(document, str)
            assert (document.closed, document.service) == ("locked", "unusable")
            assert document.lock is not None
            assert (document.lock.zh, document.lock.en, document.lock.since_ms) == (
                "设备停用，请到三楼",
                "Please go to floor 3",
                7,
            )
            assert "设备停用" in doctor.render(list(doctor.of_running(document, "zh")))
            assert (await asyncio.to_thread(post, home, "/v1/sessions", begin()))["error"] == "locked"
            office.greet(agent)
            agent._inbox.desired(office.desired())
            assert "session" in await asyncio.to_thread(post, home, "/v1/sessions", begin())
        assert [body.locked for body in of(home, Desired)] == [True, False]
        raw = (home.state_dir / "outbox.db").read_bytes()
        assert "三楼".encode() not in b"".join(repr(body).encode() for body in home.bodies())
        assert raw


class TestConfiguration:
    async def test_other_devices_and_items_hold_at_once(self, home: Home, office: Here, profiles: dict[str, Profile]) -> None:
        simulated = one_printer()
        all_devices = inventory(simulated)
        pads_only = [entry for entry in all_devices if entry["slot"] != "receipt-printer"]
        agent = home.agent(simulated, profiles, config=home.config(devices=pads_only))
        async with running(agent):
            office.greet(agent)
            await until(home.socket_path.exists, "the local API listens")
            assert (await asyncio.to_thread(post, home, "/v1/sessions", begin("housing-fund.balance")))["error"] == "item"
            wanted = Configuration(version=5, devices=tuple(all_devices), items=({"code": "housing-fund.balance"},))
            agent._inbox.desired(office.desired(configuration=wanted))
            await online(agent)
            assert "session" in await asyncio.to_thread(post, home, "/v1/sessions", begin("housing-fund.balance"))
        assert of(home, Desired) == [Desired(counter=1, state="applied", config_version=5)]
        agent = home.agent(simulated, profiles, config=home.config(devices=pads_only))
        async with running(agent):
            await online(agent)

    async def test_an_update_where_no_updater_is_installed_is_refused_once(
        self, home: Home, office: Here, profiles: dict[str, Profile]
    ) -> None:
        agent = home.agent(one_printer(), profiles)
        bundle = order_vectors.desired().bundle
        async with running(agent):
            office.greet(agent)
            agent._inbox.desired(office.desired(bundle=bundle))
            agent._inbox.desired(office.desired(bundle=bundle))
        assert [(body.component, body.state, body.reason) for body in of(home, Update)] == [("agent", "refused", "noUpdater")]

    @pytest.mark.spec("O-304")
    async def test_one_that_cannot_start_goes_back_by_itself(
        self, home: Home, office: Here, profiles: dict[str, Profile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its devices cannot be watched: the monitor fails whenever such a slot is there."""
        run = Monitor.run

        async def failing(self: Monitor) -> None:
            if any(view.slot == "scanner" for view in self.slot_views()):
                raise RuntimeError("cannot be watched")
            await run(self)

        monkeypatch.setattr(Monitor, "run", failing)
        agent = home.agent(one_printer(), profiles)
        async with running(agent):
            office.greet(agent)
            await online(agent)
            agent._inbox.desired(
                office.desired(configuration=Configuration(version=2, devices=({"slot": "scanner", "family": "scanner"},)))
            )
            await until(lambda: of(home, Desired)[-1].state == "rolledBack", "it goes back")
            await online(agent)
            assert office.ask(agent, SelfTest(slot="receipt-printer"))
        assert [(body.state, body.reason, body.config_version) for body in of(home, Desired)] == [
            ("applied", "none", 2),
            ("rolledBack", "startFailed", 0),
        ]

    @pytest.mark.spec("O-304")
    async def test_one_with_which_the_agent_cannot_even_be_put_together_goes_back_at_its_start(
        self, home: Home, office: Here, profiles: dict[str, Profile], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent = home.agent(one_printer(), profiles)
        async with running(agent, crash=True):
            office.greet(agent)
            agent._inbox.desired(
                office.desired(configuration=Configuration(version=2, devices=({"slot": "scanner", "family": "scanner"},)))
            )
        make = Monitor.__init__

        def failing(self: Monitor, **parts: Any) -> None:
            if any(entry.slot == "scanner" for entry in parts["inventory"]):
                raise ValueError("not with this inventory")
            make(self, **parts)

        monkeypatch.setattr(Monitor, "__init__", failing)
        agent = home.agent(one_printer(), profiles)
        async with running(agent):
            await online(agent)
        assert of(home, Desired)[-1].state == "rolledBack"

    async def test_one_that_ran_long_enough_stays(self, home: Home, office: Here, profiles: dict[str, Profile]) -> None:
        clock = OffsetClock()
        agent = home.agent(one_printer(), profiles, clock=clock)
        async with running(agent):
            office.greet(agent)
            agent._inbox.desired(office.desired(configuration=Configuration(version=2, intervals={"summary_s": 60})))
            assert agent._desired.on_trial
            clock.skipped_ms += TRIAL_MS
            agent._desired.tick()
            assert not agent._desired.on_trial


class TestVersions:
    @pytest.mark.spec("U-307")
    async def test_what_runs_is_told_at_each_start(self, home: Home, profiles: dict[str, Profile]) -> None:
        for version in ("1.0.0", "1.1.0"):
            agent = home.agent(one_printer(), profiles, version=version)
            async with running(agent):
                assert agent.status().agent == version
        assert [body.agent for body in of(home, records.Boot)] == ["1.0.0", "1.1.0"]
        assert of(home, Versions) == [
            Versions(installed=(Installed(component="agent", version=version, release=0),)) for version in ("1.0.0", "1.1.0")
        ]

    async def test_agents_of_different_versions_run_side_by_side(self, tmp_path: Path, profiles: dict[str, Profile]) -> None:
        homes = [Home(tmp_path / name, name) for name in ("kiosk-1", "kiosk-2")]
        try:
            first = homes[0].agent(one_printer(), profiles)
            second = homes[1].agent(one_printer(), profiles, version="9.9")
            async with running(first), running(second):
                assert (first.status().agent, second.status().agent) == (AGENT_VERSION, "9.9")
        finally:
            for one in homes:
                one.remove()


class TestPullLogs:
    @pytest.mark.spec("O-402")
    async def test_the_excerpt_is_signed_and_posted(
        self,
        home: Home,
        office: Here,
        profiles: dict[str, Profile],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The HTTPS client is replaced at its door; test_upload.py has the real one."""
        caplog.set_level("INFO", "edge_agent")
        posted: list[tuple[str, bytes]] = []
        statuses = [503, 204]

        def take(_who: object, _keys: object, _directory: object, path: str, body: bytes, *, check_dates: bool) -> int:
            assert check_dates
            posted.append((path, body))
            return statuses.pop(0)

        monkeypatch.setattr("edge_agent.enrol.post_signed", take)
        agent = home.agent(one_printer(), profiles)
        async with running(agent):
            office.greet(agent)
            await online(agent)
            agent._runner._parts = dataclasses.replace(agent._runner._parts, upload_pauses_s=(0.0,))
            order = office.ask(agent, PullLogs(from_ms=0, to_ms=FAR_MS))
            assert await ended(home, order) == ("done", "none")
        assert {path for path, _ in posted} == {"/api/v1/logs"}
        excerpt = opened(home, posted[-1][1])
        assert (excerpt.order, excerpt.cut) == (order, False)
        lines = [json.loads(line) for line in gzip.decompress(excerpt.text).splitlines()]
        assert len(lines) == excerpt.lines
        assert any(line["m"] == "agent started" for line in lines)


def opened(home: Home, raw: bytes) -> orders.LogExcerpt:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from protocols.contract import envelope as cose
    from protocols.contract import wire

    key = Ed25519PublicKey.from_public_bytes(home.keys.record_key().public_key)
    envelope = cose.parse(raw, 5 << 20)
    return wire.read(cose.verify(envelope, key, orders.LOG_CONTEXT, home.who.fleet, home.terminal).payload, orders.LogExcerpt)


def test_what_only_an_order_needs_is_loaded_with_the_first_one() -> None:
    show = "import edge_agent.supervisor, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True).stdout.split()
    assert "edge_agent.orders.inbox" in loaded
    assert {name for name in loaded if name.startswith("edge_agent.updater")} == set()
    assert {"edge_agent.orders.hooks", "edge_agent.orders.excerpt", "edge_agent.orders.updater_link", "edge_agent.enrol"} & set(
        loaded
    ) == set()
