"""Columns of the terminal list: which there are, which a person sees, in which order. Pure.

A choice is kept per account as the names that are shown; names that a later version does not know are left out, so an old choice still opens.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Final

FIXED: Final = ("state", "code")
"""Always there: without them a row says nothing."""
USUAL: Final = (*FIXED, "site", "type", "fault", "lamps", "downtime", "cases", "age", "version")
"""What is shown before anybody has chosen; each of them sorts."""
HIDDEN: Final = ("model", "serial", "firmware", "network", "offset", "certificate", "waiting", "owned", "tags")
ALL: Final = (*USUAL, *HIDDEN)
FROM_DEVICES: Final = frozenset({"model", "serial", "firmware"})
FROM_CONNECTION: Final = frozenset({"offset", "certificate"})
WIDE_FROM: Final = 9
"""So many columns, and others than the usual ones, scroll sideways in a box of their own."""


def is_wide(columns: Collection[str]) -> bool:
    return len(columns) >= WIDE_FROM and not set(columns) <= set(USUAL)


def chosen(names: Iterable[str]) -> tuple[str, ...]:
    """The columns of a choice in the order of the list, with the fixed ones."""
    wanted = set(names) | set(FIXED)
    return tuple(name for name in ALL if name in wanted)


def read_choice(text: str | None) -> tuple[str, ...]:
    """A stored choice; USUAL if there is none, or none that can be read."""
    try:
        names = json.loads(text) if text else None
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list):
        return USUAL
    return chosen(name for name in names if isinstance(name, str))
