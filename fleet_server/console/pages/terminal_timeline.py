"""The state timeline of one terminal: lanes over time. Late deliveries are drawn at capture time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from fleet_server.console.desk import Desk
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import DAY_MS, HOUR_MS
from fleet_server.console.history import Span, device_look, lane
from fleet_server.console.model import TerminalNow
from fleet_server.console.queries import lists
from fleet_server.console.queries import terminal as queries
from fleet_server.console.render import Voice, share
from fleet_server.console.words import slot_name
from fleet_server.sites.calendar import day_span_ms, local_day, local_time
from protocols.canon.faults import FAULTS

RANGES: Final = {"24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
MAX_BACK: Final = 24
LANE_HEIGHT: Final = {"normal": 8, "closed": 4, "noData": 16, "unknown": 16, "inUse": 8}


async def timeline_of(desk: Desk, fleet: Fleet, now: TerminalNow, voice: Voice, range_: str, back: int) -> dict[str, Any]:
    back = min(max(back, 0), MAX_BACK)
    end_ms = voice.now_ms - back * RANGES[range_]
    start_ms = end_ms - RANGES[range_]
    past = await lists.load_past(desk.db, [now.id], start_ms, end_ms)
    opening = lists.opening(now, fleet.calendar, start_ms, end_ms)
    connection = lists.connection_spans(now, past, opening)
    faults = past.faults.get(now.id, [])
    known = [Span(span.from_ms, span.to_ms, "normal") for span in connection if span.look == "normal"]
    service = [*_beneath(connection), *_fault_spans(faults, end_ms, voice), *lists.maintenance_spans(past, now.id)]
    lanes = [
        ("timeline.connection", lane(connection, start_ms, end_ms)),
        ("timeline.service", lane(service, start_ms, end_ms)),
    ]
    named = [(voice.t(name), parts) for name, parts in lanes]
    by_slot: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await queries.changes(desk.db, now.id, start_ms, end_ms):
        by_slot[row["slot"]].append(row)
    for slot in now.inventory:
        spans = _device_spans(by_slot[slot.name], known, end_ms)
        spans += _fault_spans([row for row in faults if row["slot"] == slot.name], end_ms, voice, own=True)
        named.append((slot_name(voice, slot.name), lane(spans, start_ms, end_ms)))
    marks = [
        {
            "x": share(row["at_ms"] - start_ms, end_ms - start_ms),
            "title": voice.t("timeline.boot", time=voice.stamp(row["at_ms"]), version=row["agent"]),
        }
        for row in await queries.boots(desk.db, now.id, start_ms, end_ms)
    ]
    return {
        "now": now,
        "range": range_,
        "back": back,
        "timeline_href": lambda name, step: f"/terminals/{now.id}?range={name}" + (f"&back={step}" if step else ""),
        "lanes": [
            {
                "name": name,
                "label": voice.t("timeline.lane", name=name, n=len(parts)),
                "parts": [_part(part, start_ms, end_ms, voice) for part in parts],
                "marks": marks if n == 0 else [],
            }
            for n, (name, parts) in enumerate(named)
        ],
        "ticks": _ticks(start_ms, end_ms, range_, now.place.timezone),
    }


def _beneath(connection: Iterable[Span]) -> list[Span]:
    """What the service lane shows where no fault lies on top."""
    return [Span(span.from_ms, span.to_ms, span.look) for span in connection]


def _fault_spans(faults: Iterable[Mapping[str, Any]], end_ms: int, voice: Voice, *, own: bool = False) -> list[Span]:
    """Fault episodes; on a device's own lane (`own`) any P1 or P2 is drawn as broken, whatever it means for the service."""
    spans = []
    for row in faults:
        if row["code"] == "NET.OFFLINE":
            continue
        if own:
            look: str | None = "unusable" if row["severity"] in {"P1", "P2"} else "partial"
        else:
            look = lists.fault_look(row)
        if look is None:
            continue
        kind = FAULTS.get(row["code"])
        title = row["code"] if kind is None else (kind.zh if voice.lang == "zh" else kind.en)
        ref = f"{row['open_batch']}/{row['open_idx']}" if row["open_batch"] else ""
        spans.append(Span(row["since_ms"], row["cleared_ms"] or end_ms, look, title=title, ref=ref, late=bool(row["late"])))
    return spans


def _device_spans(rows: Sequence[dict[str, Any]], known: Sequence[Span], end_ms: int) -> list[Span]:
    """Reported states, each until the next; a good state counts only while the terminal was heard."""
    spans: list[Span] = []
    for row, following in zip(rows, [*rows[1:], None], strict=False):
        look = device_look(device=row["device"], paper=row["paper"], toner=row["toner"], media=row["media"], cover=row["cover"])
        until = following["at_ms"] if following else end_ms
        if look == "noData":
            continue
        for span in known:
            low, high = max(span.from_ms, row["at_ms"]), min(span.to_ms, until)
            if low < high:
                spans.append(Span(low, high, look, late=bool(row["late"])))
    return spans


def _part(span: Span, start_ms: int, end_ms: int, voice: Voice) -> dict[str, Any]:
    height = LANE_HEIGHT.get(span.look, 16)
    what = span.title or voice.t(f"lane.{span.look}")
    if span.title in {"online", "suspect", "offline", "stopped", "unknown"}:
        what = voice.t(f"presence.{span.title}")
        if span.why and voice.t.has(f"changes.why.{span.why}"):
            what = f"{what} · {voice.t(f'changes.why.{span.why}')}"
    if span.late:
        what = f"{what} · {voice.t('late')}"
    title = voice.t(
        "timeline.part",
        **{
            "from": voice.stamp(span.from_ms)[5:],
            "to": voice.stamp(span.to_ms)[5:],
            "duration": voice.duration(span.to_ms - span.from_ms),
            "what": what,
        },
    )
    return {
        "x": share(span.from_ms - start_ms, end_ms - start_ms),
        "width": share(span.to_ms - span.from_ms, end_ms - start_ms),
        "y": (16 - height) // 2,
        "height": height,
        "look": span.look,
        "title": title,
        "ref": span.ref,
        "late": span.late,
    }


def _ticks(start_ms: int, end_ms: int, range_: str, zone: str) -> list[dict[str, Any]]:
    """Marks of the axis: hours for a day, days for more."""
    step, pattern = {"24h": (4 * HOUR_MS, "%H:%M"), "7d": (DAY_MS, "%m-%d"), "30d": (5 * DAY_MS, "%m-%d")}[range_]
    first, _ = day_span_ms(local_day(start_ms, zone), zone)
    marks = []
    at = first
    while at <= end_ms:
        place = (at - start_ms) / (end_ms - start_ms)
        if 0.02 <= place <= 0.97:
            marks.append({"x": f"{place * 100:.2f}", "text": local_time(at, zone).strftime(pattern), "anchor": "middle"})
        at += step
    return marks
