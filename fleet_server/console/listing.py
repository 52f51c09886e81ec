"""The terminal list: what its address asks for, which rows fit, in which order. Pure; the address is the view."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from fleet_server.console.model import SEVERITY_RANK, TerminalNow
from fleet_server.terminals.state import WORST_FIRST, Counts, StateCode, count_states

PER_PAGE: Final = 50
IDLE_MS: Final = 14 * 86_400_000
MAX_TEXT: Final = 80

_STATE_RANK: Final = {state: rank for rank, state in enumerate(WORST_FIRST)}
GROUPS: Final = {
    "online": frozenset({StateCode.NORMAL, StateCode.PARTIAL, StateCode.UNUSABLE, StateCode.SUSPECT}),
    "abnormal": frozenset({StateCode.PARTIAL, StateCode.UNUSABLE}),
    "expected": frozenset({StateCode.NORMAL, StateCode.PARTIAL, StateCode.UNUSABLE, StateCode.SUSPECT, StateCode.OFFLINE}),
}
"""Tiles that are sums of states."""

_Key = Callable[[TerminalNow], Any]


def _worst_first(row: TerminalNow) -> Any:
    worst = row.worst
    return (_STATE_RANK[row.state], *(worst.rank if worst else (9, 9, row.state_since_ms or 0)), row.label)


def _by_fault(row: TerminalNow) -> Any:
    return (SEVERITY_RANK.get(row.worst.severity, 8) if row.worst else 9, row.worst.since_ms if row.worst else 0, row.label)


SORTS: Final[dict[str, _Key]] = {
    "state": _worst_first,
    "code": lambda row: row.label,
    "site": lambda row: (row.place.code, row.label),
    "type": lambda row: (row.type, row.label),
    "fault": _by_fault,
    "lamps": lambda row: (-row.bad_lamps, row.label),
    "cases": lambda row: (row.cases_today, row.cases_30d, row.label),
    "idle": lambda row: (row.last_case_ms or 0, row.label),
    "age": lambda row: (row.heard_ms or 0, row.label),
    "version": lambda row: (row.version or "", row.label),
}
"""`downtime` is the one order that needs history; the caller adds it."""
DEFAULT_SORT: Final = "state"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the address of the list asks for. Unknown words fall back to "all", so an old link still opens."""

    q: str = ""
    state: str = ""
    """A state, or `online` or `abnormal`."""
    area: str = ""
    kind: str = ""
    type: str = ""
    code: str = ""
    version: str = ""
    site: str = ""
    idle: bool = False
    sort: str = DEFAULT_SORT
    descending: bool = False
    page: int = 1

    @property
    def filters(self) -> dict[str, str]:
        """Active filters in the order in which the page shows them."""
        named = {
            "q": self.q,
            "state": self.state,
            "area": self.area,
            "site": self.site,
            "kind": self.kind,
            "type": self.type,
            "code": self.code,
            "version": self.version,
            "idle": "1" if self.idle else "",
        }
        return {name: value for name, value in named.items() if value}

    def query(self, **changes: Any) -> str:
        """The query string of this view with `changes`; defaults are left out so that one view has one address."""
        changed = replace(self, **changes) if changes else self
        pairs: dict[str, str] = dict(changed.filters)
        if changed.sort != DEFAULT_SORT or changed.descending:
            pairs["sort"] = ("-" if changed.descending else "") + changed.sort
        if changed.page > 1:
            pairs["page"] = str(changed.page)
        return "?" + urlencode(pairs) if pairs else ""

    def without(self, name: str) -> str:
        return self.query(**{name: False if name == "idle" else "", "page": 1})

    def sorted_by(self, name: str) -> str:
        """Address of the header link: the column, or its other direction if it is the order already."""
        return self.query(sort=name, descending=self.sort == name and not self.descending, page=1)


def parse_view(params: dict[str, str]) -> View:
    """Read an address; nothing in it can fail."""
    sort = params.get("sort", "")
    descending, sort = sort.startswith("-"), sort.lstrip("-")
    state = params.get("state", "")
    page = params.get("page", "1")
    return View(
        q=" ".join(params.get("q", "")[:MAX_TEXT].split()),
        state=state if state in GROUPS or state in set(WORST_FIRST) else "",
        area=params.get("area", "")[:MAX_TEXT],
        kind=params.get("kind", "")[:MAX_TEXT],
        type=params.get("type", "")[:MAX_TEXT],
        code=params.get("code", "")[:MAX_TEXT],
        version=params.get("version", "")[:MAX_TEXT],
        site=params.get("site", "")[:MAX_TEXT],
        idle=params.get("idle", "") == "1",
        sort=sort if sort in SORTS or sort == "downtime" else DEFAULT_SORT,
        descending=descending,
        page=int(page) if page.isascii() and page.isdigit() and len(page) < 6 and int(page) > 0 else 1,
    )


def matches(row: TerminalNow, view: View, now_ms: int, *, but_state: bool = False) -> bool:
    """Whether `row` belongs to the view; `but_state` leaves the state filter out, for the counts on the state chips."""
    if not but_state and view.state and row.state not in states_of(view.state):
        return False
    return (
        (not view.q or all(word in row.haystack for word in view.q.casefold().split()))
        and (not view.area or view.area in row.place.area_codes)
        and (not view.site or view.site == row.place.code)
        and (not view.kind or view.kind == row.place.kind)
        and (not view.type or view.type == row.type)
        and (not view.version or view.version == (row.version or ""))
        and (not view.code or any(fault.code == view.code for fault in row.faults))
        and (not view.idle or is_idle(row, now_ms))
    )


def states_of(word: str) -> frozenset[StateCode]:
    return GROUPS.get(word) or frozenset({StateCode(word)})


def is_idle(row: TerminalNow, now_ms: int) -> bool:
    """No case for 14 days although it could have served: enrolled that long, and usable now."""
    since = max(row.last_case_ms or 0, now_ms if row.enrolled_ms is None else row.enrolled_ms)
    return row.usable and now_ms - since >= IDLE_MS


def counts(rows: Iterable[TerminalNow]) -> Counts:
    return count_states(row.state for row in rows)


@dataclass(frozen=True, slots=True)
class Selected:
    """The rows of a view: all of them in order, and how many each state chip would show."""

    rows: Sequence[TerminalNow]
    by_state: Counts
    view: View

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.rows) // PER_PAGE))

    @property
    def page(self) -> int:
        return min(self.view.page, self.pages)

    @property
    def shown(self) -> Sequence[TerminalNow]:
        return self.rows[(self.page - 1) * PER_PAGE : self.page * PER_PAGE]

    @property
    def first(self) -> int:
        return (self.page - 1) * PER_PAGE + 1 if self.rows else 0


def select(rows: Iterable[TerminalNow], view: View, now_ms: int, *, downtime_ms: dict[str, int] | None = None) -> Selected:
    """Filter and order. `downtime_ms` per terminal is needed for that one order."""
    fitting = [row for row in rows if matches(row, view, now_ms, but_state=True)]
    by_state = counts(fitting)
    if view.state:
        wanted = states_of(view.state)
        fitting = [row for row in fitting if row.state in wanted]
    if view.sort == "downtime":
        down = downtime_ms or {}
        fitting.sort(key=lambda row: (-down.get(row.id, 0), row.label), reverse=view.descending)
    else:
        fitting.sort(key=SORTS[view.sort], reverse=view.descending)
    return Selected(fitting, by_state, view)
