"""The console's words: one catalogue per language, every sentence whole, placeholders by name.

A key that a catalogue lacks is an error, not an English word on a Chinese page; the tests hold both catalogues to the same keys and placeholders.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Final, Literal

Language = Literal["zh", "en"]
LANGUAGES: Final[tuple[Language, ...]] = ("zh", "en")
DEFAULT: Final[Language] = "zh"
HTML_LANG: Final[Mapping[Language, str]] = {"zh": "zh-CN", "en": "en"}


class MissingText(KeyError):
    """A key that a catalogue does not have: our own mistake."""


class Catalogue:
    """One language. `catalogue("overview.title", n=3)` is a whole sentence."""

    def __init__(self, language: Language, texts: Mapping[str, str]) -> None:
        self.language = language
        self.html_lang = HTML_LANG[language]
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """The sentence of `key`; with `n=1` its form `<key>.one` where the language has one. Raises MissingText."""
        text = self.raw(key, values.get("n"))
        return text.format_map(values) if values else text

    def raw(self, key: str, n: object = None) -> str:
        """The sentence with its placeholders, for whoever fills them in otherwise."""
        if n in {1, "1"} and f"{key}.one" in self._texts:
            return self._texts[f"{key}.one"]
        try:
            return self._texts[key]
        except KeyError:
            raise MissingText(f"{self.language}: {key}") from None

    def has(self, key: str) -> bool:
        return key in self._texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)


class TextTwice(ValueError):
    """Two files of a language hold the same key: our own mistake."""


@cache
def load(language: Language) -> Catalogue:
    """The console's catalogue of a language; read once. Raises TextTwice."""
    return read(resources.files(__package__).joinpath(language), language)


def read(folder: Traversable, language: Language) -> Catalogue:
    """A catalogue from a folder of files, one for each part of what it is for. Raises TextTwice."""
    texts: dict[str, str] = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if not file.name.endswith(".toml"):
            continue
        for key, text in _flat(tomllib.loads(file.read_text(encoding="utf-8")), ""):
            if key in texts:
                raise TextTwice(f"{language}: {key}, again in {file.name}")
            texts[key] = text
    return Catalogue(language, texts)


def load_all() -> dict[Language, Catalogue]:
    return {language: load(language) for language in LANGUAGES}


def language_of(wanted: str | None) -> Language:
    """`wanted` if the console speaks it, else the default."""
    return "en" if wanted == "en" else DEFAULT


def _flat(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Nested tables as dotted keys; a table of plural forms `{one, other}` gives `<key>.one` and `<key>`."""
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, str):
            yield key, value
        elif set(value) == {"one", "other"}:
            yield f"{key}.one", value["one"]
            yield key, value["other"]
        else:
            yield from _flat(value, f"{key}.")
