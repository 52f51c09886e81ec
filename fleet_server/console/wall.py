"""What a screen on a wall shows, as one answer: its views as fragments, the drawing of the map, the bars above, and which version made it.

No view names staff: of a fault that somebody has it says so, not who.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from markupsafe import Markup

from fleet_server.console import citymap, listing
from fleet_server.console.desk import Desk, calendar_word
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import Ratio
from fleet_server.console.looks import LOOK
from fleet_server.console.needs import Need, needs
from fleet_server.console.pages.overview import need_words, used_now
from fleet_server.console.queries import map as map_queries
from fleet_server.console.queries import overview as overview_queries
from fleet_server.console.render import TEMPLATES, Voice, asset, share
from fleet_server.terminals.state import WORST_FIRST, Counts, StateCode
from fleet_server.wallboards.rules import Board

FIRST_ROWS: Final = 2
NEED_ROWS: Final = 6
AREA_ROWS: Final = 12
"""What is readable from five metres fits a screen so many times."""
CLIENT_WORDS: Final = {
    "seconds": "duration.seconds",
    "minutes": "duration.minutes",
    "hours": "duration.hours",
    "days": "duration.days",
    "data": "wall.data",
    "lost": "live.lost",
    "over": "wall.over",
    "paused": "wall.paused",
}
MADE_OF: Final = ("wall.js", "ages.js", "wall.css", "citymap.js", "map.css", "vendor/echarts.min.js")


@lru_cache(maxsize=1)
def version() -> str:
    """Changes when anything does that a screen has loaded or is sent: then it loads itself anew."""
    digest = hashlib.sha256(" ".join(asset(name) for name in MADE_OF).encode())
    for template in sorted(TEMPLATES.glob("*wall*.html")):
        digest.update(template.read_bytes())
    return digest.hexdigest()[:16]


async def snapshot(desk: Desk, fleet: Fleet, board: Board, voice: Voice) -> dict[str, Any]:
    """Everything that the page of `board` needs until something changes."""
    by_state = listing.counts(fleet.terminals)
    rows = needs(fleet.terminals, voice.now_ms)
    ground = await map_queries.ground(desk.db, voice.now_ms)
    city = citymap.city(fleet.terminals, ground, desk.outline, voice.lang)
    values: dict[str, Any] = {
        "now": lambda: {
            "headline": headline(voice, fleet, by_state, rows),
            **_tiles(by_state),
            "rows": _rows(rows[:FIRST_ROWS], voice),
        },
        "needs": lambda: {"rows": _rows(rows[:NEED_ROWS], voice), "more": len(rows) - NEED_ROWS},
        "map": lambda: {"headline": plain(citymap.headline(city.areas, voice)), "unplaced": len(city.unplaced)},
        "areas": lambda: {"areas": city.areas[:AREA_ROWS], "more": len(city.areas) - AREA_ROWS},
    }
    views: dict[str, str] = {}
    for view in board.look.views:
        filled = await _usage(desk, fleet, voice) if view == "usage" else values[view]()
        views[view] = desk.render(f"_wall_{view}.html", voice, None, filled)
    answer: dict[str, Any] = {
        "version": version(),
        "now_ms": voice.now_ms,
        "name": board.look.name,
        "order": board.look.views,
        "interval_s": board.look.interval_s,
        "lang": board.look.lang,
        "calendar": voice.t(f"calendar.{calendar_word(fleet.calendar, fleet.today)}"),
        "counts": desk.render("_wall_counts.html", voice, None, {"counts": _mini(by_state)}),
        "bars": bars(desk, fleet, voice),
        "views": views,
    }
    if "map" in board.look.views:
        answer["map"] = citymap.feed(city, voice)
    return answer


def plain(sentence: Markup) -> str:
    """A sentence without its links: a screen on a wall has nothing to click."""
    return sentence.striptags()


def headline(voice: Voice, fleet: Fleet, by_state: Counts, rows: list[Need]) -> str:
    """The overview's sentence in short: what cannot serve now."""
    if not fleet.terminals:
        return voice.t("overview.empty")
    if fleet.platform.blind_since_ms is not None:
        return voice.t("overview.blind", n=by_state.of(StateCode.UNKNOWN), time=voice.clock(fleet.platform.blind_since_ms))
    bad = {state: by_state.of(state) for state in (StateCode.UNUSABLE, StateCode.PARTIAL, StateCode.OFFLINE, StateCode.UNKNOWN)}
    if any(bad.values()):
        figures = {
            "unusable": bad[StateCode.UNUSABLE],
            "partial": bad[StateCode.PARTIAL],
            "offline": bad[StateCode.OFFLINE],
        }
        if bad[StateCode.UNKNOWN]:
            return voice.t("overview.troubleUnknown", **figures, unknown=bad[StateCode.UNKNOWN])
        return voice.t("overview.trouble", **figures)
    serving = by_state.of(StateCode.NORMAL) + by_state.of(StateCode.SUSPECT)
    return voice.t("overview.all", n=serving) if serving else voice.t("overview.closed")


