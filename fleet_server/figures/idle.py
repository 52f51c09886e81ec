"""Owns what follows from a machine without cases: for how many whole months it has had none, and what is proposed. Pure.

The measure in the field is the month: had a case or not. A machine that is being repaired, or cannot be reached, is not idle by its own fault.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

Proposal = Literal["relocate", "withdraw", "repair", ""]


def months_without(last_day: str | None, in_service_since: str, until: str) -> int:
    """Whole calendar months, over by the end of the day `until`, that lie behind both the last case and the first day in service."""
    begin = date.fromisoformat(max(last_day or "", in_service_since))
    first = date(begin.year + begin.month // 12, begin.month % 12 + 1, 1)
    if last_day is None and begin.day == 1:
        first = begin
    behind = date.fromisoformat(until) + timedelta(days=1)
    return max(0, (behind.year - first.year) * 12 + behind.month - first.month)


def proposal(months: int, mark: str, *, relocate_months: float, withdraw_months: float) -> Proposal:
    """To move it, to take it away; for one that is marked as unable to serve, to repair it first."""
    if months < relocate_months:
        return ""
    if mark in {"maintenance", "locked", "fault", "offline"}:
        return "repair"
    if mark == "retired":
        return ""
    return "withdraw" if months >= withdraw_months else "relocate"
