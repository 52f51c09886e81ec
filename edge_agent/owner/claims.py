"""Who has which device: one connection at a time, by a lease that must be renewed. Pure: time is passed in.

XFS4IoT leaves it to the service how several clients share a device (CWA 17852, part 1); here they do not share what passes citizens' data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class ClaimTaken(Exception):
    """Somebody else has the device; `by` is the application's name and nothing more."""

    def __init__(self, by: str) -> None:
        super().__init__("the device is claimed")
        self.by = by


@dataclass(slots=True)
class Claim:
    """`holder`: a connection; compared by identity. `busy`: commands of it that are at the device, during which the lease does not end.

    `ending`: the holder has lost it, its last command is still letting go of the device.
    """

    slot: str
    holder: object
    name: str
    lease_ms: int
    seen_ms: int
    busy: int = 0
    ending: bool = False


class Claims:
    """All claims of one terminal."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def take(self, slot: str, holder: object, name: str, *, lease_ms: int, now_ms: int) -> Claim:
        """A claim, or the holder's own again with another lease. Raises ClaimTaken."""
        known = self._claims.get(slot)
        if known is not None and (known.holder is not holder or known.ending):
            raise ClaimTaken(known.name)
        if known is None:
            known = self._claims[slot] = Claim(slot, holder, name, lease_ms, now_ms)
        known.name, known.lease_ms, known.seen_ms = name, lease_ms, now_ms
        return known

    def of(self, slot: str, holder: object) -> Claim | None:
        """The holder's claim of the slot, while it has one."""
        claim = self._claims.get(slot)
        return claim if claim is not None and claim.holder is holder and not claim.ending else None

    def on(self, slot: str) -> Claim | None:
        """Whoever's claim, also one that is ending."""
        return self._claims.get(slot)

    def seen(self, claim: Claim, now_ms: int) -> None:
        """A sign of life of the application."""
        claim.seen_ms = max(claim.seen_ms, now_ms)

    def run_out(self, now_ms: int) -> list[Claim]:
        """Claims whose lease has ended, none that has a command at its device."""
        return [one for one in self._claims.values() if not one.busy and not one.ending and now_ms - one.seen_ms >= one.lease_ms]

    def idle(self) -> list[Claim]:
        """Claims without a command at their device."""
        return [one for one in self._claims.values() if not one.busy and not one.ending]

    def drop(self, claim: Claim) -> None:
        """The device is free again."""
        if self._claims.get(claim.slot) is claim:
            del self._claims[claim.slot]

    @property
    def busy(self) -> bool:
        return any(one.busy for one in self._claims.values())

    def names(self) -> Mapping[str, str]:
        """Slot to application."""
        return {slot: claim.name for slot, claim in self._claims.items()}

    def next_end_ms(self) -> int | None:
        """When a lease will end if nothing is heard; None if there is none."""
        return min((one.seen_ms + one.lease_ms for one in self._claims.values() if not one.busy and not one.ending), default=None)
