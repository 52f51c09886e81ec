"""The public face as an ASGI application: finds the finished answer for an address, and says what a cache needs to know about it.

No framework stands in between: an answer is a dictionary look-up and two messages. Nothing of a request is logged or kept.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

from fleet_server.errors import place_of
from fleet_server.public import api
from fleet_server.public.asked import CODE_MAX, NotAsked, PageAsk, api_ask, no_parameters, page_ask
from fleet_server.public.keeper import Keeper
from fleet_server.public.render import Pages
from fleet_server.public.shelf import Answer, Shelf, answer

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

API: Final = "/api/v1/"
METHODS: Final = ("GET", "HEAD", "OPTIONS")
FRESH: Final = b"public, max-age=5"
FRESH_API: Final = b"public, max-age=5, stale-while-revalidate=10"
SLOW_CHANGING: Final = b"public, max-age=3600"
FOR_EVER: Final = b"public, max-age=31536000, immutable"
RETRY_AFTER_S: Final = b"2"
ROBOTS: Final = "User-agent: *\nAllow: /\nDisallow: /api/\nDisallow: /cards\n"

POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none';"
    b" frame-ancestors 'none'"
)
EVERYWHERE: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
ON_PAGES: Final[Headers] = [
    (b"content-security-policy", POLICY),
    (b"permissions-policy", b"geolocation=(self), camera=(), microphone=(), usb=(), serial=(), payment=()"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
ON_API: Final[Headers] = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", b"ETag, Snapshot-Age, Retry-After"),
    (b"cross-origin-resource-policy", b"cross-origin"),
]
PREFLIGHT: Final[Headers] = [
    (b"access-control-allow-methods", ", ".join(METHODS).encode()),
    (b"access-control-allow-headers", b"If-None-Match"),
    (b"access-control-max-age", b"86400"),
]


class PublicApp:
    def __init__(
        self, keeper: Keeper, pages: Pages, static: MutableMapping[str, Answer] | dict[str, Answer], *, keep: bool = True
    ) -> None:
        """`keep` False makes every answer anew: for measuring what the shelf is worth."""
        self._keeper, self._pages, self._static = keeper, pages, static
        self._keep = keep
        self.shelf = Shelf()
        self._robots = answer(ROBOTS, "text/plain; charset=utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        method, path = str(scope["method"]), str(scope["path"])
        is_api = path.startswith("/api/")
        if method == "OPTIONS" and is_api:
            await _send(send, 204, [*EVERYWHERE, *ON_API, *PREFLIGHT, (b"cache-control", SLOW_CHANGING)], b"")
            return
        try:
            found, caching = self._found(method, path, scope["query_string"])
        except NotAsked as refused:
            found, caching = self._refusal(refused, path, scope["query_string"])
        except Exception as err:  # noqa: BLE001 - whatever it was, the person gets a calm page and the log a line
            # Its message may hold what somebody typed.
            log.error("an answer could not be made: %s", place_of(err))
            found, caching = self._refusal(NotAsked(500, "internal"), path, b"")
        await self._answer(send, scope["headers"], method, found, caching, ON_API if is_api else ON_PAGES)

    # Finding ---------------------------------------------------------------------------------------------------------------------------

    def _found(self, method: str, path: str, query: bytes) -> tuple[Answer, bytes]:
        if method not in ("GET", "HEAD"):
            raise NotAsked(405, "method")
        if path.startswith("/static/"):
            return self._file(path.removeprefix("/static/"), query)
        if path == "/robots.txt":
            return self._robots, SLOW_CHANGING
        if path == f"{API}openapi.json":
            return self._kept("", path, api.description), SLOW_CHANGING
        if path == f"{API}services":
            no_parameters(query)
            return self._kept("", path, api.services), SLOW_CHANGING
        make = self._maker(path, query)
        if not self._keeper.is_ready:
            raise NotAsked(503, "starting")
        return self._kept(self._keeper.view.version, *make), FRESH_API if path.startswith(API) else FRESH

    def _maker(self, path: str, query: bytes) -> tuple[tuple[object, ...], Callable[[], Answer]]:
        """Under which key the answer is kept, and how it is made."""
        view = self._keeper.view
        if path.startswith(API):
            rest = path.removeprefix(API)
            if rest == "sites":
                asked = api_ask(query)
                return (rest, asked), lambda: api.sites(view, asked)
            no_parameters(query)
            if rest == "areas":
                return (rest,), lambda: api.areas(view)
            if rest.startswith("sites/"):
                code = _code(rest.removeprefix("sites/"))
                return ("site", code), lambda: api.site(view, code)
            raise NotAsked(404, "page")
        ask = page_ask(query)
        if path == "/":
            return ("list", ask), lambda: self._pages.list(view, ask)
        if path == "/cards":
            return ("cards", ask), lambda: self._pages.cards(view, ask)
        if path.startswith("/sites/"):
            code = _code(path.removeprefix("/sites/"))
            plain = PageAsk(lang=ask.lang, mode=ask.mode)
            return ("page", plain, code), lambda: self._pages.site(view, plain, code)
        raise NotAsked(404, "page")

    def _kept(self, version: str, key: object, make: Callable[[], Answer]) -> Answer:
        if not self._keep:
            return make()
        return self.shelf.get(version or self._keeper.view.version, key, make)

    def _file(self, name: str, query: bytes) -> tuple[Answer, bytes]:
        if name not in self._static:
            raise NotAsked(404, "page")
        return self._static[name], FOR_EVER if query.startswith(b"v=") else SLOW_CHANGING

    def _refusal(self, refused: NotAsked, path: str, query: bytes) -> tuple[Answer, bytes]:
        if path.startswith("/api/"):
            made = api.problem(refused.status, refused.word, self._pages.sentence(refused.word, "en"))
        else:
            try:
                asked = page_ask(query)
            except NotAsked:
                asked = PageAsk()
            made = self._pages.problem(refused.status, refused.word, PageAsk(lang=asked.lang, mode=asked.mode), self._keeper.view)
        return made, b"no-store"

    # Answering --------------------------------------------------------------------------------------------------------------------------

    async def _answer(
        self, send: Send, asked: Iterable[tuple[bytes, bytes]], method: str, found: Answer, caching: bytes, more: Headers
    ) -> None:
        given = {name: value for name, value in asked if name in (b"accept-encoding", b"if-none-match")}
        packed = found.packed if found.packed is not None and accepts_gzip(given.get(b"accept-encoding", b"")) else None
        tag = found.packed_tag if packed is not None else found.tag
        headers = [
            *EVERYWHERE,
            *more,
            (b"etag", tag.encode()),
            (b"cache-control", caching),
            (b"vary", b"Accept-Encoding"),
            (b"snapshot-age", str(self._keeper.age_ms // 1000).encode()),
        ]
        if found.status == 200 and is_known(given.get(b"if-none-match", b""), found):
            await _send(send, 304, headers, b"")
            return
        body = found.body if packed is None else packed
        headers += [(b"content-type", found.type.encode()), (b"content-length", str(len(body)).encode())]
        if packed is not None:
            headers.append((b"content-encoding", b"gzip"))
        if found.status == 503:
            headers.append((b"retry-after", RETRY_AFTER_S))
        if found.status == 405:
            headers.append((b"allow", ", ".join(METHODS).encode()))
        await _send(send, found.status, headers, b"" if method == "HEAD" else body)


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _code(text: str) -> str:
    if len(text) > CODE_MAX:
        raise NotAsked(414, "tooLong")
    return text


def accepts_gzip(value: bytes) -> bool:
    """RFC 9110, section 12.5.3, as far as gzip goes."""
    for part in value.split(b","):
        coding, _, weight = part.partition(b";")
        if coding.strip().lower() in (b"gzip", b"*"):
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def is_known(value: bytes, found: Answer) -> bool:
    """Whether one of the tags of If-None-Match is this answer's, in either coding."""
    if not value:
        return False
    tags = {tag.strip().removeprefix("W/") for tag in value.decode("latin-1").split(",")}
    return "*" in tags or found.tag in tags or found.packed_tag in tags
