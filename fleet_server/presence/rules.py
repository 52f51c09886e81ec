"""Owns what silence means: thresholds, the state of one terminal, silence of many at once. Pure; takes `now`.

Silence counts only while the platform itself could hear. A state turns worse by time that was observed, never by time in which nobody listened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

PresenceState = Literal["online", "suspect", "offline", "stopped", "unknown"]
GapCause = Literal["ingest", "broker", "silence"]
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS

TOGETHER_MS = 60_000
"""Terminals whose silence begins within this span fell silent together."""
MASS_SHARE = 0.3
"""More than this share of the online terminals silent together: the fault is on the platform's side; halls have power and lines of their own."""
MASS_LEAST = 3
MASS_SITES = 2
SITE_MANY = 5
"""So many terminals of one site silent together are one event of the site."""
BLIND_MS = 60_000
"""A platform outage shorter than this leaves all states as they are."""
RECONNECT_MS = 90_000
"""After an outage terminals have this long to come back before their silence counts again; agents wait up to a minute between attempts."""
WILL_AFTER_BIRTH_MS = 5_000
"""A will that arrives so soon after a greeting belongs to the connection before it: brokers send it when the new one takes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    suspect_ms: int
    offline_ms: int
    alarm_ms: int
    """Silence inside opening hours after which NET.OFFLINE opens."""


THRESHOLDS: Mapping[str, Thresholds] = {
    "government": Thresholds(suspect_ms=90_000, offline_ms=5 * MINUTE_MS, alarm_ms=10 * MINUTE_MS),
    "social": Thresholds(suspect_ms=2 * HOUR_MS, offline_ms=4 * HOUR_MS, alarm_ms=4 * HOUR_MS + 10 * MINUTE_MS),
}
"""By terminal class. Three missed heartbeats of 30 s; machines of partners report in bundles, hours apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is known about contact with one terminal."""

    seen_ms: int
    """Last contact, or the enrolment if there was none."""
    ever_seen: bool = True
    excused_ms: int = 0
    """Time since the last contact in which the platform could not hear."""
    held_until_ms: int = 0
    """Until then the state does not turn worse: terminals are reconnecting after an outage."""
    broken_ms: int | None = None
    """The broker reported a broken connection; None if there was contact since."""
    stopped_ms: int | None = None
    """The agent announced a stop; None if there was contact since."""


@dataclass(frozen=True, slots=True)
class Verdict:
    state: PresenceState
    cause: str
    from_ms: int


def silence_ms(sight: Sight, now_ms: int) -> int:
    """Observed silence."""
    return max(0, now_ms - sight.seen_ms - sight.excused_ms)


def judge(sight: Sight, before: Verdict | None, limits: Thresholds, now_ms: int) -> Verdict:
    """The presence of a terminal while the platform can hear. `before` is the verdict so far; it stands while the terminal is held."""
    if sight.stopped_ms is not None:
        return Verdict("stopped", "announced", sight.stopped_ms)
    if before is not None and now_ms < sight.held_until_ms:
        return before
    silent_ms = silence_ms(sight, now_ms)
    if silent_ms >= limits.offline_ms:
        return Verdict("offline", "silence" if sight.ever_seen else "neverSeen", now_ms - (silent_ms - limits.offline_ms))
    if sight.broken_ms is not None:
        return Verdict("suspect", "broken", sight.broken_ms)
    if silent_ms >= limits.suspect_ms:
        return Verdict("suspect", "silence" if sight.ever_seen else "neverSeen", now_ms - (silent_ms - limits.suspect_ms))
    return Verdict("online", "heard", sight.seen_ms) if sight.ever_seen else Verdict("suspect", "neverSeen", now_ms - silent_ms)


# Many at once ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Quiet:
    """A terminal that should be heard and is not."""

    terminal: str
    site: str
    since_ms: int


def mass_silence(quiet: Iterable[Quiet], heard: int) -> int | None:
    """Start of the moment in which terminals of several sites fell silent together, too many for each to have a reason of its own; else None.

    `quiet` are terminals that were online until lately, `heard` is how many still are.
    """
    ordered = sorted(quiet, key=lambda one: one.since_ms)
    least = max(MASS_LEAST, int(MASS_SHARE * (heard + len(ordered))) + 1)
    first = 0
    for last, one in enumerate(ordered):
        while one.since_ms - ordered[first].since_ms > TOGETHER_MS:
            first += 1
        together = ordered[first : last + 1]
        if len(together) >= least and len({each.site for each in together}) >= MASS_SITES:
            return ordered[first].since_ms
    return None


def silent_sites(quiet: Sequence[Quiet], terminals_of: Mapping[str, int]) -> frozenset[str]:
    """Sites of which five or more terminals, or all of several, fell silent together: one event, probably power or line."""
    by_site: dict[str, list[int]] = {}
    for one in quiet:
        by_site.setdefault(one.site, []).append(one.since_ms)
    return frozenset(
        site for site, starts in by_site.items() if _together(sorted(starts)) >= _least_of(terminals_of.get(site, 0))
    )


def _least_of(terminals: int) -> int:
    return min(SITE_MANY, max(2, terminals))


def _together(starts: Sequence[int]) -> int:
    """The largest number of starts within TOGETHER_MS."""
    most, first = 0, 0
    for last, start in enumerate(starts):
        while start - starts[first] > TOGETHER_MS:
            first += 1
        most = max(most, last - first + 1)
    return most


# For pages ------------------------------------------------------------------------------------------------------------------------------


def platform_blind_since(mark_ms: int | None, open_gaps: Iterable[tuple[int, str]], now_ms: int) -> tuple[int, GapCause] | None:
    """Since when and why the platform as a whole hears nobody; None while it does. For whoever reads the database.

    `mark_ms` is `watch_mark`: a watch that has not written for BLIND_MS is down. `open_gaps` are (from_ms, cause) of gaps without an end; silence
    of many is not blindness of all, the terminals concerned are `unknown` one by one.
    """
    whole = [(from_ms, cause) for from_ms, cause in open_gaps if cause in {"ingest", "broker"}]
    if whole:
        from_ms, cause = min(whole)
        return from_ms, "broker" if cause == "broker" else "ingest"
    if mark_ms is not None and now_ms - mark_ms >= BLIND_MS:
        return mark_ms, "ingest"
    return None
