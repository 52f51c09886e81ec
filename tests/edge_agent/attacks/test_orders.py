"""Attacks on orders and desired states by name, each beside the same from the rightful one succeeding.

`Terminal` is the receiving end on a real spool; nothing below it is simulated but the doing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocols.contract import certs, messages, orders, records, wire
from protocols.contract.limits import COUNTER_STEP_MAX, DESIRED_MAX_BYTES, ORDER_MAX_BYTES
from protocols.contract.orders import Configuration, Lock, Restart, SelfTest
from tests.edge_agent.orders.office import Desk, Office, certificate_of, new_id, sealed_as
from tests.support.contract import FLEET, NOW_MS, ORDERS, ROOT, SERVER, STRANGER, TERMINAL, MemoryKey, order_key_cert

QUERY = SelfTest(slot="receipt-printer")
LOCK = Lock(zh="停用", en="closed", since_ms=NOW_MS)
NEXT = MemoryKey(b"\x0a" * 32)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.greet()
    yield made
    made.stop()


@pytest.fixture
def office() -> Office:
    return Office()


async def rightful(desk: Desk, office: Office, body: orders.OrderBody = QUERY, **changes: Any) -> None:
    """The same from the one who may: it is done."""
    before = len(desk.tested) + len(desk.hook_runs)
    desk.inbox.order(office.order(body, **changes))
    await desk.work()
    assert desk.states()[-1] == ("done", "none")
    assert len(desk.tested) + len(desk.hook_runs) == before + 1


async def refused(desk: Desk, raw: bytes, reason: str) -> records.Order:
    """It is not done, and the record says why."""
    before = len(desk.tested) + len(desk.hook_runs)
    desk.inbox.order(raw)
    await desk.work()
    told = desk.told()[-1]
    assert (told.state, told.reason) == ("refused", reason)
    assert len(desk.tested) + len(desk.hook_runs) == before
    return told


# --------------------------------------------------------------------------------------------------------------------------- orders


@pytest.mark.spec("O-203")
async def test_replayed_order(desk: Desk, office: Office) -> None:
    """The very same bytes again, on this connection, on the next, after a restart: done once, and no fault of anybody."""
    raw = office.order(QUERY)
    desk.inbox.order(raw)
    await desk.work()
    for _ in range(3):
        desk.inbox.order(raw)
        desk.greet()
        desk.inbox.order(raw)
        await desk.work()
    assert desk.states() == [("received", "none"), ("running", "none"), ("done", "none")]
    desk.restart()
    desk.greet()
    desk.inbox.order(raw)
    await desk.work()
    assert desk.states() == []
    assert len(desk.tested) == 1
    await rightful(desk, office)


@pytest.mark.spec("O-203")
async def test_id_reused_with_other_content(desk: Desk, office: Office) -> None:
    first = office.make(QUERY)
    await rightful(desk, office, QUERY, id=first.id)
    other = office.make(SelfTest(slot="scanner"), id=first.id)
    told = await refused(desk, office.seal(other), "replayed")
    assert told.id == first.id
    for _ in range(5):
        desk.inbox.order(office.seal(other))
    assert desk.states().count(("refused", "replayed")) == 1, "told once a connection"


@pytest.mark.spec("O-203")
async def test_same_order_under_a_higher_counter(desk: Desk, office: Office) -> None:
    """A restored server that forgot the report signs it again."""
    order = office.make(QUERY)
    desk.inbox.order(office.seal(order))
    await desk.work()
    desk.inbox.order(office.seal(msgspec.structs.replace(order, counter=office.next())))
    await desk.work()
    assert len(desk.tested) == 1
    assert desk.states()[-1] == ("done", "none")


@pytest.mark.spec("O-202")
async def test_order_for_another_terminal(desk: Desk, office: Office) -> None:
    told = await refused(desk, Office(terminal="kf-0002").order(QUERY), "otherTerminal")
    assert told.id is None
    await rightful(desk, office)


@pytest.mark.spec("O-202")
async def test_order_of_another_fleet(desk: Desk, office: Office) -> None:
    await refused(desk, Office(fleet="other-fleet").order(QUERY), "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-204")
async def test_stale_counter(desk: Desk, office: Office) -> None:
    held_back = office.order(QUERY)
    await rightful(desk, office)
    await refused(desk, held_back, "stale")
    await rightful(desk, office)


@pytest.mark.spec("O-204")
async def test_counter_of_an_order_that_was_refused_is_used_up(desk: Desk, office: Office) -> None:
    held_back = office.order(QUERY)
    await refused(desk, office.order(Restart(what="host")), "notApproved")
    await refused(desk, held_back, "stale")
    await rightful(desk, office)


@pytest.mark.spec("O-216")
async def test_counter_that_uses_the_numbers_up(desk: Desk, office: Office) -> None:
    """By a stolen order key: after it is withdrawn, the numbers of the rightful one still count."""
    await refused(desk, office.order(QUERY, counter=2**53 - 1), "counter")
    assert desk.inbox.counters()[0] < COUNTER_STEP_MAX
    await rightful(desk, office)


@pytest.mark.spec("O-205")
async def test_expired_order(desk: Desk, office: Office) -> None:
    await refused(desk, office.order(QUERY, expires_ms=desk.now_ms()), "expired")
    await rightful(desk, office, expires_ms=desk.now_ms() + 1)


@pytest.mark.spec("O-202")
async def test_forged_key(desk: Desk, office: Office) -> None:
    """Signed by somebody whose key nobody certified."""
    await refused(desk, Office(STRANGER).order(QUERY), "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-202")
async def test_forged_signature_under_a_listed_key(desk: Desk, office: Office) -> None:
    raw = bytearray(office.order(QUERY))
    raw[-1] ^= 1
    await refused(desk, bytes(raw), "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-101", "O-103")
async def test_key_certified_under_the_wrong_context(desk: Desk, office: Office) -> None:
    """A greeting key's certificate is a true word of the fleet root, about something else."""
    greeting = certs.seal_server_key_cert(certs.ServerKeyCert(kid=SERVER.kid, public_key=SERVER.public, issued_ms=0), ROOT, FLEET)
    desk.greet(greeting, order_key_cert())
    await refused(desk, Office(SERVER).order(QUERY), "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-101")
