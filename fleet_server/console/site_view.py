"""What the pages of areas and sites show: lists, forms with what was typed and what is wrong with it, changes in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote
from zoneinfo import available_timezones

from fleet_server.console.area_tree import Tree
from fleet_server.console.opening_words import spans_words, week_sentence
from fleet_server.console.render import Voice
from fleet_server.errors import Conflict, Refused
from fleet_server.forms import FormRefused
from fleet_server.sites import changes, drafts
from fleet_server.sites.audit import Changed
from fleet_server.sites.calendar import Calendar, local_time, periods
from fleet_server.sites.hours import readable_hours

ZONES: Final = tuple(
    sorted(name for name in available_timezones() if "/" in name and not name.startswith(("Etc/", "posix/", "right/")))
)


def name_of(row: Mapping[str, Any], lang: str) -> str:
    return str((row["name_zh"] if lang == "zh" else row["name_en"]) or row["name_zh"] or row["name_en"] or row["code"])


def is_found(row: Mapping[str, Any], tree: Tree, words: list[str]) -> bool:
    path = tree.path(row["area"], "zh") + tree.path(row["area"], "en")
    hay = f"{row['code']} {row['name_zh']} {row['name_en']} {row['address_zh'] or ''} {path}".casefold()
    return all(word in hay for word in words)


def kind_word(voice: Voice, kind: str) -> str:
    return voice.t(f"kind.{kind}") if kind in drafts.SITE_KINDS else kind


def line_of(row: Mapping[str, Any], tree: Tree, voice: Voice) -> dict[str, Any]:
    return {
        "code": row["code"],
        "href": f"/sites/{quote(row['code'], safe='')}",
        "name": name_of(row, voice.lang),
        "area": tree.path(row["area"], voice.lang),
        "kind": kind_word(voice, row["kind"]),
        "hours": week_sentence(voice, row["hours"]),
        "terminals": row["terminals"],
        "network": voice.t(f"network.{row['network']}") if row["network"] in drafts.NETWORKS else row["network"],
        "located": row["lat"] is not None and row["lon"] is not None,
    }


def area_choices(tree: Tree, voice: Voice, without: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Indented as the tree is."""
    return [(node.code, f"{'　' * node.depth}{node.name(voice.lang)}") for node in tree.flat() if node.code not in without]


def choices(tree: Tree, voice: Voice) -> dict[str, Any]:
    return {
        "areas": area_choices(tree, voice),
        "kinds": [(kind, voice.t(f"kind.{kind}")) for kind in drafts.SITE_KINDS],
        "networks": [(network, voice.t(f"network.{network}")) for network in drafts.NETWORKS],
        "zones": ZONES,
    }


def facts_of(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if row[name] is None else str(row[name]) for name in changes.SITE_FIELDS}


def open_now(voice: Voice, row: Mapping[str, Any], calendar: Calendar) -> dict[str, Any]:
    """Today's hours and whether it is open at this moment, by the site's own clock."""
    at = local_time(voice.now_ms, row["timezone"])
    spans = periods(readable_hours(row["hours"]), calendar, at.date())
    minute = at.hour * 60 + at.minute
    return {"open": any(start <= minute < end for start, end in spans), "today": spans_words(voice, spans)}


# Forms ---------------------------------------------------------------------------------------------------------------------------------


def week_of(form: Mapping[str, str], voice: Voice) -> list[dict[str, Any]]:
    """The editor's lines: each day with the pairs of fields that were typed or stored."""
    return [
        {"day": day, "label": voice.t("hours.holiday" if day == "holiday" else f"hours.day.{day}"), "spans": _pairs(form, day)}
        for day in (*drafts.DAYS, "holiday")
    ]


def dates_of(form: Mapping[str, str]) -> list[dict[str, Any]]:
    numbers = {name.split(".")[1] for name in form if name.startswith("date.") and name.count(".") >= 2}
    wanted = sorted((int(number) for number in numbers if number.isascii() and number.isdigit()), key=int)
    return [
        {"name": f"date.{number}", "day": form.get(f"date.{number}.day", ""), "spans": _pairs(form, f"date.{number}")}
        for number in wanted
        if form.get(f"date.{number}.day") or _pairs(form, f"date.{number}")
    ]


def _pairs(form: Mapping[str, str], day: str) -> list[dict[str, str]]:
    numbers = {
        name[len(day) + 1 :].partition(".")[0] for name in form if name.startswith(f"{day}.") and name.endswith((".from", ".to"))
    }
    pairs = []
    for number in sorted(int(one) for one in numbers if one.isascii() and one.isdigit() and len(one) < 4):
        name = f"{day}.{number}"
        pair = {"name": name, "from": form.get(f"{name}.from", ""), "to": form.get(f"{name}.to", "")}
        if pair["from"] or pair["to"]:
            pairs.append(pair)
    return pairs


def problems_of(refused: Refused | None, voice: Voice) -> dict[str, str]:
    """Field → sentence; what belongs to no field of a form stands under the empty name."""
    if refused is None:
        return {}
    if isinstance(refused, FormRefused):
        return {field: voice.t(f"refused.{word}") for field, word in refused.problems.items()}
    sentence = voice.t(f"refused.{refused.reason}")
    whole_form = isinstance(refused, Conflict) and refused.field != "code"
    return {"" if whole_form or refused.field in {"site", "hours"} else refused.field: sentence}


# History -------------------------------------------------------------------------------------------------------------------------------


def parts_of(one: Changed, voice: Voice, tree: Tree) -> list[str]:
    """What an edit changed, field by field; additions and removals say enough by themselves."""
    if one.kind.endswith(".hours"):
        old, new = one.detail["hours"]
        change = voice.t(
            "site.changed", field=voice.t("site.field.hours"), old=week_sentence(voice, old), new=week_sentence(voice, new)
        )
        return [voice.t("site.hoursFrom", day=one.detail["from"]), change]
    if not one.kind.endswith(".edit"):
        return []
    return [
        voice.t(
            "site.changed",
            field=voice.t(f"site.field.{name}"),
            old=_value(name, pair[0], voice, tree),
            new=_value(name, pair[1], voice, tree),
        )
        for name, pair in one.detail.items()
    ]


def _value(name: str, value: Any, voice: Voice, tree: Tree) -> str:
    if value in {None, ""}:
        return voice.t("site.nothing")
    if name in {"area", "parent"} and value in tree.by_code:
        return tree.by_code[value].name(voice.lang)
    if name == "kind":
        return kind_word(voice, value)
    if name == "network" and value in drafts.NETWORKS:
        return voice.t(f"network.{value}")
    return str(value)


def removed_of(row: Mapping[str, Any], voice: Voice) -> dict[str, Any]:
    what, _, code = row["subject"].partition(":")
    detail = json.loads(row["detail"])
    name = name_of({**detail, "code": code}, voice.lang)
    return {"at_ms": row["at_ms"], "by": row["set_by"], "what": voice.t(f"site.was.{what}"), "code": code, "name": name}
