"""The value between planner and courier: what one message tells, apart from any channel's format. Stored as JSON, in both languages.

It holds what is known about machines and nothing that a person typed or did: no reasons, no notes, no account names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

EventKind = Literal["opened", "worsened", "unclaimed", "recovered"]
PlatformKind = Literal["blind", "sighted"]

PLATFORM = "platform"
"""Subject of what concerns the platform itself; no terminal's subject is without a bar."""
MANY_AT_SITE = 5
"""More terminals of one site with news of one kind are one line: an event of the site, not of its machines."""
EXAMPLES = 3
"""Machine codes named in such a line; a number alone would read the same tomorrow, and robots drop what they sent before."""


def subject_of(terminal: str, code: str) -> str:
    """What is told once while it lasts."""
    return f"{terminal}|{code}"


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """News about one fault of one terminal. Times are ms UTC."""

    kind: EventKind
    severity: str
    impact: str
    terminal: str
    label: str
    """The number on the machine."""
    fault: str
    fault_ids: tuple[str, ...] = ()
    """Rows in the console; several when the same fault has several slots."""
    name_zh: str = ""
    name_en: str = ""
    site: str = ""
    site_zh: str = ""
    site_en: str = ""
    area: str = ""
    since_ms: int
    until_ms: int | None = None
    level: int = 0
    """How often its being unclaimed was told, this time included."""

    @property
    def subject(self) -> str:
        return subject_of(self.terminal, self.fault)


class PlatformEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """News about the platform's own sight."""

    kind: PlatformKind
    cause: str
    since_ms: int
    until_ms: int | None = None


class Digest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One message. `id` is the same at every attempt to deliver it."""

    id: str
    at_ms: int
    events: tuple[Event, ...] = ()
    platform: PlatformEvent | None = None
    test: bool = False

    @property
    def worst(self) -> str:
        """The highest severity of what is still bad; the platform's blindness is the highest."""
        if self.platform is not None and self.platform.kind == "blind":
            return "P1"
        return min((event.severity for event in self.events if event.kind != "recovered"), default="P4")

    def count(self, kind: EventKind) -> int:
        return sum(event.kind == kind for event in self.events)


@dataclass(frozen=True, slots=True)
class SiteGroup:
    """Events of one kind at one site, too many to name each."""

    events: tuple[Event, ...]

    @property
    def first(self) -> Event:
        return self.events[0]

    @property
    def severity(self) -> str:
        return min(event.severity for event in self.events)

    @property
    def terminals(self) -> tuple[str, ...]:
        """Labels, each once, in order of appearance."""
        return tuple(dict.fromkeys(event.label for event in self.events))


def group(events: Iterable[Event]) -> Sequence[Event | SiteGroup]:
    """The lines of a digest: a site with more than MANY_AT_SITE terminals of one kind is one line, in the place of its first event."""
    ordered = list(events)
    at_site: dict[tuple[str, str], list[Event]] = {}
    for event in ordered:
        if event.site:
            at_site.setdefault((event.kind, event.site), []).append(event)
    many = {key for key, found in at_site.items() if len({event.terminal for event in found}) > MANY_AT_SITE}
    lines: list[Event | SiteGroup] = []
    for event in ordered:
        key = (event.kind, event.site)
        if key not in many:
            lines.append(event)
        elif at_site[key][0] is event:
            lines.append(SiteGroup(tuple(at_site[key])))
    return lines


def encode(digest: Digest) -> str:
    return msgspec.json.encode(digest).decode()


def decode(payload: str) -> Digest:
    return msgspec.json.decode(payload, type=Digest)
