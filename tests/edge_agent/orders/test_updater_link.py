"""The agent's side of the talk with the updater, against the updater's own side of the files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.cli import load_profiles
from edge_agent.orders.updater_link import HEALTH_EVERY_MS, UpdaterLink
from edge_agent.orders.versions import VERSIONS_KEY, versions_at_start
from edge_agent.outbox import Outbox, OutboxFull
from edge_agent.status import SlotView
from edge_agent.updater.handover import AgentSide, UpdaterSide, Want
from protocols.contract import orders, records
from protocols.contract.records import Device, Installed, Stop, Update, Versions
from tests.edge_agent.orders.office import BOOT_ID, Ledger
from tests.edge_agent.orders.test_agent import Here, begin
from tests.edge_agent.small_agent import Home, inventory
from tests.edge_agent.test_supervisor import of, one_printer, post, running
from tests.support.contract import FLEET, NOW_MS, RECORD, TERMINAL, StepClock
from tests.support.waiting import until

AGENT_2 = Versions(installed=(Installed(component="agent", version="2.0", release=7, sha256=bytes(32)),))


def update(state: str, n: int = 1) -> Update:
    return Update(
        bundle=bytes(16),
        rollout=bytes(16),
        component="agent",
        state=state,  # type: ignore[arg-type]
        since_ms=NOW_MS + n,
        to_version="2.0",
    )


def want(name: int, what: str = "install", seconds: int = 60) -> Want:
    return Want(id=f"{name:032x}", bundle="00" * 16, what=what, seconds=seconds)  # type: ignore[arg-type]


class Pair:
    """One terminal's agent side on a real spool; `start` again is a new run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock, self.idle = folder, StepClock(), True
        self.requests, self.updates = folder / "requests", folder / "updates"
        self.requests.mkdir()
        self.updates.mkdir()
        self.updater = UpdaterSide(self.requests, self.updates)
        self.ends = 0
        self.views: tuple[SlotView, ...] = ()
        self.start()

    def start(self) -> None:
        self.outbox = Outbox(self.folder / "outbox.db", RECORD, FLEET, TERMINAL, self.clock, durable=False)
        self.outbox.start_stream(BOOT_ID)
        self.ledger = Ledger(self.outbox)
        self.link = UpdaterLink(
            AgentSide(self.requests, self.updates),
            ledger=self.ledger,
            memory=self.ledger,
            clock=self.clock,
            boot_id=BOOT_ID,
            version="1.0",
            idle=lambda: self.idle,
            slots=lambda: self.views,
            faults=list,
            on_quiet_end=self.ended,
        )

    def ended(self) -> None:
        self.ends += 1

    def restart(self) -> None:
        self.outbox.close(clean=False)
        self.start()
        self.link.begin(None, has_keys=False)

    def told(self) -> list[str]:
        return [body.state for body in self.ledger.bodies if isinstance(body, Update)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    made.link.begin(None, has_keys=False)
    yield made
    made.outbox.close(clean=False)


class TestGrant:
    def test_only_when_nobody_is_served(self, pair: Pair) -> None:
        pair.idle = False
        pair.updater.write_want(want(1))
        pair.link.tick()
        assert (pair.link.granted, pair.updater.grant()) == (False, None)
        pair.idle = True
        pair.link.tick()
        grant = pair.updater.grant()
        assert pair.link.granted
        assert grant is not None
        assert (grant.want, grant.boot_id, grant.until_boot_ms) == (want(1).id, BOOT_ID.hex(), pair.clock.boot_ms() + 60_000)

    def test_given_back_at_its_expiry_and_not_again_for_the_same_asking(self, pair: Pair) -> None:
        pair.updater.write_want(want(1, seconds=10))
        pair.link.tick()
        pair.clock.advance(9_999)
        pair.link.tick()
        assert pair.link.granted
        pair.clock.advance(1)
        pair.link.tick()
        assert (pair.link.granted, pair.updater.grant(), pair.ends) == (False, None, 1)
        pair.link.tick()
        assert not pair.link.granted
        pair.updater.write_want(want(2, seconds=10))
        pair.link.tick()
        assert pair.link.granted

    def test_given_back_when_the_updater_wants_no_more(self, pair: Pair) -> None:
        pair.updater.write_want(want(1))
        pair.link.tick()
        pair.updater.write_want(None)
        pair.link.tick()
        assert (pair.link.granted, pair.updater.grant(), pair.ends) == (False, None, 1)

    def test_an_agent_that_starts_again_promises_anew(self, pair: Pair) -> None:
        pair.updater.write_want(want(1))
        pair.link.tick()
        pair.idle = False
        pair.restart()
        assert (pair.link.granted, pair.updater.grant()) == (False, None), (
            "a citizen is here: nothing stands that was promised before"
        )
        pair.idle = True
        pair.link.tick()
        assert pair.link.granted

    def test_an_end_of_the_agent_while_its_version_is_changed_is_the_update(self, pair: Pair) -> None:
        assert not pair.link.switching
        pair.updater.write_want(want(1, "apply"))
        pair.link.tick()
        assert (pair.link.granted, pair.link.switching) == (True, False)
        pair.updater.write_want(want(2, "install"))
        pair.link.tick()
        assert pair.link.switching

    @pytest.mark.parametrize("spoiled", [b"", b"{", b"[]", b'{"id": "x"}', b"\xff" * 100_000])
    def test_whatever_stands_there_breaks_nothing(self, pair: Pair, spoiled: bytes) -> None:
        (pair.updates / "want.json").write_bytes(spoiled)
        (pair.updates / "progress.ndjson").write_bytes(spoiled)
        pair.link.tick()
        assert not pair.link.granted


class TestProgress:
    @pytest.mark.spec("U-307")
    def test_each_line_is_a_record_once(self, pair: Pair) -> None:
        pair.updater.tell(NOW_MS, update("downloading"), update("verifying"))
        pair.link.tick()
        pair.link.tick()
        pair.updater.tell(NOW_MS, update("staged"))
        pair.link.tick()
        assert pair.told() == ["downloading", "verifying", "staged"]
        pair.restart()
        pair.link.tick()
        assert pair.told() == []
        pair.updater.tell(NOW_MS, update("committed"), AGENT_2)
        pair.link.tick()
        assert pair.told() == ["committed"]

    def test_nothing_is_lost_or_doubled_where_the_disk_is_full_or_the_agent_dies(self, pair: Pair) -> None:
        """The number and the record are one transaction: whichever of the two is cut off, so is the other."""
        states = ["downloading", "verifying", "staged", "waiting", "installing"]
        pair.updater.tell(NOW_MS, *(update(state, n) for n, state in enumerate(states)))
        seen: list[str] = []
        for _ in range(len(states)):
            left = [1]
            capture = pair.ledger.capture

            def once(body: records.Body, *, _left: list[int] = left, _capture: Any = capture, **more: Any) -> None:
                if not _left:
                    raise OutboxFull("no space")
                _left.pop()
                _capture(body, **more)

            pair.ledger.capture = once  # type: ignore[method-assign]
            pair.link.tick()
            seen += pair.told()
            pair.restart()
            seen += pair.told()
            if len(seen) >= len(states):
                break
        assert seen == states

    def test_a_record_keeps_the_time_at_which_the_updater_wrote_it(self, pair: Pair) -> None:
        pair.updater.tell(NOW_MS - 50_000, update("downloading"))
        pair.link.tick()
        import cbor2

        (raw,) = pair.outbox._db.execute("SELECT record FROM pending WHERE kind = 'update'").fetchone()
        assert cbor2.loads(raw)["t"] == NOW_MS - 50_000

    def test_the_updater_drops_what_is_on_record(self, pair: Pair) -> None:
        pair.updater.tell(NOW_MS, update("downloading"))
        pair.link.tick()
        health = pair.updater.health()
        assert health is not None
        assert health.progress == 1
        pair.updater.tell(NOW_MS, update("verifying"))
        (line,) = (pair.updates / "progress.ndjson").read_bytes().splitlines()
        assert b'"n":2' in line


class TestVersions:
    def test_what_the_updater_told_is_told_again_at_a_start(self, pair: Pair) -> None:
        content = Installed(component="content/guide", version="5", release=5)
        pair.updater.tell(NOW_MS, Versions(installed=(*AGENT_2.installed, content)))
        pair.link.tick()
        kept = pair.outbox.get(VERSIONS_KEY)
        assert versions_at_start(kept, "2.0").installed == (*AGENT_2.installed, content)
        rolled_back = Installed(component="agent", version="1.0", release=0)
        assert versions_at_start(kept, "1.0").installed == (rolled_back, content), "the agent's own word on itself counts"

    def test_without_an_updater_the_agent_speaks_for_itself(self) -> None:
        alone = Versions(installed=(Installed(component="agent", version="1.0", release=0),))
        assert versions_at_start(None, "1.0") == versions_at_start(b"\xc1", "1.0") == alone


class TestHealth:
    def test_at_each_change_and_every_few_seconds(self, pair: Pair) -> None:
        first = pair.updater.health()
        assert first is not None
        assert (first.version, first.boot_id, first.idle, first.devices) == ("1.0", BOOT_ID.hex(), True, {})
        pair.clock.advance(1000)
        pair.link.tick()
        assert pair.updater.health() == first
        state = Device(slot="scanner", family="scanner", device="online")  # type: ignore[arg-type]
        pair.views = (SlotView(slot="scanner", family="scanner", mandatory=True, state=state),)
        pair.link.tick()
        second = pair.updater.health()
        assert second is not None
        assert (second.devices, second.mandatory) == ({"scanner": "online"}, ("scanner",))
        pair.clock.advance(HEALTH_EVERY_MS)
        pair.link.tick()
        third = pair.updater.health()
        assert third is not None
        assert third.boot_ms == pair.clock.boot_ms()

    def test_a_terminal_that_is_promised_is_not_idle(self, pair: Pair) -> None:
        pair.updater.write_want(want(1))
        pair.link.tick()
        health = pair.updater.health()
        assert health is not None
        assert not health.idle

    def test_a_directory_that_cannot_be_written_is_tried_again(self, pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
        (pair.requests / "health.json").unlink()
        pair.requests.rename(pair.folder / "away")
        pair.clock.advance(HEALTH_EVERY_MS)
        for _ in range(5):
            pair.link.tick()
        assert caplog.text.count("cannot be written") == 1
        (pair.folder / "away").rename(pair.requests)
        pair.link.tick()
        assert pair.updater.health() is not None


class TestAgent:
    """The whole agent with an updater beside it."""

    @pytest.fixture
    def home(self, tmp_path: Path) -> Iterator[Home]:
        made = Home(tmp_path)
        for name in ("requests", "updates"):
            (tmp_path / name).mkdir()
        yield made
        made.remove()

    def agent(self, home: Home, **more: Any) -> Any:
        tables = {"requests_dir": str(home.folder / "requests"), "updates_dir": str(home.folder / "updates")}
        config = home.config(devices=inventory(one_printer()), updater=tables)
        return home.agent(one_printer(), load_profiles(None), config=config, **more)

    async def test_hands_over_promises_quiet_and_tells(self, home: Home) -> None:
        office, updater = Here(home), UpdaterSide(home.folder / "requests", home.folder / "updates")
        agent = self.agent(home)
        async with running(agent):
            office.greet(agent)
            assert updater.order_keys() == (office.certificate,)
            wanted = orders.Wanted(component="agent", target="agent/a.tar", version="2.0", release=2, length=1, sha256=bytes(32))
            raw = office.desired(bundle=orders.Bundle(id=bytes(16), rollout=bytes(16), wanted=(wanted,)))
            agent._inbox.desired(raw)
            assert updater.desired() == raw
            await until(home.socket_path.exists, "the local API listens")
            session = (await asyncio.to_thread(post, home, "/v1/sessions", begin()))["session"]
            updater.write_want(want(1))
            await until(lambda: (health := updater.health()) is not None and not health.idle, "the agent has seen the citizen")
            assert updater.grant() is None
            await asyncio.to_thread(post, home, f"/v1/sessions/{session}/end", {"outcome": "success"})
            await until(updater.grant, "the promise")
            assert (await asyncio.to_thread(post, home, "/v1/sessions", begin()))["error"] == "updating"
            assert agent.status().closed == "updating"
            updater.tell(NOW_MS, update("installing"))
            await until(lambda: of(home, Update), "it is told")
            agent.stop_for_the_system()
            assert agent.stop_reason == "update"
            await until(lambda: of(home, Stop), "it stops")
            assert of(home, Stop) == [Stop(reason="update")]
        for name in ("desired.cose", "order-keys.json"):
            (home.folder / "requests" / name).unlink()
        async with running(self.agent(home, version="2.0")):
            assert updater.desired() == raw, "what was lost is handed over again"
            assert updater.order_keys() == (office.certificate,)
            assert of(home, Versions)[-1].installed[0].version == "2.0"

    async def test_without_a_promise_an_end_is_a_shutdown(self, home: Home) -> None:
        agent = self.agent(home)
        async with running(agent):
            agent.stop_for_the_system()
            assert agent.stop_reason == "shutdown"
