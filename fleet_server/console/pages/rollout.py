"""One rollout: waves as a board, gates, every terminal with what it waits for, and what may be done about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery

from fleet_server.console import export
from fleet_server.console import rollout_view as view
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.pages.answers import acted
from fleet_server.console.pages.rollouts import REQUEST, check_may_stop, may_stop
from fleet_server.console.queries import rollouts as queries
from fleet_server.console.render import Voice
from fleet_server.console.site_view import problems_of
from fleet_server.errors import NotFound, Refused
from fleet_server.reports.listing import Column
from fleet_server.rollouts import acts
from fleet_server.rollouts.rules import RESUMED, RETRIED, RolloutState, tally
from fleet_server.rollouts.store import Sheet

APPROVE: Final = {"permission": "approve"}
PER_PAGE: Final = 50
NOTICES: Final = {"created", "submitted"}
RETRY_IN: Final = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HELD, RolloutState.FINISHED})


@get("/updates/{rollout:str}")
async def rollout_page(
    request: Asked,
    desk: TheDesk,
    rollout: FromPath[str],
    wave: FromQuery[str] = "",
    result: FromQuery[str] = "",
    page: FromQuery[int] = 1,
    done: FromQuery[str] = "",
) -> Response[str]:
    voice, fleet = desk.voice(request), await desk.fleet(request)
    sheet, members, releases, steps = await desk.db.look(lambda conn: queries.one(conn, _id(rollout)))
    events = await desk.db.look(lambda conn: queries.history(conn, rollout))
    titles = await titles_of(desk)
    places = await desk.view.places()
    policy = sheet.rollout.policy
    by_bundle: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in steps:
        by_bundle.setdefault((row["terminal"], row["bundle"]), []).append(row)
    shown = [
        member
        for member in members.values()
        if (not wave or str(member.wave) == wave) and (not result or member.state.value == result)
    ]
    shown.sort(key=lambda member: view.attention(member, sheet.rollout.wave))
    pages = max(1, -(-len(shown) // PER_PAGE))
    at = min(max(1, page), pages)
    retired = await _names(desk, [one.terminal for one in shown if one.terminal not in fleet.by_id], voice)
    running = await _running(desk)
    told = tally(members.values(), policy)
    kinds = list(dict.fromkeys(releases[one].component if releases[one].component == "firmware" else releases[one].kind
                               for one in sheet.releases if one in releases))  # fmt: skip
    counts = view.counted(members.values())
    values: dict[str, Any] = {
        "id": rollout,
        "title": sheet.title,
        "state": sheet.rollout.state.value,
        "look": view.LOOKS[sheet.rollout.state.value],
        "word": voice.t(f"rollout.state.{sheet.rollout.state.value}"),
        "sentence": view.sentence(voice, sheet, members, events),
        "releases": [(one, view.release_name(voice, releases[one])) for one in sheet.releases if one in releases],
        "group": view.query_words(voice, sheet.query, places),
        "policy": view.policy_words(voice, policy),
        "priority": view.priority_word(voice, sheet.rollout.priority),
        "created_by": sheet.created_by,
        "created_ms": sheet.rollout.created_ms,
        "approved_by": sheet.approved_by,
        "approved_ms": sheet.rollout.approved_ms,
        "cards": [
            view.card(voice, sheet.rollout, one, [member for member in members.values() if member.wave == one.no])
            for one in sheet.rollout.waves
        ],
        "bar": {**view.bar(counts), "said": view.bar_said(voice, counts)} if counts else None,
        "failure_now": voice.t("rollout.failureNow", ended=told.ended, failed=told.failed),
        "failure_rule": voice.t(
            "rollout.failureRule",
            first=policy.failure_first,
            count=policy.failure_count,
            percent=view.number(policy.failure_percent),
        ),
        "is_tripped": bool(told.tripped),
        "traffic": view.traffic(voice, steps),
        "versions": view.versions_of(voice, kinds, members, running) if members else [],
        "rows": [
            view.member_row(voice, member, by_bundle.get((member.terminal, member.bundle), []), policy, fleet, titles, retired)
            for member in shown[(at - 1) * PER_PAGE : at * PER_PAGE]
        ],
        "total": len(members),
        "found": len(shown),
        "wave": wave,
        "chosen_state": result,
        "wave_choices": [(str(one.no), view.wave_name(voice, one.no, policy)) for one in sheet.rollout.waves],
        "state_choices": [
            (name, voice.t(f"member.state.{name}"), counts[name]) for name in view.MEMBER_STATES if counts.get(name)
        ],
        "page_no": at,
        "pages": pages,
        "query": _query_text(wave, result),
        "history": [view.event_line(voice, event, policy, fleet) for event in events],
        "notice": voice.t(f"rollout.done.{done}") if done in NOTICES else "",
        **_buttons(request, sheet, releases, members, voice),
    }
    return await desk.page(request, "rollout.html", nav="updates", voice=voice, **values)


def _buttons(
    request: Asked, sheet: Sheet, releases: Mapping[int, Any], members: Mapping[str, Any], voice: Voice
) -> dict[str, Any]:
    """What this person may do now, and why not what they might expect."""
    state, me = sheet.rollout.state, request.user
    mine = me.name == sheet.created_by
    uploaded = any(releases[one].uploaded_by == me.name for one in sheet.releases if one in releases)
    waiting = state is RolloutState.WAITING
    why_not = ""
    if waiting and not me.may("approve"):
        why_not = "mayNot" if me.may("request") and not mine else ""
    if waiting and mine:
        why_not = "youAsked"
    elif waiting and uploaded and me.may("approve"):
        why_not = "youUploaded"
    stop = may_stop(request)
    return {
        "can_submit": state is RolloutState.DRAFT and mine and me.may("request"),
        "can_approve": waiting and me.may("approve") and not mine and not uploaded,
        "can_reject": waiting and me.may("approve") and not mine,
        "can_withdraw": state in {RolloutState.DRAFT, RolloutState.WAITING} and mine,
        "can_pause": stop and state in {RolloutState.APPROVED, RolloutState.RUNNING},
        "can_resume": stop and (state is RolloutState.PAUSED or (state is RolloutState.HELD and sheet.rollout.reason in RESUMED)),
        "can_abort": stop and state in {RolloutState.APPROVED, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.HELD},
        "n_retry": sum(one.state in RETRIED for one in members.values())
        if state in RETRY_IN and me.may("request") and not acts.retry_problem(sheet.rollout, voice.now_ms)
        else 0,
        "can_copy": me.may("request"),
        "why_not": voice.t(f"rollout.why2.{why_not}") if why_not else "",
    }


# What people do -------------------------------------------------------------------------------------------------------------------------


@post("/updates/{rollout:str}/submit", status_code=200, opt=REQUEST)
async def submit(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    return await _act(request, desk, acts.submit, rollout, "submitted")


@post("/updates/{rollout:str}/approve", status_code=200, opt=APPROVE)
async def approve(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    return await _act(request, desk, acts.approve, rollout, "approved")


@post("/updates/{rollout:str}/pause", status_code=200)
async def pause(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    check_may_stop(request)
    return await _act(request, desk, acts.pause, rollout, "paused")


@post("/updates/{rollout:str}/resume", status_code=200)
async def resume(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    check_may_stop(request)
    return await _act(request, desk, acts.resume, rollout, "resumed")


async def _act(request: Asked, desk: Desk, act: Callable[..., None], rollout: str, word: str) -> Response[str]:
    me = request.user.name
    await desk.db.write(lambda conn: act(conn, _id(rollout), by=me, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t(f"rollout.done.{word}"))


@post("/updates/{rollout:str}/retry", status_code=200, opt=REQUEST)
async def retry(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    """All of them, or the one that the form names."""
    form, me = await form_of(request), request.user.name
    only = [form["terminal"]] if form.get("terminal") else None
    n = await desk.db.write(lambda conn: acts.retry(conn, _id(rollout), only, by=me, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t("rollout.done.retried", n=n))


@get(["/updates/{rollout:str}/abort", "/updates/{rollout:str}/reject"])
async def reason_form(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    """Why: asked before an end that cannot be undone."""
    check_may_stop(request)
    return await _reason(request, desk, _id(rollout), request.url.path.rpartition("/")[2])


@post("/updates/{rollout:str}/abort", status_code=200)
async def abort(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    return await _with_reason(request, desk, rollout, "abort", acts.abort)


@post("/updates/{rollout:str}/reject", status_code=200)
async def reject(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[str]:
    return await _with_reason(request, desk, rollout, "reject", acts.reject)


REASONED: Final = {"abort": "aborted", "reject": "rejected"}


async def _with_reason(request: Asked, desk: Desk, rollout: str, what: str, act: Callable[..., None]) -> Response[str]:
    check_may_stop(request)
    form, me = await form_of(request), request.user.name
    text = form.get("reason", "")
    try:
        await desk.db.write(lambda conn: act(conn, _id(rollout), text, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        if refused.field != "reason":
            raise
        return await _reason(request, desk, rollout, what, text, refused)
    return acted(desk.voice(request).t(f"rollout.done.{REASONED[what]}"))


async def _reason(
    request: Asked, desk: Desk, rollout: str, what: str, text: str = "", refused: Refused | None = None
) -> Response[str]:
    voice = desk.voice(request)
    sheet, _, _, _ = await desk.db.look(lambda conn: queries.one(conn, rollout))
    mine = sheet.created_by == request.user.name and what == "reject"
    return await desk.part(
        request,
        "_rollout_reason.html",
        voice=voice,
        id=rollout,
        what=what,
        mine=mine,
        title=sheet.title,
        text=text,
        problems=problems_of(refused, voice),
    )


# One terminal, and files ------------------------------------------------------------------------------------------------------------------


@get("/updates/{rollout:str}/terminals/{terminal:str}")
async def member_dialog(request: Asked, desk: TheDesk, rollout: FromPath[str], terminal: FromPath[str]) -> Response[str]:
    """Every step of one terminal, as it reported them."""
    voice, fleet = desk.voice(request), await desk.fleet(request)
    sheet, members, _, _ = await desk.db.look(lambda conn: queries.one(conn, _id(rollout)))
    member = members.get(terminal)
    if member is None:
        raise NotFound(f"terminal {terminal[:32]!r} is not in rollout {rollout[:8]}")
    steps = await desk.db.look(lambda conn: queries.steps_at(conn, rollout, terminal))
    now = fleet.by_id.get(terminal)
    titles = await titles_of(desk)
    row = view.member_row(voice, member, [], sheet.rollout.policy, fleet, titles, {})
    zone = now.place.timezone if now else voice.zone
    return await desk.part(
        request,
        "_rollout_member.html",
        voice=voice,
        id=rollout,
        row=row,
        steps=trail(voice, steps),
        windows=[(begin, until) for begin, until in member.windows or () if until > voice.now_ms][:5],
        is_open=row["is_open"],
        any_time=member.windows is None and member.started_ms is not None,
        own_zone=zone,
        rollout_title=sheet.title,
    )


def trail(voice: Voice, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps in words; a new bundle is a new try."""
    bundles = list(dict.fromkeys(row["bundle"] for row in steps))
    return [
        {
            "at_ms": row["first_ms"],
            "word": voice.t(f"update.state.{row['state']}"),
            "look": {"committed": "good", "rolledBack": "bad", "failed": "bad", "refused": "bad", "cancelled": "quiet"}.get(row["state"], "open"),
            "why": view.reason_word(voice, row["reason"]),
            "component": view.component_name(voice, row["component"]),
            "from": row["from_version"],
            "to": row["to_version"],
            "bytes": f"{view.size(row['bytes_done'])} / {view.size(row['bytes_total'])}" if row["bytes_done"] else "",
            "via": voice.t(f"rollout.via.{row['via']}") if row["via"] != "none" else "",
            "resumed": voice.t("rollout.resumed", n=row["resumed"]) if row["resumed"] else "",
            "attempt": voice.t("rollout.attempt", n=bundles.index(row["bundle"]) + 1) if len(bundles) > 1 else "",
            "proof": f"{row['batch']}/{row['idx']}",
        }
        for row in steps
    ]  # fmt: skip


