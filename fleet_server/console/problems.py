"""The one place where an exception becomes an answer: a page, a short text for a page's own request, or the way to sign in."""

from __future__ import annotations

import logging
import secrets
from typing import Any
from urllib.parse import quote

from litestar import Response
from litestar.enums import MediaType
from litestar.response import Redirect

from fleet_server.accounts.access import MustChangePassword
from fleet_server.console.desk import Asked, desk_of, here, is_fragment
from fleet_server.errors import NotSignedIn, Refused, problem_of

log = logging.getLogger(__name__)


def answer_for(request: Asked, error: Exception) -> Response[Any]:
    """Never tells a browser more than the catalogue's sentence; our own mistakes are logged once, under a reference."""
    desk = desk_of(request)
    status, word = problem_of(error)
    if isinstance(error, NotSignedIn):
        return _sign_in(request, error)
    reference = ""
    voice = desk.voice(request)
    if status >= 500:
        reference = secrets.token_hex(4)
        log.error("request failed: %s %s (%s)", request.method, request.url.path, reference, exc_info=error)
    text = voice.t(f"problem.{word}")
    if isinstance(error, Refused) and voice.t.has(f"refused.{error.reason}"):
        text = voice.t(f"refused.{error.reason}")
    if is_fragment(request):
        return Response(text, media_type=MediaType.TEXT, status_code=status)
    values = {
        "title": voice.t(f"problem.{word}Title"),
        "text": text,
        "reference": voice.t("problem.reference", id=reference) if reference else "",
    }
    html = desk.render("problem.html", voice, request.scope.get("user"), values)
    return Response(html, media_type=MediaType.HTML, status_code=status)


def _sign_in(request: Asked, error: NotSignedIn) -> Response[Any]:
    if isinstance(error, MustChangePassword):
        target = "/password"
    else:
        why = "&why=expired" if desk_of(request).cookie in request.cookies else ""
        target = f"/login?next={quote(here(request), safe='')}{why}"
    if is_fragment(request):
        return Response("", media_type=MediaType.TEXT, status_code=401, headers={"HX-Redirect": target})
    if request.method == "GET" and "text/event-stream" not in request.headers.get("Accept", ""):
        return Redirect(target)
    return Response("", media_type=MediaType.TEXT, status_code=401)
