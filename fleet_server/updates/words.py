"""The sentences of this part in both languages: zh.toml and en.toml beside this file. Whole sentences, never glued; `{name}` is filled with facts."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Literal

Language = Literal["zh", "en"]
Table = Literal["problems", "results", "warnings"]


def language_of(environ: Mapping[str, str]) -> Language:
    """As a terminal's locale says: LC_ALL before LC_MESSAGES before LANG."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = environ.get(variable)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@functools.cache
def catalogue(language: Language) -> dict[str, dict[str, str]]:
    return tomllib.loads(resources.files("fleet_server.updates").joinpath(f"{language}.toml").read_text("utf-8"))


def say(language: Language, table: Table, what: str, facts: Mapping[str, object] | None = None) -> str:
    return catalogue(language)[table][what].format(**(facts or {}))
