"""Asking and deciding, in the database."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from fleet_server.accounts.events import remember
from fleet_server.channel import transact
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.orders import requests, rules
from fleet_server.thresholds.rules import put
from protocols.contract.orders import Cancel, OrderBody, PullLogs, SelfTest
from tests.support.ordering import DAY, HARMLESS, NOW, REBOOT, OrderBench

CONFIGURATION: dict[str, Any] = {"devices": [{"slot": "receipt-printer", "family": "printer"}], "intervals": {"heartbeat_s": 30}}


def audited(city: OrderBench, request: bytes) -> list[tuple[object, ...]]:
    return city.facts.rows(
        "SELECT actor, role, action FROM audit WHERE object = ? ORDER BY id", f"request:{requests.name_of(request)}"
    )


def test_a_harmless_order_is_ready_at_once_and_the_audit_log_names_who_asked(city: OrderBench) -> None:
    request = city.ask("kf-1", "kf-2")
    row = city.request(request)
    assert (row.state, row.needs_two, row.terminals, row.kind) == ("approved", "", 2, "restart")
    assert city.state(request, "kf-1") == ("ready", "")
    assert audited(city, request) == [("wang", "operator", "order.request")]
    hints = city.facts.rows("SELECT terminal FROM change WHERE kind = 'order' AND ref = ? ORDER BY terminal", request.hex())
    assert hints == [("kf-1",), ("kf-2",)]


def test_each_terminal_has_an_id_of_its_own(city: OrderBench) -> None:
    request = city.ask("kf-1", "kf-2", "kf-3", "kf-1")
    ids = [row[0] for row in city.facts.rows("SELECT order_id FROM order_item WHERE request = ?", request)]
    assert len(ids) == len(set(ids)) == 3


@pytest.mark.spec("O-207", "O-215")
def test_a_risky_order_waits_and_a_second_person_releases_it(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    assert city.request(request).state == "waiting"
    assert city.state(request) == ("asked", "")
    city.approve(request, "li")
    row = city.request(request)
    assert (row.state, row.decided_by, row.approved_digest) == ("approved", "li", row.digest)
    assert city.state(request) == ("ready", "")
    assert audited(city, request) == [("wang", "operator", "order.request"), ("li", "operator", "order.approve")]


@pytest.mark.parametrize(
    ("by", "reason"),
    [("wang", "orderSelf"), ("zhao", "orderMayNot"), ("sun", "orderMayNot"), ("he", "orderMayNot"), ("x", "orderMayNot")],
)
def test_who_may_not_approve(city: OrderBench, by: str, reason: str) -> None:
    request = city.ask(body=REBOOT)
    with pytest.raises(Refused) as refused:
        city.approve(request, by)
    assert refused.value.reason == reason
    assert city.request(request).state == "waiting"
    city.approve(request, "chen")
    assert city.request(request).state == "approved"


def test_an_account_that_the_requester_made_is_refused_and_another_one_is_not(city: OrderBench) -> None:
    remember(city.conn, "li", "reset", by="wang", now_ms=NOW - DAY)
    request = city.ask(body=REBOOT)
    with pytest.raises(Refused) as refused:
        city.approve(request, "li")
    assert refused.value.reason == "orderNotIndependent"
    city.now_ms = NOW - DAY + rules.INDEPENDENT_MS
    second = city.ask(body=REBOOT)
    city.approve(second, "li")
    assert city.request(second).state == "approved"


def test_an_account_made_by_an_account_that_the_requester_made_is_refused(city: OrderBench) -> None:
    city.add_account("c", "operator")
    city.add_account("d", "approver")
    remember(city.conn, "c", "add", by="wang", now_ms=NOW - DAY)
    remember(city.conn, "d", "add", by="c", now_ms=NOW - DAY)
    request = city.ask(body=REBOOT)
    with pytest.raises(Refused, match="orderNotIndependent"):
        city.approve(request, "d")
    city.approve(request, "li")


@pytest.mark.parametrize("by", ["", "cli:root"])
def test_two_accounts_made_on_the_server_itself_are_two_people(city: OrderBench, by: str) -> None:
    for name in ("wang", "li"):
        remember(city.conn, name, "add", by=by, now_ms=NOW - DAY)
    request = city.ask(body=REBOOT)
    city.approve(request, "li")
    assert city.request(request).state == "approved"


def test_a_disabled_approver_is_nobody(city: OrderBench) -> None:
    city.conn.execute("UPDATE staff SET disabled_ms = 1 WHERE name = 'li'")
    request = city.ask(body=REBOOT)
    with pytest.raises(Refused, match="orderMayNot"):
        city.approve(request, "li")


@pytest.mark.parametrize("by", ["sun", "chen", "he", "nobody"])
def test_who_may_not_ask(city: OrderBench, by: str) -> None:
    with pytest.raises(Refused, match="orderMayNot"):
        city.ask(by=by)
    city.ask(by="zhao")


def test_what_was_decided_is_decided(city: OrderBench) -> None:
    request = city.ask(body=REBOOT)
    city.approve(request)
    for again in (
        lambda conn: requests.approve(conn, request, by="chen", now_ms=NOW),
        lambda conn: requests.reject(conn, request, by="chen", now_ms=NOW),
        lambda conn: requests.withdraw(conn, request, by="wang", now_ms=NOW),
    ):
        with pytest.raises(Conflict, match="orderDecided"):
            transact(city.conn, again)
    with pytest.raises(NotFound):
        city.approve(bytes(16))


def test_rejecting_and_withdrawing_end_it_unsigned(city: OrderBench) -> None:
    first, second = city.ask(body=REBOOT), city.ask(body=REBOOT)
    transact(city.conn, lambda conn: requests.reject(conn, first, by="li", note="not today", now_ms=NOW))
    with pytest.raises(Refused, match="orderNotYours"):
        transact(city.conn, lambda conn: requests.withdraw(conn, second, by="li", now_ms=NOW))
    transact(city.conn, lambda conn: requests.withdraw(conn, second, by="wang", now_ms=NOW))
    city.sign()
    assert city.state(first) == ("dropped", "rejected")
    assert city.request(first).decided_note == "not today"
    assert city.state(second) == ("dropped", "withdrawn")
    assert city.facts.one("SELECT count(*) FROM order_item WHERE envelope IS NOT NULL") == (0,)


def test_what_nobody_approved_in_time_lapses(city: OrderBench) -> None:
    request = city.ask(body=REBOOT, lasts_ms=60_000)
    city.now_ms += 60_000
    with pytest.raises(Conflict, match="orderLapsed"):
        city.approve(request)
    city.sign()
    assert city.request(request).state == "lapsed"
    assert city.state(request) == ("dropped", "lapsed")
    assert audited(city, request)[-1] == ("server", "server", "order.lapse")


def test_a_batch_above_the_threshold_needs_two_however_harmless(city: OrderBench) -> None:
    transact(city.conn, lambda conn: put(conn, "order.batch_two", 2, by="wang", now_ms=NOW))
    assert city.request(city.ask("kf-1", "kf-2")).state == "approved"
    many = city.request(city.ask("kf-1", "kf-2", "kf-3"))
    assert (many.state, many.needs_two) == ("waiting", "batch")


def test_many_small_requests_within_an_hour_are_a_large_one(city: OrderBench) -> None:
    def asked(*terminals: str, by: str = "wang", body: OrderBody = HARMLESS) -> str:
        return city.request(city.ask(*terminals, by=by, body=body)).needs_two

    transact(city.conn, lambda conn: put(conn, "order.batch_two", 2, by="wang", now_ms=NOW))
    first = city.ask("kf-1")
    assert [asked("kf-2"), asked("kf-1", "kf-2")] == ["", ""]
    third = city.ask("kf-3")
    assert city.request(third).needs_two == "batch"
    assert asked("kf-3", by="li") == ""
    assert asked("kf-3", body=PullLogs(from_ms=NOW - DAY, to_ms=NOW)) == ""
    city.approve(third)
    # What a second person agreed to is nobody's alone, and does not count.
    assert asked("kf-2") == ""
    city.sign()
    assert city.state(first)[0] == city.state(third, "kf-3")[0] == "sent"
    city.now_ms = NOW + rules.BATCH_MS
    assert asked("kf-3", "kf-1") == ""


def test_a_small_request_written_past_the_rule_is_not_signed(city: OrderBench) -> None:
    transact(city.conn, lambda conn: put(conn, "order.batch_two", 2, by="wang", now_ms=NOW))
    first = city.ask("kf-1", "kf-2")
    city.now_ms += 1_000
    third = city.ask("kf-3")
    city.conn.execute("UPDATE order_request SET state = 'approved', needs_two = '' WHERE id = ?", (third,))
    city.conn.execute("UPDATE order_item SET state = 'ready' WHERE request = ?", (third,))
    city.sign()
    assert city.state(first)[0] == "sent"
    assert city.state(third, "kf-3")[0] != "sent"
    assert city.facts.one("SELECT count(*) FROM order_item WHERE request = ? AND envelope IS NOT NULL", third) == (0,)


@pytest.mark.parametrize(
    ("terminals", "reason"),
    [((), "orderNoTerminal"), (("kf-9",), "orderUnknownTerminal"), (("kf-1", "kf-9"), "orderUnknownTerminal")],
)
def test_terminals_must_be_there(city: OrderBench, terminals: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        requests.request_order(city.conn, terminals, HARMLESS, by="wang", expires_ms=NOW + DAY, now_ms=NOW)


def test_retired_terminals_get_no_orders(city: OrderBench) -> None:
    city.conn.execute("UPDATE terminal SET revoked_ms = 1 WHERE id = 'kf-2'")
    with pytest.raises(Refused, match="orderUnknownTerminal"):
        city.ask("kf-1", "kf-2")


def test_a_self_test_names_a_device_that_is_there(city: OrderBench) -> None:
    city.conn.execute("UPDATE terminal SET inventory = '[{\"slot\": \"receipt-printer\"}]' WHERE id = 'kf-2'")
    with pytest.raises(Refused, match="orderNoSlot"):
        city.ask("kf-1", "kf-2", body=SelfTest(slot="scanner"))
    with pytest.raises(Refused, match="orderNoSlot"):
        city.ask("kf-1", body=SelfTest(slot="receipt-printer"))
    city.ask("kf-1", "kf-2", body=SelfTest(slot="receipt-printer"))
    with pytest.raises(Refused, match="orderBody"):
        city.ask("kf-2", body=SelfTest(slot="No Slot At All"))


def test_orders_for_logs_have_a_sensible_span(city: OrderBench) -> None:
    with pytest.raises(Refused, match="orderLogSpan"):
        city.ask(body=PullLogs(from_ms=5, to_ms=5))
    city.ask(body=PullLogs(from_ms=NOW - 1000, to_ms=NOW))


def test_notes_hold_no_citizens_number(city: OrderBench) -> None:
    def ask(note: str) -> bytes:
        return requests.request_order(city.conn, ["kf-1"], HARMLESS, by="wang", expires_ms=NOW + DAY, note=note, now_ms=NOW)

    with pytest.raises(Refused, match="personal"):
        ask("asked for by 11010519491231002X")
    assert city.request(ask("  paper   jam again ")).note == "paper jam again"


def test_an_account_whose_name_fits_no_order_cannot_ask(city: OrderBench) -> None:
    city.add_account("王", "operator")
    with pytest.raises(Refused, match="orderAccountName"):
        city.ask(by="王")


# Configurations, locks ------------------------------------------------------------------------------------------------------------------


def configure(city: OrderBench, content: dict[str, Any], *terminals: str, by: str = "wang") -> bytes:
    return transact(
        city.conn,
        lambda conn: requests.request_configuration(
            conn, terminals or ("kf-1",), content, by=by, expires_ms=city.now_ms + DAY, now_ms=city.now_ms
        ),
    )


def test_a_configuration_becomes_a_version_and_needs_two(city: OrderBench) -> None:
    first, second = configure(city, CONFIGURATION), configure(city, {**CONFIGURATION, "items": []})
    assert [json.loads(city.request(one).body)["version"] for one in (first, second)] == [1, 2]
    assert city.request(first).needs_two == "risky"
    content = city.facts.one("SELECT content FROM configuration WHERE version = 1")[0]
    assert json.loads(str(content)) == CONFIGURATION


@pytest.mark.parametrize(
    "content", [{"devices": "all"}, {"unknown": 1}, {"devices": [{"slot": float("nan")}]}, {"devices": [{"x": "y" * 70_000}]}]
)
def test_a_configuration_that_no_terminal_could_read_is_refused(city: OrderBench, content: dict[str, Any]) -> None:
    with pytest.raises(Refused, match="orderConfiguration"):
        configure(city, content)
    assert city.facts.rows("SELECT 1 FROM configuration") == []


def test_going_back_wants_an_earlier_version(city: OrderBench) -> None:
    versions: tuple[dict[str, Any], ...] = (CONFIGURATION, {"items": []})
    for content in versions:
        city.approve(configure(city, content))
        city.sign()
    back = requests.request_version(city.conn, ["kf-1"], 1, by="wang", expires_ms=city.now_ms + DAY, now_ms=city.now_ms)
    city.approve(back)
    city.sign()
    configuration = city.desired().configuration
    assert configuration is not None
    assert (configuration.version, list(configuration.devices)) == (1, CONFIGURATION["devices"])
    with pytest.raises(Refused, match="orderVersion"):
        requests.request_version(city.conn, ["kf-1"], 9, by="wang", expires_ms=city.now_ms + DAY, now_ms=city.now_ms)


@pytest.mark.spec("O-217")
def test_what_is_approved_is_the_content_and_not_a_number(city: OrderBench) -> None:
    request = configure(city, CONFIGURATION)
    text = str(city.facts.one("SELECT content FROM configuration WHERE version = 1")[0])
    named = {"version": 1, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    assert json.loads(city.request(request).body) == named
    city.conn.execute("UPDATE configuration SET content = ? WHERE version = 1", (text.replace("30", "31"),))
    with pytest.raises(Refused, match="orderChanged"):
        city.approve(request)
    city.conn.execute("UPDATE configuration SET content = ? WHERE version = 1", (text,))
    city.approve(request)
    rows = city.facts.rows(
        "SELECT action, json_extract(detail, '$.body') FROM audit WHERE object = ? ORDER BY id",
        f"request:{city.request(request).name}",
    )
    assert [(action, json.loads(str(body))) for action, body in rows] == [("order.request", named), ("order.approve", named)]


def test_a_lock_needs_one_person_and_a_sentence(city: OrderBench) -> None:
    lock = requests.lock(city.conn, ["kf-1"], "打印机有焦味，暂停使用", "Smells burnt", by="zhao", now_ms=NOW)
    assert city.request(lock).state == "approved"
    with pytest.raises(Refused, match="empty"):
        requests.lock(city.conn, ["kf-1"], " ", by="zhao", now_ms=NOW)
    with pytest.raises(Refused, match="tooLong"):
        requests.lock(city.conn, ["kf-1"], "停" * 121, by="zhao", now_ms=NOW)
    with pytest.raises(Refused, match="personal"):
        requests.lock(city.conn, ["kf-1"], "请联系 13812345678", by="zhao", now_ms=NOW)


# Cancelling -----------------------------------------------------------------------------------------------------------------------------


def test_cancelling_drops_what_was_not_signed(city: OrderBench) -> None:
    request = city.ask()
    assert transact(city.conn, lambda conn: requests.cancel(conn, request, by="wang", now_ms=NOW)) is None
    city.sign()
    assert city.state(request) == ("dropped", "cancelled")


def test_cancelling_asks_the_terminals_for_what_was_signed(city: OrderBench) -> None:
    request = city.ask("kf-1", "kf-2")
    city.sign()
    asked = transact(city.conn, lambda conn: requests.cancel(conn, request, by="li", now_ms=city.now_ms))
    assert asked is not None
    city.sign()
    for terminal in ("kf-1", "kf-2"):
        cancel = city.order(asked, terminal)
        assert cancel.kind == "cancel"
        assert cancel.body == {"order": city.order(request, terminal).id}
        assert cancel.counter > city.order(request, terminal).counter


def test_what_cannot_be_cancelled(city: OrderBench) -> None:
    with pytest.raises(Refused, match="orderNoCancel"):
        city.ask(body=Cancel(order=bytes(16)))
    lock = requests.lock(city.conn, ["kf-1"], "停用", by="wang", now_ms=NOW)
    with pytest.raises(Refused, match="orderNoCancel"):
        requests.cancel(city.conn, lock, by="wang", now_ms=NOW)
    request = city.ask(lasts_ms=60_000)
    city.sign()
    city.now_ms += 200_000
    city.sign()
    with pytest.raises(Conflict, match="orderNothingToCancel"):
        requests.cancel(city.conn, request, by="wang", now_ms=city.now_ms)