@get("/updates/{rollout:str}/members.csv")
async def members_csv(request: Asked, desk: TheDesk, rollout: FromPath[str]) -> Response[bytes]:
    voice, fleet = desk.voice(request), await desk.fleet(request)
    sheet, members, _, steps = await desk.db.look(lambda conn: queries.one(conn, _id(rollout)))
    titles, t = await titles_of(desk), voice.t
    by_bundle: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in steps:
        by_bundle.setdefault((row["terminal"], row["bundle"]), []).append(row)
    columns = [
        Column(t("updates.column.terminal"), width=12), Column(t("updates.column.site"), width=28), Column(t("updates.column.wave"), width=10),
        Column(t("updates.column.member"), width=10), Column(t("updates.column.step"), width=14), Column(t("updates.column.why"), width=36),
        Column(t("updates.column.since"), "moment"), Column(t("updates.column.from"), width=12), Column(t("updates.column.to"), width=12),
        Column(t("updates.column.bytes"), "count"), Column(t("updates.column.tries"), "count"),
    ]  # fmt: skip
    rows = []
    for member in members.values():
        own = by_bundle.get((member.terminal, member.bundle), [])
        row = view.member_row(voice, member, own, sheet.rollout.policy, fleet, titles, {})
        rows.append(
            [row["label"], row["name"], row["wave"], row["word"], row["step"], row["why"], row["since_ms"], row["from"] or "", row["to"] or "",
             sum(step["bytes_done"] for step in own), member.tries]
        )  # fmt: skip
    return export.csv_file(f"rollout-{acts.name_of(rollout)}", columns, rows, voice)


