"""A terminal's configuration as a form and in words: reading fields, what is wrong with which, and what differs between two versions. Pure.

The limits are those of the agent's configuration file, which checks everything again; nothing that it would refuse should reach it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from fleet_server.console.model import TerminalNow
from fleet_server.console.render import Voice
from fleet_server.console.words import slot_name
from protocols.canon.words import Ownership
from protocols.contract.records import ItemCode, PortPath, ProfileId, Slot
from protocols.profile.schema import Kind

DEVICES_MAX: Final = 40
ITEMS_MAX: Final = 400
"""Chosen: a form of more rows than this is nothing that a person edits."""
INTERVALS: Final[Mapping[str, tuple[int, int, int]]] = {
    "summary_s": (60, 86_400, 900),
    "host_sample_s": (1, 900, 15),
    "renewal_check_s": (60, 86_400, 3_600),
}
"""(least, most, what the agent uses without a word about it)."""
FAMILIES: Final = tuple(kind.value for kind in Kind)
OWNERSHIPS: Final = tuple(one.value for one in Ownership)
TYPES: Final = ("handle", "query", "book", "other")
DEVICE_FIELDS: Final = ("slot", "family", "profile", "port", "address", "ownership", "mandatory")
_OLD_FAMILIES: Final = {"laser_printer": Kind.A4_PRINTER.value}
"""Words that inventories used for what has another name among the kinds."""


def _pattern(annotated: Any) -> re.Pattern[str]:
    return re.compile(next(meta.pattern for meta in get_args(annotated)[1:] if meta.pattern))


_SLOT, _PROFILE, _PORT, _CODE = (_pattern(one) for one in (Slot, ProfileId, PortPath, ItemCode))


@dataclass(frozen=True, slots=True)
class Draft:
    """What stands in the form: rows as text, and the word of what is wrong, by the field's name."""

    devices: list[dict[str, str]] = field(default_factory=list)
    items: list[dict[str, str]] = field(default_factory=list)
    intervals: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def draft_of(content: Mapping[str, Any]) -> Draft:
    """A stored version as a form."""
    devices = [
        {
            "slot": str(one.get("slot", "")),
            "family": str(one.get("family", "")),
            "profile": str(one.get("profile") or ""),
            "port": str(one.get("port") or ""),
            "address": "" if one.get("address") is None else str(one["address"]),
            "ownership": str(one.get("ownership", Ownership.OWNER.value)),
            "mandatory": "yes" if one.get("mandatory", True) else "no",
        }
        for one in _tables(content, "devices")
    ]
    items = [{"code": str(one.get("code", "")), "type": str(one.get("type", "handle"))} for one in _tables(content, "items")]
    told = content.get("intervals")
    intervals = {name: str(told[name]) for name in INTERVALS if isinstance(told, dict) and name in told}
    return Draft(devices, items, intervals)


def draft_of_inventory(now: TerminalNow) -> Draft:
    """Where nothing was ever sent: what the terminal is known to have."""
    return Draft([
        {
            "slot": slot.name,
            "family": family_of(slot.family, slot.name),
            "profile": "",
            "port": "",
            "address": "",
            "ownership": Ownership.OWNER.value,
            "mandatory": "yes" if slot.mandatory else "no",
        }
        for slot in now.inventory
    ])  # fmt: skip


def family_of(family: str, slot: str) -> str:
    word = _OLD_FAMILIES.get(family, family.replace("_", "-"))
    if word in FAMILIES:
        return word
    stem = slot.rpartition("-")[0] if slot.rpartition("-")[2].isdigit() else slot
    return stem if stem in FAMILIES else word


def read_form(form: Mapping[str, str]) -> Draft:
    """Fields `d<n>.<name>`, `i<n>.<name>` and the intervals, as they were typed; rows of which nothing was filled in are dropped."""
    devices = [
        row for row in _rows(form, "d", DEVICE_FIELDS, DEVICES_MAX + 8) if any(row[name] for name in ("slot", "profile", "port"))
    ]
    items = [row for row in _rows(form, "i", ("code", "type"), ITEMS_MAX + 8) if row["code"]]
    return Draft(devices, items, {name: form.get(name, "").strip() for name in INTERVALS if form.get(name, "").strip()})


def check(draft: Draft) -> tuple[Draft, dict[str, Any] | None]:
    """The draft with what is wrong in it, and, if nothing is, the content to store."""
    problems: dict[str, str] = {}
    for n, row in enumerate(draft.devices):
        problems |= {f"d{n}.{name}": word for name, word in _device_problems(row)}
    for n, row in enumerate(draft.items):
        if not _CODE.match(row["code"]) or len(row["code"]) > 96:
            problems[f"i{n}.code"] = "configCode"
        if row["type"] not in TYPES:
            problems[f"i{n}.type"] = "configType"
    problems |= {f"d{n}.slot": "configTwice" for n in _doubles(row["slot"] for row in draft.devices)}
    problems |= {f"i{n}.code": "configTwice" for n in _doubles(row["code"] for row in draft.items)}
    problems |= {f"d{n}.port": "configShared" for n in _shared(draft.devices)}
    for name, text in draft.intervals.items():
        least, most, _ = INTERVALS[name]
        if not (text.isascii() and text.isdigit() and len(text) < 8 and least <= int(text) <= most):
            problems[name] = "configInterval"
    if len(draft.devices) > DEVICES_MAX:
        problems["devices"] = "configDevices"
    found = Draft(draft.devices, draft.items, draft.intervals, problems)
    return found, None if problems else _content(draft)


