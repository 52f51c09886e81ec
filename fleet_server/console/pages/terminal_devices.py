"""The peripherals of one terminal, in inventory order, each with what it last said."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from fleet_server.console import format as fmt
from fleet_server.console.chinese_maps import on_chinese_maps
from fleet_server.console.desk import Desk
from fleet_server.console.model import FaultNow, TerminalNow
from fleet_server.console.profiles import model_name, shipped
from fleet_server.console.queries import terminal as queries
from fleet_server.console.render import Voice
from fleet_server.console.van_view import stops
from fleet_server.console.words import device_words, slot_name
from fleet_server.sites.calendar import day_span_ms, local_day


async def devices_of(desk: Desk, now: TerminalNow, voice: Voice) -> dict[str, Any]:
    by_slot = {row["slot"]: row for row in await queries.devices(desk.db, now.id)}
    levels: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in await queries.consumables(desk.db, now.id):
        levels[row["slot"]].append(_level(row, now, voice))
    measured = await _measured(desk, now, voice, sorted(by_slot.keys() | {slot.name for slot in now.inventory}))
    counts = {row["slot"]: _counted(row, voice) for row in await queries.counters(desk.db, now.id)}
    looks = dict(now.lamps)
    listed = [(slot.name, slot.mandatory) for slot in now.inventory]
    listed += [(slot, False) for slot in sorted(by_slot.keys() - looks.keys())]
    rows = []
    for slot, mandatory in listed:
        faults = [fault for fault in now.faults if fault.slot == slot]
        device = _device(
            slot, mandatory, looks.get(slot, "noData"), by_slot.get(slot), faults, levels[slot], counts.get(slot), voice
        )
        device["pairs"] += measured[slot]
        # A change is told when it is seen, so what was told last holds for as long as the terminal is heard.
        device["read_ms"] = max(device["read_ms"], now.heard_ms or 0) if device["read_ms"] else None
        rows.append(device)
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
            (t("devices.profile"), _profile(row["profile"], voice)),
            (t("devices.owner"), t(f"owner.{row['owner']}") if t.has(f"owner.{row['owner']}") else row["owner"]),
            (t("devices.reading"), voice.stamp(row["at_ms"])),
        ]
        pairs = [(label, value) for label, value in told if value]
        if row["limited"]:
            pairs.append((t("devices.profile"), t("devices.limited")))
        pairs += [pair for level in levels for pair in level["pairs"]]
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
        "read_ms": row["at_ms"] if row else None,
        "levels": levels,
        "pairs": pairs,
        "counters": counted,
        "reply": _short_hex(evidence),
        "proof": f"{row['batch']}/{row['idx']}" if row and row["batch"] else None,
    }


READ_WITHIN_MS: Final = 86_400_000
"""An older reading says nothing about now."""
STOPS_SHOWN: Final = 12


async def _measured(desk: Desk, now: TerminalNow, voice: Voice, slots: Sequence[str]) -> defaultdict[str, list[tuple[str, str]]]:
    """By slot: what its sensors measured last, and of a van where it is and where it stood today."""
    found: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    t = voice.t
    for row in await queries.readings(desk.db, now.id, slots, voice.now_ms - READ_WITHIN_MS):
        if not t.has(f"quantity.{row['quantity']}") or not t.has(f"unit.{row['unit']}"):
            continue  # of a newer agent: the record is kept, the word comes with the next release
        low, mean, high = (f"{row[name] / 10:.1f}" for name in ("min_tenths", "mean_tenths", "max_tenths"))
        value = t(f"unit.{row['unit']}", value=mean)
        text = t("devices.measured", value=value, low=low, high=high, time=voice.clock(row["to_ms"], now.place.timezone))
        found[row["slot"]].append((t(f"quantity.{row['quantity']}"), text))
    if now.type == "van":
        last = await queries.last_position(desk.db, now.id)
        receiver = next((slot.name for slot in now.inventory if slot.family == "gps"), None) if last is None else last["slot"]
        if last is not None:
            found[last["slot"]] += await _whereabouts(desk, now, voice, last)
        if receiver is not None:
            found[receiver] += await _plan(desk, now, voice)
    return found


async def _plan(desk: Desk, now: TerminalNow, voice: Voice) -> list[tuple[str, str]]:
    """Where it is to stand, and what became of that."""
    t, zone, pairs = voice.t, now.place.timezone, []
    for stop in (await queries.planned_stops(desk.db, now.id, voice.now_ms))[:STOPS_SHOWN]:
        outcome = stop["outcome"] or ("due" if voice.now_ms < stop["to_ms"] else "unknown")
        span = t("van.dueFromTo", begin=voice.stamp(stop["from_ms"], zone), end=voice.clock(stop["to_ms"], zone))
        pairs.append((t("van.planned", name=stop["name"]), t("van.plannedIs", span=span, outcome=t(f"van.outcome.{outcome}"))))
    return pairs


async def _whereabouts(desk: Desk, now: TerminalNow, voice: Voice, last: dict[str, Any]) -> list[tuple[str, str]]:
    t, zone = voice.t, now.place.timezone
    latitude, longitude = last["lat_e4"] / 10_000, last["lon_e4"] / 10_000
    moved = on_chinese_maps(latitude, longitude)
    fix = t(f"fix.{last['fix']}") if t.has(f"fix.{last['fix']}") else last["fix"]
    pairs = [
        (t("van.place"), t("van.degrees", lat=f"{latitude:.3f}", lon=f"{longitude:.3f}", time=voice.stamp(last["at_ms"], zone))),
        (t("van.onMaps"), t("van.plainDegrees", lat=f"{moved[0]:.3f}", lon=f"{moved[1]:.3f}")),
        (t("van.fix"), t("van.fixOf", fix=fix, n=last["satellites"])),
    ]
    start_ms, end_ms = day_span_ms(local_day(last["at_ms"], zone), zone)
    seen = stops(await queries.positions(desk.db, now.id, start_ms, end_ms))
    for stop in seen[-STOPS_SHOWN:]:
        place = t("van.plainDegrees", lat=f"{stop.latitude:.3f}", lon=f"{stop.longitude:.3f}")
        span = t("van.span", begin=voice.clock(stop.from_ms, zone), end=voice.clock(stop.to_ms, zone), place=place)
        pairs.append((t("van.stop", date=voice.stamp(stop.from_ms, zone)[:10]), span))
    return pairs


def _short_hex(evidence: dict[str, Any] | None) -> str:
    if not evidence or not evidence.get("reply"):
        return ""
    data = bytes.fromhex(evidence["reply"])
    return fmt.hex_bytes(data[:24]) + (" …" if len(data) > 24 else "")


def _profile(profile_id: str | None, voice: Voice) -> str | None:
    """The profile's name and how far it is proven."""
    known = shipped().get(profile_id or "")
    return profile_id if known is None else f"{known.id} · {voice.t(f'grade.{known.grade}')}"


