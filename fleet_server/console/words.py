"""Names and sentences that several pages need: slots, types, opening hours, device states."""

from __future__ import annotations

from datetime import date

from fleet_server.console.model import FaultNow, Limits, Place
from fleet_server.console.render import Voice
from fleet_server.sites.calendar import Calendar, HoursError, local_day, local_time, open_spans_ms, parse_hours


def slot_name(voice: Voice, slot: str | None) -> str:
    """`call-pad-3` → 叫号器 3 号; a place nobody translated keeps its own name."""
    if slot is None:
        return voice.t("slot.terminal")
    stem, _, number = slot.rpartition("-")
    if stem and number.isdigit():
        name = voice.t(f"slot.{stem}") if voice.t.has(f"slot.{stem}") else stem
        return voice.t("slot.numbered", name=name, n=number)
    return voice.t(f"slot.{slot}") if voice.t.has(f"slot.{slot}") else slot


def limit_words(voice: Voice, length_ms: int) -> str:
    """A threshold as it was set: `90 秒`, `5 分钟`, `4 小时`, never rounded."""
    seconds = length_ms // 1000
    if seconds < 120 or seconds % 60:
        return voice.t("limit.seconds", n=seconds)
    if seconds < 7_200 or seconds % 3_600:
        return voice.t("limit.minutes", n=seconds // 60)
    return voice.t("limit.hours", n=seconds // 3_600)


def state_help(voice: Voice, look: str, limits: Limits) -> str:
    """What a state means, with the thresholds that hold."""
    presence = limits.presence
    known = {"suspect": limit_words(voice, presence.suspect_ms), "offline": limit_words(voice, presence.offline_ms)}
    return voice.t(f"stateHelp.{look}", **known)


def type_name(voice: Voice, type_: str) -> str:
    return voice.t(f"type.{type_}") if voice.t.has(f"type.{type_}") else type_


def fault_title(fault: FaultNow, voice: Voice) -> str:
    return f"{fault.sentence(voice.lang)} · {fault.code} · {voice.stamp(fault.since_ms)}"


def hours_words(voice: Voice, place: Place, now_ms: int, calendar: Calendar) -> str:
    """Today's opening hours: `09:00–12:00 13:30–17:00`."""
    try:
        hours = parse_hours(place.hours)
    except HoursError:
        return ""
    today = local_day(now_ms, place.timezone)
    if hours.always and hours.on_date(date.fromisoformat(today)) is None:
        return voice.t("head.always")
    spans = open_spans_ms(hours, calendar, place.timezone, today)
    return " ".join(f"{local_time(start, place.timezone):%H:%M}–{local_time(end, place.timezone):%H:%M}" for start, end in spans)


def device_words(voice: Voice, *, device: str, paper: str, toner: str, media: str, cover: str) -> str:
    """The most telling state word of a device."""
    for group, value in (("cover", cover), ("paper", paper), ("toner", toner), ("media", media)):
        if value in {"out", "jammed", "open", "tampered"} and voice.t.has(f"{group}.{value}"):
            return voice.t(f"{group}.{value}")
    if device not in {"online", "deviceBusy", "starting"}:
        return voice.t(f"device.{device}") if voice.t.has(f"device.{device}") else device
    for group, value in (("paper", paper), ("toner", toner)):
        if value == "low":
            return voice.t(f"{group}.low")
    return voice.t(f"device.{device}")
