"""What handlers work with: one `Desk` per web process, one `Voice` per request, and the values that frame every page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.enums import MediaType

from fleet_server.accounts.rules import Session
from fleet_server.accounts.sessions import Sessions
from fleet_server.console import format as fmt
from fleet_server.console.figures_desk import FiguresDesk
from fleet_server.console.fleet import Fleet, FleetView
from fleet_server.console.i18n import Language, language_of
from fleet_server.console.needs import needs
from fleet_server.console.outline import Outline
from fleet_server.console.queries.orders import undecided_count
from fleet_server.console.render import Renderer, Voice
from fleet_server.console.words import state_help
from fleet_server.engine import FleetEngine
from fleet_server.live.hub import Hub
from fleet_server.settings import Settings
from fleet_server.sites.calendar import Calendar
from fleet_server.wallboards.door import Door

LANGUAGE_COOKIE: Final = "kf_lang"
FLEET_KEY: Final = "kf_fleet"
Asked = Request[Any, Any, Any]


@dataclass(slots=True)
class Desk:
    """The console's parts, put together in `app.py`."""

    settings: Settings
    db: FleetEngine
    sessions: Sessions
    view: FleetView
    hub: Hub
    render: Renderer
    now_ms: Callable[[], int]
    cookie: str
    outline: Outline
    wall_door: Door
    root: Ed25519PublicKey | None = None
    """The fleet's root where there is no authority folder (tests)."""
    figures: FiguresDesk = field(init=False)
    glance: Any = None
    """What the start page keeps between requests; it makes it itself."""

    def __post_init__(self) -> None:
        self.figures = FiguresDesk(self.db, self.now_ms)

    def voice(self, request: Asked) -> Voice:
        session: Session | None = request.scope.get("user")
        return Voice(self.render.catalogues[language(request, session)], self.now_ms(), self.view.zone)

    async def fleet(self, request: Asked) -> Fleet:
        """The fleet as this request sees it: one look, so that all parts of a page agree."""
        scope: dict[str, Any] = request.scope  # type: ignore[assignment]  # a scope may carry what an application adds
        if FLEET_KEY not in scope:
            scope[FLEET_KEY] = await self.view.current()
        found: Fleet = scope[FLEET_KEY]
        return found

    async def page(self, request: Asked, template: str, *, nav: str, status: int = 200, **values: Any) -> Response[str]:
        """A whole page inside the frame."""
        fleet = await self.fleet(request)
        voice: Voice = values.pop("voice", None) or self.voice(request)
        shown = {**self.frame(request, voice, fleet), "approvals": await self.approvals(request), "nav": nav, **values}
        return self._answer(template, voice, request, shown, status)

    async def part(
        self, request: Asked, template: str, *, voice: Voice | None = None, status: int = 200, **values: Any
    ) -> Response[str]:
        """A fragment that replaces one of a page."""
        fleet = await self.fleet(request)
        chosen = voice or self.voice(request)
        shown = {**self.frame(request, chosen, fleet), "approvals": await self.approvals(request), **values}
        return self._answer(template, chosen, request, shown, status)

    async def approvals(self, request: Asked) -> int:
        """How many requests wait for whoever is asking; 0 for who may not approve."""
        session: Session | None = request.scope.get("user")
        if session is None or not session.may("approve"):
            return 0
        return await undecided_count(self.db, session.name, self.now_ms())

    def frame(self, request: Asked, voice: Voice, fleet: Fleet) -> dict[str, Any]:
        """What surrounds every page."""
        rows = needs(fleet.terminals, voice.now_ms)
        return {
            "here": here(request),
            "change_id": fleet.change_id,
            "needs": {"n": len(rows), "open_faults": open_fault_count(fleet)},
            "need_list": rows,
            "calendar": calendar_word(fleet.calendar, fleet.today),
            "calendar_missing": calendar_warning(fleet.calendar, fleet.today),
            "state_help": lambda look, limits=None: state_help(voice, look, limits or fleet.usual),
            "platform": fleet.platform,
            "backlog": self.hub.backlog,
            "demo": self.demo_banner(voice, fleet),
            "broker_note": voice.t("broker.embedded") if self.settings.broker.kind == "embedded" else "",
            "evidence_of": evidence_of(request),
        }

    def demo_banner(self, voice: Voice, fleet: Fleet) -> str:
        speed = self.settings.web.demo_speed
        return voice.t("demo.banner", n=fmt.count(len(fleet.terminals)), speed=speed) if speed else ""

    def _answer(self, template: str, voice: Voice, request: Asked, values: Mapping[str, Any], status: int) -> Response[str]:
        session: Session | None = request.scope.get("user")
        html = self.render(template, voice, session, values)
        return Response(html, media_type=MediaType.HTML, status_code=status)


TheDesk = NamedDependency[Desk]
"""How a handler asks for the desk."""


def desk_of(request: Asked) -> Desk:
    """The desk of the application that serves this request."""
    desk: Desk = request.app.state.desk
    return desk


def language(request: Asked, session: Session | None) -> Language:
    """The account's language; before sign-in what the browser chose here before, else the default."""
    return language_of(session.lang if session else request.cookies.get(LANGUAGE_COOKIE))


def here(request: Asked) -> str:
    """This page's own address; of a fragment, the address of the page that asked for it."""
    current = request.headers.get("HX-Current-URL")
    if current:
        parts = urlsplit(current)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def evidence_of(request: Asked) -> str:
    """`?evidence=12/0` opens the drawer with the page, so that a copied address shows the same."""
    value = parse_qs(request.url.query).get("evidence", [""])[0]
    batch, _, idx = value.partition("/")
    return value if batch.isascii() and idx.isascii() and batch.isdigit() and idx.isdigit() else ""


def local_address(wanted: str | None) -> str:
    """A path on this server, whatever was asked for: an answer never sends a browser elsewhere."""
    text = wanted or "/"
    parts = urlsplit(text)
    if (
        parts.scheme
        or parts.netloc
        or not text.startswith("/")
        or text.startswith(("//", "/\\"))
        or "\\" in text
        or not text.isprintable()
    ):
        return "/"
    return text


def is_fragment(request: Asked) -> bool:
    """Whether htmx asks for a part of a page. After its history was lost it wants the whole page."""
    return request.headers.get("HX-Request") == "true" and request.headers.get("HX-History-Restore-Request") != "true"


def open_fault_count(fleet: Fleet) -> int:
    return sum(len(terminal.faults) for terminal in fleet.terminals)


def calendar_word(calendar: Calendar, today: str) -> str:
    if not today:
        return "work"
    day = date.fromisoformat(today)
    if calendar.is_make_up(day):
        return "makeUp"
    return calendar.kind(day)


def calendar_warning(calendar: Calendar, today: str) -> int | None:
    """The first year whose holidays should be known by now and are not: the notice for the next year is out before 1 December."""
    missing = calendar.missing_years(date.fromisoformat(today)) if today else ()
    return missing[0] if missing else None


async def form_of(request: Asked) -> dict[str, str]:
    """Fields of a form as text; files are ignored."""
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
