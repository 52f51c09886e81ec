"""How a past looks: the 28 cells of a list row and the lanes of a terminal's page. Pure; spans are [from, to) in ms UTC.

What was not observed stays "no data": it is never filled in and never drawn as good.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from fleet_server.console.format import HOUR_MS
from fleet_server.faults.severity import Impact
from fleet_server.sites.calendar import day_span_ms, local_day

CELLS: Final = 28
CELL_MS: Final = 6 * HOUR_MS

RANK: Final = {
    "noData": 0,
    "notEnrolled": 0,
    "closed": 1,
    "normal": 2,
    "inUse": 3,
    "unknown": 4,
    "suspect": 5,
    "partial": 6,
    "offline": 7,
    "unusable": 8,
    "maintenance": 9,
}
"""Which look covers which where spans overlap."""
PRESENCE_LOOK: Final = {
    "online": "normal",
    "suspect": "suspect",
    "offline": "offline",
    "stopped": "offline",
    "unknown": "unknown",
}
CELL_RANK: Final = {**RANK, "maintenance": 3.5}
"""Which look a whole cell gets: what was wrong for an hour is not hidden by what was maintained before."""
CELL_HEIGHT: Final = {"normal": 12, "closed": 6, "noData": 12, "unknown": 12, "inUse": 12}
"""Height of a cell's bar of 18: trouble is also taller, so that the row reads without colour."""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that held for a while. `ref` leads to it, `late` says that it was delivered after an outage."""

    from_ms: int
    to_ms: int
    look: str
    title: str = ""
    ref: str = ""
    late: bool = False
    why: str = ""
    """Cause of a presence state."""


@dataclass(frozen=True, slots=True)
class Cell:
    from_ms: int
    to_ms: int
    look: str

    @property
    def height(self) -> int:
        return CELL_HEIGHT.get(self.look, 18)

    @property
    def y(self) -> int:
        return 18 - self.height


FAULT_LOOK: Final = {Impact.NO_SERVICE: "unusable", Impact.SOME_ITEMS: "partial"}
"""What a fault makes of the terminal's service; a notice makes nothing of it."""


def cell_edges(now_ms: int, zone: str) -> list[int]:
    """29 edges at 0, 6, 12 and 18 o'clock local time; the last cell holds `now_ms`."""
    start, _ = day_span_ms(local_day(now_ms, zone), zone)
    last = start + (now_ms - start) // CELL_MS * CELL_MS
    return [last - (CELLS - 1 - n) * CELL_MS for n in range(CELLS + 1)]


def cells(spans: Iterable[Span], edges: Sequence[int], now_ms: int) -> list[Cell]:
    """Worst look of each cell."""
    looks = ["noData"] * (len(edges) - 1)
    first = edges[0]
    for span in spans:
        if span.to_ms <= first or span.from_ms >= now_ms or span.to_ms <= span.from_ms:
            continue
        low = max(0, (span.from_ms - first) // CELL_MS)
        high = min(len(looks) - 1, (min(span.to_ms, now_ms) - 1 - first) // CELL_MS)
        for n in range(low, high + 1):
            if CELL_RANK[span.look] > CELL_RANK[looks[n]]:
                looks[n] = span.look
    return [Cell(edges[n], edges[n + 1], look) for n, look in enumerate(looks)]


def lane(spans: Iterable[Span], from_ms: int, to_ms: int) -> list[Span]:
    """Flatten overlapping spans into neighbours: the higher rank is on top, equal neighbours are one, gaps are "no data"."""
    inside = [
        replace(span, from_ms=max(span.from_ms, from_ms), to_ms=min(span.to_ms, to_ms))
        for span in spans
        if span.to_ms > from_ms and span.from_ms < to_ms and span.to_ms > span.from_ms
    ]
    edges = sorted({from_ms, to_ms, *(span.from_ms for span in inside), *(span.to_ms for span in inside)})
    inside.sort(key=lambda span: span.from_ms)
    result: list[Span] = []
    active: list[Span] = []
    upcoming = iter(inside)
    following = next(upcoming, None)
    for start, end in pairwise(edges):
        while following is not None and following.from_ms <= start:
            active.append(following)
            following = next(upcoming, None)
        active = [span for span in active if span.to_ms > start]
        top = max(active, key=lambda span: (RANK[span.look], span.from_ms), default=None)
        piece = replace(top, from_ms=start, to_ms=end) if top else Span(start, end, "noData")
        if result and _same(result[-1], piece):
            result[-1] = replace(result[-1], to_ms=end)
        else:
            result.append(piece)
    return result


def _same(left: Span, right: Span) -> bool:
    return (left.look, left.title, left.ref, left.late) == (right.look, right.title, right.ref, right.late)


def closed_outside(spans: Iterable[Span], opening: Sequence[tuple[int, int]]) -> list[Span]:
    """Silence outside opening hours is no outage: offline and suspect spans are cut to opening hours, the rest is "closed"."""
    result: list[Span] = []
    for span in spans:
        if span.look not in {"offline", "suspect"}:
            result.append(span)
            continue
        at = span.from_ms
        for start, end in opening:
            low, high = max(start, span.from_ms), min(end, span.to_ms)
            if low >= high:
                continue
            if low > at:
                result.append(replace(span, from_ms=at, to_ms=low, look="closed", title="", ref=""))
            result.append(replace(span, from_ms=low, to_ms=high))
            at = high
        if at < span.to_ms:
            result.append(replace(span, from_ms=at, look="closed", title="", ref=""))
    return result


def outside(spans: Iterable[Span], cuts: Sequence[tuple[int, int]]) -> list[Span]:
    """What is left of `spans` outside the ordered, disjoint `cuts`."""
    result: list[Span] = []
    for span in spans:
        at = span.from_ms
        for start, end in cuts:
            if end <= at or start >= span.to_ms:
                continue
            if start > at:
                result.append(replace(span, from_ms=at, to_ms=start))
            at = end
        if at < span.to_ms:
            result.append(replace(span, from_ms=at))
    return result


DEVICE_BAD: Final = frozenset({"offline", "powerOff", "noDevice", "hardwareError", "userError"})


def device_look(*, device: str, paper: str, toner: str, media: str, cover: str) -> str:
    """Look of a reported device state, before and beside any fault."""
    if device == "inUse":
        return "inUse"
    if device == "unknown":
        return "noData"
    if device in DEVICE_BAD or paper in {"out", "jammed"} or toner == "out" or media == "jammed" or cover in {"open", "tampered"}:
        return "unusable"
    return "partial" if paper == "low" or toner == "low" else "normal"


def total_ms(spans: Iterable[Span], looks: frozenset[str]) -> int:
    return sum(span.to_ms - span.from_ms for span in spans if span.look in looks)
