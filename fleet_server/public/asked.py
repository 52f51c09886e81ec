"""Owns what may be asked, and how much: parameters of pages and of the API, all optional, all bounded. Pure.

No parameter takes a position. A page that knows where a citizen is sorts by itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode

from fleet_server.console.i18n import Language, language_of

QUERY_MAX_BYTES: Final = 512
WORDS_MAX: Final = 40
CODE_MAX: Final = 64
LIMIT_MAX: Final = 100
Mode = Literal["usual", "elder"]


class NotAsked(Exception):
    """A question that is not answered: (status, word of the sentence)."""

    def __init__(self, status: int, word: str) -> None:
        super().__init__(word)
        self.status, self.word = status, word


@dataclass(frozen=True, slots=True)
class PageAsk:
    """What a page is to show."""

    lang: Language = "zh"
    mode: Mode = "usual"
    area: str = ""
    service: str = ""
    words: str = ""
    open_only: bool = False
    all: bool = False

    def but(self, **changes: object) -> PageAsk:
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def query(self) -> str:
        """As it stands in an address, defaults left out: one address for each page."""
        pairs = (
            ("lang", self.lang if self.lang != "zh" else ""),
            ("mode", self.mode if self.mode != "usual" else ""),
            ("area", self.area),
            ("service", self.service),
            ("q", self.words),
            ("open", "1" if self.open_only else ""),
            ("all", "1" if self.all else ""),
        )
        return urlencode([(name, value) for name, value in pairs if value])

    def at(self, path: str) -> str:
        return f"{path}?{self.query}" if self.query else path


@dataclass(frozen=True, slots=True)
class ApiAsk:
    """What a list of the API is to hold."""

    area: str = ""
    service: str = ""
    near: str = ""
    """The code of a site: its neighbours, nearest first."""
    limit: int = 0


def page_ask(query: bytes) -> PageAsk:
    """What nobody knows is left aside: messengers add parameters of their own to links that people send each other."""
    given = dict(_pairs(query))
    return PageAsk(
        lang=language_of(given.get("lang")),
        mode="elder" if given.get("mode") == "elder" else "usual",
        area=_code(given.get("area", "")),
        service=_code(given.get("service", "")),
        words=" ".join(given.get("q", "")[:WORDS_MAX].split()),
        open_only=given.get("open") == "1",
        all=given.get("all") == "1",
    )


def api_ask(query: bytes) -> ApiAsk:
    """Raises NotAsked for what the API does not know: a program's author wants to hear of it."""
    pairs = _pairs(query)
    given = dict(pairs)
    if len(given) != len(pairs) or not given.keys() <= {"area", "service", "near", "limit"}:
        raise NotAsked(400, "parameter")
    limit = given.get("limit", "")
    if limit and not (limit.isascii() and limit.isdigit() and len(limit) <= 3 and 1 <= int(limit) <= LIMIT_MAX):
        raise NotAsked(400, "limit")
    return ApiAsk(
        area=_code(given.get("area", "")),
        service=_code(given.get("service", "")),
        near=_code(given.get("near", "")),
        limit=int(limit or 0),
    )


def no_parameters(query: bytes) -> None:
    if query:
        raise NotAsked(400, "parameter")


def _pairs(query: bytes) -> list[tuple[str, str]]:
    if len(query) > QUERY_MAX_BYTES:
        raise NotAsked(414, "tooLong")
    try:
        return parse_qsl(query.decode("ascii"), max_num_fields=12, errors="strict")
    except ValueError:  # not ASCII, not UTF-8 behind the percent signs, too many fields
        raise NotAsked(400, "parameter") from None


def _code(text: str) -> str:
    if len(text) > CODE_MAX:
        raise NotAsked(414, "tooLong")
    return text
