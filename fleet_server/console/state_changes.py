"""Which changes of state a terminal went through: from → to, and why. Pure; the order of states is that of `terminals/state.py`.

Opening hours begin and end by the clock alone: only what happened to a terminal is a change, not that a site closed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

PRESENCE: Final = {"offline": "offline", "stopped": "offline", "suspect": "suspect", "unknown": "unknown"}
BEFORE: Final = 1
"""The state before an instant is the one a millisecond earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasting:
    """Something that held in [from_ms, to_ms). `word`: a presence state, `maintenance`, or what a fault made of the service; `why` tells it."""

    from_ms: int
    to_ms: int
    word: str
    why: str
    rank: int = 0
    """Among faults the least is the worst."""


@dataclass(frozen=True, slots=True)
class Change:
    at_ms: int
    terminal: str
    before: str
    after: str
    why: str
    """A fault code, a presence cause, or `maintenance`; of a recovery: what is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is known of one terminal around a stretch of time."""

    terminal: str
    presence: Sequence[Lasting]
    faults: Sequence[Lasting]
    maintenance: Sequence[Lasting]
    opening: Sequence[tuple[int, int]]
    """Opening hours, ordered."""


def changes(story: Story, from_ms: int, to_ms: int) -> list[Change]:
    """Changes in [from_ms, to_ms], oldest first."""
    told = (*story.presence, *story.faults, *story.maintenance)
    edges = sorted({edge for one in told for edge in (one.from_ms, one.to_ms) if from_ms <= edge <= to_ms})
    found: list[Change] = []
    for at_ms in edges:
        before, over = _state(story, at_ms - BEFORE)
        after, why = _state(story, at_ms)
        if before and after and before != after:
            found.append(Change(at_ms, story.terminal, before, after, why or over))
    return found


def _state(story: Story, at_ms: int) -> tuple[str, str]:
    """(look, why); no look while nothing is known yet."""
    if _at(story.maintenance, at_ms) is not None:
        return "maintenance", "maintenance"
    presence = _at(story.presence, at_ms)
    if presence is None:
        return "", ""
    silent = PRESENCE.get(presence.word)
    if silent == "unknown":
        return "unknown", presence.why
    if silent is not None:
        return (silent, presence.why) if _is_open(story.opening, at_ms) else ("closed", presence.why)
    standing = [fault for fault in story.faults if fault.from_ms <= at_ms < fault.to_ms]
    worst = min(standing, key=lambda fault: (fault.rank, fault.from_ms), default=None)
    return ("normal", "") if worst is None else (worst.word, worst.why)


def _at(spans: Iterable[Lasting], at_ms: int) -> Lasting | None:
    return next((span for span in spans if span.from_ms <= at_ms < span.to_ms), None)


def _is_open(opening: Sequence[tuple[int, int]], at_ms: int) -> bool:
    place = bisect_right(opening, at_ms, key=lambda span: span[0]) - 1
    return place >= 0 and at_ms < opening[place][1]
