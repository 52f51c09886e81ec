"""What becomes of an order, from its envelope to its end: taken or refused with a reason, waiting, done once, told at each step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.orders import book as rules
from edge_agent.outbox import OutboxFull
from protocols.contract import orders
from protocols.contract.orders import Cancel, PullLogs, Restart, SelfTest
from tests.edge_agent.orders.office import Desk, Office, new_id
from tests.support.contract import NOW_MS

QUERY = SelfTest(slot="receipt-printer")
PRINT = SelfTest(slot="receipt-printer", test="print")
DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.greet()
    yield made
    made.stop()


@pytest.fixture
def office() -> Office:
    return Office()


async def test_a_self_test_is_told_step_by_step(desk: Desk, office: Office) -> None:
    desk.inbox.order(office.order(QUERY))
    await desk.work()
    assert desk.states() == [("received", "none"), ("running", "none"), ("done", "none")]
    assert desk.tested == [("receipt-printer", "query")]
    assert {(body.kind, body.slot, body.counter) for body in desk.told()} == {("selfTest", "receipt-printer", 1)}


@pytest.mark.spec("O-206")
@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("device", ("failed", "device")),
        ("timeout", ("failed", "timeout")),
        ("inUse", ("failed", "inUse")),
        ("unsupported", ("refused", "unsupported")),
    ],
)
async def test_what_a_test_says_is_how_the_order_ends(desk: Desk, office: Office, answer: str, end: tuple[str, str]) -> None:
    desk.test_answer = answer  # type: ignore[assignment]
    desk.inbox.order(office.order(QUERY))
    await desk.work()
    assert desk.states()[-1] == end


@pytest.mark.spec("O-206")
async def test_what_the_device_cannot_do_is_refused_and_what_it_can_is_done(desk: Desk, office: Office) -> None:
    desk.inbox.order(office.order(SelfTest(slot="receipt-printer", test="beep")))
    await desk.work()
    assert desk.states() == [("received", "none"), ("refused", "unsupported")]
    desk.inbox.order(office.order(PRINT))
    await desk.work()
    assert desk.tested == [("receipt-printer", "print")]


@pytest.mark.spec("O-206")
def test_a_slot_that_is_not_there_is_refused(desk: Desk, office: Office) -> None:
    desk.inbox.order(office.order(SelfTest(slot="laser-printer")))
    assert [(body.state, body.reason, body.slot) for body in desk.told()] == [("refused", "noSlot", "laser-printer")]


@pytest.mark.spec("O-206")
async def test_a_restart_without_a_hook_is_refused(desk: Desk, office: Office) -> None:
    desk.hooks = False
    desk.restart()
    desk.greet()
    desk.inbox.order(office.order(Restart(what="application")))
    desk.inbox.order(office.order(Restart(what="host"), approved_by="wu"))
    await desk.work()
    assert [state for state in desk.states() if state[0] == "refused"] == [("refused", "noHook")] * 2
    assert desk.hook_runs == []


@pytest.mark.spec("O-211")
@pytest.mark.parametrize(
    "body", [PRINT, Restart(what="application"), Restart(what="agent")], ids=["print", "application", "agent"]
)
async def test_what_disturbs_waits_for_the_citizen_to_leave(desk: Desk, office: Office, body: orders.OrderBody) -> None:
    desk.idle = False
    desk.inbox.order(office.order(body))
    await desk.work()
    await desk.work()
    assert desk.states() == [("received", "none"), ("waiting", "session")], "told once, however often it is looked at"
    assert (desk.tested, desk.hook_runs, desk.restarts) == ([], [], 0)
    desk.idle = True
    await desk.work()
    assert desk.states()[2] == ("running", "none")
    assert len(desk.tested) + len(desk.hook_runs) + desk.restarts == 1


@pytest.mark.spec("O-211")
async def test_what_does_not_disturb_and_what_must_be_now_do_not_wait(desk: Desk, office: Office) -> None:
    desk.idle = False
    desk.inbox.order(office.order(PRINT))
    desk.inbox.order(office.order(QUERY))
    desk.inbox.order(office.order(Restart(what="application", when="now"), approved_by="wu"))
    await desk.work()
    assert desk.tested == [("receipt-printer", "query")]
    assert desk.hook_runs == ["restart_application"]


@pytest.mark.spec("O-205")
async def test_an_order_that_waits_past_its_expiry_ends_as_expired(desk: Desk, office: Office) -> None:
    desk.idle = False
    desk.inbox.order(office.order(PRINT))
    await desk.work()
    desk.clock.advance(600_000)
    desk.idle = True
    await desk.work()
    assert desk.states() == [("received", "none"), ("waiting", "session"), ("expired", "expired")]
    assert desk.tested == []


async def test_hooks_that_fail_are_told(desk: Desk, office: Office) -> None:
    for answer, reason in (("failed", "noHook"), ("timeout", "timeout")):
        desk.hook_answer = answer  # type: ignore[assignment]
        desk.inbox.order(office.order(Restart(what="application")))
        await desk.work()
        assert desk.states()[-1] == ("failed", reason)
    desk.hook_answer = "ok"
    desk.inbox.order(office.order(Restart(what="application")))
    await desk.work()
    assert desk.states()[-1] == ("done", "none")


async def test_a_host_that_does_not_go_down_is_told(desk: Desk, office: Office) -> None:
    desk.inbox.order(office.order(Restart(what="host"), approved_by="wu"))
    await desk.work()
    assert desk.states()[-1] == ("failed", "timeout")


class TestCancel:
    async def test_what_has_not_begun_is_given_up(self, desk: Desk, office: Office) -> None:
        desk.idle = False
        order = new_id()
        desk.inbox.order(office.order(PRINT, id=order))
        await desk.work()
        desk.inbox.order(office.order(Cancel(order=order)))
        await desk.work()
        desk.idle = True
        await desk.work()
        assert [(body.kind, body.state, body.reason) for body in desk.told()][2:] == [
            ("cancel", "received", "none"),
            ("cancel", "running", "none"),
            ("selfTest", "cancelled", "ordered"),
            ("cancel", "done", "none"),
        ]
        assert desk.tested == []

    async def test_what_is_done_cannot_be_cancelled(self, desk: Desk, office: Office) -> None:
        order = new_id()
        desk.inbox.order(office.order(QUERY, id=order))
        await desk.work()
        desk.inbox.order(office.order(Cancel(order=order)))
        await desk.work()
        assert desk.states()[-1] == ("failed", "stale")

    async def test_what_never_came_never_will(self, desk: Desk, office: Office) -> None:
        """The server counts: an order that is cancelled before it arrives has the lower counter."""
        late = office.order(QUERY)
        desk.inbox.order(office.order(Cancel(order=new_id())))
        await desk.work()
        assert desk.states()[-1] == ("done", "none")
        desk.inbox.order(late)
        await desk.work()
        assert desk.states()[-1] == ("refused", "stale")
        assert desk.tested == []


class TestLogs:
    async def test_sent_at_last(self, desk: Desk, office: Office) -> None:
        desk.upload_answers = ["again", "again", "done"]
        desk.inbox.order(office.order(PullLogs(from_ms=0, to_ms=NOW_MS)))
        await desk.work()
        assert desk.states()[-1] == ("done", "none")
        assert len(desk.uploads) == 3

    @pytest.mark.parametrize("answers", [["refused"], ["again", "again", "again"]])
    async def test_not_taken(self, desk: Desk, office: Office, answers: list[str]) -> None:
        desk.upload_answers = list(answers)  # type: ignore[arg-type]
        desk.inbox.order(office.order(PullLogs(from_ms=0, to_ms=NOW_MS)))
        await desk.work()
        assert desk.states()[-1] == ("failed", "upload")
        assert len(desk.uploads) == len(answers)


class TestRestarts:
    """O-209 for the restart of each thing; the kill at each state is in test_kill.py."""

    async def test_the_agents_own_restart_is_done_when_it_starts_again(self, desk: Desk, office: Office) -> None:
        desk.inbox.order(office.order(Restart(what="agent")))
        await desk.work()
        assert desk.restarts == 1
        desk.restart()
        await desk.work()
        assert desk.states() == [("done", "none")]
        assert desk.restarts == 1

    @pytest.mark.parametrize(("boot_id", "end"), [(bytes(16), ("done", "none")), (None, ("failed", "interrupted"))])
    async def test_the_hosts_restart_is_done_in_another_boot_only(
        self, desk: Desk, office: Office, boot_id: bytes | None, end: tuple[str, str]
    ) -> None:
        desk.inbox.order(office.order(Restart(what="host"), approved_by="wu"))
        (entry,) = desk.keeper.book.entries
        desk.keeper.move(entry, "running", stream=desk.outbox.stream, boot_id=desk.boot_id)
        desk.restart(boot_id=boot_id)
        await desk.work()
        assert desk.states() == [end]
        assert desk.hook_runs == []

    @pytest.mark.parametrize("body", [PRINT, QUERY, Restart(what="application"), PullLogs(from_ms=1, to_ms=2)], ids=str)
    async def test_what_was_cut_off_is_not_done_again(self, desk: Desk, office: Office, body: orders.OrderBody) -> None:
        desk.inbox.order(office.order(body))
        (entry,) = desk.keeper.book.entries
        desk.keeper.move(entry, "running", stream=desk.outbox.stream, boot_id=desk.boot_id)
        desk.restart()
        await desk.work()
        assert desk.states() == [("failed", "interrupted")]
        assert (desk.tested, desk.hook_runs, desk.uploads) == ([], [], [])

    async def test_what_waited_goes_on_waiting(self, desk: Desk, office: Office) -> None:
        desk.idle = False
        desk.inbox.order(office.order(PRINT))
        await desk.work()
        desk.restart()
        await desk.work()
        assert desk.states() == [], "nothing has changed, so nothing is told"
        desk.idle = True
        await desk.work()
        assert desk.states() == [("running", "none"), ("done", "none")]


class TestFullDisk:
    @pytest.mark.spec("O-208")
    async def test_nothing_is_taken_that_cannot_be_kept(self, desk: Desk, office: Office) -> None:
        raw = office.order(QUERY)
        desk.ledger.full = True
        with pytest.raises(OutboxFull):
            desk.inbox.order(raw)
        assert desk.keeper.book == rules.Book(kids=desk.keeper.book.kids)
        desk.ledger.full = False
        desk.inbox.order(raw)
        await desk.work()
        assert desk.states()[-1] == ("done", "none")


@pytest.mark.spec("O-210")
async def test_ids_are_known_until_a_day_after_their_expiry(desk: Desk, office: Office) -> None:
    old = office.make(QUERY)
    desk.inbox.order(office.seal(old))
    await desk.work()
    desk.clock.advance(600_000 + DAY_MS - 1)
    desk.inbox.order(office.order(QUERY, expires_ms=desk.now_ms() + 60_000))
    assert desk.keeper.book.find(old.id) is not None
    desk.clock.advance(1)
    desk.inbox.order(office.order(QUERY, expires_ms=desk.now_ms() + 60_000))
    assert desk.keeper.book.find(old.id) is None
    before = len(desk.tested)
    desk.inbox.order(office.seal(old))
    assert desk.states()[-1] == ("refused", "stale"), "a forgotten id is still below the highest counter"
    await desk.work()
    assert len(desk.tested) == before + 2


@pytest.mark.spec("O-213", "O-204")
async def test_a_stale_order_is_taken_under_a_higher_counter(desk: Desk, office: Office) -> None:
    late = office.make(QUERY)
    desk.inbox.order(office.order(QUERY))
    desk.inbox.order(office.seal(late))
    assert desk.states()[-1] == ("refused", "stale")
    desk.inbox.order(office.seal(msgspec.structs.replace(late, counter=office.next(), issued_ms=NOW_MS + 5)))
    await desk.work()
    assert [body.state for body in desk.told() if body.id == late.id] == ["refused", "received", "running", "done"]


@pytest.mark.spec("O-201")
async def test_numbers_may_be_missing(desk: Desk, office: Office) -> None:
    for _ in range(3):
        office.counter += 1000
        desk.inbox.order(office.order(QUERY))
        desk.inbox.desired(office.desired())
    await desk.work()
    assert len(desk.tested) == 3
    assert desk.told_desired() == [("applied", "none")] * 3


def test_too_many_at_a_time_are_refused(desk: Desk, office: Office) -> None:
    desk.idle = False
    for _ in range(rules.MAX_UNFINISHED):
        desk.inbox.order(office.order(PRINT))
    desk.inbox.order(office.order(PRINT))
    assert desk.states()[-1] == ("refused", "noSpace")


def test_the_birth_tells_the_highest_counter_and_that_of_the_desired_state(desk: Desk, office: Office) -> None:
    assert desk.inbox.counters() == (0, 0)
    desk.inbox.desired(office.desired())
    assert desk.inbox.counters() == (1, 1)
    desk.inbox.order(office.order(QUERY))
    assert desk.inbox.counters() == (2, 1)
    desk.inbox.order(office.order(QUERY, expires_ms=1))
    assert desk.inbox.counters() == (3, 1), "a refused one was seen too"
    desk.restart()
    assert desk.inbox.counters() == (3, 1)


def test_a_book_that_a_newer_version_wrote_is_no_reason_to_fail(desk: Desk) -> None:
    assert rules.load(b"\xc1") == rules.Book()
    assert rules.load(rules.dump(desk.keeper.book)) == desk.keeper.book
