"""What a channel wants to hear: severities, areas, quiet hours, when to be asked again. Pure; stored as the JSON of `channel.filters`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fleet_server.errors import FleetServerError
from fleet_server.sites.calendar import local_time

Severity = Literal["P1", "P2", "P3", "P4"]
Kind = Annotated[str, Meta(pattern=r"^[A-Z]{2,8}$")]
Minutes = Annotated[int, Meta(ge=1, le=24 * 60)]
Time = Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]

MINUTE_MS = 60_000
ESCALATIONS_MAX = 3
"""Chosen: after N, 2 N and 4 N minutes; somebody who was asked three times will not answer the fourth."""


class FilterError(FleetServerError):
    """Filters that cannot be read; whoever sets the channel must correct them."""


class Filters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Defaults suit a duty group: everything that hampers the public, small faults not by night.

    After 10 minutes without anybody on it a P1 is told again, a P2 after 30; the latter is the usual time in which a service has to respond.
    """

    severities: tuple[Severity, ...] = ("P1", "P2", "P3")
    areas: tuple[str, ...] = ()
    """Area codes, each with everything below it; none: everywhere. News about the platform goes to every channel."""
    quiet: Mapping[Severity, tuple[Time, Time]] = msgspec.field(default_factory=lambda: {"P3": ("20:00", "08:00")})
    """Severity → from, to, in the fleet's time zone; over midnight if `from` is later. What happens then is told afterwards if it still lasts."""
    escalate_min: Mapping[Severity, Minutes] = msgspec.field(default_factory=lambda: {"P1": 10, "P2": 30})
    recoveries: bool = True
    kinds: tuple[Kind, ...] = ()
    """Families of fault codes (`NET`, `PRN`); none: all. News about the platform goes to every channel."""
    every_min: Minutes = 1
    """At most one message in so many minutes; a P1 and the platform's blindness wait only for the first of them."""


def read_filters(text: str) -> Filters:
    """Raises FilterError, which names the place."""
    try:
        return msgspec.json.decode(text, type=Filters)
    except (msgspec.ValidationError, msgspec.DecodeError) as err:
        raise FilterError(f"filters: {err}") from None


def is_quiet(filters: Filters, severity: str, at_ms: int, zone: str) -> bool:
    """Whether news of this severity waits now."""
    span = next((span for name, span in filters.quiet.items() if name == severity), None)
    if span is None:
        return False
    start, end = span
    now = local_time(at_ms, zone).strftime("%H:%M")
    return start <= now < end if start <= end else now >= start or now < end


def quiet_until_ms(filters: Filters, severity: str, at_ms: int, zone: str) -> int | None:
    """When the quiet hours that hold at `at_ms` end; None if there are none then."""
    if not is_quiet(filters, severity, at_ms, zone):
        return None
    hour, minute = next(span[1] for name, span in filters.quiet.items() if name == severity).split(":")
    now = local_time(at_ms, zone)
    end = now.replace(hour=int(hour), minute=int(minute), second=0, microsecond=0)
    if end <= now:
        end += timedelta(days=1)
    return round(end.timestamp() * 1000)


def next_escalation_ms(filters: Filters, severity: str, told_ms: int, level: int) -> int | None:
    """When an unclaimed fault is told again that was told `level` times before; None if it never is."""
    minutes = next((minutes for name, minutes in filters.escalate_min.items() if name == severity), None)
    if minutes is None or level >= ESCALATIONS_MAX:
        return None
    return told_ms + (minutes * MINUTE_MS << level)
