"""How a content file is answered: ranges (RFC 9110, section 14), types, and headers that keep a page from acting. Pure.

A page of a package is shown in a frame of the kiosk application. It may load pictures, videos and styles of its own package and nothing else; it runs
no script, sends no form, and may be framed only by the origins that the installer has listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


@dataclass(frozen=True, slots=True)
class Span:
    """What of the file is sent. 416: nothing, the range lies outside."""

    status: int
    start: int
    length: int


def span(size: int, etag: str, *, range_: str | None, if_range: str | None) -> Span:
    """One range is served; several, or none that can be read, give the whole file, as the standard allows."""
    found = None if range_ is None else _RANGE.fullmatch(range_.strip())
    if found is None or (if_range is not None and if_range.strip() != etag) or found[1] == found[2] == "":
        return Span(200, 0, size)
    if found[1] == "":
        last = int(found[2])
        return Span(416, 0, 0) if last == 0 else Span(206, max(0, size - last), min(size, last))
    start, end = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and end < start:
        return Span(200, 0, size)
    if start >= size:
        return Span(416, 0, 0)
    return Span(206, start, min(end, size - 1) - start + 1)


def headers(part: Span, size: int, etag: str, content_type: str, frame_ancestors: Iterable[str]) -> list[tuple[str, str]]:
    ancestors = " ".join(frame_ancestors) or "'none'"
    policy = (
        "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {ancestors}; sandbox"
    )
    fields = [
        ("accept-ranges", "bytes"),
        ("cache-control", "no-cache"),
        ("content-security-policy", policy),
        ("content-length", str(part.length)),
        ("cross-origin-resource-policy", "cross-origin"),
        ("etag", etag),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ]
    if part.status == 416:
        return [*fields, ("content-range", f"bytes */{size}")]
    fields.append(("content-type", content_type))
    if part.status == 206:
        fields.append(("content-range", f"bytes {part.start}-{part.start + part.length - 1}/{size}"))
    return fields
