"""Any order of arrival and any duplication of batches leaves the same facts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.canon.words import DeviceState, PaperState, Severity
from protocols.contract.records import (
    Body,
    Boot,
    Clock,
    ClockQuality,
    Consumable,
    Device,
    Fault,
    Rating,
    Serviceability,
    Session,
    Sighting,
)
from tests.support.facts import T0, FactBench, Run, Sent

HOUR = 3_600_000
SLOTS = ("receipt-printer", "scanner")


class Episodes:
    """Fault ids in the order in which an agent uses them: opened, perhaps worsened, cleared, never used again.

    They get worse under a right clock only: of two openings told under two clocks, the row keeps the one that was stored first as the earlier.
    """

    def __init__(self) -> None:
        self._used = 0
        self._open: list[bytes] = []

    def start(self, *, clock_is_right: bool) -> None:
        self._clock_is_right = clock_is_right
        self._of_this_run: set[bytes] = set()

    def opening(self, choice: int) -> bytes:
        """A new episode, or one that is open already and gets worse."""
        if self._open and choice % 3 == 0 and self._clock_is_right and self._open[-1] in self._of_this_run:
            return self._open[-1]
        self._used += 1
        self._open.append(self._used.to_bytes(8, "big"))
        self._of_this_run.add(self._open[-1])
        return self._open[-1]

    def clearing(self) -> bytes:
        if not self._open:
            self.opening(1)
        return self._open.pop(0)


def told_by(run: Run, at_ms: int, choice: int, episodes: Episodes) -> Body:
    """A record whose kind and content follow from `choice`; cases of one terminal meet again on purpose."""
    wall_ms = max(0, at_ms + run.error_ms)
    if choice % 8 in {1, 2}:
        change: Literal["open", "clear"] = "open" if choice % 8 == 1 else "clear"
        return Fault(
            id=episodes.opening(choice // 7) if change == "open" else episodes.clearing(),
            code="PRN.PAPER_OUT",
            change=change,
            severity=(Severity.P2, Severity.P3, Severity.P1)[choice // 17 % 3],
            since_ms=max(0, wall_ms - 1000),
        )
    bodies: tuple[Body, ...] = (
        Device(
            slot=SLOTS[choice // 11 % 2],
            family="escpos",
            device=DeviceState.ONLINE,
            paper=(PaperState.OUT, PaperState.FULL, PaperState.LOW)[choice // 13 % 3],
        ),
        Session(
            id=bytes([choice // 19 % 3]) * 16,
            item="tax.print",
            outcome=("success", "failed", "abandoned")[choice // 23 % 3],
            began_ms=wall_ms,
            duration_ms=choice,
        ),
        Consumable(
            slot="laser-printer",
            item="paper",
            event=("level", "refill")[choice // 29 % 2],
            remaining=choice,
            capacity=500,
            unit="sheet",
            source="counter",
        ),
        Sighting(bus="usb", port="1-1.4", present=bool(choice // 31 % 2)),
        Rating(level=choice // 37 % 6),
        Serviceability(
            from_ms=max(0, wall_ms - 900_000), to_ms=wall_ms, observed_s=900, usable_s=choice % 900, partial_s=0, unusable_s=0
        ),
    )
    return bodies[choice % len(bodies)]


@st.composite
def histories(draw: st.DrawFn) -> list[Sent]:
    """Up to three starts of an agent, one after the other, some with a clock that is wrong until it is set."""
    sent: list[Sent] = []
    at_ms, episodes = T0, Episodes()
    for number in range(1, draw(st.integers(1, 3)) + 1):
        at_ms += HOUR
        error_ms = draw(st.sampled_from([0, 0, -T0, 26 * HOUR, -26 * HOUR]))
        run = Run("kf-1", number, up_ms=at_ms - 60_000, error_ms=error_ms)
        episodes.start(clock_is_right=error_ms == 0)
        run.quality = ClockQuality.SYNCED if error_ms == 0 else ClockQuality.UNSET
        records = [run.capture(Boot(agent="1.0", os="Debian 12", arch="x86_64", python="3.11", previous="clean"), at_ms)]
        set_at = draw(st.integers(0, 4))
        for n in range(draw(st.integers(1, 5))):
            if n == set_at:
                run.error_ms, run.quality = 0, ClockQuality.SYNCED
                at_ms += 1777
                records.append(run.capture(Clock(boot_ms=at_ms - run.up_ms, wall_ms=at_ms, quality=ClockQuality.SYNCED), at_ms))
            for choice in draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=4)):
                at_ms += 1777
                records.append(run.capture(told_by(run, at_ms, choice, episodes), at_ms))
            sent.append(run.send(records, at_ms + draw(st.sampled_from([200, 4 * HOUR, 72 * HOUR]))))
            records = []
    return sent


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=histories(), data=st.data())
def test_any_order_and_duplication_gives_the_same_facts(schema: Path, history: list[Sent], data: st.DataObject) -> None:
    in_order, shuffled = FactBench(schema), FactBench(schema)
    try:
        for bench in (in_order, shuffled):
            bench.add_terminal("kf-1")
        in_order.arrive(*history)
        repeated = data.draw(st.lists(st.sampled_from(history), max_size=4))
        shuffled.arrive(*data.draw(st.permutations(history + repeated)))
        expected, found = in_order.facts(), shuffled.facts()
        # A wrong day that was marked on the way is computed once more; that does no harm.
        missed = set(expected.pop("dirty_day")) - set(found.pop("dirty_day"))
        counted = {row[0] for table in ("session", "rating") for row in in_order.rows(f"SELECT day FROM {table}")}
        assert not {day for _, day in missed} & counted
        if any(record.quality is not ClockQuality.SYNCED for sent in history for record in sent.records):
            # Without a history of their own these two keep what a wrong clock of another boot pushed aside only until the next reading.
            for table in ("sighting", "consumable"):
                del expected[table], found[table]
        assert found == expected
    finally:
        in_order.close()
        shuffled.close()
