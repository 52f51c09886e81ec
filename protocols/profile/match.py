"""Finds the profile for a device that was seen: by numeric specificity, a tie is an error, no fit is None. Never guesses.

A serial adapter identifies nobody. Behind it the device is asked (`probes`), and only at ports that the terminal's inventory lists; or the
inventory says what is there (`by_slot` rules, used when a kind is given). Where both exist, ask first: a device that does not answer is still
what the inventory calls it, and its silence is a fault.
A unit may be seen on two buses at once (a scanner as USB device and as input node): the caller treats sightings with one `usb_path` as one unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

from protocols.errors import ProtocolError
from protocols.profile.places import (
    CdcMatch,
    DisplayMatch,
    InputMatch,
    IppMatch,
    Match,
    PcscMatch,
    Probe,
    SerialMatch,
    SoundMatch,
    UsbMatch,
    VideoMatch,
)
from protocols.profile.schema import Kind, Profile

_VID, _PID, _PRODUCT, _SERIAL = 40, 60, 20, 20
_BY_SLOT, _ADAPTER, _PROBE = 5, 10, 20
_CLASS = 40
"""The system itself says what it is: a sound node with its direction, a connector with a screen, a touch screen."""


class AmbiguousMatch(ProtocolError):
    """Two profiles fit a device equally well; `profiles` are their ids. The inventory has to name one."""

    def __init__(self, profiles: tuple[str, ...]) -> None:
        super().__init__(f"profiles {' and '.join(profiles)} fit this device equally well; name one in the inventory")
        self.profiles = profiles


class Seen(Protocol):
    """What is known of a device before it is opened."""

    @property
    def bus(self) -> str: ...
    @property
    def vid(self) -> int | None: ...
    @property
    def pid(self) -> int | None: ...
    @property
    def serial(self) -> str | None: ...
    @property
    def product(self) -> str | None: ...
    @property
    def role(self) -> str | None: ...
    @property
    def path(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A profile whose rule fits; with a `probe` the device has the last word."""

    profile: Profile
    specificity: int
    probe: Probe | None


def match_profile(seen: Seen, profiles: Iterable[Profile], *, kind: Kind | None = None) -> Profile | None:
    """The profile of a device that identifies itself, or that the inventory calls a `kind`. Raises AmbiguousMatch on a tie."""
    sure = [candidate for candidate in candidates(seen, profiles, kind=kind) if candidate.probe is None]
    if not sure:
        return None
    best = [candidate.profile for candidate in sure if candidate.specificity == sure[0].specificity]
    if len(best) > 1:
        raise AmbiguousMatch(tuple(sorted(profile.id for profile in best)))
    return best[0]


def probes(seen: Seen, profiles: Iterable[Profile], *, kind: Kind | None = None) -> tuple[Candidate, ...]:
    """What may be asked at a port that the inventory lists, most specific first; the first whose reply fits is the profile."""
    return tuple(candidate for candidate in candidates(seen, profiles, kind=kind) if candidate.probe is not None)


def probe_fits(probe: Probe, reply: bytes) -> bool:
    """Whether the reply is what this family answers; noise and echo before it do not fit."""
    return re.match(probe.reply, reply.hex()) is not None


def candidates(seen: Seen, profiles: Iterable[Profile], *, kind: Kind | None = None) -> tuple[Candidate, ...]:
    """All profiles with a rule that fits, each with its best rule that asks and its best that does not, most specific first."""
    found: list[Candidate] = []
    for profile in profiles:
        if kind is not None and profile.kind is not kind:
            continue
        fits = [candidate for rule in profile.match for candidate in _fit(seen, profile, rule, kind)]
        for asking in (False, True):
            ways = [candidate for candidate in fits if (candidate.probe is not None) is asking]
            if ways:
                found.append(max(ways, key=lambda candidate: candidate.specificity))
    return tuple(sorted(found, key=lambda candidate: (-candidate.specificity, candidate.profile.id)))


