"""What dispatch signs, and what it does not."""

from __future__ import annotations

import pytest

from fleet_server.accounts.events import remember
from fleet_server.audit import write
from fleet_server.channel import transact
from fleet_server.dispatch.signing import EXPIRED_AFTER_MS, ISSUES_MAX
from fleet_server.orders import keys, requests, wanted
from protocols.contract import orders
from protocols.contract.envelope import EnvelopeError
from protocols.contract.orders import Bundle, Restart, Wanted
from protocols.contract.records import Desired, Order
from tests.support.ordering import DAY, FLEET, HARMLESS, NOW, REBOOT, OrderBench


def counters(city: OrderBench, terminal: str = "kf-1") -> list[object]:
    sql = (
        "SELECT counter FROM order_item WHERE terminal = ?1 AND order_id IS NOT NULL AND counter IS NOT NULL"
        " UNION ALL SELECT counter FROM desired_state WHERE terminal = ?1 ORDER BY 1"
    )
    return [row[0] for row in city.facts.rows(sql, terminal)]


@pytest.mark.spec("O-101", "O-215")
def test_an_order_names_target_counter_expiry_and_who(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    city.sign()
    assert city.state(request) == ("asked", "")
    city.approve(request)
    city.sign()
    order = city.order(request)
    assert (order.by, order.approved_by, order.kind, order.counter) == ("wang", "li", "restart", 1)
    assert order.expires_ms == NOW + DAY
    assert orders.body_of(order) == REBOOT
    assert orders.approved(order)
    assert city.state(request) == ("sent", "")
    envelope = city.facts.one("SELECT envelope FROM order_item WHERE request = ?", request)[0]
    assert isinstance(envelope, bytes)
    for fleet, terminal in ((FLEET, "kf-2"), ("other", "kf-1")):
        with pytest.raises(EnvelopeError):
            orders.open_order(envelope, city.trusted(), fleet, terminal)


@pytest.mark.spec("O-201")
def test_one_counter_for_orders_and_desired_states(city: OrderBench) -> None:
    city.ask()
    requests.lock(city.conn, ["kf-1"], "停用", by="wang", now_ms=NOW)
    city.sign()
    city.ask("kf-1", "kf-2")
    requests.unlock(city.conn, ["kf-1"], by="wang", now_ms=NOW)
    city.sign()
    assert counters(city) == [1, 2, 3, 4]
    assert counters(city, "kf-2") == [1]


def test_many_are_signed_in_small_steps(city: OrderBench) -> None:
    names = [f"kf-{n}" for n in range(100, 160)]
    city.add_terminals(*names)
    city.approve(city.ask(*names))
    duty, steps = city.signing, 1
    while duty.step(city.conn, NOW + 1):
        steps += 1
    assert steps == 3
    assert city.facts.one("SELECT count(*), count(DISTINCT terminal) FROM order_item WHERE state = 'sent'") == (60, 60)


def test_a_second_step_signs_nothing_again(city: OrderBench) -> None:
    request = city.ask()
    city.sign()
    before = city.facts.one("SELECT counter, envelope, issues FROM order_item WHERE request = ?", request)
    city.sign()
    city.sign(after_ms=30_000)
    assert city.facts.one("SELECT counter, envelope, issues FROM order_item WHERE request = ?", request) == before


# Approvals that are none ------------------------------------------------------------------------------------------------------------------


def forge(city: OrderBench, request: bytes, by: str | None, digest: bytes | None) -> None:
    """What somebody with the database in hand writes, without the console's rules."""
    city.conn.execute(
        "UPDATE order_request SET state = 'approved', decided_by = ?, decided_ms = ?, approved_digest = ? WHERE id = ?",
        (by, city.now_ms, digest, request),
    )
    city.conn.execute("UPDATE order_item SET state = 'ready' WHERE request = ?", (request,))


def refused(city: OrderBench, request: bytes) -> object:
    """Why dispatch did not sign it."""
    city.sign()
    assert city.request(request).state == "refused"
    assert city.state(request) == ("dropped", "notApproved")
    assert city.facts.rows("SELECT 1 FROM order_item WHERE envelope IS NOT NULL") == []
    sql = "SELECT json_extract(detail, '$.why') FROM audit WHERE action = 'order.refuse' AND object = ? AND result = 'refused'"
    return city.facts.one(sql, f"request:{requests.name_of(request)}")[0]


def test_a_risky_order_without_an_approval_is_not_signed(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    forge(city, request, None, None)
    assert refused(city, request) == "notApproved"


def test_an_approval_of_another_request_is_not_one_of_this(city: OrderBench) -> None:
    approved, other = city.ask(body=REBOOT), city.ask(body=REBOOT)
    city.approve(approved)
    city.conn.execute("DELETE FROM order_item WHERE request = ?", (approved,))
    forge(city, other, "li", city.request(approved).digest)
    assert refused(city, other) == "otherApproved"


@pytest.mark.spec("O-215")
def test_an_approval_that_the_audit_log_does_not_know_is_none(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    forge(city, request, "li", city.request(request).digest)
    assert refused(city, request) == "notAudited"


def test_an_audited_approval_of_another_request_does_not_help(city: OrderBench) -> None:
    request, other = city.ask(body=REBOOT), city.ask("kf-2", body=REBOOT)
    digest = city.request(other).digest.hex()
    write(city.conn, "li", None, "order.approve", f"request:{requests.name_of(request)}", {"digest": digest}, now_ms=NOW)
    forge(city, request, "li", city.request(request).digest)
    assert refused(city, request) == "notAudited"


@pytest.mark.parametrize("by", ["wang", "zhao"])
def test_an_approval_by_the_requester_or_without_the_right_is_none(city: OrderBench, by: str) -> None:
    request = city.ask(body=REBOOT)
    row = city.request(request)
    write(city.conn, by, None, "order.approve", f"request:{row.name}", {"digest": row.digest.hex()}, now_ms=NOW)
    forge(city, request, by, row.digest)
    assert refused(city, request) == ("orderSelf" if by == "wang" else "orderMayNot")


def test_an_approver_whose_account_the_requester_had_in_hand_is_none(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    city.approve(request)
    remember(city.conn, "li", "reset", by="wang", now_ms=NOW - 1)
    assert refused(city, request) == "orderNotIndependent"


def test_a_terminal_that_is_added_after_the_approval_spoils_it(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    city.approve(request)
    city.conn.execute(
        "INSERT INTO order_item (request, terminal, order_id, kind, expires_ms, state) VALUES (?, 'kf-2', ?, 'restart', ?, 'ready')",
        (request, bytes(16), NOW + DAY),
    )
    assert refused(city, request) == "changed"


@pytest.mark.parametrize("column", ["body", "expires_ms", "requested_by", "kind", "note"])
def test_a_request_that_is_changed_after_the_approval_spoils_it(city: OrderBench, column: str) -> None:
    request = city.ask(body=REBOOT)
    city.approve(request)
    value: object = {"body": '{"what":"host","when":"now"}', "expires_ms": NOW + 2 * DAY}.get(column, "zhao")
    city.conn.execute(f"UPDATE order_request SET {column} = ? WHERE id = ?", (value, request))
    assert refused(city, request) == "changed"


@pytest.mark.parametrize("act", ["UPDATE configuration SET content = replace(content, '30', '31')", "DELETE FROM configuration"])
def test_a_configuration_that_is_not_what_was_approved_is_not_signed(city: OrderBench, act: str) -> None:
    request = configure(city)
    city.conn.execute(act)
    assert refused(city, request) == "changed"
    assert city.facts.rows("SELECT 1 FROM desired_state") == []


@pytest.mark.spec("O-217")
def test_a_configuration_that_is_changed_later_is_not_signed_again_and_what_was_approved_is(city: OrderBench) -> None:
    configure(city)
    city.sign()
    city.conn.execute("UPDATE configuration SET content = replace(content, '30', '31')")
    first = lock(city)
    city.sign()
    assert city.state(first) == ("failed", "changed")
    assert city.desired().lock is None
    sql = "SELECT detail FROM audit WHERE action = 'order.refuse' AND object = 'terminal:kf-1' AND result = 'refused'"
    assert city.facts.rows(sql) == [('{"configuration":1,"why":"changed"}',)]
    city.conn.execute("UPDATE configuration SET content = replace(content, '31', '30')")
    second = lock(city)
    city.sign()
    assert city.state(second) == ("sent", "")
    held = city.desired()
    assert held.lock is not None and held.configuration is not None
    assert held.configuration.intervals == {"heartbeat_s": 30}


def test_a_disabled_requester_orders_nothing_any_more(city: OrderBench) -> None:
    request = city.ask()
    city.conn.execute("UPDATE staff SET disabled_ms = 1 WHERE name = 'wang'")
    assert refused(city, request) == "orderMayNot"


def test_the_rightful_request_beside_all_that_is_signed(city: OrderBench) -> None:
    good, bad = city.ask(body=REBOOT), city.ask("kf-2", body=REBOOT)
    city.approve(good, "chen")
    forge(city, bad, None, None)
    city.sign()
    assert city.state(good) == ("sent", "")
    assert city.state(bad, "kf-2") == ("dropped", "notApproved")


# Time, stale orders ----------------------------------------------------------------------------------------------------------------------


def test_what_no_terminal_told_of_expires_and_a_late_report_still_counts(city: OrderBench) -> None:
    silent, told = city.ask(lasts_ms=60_000), city.ask("kf-2", lasts_ms=60_000)
    city.sign()
    order = city.order(told, "kf-2")
    city.now_ms = NOW + 60_000 + EXPIRED_AFTER_MS
    city.sign()
    assert city.state(silent) == ("expired", "unheard")
    assert city.state(told, "kf-2") == ("expired", "unheard")
    city.report(Order(id=order.id, counter=order.counter, kind="restart", state="done"), terminal="kf-2")
    assert city.state(told, "kf-2") == ("done", "")
    city.sign()
    assert city.state(told, "kf-2") == ("done", "")


def test_an_order_whose_time_is_over_before_it_is_signed_is_not_signed(city: OrderBench) -> None:
    request = city.ask(lasts_ms=60_000)
    city.now_ms += 60_000
    city.sign()
    assert city.state(request) == ("expired", "unsent")
    assert counters(city) == []


@pytest.mark.spec("O-213")
def test_a_stale_order_comes_again_under_a_higher_counter_and_the_same_id(city: OrderBench) -> None:
    request = city.ask()
    city.sign()
    first = city.order(request)
    wanted.born(city.conn, "kf-1", 40, 0)
    city.report(Order(id=first.id, counter=first.counter, kind="restart", state="refused", reason="stale"))
    assert city.state(request) == ("refused", "stale")
    city.sign()
    again = city.order(request)
    assert (again.id, again.counter, again.expires_ms) == (first.id, 41, first.expires_ms)
    assert city.state(request) == ("sent", "")
    city.report(Order(id=again.id, counter=41, kind="restart", state="done"))
    assert city.state(request) == ("done", "")


def test_a_terminal_that_calls_everything_stale_does_not_keep_the_server_signing(city: OrderBench) -> None:
    request = city.ask()
    for _ in range(ISSUES_MAX + 3):
        city.sign()
        order = city.order(request)
        city.report(Order(id=order.id, counter=order.counter, kind="restart", state="refused", reason="stale"))
    city.sign()
    assert city.state(request) == ("refused", "stale")
    assert city.facts.one("SELECT issues FROM order_item WHERE request = ?", request) == (ISSUES_MAX,)


@pytest.mark.spec("O-214")
def test_after_a_restore_the_counter_goes_above_what_the_terminal_has_seen(city: OrderBench) -> None:
    wanted.born(city.conn, "kf-1", 500, 0)
    request = city.ask()
    city.sign()
    assert city.order(request).counter == 501
    wanted.born(city.conn, "kf-1", 3, 0)
    again = city.ask()
    city.sign()
    assert city.order(again).counter == 502


def test_a_terminal_that_claims_the_last_counter_of_all_harms_itself_only(city: OrderBench) -> None:
    wanted.born(city.conn, "kf-1", 2**53 - 1, 0)
    request = city.ask("kf-1", "kf-2")
    lock = requests.lock(city.conn, ["kf-1", "kf-2"], "停用", by="wang", now_ms=NOW)
    city.sign()
    assert [city.state(one) for one in (request, lock)] == [("failed", "counter")] * 2
    assert [city.state(one, "kf-2") for one in (request, lock)] == [("sent", "")] * 2


@pytest.mark.spec("O-214", "O-216")
def test_a_clean_machine_under_the_name_of_a_liar_gets_numbers_that_it_takes(city: OrderBench) -> None:
    lock(city, zh="第一")
    city.sign()
    assert wanted.born(city.conn, "kf-1", 2**52, 0) is True
    assert wanted.born(city.conn, "kf-1", 2**52, 0) is False
    request, second = city.ask(), lock(city, zh="第二")
    city.sign()
    assert city.order(request).counter > 2**52 and city.desired().counter > 2**52
    transact(city.conn, lambda conn: wanted.enrolled_anew(conn, "kf-1"))
    city.sign()
    assert wanted.born(city.conn, "kf-1", 0, 0) is False
    city.sign()
    assert {city.order(request).counter, city.desired().counter} == {2, 3}
    desired = city.desired()
    assert desired.lock is not None and desired.lock.zh == "第二"
    city.report(Desired(counter=desired.counter, state="applied", config_version=0, locked=True))
    assert city.state(second) == ("done", "")


@pytest.mark.spec("O-214")
def test_numbers_that_a_clean_machine_takes_go_on_after_it_is_enrolled(city: OrderBench) -> None:
    assert wanted.born(city.conn, "kf-1", 500, 0) is False
    transact(city.conn, lambda conn: wanted.enrolled_anew(conn, "kf-1"))
    request = city.ask()
    city.sign()
    assert city.order(request).counter == 501


# Desired states --------------------------------------------------------------------------------------------------------------------------


def lock(city: OrderBench, *terminals: str, by: str = "wang", zh: str = "停用") -> bytes:
    return transact(city.conn, lambda conn: requests.lock(conn, terminals or ("kf-1",), zh, by=by, now_ms=city.now_ms))


def configure(city: OrderBench, *, by: str = "zhao", approver: str = "chen") -> bytes:
    content = {"intervals": {"heartbeat_s": 30}}
    request = transact(
        city.conn,
        lambda conn: requests.request_configuration(
            conn, ["kf-1"], content, by=by, expires_ms=city.now_ms + DAY, now_ms=city.now_ms
        ),
    )
    city.approve(request, approver)
    return request


def bundle() -> Bundle:
    component = Wanted(component="agent", target="agent/1.tar", version="1.0", release=1, length=1, sha256=bytes(32))
    return Bundle(id=b"b" * 16, rollout=b"r" * 16, wanted=(component,))


@pytest.mark.spec("O-301")
def test_a_desired_state_is_whole(city: OrderBench) -> None:
    configure(city)
    city.sign()
    lock(city)
    city.sign()
    wanted.set_bundle(city.conn, "kf-1", bundle(), by="zhao", approved_by="li", now_ms=city.now_ms)
    city.sign()
    desired = city.desired()
    assert desired.configuration is not None and desired.lock is not None
    assert desired.configuration.version == 1
    assert desired.lock.zh == "停用"
    assert desired.bundle == bundle()
    requests.unlock(city.conn, ["kf-1"], by="wang", now_ms=city.now_ms)
    city.sign()
    after = city.desired()
    assert (after.lock, after.bundle, after.configuration) == (None, bundle(), desired.configuration)
    assert after.counter == desired.counter + 1


def test_who_stands_in_a_desired_state_is_who_the_risky_part_goes_back_to(city: OrderBench) -> None:
    lock(city, by="wang")
    city.sign()
    assert (city.desired().by, city.desired().approved_by) == ("wang", None)
    configure(city, by="zhao", approver="chen")
    city.sign()
    lock(city, by="wang", zh="换纸")
    city.sign()
    desired = city.desired()
    assert orders.needs_two(desired) and orders.approved(desired)
    assert (desired.by, desired.approved_by) == ("zhao", "chen")


def test_a_bundle_without_a_second_person_is_not_taken(city: OrderBench) -> None:
    for approved_by in (None, "zhao"):
        with pytest.raises(ValueError, match="no second person"):
            wanted.set_bundle(city.conn, "kf-1", bundle(), by="zhao", approved_by=approved_by, now_ms=NOW)


def test_a_later_lock_takes_the_place_of_one_that_was_never_told(city: OrderBench) -> None:
    first = lock(city)
    city.sign()
    configuration = configure(city)
    city.sign()
    second = lock(city, zh="换纸")
    city.sign()
    assert city.state(first) == ("superseded", "")
    assert city.state(configuration) == ("sent", "")
    assert city.state(second) == ("sent", "")
    desired = city.desired()
    assert desired.lock is not None and desired.lock.zh == "换纸"


def test_an_unknown_state_that_a_terminal_holds_after_a_restore_is_replaced(city: OrderBench) -> None:
    wanted.born(city.conn, "kf-1", 77, 70)
    city.sign()
    desired = city.desired()
    assert desired.counter == 78
    assert (desired.configuration, desired.lock, desired.bundle) == (None, None, None)
    wanted.born(city.conn, "kf-1", 78, 78)
    city.sign()
    assert city.desired().counter == 78


def test_old_desired_states_do_not_pile_up(city: OrderBench) -> None:
    for _ in range(30):
        wanted.touch(city.conn, "kf-1")
        city.sign()
    assert city.facts.one("SELECT count(*), max(counter) FROM desired_state") == (20, 30)


def test_a_retired_terminal_gets_nothing(city: OrderBench) -> None:
    request, locked = city.ask("kf-1", "kf-2"), lock(city)
    city.conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = 'kf-1'")
    city.sign()
    assert city.state(request) == ("dropped", "retired")
    assert city.state(locked) == ("dropped", "retired")
    assert city.state(request, "kf-2") == ("sent", "")


# Keys ------------------------------------------------------------------------------------------------------------------------------------


def test_after_a_rotation_the_new_key_signs_and_the_old_one_still_counts(city: OrderBench) -> None:
    before = city.ask()
    city.sign()
    old = keys.current(city.conn)
    new = transact(city.conn, lambda conn: keys.rotate(conn, city.authority, city.folder, by="cli:root", now_ms=city.now_ms))
    after = city.ask()
    city.sign()
    assert old is not None and set(city.trusted()) == {old, new}
    assert city.order(before).counter == 1
    assert city.order(after).counter == 2
    assert city.facts.one("SELECT kid FROM order_item WHERE request = ?", after) == (new,)


def test_what_a_withdrawn_key_signed_is_signed_again(city: OrderBench) -> None:
    request, locked = city.ask("kf-1", "kf-2"), lock(city, "kf-3")
    city.sign()
    told = city.order(request, "kf-2")
    city.report(Order(id=told.id, counter=told.counter, kind="restart", state="done"), terminal="kf-2")
    first, desired = city.order(request), city.desired("kf-3")
    old = keys.current(city.conn)
    assert old is not None
    transact(city.conn, lambda conn: keys.withdraw(conn, city.folder, old, by="cli:root", now_ms=city.now_ms))
    assert city.trusted() == {}
    assert not keys.has_signer(city.folder, old)
    city.sign()
    assert old not in city.trusted() and len(city.trusted()) == 1
    assert city.order(request).id == first.id
    assert city.order(request).counter > first.counter
    assert city.desired("kf-3").counter > desired.counter
    assert city.state(request, "kf-2") == ("done", "")
    assert city.state(locked, "kf-3") == ("sent", "")
    actions = [row[0] for row in city.facts.rows("SELECT action FROM audit WHERE action LIKE 'orderKey.%' ORDER BY id")]
    assert actions == ["orderKey.rotate", "orderKey.withdraw", "orderKey.rotate"]


@pytest.mark.spec("O-102")
def test_a_challenge_never_lists_more_than_it_can(city: OrderBench) -> None:
    made = [
        transact(city.conn, lambda conn: keys.rotate(conn, city.authority, city.folder, by="cli:root", now_ms=city.now_ms))
        for _ in range(6)
    ]
    assert list(city.trusted()) == made[:1:-1]
    assert [key.state for key in keys.all_keys(city.conn)] == [
        "in use",
        "valid",
        "valid",
        "valid",
        "withdrawn",
        "withdrawn",
        "withdrawn",
    ]


def test_a_key_whose_file_is_gone_is_withdrawn_and_replaced(city: OrderBench) -> None:
    old = keys.current(city.conn)
    assert old is not None
    (city.folder / f"{old.hex()}.key").unlink()
    request = city.ask()
    city.sign()
    assert city.state(request) == ("sent", "")
    assert old not in city.trusted()


def test_without_root_and_key_nothing_is_signed_and_that_is_said(city: OrderBench) -> None:
    old = keys.current(city.conn)
    assert old is not None
    (city.folder / f"{old.hex()}.key").unlink()
    (city.authority.folder / "root.key").rename(city.authority.folder / "root.away")
    request = city.ask()
    with pytest.raises(Exception, match="kept offline"):
        city.sign()
    assert city.state(request) == ("ready", "")
    (city.authority.folder / "root.away").rename(city.authority.folder / "root.key")
    city.sign()
    assert city.state(request) == ("sent", "")


def test_a_key_that_others_can_read_is_not_used(city: OrderBench) -> None:
    old = keys.current(city.conn)
    assert old is not None
    file = city.folder / f"{old.hex()}.key"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    city.ask(body=HARMLESS)
    with pytest.raises(Exception, match="other users may read"):
        city.sign()


def test_what_restarts_now_needs_two(city: OrderBench) -> None:
    assert city.request(city.ask(body=Restart(what="application", when="now"))).state == "waiting"
