"""The desired state that holds: taken as a whole, verified again at each start, a configuration on trial, the one before coming back, the lock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.orders.desired import GOOD_KEY, NOW_KEY, TRIAL_MS, TRIAL_STARTS, Kept
from edge_agent.outbox import OutboxFull
from protocols.contract.orders import Configuration, Lock
from protocols.contract.records import Desired
from tests.edge_agent.orders.office import CONFIG, Desk, Office, certificate_of
from tests.support.contract import NOW_MS, STRANGER

LOCK = Lock(zh="设备维护中", en="Out of service", since_ms=NOW_MS)


def configuration(version: int, *items: str, **more: Any) -> Configuration:
    return Configuration(version=version, items=tuple({"code": item} for item in items), **more)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.greet()
    yield made
    made.stop()


@pytest.fixture
def office() -> Office:
    return Office()


def items(desk: Desk) -> list[str]:
    return [item.code for item in desk.desired.config().items]


def proved(desk: Desk) -> None:
    desk.clock.advance(TRIAL_MS)
    desk.desired.tick()


@pytest.mark.spec("O-307")
def test_a_configuration_replaces_the_files_tables_and_leaves_those_that_it_does_not_name(desk: Desk, office: Office) -> None:
    desk.inbox.desired(office.desired(configuration=configuration(3, "housing-fund.balance", intervals={"summary_s": 60})))
    config = desk.desired.config()
    assert items(desk) == ["housing-fund.balance"]
    assert config.devices == CONFIG.devices
    assert (config.intervals.summary_s, config.intervals.host_sample_s) == (60, CONFIG.intervals.host_sample_s)
    told = [body for body in desk.ledger.bodies if isinstance(body, Desired)]
    assert told == [Desired(counter=1, state="applied", config_version=3)]
    assert desk.changes == [True]


@pytest.mark.spec("O-301")
def test_what_the_next_one_does_not_name_is_not_wanted_any_more(desk: Desk, office: Office) -> None:
    desk.inbox.desired(office.desired(configuration=configuration(3, "housing-fund.balance"), lock=LOCK))
    assert desk.desired.lock == LOCK
    desk.inbox.desired(office.desired())
    assert desk.desired.lock is None
    assert desk.desired.config() == CONFIG


@pytest.mark.spec("O-303")
@pytest.mark.parametrize(
    "wrong",
    [
        Configuration(version=2, items=({"code": "Not A Code"},)),
        Configuration(version=2, devices=({"slot": "scanner", "family": "scanner", "colour": "red"},)),
        Configuration(version=2, devices=({"slot": "scanner", "family": "scanner"},) * 2),
        Configuration(version=2, intervals={"summary_s": 1}),
        Configuration(version=2, intervals={"summry_s": 900}),
    ],
    ids=["item", "unknown key", "twice", "interval", "misspelt"],
)
def test_a_configuration_that_does_not_fit_is_refused_whole(desk: Desk, office: Office, wrong: Configuration) -> None:
    desk.inbox.desired(office.desired(configuration=configuration(1, "housing-fund.balance")))
    desk.inbox.desired(office.desired(configuration=wrong, lock=LOCK))
    assert desk.told_desired() == [("applied", "none"), ("refused", "configuration")]
    assert (items(desk), desk.desired.lock) == (["housing-fund.balance"], None)
    assert desk.inbox.counters() == (2, 1)
    desk.inbox.desired(office.desired(configuration=configuration(2, "tax.invoice")))
    assert items(desk) == ["tax.invoice"]


def test_one_that_is_sent_again_and_again_is_refused_in_one_record(desk: Desk, office: Office) -> None:
    raw = office.desired(configuration=configuration(1, "Not A Code"))
    for _ in range(3):
        desk.greet()
        desk.inbox.desired(raw)
    assert desk.told_desired() == [("refused", "configuration")]
    desk.restart()
    desk.greet()
    desk.inbox.desired(raw)
    assert desk.told_desired() == []
    assert desk.inbox.counters() == (1, 0)


class TestTrial:
    @pytest.mark.spec("O-304")
    def test_the_one_before_comes_back(self, desk: Desk, office: Office) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "tax.invoice", intervals={"summary_s": 60})))
        proved(desk)
        desk.inbox.desired(office.desired(configuration=configuration(2, "housing-fund.balance"), lock=LOCK))
        assert desk.desired.on_trial
        assert desk.desired.roll_back()
        assert items(desk) == ["tax.invoice"]
        assert desk.desired.lock == LOCK, "only the configuration goes back"
        assert desk.told_desired()[-1] == ("rolledBack", "startFailed")
        told = [body for body in desk.ledger.bodies if isinstance(body, Desired)][-1]
        assert (told.counter, told.config_version, told.locked) == (2, 1, True)
        desk.restart()
        assert items(desk) == ["tax.invoice"]
        assert desk.inbox.counters()[1] == 2

    @pytest.mark.spec("O-304")
    def test_without_one_before_the_file_holds(self, desk: Desk, office: Office) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "housing-fund.balance")))
        desk.desired.roll_back()
        assert desk.desired.config() == CONFIG
        assert desk.desired.config_version == 0

    @pytest.mark.spec("O-304")
    def test_an_agent_that_dies_again_and_again_ends_the_trial(self, desk: Desk, office: Office) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "housing-fund.balance")))
        for _ in range(TRIAL_STARTS - 1):
            desk.restart()
            desk.desired.started()
            assert items(desk) == ["housing-fund.balance"]
        desk.restart()
        desk.desired.started()
        assert desk.told_desired() == [("rolledBack", "startFailed")]
        assert desk.desired.config() == CONFIG

    def test_one_that_ran_long_enough_is_not_rolled_back(self, desk: Desk, office: Office) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "housing-fund.balance")))
        desk.clock.advance(TRIAL_MS - 1)
        desk.desired.tick()
        assert desk.desired.on_trial
        desk.clock.advance(1)
        desk.desired.tick()
        assert not desk.desired.roll_back()
        assert items(desk) == ["housing-fund.balance"]

    def test_a_lock_on_the_way_neither_ends_nor_renews_a_trial(self, desk: Desk, office: Office) -> None:
        bad = configuration(1, "housing-fund.balance")
        desk.inbox.desired(office.desired(configuration=bad))
        desk.clock.advance(TRIAL_MS // 2)
        desk.inbox.desired(office.desired(configuration=bad, lock=LOCK))
        assert desk.desired.on_trial
        assert desk.changes == [True, False]
        desk.clock.advance(TRIAL_MS // 2)
        desk.desired.tick()
        assert not desk.desired.on_trial

    def test_one_that_failed_is_not_tried_again_while_it_is_the_same(self, desk: Desk, office: Office) -> None:
        bad = configuration(1, "housing-fund.balance")
        desk.inbox.desired(office.desired(configuration=bad))
        desk.desired.roll_back()
        desk.inbox.desired(office.desired(configuration=bad, lock=LOCK))
        assert desk.desired.config() == CONFIG
        assert not desk.desired.on_trial
        desk.inbox.desired(office.desired(configuration=configuration(2, "housing-fund.balance")))
        assert desk.desired.on_trial

    def test_after_a_failed_one_the_good_one_stays_the_one_before(self, desk: Desk, office: Office) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "tax.invoice", intervals={"summary_s": 60})))
        proved(desk)
        for version in (2, 3):
            desk.inbox.desired(office.desired(configuration=configuration(version, "housing-fund.balance")))
            desk.desired.roll_back()
            assert desk.desired.config_version == 1


class TestAtAStart:
    @pytest.mark.spec("O-302", "O-305")
    def test_lock_and_configuration_outlive_restarts(self, desk: Desk, office: Office) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "housing-fund.balance"), lock=LOCK))
        desk.restart()
        assert desk.desired.lock == LOCK
        assert items(desk) == ["housing-fund.balance"]
        assert desk.told_desired() == []

    @pytest.mark.spec("O-302")
    def test_what_the_root_does_not_vouch_for_holds_no_more(self, desk: Desk, office: Office) -> None:
        """Somebody wrote into the spool: a desired state of their own, with a certificate of their own making."""
        desk.inbox.desired(office.desired(lock=LOCK))
        forged = Office(STRANGER).desired(lock=Lock(zh="x", since_ms=1))
        desk.outbox.put(NOW_KEY, msgspec.msgpack.encode(Kept(forged, certificate_of(STRANGER, root=STRANGER))))
        desk.restart()
        assert desk.desired.lock is None
        assert desk.inbox.counters() == (1, 0), "the server sends it again"
        desk.greet()
        desk.inbox.desired(office.desired(lock=LOCK))
        assert desk.desired.lock == LOCK

    @pytest.mark.parametrize("key", [NOW_KEY, GOOD_KEY, "desired.notes"])
    def test_spoiled_memory_is_no_reason_to_fail(self, desk: Desk, office: Office, key: str) -> None:
        desk.inbox.desired(office.desired(configuration=configuration(1, "tax.invoice")))
        proved(desk)
        desk.outbox.put(key, b"\xc1spoiled")
        desk.restart()
        assert desk.desired.config().items == CONFIG.items


@pytest.mark.spec("O-208")
def test_on_a_full_disk_nothing_changes(desk: Desk, office: Office) -> None:
    raw = office.desired(lock=LOCK, configuration=configuration(1, "housing-fund.balance"))
    desk.ledger.full = True
    with pytest.raises(OutboxFull):
        desk.inbox.desired(raw)
    assert desk.desired.lock is None
    assert desk.desired.config() == CONFIG
    assert desk.inbox.counters() == (0, 0)
    desk.ledger.full = False
    desk.inbox.desired(raw)
    assert desk.desired.lock == LOCK
    desk.ledger.full = True
    with pytest.raises(OutboxFull):
        desk.desired.roll_back()
    assert desk.desired.on_trial