HANDLERS = [
    rollout_page,
    submit,
    approve,
    pause,
    resume,
    retry,
    reason_form,
    abort,
    reject,
    member_dialog,
    members_csv,
]


def _id(rollout: str) -> str:
    """Addresses are typed by people, too."""
    if len(rollout) != 32 or not set(rollout) <= set("0123456789abcdef"):
        raise NotFound(f"rollout {rollout[:32]!r}")
    return rollout


def _query_text(wave: str, state: str) -> str:
    parts = [f"{name}={value}" for name, value in (("wave", wave), ("result", state)) if value and value.isalnum()]
    return f"?{'&'.join(parts)}" if parts else ""


async def titles_of(desk: Desk) -> dict[str, str]:
    return {row["id"]: row["title"] for row in await desk.db.read("SELECT id, title FROM rollout")}


async def _running(desk: Desk) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in await desk.db.read("SELECT terminal, component, version FROM installed_version"):
        found.setdefault(row["terminal"], {})[row["component"]] = row["version"]
    return found


async def _names(desk: Desk, ids: list[str], voice: Voice) -> dict[str, str]:
    """Of terminals that left the fleet."""
    if not ids:
        return {}
    rows = await desk.db.read("SELECT id, name_zh, name_en FROM terminal WHERE revoked_ms IS NOT NULL")
    return {row["id"]: (row["name_zh"] if voice.lang == "zh" else row["name_en"]) or row["name_zh"] for row in rows}
