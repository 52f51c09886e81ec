"""Below the timeline of one terminal: events, usage, faults, diagnostics, and the line of the month."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from statistics import median
from typing import Any, Final

from fleet_server.console import format as fmt
from fleet_server.console.desk import Desk
from fleet_server.console.fleet import Fleet
from fleet_server.console.format import DAY_MS, Ratio
from fleet_server.console.history import Span, lane
from fleet_server.console.model import OFFLINE_CODE, TerminalNow
from fleet_server.console.pages.terminal_orders import orders_of
from fleet_server.console.pages.terminal_updates import updates_of
from fleet_server.console.queries import lists
from fleet_server.console.queries import terminal as queries
from fleet_server.console.render import Voice
from fleet_server.console.words import device_words, slot_name
from fleet_server.figures.board import Board
from fleet_server.figures.question import Period, Question, Scope
from fleet_server.sites.calendar import day_span_ms, local_day
from protocols.canon.faults import FAULTS

TABS: Final = ("events", "usage", "faults", "orders", "updates", "diagnostics")
EVENT_DAYS: Final = 30
USAGE_DAYS: Final = 30
FAULT_DAYS: Final = 90


async def tab_of(desk: Desk, fleet: Fleet, now: TerminalNow, voice: Voice, tab: str, kind: str = "") -> dict[str, Any]:
    chosen = tab if tab in TABS else TABS[0]
    wanted = kind if kind in queries.EVENT_KINDS and chosen == "events" else ""
    values: dict[str, Any] = {
        "now": now,
        "tab": chosen,
        "kind": wanted,
        "tab_query": f"?tab={chosen}" + (f"&kind={wanted}" if wanted else ""),
        "event_kinds": ("", *queries.EVENT_KINDS),
        "zone": now.place.timezone,
    }
    if chosen == "events":
        rows = await queries.events(desk.db, now.id, voice.now_ms - EVENT_DAYS * DAY_MS, wanted)
        values["events"] = [event for row in rows if (event := _event(row, voice)) is not None]
    elif chosen == "usage":
        values["usage"] = await _usage(desk, now, voice)
    elif chosen == "faults":
        faults = await queries.faults(desk.db, now.id, voice.now_ms - FAULT_DAYS * DAY_MS)
        values["fault_rows"] = faults
        values["fault_counts"] = [
            (_problem(code, voice), n) for code, n in Counter(fault.code for fault in faults).most_common(6)
        ]
    elif chosen == "orders":
        values["orders"] = await orders_of(desk, now, voice)
    elif chosen == "updates":
        values |= await updates_of(desk, fleet, now, voice)
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
        state = voice.t(f"presence.{row['code']}")
        key = f"changes.why.{row['text']}"
        known = row["code"] != "online" and voice.t.has(key)
        sentence = (
            voice.t("event.presenceWhy", state=state, why=voice.t(key)) if known else voice.t("event.presence", state=state)
        )
        return {**event, "kind": "presence", "sentence": sentence}
    if what == "device":
        return {**event, "kind": "device", "sentence": _device_words(row, voice)}
    if what == "refill":
        item = voice.t(f"consumable.{row['code']}")
        left = round(row["since_ms"] / 1000) if row["cleared_by"] == "mm" else row["since_ms"]
        level = voice.t(f"consumable.{row['cleared_by']}", item=item, n=fmt.count(left))
        return {**event, "kind": "supply", "sentence": voice.t("event.refill", slot=slot_name(voice, row["slot"]), level=level)}
    if what in {"maintenanceStart", "maintenanceEnd"}:
        return {**event, "kind": "person", "sentence": voice.t(f"event.{what}", by=row["by"], reason=row["text"])}
    problem = _problem(row["code"], voice)
    if what == "opened":
        return {**event, "kind": "fault", "sentence": voice.t("event.opened", problem=problem)}
    if what == "cleared":
        length = voice.duration(row["cleared_ms"] - row["since_ms"])
        key = {"birth": "event.clearedBirth", "retired": "event.clearedRetired"}.get(row["cleared_by"], "event.cleared")
        return {**event, "kind": "fault", "sentence": voice.t(key, problem=problem, duration=length)}
    if not voice.t.has(f"event.{what}"):
        return None
    kind = "fault" if row["by"] is None else "person"
    return {
        **event,
        "kind": kind,
        "sentence": voice.t(f"event.{what}", by=row["by"] or "—", problem=problem, text=row["text"] or ""),
    }


def _device_words(row: dict[str, Any], voice: Voice) -> str:
    # The columns carry other things for a device: code = its state, by = paper, text = toner, media and cover.
    toner, media, cover = row["text"].split(" ")
    what = device_words(voice, device=row["code"], paper=row["by"], toner=toner, media=media, cover=cover)
    return voice.t("event.device", slot=slot_name(voice, row["slot"]), what=what)


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
    """This month so far: availability as the figures have it, and how often it was down in opening hours, for how long, why."""
    zone = now.place.timezone
    today = date.fromisoformat(local_day(voice.now_ms, zone))
    first = today.replace(day=1)
    start_ms, _ = day_span_ms(first.isoformat(), zone)
    question = Question(Period.month(first.isoformat()[:7]), Scope(terminal=now.id))
    figure = await desk.db.look(lambda conn: Board(conn, question, voice.now_ms).availability())
    month = _month_name(first, voice)
    percent = Ratio(figure.numerator, figure.denominator or 0).percent
    if percent is None:
        return voice.t("month.none", month=month)
    past = await lists.load_past(desk.db, [now.id], start_ms, voice.now_ms)
    opening = lists.opening(now, fleet.calendar, start_ms, voice.now_ms)
    spans = [
        *lists.connection_spans(now, past, opening),
        *lists.service_spans(past.faults.get(now.id, ()), voice.now_ms),
    ]
    down = outages(lane(spans, start_ms, voice.now_ms), opening)
    if not down:
        return voice.t("month.lineNone", month=month, percent=percent)
    causes = Counter(_problem(why, voice) for _, why in down)
    told = voice.t("month.join").join(voice.t("month.cause", what=what, n=n) for what, n in causes.most_common(4))
    total = voice.duration(sum(length_ms for length_ms, _ in down))
    return voice.t("month.line", month=month, percent=percent, n=len(down), duration=total, causes=told)


def outages(parts: Iterable[Span], opening: Sequence[tuple[int, int]]) -> list[tuple[int, str]]:
    """(length inside opening hours, code of what began it) of each time the terminal was down. Parts that touch are one outage."""
    found: list[tuple[int, int, str]] = []
    for part in parts:
        if part.look not in DOWN:
            continue
        length_ms = sum(max(0, min(part.to_ms, end) - max(part.from_ms, start)) for start, end in opening)
        if found and found[-1][0] == part.from_ms:
            _, before_ms, why = found.pop()
            found.append((part.to_ms, before_ms + length_ms, why))
        else:
            found.append((part.to_ms, length_ms, part.title if part.look == "unusable" else OFFLINE_CODE))
    return [(length_ms, why) for _, length_ms, why in found if length_ms > 0]


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
