"""The audit log: what its address asks for, and a row in words. Pure; the address is the view."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final
from urllib.parse import urlencode

from fleet_server.console.order_view import page_number
from fleet_server.console.order_words import what
from fleet_server.console.render import Voice
from fleet_server.sites.calendar import day_span_ms

RESULTS: Final = ("done", "refused", "failed")
MAX_TEXT: Final = 80
_HEX: Final = re.compile(r"[0-9a-f]{24,}")
_SHORT: Final = 12
"""Digits of a hash that people compare by eye; the file has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditView:
    by: str = ""
    about: str = ""
    result: str = ""
    q: str = ""
    from_: str = ""
    to: str = ""
    page: int = 1

    @property
    def filters(self) -> dict[str, str]:
        named = {"q": self.q, "by": self.by, "about": self.about, "result": self.result, "from": self.from_, "to": self.to}
        return {name: value for name, value in named.items() if value}

    def query(self, **changes: Any) -> str:
        changed = replace(self, **changes) if changes else self
        pairs = dict(changed.filters)
        if changed.page > 1:
            pairs["page"] = str(changed.page)
        return "?" + urlencode(pairs) if pairs else ""

    def without(self, name: str) -> str:
        return self.query(**{"from_" if name == "from" else name: "", "page": 1})

    def span(self, zone: str) -> tuple[int | None, int | None]:
        """Instants of the days asked for, the last one whole."""
        start = day_span_ms(self.from_, zone)[0] if self.from_ else None
        end = day_span_ms(self.to, zone)[1] if self.to else None
        return start, end


def parse_view(params: Mapping[str, str]) -> AuditView:
    """Read an address; nothing in it can fail."""
    result = params.get("result", "")
    return AuditView(
        by=params.get("by", "")[:MAX_TEXT],
        about=params.get("about", "")[:MAX_TEXT],
        result=result if result in RESULTS else "",
        q=" ".join(params.get("q", "")[:MAX_TEXT].split()),
        from_=_day(params.get("from", "")),
        to=_day(params.get("to", "")),
        page=page_number(params.get("page", "1")),
    )


def action_words(voice: Voice, action: str) -> str:
    """What was done, as a phrase; a word that nobody translated stays itself."""
    key = f"audit.action.{action}"
    return voice.t(key) if voice.t.has(key) else action


def group_words(voice: Voice, group: str) -> str:
    key = f"audit.group.{group}"
    return voice.t(key) if voice.t.has(key) else group


def detail_words(voice: Voice, action: str, detail: str) -> list[str]:
    """What the row says beyond its action: an order in words, the rest as names and values."""
    try:
        told = json.loads(detail)
    except ValueError:
        return [detail]
    if not isinstance(told, dict):
        return [detail]
    said: list[str] = []
    if action == "order.request" and "kind" in told:
        said.append(what(voice, str(told.pop("kind")), json.dumps(told.pop("body", {}))))
    if "names" in told:
        told.pop("terminals", None)
    for name, value in told.items():
        if value in ("", None, [], {}):
            continue
        if voice.t.has(f"audit.word.{name}.{value}"):
            said.append(voice.t(f"audit.word.{name}.{value}"))
            continue
        key = f"audit.detail.{name}"
        said.append(voice.t("audit.pair", name=voice.t(key) if voice.t.has(key) else name, value=_value(value)))
    return said


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(one)}" for name, one in value.items())
    return _HEX.sub(lambda found: found[0][:_SHORT] + "…", str(value))


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return ""
