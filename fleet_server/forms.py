"""Owns how a form with several fields is refused: all of them at once, each with its own word. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fleet_server.errors import Refused


class FormRefused(Refused):
    """Some fields break a rule; `problems` maps each to a key of the console's catalogues (`refused.<word>`), in the order of the form."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        field, reason = next(iter(problems.items()))
        super().__init__(field, reason)
        self.problems = MappingProxyType(dict(problems))


class Problems:
    """Collects what is wrong with a form; `check` refuses it if anything is. The first word about a field stays."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}

    def add(self, field: str, word: str) -> None:
        self._found.setdefault(field, word)

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        if self._found:
            raise FormRefused(self._found)