def differences(voice: Voice, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What changes from one content to the other, a sentence each."""
    t = voice.t
    said: list[str] = []
    old, new = _by(draft_of(before).devices, "slot"), _by(draft_of(after).devices, "slot")
    for slot, row in new.items():
        name = slot_name(voice, slot)
        if slot not in old:
            said.append(t("config.differs.deviceAdded", slot=name))
            continue
        for key in DEVICE_FIELDS[1:]:
            if row[key] != old[slot][key]:
                values = {"before": field_words(voice, key, old[slot][key]), "after": field_words(voice, key, row[key])}
                said.append(t("config.differs.deviceChanged", slot=name, field=t(f"config.short.{key}"), **values))
    said += [t("config.differs.deviceRemoved", slot=slot_name(voice, slot)) for slot in old if slot not in new]
    was, now = _by(draft_of(before).items, "code"), _by(draft_of(after).items, "code")
    for code, row in now.items():
        if code not in was:
            said.append(t("config.differs.itemAdded", code=code, type=t(f"config.type.{row['type']}")))
        elif row["type"] != was[code]["type"]:
            kinds = {"before": t(f"config.type.{was[code]['type']}"), "after": t(f"config.type.{row['type']}")}
            said.append(t("config.differs.itemChanged", code=code, **kinds))
    said += [t("config.differs.itemRemoved", code=code) for code in was if code not in now]
    ticks, tocks = draft_of(before).intervals, draft_of(after).intervals
    for name, (_, _, usual) in INTERVALS.items():
        first, second = ticks.get(name, str(usual)), tocks.get(name, str(usual))
        if first != second:
            said.append(t("config.differs.interval", field=t(f"config.field.{name}"), before=first, after=second))
    return said


def field_words(voice: Voice, name: str, value: str) -> str:
    """A value as a person reads it."""
    t = voice.t
    if not value:
        return t("config.differs.empty")
    if name == "mandatory":
        return t(f"config.must.{value}")
    if name == "ownership" and t.has(f"owner.{value}"):
        return t(f"owner.{value}")
    if name == "family":
        return family_words(voice, value)
    return value


def family_words(voice: Voice, family: str) -> str:
    return voice.t(f"config.kind.{family}") if voice.t.has(f"config.kind.{family}") else family


def content_of(row: Mapping[str, Any] | None) -> dict[str, Any]:
    """The stored content of a version; empty where there is none or nobody can read it."""
    if row is None:
        return {}
    try:
        told = json.loads(row["content"])
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _device_problems(row: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    if not _SLOT.match(row["slot"]) or len(row["slot"]) > 64:
        yield "slot", "configSlot"
    if row["family"] not in FAMILIES:
        yield "family", "configFamily"
    if row["profile"] and (not _PROFILE.match(row["profile"]) or len(row["profile"]) > 64):
        yield "profile", "configProfile"
    if row["port"] and not _PORT.match(row["port"]):
        yield "port", "configPort"
    address = row["address"]
    if address and not (address.isascii() and address.isdigit() and len(address) < 4 and int(address) <= 255):
        yield "address", "configAddress"
    if row["ownership"] not in OWNERSHIPS:
        yield "ownership", "configOwnership"


def _shared(devices: Sequence[Mapping[str, str]]) -> Iterable[int]:
    """Rows that share a port without an address of their own."""
    by_port: dict[str, list[int]] = {}
    for n, row in enumerate(devices):
        if row["port"]:
            by_port.setdefault(row["port"], []).append(n)
    for rows in by_port.values():
        if len(rows) > 1:
            seen: set[str] = set()
            for n in rows:
                address = devices[n]["address"]
                if not address or address in seen:
                    yield n
                seen.add(address)


def _doubles(values: Iterable[str]) -> Iterable[int]:
    seen: set[str] = set()
    for n, value in enumerate(values):
        if value and value in seen:
            yield n
        seen.add(value)


def _content(draft: Draft) -> dict[str, Any]:
    content: dict[str, Any] = {
        "devices": [_device(row) for row in draft.devices],
        "items": [{"code": row["code"], "type": row["type"]} for row in draft.items],
        "intervals": {name: int(text) for name, text in draft.intervals.items()},
    }
    return content


def _device(row: Mapping[str, str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "slot": row["slot"],
        "family": row["family"],
        "ownership": row["ownership"],
        "mandatory": row["mandatory"] == "yes",
    }
    made |= {name: row[name] for name in ("profile", "port") if row[name]}
    if row["address"]:
        made["address"] = int(row["address"])
    return made


def _rows(form: Mapping[str, str], mark: str, names: Sequence[str], most: int) -> list[dict[str, str]]:
    numbers = sorted({
        int(match[1]) for key in form if (match := re.fullmatch(mark + r"(\d{1,4})\.\w+", key)) and int(match[1]) < 10_000
    })  # fmt: skip
    usual = {"ownership": Ownership.OWNER.value, "mandatory": "no", "type": "handle"}
    return [{name: form.get(f"{mark}{n}.{name}", usual.get(name, "")).strip() for name in names} for n in numbers[:most]]


def _tables(content: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    rows = content.get(name)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _by(rows: Sequence[dict[str, str]], key: str) -> dict[str, dict[str, str]]:
    return {row[key]: row for row in rows}
