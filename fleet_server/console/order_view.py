"""The list of orders: what its address asks for. Pure; the address is the view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode

from fleet_server.console.order_words import KINDS

STATES: Final = ("waiting", "open", "failed", "done", "ended")
RESULTS: Final = ("failed", "open", "done", "quiet")
MAX_TEXT: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderView:
    """Unknown words fall back to "all", so an old link still opens."""

    kind: str = ""
    state: str = ""
    by: str = ""
    terminal: str = ""
    page: int = 1

    @property
    def filters(self) -> dict[str, str]:
        named = {"kind": self.kind, "state": self.state, "by": self.by, "terminal": self.terminal}
        return {name: value for name, value in named.items() if value}

    def query(self, **changes: Any) -> str:
        """The query string of this view with `changes`."""
        changed = replace(self, **changes) if changes else self
        pairs = dict(changed.filters)
        if changed.page > 1:
            pairs["page"] = str(changed.page)
        return "?" + urlencode(pairs) if pairs else ""

    def without(self, name: str) -> str:
        return self.query(**{name: "", "page": 1})


def parse_view(params: Mapping[str, str]) -> OrderView:
    """Read an address; nothing in it can fail."""
    kind, state = params.get("kind", ""), params.get("state", "")
    return OrderView(
        kind=kind if kind in KINDS else "",
        state=state if state in STATES else "",
        by=params.get("by", "")[:MAX_TEXT],
        terminal=params.get("terminal", "")[:MAX_TEXT],
        page=page_number(params.get("page", "1")),
    )


def page_number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0 else 1
