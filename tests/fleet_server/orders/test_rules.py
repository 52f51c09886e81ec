"""Who may ask what, who must agree."""

from __future__ import annotations

import pytest

from fleet_server.accounts.permissions import OF_ROLE, PERMISSIONS, ROLES, role_may
from fleet_server.orders import rules
from fleet_server.orders.rules import Touch
from protocols.contract.orders import Cancel, OrderBody, PullLogs, Restart, SelfTest

NOW = 1_780_000_000_000


@pytest.mark.parametrize(
    ("kind", "body", "terminals", "why"),
    [
        ("selfTest", SelfTest(slot="receipt-printer"), 1, ""),
        ("selfTest", SelfTest(slot="receipt-printer"), 20, ""),
        ("selfTest", SelfTest(slot="receipt-printer"), 21, "batch"),
        ("pullLogs", PullLogs(from_ms=1, to_ms=2), 1, ""),
        ("restart", Restart(what="application"), 1, ""),
        ("restart", Restart(what="agent"), 1, ""),
        ("restart", Restart(what="agent", when="now"), 1, "risky"),
        ("restart", Restart(what="application", when="now"), 1, "risky"),
        ("restart", Restart(what="host"), 1, "risky"),
        ("restart", Restart(what="host"), 400, "risky"),
        ("cancel", Cancel(order=bytes(16)), 400, ""),
        ("lock", None, 1, ""),
        ("lock", None, 21, "batch"),
        ("unlock", None, 400, ""),
        ("configuration", None, 1, "risky"),
    ],
)
def test_what_needs_two_people(kind: str, body: OrderBody | None, terminals: int, why: str) -> None:
    assert rules.needs_two(kind, body, terminals) == why


def test_the_size_above_which_a_batch_needs_two_can_be_set() -> None:
    body = SelfTest(slot="receipt-printer")
    assert rules.needs_two("selfTest", body, 5, batch_two=4) == "batch"
    assert rules.needs_two("selfTest", body, 4, batch_two=4) == ""


def test_nobody_approves_their_own() -> None:
    assert rules.approver_problem("wang", "wang", [], NOW) == "orderSelf"
    assert rules.approver_problem("wang", "li", [], NOW) is None


@pytest.mark.parametrize(("by", "staff"), [("wang", "li"), ("li", "wang")], ids=["of the approver", "of the requester"])
@pytest.mark.parametrize("kind", ["add", "reset", "role", "enable"])
def test_two_accounts_of_which_one_had_the_other_in_hand_are_one_person(kind: str, by: str, staff: str) -> None:
    def problem(at_ms: int, by: str = by, staff: str = staff) -> str | None:
        return rules.approver_problem("wang", "li", [Touch(by=by, staff=staff, kind=kind, at_ms=at_ms)], NOW)

    week = rules.INDEPENDENT_MS
    assert problem(NOW - week + 1) == "orderNotIndependent"
    assert problem(NOW - week) is None
    assert problem(NOW, by="zhao") is None
    assert problem(NOW, staff="zhao") is None


@pytest.mark.parametrize(
    "chain",
    [
        [("wang", "c"), ("c", "li")],
        [("c", "wang"), ("c", "li")],
        [("c", "li"), ("d", "c"), ("wang", "d")],
        [("wang", "c"), ("li", "c")],
    ],
    ids=["through a third", "both made by one", "through two, in any order", "both had the third"],
)
def test_a_third_account_is_no_way_round(chain: list[tuple[str, str]]) -> None:
    def problem(touches: list[Touch]) -> str | None:
        return rules.approver_problem("wang", "li", touches, NOW)

    touches = [Touch(by=by, staff=staff, kind="add", at_ms=NOW - n) for n, (by, staff) in enumerate(chain)]
    assert problem(touches) == "orderNotIndependent"
    for cut in range(len(touches)):
        assert problem(touches[:cut] + touches[cut + 1 :]) is None
        old = Touch(by=touches[cut].by, staff=touches[cut].staff, kind="add", at_ms=NOW - rules.INDEPENDENT_MS)
        assert problem([*touches[:cut], old, *touches[cut + 1 :]]) is None


def test_what_gives_nobody_an_account_in_hand_does_not_matter() -> None:
    kinds = ("signOut", "unlock", "disable", "display", "password")
    touches = [Touch(by="wang", staff="li", kind=kind, at_ms=NOW) for kind in kinds]
    assert rules.approver_problem("wang", "li", touches, NOW) is None


def test_expiry_lies_between_a_minute_and_a_month() -> None:
    assert rules.expiry_problem(NOW, NOW) == "orderExpirySoon"
    assert rules.expiry_problem(NOW + 60_000, NOW) is None
    assert rules.expiry_problem(NOW + rules.LONGEST_MS, NOW) is None
    assert rules.expiry_problem(NOW + rules.LONGEST_MS + 1, NOW) == "orderExpiryLate"


def test_a_log_has_a_span_in_the_past_of_a_month_at_most() -> None:
    assert rules.logs_problem(PullLogs(from_ms=NOW - 1000, to_ms=NOW), NOW) is None
    assert rules.logs_problem(PullLogs(from_ms=NOW, to_ms=NOW), NOW) == "orderLogSpan"
    assert rules.logs_problem(PullLogs(from_ms=NOW + 1, to_ms=NOW + 2), NOW) == "orderLogSpan"
    assert rules.logs_problem(PullLogs(from_ms=NOW - rules.LOGS_MOST_MS - 1, to_ms=NOW), NOW) == "orderLogLong"


def test_an_end_outweighs_the_way_to_it_and_a_repeat_says_nothing() -> None:
    way = [("refused", "replayed"), ("received", "none"), ("waiting", "session"), ("running", "none"), ("done", "none")]
    assert sorted(way, key=lambda one: rules.rank(*one)) == way
    assert rules.rank("refused", "noSlot") == rules.rank("failed", "device") == rules.rank("done", "none")
    assert rules.rank("refused", "stale") == rules.rank("refused", "replayed")


def test_each_role_has_what_it_is_for_and_no_more() -> None:
    assert set(OF_ROLE) == set(ROLES)
    matrix = {role: {permission for permission in PERMISSIONS if role_may(role, permission)} for role in ROLES}
    assert matrix == {
        "viewer": {"view"},
        "operator": {"view", "operate", "request", "approve", "manage", "audit"},
        "requester": {"view", "request"},
        "approver": {"view", "approve"},
        "auditor": {"view", "audit"},
    }
    assert not role_may("nobody", "view")
    assert not role_may("operator", "everything")