async def test_key_certified_for_another_fleet(desk: Desk, office: Office) -> None:
    desk.greet(certificate_of(NEXT, fleet="other-fleet"), order_key_cert())
    await refused(desk, Office(NEXT).order(QUERY), "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-101")
async def test_key_certified_by_a_stranger(desk: Desk, office: Office) -> None:
    desk.greet(certificate_of(NEXT, root=STRANGER), order_key_cert())
    await refused(desk, Office(NEXT).order(QUERY), "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-103")
async def test_withdrawn_key(desk: Desk, office: Office) -> None:
    await rightful(desk, office)
    desk.greet(certificate_of(NEXT))
    await refused(desk, office.order(QUERY), "withdrawnKey")
    successor = Office(NEXT)
    successor.counter = office.counter
    await rightful(desk, successor)


@pytest.mark.spec("O-103")
async def test_key_of_an_earlier_connection(desk: Desk, office: Office) -> None:
    """Before this connection's challenge nobody can be believed; the order is not lost, it comes after the birth."""
    raw = office.order(QUERY)
    desk.inbox.connected()
    desk.inbox.order(raw)
    await desk.work()
    assert desk.told() == []
    desk.greet()
    desk.inbox.order(raw)
    await desk.work()
    assert desk.states()[-1] == ("done", "none")


@pytest.mark.spec("O-207")
@pytest.mark.parametrize("body", [Restart(what="host"), Restart(what="application", when="now")], ids=["host", "now"])
async def test_risky_order_without_a_second_person(desk: Desk, office: Office, body: Restart) -> None:
    await refused(desk, office.order(body), "notApproved")
    desk.inbox.order(office.order(body, approved_by="wu"))
    await desk.work()
    assert len(desk.hook_runs) == 1


@pytest.mark.spec("O-207")
@pytest.mark.parametrize("body", [Restart(what="host"), Restart(what="application", when="now")], ids=["host", "now"])
async def test_risky_order_with_the_same_person_as_approver(desk: Desk, office: Office, body: Restart) -> None:
    await refused(desk, office.order(body, by="lin", approved_by="lin"), "notApproved")
    desk.inbox.order(office.order(body, by="lin", approved_by="wu"))
    await desk.work()
    assert len(desk.hook_runs) == 1


@pytest.mark.spec("O-206")
async def test_unknown_kind(desk: Desk, office: Office) -> None:
    order = msgspec.structs.replace(office.make(QUERY), kind="openShell")
    told = await refused(desk, office.seal(order), "unknownKind")
    assert (told.id, told.kind) == (order.id, "unknown")
    await rightful(desk, office)


