"""Digests to send in tests."""

from __future__ import annotations

from typing import Any

from fleet_server.notifications.digest import Digest, Event, PlatformEvent
from tests.fleet_server.notifications.bench import HOUR_MS, MINUTE_MS, NOON_MS

AT_MS = NOON_MS + 7 * MINUTE_MS + 5_000
"""12:07:05 in Shanghai."""


def event(terminal: str = "kf-0317", **more: Any) -> Event:
    values: dict[str, Any] = {
        "kind": "opened",
        "severity": "P2",
        "impact": "noService",
        "terminal": terminal,
        "label": terminal.upper(),
        "fault": "LSR.PAPER_OUT",
        "fault_ids": (f"{terminal}:aa",),
        "name_zh": "24 小时自助区 3 号机",
        "name_en": "Lobby 3",
        "site": "S1",
        "site_zh": "市民中心",
        "site_en": "Civic Centre",
        "area": "3307",
        "since_ms": NOON_MS,
    }
    return Event(**{**values, **more})


def digest(*events: Event, **more: Any) -> Digest:
    values: dict[str, Any] = {"id": "msg_0123456789abcdef", "at_ms": AT_MS, "events": events or (event(),)}
    return Digest(**{**values, **more})


def mixed() -> Digest:
    return digest(
        event("kf-0001", kind="unclaimed", severity="P1", fault="ENV.SMOKE", impact="some", level=2, since_ms=NOON_MS - HOUR_MS),
        event(),
        *(
            event(f"kf-10{number}", fault="NET.OFFLINE", site="S2", site_zh="金东行政服务中心", site_en="Jindong Hall")
            for number in range(8)
        ),
        event("kf-0002", kind="recovered", fault="PRN.JAM", until_ms=NOON_MS + 5 * MINUTE_MS, since_ms=NOON_MS - 26 * HOUR_MS),
        platform=PlatformEvent(kind="sighted", cause="", since_ms=NOON_MS - HOUR_MS, until_ms=NOON_MS),
    )


def many(count: int) -> Digest:
    """So many terminals, each at a site of its own, with long names."""
    name = "城乡居民一体化政务便民服务中心二十四小时自助服务区" * 2
    return digest(*(event(f"kf-{number:05d}", site=f"S{number}", site_zh=name, name_zh=name) for number in range(count)))
