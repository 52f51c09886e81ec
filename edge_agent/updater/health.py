"""Owns the verdict on a version in probation: local evidence only, no server and no network needed. Pure.

A version is good when it says who it is, the process is that version's, every mandatory device that worked before works again, and its memory stays
below the limit, without a break for `steady_ms`. It is bad when it loses a device for good, eats memory, or says nothing of the kind in time.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge_agent.updater.handover import Health
from protocols.canon.words import DeviceState
from protocols.contract.records import UpdateReason

WORKING = frozenset({DeviceState.ONLINE, DeviceState.BUSY, DeviceState.IN_USE, DeviceState.USER_ERROR})
"""The device is there and answers: somebody must refill it or close a cover, but no version lost it."""


class Before(msgspec.Struct, frozen=True, kw_only=True):
    """What worked before the switch; persisted with the workflow."""

    working: tuple[str, ...] = ()
    """Mandatory slots whose device worked."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the running agent. `fresh`: its health file is of this boot and young; `owned`: the process it names runs from the new tree."""

    health: Health | None
    fresh: bool
    owned: bool
    rss_kib: int | None
    now_boot_ms: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    rss_kib: int
    steady_ms: int = 20_000
    """For so long everything must be well without a break."""
    device_ms: int = 60_000
    """A mandatory device may need so long after a start before it counts as lost."""


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the probation has seen so far; lost at a reboot on purpose: the new version must prove itself on the boot that it runs in."""

    well_since_ms: int | None = None
    lost_since_ms: int | None = None
    over_since_ms: int | None = None
    lost: tuple[str, ...] = ()


Verdict = Literal["good", "bad", "wait"]


def before(health: Health | None) -> Before:
    """What the old version could use; nothing when it says nothing (then nothing can be lost)."""
    if health is None:
        return Before()
    return Before(working=tuple(sorted(slot for slot in health.mandatory if _works(health, slot))))


def look(watch: Watch, evidence: Evidence, was: Before, version: str, limits: Limits) -> tuple[Watch, Verdict, UpdateReason]:
    """The next state of the watch, and what it means. Reasons of `wait` say what is missing; they become the rollback's when time is up."""
    now, health = evidence.now_boot_ms, evidence.health
    if health is None or not evidence.fresh or health.version != version or not evidence.owned:
        return msgspec.structs.replace(watch, well_since_ms=None), "wait", "noConfirmation"
    if evidence.rss_kib is not None and evidence.rss_kib > limits.rss_kib:
        since = now if watch.over_since_ms is None else watch.over_since_ms
        watch = msgspec.structs.replace(watch, over_since_ms=since, well_since_ms=None)
        return watch, "bad" if now - since >= limits.steady_ms // 2 else "wait", "memory"
    watch = msgspec.structs.replace(watch, over_since_ms=None)
    lost = tuple(slot for slot in was.working if not _works(health, slot))
    if lost:
        since = now if watch.lost_since_ms is None else watch.lost_since_ms
        watch = msgspec.structs.replace(watch, lost_since_ms=since, lost=lost, well_since_ms=None)
        return watch, "bad" if now - since >= limits.device_ms else "wait", "peripheralLost"
    since = now if watch.well_since_ms is None else watch.well_since_ms
    watch = msgspec.structs.replace(watch, well_since_ms=since, lost_since_ms=None, lost=())
    return watch, "good" if now - since >= limits.steady_ms else "wait", "none"


def _works(health: Health, slot: str) -> bool:
    return health.devices.get(slot) in WORKING
