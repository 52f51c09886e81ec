"""What the pages about updates show: rollouts, waves, members and releases in words and figures. Pure over values that were read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fleet_server.console import format as fmt
from fleet_server.console.fleet import Fleet
from fleet_server.console.model import Place
from fleet_server.console.render import Voice
from fleet_server.console.words import limit_words, slot_name, type_name
from fleet_server.rollouts.query import Query
from fleet_server.rollouts.rules import (
    ENDED,
    FINAL,
    RESUMED,
    RETRIED,
    Member,
    MemberState,
    Policy,
    Rollout,
    RolloutState,
    Step,
    Wave,
    gate_of,
    tally,
)
from fleet_server.rollouts.store import Release, Sheet

MEGABYTE: Final = 1_000_000
LOOKS: Final = {
    "draft": "quiet", "waiting": "waiting", "approved": "open", "running": "open", "paused": "waiting", "held": "bad",
    "finished": "good", "stopped": "bad", "aborted": "quiet",
}  # fmt: skip
MEMBER_LOOKS: Final = {
    "waiting": "quiet", "started": "open", "stopping": "waiting", "succeeded": "good", "failed": "bad", "stopped": "quiet",
    "missed": "waiting", "skipped": "quiet",
}  # fmt: skip
MEMBER_STATES: Final = tuple(MEMBER_LOOKS)
PRIORITIES: Final = ((100, "priorityUrgent"), (10, "priorityHigh"), (0, "priorityUsual"), (-10, "priorityLow"))
FILES: Final = ("agent", "firmware", "image", "profiles", "catalogue", "content")


# Words ----------------------------------------------------------------------------------------------------------------------------------


def size(count: int) -> str:
    """`62.4 MB`, `812 KB`; decimal, as disks and lines are sold."""
    if count >= MEGABYTE:
        return f"{count / MEGABYTE:,.1f} MB"
    return f"{fmt.count(-(-count // 1000))} KB"


def number(value: float) -> str:
    return f"{value:g}"


def component_name(voice: Voice, component: str) -> str:
    """`agent` → 终端程序, `firmware/receipt-printer` → 外设固件 凭条打印机."""
    kind, _, rest = component.partition("/")
    name = voice.t(f"release.component.{kind}") if kind in FILES else kind
    if not rest:
        return name
    return f"{name} {slot_name(voice, rest) if kind == 'firmware' else rest}"


def release_name(voice: Voice, release: Release) -> str:
    return f"{component_name(voice, release.kind)} {release.version}"


def wave_name(voice: Voice, no: int, policy: Policy) -> str:
    """The canary has a name; waves after it are numbered from one."""
    if policy.canary > 0 and no == 0:
        return voice.t("rollout.canary")
    return voice.t("rollout.wave", n=no if policy.canary > 0 else no + 1)


def query_words(voice: Voice, query: Query, places: Mapping[str, Place]) -> str:
    """The target group as one sentence of conditions."""
    if not query.conditions:
        return voice.t("updates.allTerminals")
    areas = {code: (zh if voice.lang == "zh" else en) or zh for place in places.values() for code, zh, en in place.areas}
    parts: list[str] = []
    for one in query.conditions:
        match one.field:
            case "area":
                names = [areas.get(value, value) for value in one.values]
            case "site":
                names = [places[value].name(voice.lang) if value in places else value for value in one.values]
            case "type":
                names = [type_name(voice, value) for value in one.values]
            case "siteKind" | "class":
                stem = {"siteKind": "kind", "class": "class"}[one.field]
                names = [voice.t(f"{stem}.{value}") if voice.t.has(f"{stem}.{value}") else value for value in one.values]
            case "version":
                names = [voice.t("rollout.unknownVersion") if value == "-" else value for value in one.values]
            case _:
                names = list(one.values)
        if one.field == "id" and len(names) > 6:
            parts.append(voice.t("query.words.idMany", n=len(names)))
            continue
        key = "versionNot" if one.field == "version" and one.none else one.field
        values = {"values": voice.t("updates.join").join(names), "component": component_name(voice, one.component)}
        wanted = values if one.field == "version" else {"values": values["values"]}
        parts.append(voice.t(f"query.words.{key}", **wanted))
    return voice.t("updates.semicolon").join(parts)


def step_words(voice: Voice, step: Step) -> str:
    return voice.t("policy.words.step", n=step.count) if step.count is not None else f"{number(step.percent or 100)} %"


def percent(value: float) -> str:
    return f"{number(value)} %"


def policy_words(voice: Voice, policy: Policy) -> list[str]:
    """The policy, one clause for each choice."""

    def clause(key: str, **values: object) -> str:
        return voice.t(f"policy.words.{key}", **values)

    steps = voice.t("updates.join").join(step_words(voice, step) for step in policy.steps)
    found = [
        clause("canary", n=policy.canary) if policy.canary else clause("canaryNone"),
        clause("percents", values=steps),
        clause("success", percent=percent(policy.success_percent), soak=limit_words(voice, policy.soak_s * 1000)),
        clause("failure", first=policy.failure_first, count=policy.failure_count, percent=number(policy.failure_percent)),
        clause("timeout", timeout=limit_words(voice, policy.timeout_s * 1000)),
        clause("hallShare", percent=number(policy.hall_percent)) if policy.hall_percent else clause("hallOne"),
        clause(policy.window),
    ]
    if policy.ignore_freeze:
        found.append(clause("ignoreFreeze"))
    else:
        found.append(clause("freeze", n=policy.freeze_days) if policy.freeze_days else clause("freezeOnly"))
    if policy.not_before_ms:
        found.append(clause("notBefore", time=voice.stamp(policy.not_before_ms)[:16]))
    if policy.rate_bytes_s:
        found.append(clause("bandwidth", n=fmt.count(policy.rate_bytes_s // 1000)))
    if policy.downgrade:
        found.append(clause("downgrade"))
    return found


def priority_word(voice: Voice, priority: int) -> str:
    return voice.t(f"rollout.new.{dict(PRIORITIES).get(priority, 'priorityUsual')}")


def why(voice: Voice, member: Member, policy: Policy, titles: Mapping[str, str]) -> str:
    """What a member waits for, or why it ended so."""
    values: dict[str, object] = {}
    if member.reason == "wave":
        values["wave"] = wave_name(voice, int(member.detail) if member.detail.isdigit() else member.wave, policy)
    elif member.reason == "otherRollout":
        values["title"] = titles.get(member.detail, member.detail[:8])
    elif member.reason == "frozen":
        values["time"] = voice.stamp(int(member.detail))[:16] if member.detail.isdigit() else "—"
    key = f"update.why.{member.reason}"
    return voice.t(key, **values) if voice.t.has(key) else member.reason


def reason_word(voice: Voice, reason: str) -> str:
    return voice.t(f"update.why.{reason}") if reason not in {"", "none"} and voice.t.has(f"update.why.{reason}") else ""


# Figures --------------------------------------------------------------------------------------------------------------------------------


def bar(counts: Mapping[str, int]) -> dict[str, Any]:
    """A bar of four looks for SVG, with the figures it shows."""
    total = sum(counts.values())
    parts, x = [], 0.0
    for look in ("good", "bad", "open", "waiting", "quiet"):
        n = sum(count for state, count in counts.items() if bar_look(state) == look)
        if n and total and look != "quiet":
            width = n / total * 100
            parts.append({"look": look, "x": f"{x:.3f}", "width": f"{width:.3f}"})
            x += width
    done = sum(counts.get(state, 0) for state in ("succeeded", "failed", "stopped", "missed", "skipped"))
    return {"parts": parts, "text": f"{fmt.count(done)} / {fmt.count(total)}", "done": done, "total": total}


def bar_look(state: str) -> str:
    return {"succeeded": "good", "failed": "bad", "started": "open", "stopping": "open", "missed": "waiting"}.get(state, "quiet")


def counted(members: Iterable[Member]) -> dict[str, int]:
    found: dict[str, int] = {}
    for member in members:
        found[member.state.value] = found.get(member.state.value, 0) + 1
    return found


def bar_said(voice: Voice, counts: Mapping[str, int]) -> str:
    """The bar in words, for those who do not see it."""
    return voice.t("updates.join").join(
        f"{voice.t(f'member.state.{state}')} {fmt.count(counts[state])}" for state in MEMBER_STATES if counts.get(state)
    ) or voice.t("noData")  # fmt: skip


# One rollout ----------------------------------------------------------------------------------------------------------------------------


def card(voice: Voice, rollout: Rollout, wave: Wave, members: Sequence[Member]) -> dict[str, Any]:
    """One wave of the board."""
    policy = rollout.policy
    gate = gate_of(members, policy.success_percent)
    is_last = wave.no == len(rollout.waves) - 1
    soak_to = wave.met_ms + policy.soak_s * 1000 if wave.met_ms is not None else None
    if wave.passed_ms is not None:
        state = "passed"
    elif wave.opened_ms is None:
        state = "ended" if rollout.state in ENDED else "closed"
    elif rollout.state is RolloutState.HELD and wave.no == rollout.wave and rollout.reason not in RESUMED:
        state = "held"
    elif rollout.state in ENDED:
        state = "stopped"
    elif soak_to is not None and not is_last:
        state = "soak"
    else:
        state = "open"
    counts = counted(members)
    return {
        "no": wave.no,
        "name": wave_name(voice, wave.no, policy),
        "state": state,
        "word": voice.t(f"rollout.waveState.{state}"),
        "look": {
            "passed": "good",
            "open": "open",
            "soak": "open",
            "held": "bad",
            "stopped": "bad" if rollout.state is RolloutState.STOPPED else "quiet",
        }.get(state, "quiet"),
        "planned": len(members),
        "late": sum(member.late for member in members),
        "counts": [(state_, voice.t(f"member.state.{state_}"), counts[state_]) for state_ in MEMBER_STATES if counts.get(state_)],
        "bar": {**bar(counts), "said": bar_said(voice, counts)},
        "gate": ""
        if is_last or state == "ended"
        else voice.t(
            "rollout.gateLine",
            good=gate.succeeded,
            counted=gate.counted,
            need=gate.required,
            percent=percent(policy.success_percent),
        )
        if gate.counted
        else voice.t("rollout.gateNobody"),
        "when": voice.t("rollout.passedAt", time=voice.clock(wave.passed_ms))
        if wave.passed_ms is not None
        else voice.t("rollout.soakTo", time=voice.clock(soak_to))
        if state == "soak" and soak_to is not None
        else voice.t("rollout.openedAt", time=voice.clock(wave.opened_ms))
        if wave.opened_ms is not None
        else "",
    }


def sentence(voice: Voice, sheet: Sheet, members: Mapping[str, Member], events: Sequence[Mapping[str, Any]]) -> str:
    """Where the rollout stands, whole."""
    rollout, policy = sheet.rollout, sheet.rollout.policy

    def stands(key: str, **values: object) -> str:
        return voice.t(f"rollout.say.{key}", **values)

    counts = counted(members.values())
    of_wave = [member for member in members.values() if member.wave == rollout.wave]
    gate = gate_of(of_wave, policy.success_percent)
    name = wave_name(voice, max(0, rollout.wave), policy)
    match rollout.state:
        case RolloutState.DRAFT:
            return stands("draft")
        case RolloutState.WAITING:
            return stands("waiting", by=sheet.created_by, time=voice.clock(sheet.submitted_ms or rollout.since_ms))
        case RolloutState.APPROVED:
            if policy.not_before_ms > voice.now_ms:
                return stands("approved", by=sheet.approved_by, time=voice.clock(policy.not_before_ms))
            return stands("approvedNow", by=sheet.approved_by)
        case RolloutState.RUNNING:
            wave = rollout.waves[rollout.wave] if 0 <= rollout.wave < len(rollout.waves) else None
            if wave is not None and wave.met_ms is not None and wave.no < len(rollout.waves) - 1:
                return stands("runningSoak", wave=name, time=voice.clock(wave.met_ms + policy.soak_s * 1000))
            if gate.going == 0 and not gate.met and gate.counted:
                return stands("runningGate", wave=name, good=gate.succeeded, need=gate.required)
            return stands("runningOpen", wave=name, good=gate.succeeded, bad=gate.failed, going=counts.get("started", 0))
        case RolloutState.PAUSED:
            return stands("paused", duration=voice.duration(voice.now_ms - rollout.since_ms))
        case RolloutState.HELD:
            if rollout.reason in {*RESUMED, "noCanary"}:
                return stands(rollout.reason, by=sheet.created_by, approver=sheet.approved_by)
            return stands("held", wave=name, good=gate.succeeded, need=gate.required)
        case RolloutState.FINISHED:
            return stands(
                "finished",
                good=counts.get("succeeded", 0),
                bad=counts.get("failed", 0),
                missed=counts.get("missed", 0),
                skipped=counts.get("skipped", 0) + counts.get("stopped", 0),
            )
        case RolloutState.STOPPED:
            told = tally(members.values(), policy)
            match rollout.reason:
                case "failures.first":
                    return stands("stoppedFirst", first=policy.failure_first, bad=told.failed_first, limit=policy.failure_count)
                case "failures.percent":
                    return stands("stoppedPercent", bad=told.failed, ended=told.ended, percent=number(policy.failure_percent))
                case "badRelease":
                    return stands("stoppedBad")
            return stands("stoppedNotApproved")
        case _:
            event = next((one for one in events if one["kind"] == "aborted"), None)
            text = json.loads(event["detail"]).get("text", "") if event else ""
            key = rollout.reason if rollout.reason in {"rejected", "withdrawn", "emergency"} else "aborted"
            return stands(key, by=event["actor"] if event else "—", text=text or "—")


def member_row(
    voice: Voice,
    member: Member,
    steps: Sequence[Mapping[str, Any]],
    policy: Policy,
    fleet: Fleet,
    titles: Mapping[str, str],
    retired: Mapping[str, str],
) -> dict[str, Any]:
    """A line of the table. `steps`: the newest of each component of its present bundle."""
    now = fleet.by_id.get(member.terminal)
    told = max(steps, key=lambda row: row["place"], default=None)
    going = member.state in {MemberState.STARTED, MemberState.STOPPING}
    words = why(voice, member, policy, titles)
    since_ms = member.since_ms
    if going and told is not None:
        own = reason_word(voice, told["reason"])
        words, since_ms = own, told["since_ms"]
    return {
        "terminal": member.terminal,
        "known": now is not None,
        "label": now.label if now else member.terminal,
        "name": now.name_at_site(voice.lang) if now else retired.get(member.terminal, ""),
        "wave": wave_name(voice, member.wave, policy),
        "late": member.late,
        "look": MEMBER_LOOKS[member.state.value],
        "word": voice.t(f"member.state.{member.state.value}"),
        "state": member.state.value,
        "step": voice.t(f"update.state.{told['state']}") if told is not None and (going or member.state in FINAL) else "",
        "why": words if words != "—" else "",
        "since_ms": since_ms,
        "is_open": member.state not in FINAL,
        "zone": now.place.timezone if now else voice.zone,
        "tries": member.tries,
        "retry": member.state in RETRIED,
        "hold": member.hold and going,
        "progress": _progress(voice, steps) if going else None,
        "from": told["from_version"] if told else None,
        "to": told["to_version"] if told else None,
    }


def attention(member: Member, open_wave: int) -> tuple[int, int, int]:
    """What a person looks for first: failures, then who is in the middle, then who waits in the open wave; successes come last."""
    rank = {"failed": 0, "stopping": 1, "started": 2, "waiting": 3, "missed": 4, "stopped": 5, "skipped": 6, "succeeded": 7}[
        member.state.value
    ]
    if member.state is MemberState.WAITING and member.wave > open_wave:
        rank = 4
    return rank, member.wave, member.bucket


def _progress(voice: Voice, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    total = sum(row["bytes_total"] for row in steps)
    if not total:
        return None
    done = min(total, sum(row["bytes_done"] for row in steps))
    if done == total:
        return None
    return {
        "width": f"{done / total * 100:.2f}",
        "text": f"{size(done)} / {size(total)}",
        "resumed": sum(row["resumed"] for row in steps),
    }


def traffic(voice: Voice, steps: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Bytes that terminals fetched, by the form in which they came."""
    found: dict[str, tuple[int, set[str]]] = {}
    for row in steps:
        if row["bytes_done"]:
            count, terminals = found.get(row["via"], (0, set()))
            found[row["via"]] = (count + row["bytes_done"], {*terminals, row["terminal"]})
    return [
        {
            "name": voice.t(f"rollout.via.{via}"),
            "text": voice.t("rollout.bytesLine", size=size(found[via][0]), n=len(found[via][1])),
        }
        for via in ("delta", "packed", "full", "none")
        if via in found
    ]


