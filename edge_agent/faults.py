"""Turns what drivers observe into fault episodes: debounced, damped against flapping, taken back by themselves. Pure: no clock, no device, no disk.

Observed is not the same as open, and unseen is not the same as gone: an observation says which codes it can judge, and what it cannot judge stays
as it was (a printer that stopped answering has not been refilled). Durations run on the boot clock, `since_ms` is wall time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from edge_agent.clock import ClockReading
from protocols.canon.faults import FAULTS, FaultKind, fault
from protocols.contract.messages import OpenFault
from protocols.contract.records import Evidence, Fault

MIN_OPEN_MS = 5_000
"""Chosen: an episode that a person sees stays long enough to be read; below the shortest walk to a terminal."""
FLAP_WINDOW_MS = 600_000
FLAP_OPENINGS = 3
"""The third opening within the window makes a fault flapping: a loose plug is one fault, not twenty."""
FLAP_QUIET_MS = 300_000
"""A flapping fault closes after so long without evidence."""
BIRTH_MAX_FAULTS = 128
"""The greeting's list has no more room; most severe first."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One fault code seen in one observation. `count`: bad readings needed to open, where the profile knows better than the catalogue."""

    code: str
    evidence: Evidence | None = None
    count: int | None = None


@dataclass(slots=True)
class _Episode:
    """One (slot, code): first a suspicion, then perhaps an open fault, then a memory of its openings."""

    kind: FaultKind
    bad_since_boot_ms: int | None = None
    bad_since_wall_ms: int = 0
    bad_count: int = 0
    needed: int = 1
    evidence: Evidence | None = None
    good_since_boot_ms: int | None = None
    open_as: Fault | None = None
    opened_boot_ms: int = 0
    openings_boot_ms: list[int] = field(default_factory=list)
    mandatory: bool = False
    profile: str | None = None


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """An open fault, or the memory of openings, across a restart. Ages, because the boot clock may start again."""

    slot: str | None
    code: str
    opening_ages_ms: tuple[int, ...]
    body: Fault | None


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    episodes: tuple[_Saved, ...] = ()
    unreported: tuple[Fault, ...] = ()