def _level(row: dict[str, Any], now: TerminalNow, voice: Voice) -> dict[str, Any]:
    t, remaining, unit = voice.t, row["remaining"], row["unit"]
    item = t(f"consumable.{row['item']}")
    shown = t(f"consumable.{unit}", item=item, n=_amount(remaining, unit))
    supply = next((one for one in now.supplies if (one.slot, one.item) == (row["slot"], row["item"])), None)
    pairs = [(t("supply.source", item=item), t(f"consumable.{row['source']}"))]
    if row["refilled_ms"]:
        pairs.append((t("supply.refilled", item=item), voice.stamp(row["refilled_ms"])))
    if supply is None:
        pairs.append((t("supply.outlook", item=item), t("supply.none")))
    else:
        days = int((supply.empty_ms - voice.now_ms) // fmt.DAY_MS)
        shown = t("supply.days", level=shown, n=days) if days >= 1 else t("supply.today", level=shown)
        basis = {"n": supply.levels, "date": voice.stamp(supply.since_ms)[:10], "amount": _amount(round(supply.per_day), unit)}
        pairs.append((t("supply.outlook", item=item), t(f"supply.basis.{unit}", **basis)))
    capacity = row["capacity"]
    return {
        "text": shown,
        "percent": min(100, round(remaining * 100 / capacity)) if capacity else None,
        "source": t(f"consumable.{row['source']}") if row["source"] == "counter" else "",
        "is_low": supply is not None and supply.empty_ms - voice.now_ms <= now.limits.warn_days * fmt.DAY_MS,
        "pairs": pairs,
    }


def _amount(count: int, unit: str) -> str:
    return fmt.count(round(count / 1000)) if unit == "mm" else fmt.count(count)


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
