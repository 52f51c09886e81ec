"""The terminal list: what its address asks for, which rows fit, in which order, which version is wanted. Pure; the address is the view."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode

from fleet_server.console.model import SEVERITY_RANK, TerminalNow
from fleet_server.terminals.state import WORST_FIRST, Counts, StateCode, count_states

PER_PAGE: Final = 50
MAX_TEXT: Final = 80
DAY_MS: Final = 86_400_000
IDLE_NAME: Final = "idle.notice_days"
"""The threshold behind "14 days without a case"; it may differ by class of terminal."""


@dataclass(frozen=True, slots=True)
class Idle:
    """After how many days without a case a terminal is called idle; `by_class` where a class has a value of its own."""

    days: float = 14
    by_class: Mapping[str, float] = field(default_factory=dict)

    def limit_ms(self, owner_class: str) -> int:
        return int(self.by_class.get(owner_class, self.days) * DAY_MS)


USUALLY_IDLE: Final = Idle()

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
    tag: str = ""
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
            "tag": self.tag,
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
        tag=params.get("tag", "")[:MAX_TEXT],
        idle=params.get("idle", "") == "1",
        sort=sort if sort in SORTS or sort == "downtime" else DEFAULT_SORT,
        descending=descending,
        page=int(page) if page.isascii() and page.isdigit() and len(page) < 6 and int(page) > 0 else 1,
    )


def matches(row: TerminalNow, view: View, now_ms: int, *, idle: Idle = USUALLY_IDLE, but_state: bool = False) -> bool:
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
        and (not view.tag or any(view.tag.casefold() == tag.casefold() for tag in row.tags))
        and (not view.idle or is_idle(row, now_ms, idle))
    )


def states_of(word: str) -> frozenset[StateCode]:
    return GROUPS.get(word) or frozenset({StateCode(word)})


def is_idle(row: TerminalNow, now_ms: int, idle: Idle = USUALLY_IDLE) -> bool:
    """No case for so many days although it could have served: enrolled that long, and usable now."""
    since = max(row.last_case_ms or 0, now_ms if row.enrolled_ms is None else row.enrolled_ms)
    return row.usable and now_ms - since >= idle.limit_ms(row.owner_class)


def wanted_versions(terminals: Iterable[TerminalNow]) -> dict[str, str]:
    """By type of terminal the agent version that most of them run; of equally many the newer one.

    What a single machine claims can therefore never make all others look outdated.
    """
    by_type: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for terminal in terminals:
        if terminal.version:
            by_type[terminal.type][terminal.version] += 1
    return {type_: max(counts, key=lambda one: (counts[one], version_key(one))) for type_, counts in by_type.items()}


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions; parts that are no ordinary numbers come after numbers, as text."""
    parts = version.replace("-", ".").split(".")
    return tuple((0, int(part), "") if part.isascii() and part.isdigit() and len(part) < 10 else (1, 0, part) for part in parts)


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


def select(
    rows: Iterable[TerminalNow],
    view: View,
    now_ms: int,
    *,
    downtime_ms: dict[str, int] | None = None,
    idle: Idle = USUALLY_IDLE,
) -> Selected:
    """Filter and order. `downtime_ms` per terminal is needed for that one order."""
    fitting = [row for row in rows if matches(row, view, now_ms, idle=idle, but_state=True)]
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
