"""The form of a new rollout: what was typed as a draft, and a draft or an earlier rollout as what stands in the fields. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleet_server.errors import Refused
from fleet_server.forms import Problems
from fleet_server.rollouts import acts
from fleet_server.rollouts.query import Query, of_form
from fleet_server.rollouts.rules import DAY_S, HOUR_S, WAVES_MAX, Policy, Step
from fleet_server.rollouts.store import Sheet
from fleet_server.sites.calendar import local_time, zone_of

NUMBERS: Final = {
    # field: (policy's field, one unit in the policy's unit, low, high, whole number)
    "canary": ("canary", 1, 0, 50, True),
    "success": ("success_percent", 1, 1, 100, False),
    "soak": ("soak_s", HOUR_S, 0, 720, False),
    "failure_count": ("failure_count", 1, 1, 1000, True),
    "failure_first": ("failure_first", 1, 1, 1000, True),
    "failure_percent": ("failure_percent", 1, 0.1, 100, False),
    "timeout": ("timeout_s", HOUR_S, 0.1, 720, False),
    "give_up": ("give_up_s", DAY_S, 0.1, 90, False),
    "hall": ("hall_percent", 1, 0, 100, False),
    "rate": ("starts_per_minute", 1, 1, 1000, True),
    "freeze_days": ("freeze_days", 1, 0, 14, True),
    "probation": ("probation_s", 60, 0.1, 1440, False),
}
LISTS: Final = ("type", "siteKind")
_WAVE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*[%％]|(\d+)")
_SPLIT: Final = re.compile(r"[,，;；、\s]+(?![%％])")
Form = Mapping[str, Sequence[str]]


def first(form: Form, name: str, default: str = "") -> str:
    values = form.get(name, ())
    return values[0].strip() if values else default


def of_policy(policy: Policy, zone: str) -> dict[str, str]:
    """A policy as the form's fields show it."""
    fields = {name: f"{getattr(policy, to) / unit:g}" for name, (to, unit, *_rest) in NUMBERS.items()}
    waves = [f"{step.percent:g}%" if step.percent is not None else str(step.count) for step in policy.steps]
    return {
        **fields,
        "waves": ", ".join(waves),
        "window": policy.window,
        "ignore_freeze": "1" if policy.ignore_freeze else "",
        "downgrade": "1" if policy.downgrade else "",
        "late": "1" if policy.late_joiners else "",
        "not_before": f"{local_time(policy.not_before_ms, zone):%Y-%m-%dT%H:%M}" if policy.not_before_ms else "",
        "bandwidth": f"{policy.rate_bytes_s / 1000:g}" if policy.rate_bytes_s else "",
    }


def of_sheet(sheet: Sheet, zone: str) -> dict[str, list[str]]:
    """An earlier rollout as the beginning of a new one; its time is over and is left out."""
    found = {name: [value] for name, value in of_policy(sheet.rollout.policy, zone).items()}
    found |= {"not_before": [""], "title": [sheet.title], "priority": [str(sheet.rollout.priority)]}
    found["release"] = [str(one) for one in sheet.releases]
    for one in sheet.query.conditions:
        found[one.field] = list(one.values) if one.field in LISTS else [", ".join(one.values)]
        if one.field == "version":
            found["component"], found["versionIs"] = [one.component], ["not" if one.none else "is"]
    return found


def draft_of(form: Form, zone: str) -> acts.Draft:
    """FormRefused with everything that is wrong, each at its field."""
    problems = Problems()
    if not first(form, "title"):
        problems.add("title", "empty")
    releases = tuple(int(value) for value in form.get("release", ()) if value.isascii() and value.isdigit())
    if not releases:
        problems.add("release", "noRelease")
    query = _query(form, problems)
    policy = _policy(form, problems, zone)
    priority = first(form, "priority", "0")
    if priority not in {str(one) for one in acts.PRIORITIES}:
        problems.add("priority", "priority")
    problems.check()
    return acts.Draft(title=first(form, "title"), releases=releases, query=query, policy=policy, priority=int(priority))


def readable_policy(form: Form, zone: str) -> Policy:
    """What can be read of a form that is not finished; the usual for the rest."""
    return _policy(form, Problems(), zone)


def _query(form: Form, problems: Problems) -> Query:
    try:
        return of_form(form)
    except Refused as refused:
        problems.add(refused.field, refused.reason)
        return Query()


def _policy(form: Form, problems: Problems, zone: str) -> Policy:
    values: dict[str, Any] = {}
    for name, (to, unit, low, high, whole) in NUMBERS.items():
        text = first(form, name)
        if not text:
            continue
        try:
            value = float(text.replace("，", "."))
        except ValueError:
            problems.add(name, "rolloutNumber")
            continue
        if not low <= value <= high or (whole and value != int(value)):
            problems.add(name, "rolloutNumber")
            continue
        scaled = value * unit
        values[to] = scaled if to.endswith("percent") else int(scaled)
    if steps := _steps(first(form, "waves"), problems):
        values["steps"] = steps
    if first(form, "window") in {"closed", "any"}:
        values["window"] = first(form, "window")
    values |= {
        "ignore_freeze": bool(first(form, "ignore_freeze")),
        "downgrade": bool(first(form, "downgrade")),
        "late_joiners": bool(first(form, "late")),
    }
    if at := first(form, "not_before"):
        moment = moment_ms(at, zone)
        if moment is None:
            problems.add("not_before", "when")
        else:
            values["not_before_ms"] = moment
    if limit := first(form, "bandwidth"):
        if limit.isascii() and limit.isdigit() and 2 <= int(limit) <= 1_000_000:
            values["rate_bytes_s"] = int(limit) * 1000
        else:
            problems.add("bandwidth", "rolloutNumber")
    policy = Policy(**values)
    try:
        acts.check_policy(policy)
    except Refused as refused:
        problems.add(refused.field, refused.reason)
    return policy


def _steps(text: str, problems: Problems) -> tuple[Step, ...]:
    if not text:
        return ()
    steps: list[Step] = []
    for part in filter(None, _SPLIT.split(text)):
        found = _WAVE.fullmatch(part)
        if found is None:
            problems.add("waves", "waves")
            return ()
        if found[1]:
            value = float(found[1])
            if not 0 < value <= 100:
                problems.add("waves", "waves")
                return ()
            steps.append(Step(percent=value))
        elif not 1 <= int(found[2]) <= 100_000:
            problems.add("waves", "waves")
            return ()
        else:
            steps.append(Step(count=int(found[2])))
    # Whoever is left comes last, whether that was written down or not.
    if steps and steps[-1].percent != 100:
        steps.append(Step(percent=100))
    if len(steps) > WAVES_MAX:
        problems.add("waves", "waves")
        return ()
    return tuple(steps)


def moment_ms(text: str, zone: str) -> int | None:
    """Of an `<input type="datetime-local">` in the fleet's time."""
    try:
        local = datetime.strptime(text[:16], "%Y-%m-%dT%H:%M").replace(tzinfo=zone_of(zone))
    except ValueError:
        return None
    return int(local.timestamp() * 1000)