@pytest.mark.spec("O-206")
@pytest.mark.parametrize("body", [{}, {"slot": "../etc"}, {"slot": "scanner", "test": "burn"}], ids=["empty", "path", "test"])
async def test_unreadable_body(desk: Desk, office: Office, body: dict[str, Any]) -> None:
    order = msgspec.structs.replace(office.make(QUERY), body=body)
    told = await refused(desk, office.seal(order), "unreadable")
    assert told.id == order.id
    await rightful(desk, office)


@pytest.mark.spec("O-202")
@pytest.mark.parametrize("payload", [{}, [], "text", {"i": b"short", "x": 1}], ids=["empty", "array", "text", "short id"])
async def test_unreadable_order(desk: Desk, office: Office, payload: object) -> None:
    told = await refused(desk, sealed_as(payload, ORDERS, orders.ORDER_CONTEXT), "unreadable")
    assert told.id is None
    await rightful(desk, office)


@pytest.mark.spec("O-202")
async def test_oversized_order(desk: Desk, office: Office) -> None:
    fat = msgspec.structs.replace(office.make(QUERY), body={"slot": "receipt-printer", "x": "y" * ORDER_MAX_BYTES})
    await refused(desk, office.seal(fat), "notAuthentic")
    await rightful(desk, office)


async def test_order_with_any_byte_changed(desk: Desk, office: Office) -> None:
    raw = office.order(QUERY)
    for at in range(len(raw)):
        for bit in (0x01, 0x80):
            desk.inbox.order(raw[:at] + bytes((raw[at] ^ bit,)) + raw[at + 1 :])
    await desk.work()
    assert desk.tested == []
    assert {body.id for body in desk.told()} == {None}
    desk.inbox.order(raw)
    await desk.work()
    assert desk.states()[-1] == ("done", "none")


@pytest.mark.parametrize(
    "value",
    [
        b"\xd8\x64\x00",
        b"\xd9\x03\xec\x6a2026-01-01",
        b"\xc0\x74" + b"2026-01-01T00:00:00Z",
        b"\xf7",
        b"\xf0",
        b"\xd9\x01\x04\x44\x7f\x00\x00\x01",
    ],
    ids=["days", "date", "time", "undefined", "simple", "address"],
)
async def test_order_with_values_that_no_order_has(desk: Desk, office: Office, value: bytes) -> None:
    """Truly signed, of a type that the decoder makes and an encoder may not take back: refused, and the connection stands."""
    from protocols.contract import envelope as cose

    payload = wire.dump(office.make(QUERY))
    assert payload.count(b"\x65query") == 1
    bent = payload.replace(b"\x65query", value)
    before = len(desk.tested)
    desk.inbox.order(cose.seal(bent, ORDERS, orders.ORDER_CONTEXT, FLEET, TERMINAL)[0])
    await desk.work()
    assert [(body.state, body.reason) for body in desk.told()] == [("refused", "unreadable")]
    assert len(desk.tested) == before
    await rightful(desk, office)


async def test_flood_of_a_replayed_order_writes_nothing(desk: Desk, office: Office) -> None:
    raw = office.order(QUERY)
    desk.inbox.order(raw)
    await desk.work()
    before = desk.outbox._db.total_changes
    for _ in range(500):
        desk.inbox.order(raw)
    assert desk.outbox._db.total_changes == before
    await rightful(desk, office)


async def test_bomb_of_references_inside_an_order(desk: Desk, office: Office) -> None:
    """Shared references that a decoder would unfold for ever; only a key holder could sign it, and it is refused unread."""
    from protocols.contract import envelope as cose

    bomb = b"\xa1\x61\x69" + b"\xd8\x1c\x82\xd8\x1d\x00\xd8\x1d\x00"
    await refused(desk, cose.seal(bomb, ORDERS, orders.ORDER_CONTEXT, FLEET, TERMINAL)[0], "unreadable")
    await rightful(desk, office)


@pytest.mark.parametrize(
    "raw", [b"", b"\xd2\x84", bytes(64), b"{}", b"\xff" * 9000], ids=["empty", "cut", "zeros", "json", "long"]
)
@pytest.mark.spec("O-202")
async def test_garbage(desk: Desk, office: Office, raw: bytes) -> None:
    await refused(desk, raw, "notAuthentic")
    await rightful(desk, office)


