"""Turns values into pages: the template environment, the words of a language, and what every page shows around its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from fleet_server.accounts.rules import Session
from fleet_server.console import format as fmt
from fleet_server.console.i18n import Catalogue, Language

HERE: Final = Path(__file__).resolve().parent
TEMPLATES: Final = HERE / "templates"
STATIC: Final = HERE / "static"
CLIENT_WORDS: Final = {
    "seconds": "duration.seconds",
    "minutes": "duration.minutes",
    "hours": "duration.hours",
    "days": "duration.days",
    "ago": "duration.ago",
    "on": "live.on",
    "off": "live.off",
    "lost": "live.lost",
    "poll": "live.poll",
    "pill": "live.pill",
    "newFault": "live.newFault",
    "copied": "action.copied",
}
"""Sentences that a page fills in itself while it is open."""


def make_environment() -> Environment:
    """Everything is escaped, and a name that a template misspells is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(asset=asset, number=fmt.count, iso=fmt.iso)
    return environment


_HASHES: dict[str, str] = {}


def asset(name: str) -> str:
    """Address of a static file; its hash is in the address, so browsers may keep it for ever."""
    if name not in _HASHES:
        path = STATIC / name
        _HASHES[name] = hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else "missing"
    return f"/static/{name}?v={_HASHES[name]}"


@dataclass(frozen=True, slots=True)
class Voice:
    """A language at a moment in a time zone: how one request's page talks."""

    t: Catalogue
    now_ms: int
    zone: str

    @property
    def lang(self) -> Language:
        return self.t.language

    def rich(self, key: str, **values: object) -> Markup:
        """A sentence whose values may be markup; everything else is escaped."""
        parts: list[Markup] = []
        for literal, name, _, _ in Formatter().parse(self.t.raw(key, values.get("n"))):
            parts.append(escape(literal))
            if name is not None:
                parts.append(escape(values[name]))
        return Markup("").join(parts)

    def since(self, at_ms: int) -> Markup:
        """How long ago, as text that keeps counting in the page."""
        return Markup('<time class="tick" data-at="{}" data-form="for" title="{}">{}</time>').format(
            at_ms, self.stamp(at_ms), self.duration(self.now_ms - at_ms)
        )

    def age(self, at_ms: int) -> Markup:
        return Markup('<time class="tick" data-at="{}" data-form="ago" title="{}">{}</time>').format(
            at_ms, self.stamp(at_ms), self.ago(at_ms)
        )

    def link(self, href: str, text: str) -> Markup:
        return Markup('<a href="{}">{}</a>').format(href, text)

    def duration(self, length_ms: int) -> str:
        return fmt.duration(self.t, length_ms)

    def ago(self, at_ms: int) -> str:
        return fmt.ago(self.t, at_ms, self.now_ms)

    def stamp(self, at_ms: int, zone: str | None = None) -> str:
        return fmt.stamp(at_ms, zone or self.zone)

    def clock(self, at_ms: int, zone: str | None = None) -> str:
        return fmt.clock(at_ms, zone or self.zone, self.now_ms)

    def context(self) -> dict[str, Any]:
        return {
            "t": self.t,
            "lang": self.lang,
            "now_ms": self.now_ms,
            "zone": self.zone,
            "duration": self.duration,
            "ago": self.ago,
            "stamp": self.stamp,
            "clock": self.clock,
        }


class Renderer:
    """Templates by language."""

    def __init__(self, catalogues: Mapping[Language, Catalogue]) -> None:
        self._environment = make_environment()
        self.catalogues = catalogues
        self._client_words = {language: self._words(catalogue) for language, catalogue in catalogues.items()}

    def __call__(self, template: str, voice: Voice, session: Session | None, values: Mapping[str, Any]) -> str:
        page = self._environment.get_template(template)
        return page.render({**voice.context(), "session": session, "client_words": self._client_words[voice.lang], **values})

    @staticmethod
    def _words(catalogue: Catalogue) -> str:
        words = {name: catalogue.raw(key) for name, key in CLIENT_WORDS.items()}
        words["pill1"] = catalogue("live.pill", n=1)
        words["lang"] = catalogue.language
        return json.dumps(words, ensure_ascii=False)


def share(part: float, whole: float) -> str:
    """A percentage for SVG geometry."""
    return f"{part / whole * 100:.3f}" if whole else "0"
