"""The mix of records that agents write."""

from __future__ import annotations

from protocols.canon.words import DeviceState, PaperState, Severity
from protocols.contract.records import Body, Counters, Device, Fault, Host, Link, Rating, Serviceability, Session, SlotCount


def cases(n: int, at_ms: int) -> Body:
    return Session(id=n.to_bytes(16, "big"), item="tax.print", outcome="success", began_ms=at_ms, duration_ms=90_000)


def day_of_a_kiosk(n: int, at_ms: int) -> Body:
    """The mix that agents write: mostly summaries, some state changes, few cases and faults."""
    span = {"from_ms": at_ms - 900_000, "to_ms": at_ms}
    pick = n % 100
    if pick < 30:
        return Serviceability(**span, observed_s=900, usable_s=900, partial_s=0, unusable_s=0)
    if pick < 50:
        return Host(**span, cpu_pct=3, mem_free_mib=900, disk_free_mib=9000, uptime_s=77, agent_rss_kib=35_000, outbox_batches=1)
    if pick < 60:
        return Counters(**span, slots=tuple(SlotCount(slot=f"slot-{k}", total=3, ok=2, failed=1) for k in range(4)))
    if pick < 75:
        paper = PaperState.OUT if n % 2 else PaperState.FULL
        return Device(slot=f"printer-{n % 6}", family="escpos", device=DeviceState.ONLINE, paper=paper)
    if pick < 82:
        change = "open" if n % 2 == 0 else "clear"
        return Fault(
            id=(n // 2).to_bytes(8, "big"),
            code="PRN.PAPER_OUT",
            change=change,  # type: ignore[arg-type]
            severity=Severity.P2,
            slot="printer-1",
            since_ms=at_ms,
        )
    if pick < 90:
        return cases(n, at_ms)
    return Rating(level=5) if pick < 95 else Link(state="up", reason="connected")