def ties(profiles: Iterable[Profile]) -> list[tuple[str, str]]:
    """Pairs of profiles with rules that no device can tell apart; the suite over all profiles keeps this empty."""
    found = set()
    for first, second in combinations(profiles, 2):
        for one in first.match:
            for other in second.match:
                if isinstance(one, UsbMatch | InputMatch | CdcMatch | VideoMatch | SoundMatch | DisplayMatch) and _same(
                    one, other
                ):
                    if isinstance(one, VideoMatch) and (one.by_name or (one.by_slot and first.kind is not second.kind)):
                        continue
                    found.add((first.id, second.id))
    return sorted(found)


def _same(one: Match, other: Match) -> bool:
    return type(one) is type(other) and one == other


def _fit(seen: Seen, profile: Profile, rule: Match, kind: Kind | None) -> Iterator[Candidate]:
    score = _score(seen, rule)
    if score is None:
        return
    if isinstance(rule, SerialMatch):
        if rule.by_name or (rule.by_slot and kind is None):
            return
        yield Candidate(profile, score, rule.probe)
    elif not (isinstance(rule, VideoMatch) and (rule.by_name or (rule.by_slot and kind is None))):
        yield Candidate(profile, score, None)


def _score(seen: Seen, rule: Match) -> int | None:
    """How much of the device a rule names; None if it does not fit."""
    if isinstance(rule, UsbMatch):
        return _usb_score(seen, rule) if seen.bus == "usb" else None
    if isinstance(rule, InputMatch):
        return _input_score(seen, rule) if seen.bus == "input" else None
    if isinstance(rule, CdcMatch):
        return _VID + _PID if seen.bus == "serial" and (seen.vid, seen.pid) == (rule.vid, rule.pid) else None
    if isinstance(rule, VideoMatch):
        return _video_score(seen, rule) if seen.bus == "video" else None
    if isinstance(rule, SoundMatch):
        return _sound_score(seen, rule) if seen.bus == "sound" else None
    if isinstance(rule, DisplayMatch):
        return _CLASS if seen.bus == "display" and _text_fits(seen.path, rule.connector) else None
    if isinstance(rule, PcscMatch):
        return _BY_SLOT if seen.bus == "pcsc" else None
    if isinstance(rule, IppMatch):
        return _BY_SLOT if seen.bus == "ipp" and not rule.by_name else None
    if seen.bus not in ("serial", "pipe"):
        return None
    if rule.adapters and not any((seen.vid, seen.pid) == (adapter.vid, adapter.pid) for adapter in rule.adapters):
        return None
    return (_ADAPTER if rule.adapters else 0) + (_PROBE if rule.probe else _BY_SLOT)


def _usb_score(seen: Seen, rule: UsbMatch) -> int | None:
    if seen.vid != rule.vid or (rule.pid is not None and seen.pid != rule.pid):
        return None
    if not _text_fits(seen.product, rule.product) or not _text_fits(seen.serial, rule.serial):
        return None
    return _VID + _points(rule.pid, _PID) + _points(rule.product, _PRODUCT) + _points(rule.serial, _SERIAL)


def _input_score(seen: Seen, rule: InputMatch) -> int | None:
    if (rule.vid is not None and seen.vid != rule.vid) or (rule.pid is not None and seen.pid != rule.pid):
        return None
    if rule.touch != (seen.role == "touch") or not _text_fits(seen.product, rule.product):
        return None
    known = _points(rule.vid, _VID) + _points(rule.pid, _PID) + _points(rule.product, _PRODUCT)
    return known + (_CLASS if rule.touch else 0)


def _video_score(seen: Seen, rule: VideoMatch) -> int | None:
    if rule.by_slot or rule.by_name:
        return _BY_SLOT
    return _VID + _PID if (seen.vid, seen.pid) == (rule.vid, rule.pid) else None


def _sound_score(seen: Seen, rule: SoundMatch) -> int | None:
    if seen.role != rule.role or (rule.vid is not None and seen.vid != rule.vid):
        return None
    if (rule.pid is not None and seen.pid != rule.pid) or not _text_fits(seen.product, rule.product):
        return None
    return _CLASS + _points(rule.vid, _VID) + _points(rule.pid, _PID) + _points(rule.product, _PRODUCT)


def _points(part: object, points: int) -> int:
    return 0 if part is None else points


def _text_fits(text: str | None, pattern: str | None) -> bool:
    return pattern is None or (text is not None and re.search(pattern, text) is not None)