@pytest.mark.spec("O-202")
async def test_flood_of_strangers_orders_is_one_record_an_hour(desk: Desk, office: Office) -> None:
    for _ in range(1000):
        desk.inbox.order(Office(STRANGER).order(QUERY))
    assert [(body.reason, body.count) for body in desk.told()] == [("notAuthentic", 1)]
    await rightful(desk, office)
    desk.clock.advance(3_599_000)
    desk.inbox.tell_strangers()
    assert sum(body.state == "refused" for body in desk.told()) == 1
    desk.clock.advance(1_000)
    desk.inbox.tell_strangers()
    assert [(body.reason, body.count) for body in desk.told() if body.state == "refused"] == [
        ("notAuthentic", 1),
        ("notAuthentic", 999),
    ]
    desk.clock.advance(7_200_000)
    desk.inbox.tell_strangers()
    assert sum(body.state == "refused" for body in desk.told()) == 2, "nothing came, nothing is told"


async def test_flood_of_a_stale_order_is_one_record_a_connection(desk: Desk, office: Office) -> None:
    held_back = office.order(QUERY)
    await rightful(desk, office)
    for _ in range(100):
        desk.inbox.order(held_back)
    assert desk.states().count(("refused", "stale")) == 1


@pytest.mark.spec("O-205")
async def test_clock_at_1970(desk: Desk, office: Office) -> None:
    """The wall clock stands in 1970, the trusted time does not: what has expired stays expired, what has not is done."""
    desk.trusted_ms = NOW_MS
    desk.clock.now_ms = 0
    await refused(desk, office.order(QUERY, expires_ms=NOW_MS - 1), "expired")
    await rightful(desk, office)


async def test_message_of_another_purpose_as_an_order(desk: Desk, office: Office) -> None:
    """The order key signed it, for something else."""
    await refused(desk, wire.seal(office.make(QUERY), ORDERS, orders.DESIRED_CONTEXT, FLEET, TERMINAL), "notAuthentic")
    await refused_later(desk, wire.seal(office.make(QUERY), ORDERS, messages.ACK_CONTEXT, FLEET, TERMINAL))
    await rightful(desk, office)


async def refused_later(desk: Desk, raw: bytes) -> None:
    """A further stranger's message of the same hour: not done, told when the hour is over."""
    before = (len(desk.tested), len(desk.told()))
    desk.inbox.order(raw)
    await desk.work()
    assert (len(desk.tested), len(desk.told())) == before


# ------------------------------------------------------------------------------------------------------------------- desired states


def refused_desired(desk: Desk, raw: bytes, reason: str) -> None:
    held, lock = desk.desired.held, desk.desired.lock
    desk.inbox.desired(raw)
    assert desk.told_desired()[-1] == ("refused", reason)
    assert (desk.desired.held, desk.desired.lock) == (held, lock)


def rightful_desired(desk: Desk, office: Office, **fields: Any) -> None:
    desk.inbox.desired(office.desired(**fields))
    assert desk.told_desired()[-1] == ("applied", "none")
    assert desk.desired.held == office.counter


@pytest.mark.spec("O-301")
def test_desired_replay(desk: Desk, office: Office) -> None:
    """The one that holds, again: nothing happens and nothing is told."""
    raw = office.desired(lock=LOCK)
    desk.inbox.desired(raw)
    desk.inbox.desired(raw)
    desk.restart()
    desk.greet()
    desk.inbox.desired(raw)
    assert desk.told_desired() == []
    assert desk.desired.lock == LOCK
    rightful_desired(desk, office)


@pytest.mark.spec("O-216")
def test_desired_counter_that_uses_the_numbers_up(desk: Desk, office: Office) -> None:
    refused_desired(desk, office.desired(lock=LOCK, counter=2**53 - 1), "counter")
    assert desk.inbox.counters()[0] < COUNTER_STEP_MAX
    rightful_desired(desk, office, lock=LOCK)


@pytest.mark.spec("O-301")
def test_rollback_of_desired(desk: Desk, office: Office) -> None:
    """An older one, truly signed then: it would take the lock away."""
    unlocked = office.desired()
    rightful_desired(desk, office, lock=LOCK)
    refused_desired(desk, unlocked, "replayed")
    desk.restart()
    desk.greet()
    refused_desired(desk, unlocked, "replayed")
    rightful_desired(desk, office)


@pytest.mark.spec("O-301")
def test_other_desired_under_the_same_counter(desk: Desk, office: Office) -> None:
    rightful_desired(desk, office, lock=LOCK)
    refused_desired(desk, office.desired(counter=desk.desired.held), "replayed")
    rightful_desired(desk, office)