def versions_of(
    voice: Voice, kinds: Sequence[str], members: Iterable[str], running: Mapping[str, Mapping[str, str]]
) -> list[dict[str, Any]]:
    """What runs in the group, for each component that the rollout touches: how many terminals on which version."""
    found = []
    group = list(members)
    for kind in kinds:
        counts: dict[str, int] = {}
        for terminal in group:
            own = running.get(terminal, {})
            seen = {
                version for name, version in own.items() if name == kind or (kind == "firmware" and name.startswith("firmware/"))
            }
            for version in seen or {""}:
                counts[version] = counts.get(version, 0) + 1
        total = len(group)
        lines = [
            {
                "version": version or voice.t("rollout.unknownVersion"),
                "n": n,
                "width": f"{n / total * 100:.2f}" if total else "0",
                "percent": fmt.Ratio(n, total).percent or "",
            }
            for version, n in sorted(counts.items(), key=lambda pair: -pair[1])
        ]
        found.append({"name": component_name(voice, kind), "lines": lines})
    return found


def event_line(voice: Voice, event: Mapping[str, Any], policy: Policy, fleet: Fleet) -> dict[str, Any]:
    detail = json.loads(event["detail"])
    now = fleet.by_id.get(event["terminal"] or "")
    values = {
        "terminals": detail.get("terminals", 0),
        "wave": wave_name(voice, int(detail.get("no", 0)), policy),
        "terminal": now.label if now else event["terminal"] or "",
    }
    key = f"rollout.event.{event['kind']}"
    raw = voice.t.raw(key) if voice.t.has(key) else ""
    used = {name: value for name, value in values.items() if f"{{{name}}}" in raw}
    return {
        "at_ms": event["at_ms"],
        "by": event["actor"] or voice.t("updates.server"),
        "what": voice.t(key, **used) if raw else event["kind"],
        "parts": [detail["text"]] if detail.get("text") else [],
    }


def release_line(voice: Voice, release: Release, running: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    known = release.known or "open"
    return {
        "id": release.id,
        "name": release_name(voice, release),
        "component": component_name(voice, release.kind),
        "version": release.version,
        "arch": "—" if release.arch == "any" else release.arch,
        "size": size(release.length),
        "known": known,
        "known_word": voice.t(f"release.known.{known}"),
        "look": {"good": "good", "bad": "bad"}.get(known, "quiet"),
        "by": release.uploaded_by,
        "at_ms": release.uploaded_ms,
        "n": running.get((release.kind, release.version), 0),
    }
