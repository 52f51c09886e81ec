"""Updates: the list of rollouts, a new one with its preview, freeze periods, the emergency stop, and which versions run in the fleet."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect

from fleet_server.console import export, rollout_form
from fleet_server.console import format as fmt
from fleet_server.console import rollout_view as view
from fleet_server.console.area_tree import build
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.model import Place
from fleet_server.console.pages.answers import acted
from fleet_server.console.queries import rollouts as queries
from fleet_server.console.queries import sites as site_queries
from fleet_server.console.render import Voice
from fleet_server.console.site_view import area_choices, problems_of
from fleet_server.console.words import type_name
from fleet_server.errors import Forbidden, Refused
from fleet_server.reports.listing import Column
from fleet_server.rollouts import acts, store, world
from fleet_server.rollouts.query import Query, of_form
from fleet_server.rollouts.rules import ACTIVE, ENDED, Policy, waves_of
from fleet_server.rollouts.windows import frozen_spans
from fleet_server.sites.calendar import DEFAULT_ZONE, load_calendar
from fleet_server.sites.drafts import SITE_KINDS
from protocols.canon.words import TerminalType

REQUEST: Final = {"permission": "request"}
NOTICES: Final = {"freeze": "freeze.done"}
FORM_LIMIT: Final = 4_000
CANARIES_NAMED: Final = 8


def may_stop(request: Asked) -> bool:
    """Stopping is never held up by a role that may only start, or only approve."""
    return bool(request.user.may("request") or request.user.may("approve"))


def check_may_stop(request: Asked) -> None:
    if not may_stop(request):
        raise Forbidden(f"{request.user.name} may neither request nor approve")


@get("/updates")
async def rollouts_page(request: Asked, desk: TheDesk, done: FromQuery[str] = "") -> Response[str]:
    voice = desk.voice(request)
    sheets, counts, releases = await desk.db.look(queries.overview)
    freezes = await desk.db.look(lambda conn: queries.freezes(conn, voice.now_ms))
    holiday = await desk.db.look(lambda conn: _next_holiday(conn, voice.now_ms))
    places = await desk.view.places()
    lines = [_line(voice, sheet, counts.get(name, {}), releases, places) for name, sheet in sheets.items()]
    groups = [
        ("updates.groupActive", [line for line in lines if line["group"] == "active"]),
        ("updates.groupWaiting", [line for line in lines if line["group"] == "waiting"]),
        ("updates.groupEnded", [line for line in lines if line["group"] == "ended"]),
    ]
    return await desk.page(
        request,
        "rollouts.html",
        nav="updates",
        voice=voice,
        groups=[(voice.t(key), rows) for key, rows in groups if rows],
        any=bool(lines),
        freezes=freezes,
        holiday=holiday,
        may_request=request.user.may("request"),
        may_stop=may_stop(request),
        notice=voice.t(NOTICES[done]) if done in NOTICES else "",
        problems={},
        form={"name": "", "from": "", "to": ""},
    )


def _line(
    voice: Voice,
    sheet: store.Sheet,
    counts: Mapping[str, int],
    releases: Mapping[int, store.Release],
    places: Mapping[str, Place],
) -> dict[str, Any]:
    state = sheet.rollout.state
    return {
        "id": sheet.rollout.id,
        "title": sheet.title,
        "releases": voice.t("updates.join").join(
            view.release_name(voice, releases[one]) for one in sheet.releases if one in releases
        ),
        "state": state.value,
        "look": view.LOOKS[state.value],
        "word": voice.t(f"rollout.state.{state.value}"),
        "group": "active" if state in ACTIVE else "ended" if state in ENDED else "waiting",
        "query": view.query_words(voice, sheet.query, places),
        "bar": {**view.bar(counts), "said": view.bar_said(voice, counts)} if counts else None,
        "by": sheet.created_by,
        "at_ms": sheet.rollout.created_ms,
        "since_ms": sheet.rollout.since_ms,
    }


def _next_holiday(conn: sqlite3.Connection, now_ms: int) -> tuple[int, int] | None:
    """The next frozen span that the calendar makes, with the day before."""
    spans = frozen_spans(load_calendar(conn), DEFAULT_ZONE, now_ms, days_before=Policy().freeze_days)
    return next(((begin, until) for begin, until in spans if until > now_ms), None)


# A new rollout --------------------------------------------------------------------------------------------------------------------------


@get("/updates/new", opt=REQUEST)
async def new_form(request: Asked, desk: TheDesk, like: FromQuery[str] = "", release: FromQuery[int] = 0) -> Response[str]:
    form: dict[str, list[str]] = {name: [value] for name, value in rollout_form.of_policy(Policy(), desk.view.zone).items()}
    form["priority"] = ["0"]
    if like:
        form = rollout_form.of_sheet(await desk.db.look(lambda conn: store.sheet(conn, like)), desk.view.zone)
    if release:
        form["release"] = [str(release)]
    return await _form(request, desk, form)


@post("/updates/new", status_code=200, opt=REQUEST)
async def new(request: Asked, desk: TheDesk) -> Response[Any]:
    form, me, now_ms = await fields_of(request), request.user.name, desk.now_ms()
    should_submit = rollout_form.first(form, "then") == "submit"
    try:
        draft = rollout_form.draft_of(form, desk.view.zone)
        made = await desk.db.write(lambda conn: _create(conn, draft, me, now_ms, should_submit))
    except Refused as refused:
        return await _form(request, desk, form, refused)
    return Redirect(f"/updates/{made}?done={'submitted' if should_submit else 'created'}", status_code=303)


def _create(conn: sqlite3.Connection, draft: acts.Draft, by: str, now_ms: int, should_submit: bool) -> str:
    made = acts.create(conn, draft, by=by, now_ms=now_ms)
    if should_submit:
        acts.submit(conn, made, by=by, now_ms=now_ms)
    return made


@post("/updates/preview", status_code=200, opt=REQUEST)
async def preview(request: Asked, desk: TheDesk) -> Response[str]:
    """What the form means, while it is being filled in."""
    form, voice = await fields_of(request), desk.voice(request)
    return await desk.part(request, "_rollout_preview.html", voice=voice, **await _preview(desk, voice, form))


async def fields_of(request: Asked) -> dict[str, list[str]]:
    """Every value of every field; a form has not more of them than a person can choose."""
    found: dict[str, list[str]] = {}
    for name, value in (await request.form()).multi_items():
        if isinstance(value, str) and sum(len(values) for values in found.values()) < FORM_LIMIT:
            found.setdefault(name, []).append(value)
    return found


async def _preview(desk: Desk, voice: Voice, form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    # A field that is being typed breaks nothing: what can be read is previewed.
    relaxed = {**form, "title": ["-"]}
    try:
        draft = rollout_form.draft_of(relaxed, desk.view.zone)
    except Refused:
        draft = _readable(relaxed, desk.view.zone)
    places = await desk.view.places()
    found = await desk.db.look(lambda conn: _looked_at(conn, draft, voice.now_ms))
    policy = draft.policy
    return {
        "n": found["n"],
        "group": view.query_words(voice, draft.query, places),
        "notes": [voice.t(f"rollout.new.{key}", n=n) for key, n in found["notes"] if n],
        "waves": [(view.wave_name(voice, wave.no, policy), wave.planned) for wave in found["waves"] if wave.planned],
        "canaries": found["canaries"] if policy.canary else [],
        "policy": view.policy_words(voice, policy),
    }


def _readable(form: Mapping[str, Sequence[str]], zone: str) -> acts.Draft:
    try:
        query = of_form(form)
    except Refused:
        query = Query()
    return acts.Draft(
        title="-",
        releases=tuple(int(value) for value in form.get("release", ()) if value.isascii() and value.isdigit()),
        query=query,
        policy=rollout_form.readable_policy(form, zone),
    )


def _looked_at(conn: sqlite3.Connection, draft: acts.Draft, now_ms: int) -> dict[str, Any]:
    look = world.ground(conn, now_ms)
    releases = list(store.releases(conn, draft.releases).values())
    chosen = world.chosen(look, draft.query)
    candidates = world.candidates(look, draft.query, releases, draft.policy)
    waves, members = waves_of("preview", candidates, draft.policy)
    already = nothing = silent = 0
    for one in chosen:
        wanted = world.wanted_at(one, releases)
        nothing += bool(releases) and not wanted
        already += bool(wanted) and all(one.running.get(each.component) == (each.version, each.release) for each in wanted)
        silent += one.heard_ms is None or now_ms - one.heard_ms > draft.policy.silent_s * 1000
    labels = {one.target.id: one.target.code for one in chosen}
    return {
        "n": len(chosen),
        "waves": waves,
        "canaries": [labels[member.terminal] for member in members if member.wave == 0][:CANARIES_NAMED],
        "notes": [("previewAlready", already), ("previewNothing", nothing), ("previewSilent", silent)],
    }


async def _form(request: Asked, desk: Desk, form: Mapping[str, Sequence[str]], refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    releases = await desk.db.look(store.releases)
    places = await desk.view.places()
    tree = build(await site_queries.areas(desk.db), await site_queries.sites(desk.db))
    chosen = set(form.get("release", ()))
    values: dict[str, Any] = {
        "releases": [
            {
                "id": one.id,
                "name": view.release_name(voice, one),
                "sub": f"{one.arch} · {view.size(one.length)}" if one.arch != "any" else view.size(one.length),
                "bad": one.known == "bad",
                "checked": str(one.id) in chosen,
            }
            for one in releases.values()
        ],
        "areas": several(voice, area_choices(tree, voice), rollout_form.first(form, "area")),
        "sites": several(
            voice,
            sorted(((code, place.name(voice.lang)) for code, place in places.items()), key=lambda pair: pair[1]),
            rollout_form.first(form, "site"),
        ),
        "types": [(one.value, type_name(voice, one.value)) for one in TerminalType],
        "kinds": [(one, voice.t(f"kind.{one}")) for one in SITE_KINDS],
        "profiles": several(
            voice, [(one, one) for one in await desk.db.look(queries.profiles)], rollout_form.first(form, "profile")
        ),
        "components": [(one, view.component_name(voice, one)) for one in await desk.db.look(queries.components)],
        "priorities": [(str(value), voice.t(f"rollout.new.{word}")) for value, word in view.PRIORITIES],
        "one": lambda name, default="": rollout_form.first(form, name, default),
        "many": lambda name: set(form.get(name, ())),
        "problems": problems_of(refused, voice),
        **await _preview(desk, voice, form),
    }
    return await desk.page(
        request, "rollout_new.html", nav="updates", voice=voice, status=refused.status if refused else 200, **values
    )


def several(voice: Voice, options: list[tuple[str, str]], chosen: str) -> list[tuple[str, str]]:
    """A rollout that is copied may name several places where the form offers one: they stay together as one choice."""
    names = dict(options)
    if not chosen or chosen in names:
        return options
    parts = [names.get(part.strip(), part.strip()).strip() for part in chosen.split(",")]
    return [(chosen, voice.t("updates.join").join(parts)), *options]


# Freeze periods -------------------------------------------------------------------------------------------------------------------------


@get("/updates/freeze")
async def freeze_form(request: Asked, desk: TheDesk) -> Response[str]:
    check_may_stop(request)
    return await desk.part(request, "_freeze.html", form={}, problems={})


@post("/updates/freeze", status_code=200)
async def freeze_add(request: Asked, desk: TheDesk) -> Response[str]:
    check_may_stop(request)
    form, me, zone = await form_of(request), request.user.name, desk.view.zone
    try:
        from_ms, to_ms = rollout_form.moment_ms(form.get("from", ""), zone), rollout_form.moment_ms(form.get("to", ""), zone)
        if from_ms is None or to_ms is None:
            raise Refused("from" if from_ms is None else "to", "when")
        await desk.db.write(lambda conn: acts.add_freeze(conn, form.get("name", ""), from_ms, to_ms, by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        voice = desk.voice(request)
        return await desk.part(request, "_freeze.html", voice=voice, form=form, problems=problems_of(refused, voice))
    return acted(desk.voice(request).t("freeze.done"))


@post("/updates/freeze/{freeze:int}/remove", status_code=200)
async def freeze_remove(request: Asked, desk: TheDesk, freeze: FromPath[int]) -> Response[str]:
    check_may_stop(request)
    me = request.user.name
    await desk.db.write(lambda conn: acts.remove_freeze(conn, freeze, by=me, now_ms=desk.now_ms()))
    return acted(desk.voice(request).t("freeze.done"))


# Emergency ------------------------------------------------------------------------------------------------------------------------------


@get("/updates/stop")
async def stop_form(request: Asked, desk: TheDesk) -> Response[str]:
    check_may_stop(request)
    return await _stop(request, desk)


@post("/updates/stop", status_code=200)
async def stop(request: Asked, desk: TheDesk) -> Response[str]:
    check_may_stop(request)
    form, me = await form_of(request), request.user.name
    try:
        found = await desk.db.write(lambda conn: acts.stop_everything(conn, form.get("reason", ""), by=me, now_ms=desk.now_ms()))
    except Refused as refused:
        return await _stop(request, desk, form.get("reason", ""), refused)
    return acted(desk.voice(request).t("rollout.done.stopped", n=len(found)))


async def _stop(request: Asked, desk: Desk, text: str = "", refused: Refused | None = None) -> Response[str]:
    voice = desk.voice(request)
    sheets, _, _ = await desk.db.look(queries.overview)
    active = [sheet.title for sheet in sheets.values() if sheet.rollout.state in ACTIVE]
    return await desk.part(
        request, "_rollout_stop.html", voice=voice, active=active, text=text, problems=problems_of(refused, voice)
    )


# Versions in use ------------------------------------------------------------------------------------------------------------------------


@get("/updates/versions")
async def versions_page(request: Asked, desk: TheDesk) -> Response[str]:
    voice, fleet = desk.voice(request), await desk.fleet(request)
    total = len(fleet.terminals)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in await desk.db.look(queries.versions):
        groups.setdefault(row["component"], []).append(row)
    shown = []
    for component, rows in groups.items():
        reported = sum(row["n"] for row in rows)
        shown.append(
            {
                "component": component,
                "name": view.component_name(voice, component),
                "reported": voice.t("versions.reported", n=fmt.count(reported), total=fmt.count(total)),
                "lines": [
                    {**row, "width": f"{row['n'] / reported * 100:.2f}", "percent": fmt.Ratio(row["n"], reported).percent or ""}
                    for row in rows
                ],
            }
        )
    return await desk.page(request, "versions.html", nav="updates", voice=voice, groups=shown)


@get("/updates/versions.csv")
async def versions_csv(request: Asked, desk: TheDesk) -> Response[bytes]:
    """Every terminal with every component that it reported."""
    voice, fleet = desk.voice(request), await desk.fleet(request)
    rows = await desk.db.read(
        "SELECT terminal, component, version, release, at_ms FROM installed_version ORDER BY terminal, component"
    )
    t = voice.t
    columns = [
        Column(t("updates.column.terminal"), width=12), Column(t("updates.column.site"), width=24), Column(t("updates.column.component"), width=20),
        Column(t("updates.column.version"), width=14), Column(t("release.number"), "count"), Column(t("updates.column.since"), "moment"),
    ]  # fmt: skip
    lines = []
    for row in rows:
        now = fleet.by_id.get(row["terminal"])
        if now is not None:
            place = now.place.name(voice.lang)
            lines.append(
                [now.label, place, view.component_name(voice, row["component"]), row["version"], row["release"], row["at_ms"]]
            )
    return export.csv_file("versions", columns, lines, voice)


HANDLERS = [
    rollouts_page,
    new_form,
    new,
    preview,
    freeze_form,
    freeze_add,
    freeze_remove,
    stop_form,
    stop,
    versions_page,
    versions_csv,
]
