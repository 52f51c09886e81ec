"""pyipp, unmodified, reads the A4 printer model. Why it is no part of the agent: docs/devices/printers.md."""

from __future__ import annotations

import pytest

from protocols.codecs import ipp
from simulators.models.ipp import IppPrinter
from simulators.ports.http import IppServer


@pytest.mark.parametrize(
    ("fault", "state", "reasons"),
    [
        (None, "idle", None),
        ("jam", "stopped", "media-jam-error"),
        ("idle-while-jammed", "idle", "media-jam-error"),
        ("paper-out", "stopped", "media-empty-error"),
    ],
)
async def test_it_reads_state_and_markers(fault: str | None, state: str, reasons: str | None) -> None:
    from pyipp import IPP

    model = IppPrinter()
    if fault is not None:
        model.set(fault, 0.0)
    async with IppServer(model) as server, IPP(server.uri) as client:
        printer = await client.printer()
        assert printer.state.printer_state == state
        assert printer.state.reasons == reasons
        assert printer.info.name == "HP LaserJet Pro M404dn"
        assert [(marker.marker_type, marker.level, marker.low_level) for marker in printer.markers] == [
            ("toner-cartridge", 80, 10),
            ("waste-toner", 40, 0),
        ]


async def test_both_read_the_same_from_one_answer() -> None:
    from pyipp.parser import parse

    model = IppPrinter()
    for fault in ("toner-low", "paper-low", "door-open"):
        model.set(fault, 0.0)
    model.feed(ipp.encode_status_query(model.uri, 9), 1.0)
    answer = model.take(10.0, 1 << 20)
    ours, theirs = ipp.decode_status(answer, 9), parse(answer)["printers"][0]
    assert ours.state == theirs["printer-state"]
    assert list(ours.reasons) == theirs["printer-state-reasons"]
    assert [level for _, level, _ in ours.levels] == theirs["marker-levels"]
    assert ours.impressions == theirs["printer-impressions-completed"]
    assert ours.firmware == theirs["printer-firmware-string-version"]