class FaultEngine:
    """All episodes of one terminal. `new_id` gives 8 random bytes. Every returned Fault must reach the recorder, in order."""

    def __init__(self, *, new_id: Callable[[], bytes]) -> None:
        self._new_id = new_id
        self._episodes: dict[tuple[str | None, str], _Episode] = {}

    def observe(
        self,
        slot: str | None,
        conditions: Iterable[Condition],
        now: ClockReading,
        *,
        judged: frozenset[str] | None = None,
        mandatory: bool = False,
        profile: str | None = None,
    ) -> list[Fault]:
        """What one observation of `slot` changes. `judged`: codes it can speak about, None for all; codes seen are judged in any case.

        `slot` None means the terminal itself (network, host, application). Raises UnknownFaultCode.
        """
        seen = {condition.code: condition for condition in conditions}
        for condition in seen.values():
            self._bad(slot, condition, now, mandatory, profile)
        for (owner, code), episode in self._episodes.items():
            if owner == slot and code not in seen and (judged is None or code in judged):
                _good(episode, now)
        return self._settle(slot, now, only_slot=True)

    def tick(self, now: ClockReading) -> list[Fault]:
        """What the passing of time alone changes."""
        return self._settle(None, now, only_slot=False)

    def next_due_ms(self) -> int | None:
        """Boot time at which `tick` may have something to say; None if only an observation can change anything."""
        return min((due for episode in self._episodes.values() if (due := _due_ms(episode)) is not None), default=None)

    def retire(self, keep: Iterable[str | None], now: ClockReading) -> list[Fault]:
        """The inventory changed: faults of slots that are not in `keep` are taken back at once."""
        kept = set(keep)
        closed = []
        for key in [key for key in self._episodes if key[0] not in kept]:
            episode = self._episodes.pop(key)
            if episode.open_as is not None:
                closed.append(_closing(episode.open_as))
        return closed

    def open_faults(self) -> list[Fault]:
        """The openings of all faults that are open now, oldest first."""
        bodies = [episode.open_as for episode in self._episodes.values() if episode.open_as is not None]
        return sorted(bodies, key=lambda body: (body.since_ms, body.code, body.slot or ""))

    def open_for_birth(self) -> tuple[OpenFault, ...]:
        """The greeting's snapshot, most severe first where there are more than it can hold."""
        worst = sorted(self.open_faults(), key=lambda body: (body.severity, body.since_ms))[:BIRTH_MAX_FAULTS]
        return tuple(
            OpenFault(
                id=body.id,
                code=body.code,
                severity=body.severity,
                since_ms=body.since_ms,
                slot=body.slot,
                mandatory=body.mandatory,
            )
            for body in worst
        )

    def export(self, now: ClockReading, unreported: Iterable[Fault] = ()) -> bytes:
        """What must survive a restart: open faults, recent openings, and changes that the recorder has not taken yet."""
        saved = [
            _Saved(
                slot,
                code,
                tuple(now.boot_ms - at for at in episode.openings_boot_ms if now.boot_ms - at <= FLAP_WINDOW_MS),
                None if episode.open_as is None else msgspec.structs.replace(episode.open_as, evidence=None),
            )
            for (slot, code), episode in self._episodes.items()
            if episode.open_as is not None or episode.openings_boot_ms
        ]
        return msgspec.msgpack.encode(_Snapshot(episodes=tuple(saved), unreported=tuple(unreported)))

    def restore(self, exported: bytes, now: ClockReading) -> list[Fault]:
        """Take up what `export` wrote; returns the unreported changes (same ids: taking one twice is one change).

        Raises ValueError for bytes that are not an export; nothing is taken up then.
        """
        try:
            snapshot = msgspec.msgpack.decode(exported, type=_Snapshot)
        except msgspec.MsgspecError as err:
            raise ValueError("the kept fault state is not readable") from err
        for saved in snapshot.episodes:
            kind = FAULTS.get(saved.code)
            if kind is None:
                continue  # written by a newer agent: nobody here could ever clear it
            episode = _Episode(kind, openings_boot_ms=[now.boot_ms - age for age in saved.opening_ages_ms])
            if saved.body is not None:
                episode.open_as = saved.body
                episode.opened_boot_ms = now.boot_ms - MIN_OPEN_MS
                episode.mandatory, episode.profile = saved.body.mandatory, saved.body.profile
            self._episodes[saved.slot, saved.code] = episode
        return list(snapshot.unreported)

    def _bad(self, slot: str | None, condition: Condition, now: ClockReading, mandatory: bool, profile: str | None) -> None:
        episode = self._episodes.get((slot, condition.code))
        if episode is None:
            episode = self._episodes[slot, condition.code] = _Episode(fault(condition.code))
        episode.good_since_boot_ms = None
        if episode.open_as is not None:
            return
        if episode.bad_since_boot_ms is None:
            episode.bad_since_boot_ms, episode.bad_since_wall_ms, episode.bad_count = now.boot_ms, now.wall_ms, 0
        episode.bad_count += 1
        episode.needed = condition.count or episode.kind.debounce_count
        episode.evidence = condition.evidence or episode.evidence
        episode.mandatory, episode.profile = mandatory, profile

    def _settle(self, slot: str | None, now: ClockReading, *, only_slot: bool) -> list[Fault]:
        changes: list[Fault] = []
        forgotten = []
        for key, episode in self._episodes.items():
            if only_slot and key[0] != slot:
                continue
            if episode.open_as is None:
                if _opens(episode, now.boot_ms):
                    changes.append(self._open(key, episode, now))
                elif episode.bad_since_boot_ms is None and not _recent(episode, now.boot_ms):
                    forgotten.append(key)
            elif _closes(episode, now.boot_ms):
                changes.append(_closing(episode.open_as))
                episode.open_as = None
                episode.good_since_boot_ms = None
        for key in forgotten:
            del self._episodes[key]
        return changes

    def _open(self, key: tuple[str | None, str], episode: _Episode, now: ClockReading) -> Fault:
        slot, code = key
        body = Fault(
            id=self._new_id(),
            code=code,
            change="open",
            severity=episode.kind.severity,
            slot=slot,
            mandatory=episode.mandatory or slot is None,
            since_ms=episode.bad_since_wall_ms,
            profile=episode.profile,
            evidence=episode.evidence,
        )
        episode.open_as, episode.opened_boot_ms = body, now.boot_ms
        episode.openings_boot_ms = [*_recent(episode, now.boot_ms), now.boot_ms]
        episode.bad_since_boot_ms, episode.bad_count, episode.evidence = None, 0, None
        return body


def _good(episode: _Episode, now: ClockReading) -> None:
    episode.bad_since_boot_ms, episode.bad_count, episode.evidence = None, 0, None
    if episode.open_as is not None and episode.good_since_boot_ms is None:
        episode.good_since_boot_ms = now.boot_ms


def _recent(episode: _Episode, boot_ms: int) -> list[int]:
    return [at for at in episode.openings_boot_ms if boot_ms - at <= FLAP_WINDOW_MS]


def _opens(episode: _Episode, boot_ms: int) -> bool:
    since = episode.bad_since_boot_ms
    return since is not None and episode.bad_count >= episode.needed and boot_ms - since >= episode.kind.debounce_s * 1000


def _closes(episode: _Episode, boot_ms: int) -> bool:
    due = _clear_due_ms(episode)
    return due is not None and boot_ms >= due


def _clear_due_ms(episode: _Episode) -> int | None:
    if episode.good_since_boot_ms is None:
        return None
    quiet_ms = int(episode.kind.clear_s * 1000)
    if len(episode.openings_boot_ms) >= FLAP_OPENINGS:
        quiet_ms = max(quiet_ms, FLAP_QUIET_MS)
    return max(episode.good_since_boot_ms + quiet_ms, episode.opened_boot_ms + MIN_OPEN_MS)


def _due_ms(episode: _Episode) -> int | None:
    if episode.open_as is not None:
        return _clear_due_ms(episode)
    if episode.bad_since_boot_ms is not None:
        enough = episode.bad_count >= episode.needed
        return episode.bad_since_boot_ms + int(episode.kind.debounce_s * 1000) if enough else None
    # A memory of openings is dropped when its window has passed.
    return max(episode.openings_boot_ms) + FLAP_WINDOW_MS + 1 if episode.openings_boot_ms else None


def _closing(body: Fault) -> Fault:
    return msgspec.structs.replace(body, change="clear", evidence=None)
