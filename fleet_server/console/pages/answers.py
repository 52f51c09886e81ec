"""Answers to what a person did: a short word on the page, or, where rows refused, a list of which and why."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from litestar import Response
from litestar.enums import MediaType

from fleet_server.console.actions import MAX_AT_ONCE, Tally
from fleet_server.console.desk import Asked, Desk
from fleet_server.errors import Refused
from fleet_server.sites.calendar import local_time

NAMED_MAX: Final = 20
"""Refused rows that are named one by one; of the rest the number is told."""


def acted(toast: str = "") -> Response[str]:
    """Empty: an open dialog closes, lists are read again; `toast` is said and shown for a moment."""
    return Response("", media_type=MediaType.HTML, headers={"HX-Trigger": _events(toast)})


def _events(toast: str) -> str:
    if not toast:
        return "kf:acted"
    # Escaped to ASCII: a header carries nothing else.
    return json.dumps({"kf:acted": "", "kf:toast": {"text": toast}})


async def ids_of(request: Asked) -> list[str]:
    """The chosen rows of a form, each once; Refused beyond what one transaction may do."""
    values: list[Any] = (await request.form()).getall("id", [])
    ids = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    if len(ids) > MAX_AT_ONCE:
        raise Refused("id", "rowsTooMany")
    return ids


async def tally_answer(request: Asked, desk: Desk, verb: str, tally: Tally, name: Callable[[str], str]) -> Response[str]:
    """How many were done; a dialog with which were not and why, where there are such."""
    voice = desk.voice(request)
    said = voice.t("bulk.done", n=len(tally.done), verb=verb)
    if not tally.refused:
        return acted(said)
    why = Counter(reason for _, reason in tally.refused)
    answer = await desk.part(
        request,
        "_tally.html",
        voice=voice,
        title=said,
        summary=[voice.t("bulk.refusedWhy", n=n, why=voice.t(f"refused.{reason}")) for reason, n in why.most_common()],
        refused=[(name(one), voice.t(f"refused.{reason}")) for one, reason in tally.refused[:NAMED_MAX]],
        more=max(0, len(tally.refused) - NAMED_MAX),
    )
    answer.headers["HX-Trigger"] = _events("")
    return answer


def local_field(at_ms: int, zone: str) -> str:
    """For an `<input type="datetime-local">` of the site's own time."""
    return local_time(at_ms, zone).strftime("%Y-%m-%dT%H:%M")
