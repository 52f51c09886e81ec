"""One terminal: its sentence, peripherals, timeline, and what happened."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from statistics import median
from typing import Any, Final

from litestar import Response, get
from litestar.params import FromPath, FromQuery
from markupsafe import Markup

from fleet_server.console import format as fmt
from fleet_server.console.desk import Asked, Desk, TheDesk
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import DAY_MS, HOUR_MS, Ratio
from fleet_server.console.history import Span, device_look, lane, total_ms
from fleet_server.console.looks import LOOK
from fleet_server.console.model import FaultNow, TerminalNow
from fleet_server.console.profiles import model_name
from fleet_server.console.queries import lists
from fleet_server.console.queries import terminal as queries
from fleet_server.console.render import Voice, share
from fleet_server.console.words import device_words, hours_words, slot_name, type_name
from fleet_server.errors import NotFound
from fleet_server.sites.calendar import day_span_ms, local_day, local_time
from fleet_server.terminals.state import StateCode
from protocols.canon.faults import FAULTS

TABS: Final = ("events", "usage", "faults", "diagnostics")
RANGES: Final = {"24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
MAX_BACK: Final = 24
LANE_HEIGHT: Final = {"normal": 8, "closed": 4, "noData": 16, "unknown": 16, "inUse": 8}
USAGE_DAYS: Final = 30
FAULT_DAYS: Final = 90


@get("/terminals/{terminal_id:str}")
async def terminal_page(
    request: Asked, desk: TheDesk, terminal_id: FromPath[str], tab: FromQuery[str] = "events", back: FromQuery[int] = 0
) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    now = found(fleet, terminal_id)
    chosen = _range(request)
    values = {
        **_head(now, voice),
        **await _devices(desk, now, voice),
        **await _timeline(desk, fleet, now, voice, chosen, back),
        **await _tab(desk, fleet, now, voice, tab),
    }
    return await desk.page(request, "terminal.html", nav="terminals", voice=voice, **values)


@get("/terminals/{terminal_id:str}/head")
async def head_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_terminal_head.html", voice=voice, **_head(found(fleet, terminal_id), voice))


@get("/terminals/{terminal_id:str}/devices")
async def devices_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str]) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_devices.html", voice=voice, **await _devices(desk, found(fleet, terminal_id), voice))


@get("/terminals/{terminal_id:str}/timeline")
async def timeline_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str], back: FromQuery[int] = 0) -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    values = await _timeline(desk, fleet, found(fleet, terminal_id), voice, _range(request), back)
    return await desk.part(request, "_timeline.html", voice=voice, **values)


@get("/terminals/{terminal_id:str}/tab")
async def tab_part(request: Asked, desk: TheDesk, terminal_id: FromPath[str], tab: FromQuery[str] = "events") -> Response[str]:
    fleet, voice = await desk.fleet(request), desk.voice(request)
    return await desk.part(request, "_tab.html", voice=voice, **await _tab(desk, fleet, found(fleet, terminal_id), voice, tab))


HANDLERS = [terminal_page, head_part, devices_part, timeline_part, tab_part]


def found(fleet: Fleet, terminal_id: str) -> TerminalNow:
    """The terminal of that id; NotFound for a retired or unknown one."""
    now = fleet.by_id.get(terminal_id)
    if now is None:
        raise NotFound(f"terminal {terminal_id[:32]!r}")
    return now


def _range(request: Asked) -> str:
    chosen = request.query_params.get("range", "24h")
    return chosen if chosen in RANGES else "24h"


# The sentence ----------------------------------------------------------------------------------------------------------------------------


def _head(now: TerminalNow, voice: Voice) -> dict[str, Any]:
    return {
        "now": now,
        "look": LOOK[now.state],
        "sentence": head_sentence(now, voice),
        "type_name": type_name(voice, now.type),
        "hours": hours_words(voice, now.place, voice.now_ms),
    }


def head_sentence(now: TerminalNow, voice: Voice) -> Markup:
    """What this terminal can and cannot do, since when, why."""
    say, heard_ms, zone = voice.rich, now.heard_ms, now.place.timezone
    match now.state:
        case StateCode.NOT_ENROLLED:
            first = say("head.notEnrolled", time=voice.stamp(now.created_ms, zone))
        case StateCode.MAINTENANCE:
            until = voice.stamp(now.maintenance_until_ms or voice.now_ms, zone)
            first = say("head.maintenance", reason=now.maintenance_reason or "—", by=now.maintenance_by or "—", until=until)
        case StateCode.UNKNOWN:
            first = say("head.unknown")
        case StateCode.CLOSED:
            first = say("head.closed", duration=voice.since(heard_ms)) if heard_ms else say("head.closedNever")
        case StateCode.OFFLINE:
            since_ms = now.state_since_ms or heard_ms
            if heard_ms is None or since_ms is None:
                first = say("head.offlineNever")
            else:
                first = say("head.offline", time=voice.clock(since_ms, zone), duration=voice.since(since_ms))
        case StateCode.SUSPECT:
            first = say("head.suspect", duration=voice.since(heard_ms or voice.now_ms))
        case StateCode.UNUSABLE | StateCode.PARTIAL:
            return _fault_sentence(now, voice) + _rest_sentence(now, voice)
        case _:
            first = say("head.normal", n=len(now.inventory)) if now.inventory else say("head.normalPlain")
    if now.worst is not None and now.worst.code != "NET.OFFLINE":
        first += _space(voice) + say("head.faultBehind", problem=now.worst.sentence(voice.lang))
    return first


def _fault_sentence(now: TerminalNow, voice: Voice) -> Markup:
    wanted = "noService" if now.state is StateCode.UNUSABLE else "some"
    weighing = [fault for fault in now.faults if fault.impact == wanted] or list(now.faults)
    first_ms = min(fault.since_ms for fault in weighing)
    values = {
        "state": voice.t(f"state.{LOOK[now.state]}"),
        "problem": weighing[0].sentence(voice.lang),
        "time": voice.clock(first_ms, now.place.timezone),
        "duration": voice.since(first_ms),
    }
    return voice.rich("head.faultOne" if len(weighing) == 1 else "head.faultMany", **values, n=len(weighing))


def _rest_sentence(now: TerminalNow, voice: Voice) -> Markup:
    """Which peripherals are fine, so that nobody is sent out for them."""
    fine = [slot_name(voice, slot) for slot, look in now.lamps if look == "ok"]
    if not fine:
        return Markup("")
    return _space(voice) + voice.rich("head.rest", names=voice.t("head.restJoin").join(fine))


def _space(voice: Voice) -> Markup:
    return Markup("") if voice.lang == "zh" else Markup(" ")


# Peripherals -----------------------------------------------------------------------------------------------------------------------------


async def _devices(desk: Desk, now: TerminalNow, voice: Voice) -> dict[str, Any]:
    by_slot = {row["slot"]: row for row in await queries.devices(desk.db, now.id)}
    levels: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await queries.consumables(desk.db, now.id):
        levels[row["slot"]].append(_level(row, voice))
    counts = {row["slot"]: _counted(row, voice) for row in await queries.counters(desk.db, now.id)}
    looks = dict(now.lamps)
    listed = [(slot.name, slot.mandatory) for slot in now.inventory]
    listed += [(slot, False) for slot in sorted(by_slot.keys() - looks.keys())]
    rows = []
    for slot, mandatory in listed:
        faults = [fault for fault in now.faults if fault.slot == slot]
        rows.append(
            _device(slot, mandatory, looks.get(slot, "noData"), by_slot.get(slot), faults, levels[slot], counts.get(slot), voice)
        )
    return {
        "now": now,
        "device_rows": rows,
        "device_counts": {
            "mandatory": sum(slot.mandatory for slot in now.inventory),
            "optional": sum(not slot.mandatory for slot in now.inventory),
        },
        "sightings": [
            {"port": row["port"], "bus": row["bus"], "usb": fmt.usb_id(row["vid"], row["pid"]), "at_ms": row["at_ms"]}
            for row in await queries.sightings(desk.db, now.id)
        ],
    }


def _device(
    slot: str,
    mandatory: bool,
    look: str,
    row: dict[str, Any] | None,
    faults: Sequence[FaultNow],
    levels: list[dict[str, Any]],
    counted: str | None,
    voice: Voice,
) -> dict[str, Any]:
    t, name = voice.t, slot_name(voice, slot)
    words = t("devices.noReading")
    pairs: list[tuple[str, str]] = []
    if row is not None:
        words = device_words(
            voice, device=row["device"], paper=row["paper"], toner=row["toner"], media=row["media"], cover=row["cover"]
        )
        evidence = json.loads(row["evidence"]) if row["evidence"] else None
        told: list[tuple[str, str | None]] = [
            (t("devices.port"), row["port"]),
            (t("devices.usbId"), fmt.usb_id(row["vid"], row["pid"]) if row["vid"] is not None else None),
            (t("devices.firmware"), row["firmware"]),
            (t("devices.asset"), row["asset"]),
            (t("devices.profile"), row["profile"]),
            (t("devices.owner"), t(f"owner.{row['owner']}") if t.has(f"owner.{row['owner']}") else row["owner"]),
            (t("devices.reading"), voice.stamp(row["at_ms"])),
        ]
        pairs = [(label, value) for label, value in told if value]
        if row["limited"]:
            pairs.append((t("devices.profile"), t("devices.limited")))
    else:
        evidence = None
    worst = min(faults, key=lambda fault: fault.rank, default=None)
    return {
        "slot": slot,
        "name": name,
        "mandatory": mandatory,
        "model": model_name(row["profile"]) if row and row["profile"] else "",
        "lamp": {"look": look, "title": t("lamp.title", slot=name, what=t(f"lamp.{look}"))},
        "fault": worst,
        "sentence": worst.sentence(voice.lang) if worst else words,
        "since_ms": worst.since_ms if worst else (row["since_ms"] if row else None),
        "levels": levels,
        "pairs": pairs,
        "counters": counted,
        "reply": _short_hex(evidence),
        "proof": f"{row['batch']}/{row['idx']}" if row and row["batch"] else None,
    }


def _short_hex(evidence: dict[str, Any] | None) -> str:
    if not evidence or not evidence.get("reply"):
        return ""
    data = bytes.fromhex(evidence["reply"])
    return fmt.hex_bytes(data[:24]) + (" …" if len(data) > 24 else "")


def _level(row: dict[str, Any], voice: Voice) -> dict[str, Any]:
    remaining, unit = row["remaining"], row["unit"]
    item = voice.t(f"consumable.{row['item']}")
    shown = fmt.count(round(remaining / 1000)) if unit == "mm" else fmt.count(remaining)
    capacity = row["capacity"]
    return {
        "text": voice.t(f"consumable.{unit}", item=item, n=shown),
        "percent": round(remaining * 100 / capacity) if capacity else None,
        "source": voice.t(f"consumable.{row['source']}"),
    }


def _counted(row: dict[str, Any], voice: Voice) -> str:
    values = {
        "date": voice.stamp(row["to_ms"])[:10],
        "total": fmt.count(row["total"]),
        "ok": fmt.count(row["ok"]),
        "failed": fmt.count(row["failed"]),
    }
    if row["derived"]:
        return voice.t("devices.countersDerived", date=values["date"], total=values["total"])
    if row["lifetime"] is not None:
        return voice.t("devices.countersLifetime", **values, lifetime=fmt.count(row["lifetime"]))
    return voice.t("devices.countersLine", **values)


# Timeline --------------------------------------------------------------------------------------------------------------------------------


async def _timeline(desk: Desk, fleet: Fleet, now: TerminalNow, voice: Voice, range_: str, back: int) -> dict[str, Any]:
    back = min(max(back, 0), MAX_BACK)
    end_ms = voice.now_ms - back * RANGES[range_]
    start_ms = end_ms - RANGES[range_]
    past = await lists.load_past(desk.db, [now.id], start_ms, end_ms)
    opening = lists.opening(now, fleet.calendar, start_ms, end_ms)
    connection = lists.connection_spans(now, past, opening)
    faults = past.faults.get(now.id, [])
    known = [Span(span.from_ms, span.to_ms, "normal") for span in connection if span.look == "normal"]
    lanes = [
        ("timeline.connection", lane(connection, start_ms, end_ms)),
        ("timeline.service", lane([*_beneath(connection), *_fault_spans(faults, end_ms, voice)], start_ms, end_ms)),
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


# Tabs ------------------------------------------------------------------------------------------------------------------------------------


async def _tab(desk: Desk, fleet: Fleet, now: TerminalNow, voice: Voice, tab: str) -> dict[str, Any]:
    chosen = tab if tab in TABS else TABS[0]
    values: dict[str, Any] = {"now": now, "tab": chosen, "zone": now.place.timezone}
    if chosen == "events":
        rows = await queries.events(desk.db, now.id, voice.now_ms - 30 * DAY_MS)
        values["events"] = [event for row in rows if (event := _event(row, voice)) is not None]
    elif chosen == "usage":
        values["usage"] = await _usage(desk, now, voice)
    elif chosen == "faults":
        faults = await queries.faults(desk.db, now.id, voice.now_ms - FAULT_DAYS * DAY_MS)
        values["fault_rows"] = faults
        values["fault_counts"] = [
            (_problem(code, voice), n) for code, n in Counter(fault.code for fault in faults).most_common(6)
        ]
    else:
        values["diagnostics"] = _diagnostics(await queries.diagnostics(desk.db, now.id), now, voice)
    values["month_line"] = await _month(desk, fleet, now, voice)
    return values


def _problem(code: str, voice: Voice) -> str:
    kind = FAULTS.get(code)
    return code if kind is None else (kind.zh if voice.lang == "zh" else kind.en)


def _event(row: dict[str, Any], voice: Voice) -> dict[str, Any] | None:
    what = row["what"]
    event = {"at_ms": row["at_ms"], "late": bool(row["late"]), "proof": ""}
    if row["batch"]:
        event["proof"] = f"{row['batch']}/{row['idx']}"
    if what == "boot":
        # The columns carry other things for a start: code = how the run before ended, since_ms = same boot.
        key = "event.bootSame" if row["since_ms"] else ("event.bootUnclean" if row["code"] == "unclean" else "event.boot")
        return {**event, "kind": "boot", "sentence": voice.t(key, version=row["by"], os=row["text"])}
    if what == "presence":
        return {**event, "kind": "presence", "sentence": voice.t("event.presence", state=voice.t(f"presence.{row['code']}"))}
    problem = _problem(row["code"], voice)
    if what == "opened":
        return {**event, "kind": "fault", "sentence": voice.t("event.opened", problem=problem)}
    if what == "cleared":
        length = voice.duration(row["cleared_ms"] - row["since_ms"])
        key = {"birth": "event.clearedBirth", "retired": "event.clearedRetired"}.get(row["cleared_by"], "event.cleared")
        return {**event, "kind": "fault", "sentence": voice.t(key, problem=problem, duration=length)}
    if not voice.t.has(f"event.{what}"):
        return None
    kind = "fault" if what in {"worse", "unmute"} else "person"
    return {
        **event,
        "kind": kind,
        "sentence": voice.t(f"event.{what}", by=row["by"] or "—", problem=problem, text=row["text"] or ""),
    }


async def _usage(desk: Desk, now: TerminalNow, voice: Voice) -> dict[str, Any]:
    zone = now.place.timezone
    today = date.fromisoformat(local_day(voice.now_ms, zone))
    first = today - timedelta(days=USAGE_DAYS - 1)
    by_day = {row["day"]: row["sessions"] for row in await queries.days(desk.db, now.id, first.isoformat(), today.isoformat())}
    by_day[today.isoformat()] = now.cases_today
    days = [(first + timedelta(days=n)).isoformat() for n in range(USAGE_DAYS)]
    most = max([by_day.get(day, 0) for day in days] + [1])
    outcomes = await queries.outcomes(desk.db, now.id, first.isoformat())
    total = sum(outcomes.values())
    lengths = await queries.durations(desk.db, now.id, first.isoformat())
    success_ms = await queries.last_success_ms(desk.db, now.id)
    t = voice.t
    figures: list[tuple[str, Any]] = [
        (t("usage.total"), fmt.count(now.cases_30d)),
        (t("usage.rate"), Ratio(outcomes.get("success", 0), total).percent or "—"),
        (t("usage.failed"), fmt.count(outcomes.get("failed", 0))),
        (t("usage.abandoned"), fmt.count(outcomes.get("abandoned", 0))),
        (t("usage.median"), voice.duration(int(median(lengths))) if lengths else "—"),
        (t("usage.last"), voice.age(success_ms) if success_ms else t("usage.never")),
    ]
    bars = []
    for n, day in enumerate(days):
        count = by_day.get(day, 0)
        height = max(2, round(88 * count / most))
        bars.append({
            "x": f"{n * 100 / USAGE_DAYS + 0.3:.2f}",
            "y": 94 - height,
            "height": height,
            "count": count,
            "title": t("usage.bar", day=day, n=count),
        })  # fmt: skip
    items = [
        {"code": row["item"], "count": row["n"], "success": Ratio(row["success"], row["n"]).percent or "—"}
        for row in await queries.items(desk.db, now.id, day_span_ms(first.isoformat(), zone)[0], first.isoformat())
    ]
    return {"figures": figures, "bars": bars, "top": items}


def _diagnostics(row: dict[str, Any], now: TerminalNow, voice: Voice) -> list[tuple[str, Any]]:
    t = voice.t
    quality = row.get("clock_quality")
    clock = fmt.offset(t, row.get("clock_offset_ms"))
    shown: list[tuple[str, Any]] = [
        ("id", now.id),
        ("agent", row.get("agent_version")),
        ("os", row.get("os")),
        ("boots", row.get("boot_no")),
        ("lastBoot", voice.stamp(row["last_boot_ms"]) if row.get("last_boot_ms") else None),
        ("uptime", voice.duration(row["uptime_s"] * 1000) if row.get("uptime_s") is not None else None),
        ("cpu", f"{row['cpu_pct']} %" if row.get("cpu_pct") is not None else None),
        ("temperature", f"{row['temp_c']} °C" if row.get("temp_c") is not None else None),
        ("memory", f"{fmt.count(row['mem_free_mib'])} MiB" if row.get("mem_free_mib") is not None else None),
        ("disk", f"{fmt.count(row['disk_free_mib'])} MiB" if row.get("disk_free_mib") is not None else None),
        ("agentMemory", f"{row['agent_rss_kib'] / 1024:.1f} MiB" if row.get("agent_rss_kib") is not None else None),
        ("clock", f"{clock} · {t(f'quality.{quality}')}" if quality else clock),
        ("certificate", voice.stamp(row["cert_not_after_ms"])[:10] if row.get("cert_not_after_ms") else None),
        ("waiting", row.get("outbox_depth")),
        ("oldest", voice.age(row["outbox_oldest_ms"]) if row.get("outbox_oldest_ms") else None),
        ("stream", f"{row['stream'].hex()} · {row['head_no']}" if row.get("stream") else None),
        ("batches", fmt.count(row["batches"]) if row.get("batches") is not None else None),
        ("holes", row.get("holes")),
        ("quarantined", row.get("quarantined")),
        ("network", t(f"network.{now.place.network}") if t.has(f"network.{now.place.network}") else now.place.network),
        ("class", t(f"class.{now.owner_class}") if t.has(f"class.{now.owner_class}") else now.owner_class),
        ("tags", " ".join(now.tags)),
    ]
    return [(t(f"diagnostics.{name}"), "—" if value in {None, ""} else value) for name, value in shown]


async def _month(desk: Desk, fleet: Fleet, now: TerminalNow, voice: Voice) -> str:
    """This month so far: availability from the terminal's own summaries, how often it was down and for how long."""
    zone = now.place.timezone
    today = date.fromisoformat(local_day(voice.now_ms, zone))
    first = today.replace(day=1)
    start_ms, _ = day_span_ms(first.isoformat(), zone)
    rows = await queries.days(desk.db, now.id, first.isoformat(), today.isoformat())
    observed = sum(row["observed_s"] for row in rows)
    usable = sum(row["usable_s"] + row["partial_s"] for row in rows)
    month = voice.t("month.none", month=_month_name(first, voice))
    if not observed:
        return month
    past = await lists.load_past(desk.db, [now.id], start_ms, voice.now_ms)
    opening = lists.opening(now, fleet.calendar, start_ms, voice.now_ms)
    spans = [
        *lists.connection_spans(now, past, opening),
        *lists.service_spans(past.faults.get(now.id, ()), voice.now_ms),
    ]
    down = [part for part in lane(spans, start_ms, voice.now_ms) if part.look in DOWN]
    percent = Ratio(usable, observed).percent or "—"
    if not down:
        return voice.t("month.lineNone", month=_month_name(first, voice), percent=percent)
    return voice.t(
        "month.line", month=_month_name(first, voice), percent=percent, n=len(down), duration=voice.duration(total_ms(down, DOWN))
    )


DOWN: Final = frozenset({"unusable", "offline"})
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _month_name(day: date, voice: Voice) -> str:
    return str(day.month) if voice.lang == "zh" else _MONTHS[day.month - 1]