@pytest.mark.spec("O-202")
@pytest.mark.parametrize(
    ("office_of", "reason"),
    [
        (lambda: Office(STRANGER), "notAuthentic"),
        (lambda: Office(SERVER), "notAuthentic"),
        (lambda: Office(terminal="kf-0002"), "otherTerminal"),
        (lambda: Office(fleet="other-fleet"), "notAuthentic"),
    ],
    ids=["forged key", "greeting key", "another terminal", "another fleet"],
)
def test_desired_of_nobody(desk: Desk, office: Office, office_of: Any, reason: str) -> None:
    refused_desired(desk, office_of().desired(lock=LOCK), reason)
    rightful_desired(desk, office)


def test_desired_under_a_withdrawn_key(desk: Desk, office: Office) -> None:
    desk.greet(certificate_of(NEXT))
    refused_desired(desk, office.desired(lock=LOCK), "withdrawnKey")
    rightful_desired(desk, Office(NEXT))


@pytest.mark.spec("O-207")
@pytest.mark.parametrize("approved_by", [None, "lin"], ids=["nobody", "same person"])
def test_configuration_without_a_second_person(desk: Desk, office: Office, approved_by: str | None) -> None:
    wanted = Configuration(version=1, items=({"code": "housing-fund.balance"},))
    refused_desired(desk, office.desired(configuration=wanted, approved_by=approved_by), "notApproved")
    rightful_desired(desk, office, configuration=wanted, approved_by="wu")


@pytest.mark.spec("O-207")
def test_bundle_without_a_second_person(desk: Desk, office: Office) -> None:
    wanted = orders.Wanted(component="agent", target="agent/a.tar", version="2.0", release=2, length=1, sha256=bytes(32))
    bundle = orders.Bundle(id=new_id(), rollout=new_id(), wanted=(wanted,))
    refused_desired(desk, office.desired(bundle=bundle, approved_by=None), "notApproved")
    rightful_desired(desk, office, bundle=bundle)


def test_lock_by_one_person_need_not_wait(desk: Desk, office: Office) -> None:
    rightful_desired(desk, office, lock=LOCK, approved_by=None)


def test_oversized_desired(desk: Desk, office: Office) -> None:
    fat = Configuration(version=1, intervals={"x": "y" * DESIRED_MAX_BYTES})
    refused_desired(desk, office.desired(configuration=fat), "notAuthentic")
    rightful_desired(desk, office)


def test_unreadable_desired(desk: Desk, office: Office) -> None:
    refused_desired(desk, sealed_as({"x": "one"}, ORDERS, orders.DESIRED_CONTEXT), "unreadable")
    rightful_desired(desk, office)


def test_order_as_a_desired_state(desk: Desk, office: Office) -> None:
    refused_desired(desk, office.order(QUERY), "notAuthentic")
    rightful_desired(desk, office)


def test_screen_message_that_is_no_line(desk: Desk, office: Office) -> None:
    """Control characters for the kiosk's screen."""
    raw = sealed_as(
        {"x": office.next(), "w": NOW_MS, "b": "lin", "l": {"zh": "a\x1b[2J", "since_ms": 1}}, ORDERS, orders.DESIRED_CONTEXT
    )
    refused_desired(desk, raw, "unreadable")
    rightful_desired(desk, office, lock=LOCK)


@pytest.mark.parametrize("place", ["intervals", "items", "devices"])
@pytest.mark.parametrize("value", [b"\xd9\x03\xec\x6a2026-01-01", b"\xf7", b"\xd9\xff\x01\x00"], ids=["date", "undefined", "tag"])
def test_configuration_with_values_that_no_configuration_has(desk: Desk, office: Office, place: str, value: bytes) -> None:
    from protocols.contract import envelope as cose

    tables: dict[str, Any] = {"intervals": {"x": "query"}, "items": ({"code": "query"},), "devices": ({"slot": "query"},)}
    wanted = office.desire(configuration=Configuration(version=1, **{place: tables[place]}))
    payload = wire.dump(wanted)
    assert payload.count(b"\x65query") == 1
    raw = cose.seal(payload.replace(b"\x65query", value), ORDERS, orders.DESIRED_CONTEXT, FLEET, TERMINAL)[0]
    refused_desired(desk, raw, "configuration")
    rightful_desired(desk, office, configuration=Configuration(version=1, items=({"code": "tax.invoice"},)))


def test_flood_of_strangers_desired_states(desk: Desk, office: Office) -> None:
    for _ in range(500):
        desk.inbox.desired(Office(STRANGER).desired(lock=LOCK))
    assert desk.told_desired() == [("refused", "notAuthentic")]
    desk.clock.advance(3_600_000)
    desk.inbox.tell_strangers()
    counts = [body.count for body in desk.ledger.bodies if isinstance(body, records.Desired)]
    assert counts == [1, 499]
    rightful_desired(desk, office)
