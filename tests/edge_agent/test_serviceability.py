from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import status
from edge_agent.clock import ClockReading
from edge_agent.serviceability import MAX_GAP_MS, ServiceabilityMeter, next_span_end_ms
from edge_agent.status import Service, SlotView
from protocols.canon.words import CoverState, DeviceState, PaperState, Severity
from protocols.contract.records import ClockQuality, Device, Fault, Sighting, encode_record

WALL_MS = 1_790_000_000_000


def at(boot_ms: int) -> ClockReading:
    return ClockReading(wall_ms=WALL_MS + boot_ms, boot_ms=boot_ms, quality=ClockQuality.SYNCED)


def fault(code: str, severity: Severity, *, slot: str | None = None, mandatory: bool = False) -> Fault:
    return Fault(id=bytes(8), code=code, change="open", severity=severity, slot=slot, mandatory=mandatory, since_ms=WALL_MS)


class TestMeter:
    def test_seconds_by_what_was_possible(self) -> None:
        meter = ServiceabilityMeter(at(0), "usable", in_use=False)
        meter.observe(at(10_000), "usable", in_use=True)
        meter.observe(at(40_000), "unusable", in_use=False)
        meter.observe(at(70_000), "partial", in_use=False)
        body = meter.close_span(at(75_000))
        assert body is not None
        assert (body.usable_s, body.unusable_s, body.partial_s, body.in_use_s, body.observed_s) == (40, 30, 5, 30, 75)
        assert body.to_ms - body.from_ms == 75_000

    def test_a_gap_was_not_observed(self) -> None:
        meter = ServiceabilityMeter(at(0), "usable", in_use=False)
        meter.observe(at(1000), "usable", in_use=False)
        meter.observe(at(1000 + MAX_GAP_MS + 1), "usable", in_use=False)
        body = meter.close_span(at(900_000 - 30_000))
        assert body is not None
        assert body.observed_s == 1
        assert body.to_ms - body.from_ms == 870_000

    def test_nothing_observed_is_no_record(self) -> None:
        meter = ServiceabilityMeter(at(0), "usable", in_use=False)
        assert meter.close_span(at(900)) is None
        assert meter.close_span(at(10_000_000)) is None

    def test_spans_end_at_quarter_hours(self) -> None:
        assert next_span_end_ms(900_000 * 7, 900) == 900_000 * 8
        assert next_span_end_ms(900_000 * 7 + 1, 900) == 900_000 * 8

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 90_000), st.sampled_from(["usable", "partial", "unusable"]), st.booleans(), st.integers(0, 9)
            ),
            max_size=50,
        )
    )
    def test_parts_add_up_and_fit_into_the_span(
        self, moves: list[tuple[int, Literal["usable", "partial", "unusable"], bool, int]]
    ) -> None:
        meter, now_ms, observed = ServiceabilityMeter(at(0), "usable", in_use=False), 0, 0
        for passed_ms, state, in_use, close in moves:
            now_ms += passed_ms
            meter.observe(at(now_ms), state, in_use=in_use)
            if close == 0 and (body := meter.close_span(at(now_ms))) is not None:
                encode_record(body, wall_ms=WALL_MS, quality=ClockQuality.SYNCED, boot_ms=now_ms)
                assert body.usable_s + body.partial_s + body.unusable_s == body.observed_s
                assert body.observed_s * 1000 <= body.to_ms - body.from_ms
                assert body.in_use_s <= body.observed_s
                observed += body.observed_s
        assert observed * 1000 <= now_ms


@pytest.mark.parametrize(
    ("faults", "service"),
    [
        ([], "usable"),
        ([fault("PRN.PAPER_OUT", Severity.P2, slot="receipt-printer", mandatory=True)], "unusable"),
        ([fault("PRN.PAPER_OUT", Severity.P2, slot="receipt-printer")], "partial"),
        ([fault("SCN.STUCK", Severity.P3, slot="scanner", mandatory=True)], "partial"),
        ([fault("PRN.PAPER_NEAR_END", Severity.P4, slot="receipt-printer", mandatory=True)], "usable"),
        ([fault("APP.NOT_RUNNING", Severity.P2)], "unusable"),
        ([fault("HOST.DISK_FULL", Severity.P2)], "usable"),
        ([fault("APP.SESSION_STUCK", Severity.P3)], "partial"),
    ],
)
def test_service_by_faults(faults: list[Fault], service: Service) -> None:
    assert status.service(faults, locked=False) == service
    assert status.service(faults, locked=True) == "unusable"


def test_document_says_what_works_in_words_for_people() -> None:
    faults = [fault("PRN.PAPER_OUT", Severity.P2, slot="receipt-printer", mandatory=True), fault("HOST.DISK_FULL", Severity.P2)]
    printer = Device(
        slot="receipt-printer", family="escpos", device=DeviceState.ONLINE, paper=PaperState.OUT, cover=CoverState.CLOSED
    )
    got = status.document(
        terminal="kiosk-0007",
        agent="0.1.0",
        idle=True,
        slots=[
            SlotView(slot="receipt-printer", family="receipt-printer", mandatory=True, state=printer),
            SlotView(slot="scanner", family="scanner", mandatory=False, state=None),
        ],
        faults=faults,
        sightings=[Sighting(bus="usb", port="1-1.4", vid=1, pid=2), Sighting(bus="usb", port="1-1.5", present=False)],
        uplink=status.UplinkStatus(connected=True, reason="connected", waiting_batches=0, acknowledged=True),
    )
    assert got.service == "unusable"
    assert [(slot.slot, slot.works, slot.paper) for slot in got.slots] == [
        ("receipt-printer", False, "out"),
        ("scanner", True, "unknown"),
    ]
    assert got.slots[0].faults[0].en == "Receipt printer out of paper"
    assert [one.code for one in got.faults] == ["HOST.DISK_FULL"]
    assert [one.port for one in got.unknown] == ["1-1.4"]
