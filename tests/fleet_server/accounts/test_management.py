"""What operators may do with accounts: somebody can always sign in, nobody shuts themself out, everything has a name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fleet_server.accounts import events, management
from fleet_server.accounts.rules import USUAL, Account, Limits, Session, alive, judge
from fleet_server.accounts.sessions import limits_of
from fleet_server.errors import Conflict, NotFound, Refused
from fleet_server.thresholds.defaults import DEFAULTS
from tests.support.facts import T0, FactBench


@pytest.fixture
def staff(bench: FactBench) -> FactBench:
    for name, role in (("ann", "operator"), ("bob", "operator"), ("vic", "viewer")):
        management.add(bench.conn, name, display="", role=role, lang="zh", password_hash="h", by="root", now_ms=T0)
    bench.conn.execute("DELETE FROM account_event")
    return bench


def login(bench: FactBench, name: str, n: int = 1) -> None:
    for one in range(n):
        bench.conn.execute(
            "INSERT INTO login (token_hash, staff, created_ms, seen_ms, expires_ms, csrf) VALUES (?, ?, 0, 0, 9, 'c')",
            (f"{name}{one}".encode(), name),
        )


def reason(call: object, *args: object, **more: object) -> str:
    with pytest.raises(Refused) as refused:
        call(*args, **more)  # type: ignore[operator]  # a rule
    return refused.value.reason


WHO = {"by": "ann", "now_ms": T0 + 1}


def test_the_last_operator_stays(staff: FactBench) -> None:
    management.set_role(staff.conn, "bob", "viewer", by="ann", now_ms=T0)
    assert reason(management.set_role, staff.conn, "ann", "viewer", **WHO) == "accountLast"
    assert reason(management.disable, staff.conn, "ann", by="bob", now_ms=T0) == "accountLast"
    assert staff.one("SELECT role, disabled_ms FROM staff WHERE name = 'ann'") == ("operator", None)


def test_a_disabled_operator_is_none(staff: FactBench) -> None:
    management.disable(staff.conn, "bob", **WHO)  # type: ignore[arg-type]  # as given
    assert reason(management.set_role, staff.conn, "ann", "viewer", **WHO) == "accountLast"
    management.set_role(staff.conn, "bob", "viewer", by="ann", now_ms=T0)
    assert staff.one("SELECT role FROM staff WHERE name = 'bob'") == ("viewer",)


def test_nobody_disables_or_resets_themself(staff: FactBench) -> None:
    assert reason(management.disable, staff.conn, "ann", **WHO) == "accountSelf"
    assert reason(management.reset_password, staff.conn, "ann", "x", **WHO) == "accountSelfReset"


@pytest.mark.parametrize("change", ["role", "disable", "reset", "end"])
def test_what_takes_rights_away_ends_the_sessions(staff: FactBench, change: str) -> None:
    login(staff, "bob", 2)
    login(staff, "vic")
    conn = staff.conn
    changes: dict[str, Callable[[], object]] = {
        "role": lambda: management.set_role(conn, "bob", "viewer", by="ann", now_ms=T0),
        "disable": lambda: management.disable(conn, "bob", by="ann", now_ms=T0),
        "reset": lambda: management.reset_password(conn, "bob", "new", by="ann", now_ms=T0),
        "end": lambda: management.end_sessions(conn, "bob", by="ann", now_ms=T0),
    }
    changes[change]()
    assert staff.rows("SELECT staff FROM login") == [("vic",)]


def test_a_reset_password_must_be_changed_and_unlocks(staff: FactBench) -> None:
    staff.conn.execute("UPDATE staff SET must_change = 0, failed = 3, locked_until_ms = 5 WHERE name = 'bob'")
    management.reset_password(staff.conn, "bob", "new", by="ann", now_ms=T0)
    row = staff.one("SELECT password_hash, must_change, failed, locked_until_ms FROM staff WHERE name = 'bob'")
    assert row == ("new", 1, 0, None)


def test_everything_has_a_name_and_what_changes_nothing_has_no_row(staff: FactBench) -> None:
    conn = staff.conn
    management.set_role(conn, "vic", "operator", by="ann", now_ms=T0)
    management.set_role(conn, "vic", "operator", by="ann", now_ms=T0)
    management.disable(conn, "vic", by="ann", now_ms=T0)
    management.disable(conn, "vic", by="ann", now_ms=T0)
    management.enable(conn, "vic", by="bob", now_ms=T0 + 5)
    management.enable(conn, "vic", by="bob", now_ms=T0 + 5)
    management.unlock(conn, "vic", by="bob", now_ms=T0 + 5)
    assert management.end_sessions(conn, "vic", by="bob", now_ms=T0) == 0
    management.set_own(conn, "vic", display="维克", lang="en", letters=False, now_ms=T0 + 6)
    found = [(one.kind, one.set_by, one.at_ms, one.detail) for one in events.recent(conn, "vic")]
    assert found == [
        ("display", "vic", T0 + 6, "维克"),
        ("enable", "bob", T0 + 5, ""),
        ("disable", "ann", T0, ""),
        ("role", "ann", T0, "operator"),
    ]
    assert events.recent(conn, "ann") == []


def test_names_are_taken_whatever_their_case(staff: FactBench) -> None:
    staff.conn.execute("INSERT INTO staff (name, password_hash, role, created_ms) VALUES ('Carl', 'h', 'viewer', 0)")
    with pytest.raises(Conflict):
        management.add(staff.conn, "carl", display="", role="viewer", lang="zh", password_hash="h", by="ann", now_ms=T0)
    with pytest.raises(NotFound):
        management.enable(staff.conn, "nobody", by="ann", now_ms=T0)
    assert reason(management.set_role, staff.conn, "vic", "king", **WHO) == "accountRole"


@pytest.mark.parametrize(
    ("name", "fine"), [("zhang.wei", True), (" Li-4 ", True), ("a", False), ("张伟", False), ("a b", False), ("x" * 33, False)]
)
def test_names_of_accounts(name: str, fine: bool) -> None:
    if fine:
        assert management.check_name(name) == name.strip().lower()
    else:
        assert reason(management.check_name, name) == "accountName"


def test_a_session_ends_only_for_its_owner(staff: FactBench) -> None:
    login(staff, "bob")
    assert not management.end_session(staff.conn, "vic", b"bob0")
    assert management.end_session(staff.conn, "bob", b"bob0")


# Limits ---------------------------------------------------------------------------------------------------------------------------------


def test_the_usual_limits_are_the_defaults_of_the_thresholds() -> None:
    assert limits_of({name: default.value for name, default in DEFAULTS.items()}) == USUAL


def test_limits_that_operators_set_hold_for_sessions_that_began_before() -> None:
    session = Session(
        token_hash=b"", name="a", display="", role="viewer", must_change=False, lang="zh", csrf="", created_ms=T0, seen_ms=T0, expires_ms=T0 + 10**9
    )  # fmt: skip
    assert alive(session, T0 + 5 * 60_000, Limits(idle_ms=10 * 60_000))
    assert not alive(session, T0 + 5 * 60_000, Limits(idle_ms=5 * 60_000))
    assert not alive(session, T0 + 60_000, Limits(absolute_ms=60_000))


def test_a_disabled_account_admits_nobody_and_counts_nothing() -> None:
    account = Account(
        name="a", display="", password_hash="", role="viewer", failed=2, locked_until_ms=None, must_change=False, lang="zh", disabled=True
    )  # fmt: skip
    for fits in (True, False):
        attempt = judge(account, fits, T0)
        assert (attempt.admitted, attempt.failed) == (False, 2)


def test_a_stricter_lock_is_the_one_that_holds() -> None:
    account = Account(
        name="a", display="", password_hash="", role="viewer", failed=2, locked_until_ms=None, must_change=False, lang="zh"
    )
    assert judge(account, False, T0).locked_until_ms is None
    assert judge(account, False, T0, Limits(max_failed=3, locked_ms=60_000)).locked_until_ms == T0 + 60_000
