"""Alarms that the server itself raises, once each, and what faults mean for the public."""

from __future__ import annotations

import pytest

from fleet_server.faults.platform import clear_platform_fault, open_platform_fault, retire_faults
from fleet_server.faults.severity import Impact, impact, worst
from protocols.canon.faults import UnknownFaultCode
from tests.support.facts import T0, FactBench


def test_an_alarm_opens_once_per_episode(bench: FactBench) -> None:
    first = open_platform_fault(bench.conn, "kf-1", "SEC.CLONE", T0)
    assert first is not None
    assert open_platform_fault(bench.conn, "kf-1", "SEC.CLONE", T0 + 1) is None
    assert clear_platform_fault(bench.conn, "kf-1", "SEC.CLONE", T0 + 2)
    assert not clear_platform_fault(bench.conn, "kf-1", "SEC.CLONE", T0 + 3)
    second = open_platform_fault(bench.conn, "kf-1", "SEC.CLONE", T0 + 4, since_ms=T0)
    assert second not in {None, first}
    assert bench.rows("SELECT severity, source, opened_ms, since_ms, cleared_ms, cleared_by FROM fault ORDER BY opened_ms") == [
        ("P1", "platform", T0, T0, T0 + 2, "platform"),
        ("P1", "platform", T0 + 4, T0, None, None),
    ]
    assert bench.rows("SELECT kind FROM fault_event ORDER BY at_ms") == [("open",), ("clear",), ("open",)]
    assert bench.rows("SELECT kind FROM change") == [("fault",)] * 3


def test_terminals_do_not_share_alarms(bench: FactBench) -> None:
    open_platform_fault(bench.conn, "kf-1", "SEC.SIGNATURE", T0)
    assert not clear_platform_fault(bench.conn, "kf-2", "SEC.SIGNATURE", T0)


def test_a_code_outside_the_catalogue_is_an_error(bench: FactBench) -> None:
    with pytest.raises(UnknownFaultCode):
        open_platform_fault(bench.conn, "kf-1", "SEC.NOPE", T0)


def test_leaving_service_closes_everything(bench: FactBench) -> None:
    open_platform_fault(bench.conn, "kf-1", "SEC.SIGNATURE", T0)
    open_platform_fault(bench.conn, "kf-1", "NET.OFFLINE", T0)
    assert retire_faults(bench.conn, "kf-1", T0 + 5) == 2
    assert bench.rows("SELECT DISTINCT cleared_by FROM fault") == [("retired",)]


@pytest.mark.parametrize(
    ("code", "severity", "slot", "mandatory", "expected"),
    [
        ("PRN.PAPER_OUT", "P2", "receipt-printer", True, Impact.NO_SERVICE),
        ("PRN.PAPER_OUT", "P2", "receipt-printer", False, Impact.SOME_ITEMS),
        ("SCN.UNPLUGGED", "P3", "scanner", True, Impact.SOME_ITEMS),
        ("APP.NOT_RUNNING", "P2", None, False, Impact.NO_SERVICE),
        ("APP.SESSION_STUCK", "P3", None, True, Impact.SOME_ITEMS),
        ("HOST.DISK_FULL", "P2", None, True, Impact.SOME_ITEMS),
        ("NET.OFFLINE", "P2", None, True, Impact.NO_SERVICE),
        ("LSR.TONER_LOW", "P4", "laser-printer", True, Impact.NONE),
    ],
)
def test_impact_follows_from_code_severity_and_inventory(
    code: str, severity: str, slot: str | None, mandatory: bool, expected: Impact
) -> None:
    assert impact(code, severity, slot=slot, mandatory=mandatory) is expected


def test_p1_is_worst() -> None:
    assert worst(["P3", "P1", "P2"]) == "P1"
    assert worst([]) is None
