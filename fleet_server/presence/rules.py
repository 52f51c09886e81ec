"""Owns what silence means: thresholds, the state of one terminal, silence of many at once. Pure; takes `now`.

Silence counts only while the platform itself could hear. A state turns worse by time that was observed, never by time in which nobody listened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from fleet_server.thresholds.defaults import DEFAULTS, TERMINAL_CLASSES

PresenceState = Literal["online", "suspect", "offline", "stopped", "unknown"]
GapCause = Literal["ingest", "broker", "silence"]
WILL_AFTER_BIRTH_MS = 5_000
"""A will that arrives so soon after a greeting belongs to the connection before it: brokers send it when the new one takes over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """How long one terminal may be silent. Three missed heartbeats of 30 s are a suspicion; machines of partners report in bundles, hours apart."""

    suspect_ms: int
    offline_ms: int
    alarm_ms: int
    """Silence inside opening hours after which NET.OFFLINE opens."""

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Thresholds:
        """From the thresholds of a class of terminals, by name."""
        return cls(
            suspect_ms=_ms(values["presence.suspect_s"]),
            offline_ms=_ms(values["presence.offline_s"]),
            alarm_ms=_ms(values["presence.alarm_s"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """When silence of many is no silence of each."""

    together_ms: int
    """Terminals whose silence begins within this span fell silent together."""
    mass_share: float
    """More than this share of the online terminals silent together: the fault is on the platform's side; halls have power and lines of their own."""
    mass_least: int
    mass_sites: int
    site_many: int
    """So many terminals of one site silent together are one event of the site."""
    blind_ms: int
    """A platform outage shorter than this leaves all states as they are."""
    reconnect_ms: int
    """After an outage terminals have this long to come back before their silence counts again; agents wait up to a minute between attempts."""

    @classmethod
    def of(cls, values: Mapping[str, float]) -> Crowd:
        """From the thresholds of the platform, by name."""
        return cls(
            together_ms=_ms(values["platform.together_s"]),
            mass_share=values["platform.mass_share"],
            mass_least=int(values["platform.mass_terminals"]),
            mass_sites=int(values["platform.mass_sites"]),
            site_many=int(values["alarm.site_terminals"]),
            blind_ms=_ms(values["platform.blind_s"]),
            reconnect_ms=_ms(values["presence.reconnect_s"]),
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


THRESHOLDS: Final[Mapping[str, Thresholds]] = MappingProxyType(
    {
        owner: Thresholds.of({name: default.by_class.get(owner, default.value) for name, default in DEFAULTS.items()})
        for owner in TERMINAL_CLASSES
    }
)
"""By terminal class, unless somebody set others."""
CROWD: Final = Crowd.of({name: default.value for name, default in DEFAULTS.items()})
"""Unless somebody set others."""
BLIND_MS: Final = CROWD.blind_ms
RECONNECT_MS: Final = CROWD.reconnect_ms


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


def mass_silence(quiet: Iterable[Quiet], heard: int, crowd: Crowd = CROWD) -> int | None:
    """Start of the moment in which terminals of several sites fell silent together, too many for each to have a reason of its own; else None.

    `quiet` are terminals that were online until lately, `heard` is how many still are.
    """
    ordered = sorted(quiet, key=lambda one: one.since_ms)
    least = max(crowd.mass_least, int(crowd.mass_share * (heard + len(ordered))) + 1)
    first = 0
    for last, one in enumerate(ordered):
        while one.since_ms - ordered[first].since_ms > crowd.together_ms:
            first += 1
        together = ordered[first : last + 1]
        if len(together) >= least and len({each.site for each in together}) >= crowd.mass_sites:
            return ordered[first].since_ms
    return None


def silent_sites(quiet: Sequence[Quiet], terminals_of: Mapping[str, int], crowd: Crowd = CROWD) -> frozenset[str]:
    """Sites of which many terminals (by default five), or all of several, fell silent together: one event, probably power or line."""
    by_site: dict[str, list[int]] = {}
    for one in quiet:
        by_site.setdefault(one.site, []).append(one.since_ms)
    return frozenset(
        site
        for site, starts in by_site.items()
        if _together(sorted(starts), crowd.together_ms) >= min(crowd.site_many, max(2, terminals_of.get(site, 0)))
    )


def _together(starts: Sequence[int], within_ms: int) -> int:
    """The largest number of starts within the span."""
    most, first = 0, 0
    for last, start in enumerate(starts):
        while start - starts[first] > within_ms:
            first += 1
        most = max(most, last - first + 1)
    return most


# For pages ------------------------------------------------------------------------------------------------------------------------------


def platform_blind_since(
    mark_ms: int | None, open_gaps: Iterable[tuple[int, str]], now_ms: int, *, blind_ms: int = BLIND_MS
) -> tuple[int, GapCause] | None:
    """Since when and why the platform as a whole hears nobody; None while it does. For whoever reads the database.

    `mark_ms` is `watch_mark`: a watch that has not written for `blind_ms` is down. `open_gaps` are (from_ms, cause) of gaps without an end; silence
    of many is not blindness of all, the terminals concerned are `unknown` one by one.
    """
    whole = [(from_ms, cause) for from_ms, cause in open_gaps if cause in {"ingest", "broker"}]
    if whole:
        from_ms, cause = min(whole)
        return from_ms, "broker" if cause == "broker" else "ingest"
    if mark_ms is not None and now_ms - mark_ms >= blind_ms:
        return mark_ms, "ingest"
    return None
