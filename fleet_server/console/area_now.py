"""The table by area: who belongs to which row, what the rows say now, and the last 24 hours as shares of machine-time. Pure.

Rows are the areas below the only root, or the roots if there are several, as in the figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from fleet_server.console.format import HOUR_MS
from fleet_server.console.history import Span
from fleet_server.console.model import TerminalNow
from fleet_server.terminals.state import Counts, count_states

HOURS: Final = 24
LOOKS: Final = ("unusable", "offline", "partial", "suspect", "maintenance", "unknown", "noData", "closed", "normal")
"""From the top of a column to its bottom: trouble is what the eye meets first."""
LOOK_OF: Final = {"inUse": "normal", "notEnrolled": "noData"}


@dataclass(frozen=True, slots=True)
class AreaNow:
    code: str
    """"" for terminals in no area."""
    name_zh: str
    name_en: str
    is_whole: bool
    """Whether the list filtered by this code shows exactly these terminals: a root's own terminals cannot be told from those below it."""
    terminals: tuple[TerminalNow, ...]

    @property
    def counts(self) -> Counts:
        return count_states(terminal.state for terminal in self.terminals)

    @property
    def cases_today(self) -> int:
        return sum(terminal.cases_today for terminal in self.terminals)

    def name(self, lang: str) -> str:
        return (self.name_zh if lang == "zh" else self.name_en) or self.name_zh or self.name_en or self.code


def by_area(terminals: Iterable[TerminalNow], order: Sequence[str]) -> list[AreaNow]:
    """Rows in the order of `order` (codes), unknown ones behind, terminals in no area last."""
    rows = list(terminals)
    roots = {row.place.areas[0][0] for row in rows if row.place.areas}
    depth = 1 if len(roots) == 1 else 0
    sorted_out: defaultdict[str, list[TerminalNow]] = defaultdict(list)
    names: dict[str, tuple[str, str, bool]] = {"": ("", "", False)}
    for row in rows:
        chain = row.place.areas
        code, zh, en = chain[min(depth, len(chain) - 1)] if chain else ("", "", "")
        sorted_out[code].append(row)
        names[code] = (zh, en, bool(chain) and not (depth and code in roots))
    places = {code: n for n, code in enumerate(order)}
    codes = sorted(sorted_out, key=lambda code: (code == "", places.get(code, len(places)), code))
    return [AreaNow(code, *names[code], tuple(sorted_out[code])) for code in codes]


# The last 24 hours ----------------------------------------------------------------------------------------------------------------------

Shares = tuple[tuple[str, float], ...]
"""(look, share of the hour's machine-time), in the order of LOOKS, only what there is."""


def hour_edges(now_ms: int) -> list[int]:
    """25 edges on the hour; the last cell holds `now_ms`."""
    last = now_ms // HOUR_MS * HOUR_MS
    return [last - (HOURS - 1 - n) * HOUR_MS for n in range(HOURS + 1)]


def hour_times(lane: Iterable[Span], edges: Sequence[int], now_ms: int) -> list[dict[str, int]]:
    """Of one terminal's lane (flattened, without overlap): ms of each look in each hour, up to now."""
    hours: list[dict[str, int]] = [{} for _ in range(len(edges) - 1)]
    for span in lane:
        look = LOOK_OF.get(span.look, span.look)
        low, high = max(span.from_ms, edges[0]), min(span.to_ms, now_ms, edges[-1])
        while low < high:
            n = (low - edges[0]) // HOUR_MS
            end = min(high, edges[n + 1])
            hours[n][look] = hours[n].get(look, 0) + end - low
            low = end
    return hours


def hour_shares(terminals: Iterable[Sequence[Mapping[str, int]]]) -> list[Shares]:
    """Several terminals together."""
    total: list[defaultdict[str, int]] = [defaultdict(int) for _ in range(HOURS)]
    for hours in terminals:
        for n, times in enumerate(hours):
            for look, length_ms in times.items():
                total[n][look] += length_ms
    return [_shares(times) for times in total]


def _shares(times: Mapping[str, int]) -> Shares:
    whole = sum(times.values())
    return tuple((look, times[look] / whole) for look in LOOKS if times.get(look)) if whole else ()


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of the picture: hours [from_hour, to_hour), and the share of the height it covers, from the top."""

    look: str
    from_hour: int
    to_hour: int
    top: float
    height: float


def blocks(hours: Sequence[Shares]) -> list[Block]:
    """The picture of a row; neighbouring hours that look the same are one."""
    found: list[Block] = []
    for shares, run in groupby(range(len(hours)), key=lambda n: _seen(hours[n])):
        places = list(run)
        top = 0.0
        for look, share in shares:
            found.append(Block(look, places[0], places[-1] + 1, round(top, 3), round(share, 3)))
            top += share
    return found


def _seen(shares: Shares) -> Shares:
    """Rounded to what can be seen, but trouble is never rounded away: the least is a tenth of the height."""
    if not shares:
        return (("noData", 1.0),)
    least = {look: max(0.1, share) for look, share in shares if look in {"unusable", "offline"}}
    rest = max(0.0, 1 - sum(least.values()))
    others = sum(share for look, share in shares if look not in least)
    drawn = [(look, least.get(look, share * rest / others if others else 0.0)) for look, share in shares]
    whole = sum(share for _, share in drawn)
    return tuple((look, round(share / whole, 2)) for look, share in drawn)


def day_share(hours: Sequence[Shares], look: str) -> float:
    """Mean share of the hours; for the sentence beside the picture."""
    told = [dict(shares).get(look, 0.0) for shares in hours if shares]
    return sum(told) / len(told) if told else 0.0
