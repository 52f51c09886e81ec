"""Published figures: what was said when and by whom, beside what the facts say now; closing a month."""

from __future__ import annotations

from typing import Any, Final

from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Redirect

from fleet_server.console import figures_words as words
from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, Desk, TheDesk, form_of
from fleet_server.console.figures_view import behind_href
from fleet_server.console.pages.figures import view_of
from fleet_server.console.queries.figures import load_places
from fleet_server.console.render import Voice
from fleet_server.errors import NotFound, Refused
from fleet_server.figures.question import FLEET, Period, Scope
from fleet_server.figures.snapshots import Publication, Trace, load_publication, publications, published_together, trace_all
from fleet_server.reports.closing import CLOSED_IN, close, figures_to_close
from fleet_server.sites.calendar import local_day

OPERATOR: Final = {"role": "operator"}
MONTHS: Final = 6
"""So many of the last months are offered for closing."""
MAX_ID: Final = 2**53


@get("/figures/published")
async def published(request: Asked, desk: TheDesk) -> Response[str]:
    return await _page(request, desk)


@post("/figures/published", status_code=200, opt=OPERATOR)
async def close_month(request: Asked, desk: TheDesk) -> Response[Any]:
    month = (await form_of(request)).get("month", "")[:7]
    now_ms, by = desk.now_ms(), request.user.name
    try:
        if Period.read(month).text != month or len(month) != len("2026-01"):
            raise Refused("month", "noPeriod")
        figures = await desk.db.ponder(lambda conn: figures_to_close(conn, month, now_ms))
    except Refused as refused:
        return await _page(request, desk, problem=refused.reason)
    ids = await desk.db.write(lambda conn: close(conn, figures, by=by, now_ms=now_ms))
    return Redirect(f"/figures/published/{ids[0]}", status_code=303)


@get("/figures/published/{publication:int}")
async def publication_page(request: Asked, desk: TheDesk, publication: FromPath[int]) -> Response[str]:
    """Every figure of one publication as it was stored, and as it is computed now."""
    if not 0 < publication < MAX_ID:
        raise NotFound("no such publication")
    voice = desk.voice(request)
    scope = request.query_params.get("scope")

    def work(conn: Any) -> tuple[Publication, list[str], list[Trace]]:
        found = load_publication(conn, publication)
        snapshots = published_together(conn, publication)
        scopes = list(dict.fromkeys(one.figure.question.scope.to_json() for one in snapshots))
        chosen = scope if scope in scopes else scopes[0]
        traced = trace_all(conn, [one for one in snapshots if one.figure.question.scope.to_json() == chosen], voice.now_ms)
        return found, scopes, traced

    found, scopes, traced = await desk.db.ponder(work)
    names = (await desk.db.look(load_places)).names(voice.lang)
    shown = traced[0].then.figure.question.scope
    values: dict[str, Any] = {
        "publication": _publication(found, names, voice),
        "scopes": [
            {"value": one, "name": words.scope_words(_given(one), names, voice), "active": one == shown.to_json()}
            for one in scopes
        ],
        "rows": [_row(one, voice) for one in traced],
        "differing": sum(not one.is_same for one in traced),
        "as_of": voice.now_ms,
        "commands": _commands(found),
    }
    return await desk.page(request, "figures_publication.html", nav="figures", voice=voice, **values)


HANDLERS = [published, close_month, publication_page]


async def _page(request: Asked, desk: Desk, problem: str = "") -> Response[str]:
    voice = desk.voice(request)
    today = local_day(voice.now_ms, desk.view.zone)
    found = await desk.db.look(publications)
    names = (await desk.db.look(load_places)).names(voice.lang)
    closed = {one.question.period.text for one in found if one.published_in == CLOSED_IN and one.question.scope == FLEET}
    months, at = [], Period.month(today[:7]).before()
    for _ in range(MONTHS):
        months.append({"month": at.text, "closed": at.text in closed})
        at = at.before()
    values: dict[str, Any] = {
        "view": view_of(request, desk, voice),
        "rows": [_publication(one, names, voice) for one in found],
        "months": months,
        "wanted": next((one["month"] for one in months if not one["closed"]), months[0]["month"]),
        "problem": voice.t(f"refused.{problem}") if problem else "",
    }
    return await desk.page(
        request, "figures_published.html", nav="figures", voice=voice, status=400 if problem else 200, **values
    )


def _given(scope: str) -> dict[str, str]:
    return Scope.from_json(scope).given


def _publication(one: Publication, names: dict[str, str], voice: Voice) -> dict[str, Any]:
    known = f"figures.where.{one.published_in}"
    return {
        "id": one.id,
        "last": one.last,
        "count": fmt.count(one.count),
        "period": words.period_words(one.question.period.first, one.question.period.last, voice),
        "scope": words.scope_words(one.question.scope.given, names, voice),
        "where": voice.t(known) if voice.t.has(known) else one.published_in,
        "by": one.published_by or "—",
        "at_ms": one.computed_ms,
        "report": one.question.period.text if one.question.period.is_month else "",
    }


def _row(one: Trace, voice: Voice) -> dict[str, Any]:
    then, now = one.then.figure, one.now
    numerator, denominator = words.units(then)

    def parts(figure: Any) -> str:
        if not figure.is_ratio:
            return words.amount(figure.numerator, numerator, voice)
        return f"{words.amount(figure.numerator, numerator, voice)} / {words.amount(figure.denominator or 0, denominator, voice)}"

    return {
        "id": one.then.id,
        "title": words.title(then, voice) + (f" · {words.key_name(then, voice)}" if then.key else ""),
        "then": words.value(then, voice) or "—",
        "then_parts": parts(then),
        "then_population": fmt.count(then.population),
        "now": words.value(now, voice) or "—",
        "now_parts": parts(now),
        "now_population": fmt.count(now.population),
        "href": behind_href(now),
        "same": one.is_same,
        "difference": _difference(one, voice),
    }


def _difference(one: Trace, voice: Voice) -> str:
    """What moved, in words."""
    if one.is_same:
        return voice.t("figures.trace.same")
    then, now = one.then.figure, one.now
    numerator, denominator = words.units(then)
    said = []
    for key, before, after, unit in (
        ("numerator", then.numerator, now.numerator, numerator),
        ("denominator", then.denominator or 0, now.denominator or 0, denominator),
        ("population", then.population, now.population, "terminal"),
    ):
        if before != after:
            sign = "+" if after > before else "−"
            said.append(voice.t(f"figures.trace.{key}", change=sign + words.amount(abs(after - before), unit, voice)))
    return voice.t("figures.trace.join").join(said)


def _commands(one: Publication) -> list[str]:
    """How anybody with the signed originals and the root key makes the numbers again, without this page."""
    return [
        "fleet-server export-evidence TERMINAL --out TERMINAL.cbor",
        f"fleet-server recompute *.cbor --period {one.question.period.text}",
        f"fleet-server trace-figure {one.id}",
    ]
