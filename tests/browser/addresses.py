"""Every page of the console, by its route: what to open so that the page shows something.

`test_no_page_is_forgotten` compares this list with the routes of the application: a page that is new must be added here.
"""

from __future__ import annotations

from typing import Final

from tests.support.orders import CONFIGURED, LOCKED, RESTARTED, TALKATIVE, UNDECIDED
from tests.support.updates_seed import RUNNING, STOPPED, WAITING

STEADY_PAGES: Final[dict[str, tuple[str, ...]]] = {
    "/": ("/", "/?evidence=1/0"),
    "/terminals": ("/terminals", "/terminals?state=abnormal&sort=-cases", "/terminals?q=nothing-is-called-so"),
    "/terminals/{terminal_id:str}": (
        "/terminals/kf-0037",
        "/terminals/kf-0037?tab=usage",
        "/terminals/kf-0016?tab=faults&range=7d",
        "/terminals/kf-0152?tab=diagnostics&range=30d",
        "/terminals/kf-0019?tab=updates",
        "/terminals/kf-0201",
        f"/terminals/{TALKATIVE}?tab=orders",
        f"/terminals/{LOCKED}",
    ),
    "/terminals/{terminal_id:str}/configuration": (f"/terminals/{CONFIGURED}/configuration",),
    "/orders": ("/orders", "/orders?state=failed&kind=restart", "/orders?kind=unlock"),
    "/orders/{request_id:str}": (f"/orders/{RESTARTED}", f"/orders/{UNDECIDED}"),
    "/approvals": ("/approvals",),
    "/audit": ("/audit", "/audit?about=configuration&from=2026-11-01"),
    "/faults": ("/faults", "/faults?tab=today", "/faults?tab=all&site=yiwu-hall", "/faults?group=code&severity=P2"),
    "/evidence/{batch_id:int}/{idx:int}": ("/evidence/1/0",),
    "/evidence/fault/{fault_id:str}": ("/evidence/fault/kf-0151:ffffffffffffffff",),
    "/system": ("/system",),
    "/needs": ("/needs",),
    "/profiles": ("/profiles",),
    "/content": ("/content",),
    "/content/{package:int}": ("/content/1", "/content/2", "/content/3"),
    "/content/items": ("/content/items", "/content/items?area=yiwu"),
    "/updates": ("/updates",),
    "/updates/new": ("/updates/new", f"/updates/new?like={WAITING}"),
    "/updates/{rollout:str}": (f"/updates/{RUNNING}", f"/updates/{STOPPED}", f"/updates/{WAITING}"),
    "/updates/releases": ("/updates/releases",),
    "/updates/releases/{release:int}": ("/updates/releases/2",),
    "/updates/versions": ("/updates/versions",),
    "/figures": ("/figures", "/figures?period=2026-10&area=wucheng"),
    "/figures/terminals": ("/figures/terminals",),
    "/figures/zero": ("/figures/zero",),
    "/figures/behind": (
        "/figures/behind?figure=cases&period=2026-11&area=yiwu",
        "/figures/behind?figure=availability&part=denominator&period=2026-11&area=yiwu",
    ),
    "/figures/day": ("/figures/day?terminal=kf-0016&day=2026-11-17",),
    "/figures/month-report": ("/figures/month-report",),
    "/figures/published": ("/figures/published",),
    "/calendar": ("/calendar", "/calendar?year=2027"),
    "/thresholds": ("/thresholds",),
    "/wallboards": ("/wallboards",),
    "/map": ("/map",),
    "/notifications": ("/notifications",),
    "/sites": ("/sites",),
    "/sites/add": ("/sites/add",),
    "/sites/{code:str}": ("/sites/jindong-hall",),
    "/accounts": ("/accounts",),
    "/account": ("/account",),
    "/password": ("/password",),
}
"""For somebody who is signed in."""

DIALOGS: Final[dict[str, str]] = {
    "/terminals/add": "/terminals/add",
    "/terminals/{terminal_id:str}/maintenance": "/terminals/kf-0037/maintenance",
    "/terminals/{terminal_id:str}/stops": "/terminals/kf-0037/stops",
    "/terminals/{terminal_id:str}/retire": "/terminals/kf-0037/retire",
    "/faults/{fault_id:str}/note": "/faults/kf-0151:ffffffffffffffff/note",
    "/faults/{fault_id:str}/mute": "/faults/kf-0151:ffffffffffffffff/mute",
    "/notifications/add": "/notifications/add",
    "/thresholds/{name:str}": "/thresholds/presence.offline_s",
    "/content/add": "/content/add",
    "/updates/freeze": "/updates/freeze",
    "/updates/stop": "/updates/stop",
    "/updates/{rollout:str}/abort": f"/updates/{RUNNING}/abort",
    "/updates/{rollout:str}/reject": f"/updates/{WAITING}/reject",
    "/updates/{rollout:str}/terminals/{terminal:str}": f"/updates/{RUNNING}/terminals/kf-0019",
    "/updates/releases/{release:int}/bad": "/updates/releases/2/bad",
    "/updates/releases/{release:int}/notes": "/updates/releases/2/notes",
    "/accounts/add": "/accounts/add",
    "/accounts/{name:str}": "/accounts/viewer",
    "/areas/add": "/areas/add",
    "/terminals/{terminal_id:str}/orders/{action:str}": "/terminals/kf-0037/orders/restart",
    "/terminals/{terminal_id:str}/configuration/{version:int}/back": f"/terminals/{CONFIGURED}/configuration/1/back",
    "/orders/{request_id:str}/reject": f"/orders/{UNDECIDED}/reject",
    "/areas/{code:str}/edit": "/areas/jindong/edit",
}
"""Forms that open above a page."""

PUBLIC_PAGES: Final[dict[str, tuple[str, ...]]] = {
    "/login": ("/login", "/login?next=/faults"),
}
"""For everybody."""

ELSEWHERE: Final = frozenset({"/wall", "/figures/published/{publication:int}"})
"""Pages that need something made first; their own tests look at them."""

EXAMPLES: Final[dict[str, str]] = {
    "terminal_id": "kf-0037",
    "fault_id": "kf-0151:ffffffffffffffff",
    "batch_id": "1",
    "idx": "0",
    "file_path": "console.css",
    "request_id": RESTARTED,
    "action": "restart",
    "version": "1",
    "code": "jindong-hall",
    "number": "1",
    "publication": "1",
    "board": "1",
    "name": "presence.offline_s",
    "package": "1",
    "act": "submit",
    "rollout": RUNNING,
    "release": "2",
    "freeze": "1",
    "known": "good",
    "terminal": "kf-0019",
}
"""Values for the parameters of routes, so that each can be asked."""

STREAMS: Final = frozenset({"/live"})
"""Answers that never end."""


def addresses() -> list[tuple[str, bool]]:
    """(address, whether somebody must be signed in)."""
    return [
        *((address, True) for shown in STEADY_PAGES.values() for address in shown),
        *((address, False) for shown in PUBLIC_PAGES.values() for address in shown),
    ]
