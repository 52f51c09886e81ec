"""The fault list: what its address asks for, which faults fit, in which order and groups. Pure; the address is the view.

Open faults come out of memory (`matches`), the others out of the database (`where`): both read the same view, and a test holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from fleet_server.console.model import SEVERITY_RANK, FaultNow, TerminalNow

TABS: Final = ("open", "today", "all")
GROUPS: Final = ("site", "code")
OWNERS: Final = ("mine", "nobody")
STATUSES: Final = ("unclaimed", "claimed", "muted", "falseAlarm")
PER_PAGE: Final = 100
MAX_TEXT: Final = 80
FILTERS: Final = ("severity", "status", "owner", "site", "code", "profile", "terminal")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultView:
    """What the address of the list asks for. Unknown words fall back to "all", so an old link still opens."""

    tab: str = TABS[0]
    group: str = ""
    severity: str = ""
    status: str = ""
    owner: str = ""
    """`mine`, `nobody`, or the account of whoever has it."""
    site: str = ""
    code: str = ""
    profile: str = ""
    terminal: str = ""
    page: int = 1

    @property
    def filters(self) -> dict[str, str]:
        """Active filters in the order in which the page shows them."""
        return {name: value for name in FILTERS if (value := getattr(self, name))}

    def query(self, **changes: Any) -> str:
        """The query string of this view with `changes`; defaults are left out so that one view has one address."""
        changed = replace(self, **changes) if changes else self
        pairs: dict[str, str] = {} if changed.tab == TABS[0] else {"tab": changed.tab}
        if changed.group:
            pairs["group"] = changed.group
        pairs |= changed.filters
        if changed.page > 1:
            pairs["page"] = str(changed.page)
        return "?" + urlencode(pairs) if pairs else ""

    def without(self, name: str) -> str:
        return self.query(**{name: "", "page": 1})

    @property
    def cleared(self) -> str:
        """The same tab and grouping without any filter."""
        return FaultView(tab=self.tab, group=self.group).query()


def parse_view(params: dict[str, str]) -> FaultView:
    """Read an address; nothing in it can fail."""

    def one_of(name: str, words: tuple[str, ...], default: str = "") -> str:
        value = params.get(name, default)
        return value if value in words else default

    page = params.get("page", "1")
    return FaultView(
        tab=one_of("tab", TABS, TABS[0]),
        group=one_of("group", GROUPS),
        severity=one_of("severity", tuple(SEVERITY_RANK)),
        status=one_of("status", STATUSES),
        owner=params.get("owner", "")[:MAX_TEXT],
        site=params.get("site", "")[:MAX_TEXT],
        code=params.get("code", "")[:MAX_TEXT],
        profile=params.get("profile", "")[:MAX_TEXT],
        terminal=params.get("terminal", "")[:MAX_TEXT],
        page=int(page) if page.isascii() and page.isdigit() and len(page) < 6 and int(page) > 0 else 1,
    )


def status_of(fault: FaultNow, now_ms: int) -> str:
    """The one word of the status column. That it is over says more than who had it; that it was none says more than a mute."""
    if fault.cleared_ms is not None:
        return "recovered"
    if fault.false_alarm:
        return "falseAlarm"
    if fault.muted(now_ms):
        return "muted"
    return "claimed" if fault.claimed_by else "unclaimed"


def matches(fault: FaultNow, terminal: TerminalNow, view: FaultView, me: str, now_ms: int) -> bool:
    """Whether an open fault belongs to the view. `me` is the account that looks."""
    owner = me if view.owner == "mine" else view.owner
    return (
        (not view.severity or fault.severity == view.severity)
        and (not view.status or (fault.false_alarm if view.status == "falseAlarm" else status_of(fault, now_ms) == view.status))
        and (not owner or (fault.claimed_by is None if owner == "nobody" else fault.claimed_by == owner))
        and (not view.site or terminal.place.code == view.site)
        and (not view.code or fault.code == view.code)
        and (not view.profile or (fault.profile or "") == view.profile)
        and (not view.terminal or fault.terminal == view.terminal)
    )


def order(view: FaultView, fault: FaultNow, terminal: TerminalNow) -> Any:
    """Open faults: worst first, unclaimed first, longest first; inside a group in the same order."""
    own = (SEVERITY_RANK.get(fault.severity, 9), fault.claimed_by is not None, fault.since_ms)
    key = {"site": terminal.place.code, "code": fault.code}.get(view.group, "")
    return (key, *own)


def where(view: FaultView, me: str, now_ms: int, today_ms: int) -> tuple[str, dict[str, Any]]:
    """The condition on `fault f LEFT JOIN terminal t` for a tab that is read from the database, and its parameters."""
    parts = ["f.disputed = 0"]
    if view.tab == "open":
        parts.append("f.cleared_ms IS NULL AND t.revoked_ms IS NULL")
    elif view.tab == "today":
        parts.append("f.cleared_ms >= :today")
    owner = me if view.owner == "mine" else view.owner
    for name, condition in (
        (view.severity, "f.severity = :severity"),
        (view.site, "t.site = :site"),
        (view.code, "f.code = :code"),
        (view.profile, "coalesce(f.profile, '') = :profile"),
        (view.terminal, "f.terminal = :terminal"),
        (owner, "f.claimed_by IS NULL" if owner == "nobody" else "f.claimed_by = :owner"),
        (view.status, _STATUS.get(view.status, "")),
    ):
        if name:
            parts.append(condition)
    params = {
        "today": today_ms, "now": now_ms, "severity": view.severity, "site": view.site, "code": view.code, "profile": view.profile,
        "terminal": view.terminal, "owner": owner,
    }  # fmt: skip
    return " AND ".join(parts), params


_QUIET: Final = "(f.muted_until_ms IS NOT NULL AND f.muted_until_ms > :now)"
_STATUS: Final = {
    "falseAlarm": "f.false_alarm = 1",
    "muted": f"f.cleared_ms IS NULL AND f.false_alarm = 0 AND {_QUIET}",
    "claimed": f"f.cleared_ms IS NULL AND f.false_alarm = 0 AND NOT {_QUIET} AND f.claimed_by IS NOT NULL",
    "unclaimed": f"f.cleared_ms IS NULL AND f.false_alarm = 0 AND NOT {_QUIET} AND f.claimed_by IS NULL",
}
