"""What applications may have of items and content: lists as JSON, files in ranges, and their word on what they have shown.

Files are public material, so a browser's `<video>` or frame, which can show neither a token nor an Origin, may fetch them; the `Host` must fit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.content import serving
from edge_agent.content.plays import PlayBook
from edge_agent.content.shelf import Shelf
from edge_agent.local_api.refusal import ApiRefused
from edge_agent.local_api.server import PREFIX
from protocols.packages import content
from protocols.packages.catalogue import Item

_FILE = re.compile(rf"{PREFIX}/([a-z0-9-]{{1,48}})/([a-z0-9/._-]{{1,160}})")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file to send: `length` bytes from `start`."""

    status: int
    headers: list[tuple[str, str]]
    path: Path
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Guides:
    """`frame_ancestors`: origins that may show a page in a frame."""

    shelf: Shelf
    book: PlayBook
    items: Callable[[], Iterable[Item]]
    frame_ancestors: tuple[str, ...] = ()

    def list_items(self) -> list[dict[str, Any]]:
        return [{"code": item.code, "type": item.type, "zh": item.zh, "en": item.en} for item in self.items()]

    def list_packages(self) -> list[dict[str, Any]]:
        """What may be shown now, the most important first, with the address of each page."""
        return [
            {
                "package": held.manifest.name,
                "version": held.manifest.version,
                "priority": held.manifest.priority,
                "pages": [
                    {
                        "id": page.id,
                        "zh": page.zh,
                        "en": page.en,
                        "items": page.items,
                        "seconds": page.seconds,
                        "type": (content.type_of(page.file) or "").partition(";")[0],
                        "url": f"{PREFIX}/{held.manifest.name}/{page.file}",
                    }
                    for page in held.manifest.pages
                ],
            }
            for held in self.shelf.valid()
        ]

    def file(self, target: str, headers: Mapping[str, str]) -> FilePart:
        """Raises ApiRefused: nothing of the path is repeated, and what is not shown now is as absent as what never was."""
        match = _FILE.fullmatch(target)
        shown = None if match is None else self.shelf.find(match[1], match[2])
        if shown is None:
            raise ApiRefused(404, "path", "There is nothing to show at this address now.")
        part = serving.span(shown.size, shown.etag, range_=headers.get("range"), if_range=headers.get("if-range"))
        fields = serving.headers(part, shown.size, shown.etag, shown.content_type, self.frame_ancestors)
        return FilePart(part.status, fields, shown.path, part.start, part.length)

    def play(self, package: str, page: str, count: int, seconds: int) -> bool:
        """False if no package in use has that page, or too many were told."""
        version = self.shelf.version_of(package, page)
        return version is not None and self.book.add(package, version, page, count=count, seconds=seconds)
