"""The state table, line by line and in its order, and the sums that must hold on every page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_server.terminals.state import WORST_FIRST, Contact, OpenFault, Registered, StateCode, count_states, terminal_state

NOW = 1_780_000_000_000
ENROLLED = Registered(created_ms=NOW - 9_000_000, enrolled_ms=NOW - 8_000_000)
IN_MAINTENANCE = Registered(
    created_ms=1, enrolled_ms=2, maintenance_until_ms=NOW + 1, maintenance_reason="new printer", maintenance_by="operator"
)


def contact(state: str, cause: str = "silence", *, ago_ms: int = 400_000) -> Contact:
    return Contact(state=state, cause=cause, from_ms=NOW - 100_000, last_seen_ms=NOW - ago_ms)


def fault(
    severity: str, *, mandatory: bool = True, code: str = "PRN.PAPER_OUT", slot: str | None = "printer", since_ms: int = NOW
) -> OpenFault:
    return OpenFault(code=code, severity=severity, mandatory=mandatory, slot=slot, since_ms=since_ms, key="k")


STOPPER = fault("P2")


@pytest.mark.parametrize(
    ("terminal", "heard", "faults", "is_open", "blind", "expected"),
    [
        (Registered(created_ms=1, enrolled_ms=None), None, [], True, True, StateCode.NOT_ENROLLED),
        (IN_MAINTENANCE, contact("offline"), [STOPPER], True, True, StateCode.MAINTENANCE),
        (ENROLLED, contact("online"), [STOPPER], True, True, StateCode.UNKNOWN),
        (ENROLLED, contact("unknown", "broker"), [STOPPER], False, False, StateCode.UNKNOWN),
        (ENROLLED, contact("offline"), [STOPPER], False, False, StateCode.CLOSED),
        (ENROLLED, contact("suspect"), [], False, False, StateCode.CLOSED),
        (ENROLLED, contact("stopped", "announced"), [], False, False, StateCode.CLOSED),
        (ENROLLED, contact("online"), [STOPPER], False, False, StateCode.UNUSABLE),
        (ENROLLED, contact("offline"), [STOPPER], True, False, StateCode.OFFLINE),
        (ENROLLED, contact("stopped", "announced"), [], True, False, StateCode.OFFLINE),
        (ENROLLED, None, [], True, False, StateCode.SUSPECT),
        (ENROLLED, contact("offline", "neverSeen"), [], True, False, StateCode.OFFLINE),
        (ENROLLED, contact("suspect"), [STOPPER], True, False, StateCode.SUSPECT),
        (ENROLLED, contact("online"), [fault("P3"), fault("P1")], True, False, StateCode.UNUSABLE),
        (
            ENROLLED,
            contact("online"),
            [fault("P2", slot=None, mandatory=False, code="APP.HANG")],
            True,
            False,
            StateCode.UNUSABLE,
        ),
        (ENROLLED, contact("online"), [fault("P2", mandatory=False)], True, False, StateCode.PARTIAL),
        (ENROLLED, contact("online"), [fault("P3")], True, False, StateCode.PARTIAL),
        (ENROLLED, contact("online"), [fault("P1", slot=None, code="SEC.CLONE")], True, False, StateCode.PARTIAL),
        (ENROLLED, contact("online"), [fault("P4")], True, False, StateCode.NORMAL),
        (ENROLLED, contact("online"), [], True, False, StateCode.NORMAL),
        (Registered(created_ms=1, enrolled_ms=2, revoked_ms=3), contact("online"), [], True, False, StateCode.RETIRED),
    ],
)
def test_the_first_line_that_fits_decides(
    terminal: Registered, heard: Contact | None, faults: list[OpenFault], is_open: bool, blind: bool, expected: StateCode
) -> None:
    assert terminal_state(terminal, heard, faults, is_open=is_open, platform_blind=blind, now_ms=NOW).code is expected


def test_maintenance_ends_by_itself() -> None:
    found = terminal_state(IN_MAINTENANCE, contact("online"), [], is_open=True, platform_blind=False, now_ms=NOW + 1)
    assert found.code is StateCode.NORMAL


@pytest.mark.parametrize(
    ("heard", "is_open", "key"),
    [
        (contact("offline"), True, "state.offline.silence"),
        (contact("offline", "site"), True, "state.offline.site"),
        (contact("stopped", "announced"), True, "state.offline.stopped"),
        (None, True, "state.suspect.neverSeen"),
        (contact("offline", "neverSeen"), True, "state.offline.neverSeen"),
        (contact("suspect", "broken"), True, "state.suspect.broken"),
        (contact("suspect"), True, "state.suspect.silence"),
        (contact("offline"), False, "state.closed"),
    ],
)
def test_the_reason_is_a_whole_sentence_with_parameters(heard: Contact | None, is_open: bool, key: str) -> None:
    found = terminal_state(ENROLLED, heard, [], is_open=is_open, platform_blind=False, now_ms=NOW)
    assert found.reason.key == key
    assert found.since_ms == (ENROLLED.enrolled_ms if heard is None else heard.last_seen_ms)


def test_the_reason_names_the_worst_fault_and_counts_the_others() -> None:
    faults = [fault("P2", since_ms=NOW - 5), fault("P1", code="ENV.SMOKE", since_ms=NOW - 1), fault("P3", since_ms=NOW - 9)]
    found = terminal_state(ENROLLED, contact("online"), faults, is_open=True, platform_blind=False, now_ms=NOW)
    assert (found.code, found.since_ms) == (StateCode.UNUSABLE, NOW - 5)
    assert found.reason.params == {"code": "ENV.SMOKE", "slot": "printer", "since_ms": NOW - 1, "fault": "k", "more": 1}


@given(st.lists(st.sampled_from(StateCode)))
def test_sums_hold_for_any_fleet(codes: list[StateCode]) -> None:
    counts = count_states(codes)
    in_service = [code for code in codes if code is not StateCode.RETIRED]
    assert counts.total == len(in_service)
    assert counts.total == counts.online + sum(
        counts.of(code)
        for code in (StateCode.OFFLINE, StateCode.CLOSED, StateCode.MAINTENANCE, StateCode.NOT_ENROLLED, StateCode.UNKNOWN)
    )
    assert counts.online == counts.of(StateCode.NORMAL) + counts.abnormal + counts.of(StateCode.SUSPECT)
    assert counts.abnormal == counts.of(StateCode.UNUSABLE) + counts.of(StateCode.PARTIAL)
    assert counts.expected == counts.online + counts.of(StateCode.OFFLINE)


def test_every_state_of_the_table_has_a_place_in_the_worst_first_order() -> None:
    assert set(WORST_FIRST) == set(StateCode) - {StateCode.RETIRED}
