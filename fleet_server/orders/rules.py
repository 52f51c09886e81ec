"""Who may ask what of terminals, and who must agree: pure decisions over stored values and `now`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from protocols.contract.orders import OrderBody, PullLogs
from protocols.contract.orders import needs_two as contract_needs_two

Kind = Literal["selfTest", "restart", "pullLogs", "cancel", "configuration", "lock", "unlock"]
RequestState = Literal["waiting", "approved", "rejected", "withdrawn", "lapsed", "refused"]
ItemState = Literal[
    "asked", "ready", "sent", "received", "waiting", "running", "done", "failed", "refused", "expired", "cancelled", "superseded", "dropped",
]  # fmt: skip
ITEM_STATES: Final[tuple[ItemState, ...]] = (
    "asked", "ready", "sent", "received", "waiting", "running", "done", "failed", "refused", "expired", "cancelled", "superseded", "dropped",
)  # fmt: skip
FINAL: Final[frozenset[str]] = frozenset({"done", "failed", "refused", "expired", "cancelled", "superseded", "dropped"})
DESIRED_KINDS: Final[frozenset[str]] = frozenset({"configuration", "lock", "unlock"})
RISKY_DESIRED: Final[frozenset[str]] = frozenset({"configuration"})

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
INDEPENDENT_MS: Final = 7 * DAY_MS
"""Chosen: who made an account, set its password or gave it its role can sign in as it, or could until lately."""
LONGEST_MS: Final = 30 * DAY_MS
"""Terminals remember ids until a day after expiry (O-210): nobody may fill their memory for years."""
SHORTEST_MS: Final = MINUTE_MS
LOGS_MOST_MS: Final = 31 * DAY_MS
TERMINALS_MAX: Final = 5_000
NOTE_MAX: Final = 200
BATCH_TWO: Final = 20
BATCH_MS: Final = 3_600_000
"""Chosen: many small requests one after the other are one large one; an hour later it is another piece of work."""
TOUCHES: Final[frozenset[str]] = frozenset({"add", "reset", "role", "enable"})
"""Kinds of account events with which somebody gets hold of another person's account, or makes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Somebody changed an account."""

    by: str
    staff: str
    kind: str
    at_ms: int


def needs_two(kind: str, body: OrderBody | None, terminals: int, batch_two: int = BATCH_TWO) -> Literal["", "risky", "batch"]:
    """Why a second person must approve, if one must; `terminals` as `requests.reach` counts them.

    A cancel and an unlock of many are as harmless as of one; a lock of many is not: it closes the city.
    """
    if kind in RISKY_DESIRED or (body is not None and contract_needs_two(body)):
        return "risky"
    if terminals > batch_two and kind not in ("cancel", "unlock"):
        return "batch"
    return ""


def approver_problem(requested_by: str, approver: str, touches: Iterable[Touch], now_ms: int) -> str | None:
    """Why `approver` is no second person; `touches` are the changes of all accounts by people.

    Whoever had an account in hand may sit behind it, and behind every account that one had in hand: a third account is no way round. So touches are
    followed in both directions; two accounts that one person made are no pair either.
    """
    if approver == requested_by:
        return "orderSelf"
    beside: dict[str, set[str]] = {}
    for touch in touches:
        if touch.kind in TOUCHES and touch.at_ms > now_ms - INDEPENDENT_MS:
            beside.setdefault(touch.by, set()).add(touch.staff)
            beside.setdefault(touch.staff, set()).add(touch.by)
    reached, open_ends = {requested_by}, [requested_by]
    while open_ends:
        fresh = beside.get(open_ends.pop(), set()) - reached
        reached |= fresh
        open_ends.extend(fresh)
    return "orderNotIndependent" if approver in reached else None


def expiry_problem(expires_ms: int, now_ms: int) -> str | None:
    if expires_ms < now_ms + SHORTEST_MS:
        return "orderExpirySoon"
    if expires_ms > now_ms + LONGEST_MS:
        return "orderExpiryLate"
    return None


def logs_problem(body: PullLogs, now_ms: int) -> str | None:
    if not body.from_ms < body.to_ms or body.from_ms > now_ms:
        return "orderLogSpan"
    if body.to_ms - body.from_ms > LOGS_MOST_MS:
        return "orderLogLong"
    return None


def rank(state: str, reason: str) -> int:
    """Which of several reports on one order says what became of it: an end outweighs the way to it, and that it was sent once more says nothing."""
    if state == "refused" and reason in ("replayed", "stale"):
        return 1
    return {"received": 2, "waiting": 3, "running": 4}.get(state, 5)