def bars(desk: Desk, fleet: Fleet, voice: Voice) -> list[dict[str, str]]:
    """What may not be believed right now, and what this installation is."""
    found = []
    platform = fleet.platform
    if platform.blind_since_ms is not None:
        text = voice.t(f"platform.blind.{platform.cause}", time=voice.clock(platform.blind_since_ms))
        found.append({"kind": "blind", "text": text})
    if platform.silence_since_ms is not None:
        found.append({"kind": "blind", "text": voice.t("platform.blind.silence", time=voice.clock(platform.silence_since_ms))})
    if text := desk.demo_banner(voice, fleet):
        found.append({"kind": "demo", "text": text})
    return found


def _mini(by_state: Counts) -> list[dict[str, Any]]:
    """The few counts that stand on top of every view."""
    shown = (StateCode.UNUSABLE, StateCode.OFFLINE, StateCode.PARTIAL, StateCode.UNKNOWN)
    return [
        {"look": LOOK[state], "n": by_state.of(state)} for state in shown if state is not StateCode.UNKNOWN or by_state.of(state)
    ]


def _tiles(by_state: Counts) -> dict[str, Any]:
    total = sum(by_state.of(state) for state in WORST_FIRST)
    bar, at = [], 0
    for state in WORST_FIRST:
        if n := by_state.of(state):
            bar.append({"look": LOOK[state], "count": n, "x": share(at, total), "width": share(n, total)})
            at += n
    return {"by_state": by_state, "rate": Ratio(by_state.online, by_state.expected), "bar": bar, "State": StateCode}


def _rows(rows: Sequence[Need], voice: Voice) -> list[dict[str, Any]]:
    return [{"need": row, "problem": need_words(row, voice), "taken": _taken(row)} for row in rows]


def _taken(row: Need) -> str:
    """Whether somebody has it; never who."""
    if row.kind != "fault":
        return ""
    return "claimed" if row.fault.claimed_by and all(fault.claimed_by for fault in row.also) else "unclaimed"


async def _usage(desk: Desk, fleet: Fleet, voice: Voice) -> dict[str, Any]:
    """The start page's own figures."""
    cases = await overview_queries.cases_now(desk.db, fleet.today, desk.view.zone, voice.now_ms)
    used = (await used_now(desk, fleet)).value
    top = max(1.0, *used.hours, *used.usual)
    return {
        "cases": cases,
        "success": Ratio(cases.success, cases.today),
        "month": Ratio(used.active.numerator, used.active.denominator or 0),
        "bars": [
            {
                "hour": hour,
                "n": today,
                "height": f"{today / top * 100:.1f}",
                "y": f"{100 - today / top * 100:.1f}",
                "usual": f"{100 - usual / top * 100:.1f}" if usual else "",
            }
            for hour, (today, usual) in enumerate(zip(used.hours, used.usual, strict=True))
        ],
    }


def words(voice: Voice) -> Mapping[str, str]:
    """Sentences that the page fills in itself."""
    return {name: voice.t.raw(key) for name, key in CLIENT_WORDS.items()}
