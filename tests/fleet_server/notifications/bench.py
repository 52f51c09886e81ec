"""A desk for planner tests: a fleet as values, one or more channels, and time that a test moves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fleet_server.notifications.digest import Digest
from fleet_server.notifications.filters import Filters
from fleet_server.notifications.planner import (
    Fault,
    Listener,
    Message,
    Place,
    PlatformState,
    Seen,
    Sent,
    plan,
    standing_after,
)

NOON_MS = 1_780_027_200_000
"""2026-05-29 12:00:00 in Shanghai, a Friday."""
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
ZONE = "Asia/Shanghai"
SITES = 8


@dataclass
class Desk:
    """`look` plans and takes everything as delivered; `told` is what each channel got."""

    filters: Filters = field(default_factory=Filters)
    now_ms: int = NOON_MS
    faults: dict[str, Fault] = field(default_factory=dict)
    mutes: dict[str, int] = field(default_factory=dict)
    maintenance: dict[str, int] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    places: dict[str, Place] = field(default_factory=dict)
    platform: PlatformState = field(default_factory=lambda: PlatformState(watching_since_ms=NOON_MS - HOUR_MS))
    sent: Sent = field(default_factory=Sent)
    told: list[Digest] = field(default_factory=list)
    _numbers: Iterable[int] = field(default_factory=lambda: itertools.count(1))

    def opened(self, terminal: str, code: str = "PRN.JAM", severity: str = "P2", *, ago_ms: int = 0, **more: object) -> str:
        """A fault that opened `ago_ms` ago; returns its id."""
        key = f"{terminal}:{next(iter(self._numbers))}"
        at_ms = self.now_ms - ago_ms
        fault = Fault(
            id=key, terminal=terminal, code=code, severity=severity, impact="noService", opened_ms=at_ms, known_ms=at_ms
        )
        self.faults[key] = replace(fault, **more)  # type: ignore[arg-type]  # fields of Fault
        return key

    def change(self, key: str, **more: object) -> None:
        self.faults[key] = replace(self.faults[key], **more)  # type: ignore[arg-type]  # fields of Fault

    def clear(self, key: str, *, ago_ms: int = 0) -> None:
        self.change(key, cleared_ms=self.now_ms - ago_ms)

    def place(self, terminal: str) -> Place:
        if terminal not in self.places:
            number = int("".join(filter(str.isdigit, terminal)) or 0)
            site = f"S{number % SITES}"
            self.places[terminal] = Place(
                label=terminal.upper(),
                name_zh=f"{number} 号机",
                site=site,
                site_zh=f"大厅 {site}",
                areas=(f"A{number % 2}", "city"),
            )
        return self.places[terminal]

    def pass_ms(self, length_ms: int) -> None:
        self.now_ms += length_ms

    def seen(self) -> Seen:
        for fault in self.faults.values():
            self.place(fault.terminal)
        return Seen(
            faults=list(self.faults.values()),
            mutes=self.mutes,
            maintenance=self.maintenance,
            locked=frozenset(self.locked),
            platform=self.platform,
            places=self.places,
        )

    def messages(self) -> list[Message]:
        """What would be told now."""
        listener = Listener(id=1, filters=self.filters, zone=ZONE)
        made = plan(self.now_ms, self.seen(), [listener], {1: self.sent}, new_id=lambda: f"msg_{len(self.told) + 1}")
        standing = {subject: told for subject, told in self.sent.standing.items() if (1, subject) not in made.forget}
        self.sent = replace(self.sent, standing=standing)
        return made.messages

    def look(self) -> Digest | None:
        """Plan now, and deliver."""
        messages = self.messages()
        assert len(messages) <= 1
        if not messages:
            return None
        self.deliver(messages[0])
        return messages[0].digest

    def deliver(self, message: Message) -> None:
        self.told.append(message.digest)
        standing = standing_after(message.digest, self.sent.standing)
        self.sent = replace(self.sent, last_ms=message.digest.at_ms, standing=standing)

    def settle(self, length_ms: int = 3 * MINUTE_MS, step_ms: int = 5_000) -> list[Digest]:
        """Let time pass with looks; returns what was told meanwhile."""
        before = len(self.told)
        for _ in range(0, length_ms, step_ms):
            self.pass_ms(step_ms)
            self.look()
        return self.told[before:]


def kinds(digest: Digest | None) -> list[tuple[str, str]]:
    """(kind, subject) of each event; a message about the platform is (kind, "platform")."""
    if digest is None:
        return []
    found: list[tuple[str, str]] = [] if digest.platform is None else [(digest.platform.kind, "platform")]
    found += [(event.kind, event.subject) for event in digest.events]
    return found
